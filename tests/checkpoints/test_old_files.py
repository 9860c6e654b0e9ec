"""Checkpoints, run folders and study folders of commit de914fc are read, evaluated and gone on with."""

import csv
import json
import tarfile
from pathlib import Path
from statistics import mean

import pytest
import torch

import main_unet
import main_unet_dist
import sweep
import test_UNet
from checkpoints import checkpoint
from cli import flags
from models import build_network

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "de914fc.tar.xz"
TEACHER = "results/trained_models/UNET_cr_0.5.pth"
STUDENT = (
    f"--cr 0.25 --teacher {TEACHER} --type_dist output_latent --loss_distill mse hint "
    "--dataset digits --n 16 --width 2 --limit_train 40 --limit_val 20 --device cpu --epochs 4 --seed 1"
)  # as it was typed then, and stopped within the run


@pytest.fixture(autouse=True)
def unpacked(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")


def rows_of(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_network_scores_what_it_scored_then():
    (key,) = Path("results/sweeps/study").glob("distilled_cs_seed_0_*")
    then = [float(row["psnr"]) for row in rows_of(key / "scores.csv")]
    checkpoint = str(key / "runs" / key.name / "best.pth")
    words = ["--checkpoint", checkpoint, "--dataset", "digits", "--limit_test", str(len(then))]
    assert test_UNet.main(test_UNet.parse(words))["psnr"] == pytest.approx(mean(then), abs=1e-3)


def test_a_run_that_was_stopped_goes_on_in_its_folder():
    (run,) = Path("results/runs").glob("student*")
    before = json.loads((run / "run.json").read_text())
    assert "scores" not in before and (run / "last.pth").is_file()
    scores = main_unet_dist.main(main_unet_dist.parse(STUDENT.split()))
    assert Path(scores["run"]) == run
    assert [float(row["epoch"]) for row in rows_of(run / "metrics.csv")] == [1, 2, 3, 4]


def test_a_study_that_is_finished_trains_nothing_and_reports(capsys):
    folder = Path("results/sweeps/study")
    networks = {path: path.stat().st_mtime_ns for path in folder.rglob("best.pth")}
    assert len(networks) == 7
    sweep.main(sweep.parse(["study.yml", "--limit_test", "20", "--collect"]))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("best.pth")} == networks
    assert (folder / "report.html").is_file()
    sweep.main(sweep.parse(["study.yml", "--limit_test", "20", "--status"]))
    assert "7 done of 7 runs" in capsys.readouterr().out


def test_networks_whose_channels_were_called_features_are_rebuilt_and_resumed(tmp_path):
    old = {"name": "dncnn", "c": 1, "features": 4, "blocks": 2}
    network = build_network({"name": "dncnn", "c": 1, "channels": 4, "blocks": 2})
    physics = {"recipe": {"name": "given", "n": 16, "c": 1}, "state": None}
    content = {"format": 1, "weights": network.state_dict(), "network": old, "config": {}}
    content |= {"physics": physics}
    checkpoint.write(tmp_path / "old.pth", content)
    restored = checkpoint.restore(tmp_path / "old.pth")
    assert restored.network_config["channels"] == 4
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(restored.network(image), network(image))

    words = ["--cr", "0.25", "--network", "dncnn"]
    args = main_unet.parse([*words, "--channels", "8"])
    assert main_unet.parse([*words, "--features", "8"]) == args
    assert flags.identity(args)["features"] == 8, "so that older run folders go on"
