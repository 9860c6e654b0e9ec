"""What a study found: the scores of its runs, and of every setting what can be said against the student alone."""

import json
import math
import statistics

import numpy as np

from core.files import significant
from report.statistics import Said, gap_closed, holm, paired, summary, verdict
from study.planning import Planned, Study, group_of, label
from study.workers import is_done, read_scores, run_folder, score_of, status_of

UNITS = {"psnr": "dB", "top1": "points"}
NAMES = {"psnr": "PSNR", "top1": "top-1"}


class Findings:
    """The scores of all runs that are done, image by image."""

    def __init__(self, study: Study):
        self.study = study
        self.done = {key: run for key, run in study.runs.items() if is_done(study, key)}
        self.scores = {key: read_scores(study.folder / key / "scores.csv") for key in self.done}
        self.status = {key: status_of(study, key) for key in self.done}
        first = next(iter(self.scores.values()), [{}])[0]
        self.metric = score_of(first)
        self.unit, self.name = UNITS[self.metric], NAMES[self.metric]
        self.varied = list(
            dict.fromkeys(name for run in self.done.values() for name in run.setting)
        )

    def called(self, what: str, setting: dict) -> dict:
        """The beginning of a row among others: what it is, and all that varies in the study."""
        setting = shown(setting)
        return {"": what} | {name: setting.get(name) for name in self.varied}

    def first(self, rows: list[dict]) -> list[dict]:
        """Rows whose settings stand in one first column, beside which what was found has room."""
        if not self.varied:
            return rows
        joined = []
        for row in rows:
            words = [
                f"{name} {label(row[name])}" for name in self.varied if row.get(name) is not None
            ]
            words = ([row[""]] if row.get("") else []) + words
            rest = {name: value for name, value in row.items() if name not in ("", *self.varied)}
            joined.append({"setting": ", ".join(words)} | rest)
        return joined

    def images(self, key: str, name: str | None = None) -> np.ndarray:
        """A score of every test image."""
        return np.array([row[name or self.metric] for row in self.scores[key]])

    def mean(self, key: str, name: str | None = None) -> float:
        return float(self.images(key, name).mean())

    def groups(self, *roles: str) -> dict[str, list[Planned]]:
        """Runs that are done, by what they are but for their seed."""
        found: dict[str, list[Planned]] = {}
        for run in self.done.values():
            if run.role in roles:
                found.setdefault(group_of(run), []).append(run)
        return found

    def pairs(self, runs: list[Planned]) -> list[tuple[str, str]]:
        """Runs and the same students alone, as far as both are done."""
        return [(run.key, run.alone) for run in runs if run.alone in self.done]

    def gain(self, runs: list[Planned]) -> Said | None:
        """The gain over the student alone, seed by seed; none where there are no pairs."""
        pairs = self.pairs(runs)
        return (
            paired(*zip(*((self.mean(a), self.mean(b)) for a, b in pairs), strict=True))
            if pairs
            else None
        )

    def gain_by_image(self, runs: list[Planned]) -> Said | None:
        """The gain over the student alone, image by image, each the mean over the seeds."""
        pairs = self.pairs(runs)
        if not pairs:
            return None
        ours, alone = (np.mean([self.images(pair[k]) for pair in pairs], axis=0) for k in (0, 1))
        return paired(ours, alone, "wilcoxon")

    def validation(self, runs: list[Planned]) -> float:
        """The mean of the best scores on validation, by which a setting may be chosen."""
        rows = [
            json.loads((run_folder(self.study, run.key) / "metrics.json").read_text())
            for run in runs
        ]
        return statistics.mean(max(row[f"val_{self.metric}"] for row in some) for some in rows)


def shown(setting: dict) -> dict:
    return {
        name: value
        if isinstance(value, int | float) and not isinstance(value, bool)
        else label(value)
        for name, value in setting.items()
    }


def spread(values: list[float]) -> str:
    """Mean ± standard deviation (n)."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation} ({len(values)})"


def probability(p: float) -> str:
    return "" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def twins(found: Findings) -> list[str]:
    """Settings that computed the same to the last digit, as two words for one thing do."""
    alike: dict[tuple, list[str]] = {}
    for runs in found.groups("distilled").values():
        scores = tuple(sorted((run.seed, found.mean(run.key)) for run in runs))
        alike.setdefault(scores, []).append(
            " ".join(label(value) for value in runs[0].setting.values())
        )
    return [" = ".join(names) for names in alike.values() if len(names) > 1]


def settings(found: Findings) -> list[dict]:
    """A row a setting: its score, its gains with their intervals, and what may be taken from them."""
    groups = list(found.groups("distilled").values())
    gains = [found.gain(runs) for runs in groups]
    corrected = holm([gain.p if gain else math.nan for gain in gains])
    rows = []
    for runs, gain, p in zip(groups, gains, corrected, strict=True):
        by_seed = f"gain, by seed ({found.unit})"
        row = shown(runs[0].setting) | {by_seed: None, "said": None}  # what is read comes first
        row[found.name] = spread([found.mean(run.key) for run in runs])
        if gain is not None:
            by_image = found.gain_by_image(runs)
            alone = statistics.mean(found.mean(b) for _, b in found.pairs(runs))
            row |= {
                by_seed: str(gain),
                "said": verdict(gain, p),
                "p (t)": probability(gain.p),
                "p (Holm)": probability(p),
                f"gain, by image ({found.unit})": str(by_image),
                "p (Wilcoxon)": probability(by_image.p),
            }
            if runs[0].teacher in found.done and gain.n > 1:
                share, low, high = gap_closed(gain, alone, found.mean(runs[0].teacher))
                row["gap closed (%)"] = (
                    f"{share:+.1f} [{low:+.1f}, {high:+.1f}]"
                    if not math.isnan(share)
                    else "the teacher is not better"
                )
        rows.append(row)
    return rows


def numbers(found: Findings) -> list[dict]:
    """The same as numbers, for whoever counts on."""
    rows = []
    for runs in found.groups("distilled", "shuffled", "trained", "alone", "teacher").values():
        said = summary([found.mean(run.key) for run in runs])
        row = found.called(runs[0].role, runs[0].setting) | {
            found.metric: said.mean,
            "std": said.std,
            "n": said.n,
        }
        gain = found.gain(runs)
        rows.append(
            row
            | (
                {}
                if gain is None
                else {"gain": gain.mean, "low": gain.low, "high": gain.high, "p": gain.p}
            )
        )
    return rows


def controls(found: Findings) -> list[dict]:
    """A row a setting that has a shuffled teacher beside it: what is left of the gain, and what the teacher's knowledge adds."""
    rows, distilled = (
        [],
        {
            json.dumps(runs[0].setting, default=str): runs
            for runs in found.groups("distilled").values()
        },
    )
    for runs in found.groups("shuffled").values():
        right = {
            run.seed: run.key for run in distilled.get(json.dumps(runs[0].setting, default=str), [])
        }
        both = [(right[run.seed], run.key) for run in runs if run.seed in right]
        gain = found.gain(runs)
        row = shown(runs[0].setting)
        if gain is not None:
            row[f"shuffled - alone ({found.unit})"] = str(gain)
        if both:
            row[f"distilled - shuffled ({found.unit})"] = str(
                paired(*zip(*((found.mean(a), found.mean(b)) for a, b in both), strict=True))
            )
        row[f"shuffled, {found.name}"] = spread([found.mean(run.key) for run in runs])
        rows.append(row)
    return rows


def references(found: Findings) -> list[dict]:
    """Teachers, students alone, and first images that need no training."""
    rows = []
    for runs in found.groups("teacher", "alone", "trained").values():
        other = (
            {"SSIM": spread([found.mean(run.key, "ssim") for run in runs])}
            if found.metric == "psnr"
            else {}
        )
        row = (
            found.called(runs[0].role, runs[0].setting)
            | {found.name: spread([found.mean(run.key) for run in runs])}
            | other
        )
        for run in runs:
            for name in found.status[run.key].get("anchors", []):
                scores = read_scores(found.study.folder / run.key / f"anchor_{name}.csv")
                means = {
                    title: f"{statistics.mean(one[score] for one in scores):.3f}"
                    for title, score in (("PSNR", "psnr"), ("SSIM", "ssim"))
                }
                rows.append(found.called(name, run.setting) | means)
        rows.append(row | {"parameters": found.status[runs[0].key]["parameters"]})
    return rows


def ledger(found: Findings) -> list[dict]:
    """Where the error lies: in what was measured or outside of it, and by how much of the whole error of the student alone each changed."""
    rows, parted = [], {key for key, scores in found.scores.items() if "measured" in scores[0]}
    for run in found.done.values():
        for name in found.status[run.key].get("anchors", []) if run.key in parted else []:
            scores = read_scores(found.study.folder / run.key / f"anchor_{name}.csv")
            parts = {
                part: statistics.mean(row[part] for row in scores)
                for part in ("measured", "unmeasured")
            }
            rows.append(found.called(name, run.setting) | told_parts(parts))
    for runs in found.groups("alone", "distilled", "shuffled").values():
        if runs[0].key not in parted:
            continue
        parts = {
            part: statistics.mean(found.mean(run.key, part) for run in runs)
            for part in ("measured", "unmeasured")
        }
        row = found.called(runs[0].role, runs[0].setting) | told_parts(parts)
        for part in parts:
            changes = [
                100 * (found.mean(a, part) - found.mean(b, part)) / found.mean(b, "mse")
                for a, b in found.pairs(runs)
            ]
            if changes:
                row[f"change of {part} (% of alone)"] = str(summary(changes))
        rows.append(row)
    return rows


def told_parts(parts: dict[str, float]) -> dict:
    whole = sum(parts.values())
    return {f"{name} (1e-4)": significant(1e4 * value, 4) for name, value in parts.items()} | {
        "unmeasured (%)": round(100 * parts["unmeasured"] / whole, 1)
    }


def costs(found: Findings) -> list[dict]:
    """Parameters, and the seconds that a run took."""
    rows = []
    for runs in found.groups("teacher", "alone", "distilled", "shuffled", "trained").values():
        seconds = [found.status[run.key]["seconds"] for run in runs]
        about = {
            "parameters": found.status[runs[0].key]["parameters"],
            "runs": len(runs),
            "seconds each": round(statistics.mean(seconds), 1),
        }
        rows.append(
            found.called(runs[0].role, runs[0].setting) | about | {"all": round(sum(seconds), 1)}
        )
    return rows


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


def of(run: Planned) -> str:
    """A setting in brackets, where there are several."""
    return (
        f" ({', '.join(f'{name} {label(value)}' for name, value in run.setting.items())})"
        if run.setting
        else ""
    )


def answer(found: Findings) -> str:
    """The study's answer in sentences."""
    groups = list(found.groups("distilled").values())
    rows = settings(found)
    if not groups and found.study.of("distilled"):
        return f"None of the {len(found.study.of('distilled'))} runs of students with a teacher is done yet."
    if not groups:
        return (
            f"{len(found.done)} runs; nothing is distilled here, so there is no gain to speak of."
        )
    said = [row["said"] or "not tested" for row in rows]
    if set(said) == {"not tested"}:
        text = f"{plural(len(groups), 'setting')}, none of them tested: nothing can be said without the gains of two seeds that differ."
        return text + beaten(found) + outgrown(found)
    counts = {word: said.count(word) for word in ("helps", "harms", "not told apart", "not tested")}
    seeds = len({run.seed for runs in groups for run in runs})
    text = (
        f"Of {plural(len(groups), 'setting')} **{counts['helps']} help, {counts['harms']} harm, and {counts['not told single_process']} "
        f"cannot be told apart** from the student alone (paired t over {plural(seeds, 'seed')}, Holm's correction over all settings, level 5 %)."
    )
    text += f" {counts['not tested']} were not tested." if counts["not tested"] else ""
    gains = [(found.gain(runs), runs) for runs in groups]
    gains = [(gain, runs) for gain, runs in gains if gain is not None and gain.n > 1]
    for word, choose in (
        (("largest", max), ("smallest", min)) if len(gains) > 1 else (("only", max),)
    ):
        if gains:
            gain, runs = choose(gains, key=lambda pair: pair[0].mean)
            text += f" The {word} gain is {gain} {found.unit}{of(runs[0])}."
    text += (
        " The largest of several is larger by being chosen than it would be again."
        if len(gains) > 1
        else ""
    )
    survived = [found.gain(runs) for runs in found.groups("shuffled").values()]
    survived = [gain for gain in survived if gain is not None and gain.n > 1]
    if survived:
        most = max(survived, key=lambda gain: gain.mean)
        text += f" The largest gain by a shuffled teacher is {most} {found.unit}: what survives shuffling is no knowledge."
    return text + beaten(found) + outgrown(found)


def beaten(found: Findings) -> str:
    """A warning, where a student alone is worse than a first image that needs no training."""
    for runs in found.groups("alone").values():
        score = statistics.mean(found.mean(run.key) for run in runs)
        for run in runs:
            baselines: dict[str, list[float]] = {}
            for name in found.status[run.key].get(
                "anchors", []
            ):  # of every camera of a mixture, as the student's score is
                rows = read_scores(found.study.folder / run.key / f"anchor_{name}.csv")
                baselines.setdefault(name.partition(",")[0], []).append(
                    statistics.mean(row["psnr"] for row in rows)
                )
            for name, means in baselines.items():
                other = statistics.mean(means)
                if other > score:
                    where = "".join(f", {k} {label(v)}" for k, v in run.setting.items())
                    return f" **Mind the budget**: {name} gives {other:.2f} dB without any training, the student alone {score:.2f} dB{where}."
    return ""


def outgrown(found: Findings) -> str:
    """A warning, where a teacher is no better than a student alone."""
    for runs in found.groups("distilled").values():
        pairs = found.pairs(runs)
        if pairs and runs[0].teacher in found.done:
            alone, teacher = (
                statistics.mean(found.mean(b) for _, b in pairs),
                found.mean(runs[0].teacher),
            )
            if teacher <= alone:
                return f" **Mind the teacher**: it scores {teacher:.2f} {found.unit}, the student alone {alone:.2f}{of(runs[0])}."
    return ""
