"""Every script: its help, one tiny run, and what it says to a wrong command line."""

import csv
import importlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import blank
import numpy as np
import pytest
import torch
from doubles import skip_training
from PIL import Image
from test_house import ROOT, SCRIPTS

import demo
import main_unet
import main_unet_dist
import progressive_distill
import test_UNet
import visualize_mask_spc
from algo_functions import build_physics
from checkpoints import checkpoint
from cli import flags
from core.hadamard import hadamard_2d
from core.registry import DATASETS, LOSSES, ORDERINGS, SELECTIONS, TASK_LOSSES
from demos import classroom as story
from demos import laboratory as laboratory_story
from evaluation import restoration
from evaluation.checkpoints import short_name
from models import build_network
from recordings import file as recordings
from recordings import frames as recorded

DATA = [
    "--dataset",
    "digits",
    "--n",
    "16",
    "--limit_train",
    "30",
    "--limit_val",
    "10",
    "--batch_size",
    "10",
]
TINY = [*DATA, "--width", "4", "--epochs", "1"]


def call(script, *words):
    return script.main(script.parse([str(word) for word in words]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders in which a teacher, and a student beside it, were trained once."""
    folders = [tmp_path_factory.mktemp(name) for name in ("teacher", "student")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.chdir(folders[0])
        teacher = call(main_unet, "--cr", "0.5", *TINY)
        shutil.copytree(folders[0], folders[1], dirs_exist_ok=True)
        patch.chdir(folders[1])
        student = call(main_unet_dist, "--cr", "0.25", "--cr_teacher", "0.5", *TINY)
    return {"teacher": (folders[0], teacher), "student": (folders[1], student)}


def copied(folder, scores):
    """What is in the folder, in this test's own."""
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    return dict(scores)


@pytest.fixture
def teacher(trained):
    return copied(*trained["teacher"])


@pytest.fixture
def student(trained):
    return copied(*trained["student"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_at_once_and_imports_no_torch(script):
    code = (
        f"import sys, {script}\n"
        f"try: {script}.parse(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'deepinv', 'matplotlib', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - began < 1 and "usage:" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_both_spellings_of_every_flag_work(script):
    parser = None

    class Stop(Exception):
        pass

    def catch(self, *_, **__):
        nonlocal parser
        parser = self
        raise Stop

    original = flags.Parser.parse_args
    flags.Parser.parse_args = catch
    try:
        with pytest.raises(Stop):
            importlib.import_module(script).parse([])
    finally:
        flags.Parser.parse_args = original
    spellings = [
        flag
        for flag in parser._option_string_actions
        if flag.startswith("--") and ("_" in flag or "-" in flag[2:])
    ]
    for flag in spellings:
        assert parser._spelling("--" + flag[2:].replace("_", "-") + "=1") == flag + "=1"
        assert parser._spelling("--" + flag[2:].replace("-", "_")) == flag


@pytest.mark.pictures
def test_teacher_then_student_then_evaluation(student):
    assert (
        Path(student["export"])
        .name.split("_", 1)[1]
        .startswith("student_weights_crs_0.25_crt_0.5_type_output_latent_loss_mse_digits_seed_42_")
    )
    assert Path("results/trained_models/UNET_cr_0.5.pth").is_file()
    call(
        test_UNet,
        "--checkpoint",
        student["export"],
        "results/trained_models/UNET_cr_0.5.pth",
        "--dataset",
        "digits",
        "--limit_test",
        "12",
    )
    with open("results/test/psnr_results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    release = "Date/Time,Image Dim,Dataset,Batch Size,CR,Channels,Physics,PSNR Global,SSIM Global,Saved Batches"
    assert ",".join(list(table[0])[:10]) == release
    assert [row["CR"] for row in table] == ["0.25", "0.5"] and float(
        table[1]["PSNR Back-projection"]
    ) > float(table[0]["PSNR Back-projection"])
    folder = Path("results/test") / Path(student["export"]).stem
    for kind in ("originals", "measurements_backprojection", "reconstructions", "features"):
        pictures = sorted((folder / kind).iterdir())
        assert (
            len(pictures) == 12
            and Image.open(pictures[0]).mode == "L"
            and Image.open(pictures[0]).size == (16, 16)
        )
    assert (folder / "grid.png").is_file()
    with open(folder / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert np.isclose(
        np.mean([float(row["psnr"]) for row in rows]), float(table[0]["PSNR Global"]), atol=1e-4
    )
    of_error = [-10 * np.log10(float(row["mse"])) for row in rows]  # six digits, however small
    assert np.allclose(of_error, [float(row["psnr"]) for row in rows], rtol=0, atol=6e-5)


def test_the_contact_sheet_shows_the_more_detailed_images_beside_lmmse(student, monkeypatch):
    sheets = []
    monkeypatch.setattr(
        restoration, "draw_grid", lambda columns, truth, *_: sheets.append((list(columns), truth))
    )
    call(test_UNet, "--checkpoint", student["export"], *DATA[:2], "--limit_test", "12")
    ((columns, truth),) = sheets
    assert columns == ["back-projection", "LMMSE", "TV", "network"]
    originals = Path("results/test", Path(student["export"]).stem, "originals").iterdir()
    detail = sorted(np.asarray(Image.open(path)).std() / 255 for path in originals)
    shown = [image.std(correction=0).item() for image in truth]
    assert len(detail) == 12 and len(shown) == restoration.EXAMPLES
    assert min(shown) > detail[5] - 1e-3 and max(shown) > detail[-1] - 1e-3


def test_pictures_keep_one_intensity_scale_and_features_are_the_first_channel_stretched(student):
    call(test_UNet, "--checkpoint", student["export"], "--dataset", "digits", "--limit_test", "3")
    restored = checkpoint.restore(student["export"])
    from data_loader import Request, build_splits

    image = build_splits(Request("digits", 16, limit_test=3))["test"].stack()[:1]
    folder = Path("results/test") / Path(student["export"]).stem
    x0 = restored.physics.observe(image)
    with torch.no_grad():
        layers = restored.network.features(x0)
    feature = layers["enc1"][0, 0]
    expected = {
        "originals": image,
        "measurements_backprojection": x0,
        "reconstructions": layers["output"],
        "features": (feature - feature.min()) / (feature.max() - feature.min()).clamp_min(1e-12),
    }
    for kind, picture in expected.items():
        shown = np.asarray(Image.open(folder / kind / "00000.png"), dtype=np.float32) / 255
        assert np.allclose(shown, picture.clamp(0, 1).squeeze().numpy(), atol=1.01 / 255), kind


def test_evaluation_at_several_noise_levels_in_one_go(student):
    result = call(
        test_UNet,
        "--checkpoint",
        student["export"],
        "--dataset",
        "digits",
        "--limit_test",
        "9",
        "--awgn_snr",
        "none",
        "20",
        "0",
    )
    table = [row for row in result["rows"] if row["estimate"] == "back-projection"]
    assert [row["SNR"] for row in table] == [None, "20 dB", "0 dB"] and table[0]["PSNR"] > table[1][
        "PSNR"
    ] > table[2]["PSNR"]
    folder = Path("results/test") / Path(student["export"]).stem
    assert {"cr_0.25", "cr_0.25_snr_20", "cr_0.25_snr_0"} <= {
        path.name for path in folder.iterdir()
    }


def test_a_mixture_of_ratios_is_trained_exported_tested_and_teaches():
    mixed = call(main_unet, "--crs_expert", "0.5", "0.25", *TINY)
    assert Path(mixed["export"]).name == "UNET_crs_0.25_0.5.pth"
    student = call(
        main_unet_dist, "--cr_student", "0.1", "--crs_expert_teacher", "0.25", "0.5", *TINY
    )
    assert "_crt_0.25_0.5_" in student["export"]
    result = call(
        test_UNet,
        "--checkpoint",
        mixed["export"],
        "--dataset",
        "digits",
        "--limit_test",
        "5",
        "--no-baselines",
    )
    assert [row["physics"] for row in result["rows"]] == ["cr 0.25", "cr 0.5"]


@pytest.mark.parametrize(
    "words",
    [
        ["--type_dist", "9", "--loss_distill", "comb_matrix", "--gamma", "0.5", "--scales", "3"],
        [
            "--sup_loss",
            "0",
            "--loss_gt",
            "charbonnier",
            "--student_width",
            "6",
            "--type-dist",
            "all",
        ],
        ["--awgn-snr", "25", "--awgn_teacher", "--x0", "lmmse"],
        ["--physics", "cs", "--ordering", "random", "--schedule", "constant", "--grad_clip", "0"],
    ],
    ids=lambda words: words[1],
)
def test_distillation_settings(teacher, words):
    scores = call(main_unet_dist, "--cr", "0.25", "--teacher", teacher["export"], *TINY, *words)
    assert np.isfinite(scores["val_psnr"])


def test_teacher_noise_is_the_students_only_on_request(teacher, monkeypatch):

    seen = skip_training(monkeypatch)
    for words in ([], ["--awgn_teacher"]):
        call(
            main_unet_dist,
            "--cr",
            "0.25",
            "--teacher",
            teacher["export"],
            "--awgn_snr",
            "20",
            *TINY,
            *words,
        )
    assert [task.teachers[0].physics.config["awgn_snr"] for task in seen] == [None, 20.0]
    assert all(task.physics.config["awgn_snr"] == 20.0 for task in seen)


def test_flags_of_distillation_reach_the_task(teacher, monkeypatch):

    seen = skip_training(monkeypatch)

    def task_of(*words):
        call(main_unet_dist, "--cr", "0.25", "--teacher", teacher["export"], *TINY, *words)
        return seen[-1]

    plain = task_of()
    assert (plain.alpha, plain.beta, plain.supervised, plain.layers) == (
        1,
        1,
        True,
        ["latent", "output"],
    )
    assert [(loss.name, loss.weight) for loss in plain.losses] == [("mse", LOSSES["mse"].weight)]
    other = task_of("--alpha", "3", "--beta", "0.5", "--sup_loss", "0", "--type_dist", "first")
    assert (other.alpha, other.beta, other.supervised, other.layers) == (3, 0.5, False, ["enc1"])
    s, t = torch.zeros(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    assert torch.isclose(plain.task_loss(s, t), t.mean()) and torch.isclose(
        task_of("--loss_gt", "mse").task_loss(s, t), t.square().mean()
    )
    several = task_of("--loss_distill", "mse:2", "comb_matrix", "at:0", "--gamma", "0.01").losses
    assert [(loss.name, loss.weight) for loss in several] == [
        ("mse", 2),
        ("comb_matrix", LOSSES["comb_matrix"].weight),
        ("at", 0),
    ]
    auto = task_of("--loss_distill", "comb_matrix").losses[0]
    assert not torch.isclose(several[1].distance(s, t), auto.distance(s, t))
    call(main_unet, "--cr", "0.25", "--loss", "mse", *TINY)
    assert torch.isclose(seen[-1].task_loss(s, t), t.square().mean())


@pytest.mark.parametrize(
    "words",
    [
        ["denoise", "--sigma", "25"],
        ["denoise", "--sigma", "5", "50"],
        ["sr", "--factor", "2"],
        ["blur"],
    ],
)
def test_another_camera_and_a_lighter_network_go_the_whole_way(words):
    camera = ["--physics", *words]
    large = call(
        main_unet,
        *camera,
        "--network",
        "rrdbnet",
        "--channels",
        "4",
        "--blocks",
        "1",
        "--growth",
        "2",
        *DATA,
        "--epochs",
        "1",
    )
    assert Path(large["export"]).name.startswith(f"RRDBNET_{words[0]}_")
    light = ["--network", "dncnn", "--channels", "4", "--blocks", "2", *DATA, "--epochs", "1"]
    student = call(
        main_unet_dist,
        *camera,
        *light,
        "--teacher",
        large["export"],
        "--loss_distill",
        "hint",
        "at:5",
    )
    assert (
        "_loss_hint_at_5_" in Path(student["export"]).name
        and "crt" not in Path(student["export"]).name
    )
    result = call(
        test_UNet,
        "--checkpoint",
        student["export"],
        "--dataset",
        "digits",
        "--limit_test",
        "5",
        "--limit_train",
        "50",
    )
    assert [row["estimate"] for row in result["rows"]] == [
        "back-projection",
        "LMMSE",
        short_name(Path(student["export"]).stem),
    ]


def test_a_denoiser_is_tested_at_other_levels_and_only_at_its_own_kind():
    scores = call(main_unet, "--physics", "denoise", "--sigma", "25", *TINY)
    result = call(
        test_UNet,
        "--checkpoint",
        scores["export"],
        "--dataset",
        "digits",
        "--limit_test",
        "5",
        "--sigma",
        "5",
        "50",
        "--no-baselines",
    )
    assert [row["physics"] for row in result["rows"]] == ["denoise sigma 5", "denoise sigma 50"]
    assert result["rows"][0]["PSNR"] > result["rows"][1]["PSNR"] + 5
    with pytest.raises(flags.UserError, match="is set by --sigma"):
        call(test_UNet, "--checkpoint", scores["export"], "--dataset", "digits", "--awgn_snr", "20")


@pytest.mark.parametrize("key", ["params_ema", "params"])
def test_basicsrs_files_are_tested_and_teach(key):
    torch.manual_seed(0)
    config = {"name": "rrdbnet", "c": 1, "channels": 4, "blocks": 2, "growth": 3, "residual": False}
    weights = build_network(config).state_dict()
    torch.save({key: weights, **({"params": {}} if key == "params_ema" else {})}, "large.pth")
    restored = checkpoint.restore("large.pth")
    assert restored.network_config == config and restored.physics.config == {
        "name": "given",
        "n": 64,
        "c": 1,
    }
    result = call(
        test_UNet,
        "--checkpoint",
        "large.pth",
        "--n",
        "16",
        "--sigma",
        "25",
        "--dataset",
        "digits",
        "--limit_test",
        "4",
        "--no-baselines",
    )
    assert result["rows"][0]["physics"] == "denoise sigma 25"
    with pytest.raises(
        flags.UserError, match="for a bare file give --n and --sigma of its denoiser"
    ):
        call(test_UNet, "--checkpoint", "large.pth", "--dataset", "digits")
    words = [
        "--physics",
        "denoise",
        "--sigma",
        "25",
        "--network",
        "dncnn",
        "--channels",
        "4",
        "--blocks",
        "1",
    ]
    student = call(
        main_unet_dist,
        *words,
        "--teacher",
        "large.pth",
        "--type_dist",
        "output",
        *DATA,
        "--epochs",
        "1",
    )
    assert Path(student["export"]).is_file()


def test_a_warm_start_needs_the_same_padding(teacher):
    with pytest.raises(flags.UserError, match="padding zeros, not circular"):
        call(
            main_unet,
            "--cr",
            "0.25",
            "--train_again",
            teacher["export"],
            *TINY,
            "--padding",
            "circular",
        )


def test_equal_names_are_distinguished_and_old_pictures_go(teacher):
    other = call(main_unet, "--cr", "0.25", "--results", "other", *TINY)
    Path("b").mkdir()
    Path(other["export"]).rename("b/UNET_cr_0.5.pth")
    paths = [teacher["export"], "b/UNET_cr_0.5.pth"]
    call(
        test_UNet,
        "--checkpoint",
        *paths,
        "--dataset",
        "digits",
        "--limit_test",
        "4",
        "--no-baselines",
    )
    assert len(list(Path("results/test").glob("UNET_cr_0.5_*/per_image.csv"))) == 2
    for count in (5, 3):
        call(
            test_UNet,
            "--checkpoint",
            teacher["export"],
            "--dataset",
            "digits",
            "--limit_test",
            str(count),
            "--awgn_snr",
            "20",
        )
    assert len(list(Path("results/test/UNET_cr_0.5/originals").iterdir())) == 3


def test_equal_cameras_are_shared_so_that_noise_is_drawn_once(monkeypatch):

    teacher = call(main_unet, "--cr", "0.25", "--awgn_snr", "20", *TINY)
    seen = skip_training(monkeypatch)
    for snr in ("20", "21"):
        call(
            main_unet_dist, "--cr", "0.25", "--teacher", teacher["export"], "--awgn_snr", snr, *TINY
        )
    assert [task.teachers[0].physics is task.physics for task in seen] == [True, False]


def test_online_trains_both_and_saves_both():
    scores = call(main_unet_dist, "--cr", "0.25", "--cr_teacher", "0.5", "--online", *TINY)
    both = [
        checkpoint.restore(path) for path in (scores["export"], Path(scores["run"]) / "teacher.pth")
    ]
    assert [restored.physics.config["cr"] for restored in both] == [0.25, 0.5]
    with open(Path(scores["run"]) / "metrics.csv") as file:
        assert "train_teacher" in next(csv.reader(file))


def test_a_student_and_its_baseline_begin_with_the_same_weights(teacher, monkeypatch):

    seen = skip_training(monkeypatch, keep=lambda task: task.student)
    call(main_unet, "--cr", "0.25", *TINY)
    call(main_unet_dist, "--cr", "0.25", "--teacher", teacher["export"], *TINY)
    call(
        main_unet_dist,
        "--cr",
        "0.25",
        "--teacher",
        teacher["export"],
        "--init_student",
        teacher["export"],
        *TINY,
    )
    call(main_unet, "--cr", "0.25", "--train_again", teacher["export"], *TINY)
    states = [network.state_dict() for network in seen]
    equal = [
        all(torch.equal(a[k], b[k]) for k in a)
        for a, b in ((states[0], states[1]), (states[2], states[3]), (states[0], states[2]))
    ]
    assert equal == [True, True, False]


def test_a_release_file_is_tested_once_its_physics_is_reported():
    torch.save(
        build_network({"name": "unet", "width": 4, "padding": "release"}).state_dict(), "bare.pth"
    )
    result = call(
        test_UNet,
        "--checkpoint",
        "bare.pth",
        "--n",
        "16",
        "--cr",
        "0.3",
        "--ordering",
        "strip",
        "--dataset",
        "digits",
        "--limit_test",
        "4",
    )
    assert {row["ordering"] for row in result["rows"]} == {"strip"}
    scores = call(
        main_unet_dist,
        "--cr",
        "0.1",
        "--teacher",
        "bare.pth",
        "--cr_teacher",
        "0.3",
        "--ordering_teacher",
        "strip",
        *TINY,
    )
    assert "_crt_0.3_" in scores["export"]


class TestProgressive:
    def test_each_rung_teaches_the_next_and_finished_rungs_are_kept(self, capsys):
        words = ["--ladder", "0.5", "0.3", "0.1", "--limit_test", "5", *TINY]
        first = call(progressive_distill, *words)
        rungs = [checkpoint.restore(rung["checkpoint"]) for rung in first["rungs"]]
        assert [rung.physics.config["cr"] for rung in rungs] == [0.5, 0.3, 0.1]
        teachers = [rung.training_config.get("teacher") for rung in rungs]
        assert teachers == [
            None,
            *[checkpoint.digest(rung["checkpoint"]) for rung in first["rungs"][:2]],
        ]
        capsys.readouterr()
        assert call(progressive_distill, *words)["rungs"] == first["rungs"]
        assert capsys.readouterr().out.count("is finished") == 3

    @pytest.mark.long
    def test_a_rung_may_begin_with_its_teachers_weights(self):
        rungs = call(
            progressive_distill,
            "--ladder",
            "0.5",
            "0.3",
            "--warm_start",
            "--limit_test",
            "5",
            *TINY,
        )["rungs"]
        config = checkpoint.read(rungs[1]["checkpoint"])["config"]
        assert (
            config["init_student"] == config["teacher"] == checkpoint.digest(rungs[0]["checkpoint"])
        )

    def test_redistillation_begins_with_the_student_and_keeps_its_camera(
        self, student, teacher, monkeypatch
    ):

        result = call(
            progressive_distill,
            "--redistill",
            student["export"],
            "--teacher",
            teacher["export"],
            "--limit_test",
            "5",
            *TINY[:-4],
            "--epochs",
            "1",
        )
        again = checkpoint.restore(result["rungs"][0]["checkpoint"])
        assert again.physics.config == checkpoint.restore(student["export"]).physics.config
        seen = skip_training(
            monkeypatch, {"checkpoint": student["export"]}, lambda task: task.student.state_dict()
        )
        call(
            progressive_distill,
            "--redistill",
            student["export"],
            "--teacher",
            teacher["export"],
            "--limit_test",
            "5",
            *DATA,
            "--epochs",
            "2",
        )
        begun = checkpoint.read(student["export"])["weights"]
        assert all(torch.equal(seen[0][k], begun[k]) for k in begun)

    @pytest.mark.long
    def test_gradient_checkpointing_reaches_a_redistilled_student(
        self, student, teacher, monkeypatch
    ):
        from models import base

        calls, kept = [], base.checkpoint
        monkeypatch.setattr(
            base, "checkpoint", lambda *args, **more: calls.append(args) or kept(*args, **more)
        )
        words = [
            "--redistill",
            student["export"],
            "--teacher",
            teacher["export"],
            "--limit_test",
            "5",
            *DATA,
            "--steps",
            "2",
        ]
        call(progressive_distill, *words)
        assert not calls
        call(progressive_distill, *words, "--gradient_checkpointing")
        assert len(calls) >= 2 * 4  # steps, and blocks of two resolutions

    @pytest.mark.parametrize("freeze", ["encoder", "decoder", "none"])
    def test_hybrids_join_two_checkpoints_and_keep_the_frozen_part(self, student, teacher, freeze):
        words = [
            "--encoder_from",
            student["export"],
            "--decoder_from",
            teacher["export"],
            "--freeze",
            freeze,
            "--limit_test",
            "5",
        ]
        result = call(
            progressive_distill,
            *words,
            *DATA,
            "--epochs",
            "1",
            *(["--teacher", teacher["export"]] if freeze == "none" else []),
        )
        new, old = (
            checkpoint.read(path)["weights"]
            for path in (result["rungs"][0]["checkpoint"], student["export"])
        )
        same = {name: torch.equal(new[name], old[name]) for name in new}
        encoder = [
            same[name]
            for name in same
            if name.startswith("Conv") and not name.startswith("Conv_1x1")
        ]
        assert all(encoder) if freeze == "encoder" else not all(encoder)
        top = checkpoint.read(teacher["export"])["weights"]
        decoder = [
            torch.equal(new[name], top[name]) for name in new if name.startswith(("Up", "Conv_1x1"))
        ]
        assert all(decoder) if freeze == "decoder" else not all(decoder)


class TestPatterns:
    @pytest.mark.pictures
    def test_draws_counts_and_exports_pairs_that_measure_what_the_camera_measures(self, capsys):
        result = call(
            visualize_mask_spc,
            "--cr",
            "0.1",
            *DATA[:4],
            "--limit_train",
            "50",
            "--export",
            "dmd",
            "--magnify",
            "2",
        )
        assert result["m"] == 25 and "25.6 of 256 and takes 25" in capsys.readouterr().out
        assert max(result["energies"], key=result["energies"].get) == "variance"
        assert {path.name for path in Path("results/masks/xy_cr_0.1_n_16").iterdir()} == {
            "mask.png",
            "patterns.png",
            "energy.png",
        }
        manifest = json.loads(Path("dmd/manifest.json").read_text())
        with open("dmd/patterns.csv", newline="") as file:
            pairs = list(csv.DictReader(file))
        scene = torch.rand(1, 1, 16, 16)
        light = scene[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1).numpy()
        mirrors = [
            [
                np.asarray(Image.open(f"dmd/{pair[sign]}"), dtype=float)
                for sign in ("positive", "negative")
            ]
            for pair in pairs
        ]
        assert all(np.array_equal(a + b, np.ones((32, 32))) for a, b in mirrors)
        measured = [manifest["scale"] * ((a * light).sum() - (b * light).sum()) for a, b in mirrors]
        physics = build_physics(manifest["config"])
        assert np.allclose(measured, physics.values(physics.operator.A(scene))[0, 0], atol=1e-4)

    @pytest.mark.pictures
    @pytest.mark.parametrize("ordering", ["random", "variance", "strip"])
    def test_every_kind_of_pattern_is_drawn(self, ordering):
        assert (
            call(
                visualize_mask_spc,
                "--cr",
                "0.2",
                "--ordering",
                ordering,
                *DATA[:4],
                "--limit_train",
                "50",
            )["m"]
            == 51
        )

    @pytest.mark.pictures
    def test_names_of_files_are_drawn_as_they_are(self):
        np.save("$x{$.npy", np.arange(256).reshape(16, 16) < 51)
        assert (
            call(
                visualize_mask_spc,
                "--cr",
                "0.2",
                "--ordering",
                "file:$x{$.npy",
                *DATA[:4],
                "--limit_train",
                "50",
            )["m"]
            == 51
        )

    def test_patterns_that_mirrors_cannot_show_are_refused_before_anything_is_written(self):
        np.save("own.npy", np.random.default_rng(0).normal(size=(60, 256)))
        with pytest.raises(flags.UserError, match="are not ±1"):
            call(
                visualize_mask_spc,
                "--cr",
                "0.2",
                "--ordering",
                "file:own.npy",
                *DATA[:4],
                "--limit_train",
                "50",
                "--export",
                "dmd",
            )
        assert not Path("results").exists() and not Path("dmd").exists()


@pytest.mark.parametrize("task", ["classroom", "reconstruct"])
def test_both_names_of_the_classroom_have_its_flags(task):
    args = demo.parse(["--task", task])
    assert (args.cr, args.cr_teacher, args.epochs, args.photons) == (0.1, 0.5, 6, None)


def test_the_demo_of_a_classroom_tells_the_whole_story(capsys, monkeypatch):
    blank.rendered_by(monkeypatch, story, "draw_grid")
    result = call(
        demo,
        "--task",
        "classroom",
        "--epochs",
        "1",
        "--width",
        "4",
        "--limit_train",
        "60",
        "--results",
        "demo",
        "--pictures",
        "2",
    )
    assert len(result["rows"]) == 9 and {path.name for path in Path("demo").iterdir()} >= {
        "table.csv",
        "figure.png",
        "report.md",
    }
    assert f"{result['gain']:+.3f} dB" in capsys.readouterr().out
    with open("demo/table.csv", newline="") as file:
        assert [row["images"] for row in csv.DictReader(file)] == [
            str(result["rows"][0]["images"])
        ] * 9


LABORATORY = ["--n", "16", "--width", "4", "--epochs", "1", "--limit_train", "60", "--seed", "3"]
LABORATORY += ["--scenes", "digits", "--frames", "40", "--test_frames", "30", "--pictures", "2"]


def test_the_demo_of_a_laboratory_adapts_without_the_truth(capsys, monkeypatch):
    blank.rendered_by(monkeypatch, laboratory_story, "draw_grid")
    opened = []
    read = recordings.read_truth
    monkeypatch.setattr(
        recorded, "read_truth", lambda *args: opened.append(sys.argv) or read(*args)
    )
    result = call(demo, *LABORATORY, "--adapt_epochs", "3", "--results", "demo")
    printed = capsys.readouterr().out
    assert {path.name for path in Path("demo").iterdir()} >= {
        "lab.npz", "lab_truth.npz", "table.csv", "figure.png", "report.md",
    }  # fmt: skip
    names = ["back-projection", "not adapted", "adapted", "adapted alone", "oracle"]
    names += ["back-projection", "teacher"]
    rows = result["rows"]
    assert [row[""].split(",")[0] for row in rows] == names
    assert len(opened) == 2, "by the oracle, and by the scores at the end"
    trained = [line for line in printed.splitlines() if "python main_unet" in line]
    assert [line.split(",")[0] for line in trained if "--truth" in line] == ["oracle"]
    gain = rows[2]["PSNR"] - rows[1]["PSNR"]
    assert result["gain"] == pytest.approx(gain, abs=1e-6) and f"gains {gain:+.2f} dB" in printed
    check_scores_without_truth(rows[5])


def check_scores_without_truth(row):
    """The error by the truth, once more from the files alone, and its estimate."""
    lab = recordings.read_recording("demo/lab.npz")
    test = lab.frames("test")
    truth = recordings.read_truth("demo/lab_truth.npz", lab)[test]
    seen = hadamard_2d(hadamard_2d(truth) * lab.mask())  # what the recorded patterns see of it
    error = (hadamard_2d(lab.place(lab.values[test])) - seen).square().mean()
    expected = -10 * error.log10().item()
    assert row[""] == "back-projection, cr 0.5"
    assert row["by the truth"] == pytest.approx(expected, abs=1e-3)
    low, high = map(float, row["95 % interval"].split(" .. "))
    assert low < row["without truth"] < high and low - 0.3 < expected < high + 0.3


WRONG = [
    (main_unet, [], "physics 'spc' needs --cr"),
    (main_unet, ["--cr", "0"], "0 is outside (0, 1]"),
    (main_unet, ["--cr", "1.2"], "1.2 is outside (0, 1]"),
    (main_unet, ["--cr", "nan"], "nan is outside (0, 1]"),
    (main_unet, ["--cr", "ten"], "'ten' is not a number"),
    (main_unet, ["--cr", "0.1", "--crs_expert", "0.2"], "not allowed with argument --cr"),
    (main_unet, ["--cr", "0.1", "--n", "24"], "power of two"),
    (main_unet, ["--cr", "0.1", "--n", "128", "--ordering", "random"], "allowed up to n 64"),
    (main_unet, ["--cr", "0.1", "--c", "2"], "invalid choice: 2"),
    (main_unet, ["--cr", "0.1", "--scales", "7"], "7 is outside [2, 5]"),
    (main_unet, ["--cr", "0.1", "--width", "0"], "0 is outside [1, infinity)"),
    (
        main_unet,
        ["--cr", "0.1", "--dataset", "imagenet"],
        f"unknown dataset 'imagenet': choose from {', '.join(DATASETS)}",
    ),
    (main_unet, ["--cr", "0.1", "--dataset", "mnist", "--data_root", "here"], "here/MNIST/raw"),
    (
        main_unet,
        ["--cr", "0.1", "--ordering", "spiral"],
        f"unknown ordering 'spiral': choose from {', '.join(ORDERINGS)}",
    ),
    (main_unet, ["--cr", "0.1", "--ordering", "file:nowhere.npy"], "nowhere.npy: no such file"),
    (main_unet, ["--cr", "0.1", "--x0", "zero"], "choose from adjoint, lmmse"),
    (
        main_unet,
        ["--cr", "0.1", "--physics", "mirror"],
        "unknown physics 'mirror': choose from spc, cs",
    ),
    (
        main_unet,
        ["--cr", "0.1", "--loss", "l7"],
        f"unknown loss 'l7': choose from {', '.join(TASK_LOSSES)}",
    ),
    (main_unet, ["--cr", "0.1", "--optimizer", "lion"], "choose from adam, adamw, sgd"),
    (main_unet, ["--cr", "0.1", "--batch_norm", "yes"], "choose from off, on, bias-free"),
    (main_unet, ["--cr", "0.1", "--padding", "mirror"], "choose from zeros, circular, release"),
    (main_unet, ["--cr", "0.1", "--device", "tpu"], "unknown device 'tpu': choose from auto, cpu"),
    (main_unet, ["--cr", "0.1", "--epochs", "0"], "0 is outside [1"),
    (main_unet, ["--cr", "0.1", "--lr", "-1"], "-1 is outside (0"),
    (
        main_unet,
        ["--cr", "0.1", "--learning_rate", "1"],
        "unrecognized arguments: --learning_rate 1",
    ),
    (main_unet, ["--cr", "0.1", "--epoch", "1"], "unrecognized arguments: --epoch 1"),
    (main_unet, ["--cr", "0.1", "--config", "nowhere.yml"], "nowhere.yml"),
    (main_unet, ["--cr", "0.1", "--train_again", "nowhere.pth"], "nowhere.pth: no such file"),
    (main_unet, ["--cr", "0.1", "--awgn_snr", "loud"], "'loud' is not a number"),
    (main_unet, ["--cr", "0.1", "--run_name", "../x"], "run_name '../x'"),
    (
        main_unet_dist,
        ["--cr", "0.1"],
        "which teacher? give --teacher PATH, or for a single-pixel camera --cr_teacher",
    ),
    (
        main_unet_dist,
        ["--cr", "0.1", "--cr_teacher", "0.7"],
        "UNET_cr_0.7.pth: train it with main_unet.py --cr 0.7",
    ),
    (main_unet_dist, ["--cr", "0.1", "--teacher", "nowhere.pth"], "nowhere.pth: no such file"),
    (
        main_unet_dist,
        ["--cr", "0.1", "--type_dist", "13"],
        f"choose from 0 {next(iter(SELECTIONS))}",
    ),
    (main_unet_dist, ["--cr", "0.1", "--type_dist", "middle"], "unknown selection 'middle'"),
    (
        main_unet_dist,
        ["--cr", "0.1", "--loss_distill", "l3"],
        f"unknown loss 'l3': choose from {', '.join(LOSSES)}",
    ),
    (main_unet_dist, ["--cr", "0.1", "--sup_loss", "2"], "invalid choice: 2"),
    (main_unet_dist, ["--cr", "0.1", "--alpha", "-2"], "-2 is outside [0"),
    (
        progressive_distill,
        [],
        "one of the arguments --ladder --redistill --encoder_from is required",
    ),
    (main_unet, ["--cr", "0.1", "--seed", "99999999999999999999"], "is outside [0,"),
    (
        main_unet,
        ["--cr", "0.1", "--dataset", "digits", "--limit_train", "1", "--x0", "lmmse"],
        "needs more than one training image",
    ),
    (main_unet, ["--physics", "denoise", "--cr", "0.1"], "physics 'denoise' does not read --cr"),
    (main_unet, ["--physics", "sr"], "physics 'sr' needs --factor"),
    (main_unet, ["--cr", "0.1", "--growth", "3"], "network 'unet' does not read --growth"),
    (main_unet_dist, ["--physics", "denoise", "--sigma", "5"], "which teacher?"),
    (
        main_unet_dist,
        ["--cr", "0.1", "--cr_teacher", "0.5", "--online", "--ordering_teacher", "strip"],
        "ordering_teacher strip",
    ),
    (
        main_unet_dist,
        ["--cr", "0.1", "--cr_teacher", "0.5", "--loss_distill", "mse", "mse:2"],
        "is given twice",
    ),
    (
        main_unet_dist,
        ["--cr", "0.1", "--cr_teacher", "0.5", "--temperature", "2"],
        "only soft reads --temperature",
    ),
    (progressive_distill, ["--ladder", "0.5", "2"], "2 is outside (0, 1]"),
    (progressive_distill, ["--ladder", "0.1", "0.5"], "each ratio must be below"),
    (
        progressive_distill,
        ["--ladder", "0.5", "0.1", "--gamma", "1"],
        "only comb_matrix reads --gamma",
    ),
    (progressive_distill, ["--ladder", "0.5", "0.1", "--awgn_teacher"], "give --awgn_snr"),
    (
        progressive_distill,
        ["--ladder", "0.5", "0.1", "--physics", "blur"],
        "has no ratio to climb down",
    ),
    (
        progressive_distill,
        ["--redistill", "a.pth", "--warm_start"],
        "warm_start is only for --ladder",
    ),
    (progressive_distill, ["--redistill", "a.pth"], "redistill: which teacher?"),
    (
        progressive_distill,
        ["--encoder_from", "a.pth"],
        "needs both --encoder_from and --decoder_from",
    ),
    (
        progressive_distill,
        ["--encoder_from", "a.pth", "--decoder_from", "b.pth", "--alpha", "2"],
        "alpha: a hybrid is distilled only from a --teacher",
    ),
    (
        progressive_distill,
        ["--encoder_from", "a.pth", "--decoder_from", "b.pth", "--alpha_schedule", "linear"],
        "alpha_schedule: a hybrid is distilled only from a --teacher",
    ),
    (
        progressive_distill,
        ["--ladder", "0.5", "0.1", "--freeze", "encoder"],
        "only a part of a hybrid",
    ),
    (
        main_unet,
        [
            "--cr",
            "0.1",
            "--dataset",
            "digits",
            "--network",
            "dncnn",
            "--steps",
            "1",
            "--gradient_checkpointing",
        ],
        "saves nothing in a DnCNN",
    ),
    (test_UNet, [], "the following arguments are required: --checkpoint"),
    (test_UNet, ["--checkpoint", "nowhere.pth"], "nowhere.pth: no such file"),
    (visualize_mask_spc, ["--cr", "0.1", "--n", "20"], "power of two"),
    (demo, ["--cr", "7"], "7 is outside (0, 1]"),
    (demo, ["--task", "benchmark", "--seed", "1"], "task 'benchmark' does not read --seed"),
    (demo, ["--task", "classroom", "--photons", "5"], "task 'classroom' does not read --photons"),
    (demo, ["--scenes", "recorded"], "unknown scenes 'recorded'"),
    (demo, ["--photons", "none"], "'none' is not a number"),
    (demo, ["--cr", "0.6"], "give at most --cr_teacher 0.5"),
    (demo, ["--photons", "0"], "0 is outside (0,"),
    (demo, ["--n", "24"], "power of two"),
    (demo, ["--frames", "1"], "val_share 0.2 of 1 frames"),
    (demo, ["--test_frames", "1000"], "dataset 'text' has 110 test images"),
]


@pytest.mark.parametrize(
    "script, words, message",
    WRONG,
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line_exit_code_two_and_nothing_written(
    script, words, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *words])
    with pytest.raises(SystemExit) as end:
        flags.run(script.parse, script.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and message in error, error
    assert not any(Path().iterdir())


MISMATCHED = [
    (["--n", "32"], "has n 16, which contradicts the n 32"),
    (["--c", "3"], "has c 1, which contradicts the c 3"),
    (["--cr_teacher", "0.9"], "has cr 0.5, which contradicts the cr 0.9"),
    (["--gamma", "1"], "only comb_matrix reads --gamma"),
    (["--awgn_teacher"], "give --awgn_snr"),
    (
        ["--init_student", "results/trained_models/UNET_cr_0.5.pth", "--width", "6"],
        "holds another network",
    ),
]


@pytest.mark.parametrize(
    "words, message",
    MISMATCHED,
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_teacher_and_student_that_cannot_match_are_refused_before_training(
    teacher, words, message, capsys, monkeypatch
):
    before = sorted(map(str, Path().rglob("*")))
    monkeypatch.setattr(
        sys,
        "argv",
        ["main_unet_dist.py", "--cr", "0.25", "--teacher", teacher["export"], *TINY, *words],
    )
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        flags.run(main_unet_dist.parse, main_unet_dist.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and message in error, error
    assert sorted(map(str, Path().rglob("*"))) == before


@pytest.mark.parametrize(
    "script, words",
    [
        (main_unet, ["--cr", "0.1"]),
        (progressive_distill, ["--ladder", "0.5", "0.1"]),
        (main_unet_dist, ["--cr", "0.1", "--cr_teacher", "0.5", "--online"]),
    ],
)
def test_a_dry_run_says_what_it_would_do_and_writes_nothing(script, words, capsys):
    assert not call(script, *words, *TINY, "--dry_run")
    printed = capsys.readouterr().out
    assert (
        '"lr"' in printed
        and "results/runs/" in printed
        and "results/trained_models/" in printed
        and not any(Path().iterdir())
    )


def test_a_config_file_may_say_yes_and_no():
    Path("c.yml").write_text("batch_norm: on\n")
    assert main_unet.parse(["--cr", "0.1", "--config", "c.yml"]).batch_norm == "on"


def test_a_config_file_sets_flags_and_the_command_line_wins():
    Path("c.yml").write_text(
        "cr: 0.3\nepochs: 7\nlr: 0.01\nema: 0.5\nresume: false\noverwrite: true\ndataset: digits\n"
    )
    args = main_unet.parse(["--config", "c.yml", "--epochs", "2"])
    assert (args.cr, args.epochs, args.lr, args.ema, args.resume, args.overwrite, args.dataset) == (
        0.3,
        2,
        0.01,
        0.5,
        False,
        True,
        "digits",
    )


@pytest.mark.parametrize(
    "words", [["--cr", "0.25", "--cr_teacher", "0.5"], ["--crs_expert", "0.1", "0.25", "--teacher"]]
)
def test_config_of_a_students_run_repeats_it(words, teacher, capsys):
    words = [*words, teacher["export"]] if words[-1] == "--teacher" else words
    done = call(main_unet_dist, *words, *TINY)
    capsys.readouterr()
    assert (
        call(main_unet_dist, "--config", f"{done['run']}/config.json") == done
        and "is finished" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("speed: 3", "unknown setting 'speed'"),
        ("[1, 2]", "must have settings"),
        ("a: b: c", "neither JSON nor YAML"),
    ],
)
def test_a_wrong_config_file_is_refused(text, message, capsys):
    Path("c.yml").write_text(text)
    with pytest.raises(SystemExit) as end:
        main_unet.parse(["--cr", "0.1", "--config", "c.yml"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
