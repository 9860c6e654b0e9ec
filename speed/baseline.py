"""The reference of the benchmark: training and evaluation as one writes them first, with nothing tuned and nothing remembered."""

import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from deepinv.loss.metric import PSNR, SSIM
from deepinv.physics import SinglePixelCamera
from PIL import Image
from torch import Tensor, nn
from torch.multiprocessing import get_context
from torch.utils.data import Dataset, default_collate

from core.errors import UserError
from training.schedule import learning_rate

DISTILLED = {
    "output": 0.1,
    "latent": 0.1,
}  # weights of --type_dist output_latent --loss_distill mse


class Pictures(Dataset):
    """Bytes (N, H, W), decoded and resized one item at a time; with a seed mirrored at random, as `data_loader.Images` draws it."""

    def __init__(self, array: np.ndarray, n: int, seed: int | None = None):
        self.array, self.n, self.seed, self.epoch = array, n, seed, 0

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, i: int) -> Tensor:
        image = Image.fromarray(self.array[i]).resize((self.n, self.n), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]
        if (
            self.seed is not None
            and np.random.default_rng((self.seed, self.epoch, i)).random() < 0.5
        ):
            x = x.flip(-1)
        return x


def camera(mask: Tensor) -> SinglePixelCamera:
    """deepinv's single-pixel camera with the cells (n, n) that a mask marks."""
    operator = SinglePixelCamera(
        m=int(mask.sum()), img_size=(1, *mask.shape), fast=True, ordering="zig_zag"
    )
    operator.mask = mask.float()[None, None]
    return operator


def observe(operator: SinglePixelCamera, x: Tensor) -> Tensor:
    """x0 = Aᵀ A x"""
    return operator.A_adjoint(operator.A(x))


class Plain:
    """A network, with a teacher or alone, trained on batches of these places."""

    def __init__(
        self,
        args: Namespace,
        train: Pictures,
        val: Pictures,
        student: nn.Module,
        mask: Tensor,
        teacher: nn.Module | None = None,
        mask_t: Tensor | None = None,
        device: torch.device | str = "cpu",
        bf16: bool = False,
    ):
        self.args, self.train, self.val, self.bf16, self.device = (
            args,
            train,
            val,
            bf16,
            torch.device(device),
        )
        self.student, self.operator = student.to(self.device), camera(mask).to(self.device)
        self.teacher = None
        if teacher is not None:
            self.teacher, self.operator_t = (
                teacher.to(self.device).eval().requires_grad_(False),
                camera(mask_t).to(self.device),
            )
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=args.lr, weight_decay=args.weight_decay
        )
        self.steps, self.per_epoch = 0, math.ceil(len(train) / args.batch_size)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """loss = beta mean |s - x| + alpha sum over taps of w mean (s - t)², and the student's output"""
        s = self.student.features(observe(self.operator, x))
        if self.teacher is None:
            return F.l1_loss(s["output"], x), s["output"]
        with torch.no_grad():
            t = self.teacher.features(observe(self.operator_t, x))
        distance = sum(
            weight * F.mse_loss(s[layer], t[layer]) for layer, weight in DISTILLED.items()
        )
        return self.args.beta * F.l1_loss(s["output"], x) + self.args.alpha * distance, s["output"]

    def step(self, places: list[int]) -> dict[str, float]:
        """One update on the images at these places, and its scores."""
        self.train.epoch = self.steps // self.per_epoch
        x = default_collate([self.train[i] for i in places]).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.args, (self.steps + 0.5) / self.per_epoch, self.args.steps / self.per_epoch
            )
        self.student.train()
        with self.autocast():
            loss, output = self.loss(x)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), self.args.grad_clip)
        self.optimizer.step()
        self.steps += 1
        return {"loss": loss.item(), **scores(output, x)}

    def epoch(self, seed: int = 0) -> None:
        """Every training image once in a random order, and a validation."""
        order = np.random.default_rng(seed).permutation(len(self.train)).tolist()
        for k in range(0, len(order), self.args.batch_size):
            self.step(order[k : k + self.args.batch_size])
        self.validate()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean scores of the validation images."""
        self.student.eval()
        sums = {"psnr": 0.0, "ssim": 0.0}
        for k in range(0, len(self.val), self.args.batch_size):
            x = default_collate(
                [self.val[i] for i in range(k, min(k + self.args.batch_size, len(self.val)))]
            ).to(self.device)
            with self.autocast():
                output = self.student(observe(self.operator, x))
            for name, value in scores(output, x).items():
                sums[name] += value * len(x)
        return {name: value / len(self.val) for name, value in sums.items()}


@torch.no_grad()
def scores(output: Tensor, x: Tensor) -> dict[str, float]:
    output = output.float()
    return {"psnr": PSNR()(output, x).mean().item(), "ssim": SSIM()(output, x).mean().item()}


class Apart:
    """A plain loop in a process of its own, in which nothing is set up as we do; with the weights of a teacher's file as they are."""

    def __init__(self, path: str | Path | None, *what, **more):
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, torch.get_num_threads(), path, what, more), daemon=True
        )
        self.process.start()
        theirs.close()

    def step(self, places: list[int]) -> dict[str, float]:
        return self._ask("step", places)

    def epoch(self, seed: int) -> None:
        return self._ask("epoch", seed)

    def validate(self) -> dict[str, float]:
        return self._ask("validate")

    def _ask(self, *what):
        try:
            self.pipe.send(what)
            return self.pipe.recv()
        except (EOFError, BrokenPipeError):
            raise UserError("the plain loop's process ended before its time") from None

    def close(self) -> None:
        self.pipe.close()
        self.process.join(60)


def serve(pipe, threads: int, path: str | Path | None, what: tuple, more: dict) -> None:
    """The other process: does what it is asked until the pipe is closed."""
    torch.set_num_threads(threads)
    assert torch.full((1,), 1e-40).mul(0.5).item(), (
        "denormal numbers are flushed in the process that must not flush them"
    )
    if path is not None:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        more["teacher"].load_state_dict(weights.get("weights", weights))
    loop = Plain(*what, **more)
    while True:
        try:
            name, *asked = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(loop, name)(*asked))
