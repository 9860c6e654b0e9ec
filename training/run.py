"""The run folder: configuration, metrics, curves, checkpoints, and the file that a run exports."""

import glob
import hashlib
import json
import os
import shutil
import sys
import uuid
import weakref
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from algo_functions import ClassMeter, Meter
from checkpoints import checkpoint
from cli.checks import check_run_name
from cli.flags import TECHNICAL, identity
from core import distributed, own
from core.errors import UserError
from core.files import inside, keep, lock, sweep, write_csv, write_text
from core.runs import describe_changes
from core.versions import versions
from report.figures import draw_curves, draw_splits


class Run:
    """One training: where it writes, what it is, whether it is finished."""

    def __init__(
        self,
        args: Namespace,
        stem: str,
        export: str,
        inputs: dict[str, str | Path | None],
        changes: dict | None = None,
    ):
        """`stem` is the name without its hash; `{hash}` in `export` becomes the hash.

        The content of `inputs`, which are files, belongs to the configuration. With `changes`,
        flags that are not at their defaults, `export` is the latest of several runs' networks, and
        each is kept in a file of its own besides, which these flags name.
        """
        self.args = args
        digests = {name: path and checkpoint.digest(path) for name, path in inputs.items()}
        self.identity = identity(args) | digests
        text = json.dumps(self.identity, sort_keys=True)
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:8]
        self.name = args.run_name or f"{stem}_{self.hash}"
        check_run_name(self.name)
        self.folder = inside(Path(args.results) / "runs", self.name)
        self.record_before = self._read_record()
        self.record = dict(self.record_before)
        before = self.record.get("identity", self.identity)
        if before != self.identity and not args.overwrite:
            different = [
                f"{name} {before.get(name)} != {self.identity.get(name)}"
                for name in sorted({*before, *self.identity})
                if before.get(name) != self.identity.get(name)
            ]
            raise UserError(
                f"run folder {self.folder} holds another configuration "
                f"({'; '.join(different)}): --overwrite replaces it"
            )
        self.fresh = before != self.identity or not args.resume
        if self.fresh:
            self.record = {}
        file = self.record.get("export", export.format(hash=self.hash))
        self.export = inside(Path(args.results) / "trained_models", file)
        self.kept = None
        if changes is not None:
            known = {name: digests.get(name, value) for name, value in changes.items()}
            described = describe_changes(self.export.stem, known)
            own_name = f"{self.export.stem}{described}_{self.hash}.pth"
            self.kept = inside(self.export.parent, own_name)
        self._guard_export()
        writes = not (distributed.rank() or args.dry_run or self.finished)
        self.unlock = self._lock() if writes and self.folder.is_dir() else None

    def _read_record(self) -> dict:
        path = self.folder / "run.json"
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except json.JSONDecodeError as error:
            if self.args.overwrite:
                return {"identity": None}
            raise UserError(
                f"{path} is damaged ({error}): --overwrite or another --run_name starts again"
            ) from None

    def _guard_export(self) -> None:
        """Refuses to export over the network of another configuration, without --overwrite."""
        if self.kept or self.args.overwrite or not self.export.is_file():
            return
        other = checkpoint.read(self.export).get("config")
        if other == self.identity:
            return
        theirs = other if isinstance(other, dict) else {}
        names = sorted({*self.identity, *theirs})
        different = [name for name in names if theirs.get(name) != self.identity.get(name)]
        kept = f"; the network of this run is kept in {self.best}" if self.finished else ""
        raise UserError(
            f"{self.export} has another configuration than run {self.name} "
            f"(different: {', '.join(different)}){kept}: "
            "--overwrite replaces it, --results with another folder keeps both"
        )

    @property
    def finished(self) -> bool:
        return "scores" in self.record and not self.args.dry_run

    def export_best(self) -> None:
        """Copies the best checkpoint to the exported file, and to one that no other run takes."""
        if distributed.rank():
            return
        with lock(self.export.parent / ".lock", wait=True):
            self._guard_export()
            content = checkpoint.read(self.best)
            if self.kept:
                checkpoint.write(self.kept, content)
                self._keep_other(self.kept)
            checkpoint.write(self.export, content)
        if self.kept:
            print(f"{'kept as':<12}{self.kept}")

    def _keep_other(self, kept: Path) -> None:
        """Says whose network this one replaces; one that no other file holds is kept."""
        if not self.export.is_file():
            return
        before = checkpoint.digest(self.export)
        if before == checkpoint.digest(kept):
            return
        others = sorted(self.export.parent.glob(f"{glob.escape(self.export.stem)}_*.pth"))
        same = [path for path in others if checkpoint.digest(path) == before]
        other = same[0] if same else self.export.with_name(f"{self.export.stem}_{before}.pth")
        if not same:
            keep(self.export, other)
        print(f"{self.export} is the network of the run that ended last; before: {other.name}")

    def already(self) -> dict:
        """The scores of a finished run, whose exported file is written again if it is gone."""
        self.export_best()
        print(f"run {self.name} is finished: {self.folder} (--no-resume trains it again)")
        return self.scores()

    def scores(self) -> dict:
        return self.record["scores"] | {
            "checkpoint": str(self.best),
            "export": str(self.export),
            "kept": str(self.kept or self.export),
            "run": str(self.folder),
        }

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    @property
    def last(self) -> Path:
        return self.folder / "last.pth"

    @property
    def before(self) -> Path:
        return self.folder / "last_before.pth"

    def describe(self) -> None:
        """--dry_run: the resolved configuration and where the run would write."""
        print(json.dumps(self._settings(), indent=2))
        print(f"run folder {self.folder}\nexport     {self.export}")
        if self.kept:
            print(f"kept as    {self.kept}")

    def _settings(self) -> dict:
        """The configuration as --config reads it, for which an empty list is no value."""
        settings = {
            name: value
            for name, value in vars(self.args).items()
            if name not in TECHNICAL and value != []
        }
        for name in ("network", "teacher", "dataset", "physics"):
            if isinstance(settings.get(name), str):
                settings[name] = own.with_folder(settings[name])
        if "loss_distill" in settings:
            settings["loss_distill"] = [own.with_folder(word) for word in settings["loss_distill"]]
        if "weights" in vars(self.args):  # safe ones are behind the names already
            settings["weights"] = "published"
        return settings

    def _lock(self) -> Callable[[], object]:
        """Locks the folder; the function that is returned releases it, once."""
        held = lock(self.folder / ".lock")
        return weakref.finalize(self, held.lock.release)

    def begin(self) -> dict | None:
        """Makes the folder this run's own, and gives back what an interrupted run had saved."""
        self.record.setdefault("wandb_id", f"{self.hash}-{uuid.uuid4().hex[:8]}")
        distributed.wait()  # until all have read what was there
        saved = None if distributed.rank() else self._claim()
        distributed.wait()
        return self._saved() if distributed.rank() else saved

    def _claim(self) -> dict | None:
        """Locks the folder, empties it where the run starts again, and writes what the run is."""
        self.unlock = self.unlock or self._lock()
        if self._read_record() != self.record_before:
            raise UserError(
                f"run folder {self.folder} was changed by another process: repeat the command"
            )
        for path in list(self.folder.iterdir()) if self.fresh else ():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        sweep(self.folder)
        sweep(self.export.parent, seconds=3600)
        self.record |= {
            "identity": self.identity,
            "export": self.export.name,
            "kept": (self.kept or self.export).name,
            "command": vars(self.args).get("command_line", sys.argv),
            "versions": versions(),
        }
        write_text(self.folder / "config.json", json.dumps(self._settings(), indent=2) + "\n")
        self._save_record()
        return self._saved()

    def _saved(self) -> dict | None:
        """The last state, or where that is damaged the one before it."""
        files, damaged = [path for path in (self.last, self.before) if path.is_file()], []
        for path in files:
            try:
                content = checkpoint.read(path)
            except UserError as error:
                damaged.append(str(error))
                continue
            if damaged:
                print(f"{damaged[0]}; the run resumes from the state before it")
            if path == self.before:
                os.replace(path, self.last)
            return content
        if files:
            raise UserError(
                f"{'; '.join(damaged)}: there is nothing to resume from, --no-resume starts again"
            )
        return None

    def log(self, rows: list[dict]) -> None:
        write_csv(self.folder / "metrics.csv", rows)
        write_text(self.folder / "metrics.json", json.dumps(rows, indent=1) + "\n")

    def draw(
        self,
        rows: list[dict],
        meter: Meter | ClassMeter,
        first_image: dict[str, float] | None,
    ) -> None:
        """The figures of a run, which cost a second or two."""
        if not rows or distributed.rank():
            return
        draw_curves(rows, meter.curves, self.folder / "curves.png", first_image)
        for name, label, scores in meter.figures:
            draw_splits(rows, scores, label, self.folder / f"{name}.png")

    def finish(self, scores: dict) -> dict:
        """Marks the run as done and exports the best checkpoint."""
        self.record["scores"] = scores
        self._save_record()
        self.export_best()
        if self.unlock:  # the first process has it
            self.unlock()
        return self.scores()

    def _save_record(self) -> None:
        write_text(self.folder / "run.json", json.dumps(self.record, indent=2) + "\n")
