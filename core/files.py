"""The one place that writes: files whole or not at all, inside their folder, one writer at a time."""

import csv
import fcntl
import io
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from core.errors import UserError


def durable(path: Path, write: Callable[[Path], object], before: Path | None = None) -> None:
    """Lets `write` fill a temporary file beside its target, which takes its place once the disk has it; the old one may be kept as `before`."""
    from core.distributed import rank  # it brings torch, which no reader of files needs

    if rank():
        return
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            sync(temporary)
            if before is not None and path.exists():
                keep(path, before)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink()


def keep(path: Path, name: Path) -> None:
    """Gives a file's content a second name, so that its first one is never without a file; or moves it where links cannot be made."""
    link = name.with_name(f".{uuid.uuid4().hex[:12]}.tmp{name.suffix}")
    try:
        os.link(path, link)
    except OSError:
        os.replace(path, name)
    else:
        os.replace(link, name)
        with suppress(OSError):
            link.unlink()  # it is still there where both names are of one file already


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the disk names the file that was meant."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).removeprefix("not written, ")
        raise OSError(error.errno, f"not written, {why}", str(path)) from None


def sync(path: Path) -> None:
    """Waits until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, seconds: float = 0) -> None:
    """Removes temporary files of writers that were killed, from a folder that has no other writer, or those that are so old."""
    for stray in folder.glob(".????????????.tmp*"):
        with suppress(FileNotFoundError):
            if time.time() - stray.stat().st_mtime >= seconds:
                stray.unlink()


def folder_for(root: Path, name: str) -> Path:
    """A folder below another for results, which two calls may write at a time: only old strays are swept out."""
    folder = inside(root, name)
    sweep(folder, seconds=3600)
    return folder


def inside(root: Path, name: str) -> Path:
    """A path below a folder, wherever links lead."""
    path = root / name
    if root.resolve() not in path.resolve().parents:
        raise UserError(f"'{name}' leads out of {root}: nothing is written there")
    return path


def lock(path: Path, wait: bool = False) -> IO:
    """Holds a file's lock until it is closed or the process ends, however it ends; a second one waits, or is told who holds it."""
    owner = f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}"
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)  # noqa: SIM115
        try:
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)  # the other one may be about to write its name
            raise UserError(
                f"{path.parent} belongs to {path.read_text().strip() or 'another process'}, which is still at work"
            ) from None
        file.truncate(0)
        file.write(owner.encode())
    return file


def write_text(path: Path, text: str) -> None:
    durable(path, lambda temporary: temporary.write_text(text))


def significant(value: float, digits: int = 6) -> float:
    """A number to so many digits that count, however small it is."""
    return float(f"{value:.{digits}g}")


def write_csv(path: Path, rows: list[dict]) -> None:
    """A table with the columns of all its rows, in order of appearance."""
    write_text(path, table(dict.fromkeys(name for row in rows for name in row), rows))


def table(columns: Sequence[str], rows: list[dict], header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def append_csv(path: Path, columns: Sequence[str], row: dict) -> None:
    """One row more, under a header that names the columns; writers wait for each other."""
    with lock(path.with_name(f".{path.name}.lock"), wait=True):
        check_header(path, columns)
        kept = path.read_text() if path.is_file() else ""
        write_text(path, kept + table(columns, [row], header=not kept))


def check_header(path: Path, columns: Sequence[str]) -> None:
    """A table that this version did not write is not added to."""
    if path.is_file():
        with open(path, newline="") as file:
            if next(csv.reader(file), None) != list(columns):
                raise UserError(f"{path} has other columns than this version writes: move it away")
