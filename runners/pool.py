"""A pool of processes, each on cores or a GPU of its own, that does jobs of several runs."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from core.ending import STOPPED
from core.errors import Stopped

ELSEWHERE = "elsewhere"  # the state of a run on which another process works
PARENT_DIED = 1  # Linux's PR_SET_PDEATHSIG: a signal to this process when its parent ends
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

Result = dict[str, str]  # the state of every run of a job, or why there is none


@dataclass(frozen=True)
class Worker:
    """A process that does jobs."""

    process: BaseProcess
    pipe: Connection


@dataclass(frozen=True)
class Assignment:
    """A job that a worker does; with `wait` it waits for runs of other processes."""

    place: dict
    worker: Worker
    keys: list[str]
    wait: bool


class Pool:
    """Worker processes; `serve` runs in each, with its pipe, its place and `arguments`."""

    def __init__(self, count: int, serve: Callable, arguments: tuple):
        self.context, self.serve, self.arguments = get_context("spawn"), serve, arguments
        self.idle: list[tuple[dict, Worker | None]] = [(place, None) for place in places(count)]
        self.busy: dict[Connection, Assignment] = {}
        self.signals: list[int] = []

    def __enter__(self) -> "Pool":
        self.handlers = {
            number: signal.signal(number, lambda number, _: self.signals.append(number))
            for number in SIGNALS
        }
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        for _, worker in self.idle:
            if worker:
                worker.pipe.close()
                worker.process.join()

    def start_worker(self, place: dict) -> Worker:
        ours, theirs = self.context.Pipe()
        arguments = (theirs, place, *self.arguments)
        process = self.context.Process(target=self.serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours)

    def run(self, jobs: list[list[str]], report: Callable[[list[str], Result], None]) -> None:
        """Gives every job to an idle worker; jobs of other processes come last.

        The runs of a worker that dies have failed.
        """
        left = [(keys, False) for keys in reversed(jobs)]
        while left or self.busy:
            if self.signals:
                self.stop(self.signals[0])
            while left and self.idle:
                self.assign(*left.pop())
            for pipe in cast(list[Connection], wait(list(self.busy), timeout=0.5)):
                done = self.busy.pop(pipe)
                result = self.receive(done)
                if ELSEWHERE in result.values() and not done.wait:
                    left.insert(0, (done.keys, True))
                else:
                    report(done.keys, result)

    def assign(self, keys: list[str], wait: bool) -> None:
        place, worker = self.idle.pop()
        if not (worker and worker.process.is_alive()):
            worker = self.start_worker(place)
        worker.pipe.send((keys, wait))
        self.busy[worker.pipe] = Assignment(place, worker, keys, wait)

    def receive(self, done: Assignment) -> Result:
        """The result of a job; its worker is idle again, or dead."""
        process = done.worker.process
        try:
            result = done.worker.pipe.recv()
            self.idle.append((done.place, done.worker))
        except (EOFError, OSError):
            process.join()
            error = f"its process ended with code {process.exitcode}"
            result = dict.fromkeys(done.keys, error)
            self.idle.append((done.place, None))
        return result

    def stop(self, number: int) -> None:
        """Every run that is being trained is saved before its process ends."""
        working = [assignment.worker.process for assignment in self.busy.values()]
        for process in working:
            assert process.pid is not None, "a worker that has a job was started"
            os.kill(process.pid, signal.SIGTERM)
        for process in working:
            process.join()
        raise Stopped(
            f"{signal.Signals(number).name}; the runs are saved, and the same command resumes them"
        )


# ---------------------------------------------------------------- places


def default_jobs() -> int:
    """One process a GPU, else one a core."""
    return len(gpus()) or len(cores())


def gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, counted without torch."""
    visible, folder = os.environ.get("CUDA_VISIBLE_DEVICES"), Path("/proc/driver/nvidia/gpus")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(k) for k in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def places(count: int) -> list[dict]:
    """For every process its share of the cores, and its GPU."""
    share = max(1, len(cores()) // count)
    return [
        {
            "cores": [cores()[(k * share + i) % len(cores())] for i in range(share)],
            "gpu": gpus()[k % len(gpus())] if gpus() else None,
        }
        for k in range(count)
    ]


# ---------------------------------------------------------------- in the worker


def take_place(place: dict) -> None:
    """Binds this process to its cores and GPU, and its life to its parent's.

    Signals of the terminal reach the parent alone.
    """
    os.setpgrp()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGTERM)
    if place["gpu"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place["gpu"]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, place["cores"])
    import torch

    torch.set_num_threads(len(place["cores"]))


def serve_jobs(pipe: Connection, job: Callable[[list[str], bool], Result]) -> None:
    """Does jobs until the pipe is closed; sends an error of the disk, which may be full."""
    try:
        while True:
            keys, wait = pipe.recv()
            try:
                result = job(keys, wait)
            except OSError as error:
                result = dict.fromkeys(keys, str(error))
            pipe.send(result)
    except EOFError:
        return
    except Stopped:
        sys.exit(STOPPED)
