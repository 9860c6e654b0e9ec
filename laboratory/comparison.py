"""Comparison of labels by which students are adapted to recordings, from the scores of their runs.

A cell is a campaign: a kind of scenes, its light, the number of its frames. All differences are of
students with the same recording, seed by seed.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.registry import CANDIDATES, LABELS
from report.statistics import LEVEL, Summary, first_of_best, holm, paired, summarize
from report.tables import format_p

ORACLE = "oracle"
WITHIN = 0.05  # dB: choices that are as good as the best one
HARMFUL = 0.03  # dB below the student that is not adapted
ALPHA = 0.01  # of a difference from a rival
MOST_COLUMNS = 10  # settings that stand side by side in a table or in a figure

Cell = tuple[tuple[str, object], ...]  # names and values


@dataclass(frozen=True)
class AdaptedRun:
    """The score of an adapted student on recorded test frames, and that of the student before."""

    cell: Cell
    column: str  # the setting without the cell
    labels: str  # of --labels
    seed: int
    score: float  # dB
    alone: float  # of the student that is not adapted
    held_out: tuple[float, ...] = ()  # squared errors of held-out frames, whose truth is not known

    @property
    def gain(self) -> float:
        return self.score - self.alone

    @property
    def has_teacher(self) -> bool:
        return self.labels in LABELS and LABELS[self.labels].has_teacher

    @property
    def is_rival(self) -> bool:
        """Whether it needs neither a teacher nor the truth."""
        return self.labels in LABELS and LABELS[self.labels].target in (None, "raw")


@dataclass(frozen=True)
class Column:
    """The runs of one setting in one cell, by seed."""

    runs: dict[int, AdaptedRun] = field(default_factory=dict)

    @property
    def first(self) -> AdaptedRun:
        return next(iter(self.runs.values()))

    @property
    def gain(self) -> Summary:
        """Over the student that is not adapted."""
        runs = self.runs.values()
        return paired([run.score for run in runs], [run.alone for run in runs])

    @property
    def mean(self) -> float:
        return statistics.mean(run.score for run in self.runs.values())

    def minus(self, other: "Column") -> Summary | None:
        """The difference of their scores over the seeds that both have."""
        seeds = [seed for seed in self.runs if seed in other.runs]
        if not seeds:
            return None
        ours, theirs = ([one.runs[seed].score for seed in seeds] for one in (self, other))
        return paired(ours, theirs)

    def gap_closed(self, oracle: "Column") -> Summary | None:
        """(score - not adapted) / (oracle - not adapted) in per cent, the mean over the seeds.

        None where the oracle is hardly better than the student that is not adapted.
        """
        pairs = [(run, oracle.runs[seed]) for seed, run in self.runs.items() if seed in oracle.runs]
        if not pairs or min(best.gain for _, best in pairs) < WITHIN:
            return None
        return summarize([100 * run.gain / best.gain for run, best in pairs])


Table = dict[Cell, dict[str, Column]]


def arrange(runs: Iterable[AdaptedRun]) -> Table:
    """Runs by cell and setting."""
    table: Table = {}
    for run in runs:
        columns = table.setdefault(run.cell, {})
        columns.setdefault(run.column, Column()).runs[run.seed] = run
    return table


def cells_of(cell: Cell) -> dict:
    """The first columns of a row."""
    return {name: "none" if value is None else value for name, value in cell}


def format_short(summary: Summary | None, decimals: int = 2) -> str:
    """A mean and half of its 95 % interval, or neither."""
    if summary is None:
        return ""
    if summary.n < 2:
        return "one seed"
    return f"{summary.mean:+.{decimals}f} ± {summary.high - summary.mean:.{decimals}f}"


# ---------------------------------------------------------------- tables


def settings_of(table: Table) -> list[str]:
    return list(dict.fromkeys(name for columns in table.values() for name in columns))


def gains_table(table: Table) -> list[dict]:
    """A row a cell, a column a setting: the gain over the student that is not adapted.

    Where there are many settings, they are the rows.
    """
    rows = []
    if len(settings_of(table)) > MOST_COLUMNS:
        for setting in settings_of(table):
            row = {"setting": setting}
            for cell, columns in table.items():
                if setting in columns:
                    row[describe_cell(cell)] = format_short(columns[setting].gain)
            rows.append(row)
        return rows
    for cell, columns in table.items():
        alone = statistics.mean(run.alone for run in next(iter(columns.values())).runs.values())
        row = cells_of(cell) | {"not adapted (dB)": round(alone, 2)}
        rows.append(row | {name: format_short(column.gain) for name, column in columns.items()})
    return rows


def gap_table(table: Table) -> list[dict]:
    """A row a cell, a column a setting: the share of the gap to the oracle that is closed."""
    rows, by_setting = [], {}
    for cell, columns in table.items():
        oracle = columns.get(ORACLE) or oracle_of(columns)
        if oracle is None:
            continue
        shares = {
            name: format_short(column.gap_closed(oracle), 0)
            for name, column in columns.items()
            if column is not oracle
        }
        if len(settings_of(table)) > MOST_COLUMNS:
            for name, share in shares.items():
                by_setting.setdefault(name, {"setting": name})[describe_cell(cell)] = share
        else:
            rows.append(cells_of(cell) | {"oracle (dB)": round(oracle.mean, 2)} | shares)
    return rows or list(by_setting.values())


def oracle_of(columns: dict[str, Column]) -> Column | None:
    """The best of the settings that learn from the truth."""
    found = [column for column in columns.values() if column.first.labels == ORACLE]
    return max(found, key=lambda column: column.mean, default=None)


@dataclass(frozen=True)
class RivalDifference:
    """A setting with a teacher against the best of those without one, in one cell."""

    cell: Cell
    name: str
    rival: str
    difference: Summary

    @property
    def is_behind(self) -> bool:
        return self.difference.mean < -WITHIN


def compare_with_rivals(table: Table) -> list[RivalDifference]:
    """Every setting with a teacher against the rival that has the best test score: the hardest."""
    differences = []
    for cell, columns in table.items():
        rivals = {name: column for name, column in columns.items() if column.first.is_rival}
        if not rivals:
            continue
        rival = max(rivals, key=lambda name: rivals[name].mean)
        for name, column in columns.items():
            difference = column.minus(rivals[rival]) if column.first.has_teacher else None
            if difference is not None:
                differences.append(RivalDifference(cell, name, rival, difference))
    return differences


def rivals_table(differences: list[RivalDifference]) -> list[dict]:
    corrected = holm([one.difference.p for one in differences])
    return [
        cells_of(one.cell)
        | {
            "setting": one.name,
            "best rival": one.rival,
            "difference (dB)": format_short(one.difference, 3),
            "p (t)": format_p(one.difference.p),
            "p (Holm)": format_p(p),
        }
        for one, p in zip(differences, corrected, strict=True)
    ]


# ---------------------------------------------------------------- validation without truth


@dataclass(frozen=True)
class Choice:
    """What held-out frames choose in one cell with one seed, and what the truth would choose."""

    cell: Cell
    seed: int
    chosen: AdaptedRun
    best: AdaptedRun
    candidates: tuple[str, ...]  # their labels

    @property
    def loss(self) -> float:
        """dB of the choice below the best one, which may be the student that is not adapted."""
        return max(self.best.score, self.best.alone) - self.chosen.score


def choices_of(table: Table) -> list[Choice]:
    """The choices of --labels best among the runs of a study.

    Every run began with the student that is not adapted as the candidate of its epoch 0.
    """
    choices = []
    for cell, columns in table.items():
        every = [run for column in columns.values() for run in column.runs.values()]
        candidates = [run for run in every if run.labels in CANDIDATES]
        for seed in sorted({run.seed for run in candidates}):
            ours = [run for run in candidates if run.seed == seed]
            if len(ours) < 2 or not all(run.held_out for run in ours):
                continue
            ours.sort(key=lambda run: CANDIDATES.index(run.labels))
            errors = [run.held_out for run in ours]
            chosen = ours[first_of_best([run.labels for run in ours], errors)]
            best = max(ours, key=lambda run: run.score)
            choices.append(Choice(cell, seed, chosen, best, tuple(run.labels for run in ours)))
    return choices


def choices_table(choices: list[Choice]) -> list[dict]:
    """A row for each cell and seed."""
    return [
        cells_of(choice.cell)
        | {
            "seed": choice.seed,
            "chosen without truth": choice.chosen.column,
            "best by the truth": choice.best.column,
            "below the best (dB)": round(choice.loss, 3),
            "chosen - not adapted (dB)": round(choice.chosen.gain, 3),
        }
        for choice in choices
    ]


# ---------------------------------------------------------------- words


def write_comparison(table: Table) -> str:
    """The answer in sentences."""
    differences, choices = compare_with_rivals(table), choices_of(table)
    parts = [gain_sentences(table), rival_sentence(differences), choice_sentence(choices)]
    return " ".join(filter(None, parts))


def main_column(table: Table) -> str | None:
    """The setting that the answer is about: labels both, or else the first one with a teacher."""
    firsts = {name: one.first for columns in table.values() for name, one in columns.items()}
    taught = [name for name, first in firsts.items() if first.has_teacher]
    both = [name for name in taught if firsts[name].labels == "both"]
    return next(iter(both + taught), None)


def describe_cell(cell: Cell) -> str:
    return ", ".join(f"{name} {value}" for name, value in cells_of(cell).items()) or "the campaign"


def gain_sentences(table: Table) -> str:
    name = main_column(table)
    if name is None:
        return "No student that learns from a teacher is done yet."
    ours = [(cell, columns[name]) for cell, columns in table.items() if name in columns]
    tested = [(cell, column) for cell, column in ours if column.gain.n > 1]
    if not tested:
        return f"No gain of {name} has an interval: that needs at least two seeds."
    helps = sum(column.gain.low > 0 for _, column in tested)
    harms = sum(column.gain.high < 0 for _, column in tested)
    sentence = (
        f"Of {len(tested)} cells, **{name} helps in {helps} and harms in {harms}** against the "
        f"same student that is not adapted ({LEVEL:.0%} intervals over the seeds, not corrected)."
    )
    ranked = sorted(tested, key=lambda pair: pair[1].gain.mean)
    words = {"largest": ranked[-1], "smallest": ranked[0]} if len(ranked) > 1 else {}
    for word, (cell, column) in words.items():
        sentence += f" The {word} gain is {column.gain} dB ({describe_cell(cell)})."
    oracles = [(column, oracle_of(table[cell])) for cell, column in tested]
    gaps = [column.gap_closed(oracle) for column, oracle in oracles if oracle is not None]
    shares = sorted(gap.mean for gap in gaps if gap is not None)
    if shares:
        sentence += (
            f" Of the gap to a student that learns from the truth it closes "
            f"{statistics.median(shares):.0f} % in the median cell ({shares[0]:.0f} to "
            f"{shares[-1]:.0f} % in {len(shares)} cells)."
        )
    return sentence


def rival_sentence(differences: list[RivalDifference]) -> str:
    names = list(dict.fromkeys(one.name for one in differences))
    name = next((name for name in names if "both" in name), names[0] if names else None)
    ours = [one for one in differences if one.name == name]
    if not ours:
        return ""
    ahead = [one for one in ours if one.difference.mean > 0 and one.difference.p < ALPHA]
    behind = [one for one in ours if one.is_behind]
    sentence = (
        f"Against the best rival without a teacher it is ahead in {len(ahead)} of {len(ours)} "
        f"cells with p < {ALPHA}, and more than {WITHIN} dB behind in {len(behind)}."
    )
    if behind:
        worst = min(behind, key=lambda one: one.difference.mean)
        sentence += (
            f" The worst cell is {describe_cell(worst.cell)}: {worst.difference} dB from "
            f"{worst.rival}."
        )
    return sentence


def choice_sentence(choices: list[Choice]) -> str:
    if not choices:
        return ""
    close = sum(choice.loss <= WITHIN for choice in choices)
    harmed = [choice for choice in choices if choice.chosen.gain < -HARMFUL]
    names = [name for name in CANDIDATES if any(name in choice.candidates for choice in choices)]
    sentence = (
        f"Validation without truth, among {', '.join(names)} and the student as it was, "
        f"chooses within {WITHIN} dB of what the truth would choose in {close} of {len(choices)} "
        f"campaigns (the worst: {max(choice.loss for choice in choices):.2f} dB)"
    )
    if not harmed:
        return f"{sentence}, and never a student more than {HARMFUL} dB worse than before."
    worst = min(harmed, key=lambda choice: choice.chosen.gain)
    return (
        f"{sentence}, and **in {len(harmed)} a student more than {HARMFUL} dB worse than before** "
        f"(by {-worst.chosen.gain:.2f} dB: {describe_cell(worst.cell)}, seed {worst.seed})."
    )
