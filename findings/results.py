"""The scores of a study's runs, and the gain of every setting over the student alone."""

import json
import statistics

import numpy as np

from laboratory.comparison import AdaptedRun, Table, arrange
from report.statistics import Summary, paired
from study.planning import ADAPTED, RECORDING, PlannedRun, Study, seedless_key
from study.question import format_value
from study.status import (
    is_done,
    metric_of,
    read_baselines,
    read_held_out,
    read_scores,
    read_status,
    run_folder,
)

WITH_GAIN = ("distilled", ADAPTED)  # roles of runs whose gain over the student alone is asked for
UNITS = {"psnr": "dB", "top1": "points"}
NAMES = {"psnr": "PSNR", "top1": "top-1"}


class Results:
    """The scores of all runs that are done, image by image."""

    def __init__(self, study: Study):
        self.study = study
        self.done = {key: run for key, run in study.runs.items() if is_done(study, key)}
        scored = [key for key, run in self.done.items() if run.role != RECORDING]
        self.scores = {key: read_scores(study.folder / key / "scores.csv") for key in scored}
        self.status = {key: read_status(study, key) for key in self.done}
        self.baselines = {key: read_baselines(study, key) for key in self.done}
        first = next(iter(self.scores.values()), [{}])[0]
        self.metric = metric_of(first)
        self.unit, self.name = UNITS[self.metric], NAMES[self.metric]
        settings = [run.setting for run in self.done.values()]
        self.varied = list(dict.fromkeys(name for setting in settings for name in setting))

    def groups(self, *roles: str) -> list[list[PlannedRun]]:
        """Runs that are done, of one setting together; each teacher by itself."""
        groups: dict[str, list[PlannedRun]] = {}
        for run in self.done.values():
            if run.role in roles:
                group = run.key if run.role == "teacher" else seedless_key(run)
                groups.setdefault(group, []).append(run)
        return list(groups.values())

    # ---------------------------------------------------------------- scores

    def images(self, key: str, name: str | None = None) -> np.ndarray:
        """A score of every test image."""
        return np.array([row[name or self.metric] for row in self.scores[key]])

    def ratios(self, key: str) -> list[str]:
        """The ratios of a network for several, as its scores name them."""
        names = (name.partition(", ") for name in self.scores[key][0])
        found = [ratio for metric, _, ratio in names if metric == "psnr" and ratio]
        return sorted(found, key=lambda ratio: float(ratio.split()[1]))

    def mean(self, key: str, name: str | None = None) -> float:
        return float(self.images(key, name).mean())

    def means(self, runs: list[PlannedRun], name: str | None = None) -> list[float]:
        return [self.mean(run.key, name) for run in runs]

    def pairs(self, runs: list[PlannedRun]) -> list[tuple[str, str]]:
        """The keys of runs and of the same students alone, where both are done."""
        return [(run.key, run.alone) for run in runs if run.alone and run.alone in self.done]

    def mean_alone(self, runs: list[PlannedRun]) -> float:
        """The mean score of the same students alone."""
        return statistics.mean(self.mean(alone) for _, alone in self.pairs(runs))

    def best_teacher(self, run: PlannedRun) -> float | None:
        """The mean score of its teacher, of several of that with the best validation."""
        if not run.teachers or not self.done.keys() >= {*run.teachers}:
            return None
        return self.mean(max(run.teachers, key=lambda key: self.validation([self.done[key]])))

    def mean_teacher(self, runs: list[PlannedRun]) -> float | None:
        """The mean score of the teachers of runs whose students alone are done."""
        paired = {key for key, _ in self.pairs(runs)}
        scores = [self.best_teacher(run) for run in runs if run.key in paired]
        known = [score for score in scores if score is not None]
        return statistics.mean(known) if known and len(known) == len(scores) else None

    def gain(self, runs: list[PlannedRun]) -> Summary | None:
        """The gain over the student alone, seed by seed; none without pairs."""
        return self.difference(self.pairs(runs))

    def difference(self, pairs: list[tuple[str, str]]) -> Summary | None:
        """The difference of the mean scores of pairs of runs."""
        if not pairs:
            return None
        first, second = ([self.mean(pair[k]) for pair in pairs] for k in (0, 1))
        return paired(first, second)

    def gain_by_image(self, runs: list[PlannedRun]) -> Summary | None:
        """The gain over the student alone, image by image, each the mean over the seeds."""
        pairs = self.pairs(runs)
        if not pairs:
            return None
        own, alone = (np.mean([self.images(pair[k]) for pair in pairs], axis=0) for k in (0, 1))
        return paired(own, alone, "wilcoxon")

    def adaptations(self) -> Table:
        """The students that were adapted to recordings, by cell and by setting."""
        runs = []
        for run in self.study.with_role(ADAPTED):
            if run.key in self.done and run.alone in self.done:
                cell, rest = self.split_setting([run])
                words = [
                    format_value(value) if name == "labels" else f"{name} {format_value(value)}"
                    for name, value in rest.items()
                ]
                runs.append(
                    AdaptedRun(
                        cell=tuple(cell.items()),
                        column=", ".join(words) or ADAPTED,
                        labels=str(run.flags.get("labels", "both")),
                        seed=run.seed,
                        score=self.mean(run.key),
                        alone=self.mean(run.alone),
                        held_out=read_held_out(self.study, run.key),
                    )
                )
        return arrange(runs)

    def metrics(self, run: PlannedRun) -> list[dict]:
        """A row for each epoch."""
        return json.loads((run_folder(self.study, run.key) / "metrics.json").read_text())

    def validation(self, runs: list[PlannedRun]) -> float:
        """The mean of the best scores on validation, by which a setting may be selected."""
        column = f"val_{self.metric}"
        return statistics.mean(max(row[column] for row in self.metrics(run)) for run in runs)

    # ---------------------------------------------------------------- rows

    def row_head(self, name: str, setting: dict) -> dict:
        """The first columns of a row: what it is, and all that varies in the study."""
        cells = setting_cells(setting)
        return {"": name} | {flag: cells.get(flag) for flag in self.varied}

    def join_settings(self, rows: list[dict]) -> list[dict]:
        """Rows with one first column for the whole setting, which leaves room for the results."""
        if not self.varied:
            return rows
        joined = []
        for row in rows:
            words = [row[""]] if row.get("") else []
            for name in self.varied:
                if row.get(name) is not None:
                    words.append(f"{name} {format_value(row[name])}")
            rest = {name: value for name, value in row.items() if name not in ("", *self.varied)}
            joined.append({"setting": ", ".join(words)} | rest)
        return joined

    # ---------------------------------------------------------------- settings

    def split_setting(self, runs: list[PlannedRun]) -> tuple[dict, dict]:
        """The part of a setting that the student alone has too, and the rest."""
        setting, alone = runs[0].setting, runs[0].alone
        shared = self.study.runs[alone].setting if alone else {}
        return shared, {name: value for name, value in setting.items() if name not in shared}

    def identical_settings(self) -> list[str]:
        """Settings with the same scores to the last digit, as two names of one loss have."""
        names: dict[tuple, list[str]] = {}
        for runs in self.groups(*WITH_GAIN):
            scores = tuple(sorted((run.seed, self.mean(run.key)) for run in runs))
            name = " ".join(map(format_value, runs[0].setting.values()))
            names.setdefault(scores, []).append(name)
        return [" = ".join(group) for group in names.values() if len(group) > 1]


def setting_cells(setting: dict) -> dict:
    """A setting as cells of a table: numbers as they are, all else as text."""
    return {
        name: value
        if isinstance(value, int | float) and not isinstance(value, bool)
        else format_value(value)
        for name, value in setting.items()
    }


def drop_empty_columns(rows: list[dict]) -> list[dict]:
    """Rows without the columns in which there is no value."""
    filled = {name for row in rows for name, value in row.items() if value is not None}
    return [{name: value for name, value in row.items() if name in filled} for row in rows]
