"""What explains a classifier: confusion matrix, report of its classes, summary of its layers."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

from report.figures import SMALLEST, panels, save

LEGIBLE = 20  # classes whose counts are written
LABELS = 100  # classes that have room for a name each


def draw_confusion(answers: Tensor, labels: Tensor, classes: list[str], path: Path) -> None:
    """The confusion matrix as a file."""
    save(confusion(answers, labels, classes), path)


def confusion(answers: Tensor, labels: Tensor, classes: list[str]) -> plt.Figure:
    """Rows are true classes, columns answers; counts are written where there is room."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, answers, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 0.45 if len(classes) <= LEGIBLE else 0.15  # inches; a name needs 0.12
    side = min(max(3.2, cell * len(classes) + 1.6), 16)
    figure, (axis,) = panels(1, 1, side + 0.8, side)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    step = -(-len(classes) // LABELS)
    names = {"ticks": range(0, len(classes), step), "labels": classes[::step]}
    small = {"fontsize": SMALLEST, "parse_math": False}
    axis.set_xticks(**names, rotation=90, **small)
    axis.set_yticks(**names, **small)
    right, all_of = np.trace(counts), max(counts.sum(), 1)
    axis.set(xlabel="answer", ylabel="true class")
    axis.set_title(f"top-1 {100 * right / all_of:.1f} % of {counts.sum():,} images")
    if len(classes) <= LEGIBLE:
        for i, j in np.argwhere(counts):
            color = "white" if shares[i, j] > 0.5 else "black"
            how = {"ha": "center", "va": "center", "fontsize": SMALLEST, "color": color}
            axis.text(j, i, counts[i, j], **how)
    figure.colorbar(picture, ax=axis, shrink=0.8, label="share of the true class")
    return figure


def report_of(answers: Tensor, labels: Tensor, classes: list[str]) -> str:
    """Precision, recall and F1 of every class."""
    from sklearn.metrics import classification_report

    return classification_report(
        labels, answers, labels=range(len(classes)), target_names=classes, digits=4, zero_division=0
    )


def summary_of(network: nn.Module, x: Tensor) -> str:
    """Every layer with its output for one image and its parameters."""
    lines, hooks = [], []

    def note(name: str, layer: nn.Module):
        def hook(_, __, output) -> None:
            count = sum(w.numel() for w in layer.parameters(recurse=False))
            lines.append(
                f"{name:<40} {type(layer).__name__:<20} {tuple(output.shape)!s:<22} {count:>12,}"
            )

        return hook

    for name, layer in network.named_modules():
        if not list(layer.children()):
            hooks.append(layer.register_forward_hook(note(name, layer)))
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    total = sum(w.numel() for w in network.parameters())
    return "\n".join(
        [
            f"{'layer':<40} {'kind':<20} {'output':<22} {'parameters':>12}",
            *lines,
            f"{total:,} parameters in all",
            "",
        ]
    )
