"""The run folder: configuration, metrics, curves, checkpoints, and the file that a run exports."""

import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
import uuid
from argparse import Namespace
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ranks
from analysis.figures import draw_curves
from tables import UserError
from training import checkpoint
from training.options import TECHNICAL, identity


def write_text(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    if ranks.rank():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_csv(path: Path, rows: list[dict]) -> None:
    """A table with the columns of all its rows, in order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def append_csv(path: Path, columns: Sequence[str], row: dict) -> None:
    """One row more, under a header that names the columns."""
    check_header(path, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if not path.is_file():
        writer.writeheader()
    writer.writerow(row)
    with open(path, "a", newline="") as file:
        file.write(text.getvalue())


def check_header(path: Path, columns: Sequence[str]) -> None:
    """A table that this version did not write is not added to."""
    if path.is_file():
        with open(path, newline="") as file:
            if next(csv.reader(file), None) != list(columns):
                raise UserError(f"{path} has other columns than this version writes: move it away")


class Run:
    """One training: where it writes, what it is, whether it is finished."""

    def __init__(self, args: Namespace, stem: str, export: str, inputs: dict[str, str | Path | None]):
        """`inputs` are files whose content belongs to the configuration; `{hash}` in `export` becomes the short hash."""
        self.args = args
        self.identity = identity(args) | {k: path and checkpoint.digest(path) for k, path in inputs.items()}
        self.hash = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        self.name = args.run_name or f"{stem}_{self.hash}"
        if not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", self.name):
            raise UserError(f"run_name '{self.name}': letters, digits, '_', '-', '.' and '+' make a name")
        self.folder = Path(args.results) / "runs" / self.name
        self.record = self._read_record()
        found = self.record.get("identity", self.identity)
        if found != self.identity and not args.overwrite:
            names = sorted({*found, *self.identity})
            differ = [f"{k} {found.get(k)} != {self.identity.get(k)}" for k in names if found.get(k) != self.identity.get(k)]
            raise UserError(f"run folder {self.folder} holds another configuration ({'; '.join(differ)}): --overwrite replaces it")
        self.fresh = found != self.identity or not args.resume
        if self.fresh:
            self.record = {}
        self.export = Path(args.results) / "trained_models" / self.record.get("export", export.format(hash=self.hash))
        self._guard_export()

    def _read_record(self) -> dict:
        path = self.folder / "run.json"
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except json.JSONDecodeError as error:
            if self.args.overwrite:
                return {"identity": None}
            raise UserError(f"{path} is damaged ({error}): --overwrite or another --run_name starts afresh") from None

    def _guard_export(self) -> None:
        """A file of another configuration is not exported over unless told to."""
        if self.args.overwrite or not self.export.is_file():
            return
        other = checkpoint.read(self.export).get("config")
        if other != self.identity:
            differ = [k for k in self.identity if not isinstance(other, dict) or other.get(k) != self.identity[k]]
            raise UserError(
                f"{self.export} is of another configuration (it differs in {', '.join(differ)}) than run {self.name}: "
                "--overwrite replaces it, --results keeps both"
            )

    @property
    def finished(self) -> bool:
        return "scores" in self.record and not self.args.dry_run

    def already(self) -> dict:
        """What a finished run answers when it is asked for again; its exported file is there afterwards."""
        checkpoint.write(self.export, checkpoint.read(self.best))
        print(f"run {self.name} is finished: {self.folder} (--no-resume trains it again)")
        return self.scores()

    def scores(self) -> dict:
        return self.record["scores"] | {"checkpoint": str(self.best), "export": str(self.export), "run": str(self.folder)}

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    @property
    def last(self) -> Path:
        return self.folder / "last.pth"

    def describe(self) -> None:
        """--dry_run: the resolved configuration and where the run would write."""
        print(json.dumps(self._settings(), indent=2))
        print(f"run folder {self.folder}\nexport     {self.export}")

    def _settings(self) -> dict:
        """The configuration as --config reads it."""
        return {name: value for name, value in vars(self.args).items() if name not in TECHNICAL}

    def begin(self) -> dict | None:
        """Makes the folder, and gives back what an interrupted run had saved."""
        self.record.setdefault("wandb_id", f"{self.hash}-{uuid.uuid4().hex[:8]}")
        ranks.wait()  # until all have read what was there
        if ranks.rank():
            ranks.wait()
            return checkpoint.read(self.last) if self.last.is_file() else None
        if self.fresh and self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for stray in self.folder.glob(".*.tmp"):
            stray.unlink()
        self.record |= {
            "identity": self.identity,
            "export": self.export.name,
            "command": sys.argv,
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in ("torch", "torchvision", "deepinv", "numpy")},
        }
        write_text(self.folder / "config.json", json.dumps(self._settings(), indent=2) + "\n")
        self._save_record()
        ranks.wait()
        return checkpoint.read(self.last) if self.last.is_file() else None

    def log(self, rows: list[dict], drawn: Sequence[str]) -> None:
        write_csv(self.folder / "metrics.csv", rows)
        write_text(self.folder / "metrics.json", json.dumps(rows, indent=1) + "\n")
        draw_curves(rows, drawn, self.folder / "curves.png")

    def finish(self, scores: dict) -> dict:
        """Exports the best checkpoint and marks the run as done."""
        checkpoint.write(self.export, checkpoint.read(self.best))
        self.record["scores"] = scores
        self._save_record()
        return self.scores()

    def _save_record(self) -> None:
        write_text(self.folder / "run.json", json.dumps(self.record, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
