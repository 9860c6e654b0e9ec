"""What explains a classifier: confusion matrix, scores of its classes, summary of its layers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from report.figures import SMALLEST, panels, save_figure

LEGIBLE = 20  # classes whose counts are written into the cells
LABELS = 100  # classes that have room for a name each


def draw_confusion(answers: Tensor, labels: Tensor, classes: list[str], path: Path) -> None:
    """The confusion matrix as a file."""
    save_figure(plot_confusion(answers, labels, classes), path)


def plot_confusion(answers: Tensor, labels: Tensor, classes: list[str]) -> Figure:
    """Rows are true classes, columns answers, colours shares of the true class."""
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    counts = confusion_matrix(labels, answers, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 0.45 if len(classes) <= LEGIBLE else 0.15  # inches; a name needs 0.12
    side = min(max(3.2, cell * len(classes) + 1.6), 16)
    figure, (axis,) = panels(1, 1, side + 0.8, side)
    display = ConfusionMatrixDisplay(shares)
    legible = len(classes) <= LEGIBLE
    limits = {"vmin": 0, "vmax": 1}
    display.plot(include_values=legible, cmap="Blues", ax=axis, colorbar=False, im_kw=limits)
    for (i, j), text in np.ndenumerate(display.text_) if legible else ():
        text.set(text=str(counts[i, j]) if counts[i, j] else "", fontsize=SMALLEST)
    step = -(-len(classes) // LABELS)
    small = {"fontsize": SMALLEST, "parse_math": False}
    rotation = 90 if max(map(len, classes)) > 2 else 0
    axis.set_xticks(range(0, len(classes), step), classes[::step], rotation=rotation, **small)
    axis.set_yticks(range(0, len(classes), step), classes[::step], **small)
    axis.set(xlabel="predicted class", ylabel="true class")
    top1 = 100 * np.trace(counts) / max(counts.sum(), 1)
    axis.set_title(f"top-1 {top1:.1f} % of {counts.sum():,} images")
    figure.colorbar(display.im_, ax=axis, shrink=0.8, label="share of the true class")
    return figure


def format_class_report(answers: Tensor, labels: Tensor, classes: list[str]) -> str:
    """Precision, recall and F1 of every class."""
    from sklearn.metrics import classification_report

    options: dict[str, Any] = {
        "labels": range(len(classes)),
        "target_names": classes,
        "zero_division": 0,
    }
    report = classification_report(labels, answers, digits=4, **options)
    return str(report)


def summarize_layers(network: nn.Module, x: Tensor) -> str:
    """Every layer with its output for one image and its parameters."""
    lines = [f"{'layer':<40} {'kind':<20} {'output':<22} {'parameters':>12}"]
    hooks = []

    def build_hook(name: str, kind: str, parameters: int):
        def hook(_, __, output: Tensor) -> None:
            shape = str(tuple(output.shape))
            lines.append(f"{name:<40} {kind:<20} {shape:<22} {parameters:>12,}")

        return hook

    for name, layer in network.named_modules():
        if not list(layer.children()):
            parameters = sum(w.numel() for w in layer.parameters(recurse=False))
            hook = build_hook(name, type(layer).__name__, parameters)
            hooks.append(layer.register_forward_hook(hook))
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    total = sum(w.numel() for w in network.parameters())
    return "\n".join([*lines, f"{total:,} parameters in all", ""])
