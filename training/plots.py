"""The pictures of a training: its curves with the first image's score, and validation images."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from core.runtime import Stop
from data.batches import present
from models.base import FirstImage
from report.figures import draw_grid, psnr_notes, select_detailed
from training.cache import Views
from training.validation import evaluate, outputs

if TYPE_CHECKING:
    from training.loop import Fit

CANDIDATES = 8  # validation images among which each of --save_images is chosen
DRAW_EVERY = 30  # seconds between two drawings of the curves, each of which takes more than one


class Plots:
    """What a training draws; `companion` belongs to a training of the same images and physics."""

    def __init__(self, companion: "Plots | None" = None):
        self.companion, self.curves_at = companion, time.perf_counter()
        self.first_image: dict[str, float] | None = None
        self.lmmse: float | None = None  # PSNR, known at the end

    def start(self, fit: "Fit", stop: Stop) -> None:
        if self.companion is not None and self.companion.first_image is not None:
            self.first_image = self.companion.first_image
        else:
            self.first_image = score_first_image(fit, stop)
        self.curves_at = time.perf_counter()

    def draw_curves_in_between(self, fit: "Fit") -> None:
        """Draws the curves where the last drawing is some time ago."""
        if time.perf_counter() - self.curves_at >= DRAW_EVERY:
            self.draw_curves(fit)

    def draw_curves(self, fit: "Fit") -> None:
        fit.run.draw(fit.rows, fit.meter, self.first_image)
        self.curves_at = time.perf_counter()

    def save_images(self, fit: "Fit") -> None:
        """Some validation images as they are restored now; a classifier makes none."""
        count = getattr(fit.args, "save_images", 0)
        if not count:
            return
        physics, images, kept = fit.val_physics.parts[0], fit.splits["val"], {}
        candidates = (images[k]["image"] for k in range(min(len(images), CANDIDATES * count)))
        places = select_detailed(candidates, count)
        views = Views(physics, fit.val, fit.device, fit.data_seed)
        for batch, y, output in outputs(fit.network, views):
            shown = zip(present(batch.image), physics.back_projection(y), output, strict=True)
            kept |= dict(zip(batch.index.tolist(), shown, strict=True))
            if kept.keys() >= set(places):
                break
        truth, first, output = zip(*(kept[k] for k in places), strict=True)
        columns: dict[str, Sequence[Tensor]] = {"first image": first, "network": output}
        path = fit.run.folder / "images" / f"step_{fit.steps:07d}.png"
        draw_grid(columns, truth, path, psnr_notes(columns, truth))


def score_first_image(fit: "Fit", stop: Stop) -> dict[str, float] | None:
    """The validation scores of what the network is given, which it must improve.

    A classifier's input has no such score.
    """
    if fit.meter.target == "label":
        return None
    network = FirstImage(fit.val_physics.parts[0].config["c"])
    scores = evaluate(network, fit.views, fit.meter.new(), stop.check_alone).summary()
    return {name: scores[name] for name in fit.meter.columns}
