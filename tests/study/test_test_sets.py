"""Studies with a test set of their own, and networks for several ratios."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from test_scripts import call

import sweep
from core.errors import UserError
from findings import tables
from findings.results import Results
from study import planning

TEXT = {
    "script": "main_unet.py",
    "seeds": [0, 1],
    "test": {"dataset": "folder", "data_root": "scenes", "crop": "whole"},
    "fixed": {"dataset": "digits", "n": 32, "block": 16, "limit_train": 20, "limit_val": 4}
    | {"cr_range": [0.05, 0.5], "crs_expert": [0.1, 0.4], "epochs": 1},
    "grid": {"network": "unrolled", "stages": 2, "channels": 4},
}


def write_scenes(count=2):
    Path("scenes").mkdir(exist_ok=True)
    noise = np.random.default_rng(0)
    for k in range(count):
        array = noise.integers(0, 255, (32 + 16 * k, 48), dtype=np.uint8)
        Image.fromarray(array).save(f"scenes/{k}.png")


def results():
    text = yaml.safe_load(Path("scenes.yml").read_text())
    study, _ = planning.build_study(text, "scenes", Path("results"), sweep.load_script, {})
    return Results(study)


def test_every_ratio_is_scored_on_whole_scenes_beside_its_baselines():
    write_scenes()
    Path("scenes.yml").write_text(yaml.safe_dump(TEXT))
    call(sweep, "scenes.yml", "--jobs", "1")
    found = results()
    assert len(found.done) == 2 and all(len(rows) == 2 for rows in found.scores.values())
    key = next(iter(found.done))
    assert found.ratios(key) == ["cr 0.1", "cr 0.4"]
    each = [found.mean(key, f"psnr, {ratio}") for ratio in found.ratios(key)]
    assert found.mean(key) == pytest.approx(sum(each) / 2) and each[1] > each[0]
    rows = tables.references_table(found)
    names = [row[""] if "" in row else next(iter(row.values())) for row in rows]
    for name in ("back-projection", "LMMSE", "TV"):
        assert [n for n in names if n.startswith(name)] == [
            f"{name}, {ratio}" for ratio in found.ratios(key)
        ]
    assert names[-2:] == ["trained, cr 0.1", "trained, cr 0.4"]
    status = json.loads((found.study.folder / key / "status.json").read_text())
    assert status["test"] == TEXT["test"]
    other = TEXT | {"test": {"dataset": "digits"}}
    Path("scenes.yml").write_text(yaml.safe_dump(other))
    assert not results().done  # they were scored on other images


def test_a_test_set_is_described_by_its_data_alone():
    text = TEXT | {"test": {"cr": 0.5}}
    with pytest.raises(UserError, match="study: test cr: it has only dataset, data_root, crop"):
        planning.build_study(text, "s", Path("results"), sweep.load_script, {})


def test_a_missing_test_set_is_reported_before_the_training():
    Path("scenes.yml").write_text(yaml.safe_dump(TEXT | {"seeds": [0]}))
    with pytest.raises(UserError, match="--data_root scenes: no such folder"):
        call(sweep, "scenes.yml", "--jobs", "1")
    assert not list(Path("results/sweeps").rglob("best.pth"))
