"""The one place that writes files: whole or not at all, in their folder, by one writer."""

import csv
import io
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from core.errors import UserError


def durable(path: Path, write: Callable[[Path], object], before: Path | None = None) -> None:
    """Lets `write` fill a temporary file, which replaces its target once it is on disk.

    The old file may be kept as `before`. It is written by hand, as no library syncs the file and
    its folder and keeps the old file.
    """
    from core.distributed import rank  # it imports torch, which no reader of files needs

    if rank():
        return
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    with errors_name(path):
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
    """Gives a file a second name, so that the first is never missing; moves it if links fail."""
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
def errors_name(path: Path) -> Iterator[None]:
    """Errors of the disk name this file."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).removeprefix("not written, ")
        raise OSError(error.errno, f"not written, {why}", str(path)) from None


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, seconds: float = 0) -> None:
    """Removes temporary files of killed writers that are at least this old."""
    for stray in folder.glob(".????????????.tmp*"):
        with suppress(FileNotFoundError):
            if time.time() - stray.stat().st_mtime >= seconds:
                stray.unlink()


def folder_for(root: Path, name: str) -> Path:
    """A folder for results that two processes may write at the same time."""
    folder = inside(root, name)
    sweep(folder, seconds=3600)
    return folder


def inside(root: Path, name: str) -> Path:
    """A path inside of a folder after all links are followed."""
    path = root / name
    if root.resolve() not in path.resolve().parents:
        raise UserError(f"'{name}' is outside of {root}: nothing is written there")
    return path


def lock(path: Path, wait: bool = False) -> AcquireReturnProxy:
    """Holds a file's lock until it is released or the process ends, however it ends.

    Another process waits, or gets an error that names the holder; this process may lock it again.
    """
    owner = f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}"
    # No fallback for disks without flock: it would be a file that a killed process leaves behind.
    file_lock = FileLock(path, thread_local=False, is_singleton=True, fallback_to_soft=False)
    with errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = file_lock.acquire(blocking=wait)
        except Timeout:
            time.sleep(0.1)  # the other process may be about to write its name
            holder = path.read_text().strip() or "another process"
            raise UserError(
                f"{path.parent} is in use by {holder}, which is still running"
            ) from None
        path.write_text(owner)
    return held


def is_locked(path: Path) -> bool:
    """Whether another process holds a file's lock."""
    if not path.is_file():
        return False
    file_lock = FileLock(path, is_singleton=False, fallback_to_soft=False)
    try:
        file_lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # a folder that only others can write to
        return False
    file_lock.release()
    return False


def write_text(path: Path, text: str) -> None:
    durable(path, lambda temporary: temporary.write_text(text))


def significant(value: float, digits: int = 6) -> float:
    """A number rounded to significant digits."""
    return float(f"{value:.{digits}g}")


def write_csv(path: Path, rows: list[dict]) -> None:
    """A table with the columns of all rows, in order of appearance."""
    write_text(path, table(dict.fromkeys(name for row in rows for name in row), rows))


def table(columns: Iterable[str], rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def append_csv(path: Path, columns: Sequence[str], row: dict) -> None:
    """Adds a row to a table with these columns; writers wait for each other."""
    with lock(path.with_name(f".{path.name}.lock"), wait=True):
        check_header(path, columns)
        before = read_rows(path) if path.is_file() else []
        rows = [dict(zip(columns, values, strict=False)) for values in before[1:]]
        write_text(path, table(columns, [*rows, row]))


def read_rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def check_header(path: Path, columns: Sequence[str]) -> None:
    """Refuses a table with other columns; one of an earlier version may lack the last ones."""
    if path.is_file():
        header = next(iter(read_rows(path)), [])
        if header != [*columns][: max(1, len(header))]:
            raise UserError(
                f"{path} has other columns than this version writes: move it to another place"
            )
