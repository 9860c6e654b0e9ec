"""What makes a training fast changes nothing of it: images held, views and answers remembered, students beside each other, precision."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import interrupt_where
from test_scripts import call
from test_training import NOISY, TINY, rows, same, train, weights

import main_classify
import main_classify_dist
import main_unet
import main_unet_dist
from algo_functions import build_physics
from checkpoints import checkpoint
from core import runtime
from core.errors import Diverged, UserError
from data import batches
from data.batches import build_loader, free_memory
from data_loader import Request, build_splits
from training import loop
from training.cache import Memory, Views

CPU = torch.device("cpu")
STUDENT = ["--teacher", "results/trained_models/UNET_cr_0.5.pth", "--type_dist", "output_latent"]


def stages(monkeypatch):
    """What is trained from here on."""
    seen, fit = [], loop.Fit.__init__

    def noted(self, *a, **k):
        fit(self, *a, **k)
        seen.append(self)

    monkeypatch.setattr(loop.Fit, "__init__", noted)
    return seen


def resumed(run):
    return checkpoint.read(f"{run}/last.pth")["resume"]


def assert_close(a, b, tolerance=1e-5):
    for name, tensor in resumed(a["run"])["task"].items():
        assert torch.allclose(tensor, resumed(b["run"])["task"][name], atol=tolerance), name


class TestHeldImages:
    @pytest.mark.parametrize("shift", [False, True])
    @pytest.mark.parametrize(
        "dataset, c", [pytest.param("photos", 3, marks=pytest.mark.long), ("digits", 1)]
    )
    def test_what_is_held_is_what_is_decoded(self, dataset, c, shift):
        def split():
            return build_splits(
                Request(dataset, n=16, c=c, limit_train=20, shift=shift), ["train"], augment_seed=3
            )["train"]

        decoded, held = split(), split()
        held.hold(CPU, free_memory)
        held.source = None
        for images in (decoded, held):
            images.epoch = 2
        for a, b in zip(
            build_loader(decoded, 7, shuffle_seed=1),
            build_loader(held, 7, shuffle_seed=1),
            strict=True,
        ):
            assert torch.equal(a.image, b.image) and torch.equal(a.index, b.index)
        assert torch.equal(decoded.stack(), held.stack())

    @pytest.mark.parametrize("room", [2**40, 0])
    def test_floats_stay_floats_also_where_the_first_of_them_are_bytes(self, room, tmp_path):
        x = np.random.default_rng(0).random((400, 8, 8), np.float32)
        x[:256] = np.round(x[:256] * 255) / np.float32(255)
        np.savez(tmp_path / "x.npz", x_train=x, x_test=x[:2], x_val=x[:2])
        splits = build_splits(Request("array", 8, data_root=str(tmp_path / "x.npz")))
        for split, dtype in {"train": torch.float32, "val": torch.uint8}.items():
            splits[split].hold(CPU, lambda _: room)
            assert splits[split].held.dtype == dtype
        assert torch.equal(splits["train"].stack()[:, 0], torch.from_numpy(x))
        assert torch.equal(splits["val"].stack()[:, 0], torch.from_numpy(x[:2]))

    def test_memory_is_asked_for_four_bytes_a_float(self, monkeypatch, tmp_path):
        np.save(tmp_path / "x.npy", np.random.default_rng(0).random((20, 8, 8), np.float32))
        request = Request("array", 8, data_root=str(tmp_path / "x.npy"))
        kept, real = [], batches.file_backed
        monkeypatch.setattr(batches, "file_backed", lambda *a: kept.append(a) or real(*a))
        images = build_splits(request, ["train"])["train"]
        images.hold(CPU, lambda _: 2 * images.stack().nbytes - 1)
        assert kept == [((16, 1, 8, 8), torch.float32)]
        images.hold(CPU, lambda _: 2 * images.stack().nbytes)
        assert len(kept) == 1

    def test_a_file_takes_what_memory_does_not(self):
        images = build_splits(Request(n=16, limit_train=20), ["train"])["train"]
        expected = images.stack()
        images.hold(CPU, lambda _: 0)
        assert torch.equal(images.stack(), expected)

    def test_a_file_that_the_disk_has_no_room_for_is_an_error_of_the_disk(self, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(batches.os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            batches.file_backed((10, 1, 4, 4))

    def test_memory_is_held_where_the_system_lacks_the_calls_of_linux(self, monkeypatch):
        monkeypatch.delattr(batches.os, "posix_fallocate")
        monkeypatch.delattr(batches.os, "sysconf")
        assert 2**20 < free_memory(CPU) < 2**50
        images = build_splits(Request(n=16, limit_train=20), ["train"])["train"]
        expected = images.stack()
        images.hold(CPU, lambda _: 0)
        assert torch.equal(images.stack(), expected)
        assert batches.file_backed((3, 1, 700, 700)).shape == (3, 1, 700, 700)

    @pytest.mark.parametrize("workers", ["0", "2"])
    def test_a_run_is_the_same_from_any_place(self, workers, monkeypatch):
        whole = train("--results", "a", *NOISY)
        monkeypatch.setattr(loop, "free_memory", lambda _: 0)
        assert rows(train("--results", "b", "--num_workers", workers, *NOISY)["run"]) == rows(
            whole["run"]
        )


class TestMemory:
    def test_a_distillation_with_and_without_it_are_one(self, monkeypatch):
        train("--epochs", "1", cr="0.5")
        seen = stages(monkeypatch)
        a = train("--results", "a", *STUDENT, script=main_unet_dist)
        b = train("--results", "b", *STUDENT, "--cache", "0", script=main_unet_dist)
        kept = seen[0].memory.kept
        assert set(kept) == {"x0", "teacher_x0", "teacher_features"} and not seen[1].memory.kept
        assert list(kept["teacher_features"][0]) == ["latent", "output"]
        assert seen[0].views.kept and seen[1].views.kept is None
        assert_close(a, b)

    def test_a_shuffled_teachers_answers_are_remembered_by_image_and_dealt_anew_in_every_step(self):
        train("--epochs", "1", cr="0.5")
        a, b, other = (train("--results", name, *STUDENT, *more, script=main_unet_dist) for name, more in (
            ("a", ["--shuffle_teacher"]), ("b", ["--shuffle_teacher", "--cache", "0"]), ("c", []),
        ))  # fmt: skip
        assert_close(a, b)
        ours, theirs = (resumed(run["run"])["task"] for run in (a, other))
        assert any(not torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)

    def test_a_teacher_that_learns_is_not_shuffled(self):
        train("--epochs", "1", cr="0.5")
        with pytest.raises(UserError, match="shuffle_teacher"):
            train(*STUDENT, "--online", "--shuffle_teacher", script=main_unet_dist)

    def test_a_batch_of_one_cannot_be_shuffled(self):
        train("--epochs", "1", cr="0.5")
        with pytest.raises(UserError, match="a batch of one image"):
            train(*STUDENT, "--batch_size", "1", "--shuffle_teacher", script=main_unet_dist)

    def test_a_remembered_teacher_is_not_asked_again(self, monkeypatch):
        train("--epochs", "1", cr="0.5")
        seen = stages(monkeypatch)
        train(*STUDENT, "--epochs", "4", script=main_unet_dist)
        network, calls = seen[0].task.teachers[0].network, []
        network.register_forward_hook(lambda *_: calls.append(1))
        features = network.features
        network.features = lambda x: calls.append(1) or features(x)
        batch = next(seen[0].batches(0))
        seen[0].task(batch)
        assert not calls

    @pytest.mark.parametrize(
        "words",
        [["--awgn_snr", "20"], ["--crs_expert", "0.1", "0.25"], ["--dataset", "photos"]],
        ids=lambda words: words[0],
    )
    def test_nothing_that_is_drawn_is_remembered(self, words, monkeypatch):
        seen = stages(monkeypatch)
        camera = [] if "--crs_expert" in words else ["--cr", "0.25"]
        main_unet.main(main_unet.parse([*TINY, "--epochs", "2", *camera, *words]))
        assert not seen[0].memory.kept

    def test_only_the_noisy_one_of_two_views_forbids_it(self, monkeypatch):
        train("--epochs", "1", cr="0.5")
        seen = stages(monkeypatch)
        train(*STUDENT, "--awgn_snr", "20", script=main_unet_dist)
        assert not seen[0].memory.kept

    def test_what_has_no_room_is_computed(self, monkeypatch):
        train("--epochs", "1", cr="0.5")
        seen = stages(monkeypatch)
        train(
            *STUDENT, "--cache", str(2 * 30 * 16 * 16 * 4 / 2**30), script=main_unet_dist
        )  # both first images, and no answer
        assert set(seen[0].memory.kept) == {"x0", "teacher_x0"}

    def test_classifiers_remember_their_teacher_too(self, monkeypatch):
        data = [
            "--dataset",
            "digits",
            "--n",
            "16",
            "--limit_train",
            "40",
            "--limit_val",
            "20",
            "--model",
            "resnet8",
            "--width",
            "4",
            "--epochs",
            "2",
        ]
        teacher = call(main_classify, *data)["export"]
        seen = stages(monkeypatch)
        words = [
            *data,
            "--teacher",
            teacher,
            "--lessen_ratio",
            "2",
            "--loss_distill",
            "kd",
            "at",
            "ft",
            "crd",
            "--prepare_epochs",
            "1",
        ]
        a, b = (
            call(main_classify_dist, *words, "--cache", room, "--results", room)
            for room in ("1", "0")
        )
        kept = seen[0].memory.kept
        assert "latent" in kept["teacher_features"][0] and "x0" in kept
        assert_close(a, b, 1e-4)

    def test_views_keep_the_noise_of_their_seed(self):
        physics = build_physics(
            {
                "name": "spc",
                "n": 16,
                "c": 1,
                "cr": 0.25,
                "ordering": "xy",
                "x0": "adjoint",
                "awgn_snr": 10,
            }
        )
        loader = build_loader(
            build_splits(Request("digits", n=16, limit_val=20), ["val"])["val"], 8
        )
        kept, new = Views(physics, loader, CPU, 5, room=2**20), Views(physics, loader, CPU, 5)
        passes = [
            [x0 for _, _, x0 in views]
            for views in (kept, kept, new, Views(physics, loader, CPU, 6))
        ]
        assert kept.kept and all(
            torch.equal(a, b)
            for other in passes[1:3]
            for a, b in zip(passes[0], other, strict=True)
        )
        assert not torch.equal(passes[0][0], passes[3][0])

    def test_memory_is_made_in_order_whatever_the_epoch(self, images):
        train("--epochs", "1", cr="0.5")
        split = build_splits(Request("digits", n=16, limit_train=21), ["train"])["train"]
        physics = build_physics(
            {
                "name": "spc",
                "n": 16,
                "c": 1,
                "cr": 0.25,
                "ordering": "xy",
                "x0": "adjoint",
                "awgn_snr": None,
            }
        )
        from distill.task import Supervised
        from models import build_network

        task = Supervised(
            build_network({"name": "unet", "width": 4}), physics, torch.nn.functional.l1_loss
        )
        memory = Memory(task, split, 8, CPU, 2**20)
        assert torch.equal(memory.kept["x0"], physics.observe(split.stack()))


class TestBesideEachOther:
    @pytest.mark.parametrize(
        "noise", [[], ["--awgn_snr", "20", "--batch_norm", "on"]], ids=["fixed", "noisy"]
    )
    def test_each_student_equals_its_own_run(self, noise, capsys):
        train("--epochs", "1", cr="0.5")
        words = [
            *STUDENT,
            "--data_seed",
            "7",
            "--steps",
            "8",
            "--loss_distill",
            "mse",
            "hint",
            *noise,
        ]
        many = train("--results", "many", "--seeds", "0", "1", "2", *words, script=main_unet_dist)
        assert "validation psnr: " in capsys.readouterr().out and len(many["runs"]) == 3
        for seed, run in zip("012", many["runs"], strict=True):
            one = train("--results", f"one_{seed}", "--seed", seed, *words, script=main_unet_dist)
            assert_close(one, run, 1e-4)
            for ours, theirs in zip(rows(one["run"]), rows(run["run"]), strict=True):
                for name in ours.keys() - {"step"}:
                    assert float(ours[name]) == pytest.approx(
                        float(theirs[name]), rel=1e-3, abs=1e-4
                    ), name
        assert not same(weights(many["runs"][0]["export"]), weights(many["runs"][1]["export"]))

    def test_one_that_is_behind_catches_up(self, monkeypatch):
        words = ["--data_seed", "7", "--awgn_snr", "20", "--epochs", "3"]
        whole = train("--results", "a", "--seeds", "0", "1", *words)
        undo = interrupt_where(monkeypatch, lambda fit: fit.steps == 6 and fit.args.seed == 1)
        with pytest.raises(KeyboardInterrupt):
            train("--results", "b", "--seeds", "0", "1", *words)
        undo()
        parts = train("--results", "b", "--seeds", "0", "1", *words)
        for a, b in zip(whole["runs"], parts["runs"], strict=True):
            assert same(weights(a["export"]), weights(b["export"])) and rows(a["run"]) == rows(
                b["run"]
            )

    def test_without_a_data_seed_each_is_the_ordinary_run(self):
        many = train("--results", "many", "--seeds", "3", "4", *NOISY)
        one = train("--results", "one", "--seed", "4", *NOISY)
        assert rows(one["run"]) == rows(many["runs"][1]["run"])
        names = {path.name for path in Path("many/trained_models").glob("*.pth")}
        kept = {Path(run["kept"]).name for run in many["runs"]}
        assert names == {"UNET_cr_0.25_seed_3.pth", "UNET_cr_0.25_seed_4.pth"} | kept
        assert len(names) == 4

    def test_the_data_seed_moves_order_and_noise_and_the_seed_weights(self, monkeypatch):
        seen = stages(monkeypatch)
        for name, words in (
            ("a", ["--seed", "1"]),
            ("b", ["--seed", "1", "--data_seed", "2"]),
            ("c", ["--seed", "3", "--data_seed", "2"]),
        ):
            train("--results", name, "--steps", "1", *words)
        orders = [next(fit.batches(0)).index for fit in seen]
        assert torch.equal(orders[1], orders[2]) and not torch.equal(orders[0], orders[1])


class TestPrecision:
    def test_auto_asks_the_device(self, monkeypatch):
        for units, expected in ((True, torch.bfloat16), (False, None)):
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda units=units: units)
            assert runtime.precision("auto", CPU) is expected
        assert (
            runtime.precision("bf16", CPU) is torch.bfloat16
            and runtime.precision("off", CPU) is None
        )
        with pytest.raises(UserError, match="amp fp16: a CPU"):
            runtime.precision("fp16", CPU)

    def test_bf16_trains_almost_like_fp32_and_its_weights_stay_fp32(self):
        a, b = (
            train("--results", name, "--amp", name, "--epochs", "3") for name in ("off", "bf16")
        )
        assert weights(a["export"]).keys() == weights(b["export"]).keys() and not same(
            weights(a["export"]), weights(b["export"])
        )
        assert all(tensor.dtype == torch.float32 for tensor in weights(b["export"]).values())
        assert a["val_psnr"] == pytest.approx(b["val_psnr"], abs=0.1)

    @pytest.mark.long  # a compiler of C++ takes most of it
    def test_a_compiled_network_computes_the_same(self):
        a = train("--results", "a", "--epochs", "1")
        try:
            b = train("--results", "b", "--epochs", "1", "--compile")
        except UserError as error:
            pytest.skip(f"no compiler here: {error}")
        assert np.allclose(
            *(
                [tensor.numpy().sum() for tensor in weights(run["export"]).values()]
                for run in (a, b)
            ),
            atol=1e-4,
        )


class TestWatching:
    def test_what_is_read_later_stops_before_anything_is_saved(self, monkeypatch):
        """As on a GPU: the step is skipped on the device, and named when it is looked at."""

        def later(self, names, terms, values, norm, index):
            bad = ~(values[0] + norm).isfinite()
            self.unread.append(
                (self.steps, names, terms, torch.cat((values, bad.double()[None])), index)
            )
            self.optimizer.found_inf = bad.float()

        forward = loop.Fit.forward

        def poisoned(self, batch, generator, progress):
            result = forward(self, batch, generator, progress)
            return result if self.steps != 4 else result | {"loss": result["loss"] * torch.inf}

        before = train("--results", "a", "--steps", "4", "--val_every", "4")
        monkeypatch.setattr(loop.Fit, "_watch", later)
        monkeypatch.setattr(loop.Fit, "forward", poisoned)
        with pytest.raises(Diverged, match="step 5, a batch of training images"):
            train(
                "--results",
                "b",
                "--steps",
                "8",
                "--val_every",
                "4",
                "--schedule",
                "constant",
                "--run_name",
                "r",
            )
        content = checkpoint.read("b/runs/r/last.pth")
        assert content["resume"]["steps"] == 4 and before
        assert all(tensor.isfinite().all() for tensor in content["weights"].values())

    def test_a_fused_optimiser_skips_the_step(self):
        weight = torch.nn.Parameter(torch.ones(3))
        for name in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD):
            optimizer = name([weight], lr=0.1, fused=True)
            weight.grad = torch.full((3,), torch.nan)
            optimizer.found_inf = torch.ones(())
            optimizer.step()
            assert torch.equal(weight.detach(), torch.ones(3)), name


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told what to keep")
@pytest.mark.long
def test_a_process_keeps_the_memory_that_a_step_frees():
    code = """
import resource, torch
from core import runtime
runtime.{call}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    before = faults()
    for size in (1, 40, 3, 80):
        torch.ones(size, 2**18)
    return faults() - before
print(sorted(step() for _ in range(11))[5])
"""
    kept, given_back = (
        int(ended(code.format(call=call))) for call in ("keep_memory()", "resolve('cpu')")
    )
    # The median step: a block may be touched for the first time after the first step as well.
    assert kept < 10 < 1_000 < given_back, "pages of 4 KiB, of which a step asks for 32,000"


def ended(code: str) -> str:
    """What a Python of its own prints."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
