"""runs.py: the runs of a folder are listed, compared, exported, deleted and extended."""

import json
import sys
from pathlib import Path

import pytest

import main_unet
import runs
from bookkeeping.selection import is_value
from core.errors import UserError
from core.files import lock

TINY = [
    "--cr", "0.25", "--dataset", "digits", "--n", "16", "--width", "4", "--steps", "2",
    "--batch_size", "4", "--limit_train", "8", "--limit_val", "4",
]  # fmt: skip


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Two runs that differ in their learning rate."""
    monkeypatch.chdir(tmp_path)
    made = []
    for lr in ("0.01", "0.001"):
        words = [*TINY, "--lr", lr]
        monkeypatch.setattr(sys, "argv", ["main_unet.py", *words])
        made.append(main_unet.main(main_unet.parse(words)))
    return [Path(scores["run"]) for scores in made]


def do(*words: str):
    return runs.main(runs.parse([*words]))


def test_a_table_shows_in_what_runs_differ_and_how_they_score(trained, capsys):
    rows = do("list", "--sort", "val_psnr")
    assert {row["run"] for row in rows} == {folder.name for folder in trained}
    assert {row["lr"] for row in rows} == {0.01, 0.001} and "n" not in rows[0]
    assert rows[0]["val_psnr"] >= rows[1]["val_psnr"]
    assert len(do("list", "--where", "lr=0.0010", "network=unet")) == 1
    assert do("list", "--where", "network=dncnn") == []
    with pytest.raises(UserError, match="sort: no run has 'speed': there are run"):
        do("list", "--sort", "speed")


def test_two_runs_are_compared_by_flags_scores_and_curves(trained, tmp_path):
    rows = do("compare", trained[0].name[-8:], str(trained[1]), "--output", "both.png")
    assert [row[""] for row in rows] == ["lr", "val_psnr", "val_ssim"]
    assert rows[0][trained[0].name] == "0.01"
    assert (tmp_path / "both.png").is_file()


@pytest.mark.parametrize("ending", ["tex", "csv", "md"])
def test_chosen_columns_are_exported(trained, ending):
    do("export", "--columns", "run", "lr", "val_psnr", "--sort", "lr", "--output", f"t.{ending}")
    text = Path(f"t.{ending}").read_text()
    assert text.index("0.01") < text.index("0.001") and "val" in text and "ssim" not in text


def test_a_deleted_run_is_gone_with_its_network_and_no_other(trained):
    kept = json.loads((trained[0] / "run.json").read_text())["kept"]
    do("delete", trained[0].name, "--yes")
    assert not trained[0].exists() and trained[1].is_dir()
    left = {path.name for path in Path("results/trained_models").glob("*.pth")}
    assert kept not in left and len(left) == 2


def test_deletion_asks_and_leaves_what_lies_outside_or_is_in_use(trained, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="nobody can be asked"):
        do("delete", trained[0].name)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert do("delete", trained[0].name) == [] and trained[0].is_dir()
    outside = tmp_path / "outside"
    trained[0].rename(outside)
    trained[0].symlink_to(outside)
    with pytest.raises(UserError, match="lies outside"):
        do("delete", trained[0].name, "--yes")
    assert (outside / "run.json").is_file()
    record = json.loads((trained[1] / "run.json").read_text())
    del record["scores"]
    (trained[1] / "run.json").write_text(json.dumps(record))
    held = lock(trained[1] / ".lock")
    with pytest.raises(UserError, match="is in use"):
        do("delete", trained[1].name, "--yes")
    held.lock.release()
    assert trained[1].is_dir()


def test_a_kept_file_outside_of_the_results_is_not_deleted(trained, tmp_path):
    victim = tmp_path / "victim.pth"
    victim.write_text("mine")
    record = json.loads((trained[0] / "run.json").read_text()) | {"kept": "../../victim.pth"}
    (trained[0] / "run.json").write_text(json.dumps(record))
    do("delete", trained[0].name, "--yes")
    assert victim.read_text() == "mine" and not trained[0].exists()


def test_a_finished_run_is_extended_as_a_run_of_its_own(trained, capsys):
    scores = do("extend", trained[0].name, "--steps", "5")
    folder = Path(scores["run"])
    assert folder not in trained
    config = json.loads((folder / "config.json").read_text())
    assert config["steps"] == 3 and config["lr"] == 0.01
    assert config["train_again"] == str(trained[0] / "best.pth")
    assert "a run of its own" in capsys.readouterr().out
    command = json.loads((folder / "run.json").read_text())["command"]
    assert command[0] == "main_unet.py"
    assert main_unet.parse(command[1:]).steps == 3, "the command repeats the run"
    assert Path(do("extend", folder.name, "--steps", "4")["run"]) not in (folder, *trained)
    for words, message in (
        (["--steps", "2"], "has 2 already"),
        (["--epochs", "3"], "was trained for 2 steps: give --steps"),
    ):
        with pytest.raises(UserError, match=message):
            do("extend", trained[0].name, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("list --yes", "list does not read --yes"),
        ("compare one", "compare needs two runs"),
        ("delete", "delete needs a run"),
        ("extend one", "extend needs --epochs or --steps"),
        ("export", "export needs --output"),
        ("export --output a.xlsx", "must end with .tex, .csv, .md"),
    ],
)
def test_wrong_commands_say_what_is_needed(words, message, capsys):
    with pytest.raises(SystemExit):
        runs.parse(words.split())
    assert message in capsys.readouterr().err


def test_a_run_is_named_by_the_end_of_its_name_if_that_is_clear(trained):
    with pytest.raises(UserError, match="may be any of"):
        do("show", "UNET")
    with pytest.raises(UserError, match="holds no run 'nothing': it has UNET"):
        do("show", "nothing")
    do("show", trained[0].name[-8:])


def test_values_are_compared_as_values():
    assert is_value(0.1, 0.10) and is_value(None, "none")
    assert is_value("0.1 0.5", [0.1, 0.5]) and not is_value(0.1, 0.2) and not is_value(None, 0)
