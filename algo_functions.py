"""The factory of physics, and the scores of restored images and of classes."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core import distributed, own
from core.errors import UserError
from core.registry import PHYSICS, look_up
from data.batches import UNLABELLED, Batch
from models.base import Network
from physics.base import Physics


def build_physics(
    config: dict, images: Callable[[], Tensor] | None = None, state: list[dict] | None = None
) -> Physics:
    """The physics of a config; `images` loads the training images if it is fitted to them."""
    if own.is_own(config["name"]):
        from physics.own_physics import own_physics

        return own_physics(config, images, state)
    return look_up(PHYSICS, config["name"], "physics")(config, images, state)


# ---------------------------------------------------------------- meters

WINDOW, REACH = 1.5, 5  # of SSIM's Gaussian: its deviation, and the pixels on either side
SMALLEST_SSIM = REACH + 1  # as many are reflected at each border
HIGHEST_PSNR = 100.0  # dB: of an image without an error, instead of infinity
LUMA = (65.481, 128.553, 24.966)  # of BT.601, which takes 16 .. 235 of 255


def scored_part(image: Tensor, border: int, luma: bool) -> Tensor:
    """An image without its border, or its luma (16 + 65.481 R + 128.553 G + 24.966 B) / 255."""
    height, width = image.shape[-2:]
    if 2 * border >= min(height, width):
        raise UserError(
            f"crop_border {border}: nothing is left of an image of {height} x {width} pixels; "
            "choose a smaller one"
        )
    if luma and image.shape[1] != 3:
        raise UserError("y_channel: only RGB images have a luma; leave out --y_channel")
    image = image[..., border : height - border, border : width - border]
    if not luma:
        return image
    weights = image.new_tensor(LUMA)
    return (16 + torch.einsum("bchw,c->bhw", image, weights)[:, None]) / 255


@cache
def gaussian_matrix(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """SSIM's Gaussian along an axis of n entries, reflected at its ends, as a matrix (n, n)."""
    places = torch.arange(-REACH, REACH + 1, device=device, dtype=dtype)
    weights = (-places.square() / (2 * WINDOW**2)).softmax(0)
    units = torch.eye(n, device=device, dtype=dtype)[:, None]
    return F.conv1d(F.pad(units, (REACH, REACH), mode="reflect"), weights[None, None])[:, 0]


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """(2 μ_a μ_b + c1) (2 σ_ab + c2) / ((μ_a² + μ_b² + c1) (σ_a² + σ_b² + c2)), per image (B,).

    It is written by hand since two matrix products are faster than the convolutions of torchmetrics
    or deepinv, and every validation image of a training is scored.
    """
    (n, m), c1, c2 = a.shape[-2:], 0.01**2, 0.03**2  # of a data range of 1
    down, along = gaussian_matrix(n, a.device, a.dtype).T, gaussian_matrix(m, a.device, a.dtype)
    mean_a, mean_b, squares, product = down @ torch.stack((a, b, a * a + b * b, a * b)) @ along
    means = mean_a**2 + mean_b**2
    index = (
        (2 * mean_a * mean_b + c1)
        * (2 * (product - mean_a * mean_b) + c2)
        / ((means + c1) * ((squares - means).clamp(min=0) + c2))
    )
    return index.mean((1, 2, 3))


def psnr(mse: Tensor) -> Tensor:
    """-10 log10(mse) in dB at data range 1, at most 100 dB."""
    return (-10 * mse.log10()).clamp(max=HIGHEST_PSNR)


@torch.no_grad()
def score(output: Tensor, target: Tensor, border: int = 0, luma: bool = False) -> dict[str, Tensor]:
    """PSNR, SSIM, PSNR of the clipped output, and squared error, per image (B,)."""
    output = output.to(target.dtype)
    clipped = scored_part(output.clamp(0, 1), border, luma)
    output = scored_part(output, border, luma)
    target = scored_part(target, border, luma)
    mse = (output - target).square().mean((1, 2, 3))
    mse_clipped = (clipped - target).square().mean((1, 2, 3))
    similarity = torch.full_like(mse, torch.nan)
    if min(target.shape[-2:]) >= SMALLEST_SSIM:
        with torch.autocast(target.device.type, enabled=False):
            similarity = ssim(output, target)
    return {"psnr": psnr(mse), "ssim": similarity, "psnr_clipped": psnr(mse_clipped), "mse": mse}


class Meter:
    """Per-image scores of a pass over a dataset, and their summary.

    With a task loss that too, where each image counts with the mean of its batch.
    """

    target, curves = "image", ("psnr",)  # what an output is compared with, and the curves
    columns = ("psnr", "ssim")  # of an epoch's row
    validated = ("task_loss", *columns)  # and of its validation
    figures = ()  # of a run, beside its curves: file, label and scores
    counts_first = False  # whether the network before the first step is a candidate too

    def __init__(self, border: int = 0, luma: bool = False, task_loss: Callable | None = None):
        self.border, self.luma, self.task_loss = border, luma, task_loss
        self.rows: dict[str, list[Tensor]] = {}

    def new(self, task_loss: Callable | None = None) -> "Meter":
        """An empty one of the same kind."""
        return Meter(self.border, self.luma, task_loss)

    def add_batch(self, output: Tensor, batch: Batch) -> None:
        self.add(output, batch.of_target(self.target))

    def add_view(self, network: Network, batch: Batch, y: Tensor, output: Tensor) -> None:
        """The output for measurements y, which `network` made."""
        self.add_batch(output, batch)

    @torch.no_grad()
    def add(self, output: Tensor, target: Tensor) -> None:
        scores = score(output, target, self.border, self.luma)
        if self.task_loss is not None:
            scores["task_loss"] = self.task_loss(output, target).expand(len(output))
        for name, values in scores.items():
            self.rows.setdefault(name, []).append(values)

    def state(self) -> dict[str, Tensor]:
        """What a pass needs to be resumed."""
        return self.per_image()

    def load(self, state: dict[str, Tensor]) -> None:
        self.rows = {name: [values] for name, values in state.items()}

    @staticmethod
    def selection_score(row: dict) -> float:
        """Of an epoch: the largest is the best."""
        return row["val_psnr"]

    def latest(self) -> float:
        """The mean PSNR of the last batch."""
        return self.rows["psnr"][-1].mean().item()

    def gathered(self) -> Self:
        """With the scores of all processes."""
        own = {name: [torch.cat(values).cpu()] for name, values in self.rows.items()}
        of_all = distributed.gather_objects(own)
        names = dict.fromkeys(name for rows in of_all for name in rows)
        self.rows = {
            name: [part for rows in of_all for part in rows.get(name, [])] for name in names
        }
        return self

    @staticmethod
    def format_row(row: dict) -> str:
        """An epoch's row in words."""
        return (
            f"train {row['train_psnr']:.2f} dB  val {row['val_psnr']:.2f} dB  "
            f"ssim {row['val_ssim']:.4f}"
        )

    @staticmethod
    def format_scores(scores: dict[str, float]) -> str:
        """A summary in words."""
        return f"{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}"

    def per_image(self) -> dict[str, Tensor]:
        return {name: torch.cat(values).cpu() for name, values in self.rows.items()}

    def summary(self) -> dict[str, float]:
        """Means over the images, the deviation of PSNR, and the PSNR of the mean squared error."""
        rows = self.per_image()
        mean = {name: values.double().mean().item() for name, values in rows.items()}
        mse = rows["mse"].double().mean()
        del mean["mse"]
        return mean | {
            "psnr_std": rows["psnr"].double().std(correction=0).item(),
            "psnr_pooled": psnr(mse).item(),
            "images": len(rows["psnr"]),
        }

    def quick(self) -> dict[str, float]:
        """The scores of training images in an epoch's row."""
        scores = self.summary()
        return {name: scores[name] for name in self.columns}


AVERAGES = ("micro", "macro", "weighted")  # of the scores of classes


def roc_area(values: np.ndarray, truth: np.ndarray) -> float:
    """The area under the ROC curve, after Mann and Whitney.

    It is how often a positive is above a negative, where equal ones count half.
    """
    positive, negative = values[truth], np.sort(values[~truth])
    below, up_to = (np.searchsorted(negative, positive, side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(negative)))


def roc_areas(logits: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Micro, macro and weighted area under ROC curves, of the classes that have one."""
    truth = F.one_hot(labels, logits.shape[1]).bool().numpy()
    share = truth.mean(0)
    has_curve = (share > 0) & (share < 1)
    if not has_curve.any():
        return math.nan, math.nan, math.nan
    truth = truth[:, has_curve]
    probabilities = logits.double().softmax(1).numpy()[:, has_curve]
    of_classes = [roc_area(*pair) for pair in zip(probabilities.T, truth.T, strict=True)]
    micro = roc_area(probabilities.ravel(), truth.ravel())
    macro = float(np.mean(of_classes))
    return micro, macro, float(np.average(of_classes, weights=share[has_curve]))


def class_scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Cross-entropy, top-1 and top-3 in per cent, and scikit-learn's averages of the others.

    The others are precision, recall, F1 and the area under ROC curves. A class without images has
    no ROC curve, and is left out of the averages of areas.
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = logits.shape[1]
    likeliest = logits.topk(min(3, classes)).indices
    hits = (likeliest == labels[:, None]).double()
    scores = {
        "loss": F.cross_entropy(logits, labels).item(),
        "top1": 100 * hits[:, 0].mean().item(),
        "top3": 100 * hits.sum(1).mean().item(),
    }
    zero: Any = 0  # scikit-learn's annotation has the words alone
    *of_classes, counts = precision_recall_fscore_support(
        labels, likeliest[:, 0], labels=range(classes), zero_division=zero
    )
    for name, values in zip(("precision", "recall", "f1"), of_classes, strict=True):
        scores |= {
            f"{name}_micro": scores["top1"] / 100,  # each image has one class and one answer
            f"{name}_macro": float(np.mean(values)),
            f"{name}_weighted": float(np.average(values, weights=counts)),
        }
    areas = zip(AVERAGES, roc_areas(logits, labels), strict=True)
    return scores | {f"auc_{average}": value for average, value in areas}


class ClassMeter:
    """Logits and labels of a pass over a dataset, and their scores; with a task loss that too."""

    target, curves = "label", ("top1", "top3")
    columns = (
        "loss",
        *curves,
        *(
            f"{name}_{average}"
            for average in AVERAGES
            for name in ("precision", "recall", "f1", "auc")
        ),
    )

    validated = ("task_loss", *columns)
    figures = (("loss", "cross-entropy", ("task_loss",)), ("accuracy", "accuracy (%)", curves))
    counts_first = False

    def __init__(self, task_loss: Callable | None = None):
        self.task_loss = task_loss
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []

    def new(self, task_loss: Callable | None = None) -> "ClassMeter":
        """An empty one."""
        return ClassMeter(task_loss)

    def add_batch(self, output: Tensor, batch: Batch) -> None:
        self.add(output, batch.of_target(self.target))

    def add_view(self, network: Network, batch: Batch, y: Tensor, output: Tensor) -> None:
        """The output for measurements y, which `network` made."""
        self.add_batch(output, batch)

    def add(self, output: Tensor, target: Tensor) -> None:
        self.logits.append(output.detach().float())
        self.labels.append(target)

    def state(self) -> dict[str, Tensor]:
        return dict(zip(("logits", "labels"), self.both(), strict=True)) if self.logits else {}

    def load(self, state: dict[str, Tensor]) -> None:
        self.logits, self.labels = ([state[name]] if state else [] for name in ("logits", "labels"))

    @staticmethod
    def selection_score(row: dict) -> tuple[float, float]:
        """Top-1, and of equal ones the smaller loss."""
        return row["val_top1"], -row["val_loss"]

    def latest(self) -> float:
        """Top-1 of the last batch, in per cent; nan where no label of it is known."""
        known = self.labels[-1] != UNLABELLED
        hits = self.logits[-1].argmax(1) == self.labels[-1]
        return 100 * hits[known].double().mean().item()

    def gathered(self) -> Self:
        """With the answers of all processes."""
        of_all = distributed.gather_objects(self.both() if self.logits else None)
        self.logits, self.labels = ([both[k] for both in of_all if both] for k in (0, 1))
        return self

    def both(self) -> tuple[Tensor, Tensor]:
        """The logits (N, classes) and labels (N,) of all images whose label is known."""
        logits, labels = torch.cat(self.logits).cpu(), torch.cat(self.labels).cpu()
        known = labels != UNLABELLED
        return logits[known], labels[known]

    def summary(self) -> dict[str, float]:
        logits, labels = self.both()
        scores = class_scores(logits, labels) | {"images": len(labels)}
        if self.task_loss is not None:
            scores["task_loss"] = self.task_loss(logits, labels).item()
        return scores

    def quick(self) -> dict[str, float]:
        """The scores of training images in an epoch's row."""
        logits, labels = self.both()
        if not len(labels):
            return dict.fromkeys(self.columns, math.nan)
        scores = class_scores(logits, labels)
        return {name: scores[name] for name in self.columns}

    @staticmethod
    def format_scores(scores: dict[str, float]) -> str:
        """A summary in words."""
        return f"top-1 {scores['top1']:.1f} %, top-3 {scores['top3']:.1f} %"

    @staticmethod
    def format_row(row: dict) -> str:
        """An epoch's row in words."""
        return (
            f"top-1 train {row['train_top1']:.1f} %  val {row['val_top1']:.1f} %  "
            f"top-3 val {row['val_top3']:.1f} %"
        )
