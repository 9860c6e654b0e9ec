"""Scores of a classifier on the splits of a dataset, with what explains them."""

import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from algo_functions import ClassMeter
from checkpoints.checkpoint import Checkpoint
from core.files import append_csv, check_header, folder_for, significant, write_csv, write_text
from core.registry import LABELLED
from data.batches import Images, build_loader
from data_loader import build_splits
from evaluation.checkpoints import check_recorded, physics_at_levels, short_name
from evaluation.class_report import draw_confusion, format_class_report, summarize_layers
from preparation import setup
from preparation.classification import in_order
from training.cache import Views
from training.validation import evaluate

COLUMNS = (  # of the results table
    "Checkpoint", "Dataset", "Split", "Camera", "Seed", "Noise Seed", "Images", "Top-1", "Top-3",
    "Loss",
)  # fmt: skip
SCORES = {  # titles in the printed table
    "top-1": "top1",
    "top-3": "top3",
    "F1": "f1_macro",
    "AUC": "auc_macro",
    "loss": "loss",
    "images": "images",
}


@dataclass(frozen=True)
class SplitResult:
    """The answers of a classifier to a split measured by one physics."""

    split: str
    condition: str  # the physics and its noise, in file names
    images: Images
    meter: ClassMeter
    scores: dict


@dataclass(frozen=True)
class ClassifierResult:
    """The results of a checkpoint on every split and with every physics, by their file names."""

    path: str
    name: str
    checkpoint: Checkpoint
    parts: dict[str, SplitResult]

    @property
    def rows(self) -> list[dict]:
        """The table of its scores."""
        return [
            {
                "split": part.split,
                "physics": part.condition.replace("_", " "),
                **{title: part.scores[key] for title, key in SCORES.items()},
                "network": short_name(self.name),
            }
            for part in self.parts.values()
        ]

    def correct(self, part: str) -> Tensor:
        """Which images it classified right."""
        logits, labels = self.parts[part].meter.both()
        return logits.argmax(1) == labels


def evaluate_classifier(
    path: str, name: str, checkpoint: Checkpoint, args: Namespace, device: torch.device
) -> ClassifierResult:
    """Scores a checkpoint on every split and at every noise level; writes nothing yet."""
    n, c = checkpoint.physics.config["n"], checkpoint.physics.config["c"]
    request = setup.request_of(args, n=n, c=c, crop=checkpoint.crop, labelled=True)
    splits = build_splits(request, args.splits, table=LABELLED)
    recording = setup.physics_of_recording(splits[args.splits[0]])
    check_recorded(recording, checkpoint.physics, f"checkpoint {path}", args)
    network, classes = checkpoint.network.to(device), checkpoint.classes
    levels = physics_at_levels(checkpoint.physics, args)
    physics = [part for level in levels for part in level.parts]
    check_header(class_results_table(args), COLUMNS)
    parts = {}
    for split, images in splits.items():
        owner = f"checkpoint {path}"
        ordered = in_order(network, classes, list(images.classes), owner, args.dataset)
        loader = build_loader(images, args.batch_size, args.num_workers)
        for part in physics:
            key = split if len(physics) == 1 else f"{split}_{part.condition}"
            views = Views(part.to(device), loader, device, args.seed)
            meter = evaluate(ordered, views, ClassMeter())
            parts[key] = SplitResult(split, part.condition, images, meter, meter.summary())
    return ClassifierResult(path, name, checkpoint, parts)


def class_results_table(args: Namespace) -> Path:
    """The CSV file to which every evaluation adds rows."""
    return Path(args.results) / "test" / "class_results.csv"


def write_classification(result: ClassifierResult, args: Namespace, device: torch.device) -> None:
    """Writes the folder of a checkpoint, and adds its rows to the results table."""
    folder, checkpoint = folder_for(Path(args.results) / "test", result.name), result.checkpoint
    for key, part in result.parts.items():
        write_answers(part, key, folder)
        row = {
            "Checkpoint": result.path,
            "Dataset": args.dataset,
            "Split": part.split,
            "Camera": part.condition,
            "Seed": checkpoint.training_config.get("seed"),
            "Noise Seed": args.seed,
            "Images": len(part.images),
            "Top-1": part.scores["top1"],
            "Top-3": part.scores["top3"],
            "Loss": part.scores["loss"],
        }
        append_csv(class_results_table(args), COLUMNS, row)
    scores = {key: part.scores for key, part in result.parts.items()}
    results = {"checkpoint": str(result.path), "dataset": args.dataset, "scores": scores}
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
    summary = summarize_layers(checkpoint.network, checkpoint.physics.parts[0].example(device))
    write_text(folder / "model_summary.txt", summary)
    print(f"written to {folder}")


def write_answers(part: SplitResult, key: str, folder: Path) -> None:
    """Writes the confusion matrix, the scores of every class, and every image's answer."""
    classes = list(part.images.classes)
    logits, labels = part.meter.both()
    answers = logits.argmax(1)
    draw_confusion(answers, labels, classes, folder / f"confusion_{key}.png")
    write_text(folder / f"report_{key}.txt", format_class_report(answers, labels, classes))
    probabilities = logits.softmax(1).amax(1)
    rows = [
        {
            "image": part.images.name(i),
            "class": classes[label],
            "answer": classes[answer],
            "probability": significant(probabilities[i].item()),
        }
        for i, (label, answer) in enumerate(zip(labels.tolist(), answers.tolist(), strict=True))
    ]
    write_csv(folder / f"per_image_{key}.csv", rows)
