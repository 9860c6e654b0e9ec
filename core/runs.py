"""The runs of a results folder, by what their folders say; nothing here imports torch."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError

LONGEST = 80  # characters of the flags in a file name
IN_STEMS = {  # flags that the name of an exported file holds anyway
    "blocks", "cr", "cr_range", "dataset", "data_root", "download", "labels", "limit_val",
    "log_every", "network", "noise", "photons", "physics", "save_images", "val_every",
}  # fmt: skip
SEEDS = ("seed", "data_seed")


class RunRecord(NamedTuple):
    """A run as its folder describes it."""

    folder: Path
    identity: dict  # the flags that distinguish it, and digests of its files
    record: dict  # of run.json
    ended: float  # when its record was written, seconds

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        return "scores" in self.record

    @property
    def kept(self) -> str:
        """The exported file that no other run replaces."""
        return self.record.get("kept") or self.record.get("export", "")


def read_run(folder: Path) -> RunRecord | None:
    """The run of a folder; None where there is none, or its record is damaged."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text())
        ended = path.stat().st_mtime
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("identity"), dict):
        return None
    return RunRecord(folder, record["identity"], record, ended)


def runs_of(results: str | Path) -> list[RunRecord]:
    """All runs of a results folder, also those of studies and demonstrations in it, by name."""
    folders = {path.parent for path in Path(results).rglob("runs/*/run.json")}
    found = [read_run(folder) for folder in sorted(folders)]
    return [run for run in found if run is not None]


def differences(runs: Iterable[RunRecord], ignored: Iterable[str] = ()) -> list[str]:
    """The flags in which runs differ."""
    identities = [run.identity for run in runs]
    names = dict.fromkeys(name for identity in identities for name in identity)
    return [
        name
        for name in sorted(names)
        if name not in ignored
        and any(identity.get(name) != identities[0].get(name) for identity in identities)
    ]


def describe_changes(stem: str, changes: dict) -> str:
    """The flags that a stem does not name, for the end of a file name: _lr_0.01_seed_3."""
    text = ""
    for name, value in changes.items():
        if name in IN_STEMS or f"_{name}_" in stem:
            continue
        values = value if isinstance(value, list) else [value]
        word = "_".join([name, *(re.sub(r"[^\w.-]+", "-", str(item)) for item in values)])
        if len(text) + len(word) > LONGEST:
            return text + "_and_more"
        text += f"_{word}"
    return text


def check_one_network(results: str | Path, file: str, flag: str) -> None:
    """Refuses a file that several runs have written, if they differ in more than their seeds."""
    found = [read_run(path) for path in sorted((Path(results) / "runs").glob("*"))]
    runs = [run for run in found if run and run.finished and run.record.get("export") == file]
    names = differences(runs, SEEDS)
    if not names:
        return
    listed = [
        f"{run.kept} ({', '.join(f'{name} {run.identity.get(name)}' for name in names[:3])})"
        for run in runs
    ]
    raise UserError(
        f"{flag}: {len(runs)} runs have written {file}, which differ in {', '.join(names)}; "
        f"choose one of {Path(results) / 'trained_models'} by --teacher: {', '.join(listed)}"
    )
