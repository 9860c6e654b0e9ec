"""Atlases: files that ask several studies, and name the settings that answer one question."""

from dataclasses import dataclass, field
from pathlib import Path

from core.errors import UserError, in_a_line
from parsing.parser import read_settings
from study.question import as_list, flags_in, resolve_tiny

KEYS = ("question", "parts", "tiny")
PART_KEYS = ("study", "missing", "rows")
ROW_KEYS = ("name", "where", "over")


@dataclass(frozen=True)
class Row:
    """A setting of a study; without `over` it is compared with the student alone."""

    name: str
    where: dict
    over: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A study of an atlas, what was missing in it, and its rows."""

    path: Path
    text: dict
    name: str
    missing: str
    rows: tuple[Row, ...]


def parts_of(text: dict, path: str | Path, tiny: bool) -> list[Part]:
    """The parts of an atlas; their files lie beside it."""
    text = resolve_tiny(text, tiny, KEYS)
    parts = []
    for part in as_list(text["parts"]):
        part = flags_in({"part of parts": part}, "part of parts")
        check_keys(part, PART_KEYS, "a part")
        for name in ("study", "missing", "rows"):
            if not part.get(name):
                raise UserError(f"atlas {path}: a part has no '{name}'")
        file = Path(path).parent / f"{part['study']}.yml"
        study = resolve_tiny(read_settings(str(file), f"atlas {path}: study {file}"), tiny)
        name = f"{part['study']}{'_tiny' * tiny}"
        rows = tuple(row_of(row, path) for row in as_list(part["rows"]))
        parts.append(Part(file, study, name, str(part["missing"]), rows))
    return parts


def row_of(row: dict, path: str | Path) -> Row:
    row = flags_in({"row of rows": row}, "row of rows")
    check_keys(row, ROW_KEYS, "a row")
    if not row.get("name"):
        raise UserError(f"atlas {path}: a row has no 'name'")
    return Row(str(row["name"]), flags_in(row, "where"), flags_in(row, "over"))


def check_keys(flags: dict, known: tuple[str, ...], what: str) -> None:
    unknown = [in_a_line(name) for name in flags if name not in known]
    if unknown:
        raise UserError(
            f"atlas: {what} has unknown {', '.join(unknown)}: it has {', '.join(known)}"
        )
