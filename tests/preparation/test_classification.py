"""Classification from the command line: teachers, students, assistants, cameras, seeds, grades, and what is refused."""

import csv
import json
from copy import deepcopy
from pathlib import Path

import blank
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from doubles import batch_of
from PIL import Image
from sklearn.metrics import (
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)
from test_scripts import call
from torch import nn

import demo
import main_classify
import main_classify_dist
import predict
import test_classify
import test_UNet
from algo_functions import ClassMeter, build_physics, class_scores
from checkpoints import checkpoint
from core.errors import Stopped, UserError
from core.registry import CLASS_LOSSES, CLASS_OPTIONS, CLASSIFIERS
from core.runtime import Stop, seeded
from demos import classes as demo_classes
from distill import build_loss
from distill.task import Distillation, Progress, Teacher
from evaluation.class_report import draw_confusion
from models import build_network
from models.pretrained import load_pretrained
from preparation import classification, setup

DATA = ["--dataset", "digits", "--n", "16", "--limit_train", "40", "--limit_val", "20"]
TINY = [*DATA, "--epochs", "1", "--model", "resnet8", "--width", "4"]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of its colours
TEST = ["--dataset", "digits", "--limit_train", "30", "--limit_val", "20", "--limit_test", "30"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    root = tmp_path_factory.mktemp("teacher")
    return call(main_classify, *TINY, "--results", str(root), "--wandb", "disabled")["export"]


@pytest.mark.parametrize("places", [10, 0])  # with none there are ties
def test_the_scores_are_scikit_learns(places):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 15, (200,), generator=generator) % 8 % 5  # of unequal shares
    logits = torch.randn(200, 5, generator=generator).round(decimals=places)
    logits += 0.01 * torch.arange(5)  # ties are between images, not between classes
    scores, chances = class_scores(logits, labels), logits.double().softmax(1).numpy()
    answers = logits.argmax(1)
    assert scores["top1"] == pytest.approx(100 * (answers == labels).double().mean().item())
    assert scores["top3"] == pytest.approx(100 * top_k_accuracy_score(labels, chances, k=3))
    assert scores["loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
    for average in ("micro", "macro", "weighted"):
        assert scores[f"precision_{average}"] == pytest.approx(
            precision_score(labels, answers, average=average)
        )
        assert scores[f"recall_{average}"] == pytest.approx(
            recall_score(labels, answers, average=average)
        )
        assert scores[f"f1_{average}"] == pytest.approx(f1_score(labels, answers, average=average))
        assert scores[f"auc_{average}"] == pytest.approx(
            roc_auc_score(labels, chances, multi_class="ovr", average=average)
        )


def test_a_class_that_a_split_lacks_has_no_area_and_spoils_none():
    logits, labels = torch.eye(4)[[0, 1, 2, 0]] * 5, torch.tensor([0, 1, 2, 0])
    scores = class_scores(logits, labels)
    assert scores["auc_macro"] == 1 and scores["top1"] == 100
    meter = ClassMeter()
    meter.add(logits[:3], labels[:3])
    meter.add(logits[3:], labels[3:])
    assert meter.summary() == scores | {"images": 4} and meter.latest() == 100


@pytest.mark.parametrize(
    "resize, expected", [("antialias", 1e-6), ("nearest", 0), ("bilinear", 1e-6), ("bicubic", 1e-6)]
)
def test_a_smaller_image_is_torchs_resize_and_the_same_crop(resize, expected):
    x = torch.rand(2, 3, 24, 24)
    camera = build_physics(
        {"name": "image", "n": 24, "c": 3, "lessen_ratio": 4.0, "resize": resize}
    )
    options = {
        "antialias": {"mode": "bilinear", "antialias": True},
        "nearest": {"mode": "nearest-exact"},
    }.get(resize, {"mode": resize})
    assert (camera.observe(x) - F.interpolate(x, (6, 6), **options)).abs().max() <= expected
    assert torch.equal(
        build_physics(
            {"name": "image", "n": 24, "c": 3, "lessen_ratio": 1.0, "resize": resize}
        ).observe(x),
        x,
    )


@pytest.mark.parametrize("loss", CLASS_LOSSES)
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_every_loss_teaches_the_student_at_equal_and_at_smaller_sizes(loss, ratio):
    torch.manual_seed(0)
    image, classes = {"name": "image", "n": 32, "c": 1, "resize": "antialias"}, ["a", "b", "c"]
    seen_t, seen_s = (build_physics(image | {"lessen_ratio": r}) for r in (1.0, ratio))
    teacher = build_network(
        {"name": "resnet18", "c": 1, "classes": classes, "side": 32, "width": 4, "stem": "small"}
    )
    student = build_network(
        {"name": "resnet8", "c": 1, "classes": classes, "side": round(32 / ratio), "width": 8}
    )
    term = build_loss(loss, None, CLASS_LOSSES, **CLASS_OPTIONS)
    task = Distillation(
        student,
        seen_s,
        [Teacher(teacher, seen_t)],
        selection="latent",
        losses=[term],
        task_loss=F.cross_entropy,
        target="label",
        labels=[0, 1, 2, 0, 1, 2, 0, 1],
    ).train()
    batch = batch_of(torch.rand(6, 1, 32, 32), label=torch.tensor([0, 1, 2, 0, 1, 2]))
    result = task(batch, torch.Generator().manual_seed(0), Progress(0.5, 5.0))
    terms = {name: value for name, value in result["terms"].items() if name != "task"}
    assert {name.split("/")[1] for name in terms} == {loss} and all(
        value.isfinite() for value in terms.values()
    )
    sum(terms.values()).backward()
    assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in student.parameters())
    assert all(w.grad is None for w in teacher.parameters()) and not teacher.training
    own = [w for w in task.adapters.parameters() if w.requires_grad]
    assert all(w.grad is not None for w in own)
    names = set(student.state_dict())
    assert not any(name.startswith("adapters") for name in names)


def full(layers: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: layer.float() for name, layer in layers.items()}


@pytest.mark.parametrize("loss", [name for name in CLASS_LOSSES if name != "hint"])
def test_losses_are_computed_in_full_precision_of_layers_in_a_smaller_type(loss):
    torch.manual_seed(0)
    seen = build_physics({"name": "image", "n": 32, "c": 1, "lessen_ratio": 1, "resize": "nearest"})
    config = {"name": "resnet8", "c": 1, "classes": ["a", "b", "c"], "side": 32, "width": 8}
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    task = Distillation(
        build_network(config),
        seen,
        [Teacher(build_network(config), seen)],
        selection="latent",
        losses=[build_loss(loss, 1.0, CLASS_LOSSES, **CLASS_OPTIONS)],
        task_loss=F.cross_entropy,
        target="label",
        labels=labels.tolist(),
    ).train()
    x, (teacher,), apart = torch.rand(6, 1, 32, 32), task.teachers, deepcopy(task)
    with torch.autocast("cpu", torch.bfloat16):
        terms = task(batch_of(x, label=labels), seeded(0), Progress(0.5, 5.0))["terms"]
        s, t = task.student.features(x), teacher.network.features(x)
    assert s["output"].dtype == torch.bfloat16
    assert torch.equal(terms.pop("task"), F.cross_entropy(s["output"].float(), labels))
    context = {"label": labels, "index": torch.arange(6), "epoch": 5.0, "generator": seeded(0)}
    context["teacher_input"] = teacher.network.normalise(x)
    for comparison in apart.comparisons:
        expected = apart.distance(comparison, full(s), full(t), context)
        torch.testing.assert_close(terms[f"distill/{comparison.name}"], expected)


def test_ft_pretrains_on_features_in_a_smaller_type(teacher):
    words = [*TINY, "--teacher", teacher, "--loss_distill", "ft", "--amp", "bf16"]
    done = call(main_classify_dist, *words, "--epochs", "2")  # so that they are remembered
    with open(Path(done["run"]) / "prepared.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and all(float(row["ft/latent"]) > 0 for row in rows)


@pytest.mark.parametrize("c, mean, deviation", [(1, 0.449, 0.226), (3, *IMAGENET)])
def test_isrd_paints_what_each_teachers_normalisation_makes_of_its_image(c, mean, deviation):
    torch.manual_seed(0)
    image = {"name": "image", "n": 16, "c": c, "resize": "antialias"}
    seen_t, seen_s = (build_physics(image | {"lessen_ratio": ratio}) for ratio in (1.0, 2.0))
    config = {"name": "resnet8", "c": c, "classes": ["a", "b"], "width": 4}
    student, plain, other = (build_network(config | {"side": side}) for side in (8, 16, 16))
    other.mean, other.deviation = torch.full_like(other.mean, 0.5), torch.full_like(other.mean, 2.0)
    task = Distillation(
        student,
        seen_s,
        [Teacher(plain, seen_t), Teacher(classification.Reordered(other, [1, 0]), seen_t)],
        selection="latent",
        losses=[build_loss("isrd", 50.0, CLASS_LOSSES, **CLASS_OPTIONS)],
        task_loss=F.cross_entropy,
        target="label",
    ).eval()
    x = torch.rand(5, c, 16, 16)
    mean, deviation = (torch.tensor(v).view(-1, 1, 1) for v in (mean, deviation))
    targets = {"0": (x - mean) / deviation, "1": (x - 0.5) / 2}
    terms = task(batch_of(x, label=torch.zeros(5, dtype=torch.long)))["terms"]
    stem = student.features(seen_s.observe(x))["enc1"]
    for i, target in targets.items():
        painted = task.adapters[f"{i}/isrd/enc1"].enlarge(stem)
        assert torch.isclose(
            terms[f"distill/{i}/isrd/enc1"], 50 * (painted - target).abs().mean(), rtol=1e-5
        )


@pytest.mark.parametrize("layers, stem", [(None, False), ("all", True)])
def test_attention_is_compared_behind_the_stem_unless_all_maps_are_asked_for(layers, stem):
    torch.manual_seed(0)
    seen = build_physics(
        {"name": "image", "n": 16, "c": 1, "lessen_ratio": 1.0, "resize": "nearest"}
    )
    config = {"c": 1, "classes": ["a", "b"], "side": 16, "width": 8}
    student, teacher = (build_network(config | {"name": name}) for name in ("resnet8", "resnet20"))
    term = build_loss("at", None, CLASS_LOSSES, layers, **CLASS_OPTIONS)
    teachers, options = [Teacher(teacher, seen)], {"task_loss": F.cross_entropy, "target": "label"}
    task = Distillation(
        student, seen, teachers, selection="latent", losses=[term], **options
    ).eval()
    x = torch.rand(3, 1, 16, 16)
    terms = task(batch_of(x, label=torch.zeros(3, dtype=torch.long)))["terms"]
    s, t = student.features(x), teacher.features(x)
    names = ["enc1"] * stem + ["stage1", "stage2", "latent"]
    assert list(terms) == ["task", *(f"distill/at/{name}" for name in names)]
    for name in names:
        q = [(f[name] ** 2).mean(1).flatten(1) for f in (s, t)]
        q = [(a / a.norm(dim=1, keepdim=True)).detach() for a in q]
        expected = 1000 * ((q[0] - q[1]) ** 2).mean()
        assert torch.isclose(terms[f"distill/at/{name}"], expected, rtol=1e-4)


@pytest.mark.pictures
def test_training_rows_have_the_columns_of_validation_and_losses_that_compare(teacher):
    words = ["--teacher", teacher, "--beta", "0.1", "--label_smoothing", "0.2"]
    done = call(main_classify_dist, *TINY, *words)
    with open(f"{done['run']}/metrics.csv", newline="") as file:
        row = next(csv.DictReader(file))
    row = {name: float(value) for name, value in row.items()}
    for name in (name.removeprefix("val_") for name in row if name.startswith("val_")):
        assert f"train_{name}" in row, name
    assert row["train_f1_micro"] == pytest.approx(row["train_top1"] / 100)
    assert row["train_task"] == pytest.approx(0.1 * row["train_task_loss"])
    found = checkpoint.restore(done["checkpoint"])
    args = main_classify_dist.parse([*TINY, *words])
    images = classification.splits_of(args)["val"]
    with torch.no_grad():
        logits = found.network(found.physics.observe(images.stack()))
    truth = torch.tensor(images.labels)
    log_p = logits.double().log_softmax(1)
    smoothed = -(0.8 * log_p.gather(1, truth[:, None])[:, 0] + 0.2 * log_p.mean(1)).mean()
    assert row["val_task_loss"] == pytest.approx(smoothed.item(), rel=1e-5)
    assert {"curves.png", "loss.png", "accuracy.png"} <= {
        p.name for p in Path(done["run"]).iterdir()
    }


def test_what_losses_learn_is_in_the_run_and_not_in_the_exported_student(teacher):
    done = call(
        main_classify_dist,
        *TINY,
        "--teacher",
        teacher,
        "--loss_distill",
        "hint",
        "ft",
        "crd",
        "--prepare_epochs",
        "1",
    )
    last, export = checkpoint.read(f"{done['run']}/last.pth"), checkpoint.read(done["export"])
    learnt = [name for name in last["resume"]["task"] if name.startswith("adapters.")]
    assert any("memory" in name for name in learnt) and any(
        "paraphraser" in name for name in learnt
    )
    assert set(export["weights"]) == set(build_network(export["network"]).state_dict())
    with open(f"{done['run']}/prepared.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["ft/latent"]) > 0
    with open(f"{done['run']}/metrics.csv", newline="") as file:
        row = next(csv.DictReader(file))
    shares = [float(value) for name, value in row.items() if name.startswith("share_")]
    assert len(shares) == 4 and sum(shares) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("words, passes", [([], 5), (["--prepare_epochs", "2"], 2)])
def test_the_passes_that_prepare_are_five_by_default(words, passes):
    args = main_classify_dist.parse(["--teacher", "x.pth", "--loss_distill", "ft", *words])
    assert classification.checked(args).prepare_epochs == passes


def test_the_paraphraser_is_learnt_first_and_then_stays(teacher, monkeypatch):
    tasks = []
    fit_of = setup.fit_of
    monkeypatch.setattr(
        setup, "fit_of", lambda task, *a, **k: tasks.append(task) or fit_of(task, *a, **k)
    )
    before = []
    from training import loop

    pretrain = loop.pretrain

    def pretrain_and_keep(task, *more):
        pretrain(task, *more)
        before.extend(weight.clone() for weight in task.pretrained_parameters())

    monkeypatch.setattr(loop, "pretrain", pretrain_and_keep)
    call(
        main_classify_dist,
        *TINY,
        "--teacher",
        teacher,
        "--loss_distill",
        "ft",
        "--prepare_epochs",
        "2",
    )
    assert before and all(
        torch.equal(a, b) for a, b in zip(before, tasks[0].pretrained_parameters(), strict=True)
    )


def test_a_preparation_that_is_stopped_is_taken_up_at_its_pass(teacher, monkeypatch):
    words = [
        *TINY,
        "--teacher",
        teacher,
        "--loss_distill",
        "ft",
        "--prepare_epochs",
        "3",
        "--batch_size",
        "10",
    ]
    whole = call(main_classify_dist, *words, "--results", "whole")
    check, calls = Stop.check, []

    def asked(self):
        calls.append(1)
        self.received = (
            "SIGTERM" if len(calls) == 7 else ""
        )  # the third batch of the second pass of four
        check(self)

    monkeypatch.setattr(Stop, "check", asked)
    with pytest.raises(Stopped, match="SIGTERM; step 0 of 4 is saved"):
        call(main_classify_dist, *words, "--results", "parts")
    parts = call(main_classify_dist, *words, "--results", "parts")
    a, b = (checkpoint.read(f"{done['run']}/last.pth")["resume"]["task"] for done in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (Path(whole["run"]) / "prepared.csv").read_text() == (
        Path(parts["run"]) / "prepared.csv"
    ).read_text()


def test_an_interrupted_student_ends_like_an_uninterrupted_one(teacher, monkeypatch):
    words = [
        *TINY,
        "--epochs",
        "3",
        "--teacher",
        teacher,
        "--loss_distill",
        "kd",
        "crd",
        "ickd",
        "ft",
        "--prepare_epochs",
        "1",
    ]
    whole = call(main_classify_dist, *words, "--results", "whole")
    from training.loop import Fit

    save, count = Fit.save, []

    def interrupted(self, scores):
        save(self, scores)
        count.append(1)
        if len(count) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(main_classify_dist, *words, "--results", "parts")
    parts = call(main_classify_dist, *words, "--results", "parts")
    a, b = (checkpoint.read(f"{done['run']}/last.pth") for done in (whole, parts))
    assert all(
        torch.equal(a["resume"]["task"][name], b["resume"]["task"][name])
        for name in a["resume"]["task"]
    )
    assert len(count) == 3


def test_several_teachers_count_as_weighted(teacher):
    other = call(main_classify, *TINY, "--seed", "1", "--results", "other")["export"]
    done = call(
        main_classify_dist, *TINY, "--teacher", teacher, other, "--teacher_weights", "3", "1"
    )
    with open(f"{done['run']}/metrics.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert {"train_distill/0/kd/output", "train_distill/1/kd/output"} <= row.keys()
    with pytest.raises(UserError, match="teacher_weights 1: give one for each of 2 teachers"):
        call(
            main_classify_dist,
            *TINY,
            "--teacher",
            teacher,
            other,
            "--teacher_weights",
            "1",
            "--overwrite",
        )


def test_a_teachers_classes_are_brought_into_the_students_order():
    network = build_network(
        {"name": "resnet8", "c": 1, "classes": ["a", "b", "c"], "side": 8, "width": 4}
    ).eval()
    turned = classification.Reordered(network, [2, 0, 1])
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(turned.features(x)["output"], network(x)[:, [2, 0, 1]])
    assert torch.equal(turned.features(x)["latent"], network.features(x)["latent"])


def class_tree(root, names, seed=0):
    rng = np.random.default_rng(seed)
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(
                    root / split / name / f"{k}.png"
                )
    return [
        "--dataset",
        "folder",
        "--data_root",
        str(root),
        "--n",
        "16",
        "--model",
        "resnet8",
        "--width",
        "4",
        "--epochs",
        "1",
    ]


def test_a_teacher_from_another_dataset_must_tell_the_same_classes(tmp_path):
    here, there, elsewhere = (
        class_tree(tmp_path / str(k), names, k) for k, names in enumerate(("abc", "abc", "abd"))
    )
    teacher = call(main_classify, *there, "--results", "there")["export"]
    assert call(main_classify_dist, *here, "--teacher", teacher)["val_top1"] >= 0
    with pytest.raises(
        UserError, match="has other classes than dataset 'folder': c, d are not in both"
    ):
        call(main_classify_dist, *elsewhere, "--teacher", teacher)
    assert (
        call(main_classify_dist, *elsewhere, "--teacher", teacher, "--loss_distill", "at")[
            "val_top1"
        ]
        >= 0
    )  # looks at features alone


def test_a_chain_of_teacher_assistant_and_student(teacher):
    done = call(
        main_classify_dist,
        *TINY,
        "--teacher",
        teacher,
        "--lessen_ratio",
        "2",
        "--assistant",
        "--model",
        "resnet20",
    )
    runs = sorted(path.name for path in Path("results/runs").iterdir())
    assert (
        len(runs) == 2
        and runs[0].startswith("student_resnet20")
        and runs[1].startswith("student_resnet8_image_16_lessened_2")
    )
    record = json.loads((Path(done["run"]) / "run.json").read_text())
    assistant = next(Path("results/runs").glob("student_resnet8*")) / "best.pth"
    assert record["identity"]["teacher 0"] == checkpoint.digest(assistant)
    assert checkpoint.restore(assistant).network_config["width"] == 4


@pytest.mark.parametrize(
    "own",
    [
        ["--lessen_ratio", "2", "--assistant"],
        ["--physics", "spc", "--cr", "0.25", "--noise", "0.1", "--loss_distill", "crd"],
    ],
    ids=["assistants", "noise and negatives"],
)
def test_seeds_of_the_same_data_learn_together_what_each_learns_alone(own, teacher):
    words = [*TINY, "--teacher", teacher, *own, "--lr", "0.01", "--data_seed", "3"]
    together = call(main_classify_dist, *words, "--seeds", "0", "1")["runs"]
    for seed, run in zip("01", together, strict=True):
        alone = call(main_classify_dist, *words, "--seed", seed, "--results", "alone")
        ours, theirs = (
            checkpoint.read(Path(one["run"]) / "last.pth")["resume"]["task"] for one in (run, alone)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


CAMERAS = ["spc --cr 0.1", "denoise --sigma 50", "mri --acceleration 4", "spc --cr 0.1 --x0 lmmse"]


@pytest.mark.parametrize("camera", CAMERAS)
def test_classes_are_reported_from_few_measurements(camera, teacher):
    done = call(main_classify_dist, *TINY, "--teacher", teacher, "--physics", *camera.split())
    result = call(test_classify, "--checkpoint", done["export"], *TEST, "--splits", "test")
    assert result["rows"][0]["images"] == 30 and all(
        0 <= top <= 100 for top in result["top1"].values()
    )


def test_noise_levels_of_the_camera_are_graded_each(teacher, capsys):
    done = call(main_classify, *TINY, "--physics", "denoise", "--sigma", "10", "60")
    other = call(
        main_classify,
        *TINY,
        "--physics",
        "denoise",
        "--sigma",
        "10",
        "60",
        "--seed",
        "1",
        "--results",
        "other",
    )
    capsys.readouterr()
    paths = [done["export"], other["export"]]
    result = call(
        test_classify, "--checkpoint", *paths, *TEST, "--splits", "test", "--sigma", "5", "90"
    )
    cameras, printed = ["denoise sigma 5", "denoise sigma 90"], capsys.readouterr().out
    assert [row["physics"] for row in result["rows"]] == 2 * cameras and list(
        result["top1"]
    ) == cameras
    for camera in cameras:
        tops = [row["top-1"] for row in result["rows"] if row["physics"] == camera]
        assert (
            f"test top-1, {camera}: {np.mean(tops):.2f} ± {np.std(tops, ddof=1):.2f} (n = 2) %"
            in printed
        )


def test_seeds_are_runs_of_their_own_and_end_in_a_mean(teacher, capsys):
    done = call(main_classify_dist, *TINY, "--teacher", teacher, "--seeds", "3", "4")
    alone = call(
        main_classify_dist, *TINY, "--teacher", teacher, "--seed", "4", "--results", "other"
    )
    assert done["runs"][1]["val_top1"] == alone["val_top1"] and len(done["checkpoints"]) == 2
    mean = (done["runs"][0]["val_top1"] + done["runs"][1]["val_top1"]) / 2
    assert done["val_top1"] == pytest.approx(mean) and f"{mean:.2f} ± " in capsys.readouterr().out


REPEATED = [
    (main_classify, []),
    (main_classify, ["--physics", "spc", "--crs_expert", "0.1", "0.3"]),
    (main_classify, ["--model", "resnet18", "--seeds", "3", "4"]),
    (
        main_classify_dist,
        [
            "--physics",
            "denoise",
            "--sigma",
            "10",
            "60",
            "--loss_distill",
            "kd",
            "at:10",
            "--seeds",
            "3",
            "4",
        ],
    ),
    (
        main_classify_dist,
        ["--balance", "halves", "--assistant", "--lessen_ratio", "2", "--model", "resnet18"],
    ),
]


@pytest.mark.parametrize(
    "script, words",
    REPEATED,
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.__name__,
)
def test_config_of_a_classifiers_run_repeats_it(script, words, teacher, capsys):
    call(script, *TINY, *words, *(["--teacher", teacher] if script is main_classify_dist else []))
    for run in list(Path("results/runs").iterdir()):
        capsys.readouterr()
        again = call(script, "--config", run / "config.json")
        assert again["run"] == str(run) and "is finished" in capsys.readouterr().out


def test_a_teacher_of_published_form_may_be_the_assistant():
    teacher = call(main_classify, *TINY, "--model", "resnet18", "--results", "other")["export"]
    call(main_classify_dist, *TINY, "--teacher", teacher, "--assistant", "--lessen_ratio", "2")
    assistant = next(Path("results/runs").glob("student_resnet18*")) / "config.json"
    assert json.loads(assistant.read_text())["pretrained"] is False
    assert call(main_classify_dist, "--config", assistant)["run"] == str(assistant.parent)


def test_published_weights_of_the_student_are_not_the_assistants(teacher, monkeypatch):
    begun = []
    monkeypatch.setattr(
        classification, "load_pretrained", lambda network, name, download: begun.append(name)
    )
    call(
        main_classify_dist,
        *TINY,
        "--teacher",
        teacher,
        "--assistant",
        "--lessen_ratio",
        "2",
        "--model",
        "resnet18",
        "--pretrained",
    )
    assert begun == ["resnet18"]


def test_a_teacher_that_was_moved_is_the_same_teacher(teacher, capsys):
    done = call(main_classify_dist, *TINY, "--teacher", teacher)
    Path("elsewhere.pth").write_bytes(Path(teacher).read_bytes())
    assert (
        call(main_classify_dist, *TINY, "--teacher", "elsewhere.pth") == done
        and "is finished" in capsys.readouterr().out
    )
    assert json.loads((Path(done["run"]) / "config.json").read_text())["teacher"] == [teacher]


@pytest.mark.pictures
def test_everything_that_explains_a_classifier_is_written(teacher, capsys):
    result = call(test_classify, "--checkpoint", teacher, *TEST, "--seed", "7")
    folder = Path("results/test") / Path(teacher).stem
    for split in ("train", "val", "test"):
        assert {f"confusion_{split}.png", f"report_{split}.txt", f"per_image_{split}.csv"} <= {
            path.name for path in folder.iterdir()
        }
    scores = json.loads((folder / "results.json").read_text())["scores"]
    assert scores["test"]["top1"] == pytest.approx(next(iter(result["top1"].values())))
    summary = (folder / "model_summary.txt").read_text()
    assert (
        f"{sum(w.numel() for w in checkpoint.restore(teacher).network.parameters()):,} parameters in all"
        in summary
    )
    with open(folder / "per_image_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 100 * np.mean([row["class"] == row["answer"] for row in rows]) == pytest.approx(
        scores["test"]["top1"]
    )
    with open("results/test/class_results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["Split"], row["Seed"], row["Noise Seed"]) for row in rows] == [
        (split, "42", "7") for split in ("train", "val", "test")
    ]
    Path("results/test/class_results.csv").write_text("Checkpoint,Top-1\n")
    before = (folder / "results.json").stat().st_mtime_ns
    with pytest.raises(
        UserError, match=r"class_results\.csv has other columns than this version writes"
    ):
        call(test_classify, "--checkpoint", teacher, *TEST)
    assert (folder / "results.json").stat().st_mtime_ns == before


def test_one_picture_is_classified(teacher, capsys):
    from sklearn.datasets import load_digits

    picture = (load_digits().images[0] / 16 * 255).round().astype(np.uint8)
    Image.fromarray(picture).save("three.png")
    answer = call(predict, "--checkpoint", teacher, "three.png")["classes"]["three.png"]
    network = checkpoint.restore(teacher).network
    seen = torch.from_numpy(
        np.asarray(
            Image.fromarray(picture).resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32
        )
        / 255
    )
    chances = network(seen[None, None]).softmax(1)[0]
    assert [name for name, _ in answer] == [str(k) for k in chances.topk(3).indices.tolist()]
    assert answer[0][1] == pytest.approx(chances.max().item(), abs=1e-5)
    with pytest.raises(UserError, match="tile: a classifier takes the whole image"):
        call(predict, "--checkpoint", teacher, "three.png", "--tile", "32")


def test_a_classifier_of_whole_pictures_is_shown_whole_pictures(tmp_path):
    words = class_tree(tmp_path / "tree", "ab")
    path = call(main_classify, *words, "--crop", "none")["export"]
    pictures = sorted((tmp_path / "tree" / "test").rglob("*.png"))
    seen = [
        np.asarray(
            Image.open(picture).resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32
        )
        / 255
        for picture in pictures
    ]
    chances = (
        checkpoint.restore(path)
        .network(torch.from_numpy(np.stack(seen))[:, None])
        .softmax(1)
        .amax(1)
        .tolist()
    )
    answers = call(predict, "--checkpoint", path, pictures[0])["classes"].values()
    assert [answer[0][1] for answer in answers] == pytest.approx(chances[:1], abs=1e-5)
    asked = [
        "--checkpoint",
        path,
        "--dataset",
        "folder",
        "--data_root",
        str(tmp_path / "tree"),
        "--splits",
        "test",
    ]
    call(test_classify, *asked)
    with open(f"results/test/{Path(path).stem}/per_image_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["probability"]) for row in rows] == pytest.approx(chances, abs=1e-5)
    assert [row["image"] for row in rows] == [str(picture) for picture in pictures]


def test_a_dataset_may_name_the_same_classes_in_another_order(tmp_path):
    images, labels = (
        np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8),
        np.arange(60) % 3,
    )
    turn = np.array([2, 0, 1])  # the new number of each class

    def arrays(name, labels, classes):
        np.savez(
            tmp_path / f"{name}.npz",
            x_train=images,
            x_test=images,
            y_train=labels,
            y_test=labels,
            classes=classes,
        )
        return ["--dataset", "npz", "--data_root", str(tmp_path / f"{name}.npz")]

    here = arrays("here", labels, np.array(["a", "b", "c"]))
    path = call(main_classify, *here, "--n", "16", "--epochs", "1", "--width", "4")["export"]

    def grades(words):
        call(test_classify, "--checkpoint", path, *words, "--splits", "test")
        with open(f"results/test/{Path(path).stem}/per_image_test.csv", newline="") as file:
            return [(row["class"], row["answer"]) for row in csv.DictReader(file)]

    assert grades(arrays("there", turn[labels], np.array(["b", "c", "a"]))) == grades(here)
    with pytest.raises(
        UserError, match="has other classes than dataset 'npz': c, d are not in both"
    ):
        grades(arrays("elsewhere", labels, np.array(["a", "b", "d"])))


def test_class_trees_may_have_pictures_of_the_same_name(teacher, tmp_path):
    class_tree(tmp_path / "tree", "ab")
    answers = call(predict, "--checkpoint", teacher, tmp_path / "tree" / "test")["classes"]
    assert [Path(name).relative_to(tmp_path / "tree" / "test").as_posix() for name in answers] == [
        "a/0.png",
        "a/1.png",
        "b/0.png",
        "b/1.png",
    ]


@pytest.mark.pictures
def test_names_of_classes_are_drawn_as_they_are(tmp_path):
    draw_confusion(
        torch.tensor([0, 1]),
        torch.tensor([0, 1]),
        ["$\\nonsense{$", "a$_$b"],
        tmp_path / "confusion.png",
    )
    assert (tmp_path / "confusion.png").is_file()


def test_the_demos_models_need_no_width_and_a_wrong_command_comes_before_the_first_network():
    flags = [
        "--task",
        "classify",
        "--limit_train",
        "20",
        "--epochs",
        "1",
        "--n",
        "16",
        "--model_teacher",
        "resnet8",
        "--width",
        "4",
    ]
    result = call(demo, *flags, "--model", "shufflenet", "--results", "narrow")
    assert result["rows"][2][""] == "student distilled, shufflenet"
    args = demo.parse([*flags, "--results", "none"])
    args.balance = "nonsense"  # only the last command reads it
    with pytest.raises(SystemExit):
        demo.main(args)
    assert not Path("none").exists()


@pytest.mark.parametrize("words", [["--n", "8"], ["--c", "3"], ["--crop", "none"]])
def test_what_contradicts_a_classifier_is_refused(words, teacher):
    with pytest.raises(UserError, match=f"contradicts the {words[0][2:]} {words[1]}"):
        call(test_classify, "--checkpoint", teacher, *TEST, *words)


def test_the_demo_tells_the_story_of_classes(capsys, monkeypatch):
    blank.rendered_by(monkeypatch, demo_classes, "draw_validation_and_test")
    flags = ["--limit_train", "40", "--epochs", "1", "--results", "demo"]
    result = call(
        demo,
        "--task",
        "classify",
        *flags,
        "--model_teacher",
        "resnet20",
        "--model",
        "resnet8",
        "--width",
        "4",
        "--n",
        "16",
    )
    assert [row[""].split(",")[0] for row in result["rows"]] == [
        "teacher",
        "student alone",
        "student distilled",
    ]
    assert {"table.csv", "figure.png", "report.md"} <= {
        path.name for path in Path("demo").iterdir()
    }
    assert "95 % interval" in capsys.readouterr().out


@pytest.mark.long
def test_the_demo_ranks_losses(monkeypatch):
    blank.rendered_by(monkeypatch, demo_classes, "draw_ranking")
    flags = [
        "--limit_train",
        "30",
        "--epochs",
        "1",
        "--results",
        "rank",
        "--width",
        "4",
        "--n",
        "16",
        "--lessen_ratio",
        "2",
        "--seeds",
        "0",
        "1",
    ]
    result = call(
        demo,
        "--task",
        "benchmark",
        *flags,
        "--loss_distill",
        "kd",
        "isrd:50",
        "--model_teacher",
        "resnet8",
    )
    assert [row[""] for row in result["rows"]] == ["teacher", "alone", "kd", "isrd:50"]
    assert (
        all("(n = 2)" in row["top-1"] for row in result["rows"][1:])
        and (Path("rank") / "figure.png").is_file()
    )


def test_balances_are_those_of_the_documents(teacher):
    args = classification.balanced(
        main_classify_dist.parse([*TINY, "--teacher", teacher, "--balance", "benchmark"])
    )
    assert (args.beta, args.loss_distill, args.temperature) == (0.1, ["kd:0.9"], 2.0)
    with pytest.raises(UserError, match="balance halves sets --temperature"):
        classification.balanced(
            main_classify_dist.parse(
                [*TINY, "--teacher", teacher, "--balance", "halves", "--temperature", "3"]
            )
        )


def test_a_stem_is_small_for_small_images():
    parse = main_classify.parse
    for n, stem in (("32", "small"), ("64", "large")):
        args = parse(["--model", "resnet18", "--width", "4", "--n", n])
        camera = build_physics(
            {"name": "image", "n": int(n), "c": 1, "lessen_ratio": 1.0, "resize": "nearest"}
        )
        assert classification.network_of(args, camera, ["a", "b"])[1]["stem"] == stem


def test_published_weights_are_asked_for_and_missed_clearly(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="--download"):
        call(
            main_classify,
            *DATA,
            "--model",
            "resnet18",
            "--stem",
            "large",
            "--pretrained",
            "--epochs",
            "1",
        )
    assert isinstance(load_pretrained, type(call)) and not Path("results").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--loss_distill", "nonsense"], "unknown loss 'nonsense': choose from kd, dkd"),
        (["--loss_distill", "kd:"], "NAME:WEIGHT with a number"),
        (["--type_dist", "decoder"], "unknown selection 'decoder'"),
        (["--model", "lenet"], "unknown model 'lenet'"),
        (["--stem", "small"], "network 'resnet8' does not read --stem"),
        (["--lessen_ratio", "0.5"], "0.5 is outside"),
        (["--physics", "spc"], "physics 'spc' needs --cr"),
        (
            ["--physics", "spc", "--cr", "0.1", "--lessen_ratio", "2"],
            "physics 'spc' does not read --lessen_ratio",
        ),
        (["--resize", "lanczos"], "unknown resize 'lanczos'"),
        (["--dataset", "photos"], "unknown dataset 'photos'"),
        (["--seed", "42", "--seeds", "1"], "argument --seeds: not allowed with argument --seed"),
    ],
)
def test_a_wrong_flag_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main_classify_dist.parse(["--teacher", "x.pth", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--standardise", "--loss_distill", "at"],
            "standardise True: only kd reads --standardise",
        ),
        (["--dkd_beta", "2"], "dkd_beta 2.0: only dkd reads --dkd_beta"),
        (["--loss_distill", "kd", "kd:2"], "is given twice"),
        (
            ["--loss_distill", "kd", "dist", "--type_dist", "all"],
            "type_dist all: only mse, hint, at, .* reads --type_dist",
        ),
        (["--balance", "halves", "--type_dist", "latent"], "type_dist latent: only"),
        (
            ["--loss_distill", "crd", "--prepare_epochs", "5"],
            "prepare_epochs 5: only ft reads --prepare_epochs",
        ),
        (["--teacher", "nowhere.pth"], "nowhere.pth: no such file"),
        (
            ["--assistant", "--teacher_weights", "2"],
            "teacher_weights 2: with --assistant there is one teacher",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, teacher):
    with pytest.raises(UserError, match=message):
        call(main_classify_dist, *TINY, "--teacher", teacher, *words)


def test_restorers_and_classifiers_are_not_mistaken_for_one_another(teacher):
    import main_unet

    unet = call(main_unet, "--cr", "0.5", *DATA, "--width", "4", "--epochs", "1")["export"]
    with pytest.raises(UserError, match=r"restores images .*, but a classifier is needed here"):
        call(test_classify, "--checkpoint", unet, *TEST)
    with pytest.raises(UserError, match=r"restores images .*, but a classifier is needed here"):
        call(main_classify_dist, *TINY, "--teacher", unet)
    with pytest.raises(
        UserError, match=r"is a classifier .*, but a network that restores images is needed"
    ):
        call(test_UNet, "--checkpoint", teacher, "--dataset", "digits")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_is_trained_exported_and_rebuilt(name):
    words = [
        "--model",
        name,
        *DATA[:4],
        "--limit_train",
        "6",
        "--limit_val",
        "4",
        "--steps",
        "1",
        "--batch_size",
        "6",
    ]
    small = {
        "vit_tiny": ["--patch", "8", "--width", "64"],
        "vit_small": ["--patch", "8", "--width", "64"],
        "shufflenet": [],
    }
    done = call(
        main_classify, *words, *small.get(name, ["--width", "16" if name == "resnext50" else "4"])
    )
    restored = checkpoint.restore(done["export"])
    assert restored.network(torch.rand(2, 1, 16, 16)).shape == (2, 10) and isinstance(
        restored.network, nn.Module
    )
    assert restored.classes == list("0123456789")


def test_the_real_small_sets_are_learnt_a_little(shared):
    words = [
        "--dataset",
        "npz",
        "--data_root",
        str(shared / "cifar10_small" / "cifar10_small.npz"),
        "--c",
        "3",
        "--limit_train",
        "500",
    ]
    done = call(
        main_classify,
        *words,
        "--limit_val",
        "100",
        "--epochs",
        "3",
        "--model",
        "resnet8",
        "--width",
        "8",
    )
    assert done["val_top1"] > 15
    cloth = [
        "--dataset",
        "folder",
        "--data_root",
        str(shared / "clothing"),
        "--c",
        "3",
        "--n",
        "32",
        "--limit_train",
        "60",
        "--limit_val",
        "20",
    ]
    assert (
        call(main_classify, *cloth, "--epochs", "1", "--model", "resnet8", "--width", "4")[
            "val_top1"
        ]
        >= 0
    )
