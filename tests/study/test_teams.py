"""Studies whose students have several teachers, and what a ladder of students took."""

import csv
import json
from pathlib import Path

import numpy as np
import yaml
from test_scripts import call

import sweep
from findings.results import Results
from study.costs import kind_of
from study.jobs import seconds_of

TEAMS = {
    "question": "Are two better than one?",
    "script": "main_classify_dist.py",
    "seeds": [0, 1],
    "fixed": {
        "dataset": "digits", "n": 16, "limit_train": 60, "limit_val": 20, "batch_size": 20,
        "model": "resnet8", "width": 4, "lessen_ratio": 2, "steps": 2, "val_every": 1,
        "data_seed": 0, "loss_distill": "kd",
    },
    "teacher": {"lessen_ratio": 1},
    "grid": [{"teacher": {"seed": 0}}, {"teacher": [{"seed": 0}, {"seed": 1}]}],
    "shuffled": "none",
    "limit_test": 40,
}  # fmt: skip


def mean_of(folder: Path) -> float:
    with open(folder / "scores.csv", newline="") as file:
        return float(np.mean([float(row["top1"]) for row in csv.DictReader(file)]))


def test_a_team_is_trained_reported_and_found_again(capsys):
    Path("teams.yml").write_text(yaml.safe_dump(TEAMS))
    args = ["teams.yml", "--jobs", "1"]
    call(sweep, *args)
    folder = Path("results/sweeps/teams")
    (taught,) = folder.glob("distilled_0_1_seed_0_*")
    config = json.loads((taught / "runs" / taught.name / "config.json").read_text())
    teachers = sorted(folder.glob("teacher_*"))
    assert sorted(Path(file).parts[-4] for file in config["teacher"]) == [
        path.name for path in teachers
    ]
    with open(folder / "tables" / "references.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[""] == "teacher"]
    assert sorted(row["seed"] for row in rows) == ["0", "1"], "each stands by itself"
    shown = {row["seed"]: float(row["top-1"].split()[0]) for row in rows}
    assert all(
        abs(mean_of(path) - shown[path.name.partition("_seed_")[2][0]]) < 0.01 for path in teachers
    )
    capsys.readouterr()
    call(sweep, *args)
    assert "0 of them to do" in capsys.readouterr().out
    found, plan = sweep.build_plan(sweep.parse(["teams.yml"]))
    kinds = {kind_of(plan, run) for run in found.with_role("distilled")}
    assert len(kinds) == 2, "one teacher, and two"
    results = Results(found)
    team = next(run for run in found.with_role("distilled") if len(run.teachers) == 2)
    validations = [results.validation([found.runs[key]]) for key in team.teachers]
    best = team.teachers[int(np.argmax(validations))]
    assert results.best_teacher(team) == results.mean(best), "the best in validation"


def test_a_ladder_took_the_seconds_of_all_its_rungs(tmp_path):
    rungs = []
    for k, seconds in enumerate((1.5, 2.0, 0.25)):
        run = tmp_path / str(k)
        run.mkdir()
        (run / "metrics.json").write_text(json.dumps([{"seconds": seconds}, {"seconds": 1.0}]))
        rungs.append({"run": str(run)})
    assert seconds_of(rungs[-1] | {"rungs": rungs}) == 6.75
    assert seconds_of(rungs[-1]) == 1.25
