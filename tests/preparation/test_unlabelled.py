"""Classifiers that know the labels of some of their training images only."""

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_scripts import call

import main_classify
import main_classify_dist
from algo_functions import ClassMeter
from checkpoints import checkpoint
from core.errors import UserError
from core.registry import LABELLED
from data.batches import UNLABELLED
from data_loader import Request, build_splits
from preparation import classification

DIGITS = ["--dataset", "digits", "--n", "16", "--limit_train", "600", "--limit_val", "50"]
NET = ["--model", "resnet8", "--width", "4", "--lr", "5e-3"]
REQUEST = Request("digits", n=16, limit_train=200, labelled=True)


def training_images(**changes):
    return build_splits(REQUEST._replace(**changes), ("train",), table=LABELLED)["train"]


def test_the_labelled_images_are_those_of_the_smaller_training_set():
    """The same images that --limit_train takes; the others stay in their places without a label."""
    whole, few = training_images(), training_images(limit_train=30)
    both = training_images(limit_labels=30)
    alone = both.with_labels()
    assert sorted(alone.subset.tolist()) == sorted(few.subset.tolist()) and len(alone) == 30
    assert alone.every is both and whole.with_labels() is whole
    assert torch.equal(both.subset, whole.subset)
    known = [k for k, label in enumerate(both.labels) if label != UNLABELLED]
    assert alone.labels == [both.labels[k] for k in known] == [whole.labels[k] for k in known]
    assert set(Counter(alone.labels).values()) == {3}
    assert both[known[0]]["label"] == whole.labels[known[0]]
    assert torch.equal(alone[5]["image"], both[known[5]]["image"])


def test_another_subset_seed_labels_other_images_and_moves_none_to_another_split():
    first, second = (training_images(limit_labels=30, subset_seed=seed) for seed in (0, 1))
    for images in (first, second):
        known = [label for label in images.labels if label != UNLABELLED]
        assert set(Counter(known).values()) == {3}, "each class has its share"
    labelled = [set(images.with_labels().subset.tolist()) for images in (first, second)]
    assert len(labelled[0] - labelled[1]) > 10
    everything = REQUEST._replace(limit_train=None)
    plain, other = (
        build_splits(everything._replace(subset_seed=seed), table=LABELLED) for seed in (0, 1)
    )
    for split in ("train", "val", "test"):
        assert torch.equal(plain[split].stack(), other[split].stack())
    for split in ("train", "val"):
        limited = [
            build_splits(everything._replace(**{f"limit_{split}": 40}, subset_seed=seed), (split,))
            for seed in (0, 1)
        ]
        subsets = [set(one[split].subset.tolist()) for one in limited]
        assert [len(subset) for subset in subsets] == [40, 40] and subsets[0] != subsets[1]
    test = [
        build_splits(everything._replace(limit_test=40, subset_seed=seed), ("test",))["test"]
        for seed in (0, 1)
    ]
    assert torch.equal(test[0].subset, test[1].subset), "scores stay comparable"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_label_counts_as_much_as_where_every_image_has_one(smoothing):
    """However a batch is split; a part without a label has no gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 4, generator=generator, requires_grad=True)
    label = torch.randint(0, 4, (12,), generator=generator)
    label[[0, 1, 2, 3, 7, 9]] = UNLABELLED
    loss = partial(classification.known_cross_entropy, label_smoothing=smoothing)
    known = label != UNLABELLED
    spread = (1 - smoothing) * F.one_hot(label[known], 4) + smoothing / 4
    expected = -(spread * logits[known].log_softmax(1)).sum() / 12
    for size in (12, 4, 2):
        parts = zip(logits.split(size), label.split(size), strict=True)
        found = torch.stack([loss(*part) for part in parts]).mean()
        torch.testing.assert_close(found, expected)
    nothing = loss(logits[:4], label[:4])
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert nothing == 0 and not gradient.any()
    plain = F.cross_entropy(logits, label.clamp(min=0), label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, label.clamp(min=0)), plain)


def test_training_is_scored_on_what_is_known():
    logits, label = torch.eye(3), torch.tensor([0, UNLABELLED, 1])
    meter = ClassMeter()
    meter.add(logits, torch.full((3,), UNLABELLED))
    assert math.isnan(meter.latest()) and math.isnan(meter.quick()["top1"])
    meter.add(logits, label)
    assert meter.latest() == 50 and meter.quick()["top1"] == 50 and meter.summary()["images"] == 2


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    root = tmp_path_factory.mktemp("teacher")
    words = [*DIGITS, *NET, "--steps", "300", "--val_every", "100"]
    return call(main_classify, *words, "--results", str(root), "--wandb", "disabled")["export"]


def test_a_student_learns_of_unlabelled_images_from_its_teacher_alone(teacher):
    """Without the teacher's losses nothing but the known labels teaches, to the last bit."""
    words = [*DIGITS, *NET, "--teacher", teacher, "--limit_labels", "20", "--steps", "24"]
    words += ["--val_every", "4", "--batch_size", "8"]
    taught = call(main_classify_dist, *words, "--run_name", "taught")
    rows = json.loads((Path(taught["run"]) / "metrics.json").read_text())
    assert len(rows) == 6 and all(0 <= row["share_task"] <= 1 for row in rows)
    assert all(row["share_distill/kd/output"] > 0.1 for row in rows)
    alone = call(main_classify_dist, *words, "--run_name", "alone", "--loss_distill", "kd:0")
    rows = json.loads((Path(alone["run"]) / "metrics.json").read_text())
    unseen = [row for row in rows if math.isnan(row["train_top1"])]  # rounds without a label
    assert 0 < len(unseen) < len(rows) and not any(row["train_loss"] for row in unseen)


def test_accumulated_batches_are_one_large_batch(teacher):
    """Whatever share of the labels each of them has."""
    words = [*DIGITS, *NET, "--teacher", teacher, "--limit_labels", "100", "--steps", "6"]
    words += ["--val_every", "3", "--no-augment"]
    large = call(main_classify_dist, *words, "--batch_size", "48", "--run_name", "large")
    small = call(
        main_classify_dist, *words, "--batch_size", "16", "--accumulate", "3", "--run_name", "small"
    )
    first, second = (
        json.loads((Path(run["run"]) / "metrics.json").read_text())[0]["train_task"]
        for run in (large, small)
    )
    assert first == pytest.approx(second, rel=0.05)  # batch normalisation sees the parts


def test_the_camera_is_fitted_to_all_images_with_a_teacher_and_without(teacher):
    camera = ["--physics", "spc", "--cr", "0.1", "--x0", "lmmse", "--limit_labels", "20"]
    words = [*DIGITS, *NET, *camera, "--steps", "2", "--val_every", "1", "--seeds", "0", "1"]
    words += ["--data_seed", "0"]
    gains = []
    for script, more in ((main_classify, []), (main_classify_dist, ["--teacher", teacher])):
        runs = call(script, *words, *more)["runs"]
        gains += [checkpoint.restore(run["checkpoint"]).physics.lmmse.gain for run in runs]
    assert len(gains) == 4 and all(torch.equal(gains[0], gain) for gain in gains[1:])


def test_unlabelled_images_are_worth_something(teacher):
    """With labels of ten images, a teacher that knows them all is worth many points."""
    words = [*DIGITS, *NET, "--limit_labels", "10"]
    words += ["--steps", "300", "--val_every", "100"]
    alone = call(main_classify, *words)
    taught = call(main_classify_dist, *words, "--teacher", teacher)
    assert taught["val_top1"] > alone["val_top1"] + 20


def test_a_seed_without_a_subset_is_refused():
    words = ["--dataset", "digits", "--n", "16", *NET, "--epochs", "1", "--dry_run"]
    with pytest.raises(UserError, match="subset_seed 3: all images are used"):
        call(main_classify, *words, "--subset_seed", "3")
    for limit in ("--limit_train", "--limit_val", "--limit_labels"):
        call(main_classify, *words, "--subset_seed", "3", limit, "50")


@pytest.mark.parametrize(
    "script, words, message",
    [
        (main_classify, ["--limit_labels", "601"], "there are only 600 training images"),
        (
            main_classify_dist,
            ["--teacher", "T.pth", "--limit_labels", "20", "--loss_distill", "dkd"],
            "loss 'dkd' needs the label of every image",
        ),
        (
            main_classify_dist,
            ["--teacher", "T.pth", "--limit_labels", "20", "--loss_distill", "kd", "crd"],
            "loss 'crd' needs the label of every image",
        ),
    ],
)
def test_what_cannot_be_is_refused(script, words, message):
    with pytest.raises(UserError, match=message):
        call(script, *DIGITS, *NET, *words)
