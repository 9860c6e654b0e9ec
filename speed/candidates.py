"""What the benchmark times: our training, the baseline loop, and the limits of the machine."""

import shlex
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property
from io import StringIO
from itertools import count as numbers
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checkpoints.checkpoint import Checkpoint, read, restore, write
from core.errors import UserError
from core.runtime import Stop
from data.splits import hold_out
from models import build_network
from models.base import Network, to_device
from physics.base import Physics
from physics.single_pixel import SinglePixel
from speed.baseline import BaselineProcess, DigitImages
from speed.timing import Times, Work, peak_work, time_interleaved
from training.loop import Fit

N, CR, CR_TEACHER = 32, 0.1, 0.9
RELEASE = {"n": N, "cr": CR_TEACHER, "ordering": "strip"}  # not contained in its file
CHECKED_STEPS = 20  # over which the losses must agree; also the steps of an epoch
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}  # relative, of the loss
PRECISIONS = {"fp32": ["--amp", "off"], "bf16": ["--amp", "bf16"]}  # flags of the training scripts
# At the default rate rounding alone grows to 5e-3 of the loss in 20 steps, and no two orders of
# the same sums agree.
RATE = 1e-4
BASELINE_FLAGS = (
    "lr", "weight_decay", "grad_clip", "batch_size", "alpha", "beta", "warmup", "schedule",
    "milestones", "lr_gamma",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A training: its script and its data; with augmentation nothing can be cached."""

    task: str
    augmented: bool = False


CASES = {
    "supervised": Case("supervised"),
    "distilled": Case("distilled"),
    "distilled, augmented": Case("distilled", True),
}


# ---------------------------------------------------------------- scikit-learn's digits as MNIST


@cache
def digit_images() -> np.ndarray:
    """1,797 images of bytes (28, 28)."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    return nn.functional.interpolate(small, 28, mode="bilinear").round().byte()[:, 0].numpy()


def write_digits(count: int, folder: Path) -> np.ndarray:
    """Writes MNIST's files and an .npz with so many training images.

    Returns all images that are not for the test.
    """
    whole = next(k for k in range(count + 1, 2 * count + 2) if len(hold_out(k)[0]) == count)
    array, raw = digit_images()[np.arange(whole) % len(digit_images())], folder / "MNIST" / "raw"
    if raw.is_dir():
        return array
    raw.mkdir(parents=True)
    for name, images in {"train": array, "t10k": array[:10]}.items():
        labels = np.zeros(len(images), np.uint8)
        for kind, values in {"images-idx3": images, "labels-idx1": labels}.items():
            header = np.array([0x800 + values.ndim, *values.shape], ">i4")
            (raw / f"{name}-{kind}-ubyte").write_bytes(header.tobytes() + values.tobytes())
    np.savez(folder / "digits.npz", x_train=array, x_test=array[:10])
    return array


# ---------------------------------------------------------------- the two sides


@contextmanager
def silence():
    """Nothing is printed, and no progress bar appears."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


class Ours:
    """A training of ours, which gets its batches as `training.loop` sends them."""

    def __init__(self, fit: Fit):
        self.fit, self.batches, self.indices = fit, fit.batches(0), deque()
        with silence(), Stop() as self.stop:
            fit.begin()
            fit.start(self.stop)
        self.ended = time.perf_counter()

    def step(self) -> None:
        batch = next(self.batches)
        self.indices.append(batch.index)
        self.fit.update(batch, self.stop)

    def loss(self) -> float:
        """The loss of a step."""
        self.step()
        if self.fit.unread:
            self.fit.read()
        return self.fit.latest["loss"]

    def epoch(self) -> float:
        """Runs an epoch with its validation and all files; returns its seconds.

        They do not include writing files, nor the time since the last epoch.
        """
        waited = time.perf_counter() - self.ended
        with silence():
            for _ in range(len(self.fit.train)):
                self.step()
        self.ended = time.perf_counter()
        return self.fit.rows[-1]["seconds"] - waited


class Pair:
    """Our training and the baseline loop, from the same weights, on the same batches."""

    def __init__(self, ours: Ours, baseline: BaselineProcess):
        self.ours, self.baseline = ours, baseline

    def baseline_step(self) -> dict[str, float]:
        return self.baseline.step(self.ours.indices.popleft().tolist())

    def check(self, tolerance: float, case: str) -> None:
        """Refuses to time the two where they do not compute the same."""
        for k in range(1, 1 + CHECKED_STEPS):
            ours, baseline = self.ours.loss(), self.baseline_step()["loss"]
            if not abs(ours - baseline) <= tolerance * abs(baseline):
                raise UserError(
                    f"{case}: at step {k} the loss is {ours:.8g}, the baseline loop's "
                    f"{baseline:.8g}; nothing is timed"
                )


class Bench:
    """What all groups share: flags, device, training scripts, and a temporary folder."""

    def __init__(self, args: Namespace, device: torch.device, scripts: dict, folder: Path):
        self.args, self.device, self.scripts, self.folder = args, device, scripts, folder
        self.run_numbers = numbers()
        self.bf16 = args.precision == "bf16"
        try:
            self.more = PRECISIONS[args.precision] + shlex.split(args.training_flags)
        except ValueError as error:
            raise UserError(f"training_flags '{args.training_flags}': {error}") from None

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    # ------------------------------------------------------------ trainings

    def fit(
        self, case: Case, width: int, count: int, batch: int, *more, teacher: str | None = None
    ) -> Fit:
        """A training on so many images, as its script builds it from the command line."""
        folder, script = self.folder / f"digits_{count}", self.scripts[case.task]
        write_digits(count, folder)
        words = ["--dataset", "mnist", "--data_root", folder]
        if case.augmented:
            words = ["--dataset", "npz", "--data_root", folder / "digits.npz"]
        words += ["--n", N, "--cr", CR, "--width", width, "--batch_size", batch, "--lr", RATE]
        words += ["--device", self.args.device, "--wandb", "disabled"]
        words += ["--results", self.folder / f"run_{next(self.run_numbers)}", *self.more, *more]
        if case.task == "distilled":
            words += teacher_flags(teacher or self.teacher(width))
        with silence():
            return script.prepare(script.parse([str(word) for word in words]), self.device)

    def teacher(self, width: int) -> str:
        """The file of a teacher after an epoch of training."""
        path = self.folder / f"teacher_{width}.pth"
        if not path.is_file():
            words = ["--cr", CR_TEACHER, "--epochs", 2]
            ours = Ours(self.fit(CASES["supervised"], width, 16, 8, *words))
            ours.epoch()
            write(path, ours.fit.content())
        return str(path)

    def train_steps(
        self, case: Case, width: int, count: int, batch: int, teacher: str | None = None
    ) -> Ours:
        """A training that takes the steps of all rounds, without a validation between them."""
        steps = 1 + CHECKED_STEPS + (1 + self.args.rounds) * self.args.steps
        words = ["--steps", steps, "--val_every", steps]
        return Ours(self.fit(case, width, count, batch, *words, teacher=teacher))

    def train_epochs(self, case: Case, width: int, count: int, batch: int, epochs: int) -> Ours:
        """A training of so many epochs, and a last one that is never run."""
        return Ours(self.fit(case, width, count, batch, "--epochs", epochs + 1))

    def pair(self, case: Case, width: int, raw: str | None = None) -> Pair:
        """The two sides of a training, each in a process of its own.

        With `raw` the baseline has the teacher of this file as it is.
        """
        batch = self.args.batch_size
        count = CHECKED_STEPS * batch
        ours = self.train_steps(case, width, count, batch, raw)
        fit, array = ours.fit, write_digits(count, self.folder / f"digits_{count}")
        train, val = (array[np.asarray(indices)] for indices in hold_out(len(array)))
        networks = {
            "student": copy_network(fit.task.student, fit.network_config),
            "mask": mask_of(fit.task.physics),
        }
        if case.task == "distilled":
            teacher = restore_teacher(raw or self.teacher(width))
            networks |= {"teacher": teacher.network, "mask_t": mask_of(teacher.physics)}
        values = {name: getattr(fit.args, name, None) for name in BASELINE_FLAGS}
        baseline = BaselineProcess(
            raw,
            Namespace(**values, steps=fit.total),
            DigitImages(train, N, fit.args.seed if case.augmented else None),
            DigitImages(val, N),
            **networks,
            device=str(self.device),
            bf16=self.bf16,
        )
        return Pair(ours, baseline)

    # ------------------------------------------------------------ limits

    def resident_batch(self, count: int) -> Tensor:
        images = torch.rand(count, 1, N, N, device=self.device)
        return images.contiguous(memory_format=torch.channels_last)

    def limit(self, fit: Fit, teacher: bool = False) -> Callable[[], None]:
        """The student's forward and backward pass alone on a resident batch.

        With `teacher` its forward pass too.
        """
        x0 = self.resident_batch(fit.args.batch_size)
        network = to_device(copy_network(fit.task.student, fit.network_config), self.device).train()
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
    def peaks(self) -> dict[str, tuple[Work, float]]:
        return peak_work(self.device, self.bf16, small=self.args.batch_size < 8)

    @cached_property
    def peak_times(self) -> Times:
        work = {name: work for name, (work, _) in self.peaks.items()}
        return time_interleaved(work, self.args.rounds, self.device, repeat=2)

    @cached_property
    def rates(self) -> dict[str, float]:
        """Floating-point operations a second of every kind."""
        times = self.peak_times
        return {name: flops / median(times[name]) for name, (_, flops) in self.peaks.items()}

    @property
    def convolution(self) -> tuple[Work, float]:
        """The convolution that is the fastest."""
        names = [name for name in self.rates if "convolution" in name]
        return self.peaks[max(names, key=lambda name: self.rates[name])]


def copy_network(network: Network, config: dict) -> Network:
    """A network of its own with the same weights, in torch's default memory format."""
    copy = build_network(config)
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    copy.load_state_dict(weights)
    return copy


def mask_of(physics: Physics) -> Tensor:
    """The Hadamard coefficients (n, n) that a single-pixel camera measures."""
    assert isinstance(physics, SinglePixel)
    return physics.patterns.cpu() < physics.m


def is_bare(path: str) -> bool:
    return "format" not in read(path)


def restore_teacher(path: str) -> Checkpoint:
    return restore(path, RELEASE if is_bare(path) else {})


def teacher_flags(path: str) -> list:
    words = ["--teacher", path]
    if is_bare(path):
        words += ["--cr_teacher", RELEASE["cr"], "--ordering_teacher", RELEASE["ordering"]]
    return words
