"""The benchmark: both sides compute the same, what is not the same is not timed, and a tiny run of everything."""

import csv
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmark
import main_unet
import main_unet_dist
from core.errors import UserError
from core.registry import BENCHES
from data.splits import hold_out
from data_loader import Request, build_splits
from evaluation.live import Live
from speed import candidates, live, report
from speed.baseline import BaselineLoop, DigitImages, observe_image
from speed.candidates import CASES, Bench, N, write_digits
from speed.groups import measure_memory
from speed.timing import time_interleaved, timing_rows
from training.validation import evaluate

TINY = ["--width", "2", "--batch_size", "4", "--rounds", "1", "--steps", "1", "--device", "cpu"]
TINY += ["--sizes", "8", "16", "--images", "8", "16", "--batch_sizes", "2", "4"]
CPU = torch.device("cpu")


@pytest.fixture
def bench(tmp_path):
    args = benchmark.parse([*TINY, "--precision", "fp32"])
    return Bench(
        args, CPU, {"supervised": main_unet, "distilled": main_unet_dist}, tmp_path / "bench"
    )


def test_a_group_alone_is_timed_and_written(tmp_path):
    words = [*TINY, "--results", str(tmp_path / "results"), "--only", "physics"]
    rows = benchmark.main(benchmark.parse(words))["rows"]
    assert {row["group"] for row in rows} == {"physics"}
    folder = tmp_path / "results" / "benchmark"
    assert "| ours" in (folder / "report.md").read_text()
    with open(folder / "table.csv", newline="") as file:
        assert len([*csv.DictReader(file)]) == len(rows)


@pytest.mark.long
@pytest.mark.pictures
def test_everything_is_timed_and_written(bench, tmp_path):
    result = benchmark.main(
        benchmark.parse(
            [*TINY, "--results", str(tmp_path / "results"), "--teacher", bench.teacher(2)]
        )
    )
    assert {row["group"] for row in result["rows"]} == set(BENCHES)
    of_live = {"CPU, live, 128 x 128, unrolled: frames a second"}  # whose network has one size
    assert {target["case"] for target in result["goals"] if target[""] != "not run"} == of_live, (
        "the other targets are of other sizes"
    )
    folder = tmp_path / "results" / "benchmark"
    assert (folder / "figure.png").stat().st_size > 1000 and "| baseline loop" in (
        folder / "report.md"
    ).read_text()
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == report.COLUMNS and len(rows) == len(result["rows"])
    for case in (*CASES, "distilled by teacher_2.pth"):
        candidates = [row["candidate"] for row in rows if row["case"] == f"{case}, step"]
        assert candidates == ["ours", "baseline loop", "limit (c)", "limit (d)"]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert {path.name for path in tmp_path.iterdir()} == {"bench", "results"}, (
        "nothing is left elsewhere"
    )


class TestBothSides:
    @pytest.fixture(autouse=True)
    def together(self, monkeypatch):
        """Both in this process, where they can be looked at."""
        monkeypatch.setattr(
            candidates, "BaselineProcess", lambda _, *what, **sides: BaselineLoop(*what, **sides)
        )

    @pytest.mark.parametrize("case", CASES)
    def test_have_the_same_losses(self, bench, case):
        bench.pair(CASES[case], 2).check(1e-4, case)

    @pytest.mark.parametrize(
        "change",
        [{"lr": 1.2e-4}, {"alpha": 2.0}, {"grad_clip": 1e-3}, {"weight_decay": 30.0}],
        ids=str,
    )
    def test_are_not_timed_where_one_is_changed(self, bench, change):
        pair = bench.pair(CASES["distilled"], 2)
        vars(pair.baseline.args).update(change)
        pair.baseline.optimizer.param_groups[0].update(
            {name: value for name, value in change.items() if name == "weight_decay"}
        )
        with pytest.raises(UserError, match=r"the baseline loop's .* nothing is timed"):
            pair.check(1e-4, "distilled")

    def test_see_the_same_images_physics_teacher_and_loss(self, bench):
        pair = bench.pair(CASES["distilled"], 2)
        fit, baseline = pair.ours.fit, pair.baseline
        batch = next(fit.batches(0))
        x = torch.stack([baseline.train[i] for i in batch.index.tolist()])
        assert torch.equal(x, batch.image)
        teacher = fit.task.teachers[0]
        for operator, camera in (
            (baseline.operator, fit.task.physics),
            (baseline.operator_t, teacher.physics),
        ):
            torch.testing.assert_close(
                observe_image(operator, x), camera.observe(x), rtol=0, atol=1e-5
            )
        layers = (
            network.features(teacher.physics.observe(x))
            for network in (baseline.teacher, teacher.network)
        )
        a, b = layers
        for layer in a:
            torch.testing.assert_close(a[layer], b[layer], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(baseline.loss(x)[0], fit.task(batch)["loss"], rtol=1e-5, atol=0)

    def test_see_the_same_mirror_images(self, bench):
        pair = bench.pair(CASES["distilled, augmented"], 2)
        images = pair.ours.fit.splits["train"]
        for epoch in (0, 1):
            images.epoch = pair.baseline.train.epoch = epoch
            for i in range(8):
                assert torch.equal(pair.baseline.train[i], images[i]["image"])

    def test_validate_alike(self, bench):
        ours = bench.train_epochs(CASES["supervised"], 2, 16, 4, 1)
        pair = bench.pair(CASES["supervised"], 2)
        pair.baseline.student.load_state_dict(ours.fit.task.student.state_dict())
        array = write_digits(16, bench.folder / "digits_16")
        pair.baseline.val = DigitImages(array[hold_out(len(array))[1]], N)
        expected = evaluate(ours.fit.network, ours.fit.views, ours.fit.meter.new()).summary()
        found = pair.baseline.validate()
        assert found["psnr"] == pytest.approx(expected["psnr"], abs=1e-3) and found[
            "ssim"
        ] == pytest.approx(expected["ssim"], abs=1e-4)


@pytest.mark.long
def test_memory_of_an_observation_is_measured():
    with get_context("spawn").Pool(1) as pool:  # this process may have kept memory from before
        theirs, ours = pool.starmap(measure_memory, [(512, False), (1024, True)], 1)
    assert 2**20 < theirs < 2**30, "deepinv's camera holds several images of a MiB"
    assert 2**20 < ours < 2**30


def test_the_wait_for_its_turn_is_not_an_epochs(bench):
    ours = bench.train_epochs(CASES["supervised"], 2, 8, 4, 2)
    ours.epoch()
    time.sleep(2)
    began = time.perf_counter()
    taken = ours.epoch()
    assert 0 < taken <= time.perf_counter() - began + 0.01 and ours.fit.rows[-1]["seconds"] > 2


@pytest.mark.parametrize("count", [8, 15, 1000])
def test_so_many_images_train(count, tmp_path):
    array = write_digits(count, tmp_path)
    for dataset, root in (("mnist", tmp_path), ("npz", tmp_path / "digits.npz")):
        splits = build_splits(
            Request(dataset=dataset, data_root=str(root)), wanted=("train", "val")
        )
        assert len(splits["train"]) == count and len(splits["val"]) == len(array) - count


def test_ratios_are_medians_over_rounds():
    rows = timing_rows("g", "c", {"ours": [1.0, 2.0, 10.0], "other": [3.0, 2.0, 20.0]}, images=6)
    assert [row["seconds"] for row in rows] == [2.0, 3.0]
    assert [row["ratio"] for row in rows] == [1.0, 2.0]
    assert [row["images/s"] for row in rows] == [3.0, 2.0]


def test_contenders_take_turns_and_the_first_round_does_not_count():
    called = []
    times = time_interleaved(
        {name: lambda name=name: called.append(name) for name in "ab"}, 2, CPU, repeat=2
    )
    assert "".join(called) == "aabb" * 3 and [len(taken) for taken in times.values()] == [2, 2]


def test_targets_are_met_missed_or_not_run():
    def row(width, candidate, ratio):
        return {
            "group": "training",
            "case": report.STEP,
            "n": 32,
            "width": width,
            "batch": 50,
            "candidate": candidate,
            "seconds": 1.0,
            "ratio": ratio,
        }

    rows = [
        row(64, "limit (c)", 0.95),
        row(64, "baseline loop", 1.2),
        row(16, "baseline loop", 2.5),
    ]
    assert [target[""] for target in report.check_goals(rows, "cpu")] == [
        "met",
        "missed",
        "met",
        *["not run"] * 6,
    ]
    assert {target[""] for target in report.check_goals(rows, "cuda")} == {"not run"}, (
        "targets of a CPU are not met by a GPU"
    )


def test_live_frames_are_timed_one_at_a_time_once_they_are_those_of_a_batch(bench, monkeypatch):
    monkeypatch.setattr(live, "SIDE", 16)
    monkeypatch.setattr(live, "FRAMES", 5)
    rows = live.time_live(bench)
    assert [row["candidate"] for row in rows] == ["U-Net, width 2", "unrolled"]
    for row in rows:
        assert row["batch"] == 1 and row["images/s"] == pytest.approx(1 / row["seconds"])
        assert row["99th percentile (ms)"] >= 1e3 * row["seconds"]
    other = Live.__call__
    monkeypatch.setattr(Live, "__call__", lambda *words: other(*words) + 0.1)
    with pytest.raises(UserError, match=r"live, unet: .* from that of a batch; nothing is timed"):
        live.time_live(bench)


def test_goals_of_live_frames_are_of_width_16():
    rows = [
        {"group": "live", "case": "a frame", "candidate": name, "images/s": rate}
        for name, rate in (("U-Net, width 64", 5.0), ("U-Net, width 16", 120.0), ("unrolled", 20.0))
    ]
    checked = [goal[""] for goal in report.check_goals(rows, "cpu") if "live" in goal["case"]]
    assert checked == ["met", "missed"]


def test_unbalanced_quotes_are_the_users_mistake(bench):
    bench.args.training_flags = "--amp 'off"
    with pytest.raises(UserError, match="training_flags"):
        Bench(bench.args, CPU, {}, Path("x"))


def test_digits_are_bytes_of_mnists_shape(tmp_path):
    array = write_digits(20, tmp_path)
    assert array.dtype == np.uint8 and array.shape[1:] == (28, 28) and array.max() > 200


@pytest.mark.parametrize("cuda", [False, True])
def test_nothing_is_left_open_by_a_bare_command(cuda):
    args = benchmark.parse([])
    benchmark.set_defaults(args, cuda)
    assert (
        args.teacher is args.config is None
        and None not in (vars(args) | {"teacher": 0, "config": 0}).values()
    )
