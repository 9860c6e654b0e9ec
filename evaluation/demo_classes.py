"""The classification demo's table, figure and report: teacher, student alone and distilled student on the same test images."""

import csv
from argparse import Namespace
from itertools import chain
from pathlib import Path

import torch

from core.files import write_csv, write_text
from evaluation import grading
from report.figures import COLORS, SMALLEST, WIDE, over_epochs, panels, save
from report.statistics import paired
from report.tables import markdown
from training import classification, setup


def tell(trained: dict[str, str], args: Namespace, folder: Path, device: torch.device) -> dict:
    """Grades teacher, student alone and distilled student, in this order, on every split, and writes what was seen."""
    asked = asking(args, folder, ["train", "val", "test"])
    rows, graded = [], {}
    for name, path in trained.items():
        found = classification.restore_classifier(path)
        place = name.split(",")[0].replace(" ", "_")
        graded[name] = grading.grade(path, place, found, asked, device)
        test = graded[name].rows[-1]
        parameters = sum(w.numel() for w in found.network.parameters())
        rows.append(
            {"": name}
            | {key: test[key] for key in ("top-1", "top-3", "F1", "AUC", "loss")}
            | {"parameters": parameters, "images": test["images"]}
        )
    _, alone, distilled = trained
    gain = paired(*(100 * graded[name].right("test").double() for name in (distilled, alone)))
    text = (
        f"{markdown(rows)}\n\nTop-1 and top-3 in per cent of the {rows[0]['images']} test images of '{args.dataset}', "
        "by the network that was best on validation; "
        f"{args.epochs} epochs, width {args.width}, seed {args.seed}.\n"
        f"Distillation against the same student alone: {gain.mean:+.2f} points of top-1, 95 % interval over the images "
        f"{gain.low:+.2f} .. {gain.high:+.2f}. One seed: another one can change its sign."
    )
    print(f"\n{text}\n")
    for grades in graded.values():
        grading.write(grades, asked, device)
    write_csv(folder / "table.csv", rows)
    draw(trained, rows, folder / "figure.png")
    write_text(folder / "report.md", f"# Demo\n\n{text}\n\n![validation and test](figure.png)\n")
    return {"rows": rows, "gain": gain, "text": text}


def rank(
    trained: dict[str, str | list[str]], args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Tests the teacher, the student alone and the student of every loss, and sets each beside the student alone, seed by seed."""
    asked = asking(args, folder, ["test"])
    graded = {}
    for name, paths in trained.items():
        graded[name] = []
        for i, path in enumerate([paths] if isinstance(paths, str) else paths):
            place, found = f"{name.replace(':', '_')}_{i}", classification.restore_classifier(path)
            graded[name].append(grading.grade(path, place, found, asked, device))
    scores = {name: [grades.rows[0] for grades in some] for name, some in graded.items()}
    rows = []
    for name, tests in scores.items():
        alone = (
            []
            if name in ("teacher", "alone")
            else [a["top-1"] - b["top-1"] for a, b in zip(tests, scores["alone"], strict=True)]
        )
        row = {"": name} | {
            key: setup.mean_and_deviation([test[key] for test in tests])
            for key in ("top-1", "top-3")
        }
        rows.append(
            row | {"against alone, paired": setup.mean_and_deviation(alone, "+") if alone else ""}
        )
    side = round(args.n / args.lessen_ratio)
    text = (
        f"{markdown(rows)}\n\nPer cent of the {scores['alone'][0]['images']} test images of '{args.dataset}', mean ± standard deviation over seeds "
        f"{', '.join(map(str, args.seeds))}; teacher {args.model_teacher} at {args.n} pixels (seed 0), students {args.model} at {side}, "
        f"width {args.width}, {args.epochs} epochs each, every loss with its weight of the table unless one is named."
    )
    print(f"\n{text}\n")
    for grades in chain.from_iterable(graded.values()):
        grading.write(grades, asked, device)
    write_csv(folder / "table.csv", rows)
    draw_ranking(scores, folder / "figure.png")
    write_text(
        folder / "report.md", f"# Benchmark\n\n{text}\n\n![top-1 of every seed](figure.png)\n"
    )
    return {"rows": rows, "text": text}


def asking(args: Namespace, folder: Path, splits: list[str]) -> Namespace:
    """What test_classify.py would ask of its checkpoints."""
    fixed = {"batch_size": 64, "num_workers": 0, "awgn_snr": None, "sigma": None, "seed": 42}
    return Namespace(**vars(args) | fixed | {"results": str(folder), "splits": splits})


def draw_ranking(scores: dict[str, list[dict]], path: Path) -> None:
    """Top-1 of every seed and their means, and the mean of the student alone as a line."""
    figure, (axis,) = panels(1, 1, max(WIDE, 0.45 * len(scores)), 3.6)
    for k, tests in enumerate(scores.values()):
        tops = [test["top-1"] for test in tests]
        label = {"seed": "a seed", "mean": "mean over the seeds"} if not k else {}
        axis.plot([k] * len(tops), tops, "o", color=COLORS[0], alpha=0.6, label=label.get("seed"))
        mean = sum(tops) / len(tops)
        axis.plot(k, mean, "_", color="black", markersize=16, mew=1.5, label=label.get("mean"))
    alone = [test["top-1"] for test in scores["alone"]]
    mean = sum(alone) / len(alone)
    axis.axhline(mean, color="0.35", ls=":", label="mean of the student alone")
    axis.set_xticks(range(len(scores)), scores, rotation=45, ha="right", rotation_mode="anchor")
    axis.set(ylabel="test top-1 (%)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.15), ncols=3, frameon=False)
    axis.grid()
    save(figure, path)


def draw(trained: dict[str, str], rows: list[dict], path: Path) -> None:
    """Top-1 on validation over the epochs, and top-1 and top-3 on the test images."""
    figure, (left, right) = panels(2, 2, WIDE / 2, 3.4)
    for name, checkpoint in trained.items():
        with open(Path(checkpoint).parent / "metrics.csv", newline="") as file:
            metrics = list(csv.DictReader(file))
        epochs, tops = ([float(row[name]) for row in metrics] for name in ("epoch", "val_top1"))
        left.plot(epochs, tops, marker=".", label=name)
    over_epochs(left, epochs)
    left.set(ylabel="validation top-1 (%)")
    left.grid()
    left.legend()
    places = torch.arange(len(rows)).double()
    for k, key in enumerate(("top-1", "top-3")):
        values = [row[key] for row in rows]
        bars = right.bar(places + 0.4 * k - 0.2, values, width=0.38, color=COLORS[5 * k], label=key)
        right.bar_label(bars, fmt="%.1f", fontsize=SMALLEST)
    right.set_xticks(places, [row[""].replace(", ", "\n") for row in rows])
    right.set(ylabel="test images (%)", ylim=(0, 108))
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    save(figure, path)
