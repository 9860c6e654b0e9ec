"""What the folders of runs say, and the names of files that hold what differs."""

import json

import pytest

import main_unet
import main_unet_dist
from cli.checks import teacher_path
from core.errors import UserError
from core.runs import check_one_network, describe_changes, differences, runs_of


def write_run(folder, **flags):
    folder.mkdir(parents=True)
    record = {"identity": flags, "export": "UNET_cr_0.5.pth", "kept": f"{folder.name}.pth"}
    (folder / "run.json").write_text(json.dumps(record | {"scores": {"val_psnr": 30.0}}))


def test_a_name_holds_the_flags_that_are_not_at_their_defaults():
    parser = main_unet.build_parser()
    args = parser.parse_args(
        ["--cr", "0.5", "--lr", "0.01", "--ordering", "variance", "--seed", "3"]
    )
    assert parser.changes(args) == {"cr": 0.5, "lr": 0.01, "ordering": "variance", "seed": 3}
    words = describe_changes("UNET_cr_0.5", parser.changes(args))
    assert words == "_ordering_variance_lr_0.01_seed_3"
    assert parser.changes(parser.parse_args(["--cr", "0.5"])) == {"cr": 0.5}


def test_a_name_stays_short_and_inside_its_folder():
    many = {f"flag{k}": "../" + "x" * 20 for k in range(9)}
    words = describe_changes("UNET", many)
    assert len(words) < 100 and "/" not in words and words.endswith("_and_more")


def test_the_teacher_of_a_ratio_is_refused_when_runs_differ_in_more_than_their_seeds(tmp_path):
    write_run(tmp_path / "runs" / "a", lr=0.1, seed=0)
    write_run(tmp_path / "runs" / "b", lr=0.1, seed=1)
    check_one_network(tmp_path, "UNET_cr_0.5.pth", "cr_teacher 0.5")
    write_run(tmp_path / "runs" / "c", lr=0.2, seed=0)
    check_one_network(tmp_path, "UNET_cr_0.1.pth", "cr_teacher 0.1")
    with pytest.raises(UserError, match=r"3 runs .* differ in lr; .* c.pth \(lr 0.2\)"):
        check_one_network(tmp_path, "UNET_cr_0.5.pth", "cr_teacher 0.5")


def test_runs_are_found_below_a_folder_and_damaged_ones_left_out(tmp_path):
    write_run(tmp_path / "runs" / "a", lr=0.1)
    write_run(tmp_path / "sweeps" / "study" / "runs" / "b", lr=0.2, seed=3)
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    found = runs_of(tmp_path)
    assert [run.name for run in found] == ["a", "b"]
    assert differences(found) == ["lr", "seed"] and differences(found, ("seed",)) == ["lr"]


def test_the_teacher_of_a_ratio_is_of_the_students_network_or_else_a_unet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = main_unet_dist.parse(["--cr", "0.1", "--cr_teacher", "0.5", "--network", "unrolled"])
    with pytest.raises(UserError, match=r"UNROLLED_cr_0.5.pth or UNET_cr_0.5.pth: train it"):
        teacher_path(args)
    folder = tmp_path / "results" / "trained_models"
    folder.mkdir(parents=True)
    for name in ("UNET_cr_0.5.pth", "UNROLLED_cr_0.5.pth"):
        (folder / name).touch()
        assert teacher_path(args).name == name
