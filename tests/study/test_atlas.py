"""An atlas: several studies, one after the other, and one table of the settings that it names."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from test_scripts import call

import sweep
from core.errors import UserError
from findings import atlas
from findings.atlas import Entry, atlas_table, plot_atlas
from report.statistics import HARMS, HELPS, UNCLEAR, UNTESTED, paired
from study import costs
from study.parts import parts_of

FIXED = {"dataset": "digits", "n": 16, "limit_train": 60, "limit_val": 20, "batch_size": 20}
CLASSES = {
    "script": "main_classify_dist.py",
    "seeds": [0, 1],
    "fixed": FIXED | {"model": "resnet8", "width": 4, "steps": 2, "val_every": 1, "data_seed": 0},
    "teacher": {"seed": 0},
    "grid": {"limit_labels": [20, None], "loss_distill": "kd"},
    "shuffled": "limit_labels",
    "limit_test": 40,
}
IMAGES = {
    "script": "main_unet_dist.py",
    "seeds": [0, 1],
    "fixed": FIXED | {"width": 4, "steps": 2, "val_every": 1, "cr": 0.1},
    "teacher": {"cr": 0.5},
    "grid": {"type_dist": ["output", "latent"]},
    "shuffled": "none",
    "limit_test": 10,
}
ATLAS = {
    "question": "Where does it pay?",
    "parts": [
        {
            "study": "classes",
            "missing": "labels",
            "rows": [
                {"name": "20 labels", "where": {"limit_labels": 20}},
                {"name": "all labels", "where": {"limit_labels": None}},
            ],
        },
        {
            "study": "images",
            "missing": "nothing",
            "rows": [
                {"name": "output", "where": {"type_dist": "output"}},
                {
                    "name": "output over latent",
                    "where": {"type_dist": "output"},
                    "over": {"type_dist": "latent"},
                },
            ],
        },
    ],
}


def write(text: dict, name: str) -> None:
    Path(f"{name}.yml").write_text(yaml.safe_dump(text))


def write_all(**changes) -> None:
    for name, text in {"classes": CLASSES, "images": IMAGES, "atlas": ATLAS | changes}.items():
        write(text, name)


def scores(study: str, role: str, seed: int, **setting) -> float:
    """The mean score of a run, from the files that it left."""
    words = "_".join(str(value).lower() for value in setting.values())
    (folder,) = Path(f"results/sweeps/{study}").glob(f"{role}_{words}*seed_{seed}_*")
    with open(folder / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return float(np.mean([float(row["top1" if study == "classes" else "psnr"]) for row in rows]))


def test_its_rows_are_the_gains_of_its_studies_and_done_runs_count():
    write_all()
    rows = call(sweep, "atlas.yml", "--jobs", "1")["rows"]
    assert [row["missing"] for row in rows] == ["labels", "labels", "nothing", "nothing"]
    names = ["20 labels", "all labels", "output", "output over latent"]
    assert [row["setting"] for row in rows] == names
    gains = [
        scores("classes", "distilled", seed, limit_labels=20)
        - scores("classes", "alone", seed, limit_labels=20)
        for seed in (0, 1)
    ]
    assert rows[0]["gain"].startswith(f"{np.mean(gains):+.3f} [") and rows[0]["unit"] == "points"
    over = [
        scores("images", "distilled", seed, type_dist="output")
        - scores("images", "distilled", seed, type_dist="latent")
        for seed in (0, 1)
    ]
    assert rows[3]["gain"].startswith(f"{np.mean(over):+.3f} [") and rows[3]["unit"] == "dB"
    assert rows[3]["over"] == "type_dist latent" and not rows[2]["over"]
    assert rows[0]["shuffled"] and not rows[2]["shuffled"]
    folder = Path("results/sweeps/atlas")
    page = (folder / "report.html").read_text()
    assert all(name in page for name in (*names, "Where does it pay?"))
    assert (folder / "atlas.png").is_file() and (folder / "atlas.tex").is_file()
    before = {path: path.stat().st_mtime for path in Path("results").rglob("scores.csv")}
    again = call(sweep, "atlas.yml", "--jobs", "1")["rows"]
    assert again == rows
    assert before == {path: path.stat().st_mtime for path in Path("results").rglob("scores.csv")}


def test_what_is_not_done_is_left_out_and_said(capsys):
    write_all()
    call(sweep, "images.yml", "--jobs", "1")
    with pytest.raises(UserError, match="no run is done yet"):
        call(sweep, "classes.yml", "--collect")
    done = call(sweep, "atlas.yml", "--collect")
    assert len(done["rows"]) == 2 and "2 rows are not done yet" in done["text"]
    call(sweep, "atlas.yml", "--status")
    assert "waiting" in capsys.readouterr().out


def test_the_verdicts_are_corrected_for_all_rows():
    """By scipy's test and Holm's rule by hand; the picture has one mark for every row."""
    generator, entries, values = np.random.default_rng(0), [], []
    for shift, noise in ((1.0, 0.05), (0.0, 0.5), (-0.5, 0.05)):
        before = generator.normal(30, 0.5, 5)
        after = before + shift + generator.normal(0, noise, 5)
        gain = paired(after, before)
        scores_of = [*before], [*after]
        entries.append(Entry("x", f"{shift}", "study", "", "dB", *scores_of, gain, None))
        values.append(stats.ttest_rel(after, before).pvalue)
    verdicts, rows = atlas_table(entries)
    assert verdicts == [HELPS, UNCLEAR, HARMS]
    assert [bool(row["could have seen"]) for row in rows] == [False, True, False]
    order = np.argsort(values)
    assert values[order[0]] * 3 < 0.05 and values[order[1]] * 2 < 0.05
    (axis,) = plot_atlas(entries, verdicts).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["x: 1.0", "x: 0.0", "x: -0.5"]
    shown = [label.get_text() for label in axis.child_axes[0].get_yticklabels()]
    means = [np.mean(entry.after) - np.mean(entry.before) for entry in entries]
    assert [text.split(" ± ")[0] for text in shown] == [f"{mean:+.2f}" for mean in means]
    rings = [bar.lines[0].get_markerfacecolor() == "white" for bar in axis.containers]
    assert rings == [False, True, False]
    assert atlas.COLORS[HELPS] != atlas.COLORS[HARMS]


@pytest.mark.parametrize(
    "parts, message",
    [
        ([{"study": "images", "missing": "x"}], "a part has no 'rows'"),
        ([{"study": "images", "missing": "x", "rows": [{"where": {}}]}], "a row has no 'name'"),
        (
            [{"study": "images", "missing": "x", "rows": [{"name": "a", "which": 1}]}],
            "a row has unknown which",
        ),
        ([{"study": "nowhere", "missing": "x", "rows": [{"name": "a"}]}], "nowhere.yml"),
        ([{"files": "images"}], "a part has unknown files"),
    ],
)
def test_a_wrong_atlas_is_one_line(parts, message):
    write_all(parts=parts)
    with pytest.raises(UserError, match=message) as error:
        call(sweep, "atlas.yml", "--status")
    assert "\n" not in str(error.value)


def test_a_row_that_names_no_setting_or_two_says_which_there_are():
    write_all(parts=[{"study": "images", "missing": "x", "rows": [{"name": "both"}]}])
    with pytest.raises(UserError, match=r"names 2 settings of study images; .*type_dist latent"):
        call(sweep, "atlas.yml")
    row = {"name": "none", "where": {"type_dist": "all"}}
    write_all(parts=[{"study": "images", "missing": "x", "rows": [row]}])
    with pytest.raises(
        UserError, match=r"names 0 settings .* by type_dist all; .*type_dist latent"
    ):
        call(sweep, "atlas.yml")
    assert not list(Path("results").rglob("scores.csv")), "it is refused before hours are spent"


def test_a_study_without_students_alone_compares_its_settings():
    ladder = {
        "script": "progressive_distill.py",
        "seeds": [0],
        "fixed": FIXED | {"width": 4, "steps": 1, "val_every": 1, "limit_test": 10},
        "grid": {"ladder": [[0.1], [0.5]]},
        "limit_test": 10,
    }
    write(ladder, "ladder")
    row = {"name": "half", "where": {"ladder": [0.5]}}
    part = {"study": "ladder", "missing": "nothing", "rows": [row]}
    write_all(parts=[part])
    with pytest.raises(UserError, match="row 'half': study ladder has no student alone: say"):
        call(sweep, "atlas.yml", "--status")
    write_all(parts=[part | {"rows": [row | {"over": {"ladder": [0.1]}}]}])
    (found,) = call(sweep, "atlas.yml", "--jobs", "1")["rows"]
    means = []
    for rungs in ("0.5", "0.1"):
        (folder,) = Path("results/sweeps/ladder").glob(f"trained_{rungs}_seed_0_*")
        with open(folder / "scores.csv", newline="") as file:
            means.append(np.mean([float(row["psnr"]) for row in csv.DictReader(file)]))
    assert [found["with"], found["without"]] == [f"{mean:.3f} (1)" for mean in means]
    assert found["with"] != found["without"]
    assert found["over"] == "ladder 0.1"


def test_one_seed_is_not_called_no_difference():
    gain = paired([31.0], [30.0])
    entries = [Entry("x", "one seed", "study", "", "dB", [30.0], [31.0], gain, None)]
    verdicts, _ = atlas_table(entries)
    assert verdicts == [UNTESTED]
    text = atlas.describe_verdicts(entries, verdicts, 1)
    assert "0 show no difference" in text and "1 could not be tested" in text


@pytest.mark.parametrize(
    "words", [["--seeds", "1"], ["--fixed", "width=8"], ["--cluster", "slurm", "--time", "1:00:00"]]
)
def test_flags_that_change_a_study_are_refused(words, capsys):
    write_all()
    with pytest.raises(SystemExit):
        sweep.parse(["atlas.yml", *words])
    error = capsys.readouterr().err
    assert f"{words[0]}: atlas.yml is an atlas of several studies" in error
    assert error.count("\n") == 1


def test_the_hours_of_all_studies_are_said_before_anything_is_trained(monkeypatch, capsys):
    write_all()
    monkeypatch.setattr(costs, "time_run", lambda *_: 60.0)
    call(sweep, "atlas.yml", "--dry_run")
    found = [sweep.build_plan(sweep.parse([f"{name}.yml"]))[0] for name in ("classes", "images")]
    count = sum(len(study.runs) for study in found)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    expected = f"{count} runs, {count} not done; about {count / 60:.1f} hours of work"
    assert last == f"2 of 2 studies: {expected}"
    assert not Path("results/sweeps/atlas").exists()


@pytest.mark.parametrize("tiny", [False, True])
def test_the_ready_atlas_names_settings_that_its_studies_plan(tiny):
    path = Path(__file__).parents[2] / "studies" / "atlas.yml"
    text = yaml.safe_load(path.read_text())
    for part in parts_of(text, path, tiny):
        text_of_part = json.dumps(part.text)
        study, _ = sweep.build_plan(
            sweep.parse([str(part.path), "--name", part.name, *["--tiny"] * tiny])
        )
        assert part.rows and text_of_part
        for row in part.rows:
            for where in filter(None, (row.where, row.over)):
                found = {
                    json.dumps(run.setting)
                    for run in study.with_role(*atlas.COMPARED)
                    if all(run.setting.get(name) == value for name, value in where.items())
                }
                assert len(found) == 1, (part.name, where, found)
