"""Kills, floods, flips and races trainings: `python -m tests.drill` counts what survives each fault, and fails if anything is lost.

A try gets a folder, random numbers and its number; it raises where a promise is broken. Trainings run in forked processes, which
have imported everything already: what is drilled is the training and not the interpreter.
"""

import argparse
import importlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from checkpoints import checkpoint  # noqa: E402
from cli import flags  # noqa: E402
from core.errors import UserError  # noqa: E402
from core.runs import runs_of  # noqa: E402
from core.runtime import SIGNALS  # noqa: E402
from recordings.file import read_recording, read_truth  # noqa: E402
from tests import blank  # noqa: E402
from training import loop, tracking  # noqa: E402

for name in (
    "main_classify",
    "preparation.classification",
    "evaluation.classification",
    "sklearn.covariance",
    "sklearn.datasets",
    "torch._dynamo",
):
    importlib.import_module(name)  # once, and not in every process

SHARED = ROOT.parent / "shared" / "data" / "upstream_unet"
COMMON = "--dataset digits --n 16 --limit_train 30 --limit_val 10 --batch_size 10 --device cpu --wandb disabled"
NARROW = f"{COMMON} --width 4"
TRAININGS = {  # every script that trains, each with what is hard to resume
    "main_unet": f"{NARROW} --cr 0.25 --awgn_snr 20 --ema 0.9 --batch_norm on --x0 lmmse",
    "main_unet_dist": f"{COMMON} --width 2 --cr 0.25 --awgn_snr 20 --loss_distill hint comb_matrix:0.1 --teacher TEACHER",
    "progressive_distill": f"{NARROW} --ladder 0.5 0.25 --limit_test 10 --awgn_snr 20 --type_dist latent",
    "main_classify": f"{COMMON} --model vgg16 --width 1",
    "main_classify_dist": f"{NARROW} --model resnet8 --loss_distill kd crd ft --prepare_epochs 2 --teacher CLASSIFIER",
}
LENGTH = ["--epochs", "6", "--val_every", "5", "--save_every", "2"]
ENDLESS = ["--steps", "1000000", "--val_every", "20", "--save_every", "2"]


def script_of(number: int) -> str:
    return list(TRAININGS)[number % len(TRAININGS)]


@cache
def ground() -> Path:
    """A folder for what all tries share."""
    return Path(tempfile.mkdtemp(prefix="drill_"))


@cache
def teacher(name: str) -> str:
    """The exported file of a teacher."""
    script, words = {
        "TEACHER": ("main_unet", f"{NARROW} --cr 0.5"),
        "CLASSIFIER": ("main_classify", f"{NARROW} --model resnet8"),
    }[name]
    code, printed = ran(script, f"{words} --epochs 1".split(), ground() / name)
    assert code == 0, printed
    results = ground() / name / "results"
    (run,) = runs_of(results)
    return str(results / "trained_models" / run.kept)


def taught(line: str) -> list[str]:
    """The words of a line, with the paths of the teachers."""
    return [teacher(word) if word in ("TEACHER", "CLASSIFIER") else word for word in line.split()]


def words_of(script: str) -> list[str]:
    return taught(TRAININGS[script])


def endless_of(script: str) -> list[str]:
    """Without an end; of a ladder the first rung, as the others are main_unet_dist.py's."""
    return [
        word for word in words_of(script) if word != "0.25" or script != "progressive_distill"
    ] + ENDLESS


class Process:
    """A script in a process of its own; `before` is called in it first."""

    def __init__(
        self, script: str, words: list[str], folder: Path, before: Callable[[], None] = lambda: None
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.ear, mouth = os.pipe()  # no limit on the size of files holds for it
        os.set_blocking(self.ear, False)
        self.heard, self.code, self.pid = b"", None, os.fork()
        if not self.pid:
            self._become(script, words, folder, mouth, before)
        os.close(mouth)

    def _become(
        self, script: str, words: list[str], folder: Path, mouth: int, before: Callable[[], None]
    ) -> None:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            os.dup2(os.open("stdout.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(mouth, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            sys.argv = [f"{script}.py", *words]
            before()
            module = importlib.import_module(script)
            flags.run(module.parse, module.main)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(code)

    @property
    def printed(self) -> str:
        """Its standard error so far."""
        with suppress(BlockingIOError):
            while more := os.read(self.ear, 1 << 16):
                self.heard += more
        return self.heard.decode()

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self, seconds: float = 120) -> int:
        """The exit code."""
        until(self.ended, seconds)
        return self.code

    def kill(self) -> None:
        """Ends it and its workers."""
        if not self.ended():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        os.close(self.ear)


def until(there: Callable[[], bool], seconds: float = 60, alive: Process | None = None) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"nothing within {seconds:g} s"
        assert alive is None or not alive.ended(), alive.printed
        time.sleep(0.005)


def ran(
    script: str, words: list[str], folder: Path, before: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """The exit code of a whole run, and what it said on standard error."""
    with Process(script, words, folder, before) as process:
        return process.wait(), process.printed


def refused(code_said: tuple[int, str], *parts: str, code: int = 2) -> None:
    """One line, this exit code, and these words in it."""
    found, printed = code_said
    assert found == code and printed.count("\n") == 1 and all(part in printed for part in parts), (
        found,
        printed,
    )


def timeless(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "seconds"}


def state(folder: Path) -> dict:
    """All that a training leaves behind: rows, weights, and the whole state to resume from."""
    left = {}
    results = folder / "results"
    for run in sorted((results / "runs").iterdir()):
        rows = json.loads((run / "metrics.json").read_text())
        assert len((run / "metrics.csv").read_text().splitlines()) == len(rows) + 1
        last = checkpoint.read(run / "last.pth")["resume"]
        assert rows == last["rows"] and [row["step"] for row in rows] == sorted(
            {row["step"] for row in rows}
        )
        best = checkpoint.read(run / "best.pth")
        left[run.name] = [
            list(map(timeless, rows)),
            last | {"rows": None},
            best["weights"],
            best["epoch"],
        ]
        assert not list(run.glob(".*tmp*")), "strays"
    for path in sorted((results / "trained_models").glob("*.pth")):
        left[path.name] = checkpoint.read(path)["weights"]
    return left


def assert_same(a, b, where: str = "") -> None:
    """Equal to the last bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), (where, a.keys() ^ b.keys())
        for name in a:
            assert_same(a[name], b[name], f"{where}/{name}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for k, both in enumerate(zip(a, b, strict=True)):
            assert_same(*both, f"{where}/{k}")
    else:
        assert a == b or (a != a and b != b), (where, a, b)


@cache
def uninterrupted(script: str) -> tuple[dict, float]:
    """What a training leaves behind that nothing disturbed, and how long it took."""
    folder, began = ground() / f"whole_{script}", time.monotonic()
    code, printed = ran(script, [*words_of(script), *LENGTH], folder)
    assert code == 0, printed
    return state(folder), time.monotonic() - began


def goes_on_equal(script: str, folder: Path, *more: str) -> None:
    """The repeated command ends as if nothing had happened."""
    code, printed = ran(script, [*words_of(script), *LENGTH, *more], folder)
    assert code == 0, printed
    assert_same(state(folder), uninterrupted(script)[0])


def last_of(folder: Path) -> Path | None:
    """The newest state of a training that is under way."""
    found = [*folder.glob("results/runs/*/last.pth")]
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def under_way(folder: Path) -> bool:
    """Whether a training has made and saved a step."""
    last = last_of(folder)
    return last is not None and checkpoint.read(last)["resume"]["steps"] > 0


@contextmanager
def endless(script: str, folder: Path, *more: str, before: Callable[[], None] = lambda: None):
    """A training that does not end by itself, from its first save on."""
    with Process(script, [*endless_of(script), *more], folder, before) as process:
        until(lambda: under_way(folder), alive=process)
        yield process


# ---------------------------------------------------------------- the faults


def killed_while_saving(folder: Path, chance: random.Random, _: int) -> None:
    """A reader finds the old checkpoint or the new one, and so does who comes back after the kill."""
    path, before = folder / "last.pth", folder / "last_before.pth"
    save_back_to_back(path, before, chance.random() * 0.05)
    numbers = {name: checkpoint.read(name)["resume"] for name in (path, before) if name.exists()}
    assert path in numbers, "no last.pth"
    assert before not in numbers or numbers[before] in (numbers[path], numbers[path] - 1), numbers


def save_back_to_back(path: Path, before: Path, seconds: float) -> None:
    """Saves in a child for a while behind the first save; then it is killed."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            content = {"weights": {"a": torch.rand(20_000)}, "format": checkpoint.FORMAT}
            for k in range(10**9):
                checkpoint.write(path, content | {"resume": k}, before)
        os._exit(1)
    try:
        until(path.exists)
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def killed_anywhere(folder: Path, chance: random.Random, number: int) -> None:
    script = script_of(number)
    _, seconds = uninterrupted(script)
    workers = ["--num_workers", str(2 * (number % 2))]
    while True:
        with Process(script, [*words_of(script), *LENGTH, *workers], folder) as process:
            time.sleep(seconds * chance.random())
            if not process.ended():
                process.kill()
                break
        shutil.rmtree(folder)
    goes_on_equal(script, folder, *workers)


def stopped_within_an_epoch(folder: Path, chance: random.Random, number: int) -> None:
    """At a random step, by a signal in its middle."""
    script, asked = script_of(number), SIGNALS[number % 3]
    when = chance.randrange(17)
    code, printed = ran(
        script, [*words_of(script), *LENGTH], folder, lambda: signalled(when, asked)
    )
    refused(
        (code, printed),
        f"stopped: {asked.name}; step {when + 1} of",
        "the same command resumes",
        code=75,
    )
    goes_on_equal(script, folder, "--num_workers", str(2 * (number // 5 % 2)))


def signalled(when: int, number: int) -> None:
    """A signal to ourselves within a step."""
    step = loop.Fit.step

    def within(self, batch):
        if self.steps == when:
            os.kill(os.getpid(), number)
        return step(self, batch)

    loop.Fit.step = within


def signal_from_outside(folder: Path, chance: random.Random, number: int) -> None:
    """To the whole group, loaders and all; the end comes within five seconds, with a second signal within one."""
    script, asked, twice = script_of(number), SIGNALS[number % 3], number % 4 == 3
    more = ["--num_workers", "2"] if number % 2 else []
    with endless(script, folder, *more, before=dawdle if twice else lambda: None) as process:
        if twice:
            until((folder / "slow").exists, alive=process)
        time.sleep(chance.random())
        began = time.monotonic()
        os.killpg(process.pid, asked)
        if twice:
            time.sleep(0.3)
            os.killpg(process.pid, asked)
            assert process.wait(1.5) == -asked, process.code
        else:
            refused((process.wait(5), process.printed), f"stopped: {asked.name}", code=75)
        assert time.monotonic() - began < 5
        assert checkpoint.read(last_of(folder))["resume"]["steps"] > 0


def dawdle() -> None:
    """Steps that take long, and say so."""
    step = loop.Fit.step

    def slow(self, batch):
        if self.steps > 4:
            Path("slow").touch()
            time.sleep(30)
        return step(self, batch)

    loop.Fit.step = slow


def disk_is_full(folder: Path, chance: random.Random, number: int) -> None:
    """The limit on the size of files falls while a training runs: one line that names a file, and the old files stay."""
    script = script_of(number)
    with endless(script, folder) as process:
        size = chance.choice([0, 100, 4000])
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
        refused((process.wait(), process.printed), "File too large")
    whole_and_swept(folder)


def whole_and_swept(folder: Path) -> None:
    (run,) = (folder / "results" / "runs").iterdir()
    assert checkpoint.read(run / "last.pth")["resume"]["steps"] > 0 and not list(run.glob(".*tmp*"))


def folder_is_read_only(folder: Path, _: random.Random, number: int) -> None:
    """Of another user, or below a file; results are refused in a line that names the place, and nothing else is written."""
    script, place = script_of(number), folder / "place"
    if number % 2:
        place.write_text("a file")
        words, name = [*words_of(script), *LENGTH, "--results", str(place / "results")], "place"
        refused(ran(script, words, folder / "at"), name)
        assert place.read_text() == "a file"
        return
    place.mkdir(mode=0o555)
    teachers = [Path(word) for word in words_of(script) if word.endswith(".pth")]
    for parent in (folder, *(parent for path in (folder, *teachers) for parent in path.parents)):
        with suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o055)
    (folder / "at").mkdir()
    words = [*words_of(script), *LENGTH, "--results", str(place / "results")]
    refused(
        ran(script, words, folder / "at", lambda: nobody(script, words)),
        "place",
        "ermission denied",
    )
    assert not list(place.iterdir())


def nobody(script: str, words: list[str]) -> None:
    """Gives up the rights of root, for whom no folder is read-only, once all is imported that nobody may be unable to read."""
    if os.getuid() == 0:
        module = importlib.import_module(script)
        module.main(module.parse([*words, "--dry_run"]))
        os.environ["HOME"] = "/nonexistent"
        os.setgid(65534)
        os.setuid(65534)


def device_is_full(folder: Path, _: random.Random, number: int) -> None:
    """What a run says goes to a full device."""
    script = script_of(number)

    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    code, printed = ran(script, [*words_of(script), *LENGTH], folder, full)
    assert code == 2 and printed.count("\n") == 1 and "No space left" in printed, (code, printed)


@cache
def example() -> Path:
    """A whole checkpoint."""
    return Path(teacher("TEACHER"))


def cut_or_flipped(folder: Path, chance: random.Random, number: int) -> None:
    """Cut at four points, then random bits of the file."""
    whole = bytearray(example().read_bytes())
    if number < 4:
        whole = whole[: len(whole) * number // 4]
    else:
        place = chance.randrange(8 * len(whole))
        whole[place // 8] ^= 1 << place % 8
    path = folder / "damaged.pth"
    path.write_bytes(whole)
    try:
        checkpoint.restore(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        raise AssertionError("read without a word")


def damaged_state(folder: Path, chance: random.Random, number: int) -> None:
    """A run whose last state is damaged falls back to the one before it, says so, and ends equal."""
    script, when = script_of(number), 12 + chance.randrange(3)
    words = [*words_of(script), *LENGTH]
    code, printed = ran(script, words, folder, lambda: signalled(when, signal.SIGTERM))
    assert code == 75, printed
    last = last_of(folder)
    content = bytearray(last.read_bytes())
    content[chance.randrange(len(content))] ^= 255
    last.write_bytes(content)
    goes_on_equal(script, folder)
    assert "the run resumes from the state before it" in (folder / "stdout.txt").read_text()


class Canary:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


READING = {  # ways in which a file of another person is read
    "test_UNet": "--checkpoint FILE",
    "predict": "--checkpoint FILE --export safetensors",
    "compare_models": "FILE",
    "main_unet": f"{NARROW} --cr 0.25 --train_again FILE",
    "main_unet_dist": f"{NARROW} --cr 0.25 --teacher FILE",
    "progressive_distill": f"{NARROW} --redistill FILE --teacher FILE",
    "test_classify": "--checkpoint FILE --dataset digits",
    "main_classify_dist": f"{NARROW} --model resnet8 --teacher FILE",
}


def malicious(folder: Path, _: random.Random, number: int) -> None:
    """A pickle of the old form, one in a zip archive, and one under a good seal."""
    script = list(READING)[number % len(READING)]
    path, canary = folder / "stranger.pth", folder / "canary"
    if number // len(READING) % 2:
        content = checkpoint.read(example()) | {"config": Canary(canary)}
        torch.save(content, path)
        path.write_bytes(checkpoint.sealed(path.read_bytes()))
        with zipfile.ZipFile(path) as archive:
            assert b"touch" in archive.read(
                next(name for name in archive.namelist() if name.endswith("data.pkl"))
            )
    else:
        path.write_bytes(pickle.dumps({"weights": Canary(canary)}))
    refused(ran(script, READING[script].replace("FILE", str(path)).split(), folder), str(path))
    assert not canary.exists()


WRONG_CHECKPOINTS = [
    ("main_unet", "--train_again TEACHER --width 8", "width 4, not 8"),
    ("main_unet", "--train_again TEACHER --scales 3", "scales 2, not 3"),
    ("main_unet", "--train_again TEACHER --padding circular", "padding zeros, not circular"),
    ("main_unet", "--train_again TEACHER --c 3", "c 1, not 3"),
    ("main_unet", "--train_again CLASSIFIER", "a network that restores images is needed here"),
    (
        "main_unet_dist",
        "--teacher TEACHER --cr_teacher 0.9",
        "has cr 0.5, which contradicts the cr 0.9",
    ),
    (
        "main_unet_dist",
        "--teacher TEACHER --ordering_teacher strip",
        "has ordering xy, which contradicts the ordering strip",
    ),
    ("main_unet_dist", "--teacher TEACHER --n 32", "has n 16, which contradicts the n 32"),
    ("main_unet_dist", "--teacher TEACHER --c 3", "has c 1, which contradicts the c 3"),
    ("main_unet_dist", "--teacher TEACHER --init_student TEACHER --width 8", "width 4, not 8"),
    (
        "progressive_distill",
        "--redistill TEACHER --teacher TEACHER --width 8",
        "width 8 contradicts the checkpoint's 4",
    ),
    (
        "test_UNet",
        "--checkpoint TEACHER --scales 3",
        "has scales 2, which contradicts the scales 3",
    ),
    (
        "test_UNet",
        "--checkpoint TEACHER --padding release",
        "has padding zeros, which contradicts the padding release",
    ),
    ("test_UNet", "--checkpoint CLASSIFIER", "a network that restores images is needed here"),
    ("main_classify_dist", "--teacher TEACHER", "a classifier is needed here"),
    ("main_classify_dist", "--teacher CLASSIFIER --n 32", "has n 16, which contradicts the n 32"),
    ("test_classify", "--checkpoint TEACHER", "a classifier is needed here"),
]


def wrong_checkpoint(folder: Path, _: random.Random, number: int) -> None:
    """Expected and found are named before the first epoch."""
    script, words, printed = WRONG_CHECKPOINTS[number % len(WRONG_CHECKPOINTS)]
    own = {
        "main_unet": f"{NARROW} --cr 0.25",
        "main_unet_dist": f"{NARROW} --cr 0.25",
        "main_classify_dist": f"{NARROW} --model resnet8",
    }
    refused(ran(script, taught(f"{own.get(script, '--dataset digits')} {words}"), folder), printed)
    assert not (folder / "results").exists()


def bare_release(*_) -> None:
    """Its golden outputs, and the question for what the file does not tell."""
    golden = np.load(next(SHARED.glob("golden*.npz")))
    path = next(SHARED.glob("*.pth"))
    network, _ = checkpoint.restore_network(path)
    found = network(torch.from_numpy(golden["x0"])).detach()
    assert (found - torch.from_numpy(golden["output"])).abs().max() < 1e-5
    try:
        checkpoint.restore(path, {})
    except UserError as error:
        assert "n, cr and ordering must be given" in str(error)
    else:
        raise AssertionError("an ordering was guessed")


BROKEN = dict.fromkeys(("empty", "cut", "text", "bomb"), "is not a readable image") | {
    "1 x 1": "at most 2 times is allowed"
}
SOUND = ("16 bits", "CMYK")


def strange_picture(folder: Path, chance: random.Random, number: int) -> None:
    """A broken one is named and stops, or is left out and counted; a whole one of an unusual kind is read."""
    kind = (*BROKEN, *SOUND)[number % 7]
    classes = number // 7 % 2
    root = folder / "data"
    for k in range(20):
        path = root / ("train/" + ("ant", "bee")[k % 2] if classes else ".") / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(
            np.random.default_rng(k).integers(0, 256, (20, 22, 3), dtype=np.uint8)
        ).save(path)
    path = next(root.rglob(f"{chance.randrange(20):02d}.png"))
    path = spoil(path, kind)
    script = "main_classify" if classes else "main_unet"
    words = f"--dataset folder --data_root {root} --n 16 --epochs 1 --batch_size 8 --width 4 --device cpu".split()
    words += ["--model", "resnet8"] if classes else ["--cr", "0.25"]
    code, printed = ran(script, words, folder)
    if kind in SOUND:
        assert code == 0, printed
        return
    refused((code, printed), str(path), BROKEN[kind])
    assert not (folder / "results").exists()
    code, printed = ran(script, [*words, "--on_bad_image", "skip"], folder)
    assert (
        code == 0
        and f"1 pictures are left out as broken or too small: {path}"
        in (folder / "stdout.txt").read_text()
    ), printed


def spoil(path: Path, kind: str) -> Path:
    """Puts a strange picture in a good one's place."""
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "text":
        path.write_text("this is no picture")
    elif kind == "bomb":
        Image.new("1", (60_000, 60_000)).save(path)
    elif kind == "16 bits":
        Image.fromarray(
            np.random.default_rng(0).integers(0, 65536, (20, 22), dtype=np.uint16)
        ).save(path)
    elif kind == "1 x 1":
        Image.new("RGB", (1, 1)).save(path)
    else:
        path.unlink()
        path = path.with_suffix(".jpg")
        Image.new("CMYK", (20, 22), (9, 99, 199, 29)).save(path)
    return path


WRONG = [
    ("main_unet", "--cr 0"),
    ("main_unet", "--cr 1.5"),
    ("main_unet", "--cr nan"),
    ("main_unet", "--cr 0.1 --n 24"),
    ("main_unet", "--cr 0.1 --n 0"),
    ("main_unet", "--cr 0.1 --c 2"),
    ("main_unet", "--cr 0.1 --ordering best"),
    ("main_unet", "--cr 0.1 --network unet9"),
    ("main_unet", "--cr 0.1 --dataset nothing"),
    ("main_unet", "--cr 0.1 --dataset folder --data_root ."),
    ("main_unet", "--cr 0.1 --dataset npz --data_root nowhere.npz"),
    ("main_unet", "--cr 0.1 --dataset mnist --data_root ."),
    ("main_unet", "--cr 0.1 --epochs 0"),
    ("main_unet", "--cr 0.1 --lr -1"),
    ("main_unet", "--cr 0.1 --lr inf"),
    ("main_unet", "--cr 0.1 --run_name ../x"),
    ("main_unet", "--cr 0.1 --physics denoise"),
    ("main_unet", "--cr 0.1 --config nowhere.yml"),
    ("main_unet", "--cr 0.1 --nothing"),
    ("main_unet_dist", "--cr 0.1"),
    ("main_unet_dist", "--cr 0.1 --cr_teacher 0.5"),
    ("main_unet_dist", "--cr 0.1 --teacher nowhere.pth"),
    ("main_unet_dist", "--cr 0.1 --cr_teacher 0.5 --type_dist 13"),
    ("main_unet_dist", "--cr 0.1 --cr_teacher 0.5 --loss_distill mst"),
    ("progressive_distill", "--ladder 0.1 0.5"),
    ("progressive_distill", "--ladder 0.5 2"),
    ("progressive_distill", "--encoder_from nowhere.pth"),
    ("main_classify", "--model resnet9"),
    ("main_classify", "--model resnet8 --lessen_ratio 0.5"),
    ("main_classify_dist", "--model resnet8"),
    ("main_classify_dist", "--model resnet8 --teacher nowhere.pth --loss_distill kd:x"),
    ("test_UNet", ""),
    ("test_UNet", "--checkpoint nowhere.pth"),
    ("test_classify", "--checkpoint nowhere.pth"),
    ("predict", "--checkpoint nowhere.pth"),
    ("compare_models", "nowhere.pth"),
    ("analyze_features", "nowhere.pth --measures nothing"),
    ("visualize_mask_spc", "--cr 2"),
    ("main_unet", "--cr 0.5 --photons 0"),
    ("main_unet", "--cr 0.5 --dark_noise 3"),
    ("calibrate", "nowhere.npy nowhere.npy"),
    ("acquire", "simulate --dataset digits --cr 0.5"),
    ("acquire", "simulate --dataset digits --cr 2 --output lab.npz"),
    ("acquire", "import --output lab.npz"),
    ("acquire", "import --input nowhere.npy --output lab.npz"),
    ("main_unet", "--cr 0.1 --dataset recorded --data_root nowhere.npz"),
    ("main_unet", "--cr 0.1 --labels raw"),
    ("demo", "--task nothing"),
]


def wrong_words(folder: Path, chance: random.Random, number: int) -> None:
    """A table of bad command lines, then random words among the good ones."""
    if number < len(WRONG):
        script, line = WRONG[number]
        refused(ran(script, line.split(), folder), "error: ")
    else:
        script = script_of(number)
        words = [*words_of(script), *LENGTH]
        words[chance.randrange(len(words))] = chance.choice(
            ["--cr", "nan", "-1", "", "é\n", "1e400", "/", "--physics=blur", "9" * 99, "--seed"]
        )
        code, printed = ran(script, [*words, "--dry_run"], folder)
        assert (code == 0 and not printed) or (code == 2 and printed.count("\n") == 1), (
            code,
            printed,
            words,
        )
    assert not (folder / "results").exists()


def not_finite(folder: Path, chance: random.Random, number: int) -> None:
    """A gradient or a loss that is injected: named with its step and images, never saved."""
    script, when, where = (
        script_of(number),
        6 + chance.randrange(8),
        ("loss", "gradient")[number % 2],
    )
    code, printed = ran(script, [*words_of(script), *LENGTH], folder, lambda: poisoned(when, where))
    term = (
        "a gradient is"
        if where == "gradient"
        else "task is"
        if script != "progressive_distill"
        else "is"
    )
    refused(
        (code, printed),
        f"{term} not finite",
        f"step {when + 1}, a batch of training images",
        code=3,
    )
    content = checkpoint.read(last_of(folder))
    assert (
        all(tensor.isfinite().all() for tensor in content["weights"].values())
        and content["resume"]["steps"] <= when
    )
    goes_on_equal(script, folder)


def poisoned(when: int, where: str) -> None:
    """An Inf in the middle of a step."""
    forward = loop.Fit.forward

    def bad(self, batch, generator, progress):
        result = forward(self, batch, generator, progress)
        if self.steps == when and where == "gradient":
            next(w for w in self.weights if w.dim() > 1).register_hook(
                lambda gradient: gradient * float("inf")
            )
        elif self.steps == when:
            result["terms"]["task"] = result["terms"]["task"] * float("nan")
            result["loss"] = sum(result["terms"].values())
        return result

    loop.Fit.forward = bad


def two_in_one_folder(folder: Path, chance: random.Random, number: int) -> None:
    """One of two runs, and who comes when its owner is killed goes on."""
    script = script_of(number)
    with endless(script, folder, "--run_name", "r") as first:
        words = [*endless_of(script), "--run_name", "r"]
        began = time.monotonic()
        refused(
            ran(script, words, folder / "at", lambda: os.chdir(folder)),
            f"is in use by process {first.pid} ",
            "which is still running",
        )
        assert time.monotonic() - began < 1.5, "too late"
        first.kill()
        steps = checkpoint.read(last_of(folder))["resume"]["steps"]
        with Process(script, words, folder) as second:
            until(lambda: checkpoint.read(last_of(folder))["resume"]["steps"] > steps, alive=second)
            time.sleep(chance.random() * 0.1)


def race(folder: Path, _: random.Random, number: int) -> None:
    """Of two that begin together one runs."""
    script = script_of(number)
    words = [*endless_of(script), "--run_name", "r"]
    with (
        Process(script, words, folder / "a", lambda: os.chdir(folder)) as one,
        Process(script, words, folder / "b", lambda: os.chdir(folder)) as two,
    ):
        until(lambda: one.ended() or two.ended(), 30)
        loser, winner = (one, two) if one.ended() else (two, one)
        refused((loser.code, loser.printed), f"is in use by process {winner.pid} ")
        until(lambda: last_of(folder) is not None, alive=winner)


def without_wandb(folder: Path, _: random.Random, number: int) -> None:
    """No login, a wrong key and no network, not installed, a folder that cannot be written: the training ends well, with a line."""
    kind = ("no login", "no network", "not installed", "off")[number % 4]
    words = [word for word in words_of("main_unet") if word not in ("--wandb", "disabled")]
    mode = {
        "no login": "online",
        "no network": "online",
        "not installed": "offline",
        "off": "auto",
    }[kind]

    def before() -> None:
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            os.environ.pop(name, None)
        os.environ["HOME"] = str(folder)
        sys.stdin = open(os.devnull)  # noqa: SIM115
        if kind == "no network":
            os.environ |= {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
            tracking.TIMEOUT = 5
        if kind == "not installed":
            sys.modules["wandb"] = None

    began = time.monotonic()
    code, printed = ran("main_unet", [*words, *LENGTH, "--wandb", mode], folder, before)
    reported = (folder / "stdout.txt").read_text()
    assert code == 0, printed
    assert time.monotonic() - began < 90 and (kind == "off" or "wandb: " in reported), reported
    assert_same(state(folder), uninterrupted("main_unet")[0])


CAMERA = "--n 16 --cr 0.5 --noise 0.1"
SCENES = f"simulate --dataset digits {CAMERA} --frames 40 --test_frames 10"
ONSITE = "--dataset recorded --data_root lab.npz --cr 0.25 --width 2 --batch_size 10 --labels raw"


def adapting() -> list[str]:
    """The words of a student that is adapted to lab.npz."""
    return [*ONSITE.split(), "--teacher", teacher("TEACHER"), "--wandb", "disabled", *LENGTH]


@cache
def laboratory() -> Path:
    """A folder with a recording and its truth."""
    folder = ground() / "laboratory"
    folder.mkdir()
    code, printed = ran("acquire", [*SCENES.split(), "--output", "lab.npz"], folder)
    assert code == 0, printed
    return folder


def recording_changed(folder: Path, chance: random.Random, _: int) -> None:
    """A run that was killed does not resume with another recording, and resumes with its own."""
    shutil.copy(laboratory() / "lab.npz", folder)
    words = [*adapting(), "--run_name", "adapted"]
    with Process("main_unet_dist", words, folder) as process:
        until(lambda: last_of(folder) is not None or process.ended())
        process.kill()
    own = (folder / "lab.npz").read_bytes()
    seed = str(chance.randrange(1000))
    again = [*SCENES.split(), "--seed", seed, "--output", "lab.npz", "--overwrite"]
    assert ran("acquire", again, folder)[0] == 0
    refused(ran("main_unet_dist", words, folder), "another configuration", "recording")
    (folder / "lab.npz").write_bytes(own)
    code, printed = ran("main_unet_dist", words, folder)
    assert code == 0, printed


def killed_while_recording(folder: Path, chance: random.Random, _: int) -> None:
    """There is no recording, or a whole one with its truth; the same command makes it."""
    words = [*SCENES.split(), "--output", "lab.npz", "--overwrite"]
    with Process("acquire", words, folder) as process:
        time.sleep(chance.random() * 0.6)
        process.kill()
    if (folder / "lab.npz").exists():
        recording = read_recording(folder / "lab.npz")
        assert len(read_truth(folder / "lab_truth.npz", recording)) == 50
    code, printed = ran("acquire", words, folder)
    assert code == 0 and len(read_recording(folder / "lab.npz")) == 50, printed


def not_a_number(counts: np.ndarray) -> None:
    counts[1, 7] = np.nan


def negative(counts: np.ndarray) -> None:
    counts[1, 7] = -900


def saturated(counts: np.ndarray) -> None:
    counts[:] = counts.clip(max=np.quantile(counts, 0.4))


def dead(counts: np.ndarray) -> None:
    counts[2] = 0


SPOILED_COUNTS = {  # what is done to counts (frames, values), and what the message says
    "NaN": (not_a_number, "frame 1"),
    "negative": (negative, "negative"),
    "saturated": (saturated, "saturated"),
    "dead": (dead, "frame 2"),
}
SPOILED_FILES = ("cut", "flipped", "truth", "text", "absent")  # instead of a recording


def wrong_measurements(folder: Path, chance: random.Random, number: int) -> None:
    """Counts that do not fit are refused by the import, spoiled recordings by the training."""
    kinds = [*SPOILED_COUNTS, "count", "order", *SPOILED_FILES]
    kind = kinds[number % len(kinds)]
    if kind in SPOILED_FILES:
        path = folder / "lab.npz"
        content = (laboratory() / "lab.npz").read_bytes()
        place = chance.randrange(2000, len(content) - 2000)
        spoiled = {
            "cut": content[:place],
            "flipped": content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :],
            "truth": (laboratory() / "lab_truth.npz").read_bytes(),
            "text": b"frame, value",
        }
        if kind in spoiled:
            path.write_bytes(spoiled[kind])
        refused(ran("main_unet_dist", adapting(), folder), "lab.npz")
        assert not (folder / "results").exists()
        return
    counts = counts_of(chance)
    order, part = "natural", ""
    if kind in SPOILED_COUNTS:
        spoil_counts, part = SPOILED_COUNTS[kind]
        spoil_counts(counts)
    elif kind == "count":
        counts, part = counts[:, :-1], str(counts.shape[1] - 1)
    else:
        order, part = "alphabetical", "alphabetical"
    np.save(folder / "counts.npy", counts)
    words = f"import --input counts.npy --order {order} --pairs interleaved --output lab.npz"
    refused(ran("acquire", words.split(), folder), part)
    assert not (folder / "lab.npz").exists()


def counts_of(chance: random.Random) -> np.ndarray:
    """Counts (frames, 2 n²) of pairs of Hadamard patterns in natural order, interleaved."""
    rng = np.random.default_rng(chance.randrange(1000))
    x = rng.random((5, 64)) + 0.2
    patterns = scipy.linalg.hadamard(64)
    light = np.stack((x @ (1 + patterns), x @ (1 - patterns)), axis=-1) * 50
    return rng.poisson(light).reshape(5, -1).astype(float)


def rank_dies(folder: Path, chance: random.Random, number: int) -> None:
    """Both of two processes stop, the state is good, and the repeated command ends as two that nothing disturbed."""
    script = [name for name in TRAININGS if name != "main_classify"][number % 4]
    words = [*words_of(script), *LENGTH]
    with torchrun(script, words, folder) as process:
        until(lambda: under_way(folder) or process.poll() is not None)
        time.sleep(chance.random())
        ranks = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        assert process.poll() is None and len(ranks) == 2, "it ended too soon"
        os.kill(int(ranks[chance.randrange(2)]), signal.SIGKILL)
        assert process.wait(timeout=60) != 0
    whole_and_swept(folder) if script != "progressive_distill" else None
    for path in (folder, ground() / f"two_{script}"):
        with torchrun(script, words, path) as process:
            assert process.wait(timeout=120) == 0, (path / "stderr.txt").read_text()
    assert_same(state(folder), state(ground() / f"two_{script}"))


@contextmanager
def torchrun(script: str, words: list[str], folder: Path):
    """Two processes on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "--",
        str(ROOT / f"{script}.py"),
        *words,
    ]
    with open(folder / "stderr.txt", "w") as printed:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=printed,
            stderr=printed,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Fault(NamedTuple):
    """A fault, how one try goes, and how many tries the whole drill and the ordinary tests make."""

    name: str
    attempt: Callable[[Path, random.Random, int], None]
    tries: int
    few: int


FAULTS = [
    Fault("kill -9 while saving", killed_while_saving, 200, 10),
    Fault("kill -9 anywhere in a run", killed_anywhere, 20, 2),
    Fault("stopped within an epoch, resumed", stopped_within_an_epoch, 20, 5),
    Fault("SIGTERM, SIGINT, SIGUSR1 from outside", signal_from_outside, 20, 4),
    Fault("disk full", disk_is_full, 10, 2),
    Fault("folder read-only", folder_is_read_only, 10, 2),
    Fault("output to a full device", device_is_full, 5, 1),
    Fault("checkpoint cut or flipped", cut_or_flipped, 104, 30),
    Fault("last state damaged", damaged_state, 10, 1),
    Fault("malicious checkpoint", malicious, 16, 8),
    Fault("wrong architecture, ratio, ordering, padding, channels", wrong_checkpoint, 17, 17),
    Fault("release's .pth", bare_release, 1, 1),
    Fault("broken or strange picture", strange_picture, 14, 7),
    Fault("wrong words", wrong_words, 200, 50),
    Fault("NaN or Inf", not_finite, 10, 2),
    Fault("two runs, one folder", two_in_one_folder, 20, 2),
    Fault("two runs that begin together", race, 20, 2),
    Fault("no W&B", without_wandb, 4, 3),
    Fault("a recording that changed", recording_changed, 10, 1),
    Fault("kill -9 while recording", killed_while_recording, 20, 3),
    Fault("measurements that do not fit", wrong_measurements, 110, 11),
    Fault("a distributed rank dies", rank_dies, 4, 0),
]


def drilled(fault: Fault, tries: int, seed: int = 0) -> list[str]:
    """The tries that were lost, and why."""
    lost = []
    for number in range(tries):
        folder = ground() / f"{fault.attempt.__name__}_{number}"
        folder.mkdir()
        try:
            fault.attempt(folder, random.Random(f"{seed} {fault.name} {number}"), number)
        except (AssertionError, OSError, UserError, subprocess.SubprocessError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            lost.append(f"{fault.name}, try {number} (drill.py:{where.lineno}): {error}")
        else:
            shutil.rmtree(folder)
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="faults whose name holds one of these words"
    )
    parser.add_argument("--few", action="store_true", help="as many tries as the tests make")
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which faults strike")
    args = parser.parse_args()
    if args.list:
        print("\n".join(fault.name for fault in FAULTS))
        return
    blank.render(False)  # a picture that is written at the end of a run is a file like any other
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)  # sums of several threads round in another order
    began, lost = time.monotonic(), []
    print("| fault | tries | survived | seconds |\n|---|---:|---:|---:|")
    for fault in FAULTS:
        if args.only and not any(word in fault.name for word in args.only):
            continue
        if fault.attempt is bare_release and not SHARED.is_dir():
            print(f"| {fault.name} | skipped: no file of the release in {SHARED} | | |")
            continue
        start, tries = time.monotonic(), fault.few if args.few else fault.tries
        found = drilled(fault, tries, args.seed)
        print(
            f"| {fault.name} | {tries} | {tries - len(found)} | {time.monotonic() - start:.0f} |",
            flush=True,
        )
        lost += found
    print(
        f"{'lost: ' + str(len(lost)) if lost else 'nothing was lost'}; {(time.monotonic() - began) / 60:.1f} minutes, seed {args.seed}"
    )
    for line in lost:
        print(line)
    if not lost:
        shutil.rmtree(ground())
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
