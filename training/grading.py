"""Scores of a classifier on the splits of a dataset, with what explains them."""

import json
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from algo_functions import ClassMeter
from analysis.classes import draw_confusion, report_of, summary_of
from batches import Images, build_loader
from data_loader import build_splits
from files import append_csv, check_header, folder_for, significant, write_csv, write_text
from tables import LABELLED
from training import pipeline
from training.checkpoint import Restored
from training.classification import in_order
from training.loop import evaluate
from training.memory import Views
from training.testing import at_levels

COLUMNS = (
    "Checkpoint",
    "Dataset",
    "Split",
    "Camera",
    "Seed",
    "Noise Seed",
    "Images",
    "Top-1",
    "Top-3",
    "Loss",
)


def grade(
    path: str, name: str, found: Restored, args: Namespace, device: torch.device
) -> tuple[list[dict], dict[str, Tensor]]:
    """Grades one checkpoint on every split and at every noise level; writes its folder and its CSV rows.

    Returns its table, and for each split and level which images it told right.
    """
    n, c = found.physics.recipe["n"], found.physics.recipe["c"]
    splits = build_splits(
        pipeline.request_of(args, n=n, c=c, crop=found.crop, labelled=True),
        args.splits,
        table=LABELLED,
    )
    network, folder = found.network.to(device), folder_for(Path(args.results) / "test", name)
    cameras = [part for camera in at_levels(found.physics, args) for part in camera.parts]
    rows, results, hits, table = [], {}, {}, Path(args.results) / "test" / "class_results.csv"
    check_header(table, COLUMNS)
    for split, images in splits.items():
        classes = list(images.classes)
        telling = in_order(
            network,
            found.content["network"]["classes"],
            classes,
            f"checkpoint {path}",
            args.dataset,
        )
        loader = build_loader(images, args.batch_size, args.num_workers)
        for part in cameras:
            what = split if len(cameras) == 1 else f"{split}_{part.condition}"
            meter = evaluate(
                telling, Views(part.to(device), loader, device, args.seed), ClassMeter()
            )
            results[what] = meter.summary()
            hits[what] = explain(meter, classes, what, images, folder)
            row = {
                "Checkpoint": path,
                "Dataset": args.dataset,
                "Split": split,
                "Camera": part.condition,
            }
            seeds = {"Seed": found.content["config"].get("seed"), "Noise Seed": args.seed}
            scores = {
                "Images": len(images),
                "Top-1": results[what]["top1"],
                "Top-3": results[what]["top3"],
                "Loss": results[what]["loss"],
            }
            append_csv(table, COLUMNS, row | seeds | scores)
            rows.append(table_row(name, split, part.condition, results[what]))
    write_text(
        folder / "results.json",
        json.dumps({"checkpoint": str(path), "dataset": args.dataset, "scores": results}, indent=2)
        + "\n",
    )
    write_text(
        folder / "model_summary.txt", summary_of(network, found.physics.parts[0].example(device))
    )
    print(f"written to {folder}")
    return rows, hits


def table_row(name: str, split: str, camera: str, scores: dict) -> dict:
    shown = {
        "top-1": "top1",
        "top-3": "top3",
        "F1": "f1_macro",
        "AUC": "auc_macro",
        "loss": "loss",
        "images": "images",
    }
    return (
        {"split": split, "camera": camera.replace("_", " ")}
        | {title: scores[key] for title, key in shown.items()}
        | {"network": name}
    )


def explain(
    meter: ClassMeter, classes: list[str], what: str, images: Images, folder: Path
) -> Tensor:
    """Writes the confusion matrix, the report of every class, and every image's answer; returns which answers are right."""
    logits, labels = meter.both()
    answers = logits.argmax(1)
    draw_confusion(answers, labels, classes, folder / f"confusion_{what}.png")
    write_text(folder / f"report_{what}.txt", report_of(answers, labels, classes))
    chances = logits.softmax(1).amax(1)
    rows = [
        {
            "image": images.name(i),
            "class": classes[label],
            "answer": classes[answer],
            "probability": significant(chances[i].item()),
        }
        for i, (label, answer) in enumerate(zip(labels.tolist(), answers.tolist(), strict=True))
    ]
    write_csv(folder / f"per_image_{what}.csv", rows)
    return answers == labels
