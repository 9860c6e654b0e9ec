"""Pictures as their readers see them: what is in them, on which scales, in letters that can be read."""

from argparse import Namespace
from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from algo_functions import Meter
from data.batches import Batch
from demos import classes as demo_classes
from evaluation import class_report, compare, patterns, restoration
from features import figures as feature_figures
from features.report import measure_rows
from features.statistics import LayerStatistics
from features.subjects import Subject
from models.base import FirstImage
from physics.base import Physics
from report import figures
from speed import report
from training import plots

pytestmark = pytest.mark.pictures
IMAGES = torch.linspace(0, 1, 12)[:, None, None, None] * torch.rand(
    12, 1, 16, 16, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, in order."""
    kept = []
    monkeypatch.setattr(figures, "durable", lambda path, write: None)
    monkeypatch.setattr(figures.plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    plt.close("all")


def texts(figure: plt.Figure) -> list[Text]:
    for axis in figure.axes:
        axis.get_xticklabels(), axis.get_yticklabels()  # which are made when they are asked for
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def words(figure: plt.Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def curve_rows(distilled: bool) -> list[dict]:
    terms = ["loss", "task", *(["distill/mse/latent"] if distilled else [])]
    shares = terms[1:]
    return [
        {"epoch": float(epoch), "train_psnr": 30 + epoch, "val_psnr": 25 + epoch, "val_ssim": 0.5}
        | {f"train_{name}": 1 / epoch for name in terms}
        | {"train_task_loss": 1 / epoch, "val_task_loss": 2 / epoch}
        | {f"share_{name}": 1 / len(shares) for name in shares}
        for epoch in (1, 2)
    ]


class TestCurves:
    def test_columns_are_called_by_words_with_units_and_validation_has_its_own_axes(self, drawn):
        figures.draw_curves(curve_rows(True), ("psnr",), "curves.png", {"psnr": 24.5})
        training, validation, losses, shares = drawn[0].axes
        assert {axis.get_ylabel() for axis in (training, validation)} == {"PSNR (dB)"}
        assert all(axis.get_xlabel() == "epoch" for axis in drawn[0].axes)
        for column in ("train_", "val_", "share_", "distill/", "psnr", "_"):
            assert column not in words(drawn[0])
        assert "mse of latent" in words(drawn[0]) and losses.get_yscale() == "log"
        low, high = validation.get_ylim()
        assert low > 20 and high < 28, "training does not set the scale of validation"
        assert len(shares.lines) == 2

    def test_the_first_image_is_a_line_below_which_nothing_was_learnt(self, drawn):
        figures.draw_curves(curve_rows(False), ("psnr",), "curves.png", {"psnr": 24.5})
        training, validation, losses = (axis for axis in drawn[0].axes if axis.get_visible())
        (line,) = [line for line in validation.lines if "first image" in line.get_label()]
        assert set(line.get_ydata()) == {24.5} and "24.50" in line.get_label()
        assert len(training.lines) == 1 and len(losses.lines) == 2, "the task's, in either split"

    def test_the_task_is_drawn_without_weights_solid_in_training_and_dashed_in_validation(
        self, drawn
    ):
        rows = curve_rows(True)
        figures.draw_curves(rows, ("psnr",), "curves.png")
        lines = {line.get_label(): line for line in drawn[0].axes[2].lines}
        training, validation = lines["task"], lines["task, validation"]
        assert training.get_color() == validation.get_color()
        assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
        assert [*validation.get_ydata()] == [row["val_task_loss"] for row in rows]

    def test_percentages_of_training_and_validation_share_a_scale(self, drawn):
        rows = [
            {"epoch": k, "train_task": 1, "train_loss": 1}
            | {f"train_{top}": 50 + k for top in ("top1", "top3")}
            | {f"val_{top}": 30 + k for top in ("top1", "top3")}
            for k in (1, 2)
        ]
        figures.draw_curves(rows, ("top1", "top3"), "curves.png")
        assert drawn[0].axes[0].get_ylim() == drawn[0].axes[1].get_ylim()
        assert "top-1 (%)" in words(drawn[0])

    def test_curves_are_drawn_at_the_end_and_not_again_within_half_a_minute(self, monkeypatch):
        times = iter([0, 10, 31, 31, 40, 70, 70])
        monkeypatch.setattr(plots.time, "perf_counter", lambda: next(times))
        calls = []
        fit = SimpleNamespace(
            run=SimpleNamespace(draw=lambda *what: calls.append(what)),
            rows=[],
            meter=Meter(),
        )
        curves = plots.Plots()
        drawn_after = []
        for _ in range(4):
            curves.draw_curves_in_between(fit)
            drawn_after.append(len(calls))
        assert drawn_after == [0, 1, 1, 2]


class TestGrids:
    def test_tiles_are_neither_flat_nor_all_the_most_detailed(self):
        places = figures.select_detailed(IMAGES, 3)
        assert places == [11, 9, 6], "evenly spaced among the more detailed half"
        assert figures.select_detailed(IMAGES[:2], 3) == [1, 0]

    @pytest.mark.parametrize("count, across, down", [(2, 5, 3), (4, 5, 6)])
    def test_errors_stand_on_one_scale_with_a_bar(self, count, across, down):
        columns = {f"estimate {k}": IMAGES[:3] + 0.1 * k for k in range(count)}
        figure = figures.plot_grid(columns, IMAGES[:3], figures.psnr_notes(columns, IMAGES[:3]))
        assert len(figure.axes) == across * down + 1
        maps = [
            image for axis in figure.axes for image in axis.images if image.cmap.name == "magma"
        ]
        assert len(maps) == 3 * count and len({image.get_clim() for image in maps}) == 1
        assert maps[0].get_clim()[1] == pytest.approx(0.1 * (count - 1), rel=1e-4)
        expected = (columns["estimate 1"][0] - IMAGES[0]).abs().mean(0).numpy()
        assert any(np.allclose(image.get_array(), expected) for image in maps)
        assert "absolute error" in figure.axes[-1].get_xlabel()
        plt.close(figure)

    def test_without_a_truth_there_are_no_errors(self):
        figure = figures.plot_grid({"before": IMAGES[:2], "after": IMAGES[:2]}, None)
        assert len(figure.axes) == 4
        plt.close(figure)

    def test_pictures_of_their_own_sizes_stand_in_one_sheet(self):
        images = [torch.rand(3, 20, 30), torch.rand(3, 24, 16)]
        figure = figures.plot_grid({"network": images}, images)
        sizes = [axis.images[0].get_array().shape[:2] for axis in figure.axes[:-1]]
        assert sizes == [(20, 30)] * 3 + [(24, 16)] * 3
        plt.close(figure)

    def test_a_tested_networks_sheet_has_chosen_tiles_and_the_estimates_without_training(
        self, monkeypatch, tmp_path
    ):
        seen = {}
        monkeypatch.setattr(
            restoration, "draw_grid", lambda columns, truth, *_: seen.update(columns, truth=truth)
        )
        args = Namespace(seed=0, save_batches=1, crop_border=0, y_channel=False, denoiser=None)
        camera = Halving({"name": "half", "n": 16, "c": 1})
        network = Named(1)
        loader = torch.utils.data.DataLoader(Tiles(), 5, collate_fn=collate)
        places, cpu = figures.select_detailed(IMAGES, 4), torch.device("cpu")
        beside = restoration.estimate_baselines(camera, None, loader, args, cpu, places)
        lmmse = restoration.Estimate(beside["back-projection"].meter, dict(enumerate(IMAGES)))
        restored = restoration.estimate_images(network, camera, loader, args, cpu, places)
        tested = restoration.PhysicsResult(
            network, camera, "half", restored, beside | {"LMMSE": lmmse}
        )
        tests = restoration.CheckpointResult("N.pth", "N", loader, [tested], places, len(IMAGES))
        restoration.write_contact_sheet(tested, tests, tmp_path)
        assert list(seen) == ["back-projection", "LMMSE", "network", "truth"]
        for k, place in enumerate(places):
            assert torch.equal(seen["truth"][k], IMAGES[place])
            assert torch.equal(seen["LMMSE"][k], IMAGES[place])
            assert torch.equal(seen["network"][k], IMAGES[place] / 2)
            assert torch.equal(seen["back-projection"][k], IMAGES[place] / 2)


class Tiles(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, k: int) -> dict:
        return {"image": IMAGES[k], "index": torch.tensor(k)}


def collate(items: list[dict]) -> Batch:
    return Batch(**{name: torch.stack([item[name] for item in items]) for name in items[0]})


class Halving(Physics):
    """A camera that sees half of the light."""

    def measure_batch(self, batch, generator):
        return batch.image / 2

    def first_image(self, y):
        return y

    def back_projection(self, y):
        return y


class Named(FirstImage):
    def features(self, x):
        return {"enc1": x, "output": x}


MODELS = [
    {"model": f"student_{'of_a_long_name_' * k}{k}", "camera": "cr 0.1", "parameters": 10**k}
    | {"ms, batch 1": k / 3, "± batch 1": 1.0, "PSNR": 30.0 + k}
    for k in (1, 2, 3, 9)
]


class TestModels:
    def test_every_network_is_named_in_full_and_every_label_lies_inside(self):
        figure = compare.plot_comparison(MODELS, 1)
        figure.draw_without_rendering()
        assert all(row["model"] in words(figure).replace("\n    ", "") for row in MODELS)
        axis, box = figure.axes[0], figure.axes[0].get_window_extent()
        for text in axis.texts:
            where = text.get_window_extent()
            assert box.x0 < where.x0 and where.x1 < box.x1 and where.y1 < box.y1
        circles = [c for c in axis.collections if isinstance(c, PathCollection)]
        assert len(circles) == len(axis.texts) == 4
        assert "ms" in axis.get_xlabel() and "dB" in axis.get_ylabel()
        plt.close(figure)

    def test_no_bar_of_a_latency_reaches_below_zero(self):
        figure = compare.plot_comparison(MODELS, 1)
        ends = [
            point[0]
            for bars in figure.axes[0].collections
            if not isinstance(bars, PathCollection)
            for segment in bars.get_segments()
            for point in segment
        ]
        assert len(ends) == 8 and min(ends) > 0
        plt.close(figure)


def tapped(*maps: torch.Tensor) -> tuple[list[Subject], list[dict[str, LayerStatistics]]]:
    """Networks whose only tap has these maps (B, C, H, W)."""
    layers = []
    for f in maps:
        layer = LayerStatistics({"std": lambda f: f.flatten(2).std(2)}, seed=0)
        layer.add(f, maps[0] if f.shape == maps[0].shape else None, 0)
        layers.append({"latent": layer})
    names = [Subject(letter, letter, None, None) for letter in "abc"[: len(maps)]]
    return names, layers


class TestFeatures:
    def test_bars_of_measures_lie_where_channels_lie(self):
        f = torch.zeros(4, 8, 6, 6)
        f[:, 0] = torch.rand(4, 6, 6) * 100  # a single large channel: mean < deviation
        subjects, layers = tapped(f, f)
        rows = measure_rows(subjects, layers)
        assert rows[0]["mean"] < rows[0]["std"]
        channels = f.flatten(2).std(2).mean(0).double().numpy()
        names = ("channel_q1", "channel_median", "channel_q3")
        expected = np.quantile(channels, (0.25, 0.5, 0.75))
        assert [rows[0][name] for name in names] == pytest.approx(expected)
        figure = feature_figures.plot_measures(rows, subjects)
        for bars in figure.axes[0].collections:
            assert all(segment[:, 1].min() >= 0 for segment in bars.get_segments())
        plt.close(figure)

    def test_similarities_have_one_scale_that_their_range_decides(self):
        subjects, layers = tapped(*torch.rand(3, 2, 3, 4, 4))
        figure = feature_figures.plot_similarities(
            layers, [torch.tensor([[0.97]]), torch.tensor([[0.83]])], subjects
        )
        images = [axis.images[0] for axis in figure.axes if axis.images]
        assert [image.get_clim() for image in images] == [pytest.approx((0.8, 1.0))] * 2
        one, other = (image.cmap(image.norm(image.get_array()))[0, 0] for image in images)
        assert np.abs(one - other).max() > 0.3, "0.97 and 0.83 look different"
        assert any("CKA" in axis.get_ylabel() for axis in figure.axes)
        plt.close(figure)

    def test_channels_that_changed_most_are_none_that_are_constant(self):
        a, b = torch.rand(2, 1, 6, 5, 5)
        a[:, 2:], b[:, 2:5] = 0, 0  # 5 awakes, 2 to 4 are dead in both
        b[:, 5] *= 1e-3
        maps = [f[0] for f in (a, b)]
        shown = feature_figures.select_channels(maps, 6)
        change = (a - b).square().sum((0, 2, 3))
        assert shown.channels == [sorted((0, 1, 5), key=lambda k: -change[k])] * 2
        assert "constant in all networks: 3 of 6" in shown.description
        subjects, _ = tapped(a, b)
        figure = feature_figures.plot_maps(maps, subjects, shown)
        limits = [axis.images[0].get_clim() for axis in figure.axes]
        assert limits[:3] == limits[3:], "a channel has one scale in both networks"
        plt.close(figure)

    def test_networks_of_other_shapes_show_their_most_varied_channels(self):
        a, b = torch.zeros(4, 5, 5), torch.zeros(2, 3, 3)
        a[3], a[1], b[1] = torch.rand(5, 5), torch.rand(5, 5) * 9, torch.rand(3, 3)
        assert feature_figures.select_channels([a, b], 2).channels == [[1, 3], [1, 0]]


class TestPatterns:
    def test_orderings_are_distinguished(self):
        m = torch.arange(1, 257).double()
        best = 1 - torch.exp(-m / 40)
        energies = {
            name: 1 - (1 - best) * factor
            for name, factor in (("xy", 1.01), ("zig_zag", 1.03), ("variance", 1.002))
        }
        figure = patterns.plot_energies(energies | {patterns.BEST: best}, 25)
        left, right = figure.axes
        assert len({(line.get_color(), line.get_linestyle()) for line in left.lines}) == 5
        heights = right.transData.transform(
            [(25, line.get_ydata()[24]) for line in right.lines[:3]]
        )[:, 1]
        assert np.diff(sorted(heights)).min() > 20, "dots between two curves"
        plt.close(figure)


class TestClasses:
    def test_names_of_classes_can_be_read_and_do_not_cover_each_other(self):
        labels = torch.arange(60)
        figure = class_report.plot_confusion(labels, labels, [f"class {k}" for k in range(60)])
        figure.draw_without_rendering()
        names = figure.axes[0].get_yticklabels()
        boxes = [name.get_window_extent() for name in names]
        assert len(names) == 60 and names[0].get_fontsize() >= figures.SMALLEST
        assert all(below.y1 <= above.y0 + 1 for above, below in pairwise(boxes))
        plt.close(figure)

    def test_of_many_classes_some_are_named(self):
        labels = torch.arange(300)
        figure = class_report.plot_confusion(labels, labels, [f"class {k}" for k in range(300)])
        names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert names == [f"class {k}" for k in range(0, 300, 3)]
        plt.close(figure)

    def test_bars_of_the_demo_begin_at_zero_and_marks_of_the_ranking_are_explained(
        self, drawn, tmp_path
    ):
        (tmp_path / "metrics.csv").write_text("epoch,val_top1\n1,50\n2,60\n")
        rows = [{"": "student, resnet8", "top-1": 60.0, "top-3": 90.0}]
        demo_classes.draw_validation_and_test(
            {"student": str(tmp_path / "best.pth")}, rows, "figure.png"
        )
        assert drawn[0].axes[1].get_ylim()[0] == 0
        demo_classes.draw_ranking(
            {name: [{"top-1": 60.0}, {"top-1": 62.0}] for name in ("alone", "kd")}, "figure.png"
        )
        for word in ("one seed", "mean over the seeds", "mean of the student alone"):
            assert word in words(drawn[1])


def every_figure() -> list[plt.Figure]:
    """A figure of every kind that returns one."""
    subjects, layers = tapped(*torch.rand(2, 2, 3, 4, 4))
    maps = [kept["latent"].example for kept in layers]
    shown = feature_figures.select_channels(maps, 3)
    labels = torch.arange(5)
    energy = torch.linspace(0.1, 1, 16).double()
    columns = {"a": IMAGES[:2], "b": IMAGES[1:3], "c": IMAGES[2:4], "d": IMAGES[:2]}
    return [
        compare.plot_comparison(MODELS, 1),
        feature_figures.plot_measures(measure_rows(subjects, layers), subjects),
        feature_figures.plot_similarities(layers, [torch.eye(1)], subjects),
        feature_figures.plot_maps(maps, subjects, shown),
        feature_figures.plot_fourier_transforms(maps, subjects, shown),
        class_report.plot_confusion(labels, labels, [str(k) for k in range(5)]),
        patterns.plot_energies({"xy": energy, patterns.BEST: energy}, 5),
        figures.plot_grid(columns, IMAGES[:2], figures.psnr_notes(columns, IMAGES[:2])),
    ]


def test_no_letter_of_any_picture_is_smaller_than_eight_points(drawn):
    rows = [
        {"group": group, "case": "step", "candidate": name, "seconds": 1.0, "ratio": 1.0}
        | {"n": 8, "batch": 1, "GFLOP/s": 1.0}
        for group in ("training", "physics", "peak")
        for name in ("ours", "baseline loop")
    ]
    report.draw_benchmark(rows, "figure.png")
    figures.draw_curves(curve_rows(True), ("psnr",), "curves.png", {"psnr": 24.5})
    figures.draw_lines([{"epoch": 1, "ft/latent": 0.5}], "epoch", "lines.png")
    assert "ft of latent" in words(drawn[-1]) and list(drawn[-1].axes[0].get_xticks()) == [1]
    for figure in every_figure() + drawn:
        for text in texts(figure):
            assert text.get_fontsize() >= figures.SMALLEST, text.get_text()


def test_lines_differ_without_their_colours():
    styles = [str(style["linestyle"]) for style in plt.rcParams["axes.prop_cycle"]]
    assert len(set(styles)) == len(styles) == len(set(figures.COLORS))
