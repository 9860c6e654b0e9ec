"""The validation curves of several runs in one figure."""

from collections.abc import Sequence
from pathlib import Path

from report.figures import WIDE, panels, plot, readable_name, save_figure


def draw_comparison(curves: dict[str, list[dict]], scores: Sequence[str], path: Path) -> None:
    """A panel a score, a line a run, over the steps of training."""
    figure, axes = panels(len(scores), 2, WIDE / 2, 3.4)
    for axis, name in zip(axes, scores, strict=False):
        for run, rows in curves.items():
            plot(axis, rows, name, over="step", label=run)
        axis.set(xlabel="step", ylabel=readable_name(name.removeprefix("val_")))
        axis.grid()
    axes[0].legend()
    save_figure(figure, path)
