"""Scores of a classifier on the splits of a dataset, with what explains them."""

import json
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from algo_functions import ClassMeter
from core.files import append_csv, check_header, folder_for, significant, write_csv, write_text
from core.registry import LABELLED
from data.batches import Images, build_loader
from data_loader import build_splits
from evaluation.class_report import draw_confusion, report_of, summary_of
from evaluation.restoration import at_levels
from training import setup
from training.cache import Views
from training.checkpoint import Checkpoint
from training.classification import in_order
from training.validation import evaluate

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


class Graded(NamedTuple):
    """The answers of a checkpoint to a split behind one camera."""

    split: str
    camera: str
    images: Images
    meter: ClassMeter
    scores: dict


class Grades(NamedTuple):
    """What a checkpoint is worth on every split and behind every camera, by the names of its files."""

    path: str
    name: str
    found: Checkpoint
    parts: dict[str, Graded]

    @property
    def rows(self) -> list[dict]:
        """Its table."""
        return [
            table_row(self.name, part.split, part.camera, part.scores)
            for part in self.parts.values()
        ]

    def right(self, what: str) -> Tensor:
        """Which images it classified right."""
        logits, labels = self.parts[what].meter.both()
        return logits.argmax(1) == labels


def grade(path: str, name: str, found: Checkpoint, args: Namespace, device: torch.device) -> Grades:
    """Scores one checkpoint on every split and at every noise level; nothing is written yet."""
    n, c = found.physics.config["n"], found.physics.config["c"]
    splits = build_splits(
        setup.request_of(args, n=n, c=c, crop=found.crop, labelled=True),
        args.splits,
        table=LABELLED,
    )
    network, theirs = found.network.to(device), found.classes
    cameras = [part for camera in at_levels(found.physics, args) for part in camera.parts]
    check_header(table_of(args), COLUMNS)
    parts = {}
    for split, images in splits.items():
        whose = f"checkpoint {path}"
        answering = in_order(network, theirs, list(images.classes), whose, args.dataset)
        loader = build_loader(images, args.batch_size, args.num_workers)
        for part in cameras:
            what = split if len(cameras) == 1 else f"{split}_{part.condition}"
            views = Views(part.to(device), loader, device, args.seed)
            meter = evaluate(answering, views, ClassMeter())
            parts[what] = Graded(split, part.condition, images, meter, meter.summary())
    return Grades(path, name, found, parts)


def table_of(args: Namespace) -> Path:
    """The file that all evaluations add to."""
    return Path(args.results) / "test" / "class_results.csv"


def write(grades: Grades, args: Namespace, device: torch.device) -> None:
    """The folder of a checkpoint, and its rows in the table of all."""
    folder, found = folder_for(Path(args.results) / "test", grades.name), grades.found
    for what, part in grades.parts.items():
        explain(part.meter, list(part.images.classes), what, part.images, folder)
        row = {
            "Checkpoint": grades.path,
            "Dataset": args.dataset,
            "Split": part.split,
            "Camera": part.camera,
            "Seed": found.training_config.get("seed"),
            "Noise Seed": args.seed,
            "Images": len(part.images),
            "Top-1": part.scores["top1"],
            "Top-3": part.scores["top3"],
            "Loss": part.scores["loss"],
        }
        append_csv(table_of(args), COLUMNS, row)
    scores = {what: part.scores for what, part in grades.parts.items()}
    results = {"checkpoint": str(grades.path), "dataset": args.dataset, "scores": scores}
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(
        folder / "model_summary.txt",
        summary_of(found.network, found.physics.parts[0].example(device)),
    )
    print(f"written to {folder}")


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


def explain(meter: ClassMeter, classes: list[str], what: str, images: Images, folder: Path) -> None:
    """Writes the confusion matrix, the report of every class, and every image's answer."""
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
