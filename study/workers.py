"""The work of a study: jobs that are done once, here by several processes or one by one, and what is known of each run."""

import csv
import ctypes
import json
import os
import platform
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from core.ending import STOPPED
from core.errors import Diverged, Stopped, UserError, in_a_line
from core.files import lock, write_csv, write_text
from report.tables import markdown
from study.planning import Plan, Planned, Study, label

PARENT_DIED = 1  # Linux's name for "send me a signal when my parent ends"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
DONE, FAILED, RUNNING, ELSEWHERE = "done", "failed", "running", "elsewhere"


# ---------------------------------------------------------------- what is known of a run


def status_of(study: Study, key: str) -> dict:
    """What is written of a run: its state, and what belongs to it; nothing where it has not begun."""
    try:
        return json.loads((study.folder / key / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def is_done(study: Study, key: str) -> bool:
    """Whether a run is trained, is still there, and was scored on the test images that are asked for."""
    status = status_of(study, key)
    asked = status.get("state") == DONE and status.get("limit_test") == study.limit_test
    return asked and all(
        path.is_file()
        for path in (study.folder / key / "scores.csv", run_folder(study, key) / "best.pth")
    )


def run_folder(study: Study, key: str) -> Path:
    """Where a run that is done wrote, wherever the study's folder has been moved since."""
    return study.folder / key / "runs" / Path(status_of(study, key)["run"]).name


def tell(study: Study, key: str, state: str, **more) -> None:
    folder = study.folder / key
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "status.json", json.dumps({"state": state, **more}, indent=1) + "\n")


def is_held(study: Study, key: str) -> bool:
    """Whether a process is at work on a run."""
    if not (study.folder / key).is_dir():
        return False
    try:
        with lock(study.folder / key / ".job.lock"):
            return False
    except UserError:
        return True


def state_of(study: Study, key: str) -> str:
    """The state of a run, as its files tell: done, running, broken off, failed, or waiting."""
    if is_done(study, key):
        return DONE
    state = status_of(study, key).get("state")
    if state != FAILED and is_held(study, key):
        return RUNNING
    return {RUNNING: "broken off", FAILED: FAILED}.get(state, "waiting")


def states(study: Study) -> dict[str, str]:
    return {key: state_of(study, key) for key in study.runs}


def read_scores(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return [
            {name: value if name == "image" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def asked(study: Study) -> str:
    """What a study asks, as a file that asks it again."""
    import yaml

    return yaml.safe_dump(study.text, sort_keys=False, allow_unicode=True)


def begin(study: Study) -> None:
    """Says in the study's folder what is asked."""
    write_text(study.folder / "study.yml", asked(study))


def failures(study: Study) -> dict[str, str]:
    """The runs that failed, and why."""
    return {
        key: status_of(study, key).get("error", "")
        for key, state in states(study).items()
        if state == FAILED
    }


def complain(study: Study, keys: Iterable[str]) -> None:
    """Ends with the runs that failed, if there are any."""
    bad = {key: why for key, why in failures(study).items() if key in set(keys)}
    if bad:
        said = "; ".join(f"{key}: {why}" for key, why in list(bad.items())[:5])
        raise UserError(
            f"{len(bad)} of {len(study.runs)} runs failed ({said}): the same command tries them again"
        )


def tell_states(study: Study) -> dict:
    """Prints how far the runs are."""
    found = states(study)
    rows: dict[str, dict] = {}
    for key, state in found.items():
        row = rows.setdefault(in_words(study.runs[key]), {"": in_words(study.runs[key])})
        row[state] = row.get(state, 0) + 1
    print(markdown(list(rows.values())))
    for key, why in failures(study).items():
        print(f"{key}: {why}")
    counts = {state: list(found.values()).count(state) for state in dict.fromkeys(found.values())}
    print(
        ", ".join(f"{count} {state}" for state, count in counts.items())
        + f" of {len(found)} runs in {len(study.jobs)} jobs"
    )
    return counts


def in_words(run: Planned) -> str:
    """A run without its seed."""
    return ", ".join([run.role, *(f"{name} {label(value)}" for name, value in run.setting.items())])


class Telling:
    """A line for every job that ends."""

    def __init__(self, study: Study, jobs: int):
        self.study, self.jobs, self.ended, self.began = study, jobs, 0, time.perf_counter()

    def __call__(self, keys: list[str], result: dict[str, str]) -> None:
        self.ended += 1
        for key in keys:
            if result[key] not in (DONE, FAILED, ELSEWHERE) and not is_done(
                self.study, key
            ):  # a process that died could not say so
                tell(self.study, key, FAILED, error=result[key])
        good = [key for key in keys if result[key] == DONE]
        scores = [
            statistics.mean(
                row[score_of(row)] for row in read_scores(self.study.folder / key / "scores.csv")
            )
            for key in good
        ]
        said = f"{statistics.mean(scores):.3f}" if scores else ""
        bad = "; ".join(
            dict.fromkeys(
                status_of(self.study, key).get("error") or result[key]
                for key in keys
                if key not in good
            )
        )
        taken = f"{time.perf_counter() - self.began:.0f} s"
        print(
            in_a_line(
                f"[{self.ended}/{self.jobs}] {in_words(self.study.runs[keys[0]])}: {len(good)} of {len(keys)} done {said} {bad}, {taken}"
            ),
            flush=True,
        )


def score_of(row: dict) -> str:
    """What is compared: PSNR in dB, or top-1 in per cent."""
    return "psnr" if "psnr" in row else "top1"


def default_jobs() -> int:
    """One process a GPU, else one a core."""
    return len(gpus()) or len(cores())


# ---------------------------------------------------------------- one job


def do(study: Study, plan: Plan, keys: list[str], patient: bool = False) -> dict[str, str]:
    """Trains and scores the runs of a job, beside each other; the state of each. One that fails takes no other with it.

    What another process is at work on is left to it, or with `patient` waited for.
    """
    with ExitStack() as held:
        try:
            for key in sorted(keys):  # in one order, so that no two wait for each other
                held.enter_context(lock(study.folder / key / ".job.lock", wait=patient))
        except UserError:
            return dict.fromkeys(keys, ELSEWHERE)
        left = [key for key in keys if not is_done(study, key)]
        error = attempt(study, plan, left)
        if error and len(left) > 1:
            for key in left:
                attempt(study, plan, [key])
        return {key: DONE if is_done(study, key) else FAILED for key in keys}


def attempt(study: Study, plan: Plan, keys: list[str]) -> str:
    """Trains and scores runs; what they print is in their folders. Why it failed, if it did."""
    if not keys:
        return ""
    with (
        open(study.folder / keys[0] / "log.txt", "a") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            for key in keys:
                tell(
                    study,
                    key,
                    RUNNING,
                    process=os.getpid(),
                    machine=platform.node(),
                    since=time.strftime("%Y-%m-%d %H:%M:%S"),
                )
            for key, (rows, more) in train(study, plan, [study.runs[key] for key in keys]).items():
                write_csv(study.folder / key / "scores.csv", rows)
                tell(study, key, DONE, **more)
            return ""
        except (
            Exception,
            SystemExit,
        ) as error:  # whatever it is, the other runs of the study go on
            known = isinstance(error, UserError | Diverged | OSError)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            traceback.print_exc()
            for key in keys:
                tell(study, key, FAILED, error=why)
            return why


def train(study: Study, plan: Plan, runs: list[Planned]) -> dict[str, tuple[list[dict], dict]]:
    """The scores of every test image after the training of runs of one script, and what else is told of each."""
    from core import runtime
    from study.scoring import score_baselines, score_run
    from training import setup

    for run in runs:
        if run.teacher and not is_done(study, run.teacher):
            raise UserError(f"its teacher {run.teacher} is {state_of(study, run.teacher)}")
    script = plan.script_of(runs[0].script)
    given = [script.parse(plan.words(run)) for run in runs]
    device = runtime.start(given[0].device)
    if hasattr(script, "prepare"):  # all but progressive_distill.py, which trains in turn
        results = setup.train_together(
            lambda args, companion: script.prepare(args, device, companion), given
        )
    else:
        results = [script.main(args) for args in given]
        results = [result["rungs"][-1] if "rungs" in result else result for result in results]
    found = {}
    for run, args, result in zip(runs, given, results, strict=True):
        rows, parameters = score_run(Path(result["checkpoint"]), args, study.limit_test, device)
        first = run.role == "alone" and run.seed == min(plan.seeds)
        baselines = (
            score_baselines(Path(result["checkpoint"]), args, study.limit_test, device)
            if first
            else {}
        )
        for name, scores in baselines.items():
            write_csv(study.folder / run.key / f"anchor_{name}.csv", scores)
        seconds = sum(
            row["seconds"] for row in json.loads((Path(result["run"]) / "metrics.json").read_text())
        ) / len(runs)
        more = {
            "run": Path(result["run"]).name,
            "parameters": parameters,
            "seconds": round(seconds, 2),
            "limit_test": study.limit_test,
        }
        found[run.key] = rows, more | {"anchors": list(baselines)}
    return found


# ---------------------------------------------------------------- several processes


class Worker(NamedTuple):
    """A process that does jobs."""

    process: object
    pipe: Connection


class Pool:
    """Processes that do jobs, each on cores or a GPU of its own; `serve` is what they do with their place and what they are given."""

    def __init__(self, count: int, serve: Callable, given: tuple):
        self.context, self.serve, self.given = get_context("spawn"), serve, given
        self.idle: list[tuple[dict, Worker | None]] = [(place, None) for place in places(count)]
        self.busy: dict[Connection, tuple[dict, Worker, list[str], bool]] = {}
        self.asked: list[int] = []

    def __enter__(self) -> "Pool":
        self.before = {
            number: signal.signal(number, lambda number, _: self.asked.append(number))
            for number in SIGNALS
        }
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        for _, worker in self.idle:
            if worker:
                worker.pipe.close()
                worker.process.join()

    def begun(self, place: dict) -> Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=self.serve, args=(theirs, place, *self.given), daemon=True
        )
        process.start()
        theirs.close()
        return Worker(process, ours)

    def run(
        self, jobs: list[list[str]], finished: Callable[[list[str], dict[str, str]], None]
    ) -> None:
        """Gives every job to a process that is free, at last those that were found elsewhere; the runs of a process that dies have failed."""
        left = [(keys, False) for keys in reversed(jobs)]
        while left or self.busy:
            if self.asked:
                self.stop(self.asked[0])
            while left and self.idle:
                place, worker = self.idle.pop()
                worker, (keys, patient) = (
                    worker if worker and worker.process.is_alive() else self.begun(place),
                    left.pop(),
                )
                worker.pipe.send((keys, patient))
                self.busy[worker.pipe] = place, worker, keys, patient
            for pipe in wait(list(self.busy), timeout=0.5):
                place, worker, keys, patient = self.busy.pop(pipe)
                try:
                    result = pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    result, worker = (
                        dict.fromkeys(
                            keys, f"its process ended with code {worker.process.exitcode}"
                        ),
                        None,
                    )
                self.idle.append((place, worker))
                if ELSEWHERE in result.values() and not patient:
                    left.insert(0, (keys, True))
                else:
                    finished(keys, result)

    def stop(self, number: int) -> None:
        """Every run that is being trained is saved before its process ends."""
        working = [worker.process for _, worker, _, _ in self.busy.values()]
        for process in working:
            os.kill(process.pid, signal.SIGTERM)
        for process in working:
            process.join()
        raise Stopped(
            f"{signal.Signals(number).name}; the runs are saved, and the same command goes on"
        )


def gpus() -> list[str]:
    """The GPUs of NVIDIA that this process may use, counted without torch."""
    seen, known = os.environ.get("CUDA_VISIBLE_DEVICES"), Path("/proc/driver/nvidia/gpus")
    if seen is not None:
        return [name for name in seen.split(",") if name]
    return [str(k) for k in range(len(list(known.iterdir())))] if known.is_dir() else []


def cores() -> list[int]:
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def places(count: int) -> list[dict]:
    """For every process its share of the cores, and its GPU."""
    share = max(1, len(cores()) // count)
    own = [[cores()[(k * share + i) % len(cores())] for i in range(share)] for k in range(count)]
    return [
        {"cores": own[k], "gpu": gpus()[k % len(gpus())] if gpus() else None} for k in range(count)
    ]


def settle(place: dict) -> None:
    """This process takes its place; signals of the terminal are its parent's, with which it ends."""
    os.setpgrp()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGTERM)
    if place["gpu"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place["gpu"]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, place["cores"])
    import torch

    torch.set_num_threads(len(place["cores"]))


def serve(pipe: Connection, job: Callable[[list[str], bool], dict[str, str]]) -> None:
    """Does jobs until there are no more; an error of the disk is told instead of written."""
    try:
        while True:
            keys, patient = pipe.recv()
            try:
                result = job(keys, patient)
            except OSError as error:
                result = dict.fromkeys(keys, str(error))
            pipe.send(result)
    except EOFError:
        return
    except Stopped:
        sys.exit(STOPPED)
