"""Patterns that are learned with the network."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_scripts import call

import main_unet
import main_unet_dist
import predict
import progressive_distill
import test_UNet
import visualize_mask_spc
from algo_functions import build_physics
from checkpoints import checkpoint
from core.errors import UserError
from physics.single_pixel import SinglePixel
from training import loop

N = 16
CONFIG = {"name": "spc", "n": N, "c": 1, "cr": 0.1, "ordering": "learned", "x0": "adjoint"}
TINY = ["--dataset", "digits", "--n", N, "--limit_train", "30", "--limit_val", "6", "--width", "2",
        "--batch_size", "10", "--epochs", "2", "--lr", "0.1"]  # fmt: skip
LEARNED = ["--cr", "0.1", "--ordering", "learned"]


def pictures(count=20, n=N):
    return torch.rand(count, 1, n, n, generator=torch.Generator().manual_seed(1)).cumsum(3) / n


def camera(**config):
    return build_physics(CONFIG | {"awgn_snr": None} | config, pictures)


def patterns_of(path):
    return checkpoint.read(path)["physics"]["state"][0]["patterns"]


@pytest.fixture
def student():
    return call(main_unet, *LEARNED, *TINY)


class TestTheCamera:
    def test_begins_with_the_hadamard_patterns_of_most_energy(self):
        learned, fixed = camera(), camera(ordering="variance")
        assert learned.m == fixed.m == 25
        x = pictures()
        torch.testing.assert_close(learned.observe(x), fixed.observe(x), atol=1e-5, rtol=1e-4)
        assert (learned.patterns[0] == 1).all() and learned.patterns.abs().eq(1).all()

    def test_every_pattern_passes_its_gradient_to_its_weight(self):
        learned, x = camera(), pictures()
        with torch.no_grad():
            learned.operator.weights[0] *= 3  # some of them are beyond 1
        rows = learned.operator.rows().detach().double().requires_grad_()
        inverse = rows.T @ torch.linalg.inv(rows @ rows.T)  # another way to the same first image
        x0 = (inverse @ rows @ x.flatten(1).double().T).T.view_as(x)
        target = torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
        (x0 - target).abs().sum().backward()
        ours = learned.observe(x)
        torch.testing.assert_close(ours.double(), x0, atol=1e-5, rtol=1e-4)
        (ours - target).abs().sum().backward()
        weights = learned.operator.weights
        expected = rows.grad[1:] / N * (weights.abs() <= 1)
        assert (weights.abs() > 1).any()
        torch.testing.assert_close(weights.grad.double(), expected, atol=1e-3, rtol=1e-3)

    def test_noise_has_the_level_of_the_flags(self):
        x = torch.full((200, 1, N, N), 0.5)
        clean, noisy = camera(), camera(noise=0.1)
        error = noisy.values(noisy.measure(x)) - clean.values(clean.measure(x))
        assert error.std().item() == pytest.approx(0.1, rel=0.05)

    def test_a_black_image_has_a_gradient(self):
        learned, x = camera(awgn_snr=20.0), pictures()
        x[0] = 0
        learned.observe(x, torch.Generator().manual_seed(0)).square().mean().backward()
        assert learned.operator.weights.grad.isfinite().all()

    def test_is_rebuilt_from_its_signs_without_weights(self):
        learned, x = camera(), pictures()
        with torch.no_grad():
            weights = learned.operator.weights
            weights += torch.randn(weights.shape, generator=torch.Generator().manual_seed(3))
        again = build_physics(learned.config, state=learned.state())
        assert learned.learns and not again.learns and again.patterns.dtype == torch.int8
        torch.testing.assert_close(learned.observe(x), again.observe(x), atol=1e-5, rtol=1e-4)
        assert torch.equal(again.amplitudes, torch.full((25,), 1 / N, dtype=torch.float64))

    @pytest.mark.parametrize(
        "config, message",
        [
            ({"photons": 10.0}, "learn the patterns with --noise"),
            ({"x0": "lmmse"}, "x0 lmmse is fitted to fixed patterns"),
            ({"cr": 0.004}, "leaves no pattern to be learned"),
            ({"cr": [0.1, 0.2]}, "for one ratio"),
            ({"measurements": True}, "choose another --ordering"),
            ({"n": 128}, "singular value decomposition"),
        ],
        ids=str,
    )
    def test_what_it_cannot_learn_is_refused(self, config, message):
        with pytest.raises(UserError, match=message):
            camera(**config)


class TestTraining:
    def test_changes_patterns_and_keeps_them(self, student):
        learned = patterns_of(student["export"])
        assert learned.dtype == torch.int8 and learned.shape == (25, N * N)
        assert (learned[0] == 1).all() and learned.abs().eq(1).all()
        images = call(main_unet, *LEARNED, *TINY, "--results", "none", "--lr", "1e-9")
        assert (patterns_of(images["export"]) != learned).float().mean() > 0.01
        score = call(test_UNet, "--checkpoint", student["export"], "--dataset", "digits")
        assert {row["ordering"] for row in score["rows"]} == {"learned"}

    def test_its_last_line_says_which_first_image_it_names(self, capsys):
        call(main_unet, *LEARNED, *TINY)
        assert "(first image of the first patterns " in capsys.readouterr().out
        call(main_unet, *LEARNED[:2], *TINY, "--results", "b")
        assert "(its first image " in capsys.readouterr().out

    def test_an_interrupted_run_goes_on_to_the_same_bits(self, student, monkeypatch):
        update = loop.Fit.update

        def interrupted(fit, *words):
            if fit.steps == 4:
                raise KeyboardInterrupt
            update(fit, *words)

        words = [*LEARNED, *TINY, "--results", "b", "--save_every", "1"]
        monkeypatch.setattr(loop.Fit, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call(main_unet, *words)
        monkeypatch.setattr(loop.Fit, "update", update)
        again = call(main_unet, *words)
        assert torch.equal(patterns_of(again["export"]), patterns_of(student["export"]))
        a, b = (checkpoint.read(run["export"])["weights"] for run in (again, student))
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_a_batch_in_parts_is_the_whole_batch(self):
        words = [*LEARNED, *TINY, "--epochs", "1", "--optimizer", "sgd", "--lr", "10"]
        runs = [
            call(main_unet, *words, "--results", f"{size}", "--batch_size", size, "--accumulate", k)
            for size, k in ((10, 1), (5, 2))
        ]
        states = [checkpoint.read(f"{run['run']}/last.pth")["resume"]["task"] for run in runs]
        name = "physics.operator.weights"
        torch.testing.assert_close(*(state[name] for state in states), atol=1e-5, rtol=1e-4)
        signs = patterns_of(runs[0]["export"]) != camera().patterns
        assert torch.equal(*(patterns_of(run["export"]) for run in runs)) and signs.any()

    def test_seeds_side_by_side_have_patterns_of_their_own(self):
        words = [*LEARNED, *TINY, "--data_seed", "7"]
        many = call(main_unet, *words, "--seeds", "0", "1", "--results", "many")
        one = call(main_unet, *words, "--seed", "1", "--results", "one")
        exports = [patterns_of(run["export"]) for run in (*many["runs"], one)]
        assert torch.equal(exports[1], exports[2]) and not torch.equal(exports[0], exports[1])

    def test_blocks_share_them(self):
        words = [*LEARNED, *TINY, "--n", "32", "--block", "16"]
        run = call(main_unet, *words)
        assert patterns_of(run["export"]).shape == (25, 256)

    def test_a_teacher_guides_them(self):
        teacher = call(main_unet, "--cr", "0.5", *TINY)["export"]
        words = [*LEARNED, *TINY, "--teacher", teacher, "--type_dist", "encoder", "--beta", "0"]
        guided = call(main_unet_dist, *words)["export"]
        start = camera_of_digits().patterns
        assert (patterns_of(guided) != start).any()
        idle = call(main_unet_dist, *words, "--alpha", "0", "--results", "idle")["export"]
        assert torch.equal(patterns_of(idle), start)  # nothing else moves them

    def test_a_teacher_that_learns_too_has_its_own(self):
        words = [*LEARNED, *TINY, "--online", "--cr_teacher", "0.5", "--type_dist", "output"]
        run = call(main_unet_dist, *words)
        assert patterns_of(run["export"]).shape == (25, 256)
        assert patterns_of(f"{run['run']}/teacher.pth").shape == (128, 256)

    def test_weights_for_other_patterns_are_refused(self, student):
        with pytest.raises(UserError, match="was trained for other patterns than those"):
            call(main_unet, *LEARNED, *TINY, "--results", "b", "--train_again", student["export"])

    def test_each_rung_of_a_ladder_has_its_own(self):
        words = [*LEARNED[2:], "--ladder", "0.5", "0.1", *TINY, "--limit_test", "5"]
        rungs = call(progressive_distill, *words, "--no_warm_start")["rungs"]
        assert [len(patterns_of(rung["checkpoint"])) for rung in rungs] == [128, 25]

    def test_a_student_goes_on_with_fixed_patterns(self, student):
        words = ["--redistill", student["export"], "--teacher", student["export"], *TINY]
        for flag in ("--n", "--width"):  # they are the student's
            place = words.index(flag)
            del words[place : place + 2]
        result = call(progressive_distill, *words, "--type_dist", "output", "--limit_test", "5")
        (rung,) = result["rungs"]
        assert torch.equal(patterns_of(rung["checkpoint"]), patterns_of(student["export"]))


def camera_of_digits():
    from data_loader import Request, build_splits

    request = Request(dataset="digits", n=N, limit_train=30)
    images = build_splits(request, ("train",))["train"].stack
    return build_physics(CONFIG | {"awgn_snr": None}, images)


class TestShowingThem:
    @pytest.mark.pictures
    def test_patterns_of_a_checkpoint_are_drawn(self, student):
        words = ["--checkpoint", student["export"], "--dataset", "digits", "--limit_train", "30"]
        assert call(visualize_mask_spc, *words)["m"] == 25
        (folder,) = Path("results/masks").iterdir()
        assert folder.name == "UNET_cr_0.1_cr_0.1_n_16"

    @pytest.mark.parametrize("ordering", ["learned", "xy"])
    def test_half_as_many_exposures_bring_the_same_image(self, ordering):
        path = call(main_unet, *LEARNED[:2], "--ordering", ordering, *TINY)["export"]
        words = ["--checkpoint", path, "--dataset", "digits", "--export", "dmd", "--one_sided"]
        call(visualize_mask_spc, *words)
        with open("dmd/patterns.csv", newline="") as file:
            names = [row["positive"] for row in csv.DictReader(file)]
        mirrors = np.stack([np.asarray(Image.open(f"dmd/{name}"), dtype=float) for name in names])
        assert len(mirrors) == len([*Path("dmd").glob("*.png")]) == 25
        scene = pictures(1)
        light = np.einsum("khw,hw->k", mirrors, scene[0, 0])
        np.save("y.npy", light)
        result = call(predict, "--checkpoint", path, "--measurements", "y.npy", "--one_sided")
        again = np.load(f"{result['folder']}/reconstructions.npy")[0]
        restored = checkpoint.restore(path)
        with torch.no_grad():
            direct = restored.network(restored.physics.observe(scene))[0]
        assert np.allclose(again, direct, atol=1e-4)
        manifest = json.loads(Path("dmd/manifest.json").read_text())
        values = manifest["scale"] * (2 * light - light[0])
        expected = restored.physics.values(restored.physics.measure(scene))[0, 0]
        assert np.allclose(values, expected, atol=1e-4)

    def test_a_camera_of_the_exported_matrix_records_for_the_student(self, student):
        words = ["--checkpoint", student["export"], "--dataset", "digits", "--export", "dmd"]
        call(visualize_mask_spc, *words)
        shown = build_physics(
            CONFIG | {"awgn_snr": None, "ordering": "file:dmd/patterns.npy"}, pictures
        )
        learned = checkpoint.restore(student["export"]).physics
        assert isinstance(shown, SinglePixel) and shown.has_patterns_of(learned)
        x = pictures()
        torch.testing.assert_close(shown.measure(x), learned.measure(x), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize(
        "words, message",
        [
            (["--cr", "0.1", "--ordering", "learned"], "only a training learns patterns"),
            (["--ordering", "xy"], "give --cr, or the patterns of a --checkpoint"),
            (["--cr", "0.1", "--one_sided"], "one_sided: it is read with --export"),
            (["--cr", "0.1", "--magnify", "8"], "magnify: it is read with --export"),
            (["--checkpoint", "x.pth", "--n", "32"], "leave out --n"),
        ],
        ids=str,
    )
    def test_wrong_flags_are_refused_in_words(self, words, message, capsys):
        with pytest.raises(SystemExit):
            call(visualize_mask_spc, *words)
        assert message in capsys.readouterr().err

    def test_patterns_that_need_their_opposites_are_not_exported_without(self):
        words = ["--cr", "0.1", "--n", N, "--ordering", "random", "--dataset", "digits"]
        with pytest.raises(UserError, match="need their opposites"):
            call(visualize_mask_spc, *words, "--export", "dmd", "--one_sided")
        assert not Path("dmd").exists()

    def test_pairs_are_not_taken_for_single_values(self, student):
        np.save("y.npy", np.ones(50))
        with pytest.raises(UserError, match="two values a pattern"):
            words = ["--checkpoint", student["export"], "--measurements", "y.npy", "--one_sided"]
            call(predict, *words)


def test_the_energy_that_patterns_measure_is_that_of_their_span():
    from evaluation.patterns import cumulative_energies, energies_of_rows

    x = pictures()
    fixed = camera(ordering="variance")
    expected = cumulative_energies(fixed, x)["variance"][: fixed.m]
    torch.testing.assert_close(energies_of_rows(fixed.rows(), x), expected, atol=1e-6, rtol=0)
    mixed = torch.tril(torch.rand(fixed.m, fixed.m)) @ fixed.rows()  # the same spans
    torch.testing.assert_close(energies_of_rows(mixed, x), expected, atol=1e-5, rtol=0)
    found = cumulative_energies(camera(), x)["learned"]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
