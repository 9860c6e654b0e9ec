"""The trained networks of this repository, which zoo:NAME names wherever a checkpoint does."""

from pathlib import Path

from core.errors import UserError

FOLDER = Path(__file__).parents[1] / "zoo"
TABLE = FOLDER / "zoo.yml"
PREFIX = "zoo:"


def entries() -> dict[str, dict]:
    """What every network is, and the command that trained it."""
    import yaml

    if not TABLE.is_file():
        raise UserError(f"{TABLE}: no such file; the zoo is a folder of the repository")
    return yaml.safe_load(TABLE.read_text())


def file_of(name: str) -> Path:
    """The file of a network, whose name must be one of the table's."""
    if name not in entries():
        raise UserError(f"the zoo has no network '{name}': it has {', '.join(entries())}")
    return FOLDER / f"{name}.pth"


def resolved(text: str) -> str:
    """A path, or the file of zoo:NAME."""
    return str(file_of(text.removeprefix(PREFIX))) if text.startswith(PREFIX) else text
