"""A mistake is told by its true cause, at once, and what was computed is not lost with the file that cannot be written."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_bad_data import ran
from test_house import ROOT
from test_scripts import call

import analyze_features
import compare_models
import main_classify
import main_classify_dist
import main_unet
import main_unet_dist
import predict
import progressive_distill
import test_classify
import test_UNet
import visualize_mask_spc
from checkpoints import checkpoint
from core.errors import UserError
from data_loader import Request, build_splits
from models import weights
from training import loop

SMALL = ["--n", "16", "--width", "4", "--dataset", "digits", "--limit_train", "20"]
SHORT = [*SMALL, "--limit_val", "5", "--epochs", "1", "--wandb", "disabled", "--device", "cpu"]
TEN = ["--dataset", "digits", "--limit_test", "10", "--device", "cpu"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A network that restores images and a classifier, of images of unlike sizes."""
    folder, here = tmp_path_factory.mktemp("networks"), Path.cwd()
    os.chdir(folder)
    unet = call(main_unet, "--cr", "0.5", *SHORT)["export"]
    words = ["--model", "resnet8", *SHORT, "--n", "8", "--width", "8"]
    classifier = call(main_classify, *words)["export"]
    os.chdir(here)
    return {"unet": str(folder / unet), "classifier": str(folder / classifier)}


def write_pictures(folder, count):
    folder.mkdir()
    for k in range(count):
        noise = np.random.default_rng(k).integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{k}.png")


# ---------------------------------------------------------------- true causes


@pytest.fixture
def wrong(networks):
    """Files and folders that are not what they are taken for."""
    Path("folder").mkdir()
    Path("run").mkdir()
    Path("run/best.pth").write_bytes(b"PK")
    Path("empty").write_bytes(b"")
    Path("text").write_text("this is text")
    Path("binary.yml").write_bytes(bytes(range(128, 256)))
    Path("old.pth").write_bytes(pickle.dumps({"weights": 1}))
    Path("cut.pth").write_bytes(Path(networks["unet"]).read_bytes()[:1000])
    Path("objects.pth").write_bytes(b"")
    torch.save({"weights": torch.nn.Linear(2, 2)}, "objects.pth")
    torch.save({"Conv1.0.weight": torch.zeros(4, 1, 3, 3)}, "bare.pth")
    for name, count in (("none", 0), ("two", 2)):
        write_pictures(Path(name), count)


CAUSES = {
    "nowhere": ": no such file",
    "folder": "folder is a folder, but a file is needed",
    "run": "run is a folder, but a file is needed; give run/best.pth",
    "empty": "empty is an empty file",
    "text": "text is not a checkpoint: torch.save did not write it",
    "old.pth": "old.pth is a pickle, which torch wrote before version 1.6",
    "cut.pth": "cut.pth is cut off at its end",
}
TAKERS = {
    "teacher": (main_unet_dist, ["--cr", "0.1", *SMALL, "--teacher"]),
    "init_student": (
        main_unet_dist,
        ["--cr", "0.1", *SMALL, "--teacher", "UNET", "--init_student"],
    ),
    "train_again": (main_unet, ["--cr", "0.1", *SMALL, "--train_again"]),
    "teacher of classes": (main_classify_dist, ["--model", "resnet8", *SMALL, "--teacher"]),
    "redistill": (progressive_distill, [*SMALL, "--teacher", "UNET", "--redistill"]),
    "encoder_from": (progressive_distill, [*SMALL, "--decoder_from", "UNET", "--encoder_from"]),
    "decoder_from": (progressive_distill, [*SMALL, "--encoder_from", "UNET", "--decoder_from"]),
    "test_UNet": (test_UNet, ["--checkpoint"]),
    "test_classify": (test_classify, ["--checkpoint"]),
    "compare_models": (compare_models, ["UNET"]),
    "analyze_features": (analyze_features, ["UNET"]),
    "predict": (predict, ["two/0.png", "--checkpoint"]),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_checkpoint_is_named_by_its_true_cause(
    taker, wrong, networks, monkeypatch, capsys
):
    script, words = TAKERS[taker]
    words = [networks["unet"] if word == "UNET" else word for word in words]
    for path, cause in CAUSES.items():
        code, _, error = ran(script, [*words, path], monkeypatch, capsys)
        assert code == 2 and error.count("\n") == 1 and cause in error, error
        if taker in words[-1]:
            assert f"--{taker} {path}" in error


@pytest.mark.parametrize("path", CAUSES)
def test_a_script_that_another_one_calls_names_the_same_cause(path, wrong):
    with pytest.raises(UserError, match=re.escape(CAUSES[path])):
        checkpoint.read(path)


KINDS = {
    "classifier": [
        (main_unet_dist, ["--cr", "0.1", *SMALL, "--teacher"]),
        (main_unet, ["--cr", "0.1", *SMALL, "--train_again"]),
        (progressive_distill, [*SMALL, "--teacher", "UNET", "--redistill"]),
        (progressive_distill, [*SMALL, "--redistill", "UNET", "--teacher"]),
        (progressive_distill, [*SMALL, "--decoder_from", "UNET", "--encoder_from"]),
        (progressive_distill, [*SMALL, "--encoder_from", "UNET", "--decoder_from"]),
        (progressive_distill, [*SMALL, "--ladder", "0.2", "0.1", "--teacher"]),
        (test_UNet, [*TEN, "--checkpoint"]),
        (compare_models, [*TEN, "UNET"]),
    ],
    "unet": [
        (main_classify_dist, ["--model", "resnet8", *SMALL, "--n", "8", "--teacher"]),
        (test_classify, [*TEN, "--checkpoint"]),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_the_other_kind_is_named_before_anything_else_of_it(kind, networks):
    for script, words in KINDS[kind]:
        words = [networks["unet"] if word == "UNET" else word for word in words]
        found = "a classifier ('resnet8')" if kind == "classifier" else "images ('unet')"
        with pytest.raises(UserError, match=re.escape(found)):
            call(script, *words, networks[kind], *(["--dry_run"] if "--width" in words else []))


def test_a_classifier_of_the_same_size_is_no_teacher_of_a_unet(networks):
    words = ["--cr", "0.1", *SMALL, "--n", "8", "--teacher", networks["classifier"], "--dry_run"]
    with pytest.raises(UserError, match="a network that restores images is needed here"):
        call(main_unet_dist, *words)


def test_a_bare_file_that_builds_nothing_is_named(wrong):
    with pytest.raises(UserError, match=r"checkpoint bare\.pth: scales 1"):
        checkpoint.restore("bare.pth", {"n": 16, "cr": 0.1, "ordering": "xy"})


def test_no_message_advises_to_run_what_is_in_a_file(wrong, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="could run code and is not loaded") as first:
        checkpoint.read("objects.pth")
    own = torch.nn.Linear(2, 2).state_dict()
    read = lambda: torch.load("objects.pth", weights_only=True)  # noqa: E731
    with pytest.raises(UserError, match="could run code and is not loaded") as second:
        weights.read_weights(Path("objects.pth"), read, own)
    np.savez("objects.npz", x_train=np.array([{}]), x_test=np.array([{}]))
    words = ["--cr", "0.5", "--dataset", "npz", "--data_root"]
    texts = [str(first.value), str(second.value)]
    for path in ("objects.npz", "text"):
        code, _, error = ran(main_unet, [*words, path], monkeypatch, capsys)
        assert code == 2 and error.count("\n") == 1
        texts.append(error)
    for text in texts:
        assert not re.search("weights_only|allow_pickle|unsafe|trust", text), text


DATA = {
    "npz nowhere.npz": "--data_root nowhere.npz: no such file",
    "npz folder": "--data_root folder is a folder, but a file is needed",
    "npz empty": "--data_root empty is an empty file",
    "npz text": "--data_root text is not an .npz file: numpy.savez did not write it",
    "folder nowhere": "--data_root nowhere: no such folder",
    "folder text": "--data_root text is a file, but a folder is needed",
    "folder none": "none has no pictures (files that end in .bmp",
    "folder two": "two has 2 images, too few for training: 0 for training, 1 for validation, 1 for test",
    "mnist text": "--data_root text is a file, but a folder is needed",
    "cifar10 nowhere": "no files in nowhere/cifar-10-batches-py; put them there or give --download",
}


@pytest.mark.parametrize("words", DATA)
def test_data_that_is_not_there_or_too_little_is_named(words, wrong, monkeypatch, capsys):
    dataset, root = words.split()
    words = ["--cr", "0.5", "--n", "16", "--dataset", dataset, "--data_root", root]
    code, _, error = ran(main_unet, words, monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and DATA[" ".join((dataset, root))] in error, error
    with pytest.raises(UserError, match=re.escape(DATA[f"{dataset} {root}"])):
        build_splits(Request(dataset, 16, 1, root))


def test_two_pictures_are_enough_to_be_tested_on(wrong):
    splits = build_splits(Request("folder", 16, 1, "two"), wanted=("test",))
    assert len(splits["test"]) == 1


CONFIGS = {
    "epochs: [1, 2]": "--config c.yml: epochs takes one value, not the list [1, 2]",
    "tensorboard: 3": "--config c.yml: tensorboard must be true or false, not 3",
    "hello": "must have settings 'name: value', but it has hello",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_wrong_value_in_a_file_of_settings_is_named(text, monkeypatch, capsys):
    Path("c.yml").write_text(text)
    code, _, error = ran(main_unet, ["--cr", "0.1", "--config", "c.yml"], monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and CONFIGS[text] in error, error


@pytest.mark.parametrize(
    "path, cause",
    [
        ("nowhere", "--config nowhere: no such file"),
        ("folder", "--config folder is a folder, but a file is needed"),
        ("empty", "--config empty is an empty file"),
        ("binary.yml", "--config binary.yml is not a text file: JSON or YAML is needed"),
    ],
)
def test_a_file_of_settings_that_cannot_be_read_is_named(path, cause, wrong, monkeypatch, capsys):
    code, _, error = ran(main_unet, ["--cr", "0.1", "--config", path], monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and cause in error, error


def test_a_file_where_a_folder_is_to_be_written_is_named(wrong, monkeypatch, capsys):
    masks = [*SMALL[:2], *SMALL[4:], "--cr", "0.5"]
    for script, words, cause in (
        (visualize_mask_spc, [*masks, "--export", "text"], "--export text: text is a file"),
        (visualize_mask_spc, [*masks, "--results", "text/a"], "--results text/a: text is a file"),
        (main_unet, ["--cr", "0.5", "--results", "text"], "--results text: text is a file"),
        (predict, ["--checkpoint", "two/0.png", "two", "--results", "text"], "--results text"),
    ):
        code, _, error = ran(script, words, monkeypatch, capsys)
        assert code == 2 and error.count("\n") == 1 and cause in error, error
        assert "Errno" not in error


def test_measurements_that_are_not_there_are_named(wrong, networks, monkeypatch, capsys):
    for words, cause in (
        (["--measurements", "nowhere.npy"], "--measurements nowhere.npy: no such file"),
        (["--measurements", "folder"], "--measurements folder is a folder"),
        (["nowhere.png"], "picture nowhere.png: no such file"),
        (["two/0.png", "--truth", "nowhere"], "picture nowhere: no such file"),
    ):
        words = ["--checkpoint", networks["unet"], *words]
        code, _, error = ran(predict, words, monkeypatch, capsys)
        assert code == 2 and error.count("\n") == 1 and cause in error, error


# ---------------------------------------------------------------- at once


QUICK = [
    "main_unet.py --n 17 --cr 0.5",
    "main_unet.py --n 128 --cr 0.5 --ordering random",
    "main_unet.py --cr 0.5 --dataset folder --data_root nowhere",
    "main_unet.py --cr 0.5 --device gpu",
    "main_unet.py --cr 0.5 --style_weight 1",
    "main_unet.py --cr 0.5 --train_again nowhere.pth",
    "main_unet.py --cr 0.5 --run_name a/b",
    "main_unet_dist.py --cr 0.1 --teacher nowhere.pth",
    "main_unet_dist.py --cr 0.1 --cr_teacher 0.5",
    "main_unet_dist.py --cr 0.1",
    "main_unet_dist.py --cr 0.1 --cr_teacher 0.5 --loss_distill mse mse:2",
    "main_unet_dist.py --cr 0.1 --cr_teacher 0.5 --online --awgn_teacher",
    "main_classify_dist.py --teacher nowhere.pth",
    "main_classify_dist.py --teacher a.pth --teacher_weights 1 2",
    "main_classify_dist.py --teacher a.pth --balance halves --beta 1",
    "main_classify_dist.py --teacher a.pth --crd_tau 1",
    "progressive_distill.py --ladder 0.1 0.5",
    "progressive_distill.py --ladder 0.5 0.1 --n 17",
    "progressive_distill.py --redistill nowhere.pth --teacher nowhere.pth",
    "test_UNet.py --checkpoint nowhere.pth",
    "test_classify.py --checkpoint nowhere.pth",
    "compare_models.py nowhere.pth",
    "analyze_features.py nowhere.pth",
    "predict.py --checkpoint nowhere.pth a.png",
    "visualize_mask_spc.py --cr 0.5 --n 17",
    "main_unet.py --cr 0.5 --photons 10 --awgn_snr 20",
    "main_unet.py --cr 0.5 --photons 10 --calibration nowhere.json",
    "calibrate.py nowhere.npy nowhere.npy",
    "benchmark.py --teacher nowhere.pth",
    "sweep.py",
]
HEAVY = ("torch", "numpy", "matplotlib")
WATCH = """
import importlib, io, sys
from contextlib import redirect_stderr
for line in sys.stdin.read().splitlines():
    sys.argv = line.split()
    script = importlib.import_module(sys.argv[0].removesuffix(".py"))
    from cli import flags
    said, code = io.StringIO(), 0
    with redirect_stderr(said):
        try:
            flags.run(script.parse, script.main)
        except SystemExit as end:
            code = end.code
    heavy = [name for name in {heavy} if name in sys.modules]
    print(code, said.getvalue().count("\\n"), ",".join(heavy) or "-", line)
    for name in heavy:
        sys.exit(f"{{line}} imported {{name}}")
"""


def test_mistakes_in_words_and_names_of_files_are_refused_before_torch_is_imported():
    watched = subprocess.run(
        [sys.executable, "-c", WATCH.format(heavy=HEAVY)],
        input="\n".join(QUICK),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout.splitlines() == [f"2 1 - {line}" for line in QUICK]


def test_the_state_of_a_study_is_reported_without_torch():
    code = "import sys, sweep\nsweep.main(sweep.parse())\nassert not {'torch', 'numpy'} & {*sys.modules}"
    study = ["--vary", "cr=0.1,0.2", "--fixed", "dataset=digits", "n=16", "--teacher", "cr=0.5"]
    reported = subprocess.run(
        [sys.executable, "-c", code, *study, "--status"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert reported.returncode == 0, reported.stderr
    assert "7 waiting of 7 runs in 7 jobs" in reported.stdout


# ---------------------------------------------------------------- what was computed is printed


def blocked(name):
    """A folder stands where a file is to be written."""
    path = Path("results") / name
    path.mkdir(parents=True)


TABLES = {
    "test_UNet": (test_UNet, "unet", "test/{stem}/per_image.csv", "| SSIM |"),
    "pictures": (test_UNet, "unet", "test/{stem}/originals/00000.png", "| SSIM |"),
    "test_classify": (test_classify, "classifier", "test/{stem}/results.json", "| top-1 |"),
    "compare_models": (compare_models, "unet", "compare/models.csv", "MFLOPs"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_printed_though_its_file_cannot_be_written(name, networks, monkeypatch, capsys):
    script, kind, target, column = TABLES[name]
    stem = Path(networks[kind]).stem
    words = [] if script is compare_models else ["--checkpoint"]
    words += [networks[kind], *TEN] + (["--runs", "1"] if script is compare_models else [])
    monkeypatch.setattr("shutil.rmtree", lambda path: None)
    blocked(target.format(stem=stem))
    code, printed, error = ran(script, words, monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and target.format(stem=stem) in error, error
    assert re.search(r"\|\s+" + column.strip("| ") + r"\s+\|", printed), printed


def test_features_are_printed_though_their_files_cannot_be_written(networks, monkeypatch, capsys):
    again = Path("again.pth")
    again.write_bytes(Path(networks["unet"]).read_bytes())
    names = f"{Path(networks['unet']).stem}_and_again"
    blocked(f"features/{names}/measures.csv")
    words = [networks["unet"], again, *TEN]
    code, printed, error = ran(analyze_features, words, monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and "measures.csv" in error, error
    assert "Means over images and channels" in printed


# ---------------------------------------------------------------- Ctrl-C


def test_ctrl_c_while_torch_is_imported_is_one_line():
    words = [str(ROOT / "main_unet.py"), "--cr", "0.5", *SHORT]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, *words], **streams)
    maps, end = Path(f"/proc/{process.pid}/maps"), time.time() + 60
    while "libtorch" not in maps.read_text() and time.time() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error == "main_unet.py: interrupted\n"


@pytest.mark.parametrize("when", ["evaluation", "before the first step"])
def test_ctrl_c_where_nothing_can_go_on_is_one_line(when, networks, monkeypatch, capsys):
    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # Python handles the signal

    if when == "evaluation":
        script, words = test_UNet, ["--checkpoint", networks["unet"], *TEN]
        monkeypatch.setattr("evaluation.restoration.estimate_baselines", interrupt)
    else:
        script, words = main_unet, ["--cr", "0.5", *SHORT]
        monkeypatch.setattr(loop.Stop, "check_alone", loop.Stop.check)
        begin = loop.Fit.begin
        monkeypatch.setattr(loop.Fit, "begin", lambda *args: (begin(*args), interrupt()))
        monkeypatch.setattr(loop.Fit, "update", lambda fit, batch, stop: stop.check())
    code, _, error = ran(script, words, monkeypatch, capsys)
    assert (code, error) == (130, f"{script.__name__}.py: interrupted\n")


def test_a_training_that_can_go_on_ends_with_another_code(monkeypatch, capsys):
    step = loop.Fit.step

    def stepped(fit, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return step(fit, batch)

    monkeypatch.setattr(loop.Fit, "step", stepped)
    code, _, error = ran(main_unet, ["--cr", "0.5", *SHORT], monkeypatch, capsys)
    assert code == 75 and error.count("\n") == 1 and "step 1 of 2 is saved in" in error, error
