"""Which runs a command line means, and their rows in a table."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from core.errors import UserError
from core.files import is_locked
from core.runs import SEEDS, RunRecord, differences, runs_of

MANY = 6  # flags in a table, unless others are asked for
FIRST = (  # flags that come before others
    "network", "dataset", "n", "cr", "ordering", "photons", "noise", "physics", "type_dist",
    "loss_distill", "labels", "width", "features", "consistency", "lr", "steps", "epochs",
)  # fmt: skip
SCORES = ("val_psnr", "val_ssim", "val_top1", "val_recorded_error")


def find_runs(results: str, words: list[str]) -> list[RunRecord]:
    """The runs that words name: by folder, name, or the beginning or end of a name."""
    everything = runs_of(results)
    if not everything:
        raise UserError(f"{results} holds no run")
    return [find_run(everything, word, results) for word in words]


def find_run(everything: list[RunRecord], word: str, results: str) -> RunRecord:
    """One run; its whole name goes before parts of other names."""
    exact = [run for run in everything if word in (run.name, str(run.folder))]
    name = Path(word).name
    parts = [run for run in everything if run.name.startswith(name) or run.name.endswith(name)]
    found = exact or parts
    if len(found) == 1:
        return found[0]
    if not found:
        listed = ", ".join(run.name for run in everything[:8])
        raise UserError(f"{results} holds no run '{word}': it has {listed}")
    listed = ", ".join(str(run.folder) for run in found)
    raise UserError(f"'{word}' may be any of {listed}")


def state_of(run: RunRecord) -> str:
    if run.finished:
        return "finished"
    return "running" if is_locked(run.folder / ".lock") else "interrupted"


def value_of(run: RunRecord, name: str):
    """A flag or a score of a run, or what else a table has of it."""
    scores = run.record.get("scores", {})
    if name in scores:
        return scores[name]
    if name in ("run", "state", "ended"):
        return row_of(run, [])[name]
    value = run.identity.get(name)
    return " ".join(map(str, value)) if isinstance(value, list) else value


def row_of(run: RunRecord, names: Iterable[str]) -> dict:
    """A run as the row of a table."""
    ended = datetime.fromtimestamp(run.ended).strftime("%Y-%m-%d %H:%M")
    row = {"run": run.name, "state": state_of(run), "ended": ended}
    return row | {name: value_of(run, name) for name in names}


def check_names(runs: list[RunRecord], names: Iterable[str], flag: str) -> None:
    """Refuses a column that no run has."""
    known = dict.fromkeys(["run", "state", "ended"])
    for run in runs:
        known |= dict.fromkeys([*run.record.get("scores", {}), *run.identity])
    for name in names:
        if name not in known:
            raise UserError(f"{flag}: no run has '{name}': there are {', '.join(known)}")


def filtered(runs: list[RunRecord], conditions: list[tuple[str, object]]) -> list[RunRecord]:
    """The runs whose flags or scores have the given values."""
    check_names(runs, [name for name, _ in conditions], "where")
    return [
        run
        for run in runs
        if all(is_value(value_of(run, name), wanted) for name, wanted in conditions)
    ]


def is_value(value, wanted) -> bool:
    """Whether a value is the one that a user wrote: 0.10 is 0.1, and none is no value."""
    if isinstance(wanted, list):
        wanted = " ".join(map(str, wanted))
    if value is None or wanted is None or wanted == "none":
        return value is None and wanted in (None, "none")
    return value == wanted or str(value).lower() == str(wanted).lower()


def ordered(runs: list[RunRecord], name: str | None) -> list[RunRecord]:
    """Runs by a flag or score, the largest first, or by when they ended; gaps come last."""
    if name is None:
        return sorted(runs, key=lambda run: -run.ended)
    check_names(runs, [name], "sort")

    def key(run: RunRecord) -> tuple:
        value = value_of(run, name)
        if value is None:
            return (2, 0, "")
        if isinstance(value, int | float):
            return (0, -value, "")
        return (1, 0, str(value))

    return sorted(runs, key=key)


def table_of(runs: list[RunRecord], columns: list[str] | None) -> list[dict]:
    """A row a run: given columns, or the flags in which the runs differ and their scores."""
    if columns:
        check_names(runs, columns, "columns")
        return [{name: value_of(run, name) for name in columns} for run in runs]
    different = [name for name in differences(runs) if is_readable(runs, name)]
    flags = [name for name in FIRST if name in different]
    flags += [name for name in different if name not in (*FIRST, *SEEDS)]
    flags = flags[:MANY]
    flags += [name for name in SEEDS if name in different]
    scores = [name for name in SCORES if any(value_of(run, name) is not None for run in runs)]
    return [row_of(run, [*flags, *scores]) for run in runs]


def is_readable(runs: list[RunRecord], name: str) -> bool:
    """Whether a flag fits into a column."""
    return all(len(str(run.identity.get(name))) < 24 for run in runs)
