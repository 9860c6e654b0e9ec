"""The loop, the run folder, the checkpoint: same seed same numbers, resume, what is saved and what is refused."""

import csv
import inspect
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIG
from doubles import batch_of, interrupt_where, skip_training
from test_house import ROOT

import main_unet
import main_unet_dist
from algo_functions import Meter, build_physics
from checkpoints import checkpoint
from core import runtime
from core.errors import Diverged, Stopped, UserError
from distill.task import Progress
from models import build_network
from report.figures import loss_columns, save_image
from training import loop, plots, run, tracking
from training.cache import Views
from training.run import Run

TINY = [
    "--dataset",
    "digits",
    "--n",
    "16",
    "--width",
    "4",
    "--limit_train",
    "30",
    "--limit_val",
    "10",
    "--batch_size",
    "10",
]
NOISY = ["--awgn_snr", "20", "--ema", "0.9", "--batch_norm", "on", "--x0", "lmmse"]


def train(*words, cr="0.25", script=main_unet):
    length = [] if "--steps" in words or "--epochs" in words else ["--epochs", "3"]
    return script.main(script.parse(["--cr", cr, *TINY, *length, *words]))


def weights(path):
    return checkpoint.read(path)["weights"]


def rows(run):
    with open(f"{run}/metrics.csv", newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_same_seed_same_numbers_and_another_seed_others():
    runs = [
        train("--results", name, "--seed", seed, *NOISY)
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2"))
    ]
    assert same(weights(runs[0]["checkpoint"]), weights(runs[1]["checkpoint"])) and rows(
        runs[0]["run"]
    ) == rows(runs[1]["run"])
    assert not same(weights(runs[0]["checkpoint"]), weights(runs[2]["checkpoint"]))


def test_a_run_that_is_interrupted_between_epochs_ends_as_an_uninterrupted_one(monkeypatch):
    whole = train("--results", "whole", *NOISY)
    undo = interrupt_where(monkeypatch, lambda fit: fit.steps == 6)
    with pytest.raises(KeyboardInterrupt):
        train("--results", "parts", "--num_workers", "2", *NOISY)
    undo()
    parts = train("--results", "parts", "--num_workers", "2", *NOISY)
    for name in ("best.pth", "last.pth"):
        assert same(weights(f"{whole['run']}/{name}"), weights(f"{parts['run']}/{name}"))
    assert rows(whole["run"]) == rows(parts["run"]) and len(rows(parts["run"])) == 3
    assert same(weights(whole["export"]), weights(parts["export"]))


@pytest.mark.parametrize(
    "words, sizes",
    [
        (["--batch_size", "10"], [10, 10, 11]),
        (["--batch_size", "4", "--accumulate", "3"], [4] * 6 + [4, 3]),
    ],
)
def test_a_joined_batch_is_not_cut_apart_and_parts_are_no_larger_than_asked(
    words, sizes, monkeypatch
):
    seen, forward = [], loop.Fit.forward

    def counted(self, batch, *more):
        seen.append(len(batch))
        return forward(self, batch, *more)

    monkeypatch.setattr(loop.Fit, "forward", counted)
    train("--limit_train", "31", "--epochs", "1", *words)
    assert seen == sizes


def test_of_equal_epochs_the_first_is_the_best():
    done = train("--lr", "1e-40")
    assert done["best_epoch"] == checkpoint.read(done["checkpoint"])["epoch"] == 1


def test_a_run_whose_dataset_shrank_does_not_go_on(monkeypatch, tmp_path):
    words = [
        "--cr",
        "0.25",
        "--dataset",
        "folder",
        "--data_root",
        "data",
        "--n",
        "16",
        "--width",
        "4",
        "--on_bad_image",
        "skip",
        "--epochs",
        "3",
    ]
    for k in range(18):
        save_image(
            torch.rand(1, 20, 20), tmp_path / "data" / ("train", "val", "test")[k % 3] / f"{k}.png"
        )

    def stop(*_):
        raise Stopped("SIGTERM")

    monkeypatch.setattr(plots.Plots, "save_images", stop)
    with pytest.raises(Stopped):
        main_unet.main(main_unet.parse(words))
    (tmp_path / "data" / "train" / "3.png").write_text("broken")
    with pytest.raises(
        UserError,
        match=r"began with 6 and 6 training and validation images, but now there are 5 and 6: --no-resume starts again",
    ):
        main_unet.main(main_unet.parse(words))


def test_a_finished_run_says_so_and_is_not_trained_again(capsys, monkeypatch):
    first = train()
    monkeypatch.setattr(loop.Fit, "update", None)
    assert train("--device", "cpu", "--num_workers", "1") == first
    assert "is finished" in capsys.readouterr().out


def test_metrics_lost_after_the_last_checkpoint_are_written_again(monkeypatch):
    whole = train("--results", "a")
    write = Run.log

    def interrupted(self, table, *more):
        if len(table) == 3:
            raise KeyboardInterrupt
        write(self, table, *more)

    monkeypatch.setattr(Run, "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("--results", "b")
    monkeypatch.setattr(Run, "log", write)
    (run,) = Path("b/runs").iterdir()
    assert len(rows(run)) == 2
    assert train("--results", "b")["val_psnr"] == whole["val_psnr"] and rows(run) == rows(
        whole["run"]
    )


def test_no_resume_starts_again(monkeypatch):
    first = train()
    before, ran = rows(first["run"]), []
    interrupt_where(monkeypatch, lambda fit: ran.append(fit.steps))
    assert train("--no-resume") == first and rows(first["run"]) == before and ran == [0, 3, 6]


def test_a_finished_run_exports_again_what_is_gone_and_is_the_latest_again():
    first = train("--epochs", "1", cr="0.5")
    kept = weights(first["export"])
    Path(first["export"]).unlink()
    assert train("--epochs", "1", cr="0.5") == first and same(weights(first["export"]), kept)
    other = train("--epochs", "1", "--lr", "0.01", cr="0.5")
    assert other["export"] == first["export"] and not same(weights(first["export"]), kept)
    assert same(weights(first["kept"]), kept) and other["kept"] != first["kept"]
    train("--epochs", "1", cr="0.5")
    assert same(weights(first["export"]), kept)
    assert same(weights(other["kept"]), weights(f"{other['run']}/best.pth"))


def test_two_trainings_beside_each_other_keep_both_networks(monkeypatch):
    finish, others = loop.Fit.finish, []

    def finish_after_another(self):
        if not others:
            others.append(None)
            others[0] = train("--epochs", "1", "--lr", "0.01")
        return finish(self)

    monkeypatch.setattr(loop.Fit, "finish", finish_after_another)
    one = train("--epochs", "1")
    assert one["export"] == others[0]["export"], "the name of the last one that ends"
    assert same(weights(one["export"]), weights(f"{one['run']}/best.pth"))
    assert same(weights(others[0]["kept"]), weights(f"{others[0]['run']}/best.pth"))
    assert not same(weights(one["kept"]), weights(others[0]["kept"]))


def test_a_network_of_an_earlier_version_is_kept_when_its_name_is_taken(capsys):
    first = train("--epochs", "1")
    before = weights(first["export"])
    Path(first["kept"]).unlink()  # which earlier versions did not write
    name = f"UNET_cr_0.25_{checkpoint.digest(first['export'])}.pth"
    train("--epochs", "1", "--lr", "0.01")
    assert same(weights(Path(first["export"]).with_name(name)), before)
    assert f"before: {name}" in capsys.readouterr().out


def test_flags_of_the_optimiser_reach_it(monkeypatch):
    seen = []
    step = loop.Fit.step

    def watched(self, batch):
        before = [w.detach().clone() for w in self.weights]
        result = step(self, batch)
        seen.append(
            (
                self.optimizer,
                [(w.detach() - b).norm().item() for w, b in zip(self.weights, before, strict=True)],
            )
        )
        return result

    monkeypatch.setattr(loop.Fit, "step", watched)
    plain = [
        "--epochs",
        "1",
        "--optimizer",
        "sgd",
        "--schedule",
        "constant",
        "--warmup",
        "0",
        "--limit_train",
        "10",
        "--no-resume",
        "--overwrite",
    ]
    train(*plain, "--lr", "1", "--weight_decay", "0", "--grad_clip", "1e-4")
    optimizer, moves = seen[-1]
    assert isinstance(optimizer, torch.optim.SGD) and math.isclose(
        math.hypot(*moves), 1e-4, rel_tol=1e-3
    )  # the clipped gradient
    train(*plain, "--lr", "1e-9", "--weight_decay", "0.25", "--grad_clip", "0")
    assert seen[-1][0].param_groups[0]["weight_decay"] == 0.25
    for name, kind in (("adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)):
        train(*plain, "--optimizer", name)
        assert type(seen[-1][0]) is kind


def test_a_batch_too_small_to_normalise_is_one_line():
    with pytest.raises(UserError, match="choose another --batch_size"):
        train("--batch_norm", "on", "--scales", "5", "--limit_train", "3", "--batch_size", "1")


def test_the_best_epoch_on_validation_is_exported():
    scores = train("--lr", "0.5", "--schedule", "constant")
    table = rows(scores["run"])
    best = max(range(3), key=lambda k: float(table[k]["val_psnr"]))
    assert checkpoint.read(scores["export"])["epoch"] == best + 1 == scores["best_epoch"]
    assert same(weights(scores["export"]), weights(scores["checkpoint"]))


def test_the_exported_network_scores_what_the_table_says():
    scores = train(*NOISY)
    restored = checkpoint.restore(scores["export"])
    args = main_unet.parse(["--cr", "0.25", *TINY, *NOISY])
    from preparation.setup import splits_of

    loader = loop.build_loader(splits_of(args)["val"], 7)
    again = loop.evaluate(
        restored.network, Views(restored.physics, loader, torch.device("cpu"), args.seed), Meter()
    ).summary()
    assert (
        len(loader) == 2 and abs(again["psnr"] - scores["val_psnr"]) < 0.3
    )  # other batches, other noise
    noiseless = train("--results", "clean")
    restored = checkpoint.restore(noiseless["export"])
    again = loop.evaluate(
        restored.network, Views(restored.physics, loader, torch.device("cpu"), 0), Meter()
    ).summary()
    assert math.isclose(again["psnr"], noiseless["val_psnr"], abs_tol=1e-3)
    with torch.no_grad():
        errors = [
            (restored.network(x0) - batch.image).abs().mean((1, 2, 3))
            for batch, _, x0 in Views(restored.physics, loader, torch.device("cpu"), 0)
        ]
    assert math.isclose(torch.cat(errors).mean(), noiseless["val_task_loss"], rel_tol=1e-5)


@pytest.mark.pictures
def test_the_run_folder_holds_what_the_readme_says():
    scores = train("--run_name", "mine")
    folder = {path.name for path in Path("results/runs/mine").iterdir()}
    assert folder == {
        ".lock",
        "best.pth",
        "last.pth",
        "last_before.pth",
        "config.json",
        "run.json",
        "metrics.csv",
        "metrics.json",
        "curves.png",
    }
    columns = rows(scores["run"])[0]
    expected = {
        "epoch",
        "lr",
        "train_loss",
        "train_task",
        "train_psnr",
        "train_ssim",
        "train_task_loss",
        "val_task_loss",
        "val_psnr",
        "val_ssim",
        "share_task",
    }
    assert expected <= columns.keys()
    with open("results/runs/mine/metrics.json") as file:
        assert [
            {k: str(v) for k, v in row.items() if k != "seconds"} for row in json.load(file)
        ] == rows(scores["run"])


def test_config_of_a_run_repeats_it(capsys):
    first = train(*NOISY, "--results", "a")
    again = main_unet.main(
        main_unet.parse(["--config", f"{first['run']}/config.json", "--results", "a"])
    )
    assert again == first and "is finished" in capsys.readouterr().out


def test_another_configuration_is_not_written_over():
    train("--run_name", "mine")
    with pytest.raises(UserError, match=r"holds another configuration \(lr 0.002 != 0.01\)"):
        train("--run_name", "mine", "--lr", "0.01")
    replaced = train("--run_name", "mine", "--lr", "0.01", "--overwrite")
    assert (
        checkpoint.read(replaced["export"])["config"]["lr"] == 0.01
        and len(rows(replaced["run"])) == 3
    )


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "..", "/tmp/x"])
def test_a_run_name_cannot_leave_the_results_folder(name):
    with pytest.raises(UserError, match="run_name"):
        train(f"--run_name={name}") if name else train("--run_name", ".")


def test_a_damaged_record_is_named_and_replaced_on_request():
    scores = train("--run_name", "mine", "--epochs", "1")
    record = Path(scores["run"]) / "run.json"
    record.write_text(record.read_text()[:50])
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        train("--run_name", "mine", "--epochs", "1")
    again = train("--run_name", "mine", "--epochs", "1", "--overwrite")
    assert again == scores and len(rows(again["run"])) == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(monkeypatch):
    good = train("--run_name", "mine")
    kept = weights(good["checkpoint"])

    def poisoned(s, t):
        return (s - t).square().mean() * math.nan

    from distill import feature

    monkeypatch.setattr(feature, "mae", poisoned)
    with pytest.raises(Diverged, match="task is not finite in epoch 0"):
        train("--run_name", "other", "--results", "results2", "--loss", "mae")
    assert same(weights(good["checkpoint"]), kept)


def test_shares_of_the_gradient_add_up_and_name_every_term():
    train("--results", "r", cr="0.5")
    scores = train(
        "--results", "r", "--cr_teacher", "0.5", "--beta", "0.0", cr="0.1", script=main_unet_dist
    )
    row = {name: float(value) for name, value in rows(scores["run"])[-1].items()}
    shares = {name: value for name, value in row.items() if name.startswith("share_")}
    assert set(shares) == {"share_task", "share_distill/mse/latent", "share_distill/mse/output"}
    assert math.isclose(sum(shares.values()), 1, abs_tol=1e-6) and shares["share_task"] == 0
    assert row["train_task"] == 0 < 0.01 < min(row["train_task_loss"], row["val_task_loss"])
    assert math.isclose(
        row["train_loss"],
        row["train_task"] + row["train_distill/mse/latent"] + row["train_distill/mse/output"],
        rel_tol=1e-5,
    )
    ours, theirs = (f"{split}_task_loss" for split in ("train", "val"))
    terms = [name for name in row if name.startswith("train_distill/")]
    assert loss_columns(row) == [ours, theirs, *terms] and len(terms) == 2


@pytest.mark.pictures
def test_curves_are_drawn_once_where_a_run_ends(monkeypatch):
    drawn, draw = [], run.draw_curves

    def counted(table, *more):
        drawn.append(len(table))
        draw(table, *more)

    def stop(*_):
        raise Stopped("SIGTERM")

    monkeypatch.setattr(run, "draw_curves", counted)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(plots.Plots, "save_images", stop)
        train("--run_name", "r")
    assert drawn == [1] and Path("results/runs/r/curves.png").is_file()
    train("--run_name", "r")
    assert drawn == [1, 3]
    with pytest.raises(Diverged):
        monkeypatch.setattr(
            plots.Plots, "save_images", lambda _, fit: fit.diverge("a loss", "a test")
        )
        train("--run_name", "s")
    assert drawn == [1, 3, 1]


def test_learning_rate_warms_up_and_follows_a_half_cosine():
    args = main_unet.parse(["--cr", "0.1", "--lr", "1", "--epochs", "10", "--warmup", "2"])
    values = [loop.learning_rate(args, e, 10) for e in (0, 1, 2, 6, 10)]
    assert np.allclose(values, [0, 0.5, 1, 0.5, 0])
    args = main_unet.parse(
        ["--cr", "0.1", "--lr", "1", "--epochs", "10", "--schedule", "constant", "--warmup", "0"]
    )
    assert [loop.learning_rate(args, e, 10) for e in (0, 9.9)] == [1, 1]
    words = [
        "--schedule",
        "multistep",
        "--milestones",
        "0.5",
        "0.75",
        "--lr_gamma",
        "0.1",
        "--warmup",
        "0",
    ]
    args = main_unet.parse(["--cr", "0.1", "--lr", "1", "--epochs", "8", *words])
    torch_lr = torch.optim.lr_scheduler.MultiStepLR(
        torch.optim.SGD([torch.zeros(1)], lr=1), [4, 6], 0.1
    )
    for epoch in range(8):
        assert math.isclose(loop.learning_rate(args, epoch, 8), torch_lr.get_last_lr()[0])
        torch_lr.optimizer.step()
        torch_lr.step()


@pytest.mark.parametrize(
    "words, factors",
    [
        (["constant"], [1, 1, 1, 1, 1]),
        (
            ["step", "--alpha_milestones", "0.3", "0.6", "--alpha_gamma", "0.1"],
            [1, 1, 0.1, 0.01, 0.01],
        ),
        (["linear"], [1, 0.75, 0.5, 0.25, 0.1]),
        (["cosine"], [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, (1 + math.cos(0.9 * math.pi)) / 2]),
        (["warmup", "--alpha_warmup", "0.5"], [0, 0.5, 1, 1, 1]),
        (["phases"], [5, 2, 1, 1, 0.5]),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
def test_alpha_follows_its_schedule(words, factors, monkeypatch):
    train("--epochs", "1", cr="0.5")
    seen = skip_training(monkeypatch)
    train(
        "--cr_teacher",
        "0.5",
        "--alpha",
        "2",
        "--alpha_schedule",
        *words,
        cr="0.1",
        script=main_unet_dist,
    )
    task, batch, values = seen[0].train(), batch_of(torch.rand(4, 1, 16, 16)), []
    for fraction in (0.5, 0, 0.25, 0.5, 0.75, 0.9):
        terms = task(batch, progress=Progress(fraction))["terms"]
        values.append(terms["distill/mse/latent"].item())
    assert np.allclose(np.array(values[1:]) / values[0] * factors[2], factors, rtol=1e-4)
    assert math.isclose(
        values[0],
        2
        * factors[2]
        * 0.1
        * task.comparisons[0].loss.distance(*latents(task, batch.image)).item(),
        rel_tol=1e-4,
    )


def latents(task, image):
    x0_s, (x0_t,) = task.observe(batch_of(image), None)
    return task.student.features(x0_s)["latent"], task.teachers[0].network.features(x0_t)["latent"]


def test_the_loop_tells_the_task_how_far_it_is(monkeypatch):
    seen = []
    forward = loop.Fit.forward

    def forward_and_keep(fit, batch, generator, progress):
        seen.append(progress.fraction)
        return forward(fit, batch, generator, progress)

    monkeypatch.setattr(loop.Fit, "forward", forward_and_keep)
    train("--steps", "5")
    assert np.allclose(seen, [0, 0.2, 0.4, 0.6, 0.8])


@pytest.mark.pictures
def test_training_by_steps_validates_logs_and_draws_on_request(capsys):
    scores = train("--steps", "8", "--val_every", "3", "--log_every", "4", "--save_images", "2")
    table = rows(scores["run"])
    assert [row["step"] for row in table] == ["3", "6", "8"] and [
        float(row["epoch"]) for row in table
    ] == [1, 2, 2.6667]
    assert [
        line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("step")
    ] == ["4/8", "8/8"]
    assert sorted(path.name for path in Path(scores["run"]).glob("images/*")) == [
        f"step_{k:07d}.png" for k in (3, 6, 8)
    ]


def test_steps_are_epochs_cut_otherwise():
    whole = train("--results", "a", "--epochs", "2", *NOISY)
    parts = train(
        "--results", "b", "--steps", "6", "--val_every", "2", *NOISY
    )  # two and a half batches, three times
    assert same(weights(f"{whole['run']}/last.pth"), weights(f"{parts['run']}/last.pth"))


def test_a_run_stopped_inside_an_epoch_goes_on_with_the_images_that_are_left(monkeypatch):
    whole = train("--results", "a", "--steps", "7", "--val_every", "2", *NOISY)
    undo = interrupt_where(monkeypatch, lambda fit: fit.steps == 4)
    with pytest.raises(KeyboardInterrupt):
        train("--results", "b", "--steps", "7", "--val_every", "2", *NOISY)
    undo()
    parts = train("--results", "b", "--steps", "7", "--val_every", "2", *NOISY)
    assert same(weights(f"{whole['run']}/last.pth"), weights(f"{parts['run']}/last.pth")) and rows(
        whole["run"]
    ) == rows(parts["run"])


@pytest.mark.parametrize(
    "camera",
    [
        ["--cr", "0.25"],
        ["--cr", "0.03", "--awgn_snr", "20"],
        ["--physics", "denoise", "--sigma", "5", "50"],
        ["--crs_expert", "0.25", "0.5"],
    ],
    ids=" ".join,
)
def test_accumulated_batches_are_one_large_batch(camera):
    plain = [*camera, *TINY, "--epochs", "2", "--optimizer", "sgd", "--lr", "0.1"]
    large, small = (
        main_unet.main(main_unet.parse([*plain, "--results", name, *words]))
        for name, words in (
            ("a", ["--batch_size", "12"]),
            ("b", ["--batch_size", "4", "--accumulate", "3"]),
        )
    )
    a, b = weights(large["checkpoint"]), weights(small["checkpoint"])
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a) and len(rows(small["run"])) == 2


def test_the_moving_average_is_a_moving_average():
    network, average = (
        build_network({"name": "unet", "width": 2, "batch_norm": "on"}) for _ in range(2)
    )
    expected = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    for step in range(4):
        decay = min(0.9, (1 + step) / (10 + step))
        loop.update_average(average, network, 0.9, step)
        expected = {
            k: decay * v + (1 - decay) * network.state_dict()[k] if v.is_floating_point() else v
            for k, v in expected.items()
        }
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, expected[name], atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "AdamW", "SGD"])
def test_every_optimizer_trains(optimizer):
    scores = train("--optimizer", optimizer, "--lr", "0.001", "--epochs", "1")
    assert math.isfinite(scores["val_psnr"])


def averages(*words):
    """Adam's averages of the first gradient, and the run's configuration."""
    run = train("--steps", "1", "--overwrite", *words)["run"]
    content = checkpoint.read(f"{run}/last.pth")
    states = content["resume"]["optimizer"]["state"].values()
    mean, square = (
        torch.cat([state[name].flatten() for state in states]) for name in ("exp_avg", "exp_avg_sq")
    )
    assert square.any()
    return mean, square, content["config"]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_betas_are_the_decays_of_adams_averages(optimizer):
    """After a step from zero the averages are (1 - beta) times the gradient and its square."""
    mean, square, _ = averages("--optimizer", optimizer)
    other_mean, other_square, other = averages("--optimizer", optimizer, "--betas", "0.5", "0.99")
    assert torch.allclose(other_mean, 5 * mean, atol=0)
    assert torch.allclose(other_square, 10 * square, rtol=1e-3, atol=0)
    kind = torch.optim.Adam if optimizer == "adam" else torch.optim.AdamW
    default = main_unet.parse(["--cr", "0.25", "--optimizer", optimizer]).betas
    assert tuple(default) == inspect.signature(kind).parameters["betas"].default
    assert other["betas"] == [0.5, 0.99]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--optimizer", "sgd", "--betas", "0.9", "0.99"], "optimizer 'sgd' does not read --betas"),
        (["--betas", "0.9", "1"], "argument --betas: 1 is outside [0, 0.999999]"),
        (["--betas", "0.9"], "argument --betas: expected 2 arguments"),
    ],
)
def test_betas_that_nothing_reads_or_that_are_no_decays_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main_unet.parse(["--cr", "0.25", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and message in error


class TestCheckpoint:
    def saved(self, tmp_path, **changes):
        config = {"name": "unet", "c": 1, "scales": 3, "width": 4, "padding": "release"}
        network, physics = (
            build_network(config).eval(),
            build_physics(CONFIG | changes, images=lambda: torch.rand(40, 1, 16, 16)),
        )
        checkpoint.write(
            tmp_path / "a.pth", checkpoint.pack(network, config, physics, {"dataset": "photos"})
        )
        return tmp_path / "a.pth", network, physics

    @pytest.mark.parametrize(
        "changes",
        [{}, {"cr": [0.1, 0.5]}, {"ordering": "random", "x0": "lmmse"}, {"ordering": "variance"}],
    )
    def test_rebuilds_network_and_physics(self, tmp_path, changes):
        path, network, physics = self.saved(tmp_path, **changes)
        restored, x = checkpoint.restore(path), torch.rand(2, 1, 16, 16)
        for mine, other in zip(physics.parts, restored.physics.parts, strict=True):
            assert torch.equal(network(mine.observe(x)), restored.network(other.observe(x)))
        assert restored.physics.config == physics.config and not restored.network.training

    @pytest.mark.parametrize(
        "given",
        [
            {"cr": 0.5},
            {"n": 32},
            {"c": 3},
            {"ordering": "strip"},
            {"scales": 2},
            {"width": 8},
            {"padding": "zeros"},
        ],
    )
    def test_a_value_that_contradicts_the_file_is_refused(self, tmp_path, given):
        path, *_ = self.saved(tmp_path)
        (name, value), *_ = given.items()
        with pytest.raises(UserError, match=f"has {name} .*, which contradicts the {name} {value}"):
            checkpoint.restore(path, given)
        checkpoint.restore(path, {name: None})

    def test_a_bare_file_must_be_given_its_physics(self, tmp_path):
        torch.save(build_network({"name": "unet", "width": 4}).state_dict(), tmp_path / "bare.pth")
        with pytest.raises(UserError, match="does not name its physics"):
            checkpoint.restore(tmp_path / "bare.pth", {"n": 16, "cr": 0.1})
        restored = checkpoint.restore(
            tmp_path / "bare.pth", {"n": 16, "cr": 0.1, "ordering": "strip"}
        )
        assert restored.physics.m == 25 and restored.network_config["padding"] == "release"

    @pytest.mark.parametrize(
        "kind", ["truncated", "flipped", "text", "empty", "missing", "foreign", "list"]
    )
    def test_a_damaged_or_foreign_file_is_named(self, tmp_path, kind):
        path, *_ = self.saved(tmp_path)
        data = bytearray(path.read_bytes())
        if kind == "flipped":
            data[data.find(b"data/0") + 200] ^= 1
        damaged = {"truncated": data[:-100], "flipped": data, "text": b"hello", "empty": b""}
        path = tmp_path / "b.pth"
        if kind in damaged:
            path.write_bytes(damaged[kind])
        elif kind != "missing":
            torch.save({"foreign": {"a": 1}, "list": [1]}[kind], path)
        with pytest.raises(UserError, match=r"checkpoint .*b\.pth"):
            checkpoint.restore(path)

    @pytest.mark.parametrize(
        "content",
        [
            {
                "params": {
                    "conv_first.weight": torch.zeros(4, 1, 3, 3),
                    "body.0.conv1.weight": torch.zeros(4, 4, 3, 3),
                }
            },
            {"params": {}},
            {"params": 3},
            {"params_ema": {"Conv1.0.weight": 3}},
        ],
        ids=["EDSR", "empty", "number", "no tensors"],
    )
    def test_a_file_of_another_project_is_one_line(self, tmp_path, content):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(
            UserError, match=r"checkpoint .*a\.pth is neither of this project"
        ) as error:
            checkpoint.restore(tmp_path / "a.pth")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        "spoil", [lambda name, w: 3, lambda name, w: w.tolist(), lambda name, w: None]
    )
    def test_weights_that_are_no_tensors_are_one_line(self, tmp_path, spoil):
        path, *_ = self.saved(tmp_path)
        content = checkpoint.read(path)
        checkpoint.write(
            path,
            content | {"weights": {name: spoil(name, w) for name, w in content["weights"].items()}},
        )
        with pytest.raises(UserError, match="has weights that are not tensors"):
            checkpoint.restore(path)

    def test_a_network_that_makes_images_four_times_larger_is_one_line(self, tmp_path):
        large = build_network(
            {"name": "rrdbnet", "c": 3, "channels": 4, "blocks": 1, "growth": 2}
        ).state_dict()
        torch.save(
            {"params_ema": large | {"conv_first.weight": torch.zeros(4, 3, 3, 3)}},
            tmp_path / "a.pth",
        )
        with pytest.raises(UserError, match="this RRDBNet takes 3 channels and enlarges images"):
            checkpoint.restore(tmp_path / "a.pth")

    def test_a_program_in_a_checkpoint_is_not_run(self, tmp_path):
        class Canary:
            def __reduce__(self):
                return (open, (str(tmp_path / "sung"), "w"))

        torch.save({"weights": Canary()}, tmp_path / "a.pth")
        (tmp_path / "b.pth").write_bytes(pickle.dumps(Canary()))
        for name in ("a.pth", "b.pth"):
            with pytest.raises(UserError):
                checkpoint.restore(tmp_path / name)
        assert not (tmp_path / "sung").exists()

    def test_weights_of_another_shape_are_refused(self, tmp_path):
        path, *_ = self.saved(tmp_path)
        with pytest.raises(UserError, match="holds another network: Conv"):
            checkpoint.load_weights(
                build_network({"name": "unet", "scales": 3, "width": 8}), weights(path), path
            )

    @pytest.mark.parametrize("number", [math.nan, math.inf])
    def test_weights_that_are_not_finite_are_refused(self, number, tmp_path):
        path, *_ = self.saved(tmp_path)
        content = checkpoint.read(path)
        content["weights"]["Conv2.0.weight"][0, 0] = number
        checkpoint.write(path, content)
        with pytest.raises(UserError, match=r"weight Conv2\.0\.weight holds numbers that are not"):
            checkpoint.restore(path)


@pytest.mark.parametrize("device, name", [("cpu", "cpu"), ("-1", "cpu")])
def test_device_names(device, name):
    assert runtime.resolve(device) == torch.device(name)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:1", "99", "cuda:99", ""])
def test_unknown_devices_are_refused(device):
    with pytest.raises(UserError, match="device"):
        runtime.resolve(device)


def test_denormals_are_flushed():
    code = "import torch; from core import runtime; runtime.start('cpu'); print((torch.full((4,), 1e-30) * 1e-10).count_nonzero().item())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )  # conftest flushes in this process
    assert done.stdout.strip() == "0", done.stderr


class TestTracker:
    def test_auto_without_a_login_is_off_and_imports_nothing(self, tmp_path, monkeypatch, capsys):
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setitem(sys.modules, "wandb", None)
        for mode in ("auto", "disabled"):
            assert tracking.Tracker(mode, "p", "n", "k", tmp_path, {}).run is None
        assert not capsys.readouterr().out  # not even that wandb is not installed

    @pytest.mark.parametrize(
        "printed, mode", [("offline", "offline"), ("disabled", None), (None, "online")]
    )
    def test_auto_obeys_the_environment(self, printed, mode, tmp_path, monkeypatch):
        import wandb

        started = {}
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_MODE", printed) if printed else monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setattr(wandb, "init", lambda **settings: started.update(settings))
        tracking.Tracker("auto", "p", "n", "k", tmp_path, {})
        assert started.get("mode") == mode

    def test_tensorboard_holds_the_columns_of_the_metrics(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        scores = train("--tensorboard", "--epochs", "2")
        events = EventAccumulator(f"{scores['run']}/tensorboard").Reload()
        table = rows(scores["run"])
        for tag, column in (("val/psnr", "val_psnr"), ("train/loss", "train_loss"), ("lr", "lr")):
            found = events.Scalars(tag)
            assert [event.step for event in found] == [3, 6]
            assert np.allclose(
                [event.value for event in found], [float(row[column]) for row in table], rtol=1e-5
            )

    def test_tensorboard_has_each_step_once_after_a_resume(self, monkeypatch):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        log = tracking.Tracker.log

        def interrupted(self, row):
            log(self, row)
            self.writer.flush()
            if row["step"] == 5:
                raise KeyboardInterrupt

        words = ["--tensorboard", "--log_every", "1"]
        monkeypatch.setattr(tracking.Tracker, "log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(*words)
        monkeypatch.setattr(tracking.Tracker, "log", log)
        events = EventAccumulator(f"{train(*words)['run']}/tensorboard").Reload()
        assert [event.step for event in events.Scalars("step/loss")] == [*range(1, 10)]
        assert [event.step for event in events.Scalars("val/psnr")] == [3, 6, 9]

    def test_a_logger_that_fails_is_let_go(self, tmp_path, monkeypatch, capsys):
        import wandb

        class Broken:
            @staticmethod
            def log(_):
                raise OSError("disk full")

        monkeypatch.setattr(wandb, "init", lambda **_: Broken)
        tracker = tracking.Tracker("offline", "p", "n", "k", tmp_path, {})
        tracker.log({"train_loss": 1.0})
        tracker.close()
        assert "wandb: off from here on (disk full)" in capsys.readouterr().out

    def test_not_installed_is_said_and_stops_nothing(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "wandb", None)
        tracking.Tracker("offline", "p", "n", "k", tmp_path, {}).log({"train_loss": 1.0})
        assert "not installed" in capsys.readouterr().out

    def test_online_without_a_login_becomes_offline_with_the_releases_keys(
        self, tmp_path, monkeypatch, capsys
    ):
        import wandb

        logged, started = [], {}

        class Fake:
            log, finish = logged.append, staticmethod(lambda: None)

        monkeypatch.setattr(wandb, "init", lambda **settings: started.update(settings) or Fake)
        tracker = tracking.Tracker("online", "p", "n", "key", tmp_path, {"lr": 1})
        tracker.log({"epoch": 1, "train_loss": 0.5, "val_psnr": 30.0})
        tracker.close()
        assert (
            started["mode"] == "offline" and started["id"] == "key" and started["resume"] == "allow"
        )
        assert (
            logged[0]["Student/Train Loss"] == 0.5
            and logged[0]["Student/Test PSNR"] == 30.0
            and logged[0]["epoch"] == 1
        )

    def test_a_failing_login_is_one_line(self, tmp_path, monkeypatch, capsys):
        import wandb

        def refuse(**_):
            raise wandb.errors.CommError("no network")

        monkeypatch.setattr(wandb, "init", refuse)
        assert tracking.Tracker("offline", "p", "n", "k", tmp_path, {}).run is None
        assert "wandb: off (no network)" in capsys.readouterr().out

    def test_offline_logging_of_a_real_run_works(self, tmp_path, monkeypatch):
        monkeypatch.delenv("WANDB_MODE")
        scores = train("--wandb", "offline", "--epochs", "1", "--results", "w")
        assert any("wandb" in path.name for path in Path(scores["run"]).iterdir())


def test_run_json_tells_versions_and_scores():
    scores = train("--epochs", "1")
    with open(f"{scores['run']}/run.json") as file:
        record = json.load(file)
    assert (
        torch.__version__.startswith(record["versions"]["torch"])
        and record["scores"]["val_psnr"] == scores["val_psnr"]
    )
