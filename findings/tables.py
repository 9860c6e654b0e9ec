"""The tables of a study's report."""

import json
import math
import statistics

from core.files import significant
from findings.results import WITH_GAIN, Results, setting_cells
from report.statistics import (
    HARMS,
    HELPS,
    UNCLEAR,
    Summary,
    detectable,
    gap_closed,
    holm,
    summarize,
    verdict,
)
from report.tables import format_p
from study.planning import TEACHER_THERE, PlannedRun

BETTER_OR_WORSE = (HELPS, HARMS)
PARTS = ("measured", "unmeasured")  # of an error
BEFORE = ("teacher", "student", TEACHER_THERE)  # roles of networks that were there before


def format_spread(values: list[float]) -> str:
    """Mean ± standard deviation (n)."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation} ({len(values)})"


def settings_table(results: Results) -> list[dict]:
    """A row a setting: its gains with their intervals, the verdict, and its score."""
    groups, adaptations = results.groups(*WITH_GAIN), results.adaptations()
    gains = [results.gain(runs) for runs in groups]
    corrected = holm([gain.p if gain else math.nan for gain in gains])
    tests = count_tested(corrected)
    by_seed, by_image = (f"gain, by {unit} ({results.unit})" for unit in ("seed", "image"))
    rows = []
    for runs, gain, p in zip(groups, gains, corrected, strict=True):
        row = setting_cells(runs[0].setting) | {by_seed: None, "verdict": None}  # come first
        row[results.name] = format_spread(results.means(runs))
        image_gain = results.gain_by_image(runs)
        if gain is not None and image_gain is not None:
            row |= {
                by_seed: str(gain),
                "verdict": verdict(gain, p),
                "p (t)": format_p(gain.p),
                "p (Holm)": format_p(p),
                f"could have seen ({results.unit})": format_detectable(gain, p, tests),
                by_image: str(image_gain),
                "p (Wilcoxon)": format_p(image_gain.p),
            }
            teacher = results.mean_teacher(runs)
            if teacher is not None and not adaptations and gain.n > 1:  # there it is the oracle
                gap = gap_closed(gain, results.mean_alone(runs), teacher)
                row["gap closed (%)"] = format_gap(*gap)
        rows.append(row)
    return rows


def count_tested(corrected: list[float]) -> int:
    """How many gains were tested: those that have a p-value."""
    return sum(not math.isnan(p) for p in corrected)


def format_detectable(gain: Summary, p: float, tests: int) -> str | None:
    """The smallest gain that one of these tests finds in four of five studies, if it found none."""
    seen = detectable(gain.std, gain.n, tests)
    return None if verdict(gain, p) != UNCLEAR or math.isnan(seen) else f"{seen:.3f}"


def format_gap(share: float, low: float, high: float) -> str:
    if math.isnan(share):
        return "the teacher is not better"
    return f"{share:+.1f} [{low:+.1f}, {high:+.1f}]"


def numbers_table(results: Results) -> list[dict]:
    """The same as numbers, for further calculations."""
    rows = []
    for runs in results.groups(*WITH_GAIN, "shuffled", "trained", "alone", *BEFORE):
        scores = summarize(results.means(runs))
        row = results.row_head(runs[0].role, runs[0].setting)
        row |= {results.metric: scores.mean, "std": scores.std, "seeds": scores.n}
        if (gain := results.gain(runs)) is not None:
            row |= {"gain": gain.mean, "low": gain.low, "high": gain.high, "p": gain.p}
        rows.append(row)
    return rows


def controls_table(results: Results) -> list[dict]:
    """A row a setting with a shuffled control: the gain that remains, and what is lost."""
    distilled = {setting_key(runs): runs for runs in results.groups(*WITH_GAIN)}
    rows = []
    for runs in results.groups("shuffled"):
        keys = {run.seed: run.key for run in distilled.get(setting_key(runs), [])}
        pairs = [(keys[run.seed], run.key) for run in runs if run.seed in keys]
        row = setting_cells(runs[0].setting)
        if (gain := results.gain(runs)) is not None:
            row[f"shuffled - alone ({results.unit})"] = str(gain)
        if (loss := results.difference(pairs)) is not None:
            row[f"distilled - shuffled ({results.unit})"] = str(loss)
        row[f"shuffled, {results.name}"] = format_spread(results.means(runs))
        rows.append(row)
    return rows


def setting_key(runs: list[PlannedRun]) -> str:
    return json.dumps(runs[0].setting, default=str)


def references_table(results: Results) -> list[dict]:
    """Teachers, students alone, and first images that need no training."""
    rows = []
    for runs in results.groups(*BEFORE, "alone", "trained"):
        row = results.row_head(runs[0].role, runs[0].setting)
        row[results.name] = format_spread(results.means(runs))
        if results.metric == "psnr":
            row["SSIM"] = format_spread(results.means(runs, "ssim"))
        for run in runs:
            for name, scores in results.baselines[run.key].items():
                means = {
                    title: f"{statistics.mean(image[score] for image in scores):.3f}"
                    for title, score in (("PSNR", "psnr"), ("SSIM", "ssim"))
                }
                rows.append(results.row_head(name, run.setting) | means)
        rows.append(row | {"parameters": results.status[runs[0].key]["parameters"]})
        for ratio in results.ratios(runs[0].key):
            row = results.row_head(f"{runs[0].role}, {ratio}", runs[0].setting)
            row["PSNR"] = format_spread(results.means(runs, f"psnr, {ratio}"))
            rows.append(row | {"SSIM": format_spread(results.means(runs, f"ssim, {ratio}"))})
    return rows


def error_decomposition_table(results: Results) -> list[dict]:
    """The error in what is measured and in the rest, and the change of each by distillation."""
    decomposed = {key for key, scores in results.scores.items() if PARTS[0] in scores[0]}
    rows = []
    for run in results.done.values():
        for name, scores in results.baselines[run.key].items() if run.key in decomposed else ():
            parts = {part: statistics.mean(image[part] for image in scores) for part in PARTS}
            rows.append(results.row_head(name, run.setting) | format_parts(parts))
    for runs in results.groups("alone", *WITH_GAIN, "shuffled"):
        if runs[0].key not in decomposed:
            continue
        parts = {part: statistics.mean(results.means(runs, part)) for part in PARTS}
        row = results.row_head(runs[0].role, runs[0].setting) | format_parts(parts)
        for part in PARTS:
            changes = [
                100 * (results.mean(a, part) - results.mean(b, part)) / results.mean(b, "mse")
                for a, b in results.pairs(runs)
            ]
            if changes:
                row[f"change of {part} (% of alone)"] = str(summarize(changes))
        rows.append(row)
    return rows


def format_parts(parts: dict[str, float]) -> dict:
    """The two parts of a mean squared error, and the share of the second."""
    cells = {f"{name} (1e-4)": significant(1e4 * value, 4) for name, value in parts.items()}
    share = 100 * parts["unmeasured"] / sum(parts.values())
    return cells | {"unmeasured (%)": round(share, 1)}


def costs_table(results: Results) -> list[dict]:
    """Parameters, and the seconds of a run."""
    rows = []
    for runs in results.groups("teacher", "student", "alone", *WITH_GAIN, "shuffled", "trained"):
        seconds = [results.status[run.key]["seconds"] for run in runs]
        cost = {
            "parameters": results.status[runs[0].key]["parameters"],
            "runs": len(runs),
            "seconds a run": round(statistics.mean(seconds), 1),
            "seconds in all": round(sum(seconds), 1),
        }
        rows.append(results.row_head(runs[0].role, runs[0].setting) | cost)
    return rows
