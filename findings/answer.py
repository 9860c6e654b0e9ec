"""The answer of a study in sentences."""

import statistics

from findings.results import Results
from findings.tables import settings_table
from laboratory.comparison import write_comparison
from report.statistics import HARMS, HELPS, UNCLEAR, UNTESTED
from study.planning import ADAPTED, PlannedRun
from study.question import format_setting, format_value


def count_of(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def in_brackets(run: PlannedRun) -> str:
    """A setting in brackets, where there are several."""
    return f" ({format_setting(run.setting)})" if run.setting else ""


def write_answer(results: Results) -> str:
    """The verdicts, the extreme gains, the shuffled control, and warnings."""
    if results.study.with_role(ADAPTED):
        return " ".join([write_comparison(results.adaptations()), warn_of_baselines(results)])
    groups = results.groups("distilled")
    planned = len(results.study.with_role("distilled"))
    if not groups and planned:
        return f"None of the {planned} runs of students with a teacher is done yet."
    if not groups:
        return f"{len(results.done)} runs are done; none has a teacher, so no gain is reported."
    verdicts = [row["verdict"] or UNTESTED for row in settings_table(results)]
    warnings = [warn_of_baselines(results), warn_of_teachers(results)]
    if set(verdicts) == {UNTESTED}:
        answer = (
            f"None of {count_of(len(groups), 'setting')} could be tested: "
            "a test needs the gains of at least two seeds, and these gains must differ."
        )
        return " ".join(filter(None, [answer, *warnings]))
    seeds = len({run.seed for runs in groups for run in runs})
    parts = [
        verdict_sentence(verdicts, seeds),
        *gain_sentences(results, groups),
        shuffled_sentence(results),
        *warnings,
    ]
    return " ".join(filter(None, parts))


def verdict_sentence(verdicts: list[str], seeds: int) -> str:
    counts = {verdict: verdicts.count(verdict) for verdict in (HELPS, HARMS, UNCLEAR, UNTESTED)}
    sentence = (
        f"Of {count_of(len(verdicts), 'setting')}, **{counts[HELPS]} help, {counts[HARMS]} harm, "
        f"and {counts[UNCLEAR]} show no difference** from the student alone "
        f"(paired t test over {count_of(seeds, 'seed')}, "
        "Holm's correction over all settings, level 5 %)."
    )
    if counts[UNTESTED]:
        sentence += f" {count_of(counts[UNTESTED], 'setting')} could not be tested."
    return sentence


def gain_sentences(results: Results, groups: list[list[PlannedRun]]) -> list[str]:
    """The largest and the smallest gain."""
    gains = [(gain, runs) for runs in groups if (gain := results.gain(runs)) and gain.n > 1]
    if not gains:
        return []
    if len(gains) == 1:
        extremes = {"only": gains[0]}
    else:
        extremes = {
            "largest": max(gains, key=lambda pair: pair[0].mean),
            "smallest": min(gains, key=lambda pair: pair[0].mean),
        }
    sentences = [
        f"The {word} gain is {gain} {results.unit}{in_brackets(runs[0])}."
        for word, (gain, runs) in extremes.items()
    ]
    if len(gains) > 1:
        sentences.append(
            "The largest of several gains is biased upward, because it was selected: "
            "a repetition will tend to give less."
        )
    return sentences


def shuffled_sentence(results: Results) -> str:
    """The largest gain of a control."""
    gains = [results.gain(runs) for runs in results.groups("shuffled")]
    gains = [gain for gain in gains if gain is not None and gain.n > 1]
    if not gains:
        return ""
    largest = max(gains, key=lambda gain: gain.mean)
    return (
        f"The largest gain with a shuffled teacher is {largest} {results.unit}: "
        "a gain that survives shuffling is not the teacher's knowledge."
    )


def warn_of_baselines(results: Results) -> str:
    """A warning where a student alone is worse than a first image that needs no training."""
    for runs in results.groups("alone"):
        score = statistics.mean(results.means(runs))
        for run in runs:
            baselines: dict[str, list[float]] = {}
            for name, rows in results.baselines[run.key].items():
                # the mean over the ratios of a mixture, as the student's score is
                kind = name.partition(",")[0]
                psnr = statistics.mean(row["psnr"] for row in rows)
                baselines.setdefault(kind, []).append(psnr)
            for kind, values in baselines.items():
                if (baseline := statistics.mean(values)) > score:
                    setting = "".join(f", {k} {format_value(v)}" for k, v in run.setting.items())
                    return (
                        f"**Check the training budget**: {kind} reaches {baseline:.2f} dB without "
                        f"any training, the student alone {score:.2f} dB{setting}."
                    )
    return ""


def warn_of_teachers(results: Results) -> str:
    """A warning where a teacher is no better than a student alone."""
    for runs in results.groups("distilled"):
        teacher = results.mean_teacher(runs)
        if teacher is not None:
            alone = results.mean_alone(runs)
            if teacher <= alone:
                return (
                    f"**Check the teacher**: it reaches {teacher:.2f} "
                    f"{results.unit}, the student alone {alone:.2f}{in_brackets(runs[0])}."
                )
    return ""
