"""The classification demos' tables, figures and reports, on the same test images."""

import csv
from argparse import Namespace
from itertools import chain
from pathlib import Path

import torch

from core.files import write_csv, write_text
from evaluation.classification import evaluate_classifier, write_classification
from preparation import classification, setup
from report.figures import COLORS, SMALLEST, WIDE, panels, save_figure, set_epoch_ticks
from report.statistics import paired
from report.tables import markdown

SCORES = ("top-1", "top-3", "F1", "AUC", "loss")


def report_classification(
    trained: dict[str, str], args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Evaluates teacher, student alone and distilled student, in this order, and reports."""
    flags = evaluation_flags(args, folder, ["train", "val", "test"])
    rows, results = [], {}
    for name, path in trained.items():
        checkpoint = classification.restore_classifier(path)
        folder_name = name.split(",")[0].replace(" ", "_")
        results[name] = evaluate_classifier(path, folder_name, checkpoint, flags, device)
        test = results[name].rows[-1]
        parameters = sum(w.numel() for w in checkpoint.network.parameters())
        row = {"": name, **{key: test[key] for key in SCORES}}
        rows.append(row | {"parameters": parameters, "images": test["images"]})
    _, alone, distilled = trained
    gain = paired(*(100 * results[name].correct("test").double() for name in (distilled, alone)))
    text = f"""\
{markdown(rows)}

Top-1 and top-3 in per cent of the {rows[0]["images"]} test images of '{args.dataset}', \
by the weights that were best on validation.
{args.epochs} epochs, width {args.width}, seed {args.seed}.
Gain of distillation over the same student alone: {gain.mean:+.2f} points of top-1 \
(95 % interval over the images {gain.low:+.2f} .. {gain.high:+.2f}).
This is one seed: the gain can have the other sign with another seed."""
    print(f"\n{text}\n")
    for result in results.values():
        write_classification(result, flags, device)
    write_csv(folder / "table.csv", rows)
    draw_validation_and_test(trained, rows, folder / "figure.png")
    write_text(folder / "report.md", f"# Demo\n\n{text}\n\n![validation and test](figure.png)\n")
    return {"rows": rows, "gain": gain, "text": text}


def report_losses(
    trained: dict[str, str | list[str]], args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Compares the student of every loss with the student alone, seed by seed, and reports."""
    flags = evaluation_flags(args, folder, ["test"])
    results = {}
    for name, paths in trained.items():
        results[name] = []
        for i, path in enumerate([paths] if isinstance(paths, str) else paths):
            folder_name = f"{name.replace(':', '_')}_{i}"
            checkpoint = classification.restore_classifier(path)
            result = evaluate_classifier(path, folder_name, checkpoint, flags, device)
            results[name].append(result)
    scores = {name: [result.rows[0] for result in some] for name, some in results.items()}
    rows = [ranking_row(name, scores) for name in scores]
    side = round(args.n / args.lessen_ratio)
    text = f"""\
{markdown(rows)}

Per cent of the {scores["alone"][0]["images"]} test images of '{args.dataset}', \
mean ± standard deviation over seeds {", ".join(map(str, args.seeds))}.
Teacher {args.model_teacher} at {args.n} pixels (seed 0), students {args.model} at {side} pixels, \
width {args.width}, {args.epochs} epochs each; each loss has its default or the given weight."""
    print(f"\n{text}\n")
    for result in chain.from_iterable(results.values()):
        write_classification(result, flags, device)
    write_csv(folder / "table.csv", rows)
    draw_ranking(scores, folder / "figure.png")
    alt = "top-1 of every seed"
    write_text(folder / "report.md", f"# Benchmark\n\n{text}\n\n![{alt}](figure.png)\n")
    return {"rows": rows, "text": text}


def ranking_row(name: str, scores: dict[str, list[dict]]) -> dict:
    """The scores of a loss over the seeds, and its gain over the student alone."""
    tests, gain = scores[name], ""
    if name not in ("teacher", "alone"):
        pairs = zip(tests, scores["alone"], strict=True)
        gain = setup.mean_and_deviation([a["top-1"] - b["top-1"] for a, b in pairs], "+")
    means = {
        key: setup.mean_and_deviation([test[key] for test in tests]) for key in ("top-1", "top-3")
    }
    return {"": name, **means, "gain in top-1, paired by seed": gain}


def evaluation_flags(args: Namespace, folder: Path, splits: list[str]) -> Namespace:
    """The flags that test_classify.py would have."""
    fixed = {"batch_size": 64, "num_workers": 0, "seed": 42}
    fixed |= dict.fromkeys(("awgn_snr", "noise", "photons", "calibration", "sigma"))
    return Namespace(**vars(args) | fixed | {"results": str(folder), "splits": splits})


def draw_ranking(scores: dict[str, list[dict]], path: Path) -> None:
    """Top-1 of every seed and their means, and the mean of the student alone as a line."""
    figure, (axis,) = panels(1, 1, max(WIDE, 0.45 * len(scores)), 3.6)
    means = {}
    for k, (name, tests) in enumerate(scores.items()):
        tops = [test["top-1"] for test in tests]
        means[name] = sum(tops) / len(tops)
        seed_label, mean_label = ("one seed", "mean over the seeds") if k == 0 else (None, None)
        axis.plot([k] * len(tops), tops, "o", color=COLORS[0], alpha=0.6, label=seed_label)
        dash = {"color": "black", "markersize": 16, "mew": 1.5}
        axis.plot(k, means[name], "_", label=mean_label, **dash)
    axis.axhline(means["alone"], color="0.35", ls=":", label="mean of the student alone")
    names = list(scores)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set(ylabel="test top-1 (%)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.15), ncols=3, frameon=False)
    axis.grid()
    save_figure(figure, path)


def draw_validation_and_test(trained: dict[str, str], rows: list[dict], path: Path) -> None:
    """Top-1 on validation over the epochs, and top-1 and top-3 on the test images."""
    figure, (left, right) = panels(2, 2, WIDE / 2, 3.4)
    epochs: list[float] = []
    for name, checkpoint in trained.items():
        with open(Path(checkpoint).parent / "metrics.csv", newline="") as file:
            metrics = list(csv.DictReader(file))
        epochs = [float(row["epoch"]) for row in metrics]
        left.plot(epochs, [float(row["val_top1"]) for row in metrics], marker=".", label=name)
    set_epoch_ticks(left, epochs)
    left.set(ylabel="validation top-1 (%)")
    left.grid()
    left.legend()
    for k, key in enumerate(("top-1", "top-3")):
        positions = [i + 0.4 * k - 0.2 for i in range(len(rows))]
        values, color = [row[key] for row in rows], COLORS[5 * k]
        bars = right.bar(positions, values, width=0.38, color=color, label=key)
        right.bar_label(bars, fmt="%.1f", fontsize=SMALLEST)
    right.set_xticks(range(len(rows)), [row[""].replace(", ", "\n") for row in rows])
    right.set(ylabel="test accuracy (%)", ylim=(0, 108))
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    save_figure(figure, path)
