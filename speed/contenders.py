"""Who competes in the benchmark: our training as its script builds it, the plain loop beside it, and the limits of the machine."""

import shlex
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache, cached_property
from io import StringIO
from itertools import count as numbers
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import UserError
from core.runtime import Stop
from data.splits import hold_out
from models import build_network
from models.base import to_device
from physics.base import Physics
from speed.baseline import Apart, Pictures
from speed.timing import Times, interleaved, peaks
from training.checkpoint import Checkpoint, read, restore, write
from training.loop import Fit

N, CR, CR_TEACHER = 32, 0.1, 0.9
RELEASE = {"n": N, "cr": CR_TEACHER, "ordering": "strip"}  # what its file does not tell
ALIKE = 20  # steps over which the losses must agree, and an epoch
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}  # relative, of the loss
PRECISIONS = {
    "fp32": ["--amp", "off"],
    "bf16": ["--amp", "bf16"],
}  # in the words of the training scripts
RATE = 1e-4  # at the default rate rounding alone grows to 5e-3 of the loss in 20 steps, and no two orders of the same sums agree
CHANNELS_LAST = {"memory_format": torch.channels_last}
PLAIN_FLAGS = (
    "lr",
    "weight_decay",
    "grad_clip",
    "batch_size",
    "alpha",
    "beta",
    "warmup",
    "schedule",
    "milestones",
    "lr_gamma",
)


class Case(NamedTuple):
    """A training: its script and its data; mirror images leave nothing to remember."""

    task: str
    augmented: bool = False


CASES = {
    "supervised": Case("supervised"),
    "distilled": Case("distilled"),
    "distilled, augmented": Case("distilled", True),
}


# ---------------------------------------------------------------- data: scikit-learn's digits in MNIST's shape and files


@cache
def digits() -> np.ndarray:
    """1,797 bytes (28, 28)."""
    from sklearn.datasets import load_digits

    small = torch.from_numpy(load_digits().images).float()[:, None] * (255 / 16)
    return nn.functional.interpolate(small, 28, mode="bilinear").round().byte()[:, 0].numpy()


def write_digits(count: int, folder: Path) -> np.ndarray:
    """Writes MNIST's files and an .npz of which so many images train; the bytes of all that are not for the test."""
    whole = next(k for k in range(count + 1, 2 * count + 2) if len(hold_out(k)[0]) == count)
    array, raw = digits()[np.arange(whole) % len(digits())], folder / "MNIST" / "raw"
    if not raw.is_dir():
        raw.mkdir(parents=True)
        for name, images in {"train": array, "t10k": array[:10]}.items():
            for kind, values in {
                "images-idx3": images,
                "labels-idx1": np.zeros(len(images), np.uint8),
            }.items():
                header = np.array([0x800 + values.ndim, *values.shape], ">i4")
                (raw / f"{name}-{kind}-ubyte").write_bytes(header.tobytes() + values.tobytes())
        np.savez(folder / "digits.npz", x_train=array, x_test=array[:10])
    return array


# ---------------------------------------------------------------- the two sides


@contextmanager
def quiet():
    """Nothing is printed, and no bar is drawn."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


class Ours:
    """A training of ours, which is sent its batches as `training.loop` sends them."""

    def __init__(self, fit: Fit):
        self.fit, self.batches, self.seen = fit, fit.batches(0), deque()
        with quiet(), Stop() as self.stop:
            fit.begin()
            fit.start(self.stop)
        self.ended = time.perf_counter()

    def step(self) -> None:
        batch = next(self.batches)
        self.seen.append(batch.index)
        self.fit.update(batch, self.stop)

    def loss(self) -> float:
        """The loss of a step."""
        self.step()
        if self.fit.unread:
            self.fit.read()
        return self.fit.latest["loss"]

    def epoch(self) -> float:
        """An epoch with its validation and all that is written; its seconds without the writing, and without the wait for its turn."""
        waited = time.perf_counter() - self.ended
        with quiet():
            for _ in range(len(self.fit.train)):
                self.step()
        self.ended = time.perf_counter()
        return self.fit.rows[-1]["seconds"] - waited


class Pair:
    """Our training and the plain loop, from the same weights, on the same batches."""

    def __init__(self, ours: Ours, plain: Apart):
        self.ours, self.plain = ours, plain

    def plain_step(self) -> dict[str, float]:
        return self.plain.step(self.ours.seen.popleft().tolist())

    def check(self, tolerance: float, what: str) -> None:
        """Refuses to go on where the two do not compute the same."""
        for k in range(1, 1 + ALIKE):
            ours, plain = self.ours.loss(), self.plain_step()["loss"]
            if not abs(ours - plain) <= tolerance * abs(plain):
                raise UserError(
                    f"{what}: at step {k} the loss is {ours:.8g}, the plain loop's {plain:.8g}; nothing is timed"
                )


class Bench:
    """What all groups share: the flags, the device, the scripts that train, and a folder that is thrown away."""

    def __init__(self, args: Namespace, device: torch.device, scripts: dict, folder: Path):
        self.args, self.device, self.scripts, self.folder, self.made = (
            args,
            device,
            scripts,
            folder,
            numbers(),
        )
        self.bf16 = args.precision == "bf16"
        try:
            self.more = PRECISIONS[args.precision] + shlex.split(args.training_flags)
        except ValueError as error:
            raise UserError(f"training_flags '{args.training_flags}': {error}") from None

    def fit(
        self, case: Case, width: int, count: int, batch: int, *more, teacher: str | None = None
    ) -> Fit:
        """A training on so many images, as its script builds it from the command line."""
        folder, script = self.folder / f"digits_{count}", self.scripts[case.task]
        write_digits(count, folder)
        data = (
            ["--dataset", "npz", "--data_root", folder / "digits.npz"]
            if case.augmented
            else ["--dataset", "mnist", "--data_root", folder]
        )
        words = [
            *data,
            "--n",
            N,
            "--cr",
            CR,
            "--width",
            width,
            "--batch_size",
            batch,
            "--lr",
            RATE,
            "--device",
            self.args.device,
        ]
        words += [
            "--wandb",
            "disabled",
            "--results",
            self.folder / f"run_{next(self.made)}",
            *self.more,
            *more,
        ]
        words += teacher_words(teacher or self.teacher(width)) if case.task == "distilled" else []
        with quiet():
            return script.prepare(script.parse([str(word) for word in words]), self.device)

    def teacher(self, width: int) -> str:
        """A healthy teacher: a step old."""
        path = self.folder / f"teacher_{width}.pth"
        if not path.is_file():
            ours = Ours(
                self.fit(CASES["supervised"], width, 16, 8, "--cr", CR_TEACHER, "--epochs", 2)
            )
            ours.epoch()
            write(path, ours.fit.content())
        return str(path)

    def stepping(
        self, case: Case, width: int, count: int, batch: int, teacher: str | None = None
    ) -> Ours:
        """A training that takes the steps of all rounds, and no validation between them."""
        steps = 1 + ALIKE + (1 + self.args.rounds) * self.args.steps
        return Ours(
            self.fit(
                case, width, count, batch, "--steps", steps, "--val_every", steps, teacher=teacher
            )
        )

    def in_epochs(self, case: Case, width: int, count: int, batch: int, epochs: int) -> Ours:
        """A training of so many epochs, and one that is never taken."""
        return Ours(self.fit(case, width, count, batch, "--epochs", epochs + 1))

    def pair(self, case: Case, width: int, raw: str | None = None) -> Pair:
        """The two sides of a training, each in a process of its own; with `raw` the plain one has this file's teacher as it is."""
        batch = self.args.batch_size
        ours = self.stepping(case, width, ALIKE * batch, batch, raw)
        fit, array = ours.fit, write_digits(ALIKE * batch, self.folder / f"digits_{ALIKE * batch}")
        train, val = (array[np.asarray(places)] for places in hold_out(len(array)))
        sides = {
            "student": copied(fit.task.student, fit.network_config),
            "mask": mask_of(fit.task.physics),
            "device": str(self.device),
            "bf16": self.bf16,
        }
        if case.task == "distilled":
            found = teacher_of(raw or self.teacher(width))
            sides |= {"teacher": found.network, "mask_t": mask_of(found.physics)}
        flags = Namespace(
            **{name: getattr(fit.args, name, None) for name in PLAIN_FLAGS}, steps=fit.total
        )
        what = (
            flags,
            Pictures(train, N, fit.args.seed if case.augmented else None),
            Pictures(val, N),
        )
        return Pair(ours, Apart(raw, *what, **sides))

    def resident(self, count: int) -> Tensor:
        return torch.rand(count, 1, N, N, device=self.device).contiguous(**CHANNELS_LAST)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def limit(self, fit: Fit, teacher: bool = False) -> Callable[[], None]:
        """The student's forward and backward pass alone on a resident batch, and where asked the teacher's forward pass."""
        x0 = self.resident(fit.args.batch_size)
        network = to_device(copied(fit.task.student, fit.network_config), self.device).train()
        weights, gradient = list(network.parameters()), torch.randn_like(x0)

        def work() -> None:
            with self.autocast():
                if teacher:
                    with torch.no_grad():
                        fit.task.teachers[0].network(x0)
                output = network(x0)
            output.backward(gradient.to(output.dtype))
            for weight in weights:
                weight.grad = None

        return work

    @cached_property
    def peaks(self) -> dict[str, tuple[Callable, float]]:
        return peaks(self.device, self.bf16, small=self.args.batch_size < 8)

    @cached_property
    def peak_times(self) -> Times:
        return interleaved(
            {name: work for name, (work, _) in self.peaks.items()},
            self.args.rounds,
            self.device,
            repeat=2,
        )

    @cached_property
    def rates(self) -> dict[str, float]:
        """Floating-point operations a second of every kind."""
        return {
            name: flops / median(self.peak_times[name]) for name, (_, flops) in self.peaks.items()
        }

    @property
    def convolution(self) -> tuple[Callable, float]:
        """The convolution that is the fastest."""
        return self.peaks[
            max((name for name in self.rates if "convolution" in name), key=self.rates.get)
        ]


def copied(network: nn.Module, config: dict) -> nn.Module:
    """A network of its own with the same weights, as torch makes it."""
    other = build_network(config)
    other.load_state_dict(
        {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    )
    return other


def mask_of(physics: Physics) -> Tensor:
    """The cells (n, n) of the Hadamard grid that a camera measures."""
    return physics.patterns.cpu() < physics.m


def bare(path: str) -> bool:
    return "format" not in read(path)


def teacher_of(path: str) -> Checkpoint:
    return restore(path, RELEASE if bare(path) else {})


def teacher_words(path: str) -> list:
    return [
        "--teacher",
        path,
        *(
            ["--cr_teacher", RELEASE["cr"], "--ordering_teacher", RELEASE["ordering"]]
            if bare(path)
            else []
        ),
    ]
