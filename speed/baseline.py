"""The reference of the benchmark: training and evaluation in the simplest way, without caches."""

import math
from argparse import Namespace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

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
from models.base import Network
from training.schedule import learning_rate

# layers and weights of --type_dist output_latent --loss_distill mse
DISTILLED = {"output": 0.1, "latent": 0.1}


class DigitImages(Dataset):
    """Bytes (N, H, W), decoded and resized one at a time, and with a seed mirrored as ours."""

    def __init__(self, array: np.ndarray, n: int, seed: int | None = None):
        self.array, self.n, self.seed, self.epoch = array, n, seed, 0

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, i: int) -> Tensor:
        image = Image.fromarray(self.array[i]).resize((self.n, self.n), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]
        if self.seed is None:
            return x
        mirrored = np.random.default_rng((self.seed, self.epoch, i)).random() < 0.5
        return x.flip(-1) if mirrored else x


def build_operator(mask: Tensor) -> SinglePixelCamera:
    """deepinv's single-pixel camera with the coefficients (n, n) of a mask."""
    size: Any = (1, *mask.shape)  # which deepinv declares as a tuple of one number
    operator = SinglePixelCamera(int(mask.sum()), size, fast=True, ordering="zig_zag")
    operator.mask = mask.float()[None, None]
    return operator


def observe_image(operator: SinglePixelCamera, x: Tensor) -> Tensor:
    """x0 = Aᵀ A x"""
    return operator.A_adjoint(operator.A(x))


class BaselineLoop:
    """A network, with a teacher or alone, trained on batches of given indices."""

    def __init__(
        self,
        args: Namespace,
        train: DigitImages,
        val: DigitImages,
        student: Network,
        mask: Tensor,
        teacher: Network | None = None,
        mask_t: Tensor | None = None,
        device: torch.device | str = "cpu",
        bf16: bool = False,
    ):
        self.args, self.train, self.val, self.bf16 = args, train, val, bf16
        self.device = torch.device(device)
        self.student, self.operator = student.to(self.device), build_operator(mask).to(self.device)
        self.teacher = None
        if teacher is not None and mask_t is not None:
            self.teacher = teacher.to(self.device).eval().requires_grad_(False)
            self.operator_t = build_operator(mask_t).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=args.lr, weight_decay=args.weight_decay
        )
        self.steps, self.per_epoch = 0, math.ceil(len(train) / args.batch_size)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """loss = beta mean |s - x| + alpha sum over layers of w mean (s - t)²; and the output s"""
        s = self.student.features(observe_image(self.operator, x))
        if self.teacher is None:
            return F.l1_loss(s["output"], x), s["output"]
        with torch.no_grad():
            t = self.teacher.features(observe_image(self.operator_t, x))
        distance = sum(
            weight * F.mse_loss(s[layer], t[layer]) for layer, weight in DISTILLED.items()
        )
        return self.args.beta * F.l1_loss(s["output"], x) + self.args.alpha * distance, s["output"]

    def step(self, indices: list[int]) -> dict[str, float]:
        """One update on the images of these indices, and its scores."""
        self.train.epoch = self.steps // self.per_epoch
        x = default_collate([self.train[i] for i in indices]).to(self.device)
        epoch, epochs = (self.steps + 0.5) / self.per_epoch, self.args.steps / self.per_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.args, epoch, epochs)
        self.student.train()
        with self.autocast():
            loss, output = self.loss(x)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), self.args.grad_clip)
        self.optimizer.step()
        self.steps += 1
        return {"loss": loss.item(), **score_batch(output, x)}

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
        sums, size = {"psnr": 0.0, "ssim": 0.0}, self.args.batch_size
        for k in range(0, len(self.val), size):
            indices = range(k, min(k + size, len(self.val)))
            x = default_collate([self.val[i] for i in indices]).to(self.device)
            with self.autocast():
                output = self.student(observe_image(self.operator, x))
            for name, value in score_batch(output, x).items():
                sums[name] += value * len(x)
        return {name: value / len(self.val) for name, value in sums.items()}


@torch.no_grad()
def score_batch(output: Tensor, x: Tensor) -> dict[str, float]:
    output = output.float()
    return {"psnr": PSNR()(output, x).mean().item(), "ssim": SSIM()(output, x).mean().item()}


class BaselineProcess:
    """A baseline loop in a process of its own, without our settings of torch.

    It has the weights of a teacher's file exactly as they are in the file.
    """

    def __init__(self, path: str | Path | None, *arguments, **more):
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        settings = (theirs, torch.get_num_threads(), path, arguments, more)
        self.process = context.Process(target=serve_loop, args=settings, daemon=True)
        self.process.start()
        theirs.close()

    def step(self, indices: list[int]) -> dict[str, float]:
        return self.call("step", indices)

    def epoch(self, seed: int) -> None:
        return self.call("epoch", seed)

    def validate(self) -> dict[str, float]:
        return self.call("validate")

    def call(self, *words):
        try:
            self.pipe.send(words)
            return self.pipe.recv()
        except (EOFError, BrokenPipeError):
            raise UserError("the baseline loop's process ended too early") from None

    def close(self) -> None:
        self.pipe.close()
        self.process.join(60)


def serve_loop(
    pipe: Connection, threads: int, path: str | Path | None, arguments: tuple, more: dict
) -> None:
    """The other process: calls methods of the loop until the pipe is closed."""
    torch.set_num_threads(threads)
    assert torch.full((1,), 1e-40).mul(0.5).item(), (
        "denormal numbers are flushed in the process that must not flush them"
    )
    if path is not None:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        more["teacher"].load_state_dict(weights.get("weights", weights))
    loop = BaselineLoop(*arguments, **more)
    while True:
        try:
            method, *values = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(loop, method)(*values))
