"""Networks and losses in a file of the user's, such as my.py:MyNet; nothing here imports torch.

Only a file that the command line names is ever run: a checkpoint holds the name and the digest of
the code that it needs, and no code.
"""

import ast
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import NamedTuple

from core.errors import UserError

NAMED = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)(?::(?P<rest>.*))?", re.ASCII)


class Own(NamedTuple):
    """A thing of the user's: its file, its name in it, and what a word has behind it."""

    file: str
    name: str
    rest: str | None

    @property
    def key(self) -> str:
        """Its name in tables and checkpoints, wherever the file is."""
        return f"{Path(self.file).name}:{self.name}"


class Source(NamedTuple):
    """A file that the command line named, as it was read."""

    path: Path
    text: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text).hexdigest()[:12]


SOURCES: dict[str, Source] = {}  # by the names of files
MODULES: dict[tuple[str, str], ModuleType] = {}  # what has been run, by path and digest


def parse(word: str) -> Own | None:
    """The thing of the user's that a word of a command line names, if it names one."""
    match = NAMED.fullmatch(word)
    return Own(match["file"], match["name"], match["rest"]) if match else None


def split_word(word: str) -> tuple[str, str]:
    """A name of a table, or a user's own, and what stands behind the colon after it."""
    own = parse(word)
    if own is not None:
        return f"{own.file}:{own.name}", own.rest or ""
    name, _, rest = word.partition(":")
    return name, rest


def is_own(name) -> bool:
    return isinstance(name, str) and parse(name) is not None


def short_name(name: str) -> str:
    """A dataset or physics in file names: my_images for my.py:my_images."""
    own = parse(name)
    return own.name if own else name


def file_name(name: str) -> str:
    """A network as the beginning of a file name: MYNET for my.py:MyNet."""
    own = parse(name)
    return (own.name if own else name).upper()


def read_source(path: str | Path) -> Source:
    """A file that the command line names, from now on known by its name; it is not run yet."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        source = Source(path.resolve(), path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    known = SOURCES.get(path.name)
    if known is not None and known.path != source.path:
        raise UserError(
            f"{path} and {known.path} have the same name, by which checkpoints know them; "
            "rename one"
        )
    SOURCES[path.name] = source
    return source


def with_folder(word: str) -> str:
    """A word of a command line, with the whole path of a file of the user's."""
    thing = parse(word)
    if thing is None or thing.file not in SOURCES:
        return word
    return f"{SOURCES[thing.file].path}{word[len(thing.file) :]}"


def definitions(source: Source) -> list[str]:
    """The classes and functions of a file, without running it."""
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{source.path.name}, line {line}" if line else source.path.name
        reason = getattr(error, "msg", None) or str(error)
        raise UserError(f"{where}: {reason}") from None
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [node.name for node in tree.body if isinstance(node, kinds)]


def find(own: Own) -> str:
    """The key of a thing that a command line names, whose file must have it."""
    defined = definitions(read_source(own.file))
    if own.name not in defined:
        has = f"it has {', '.join(defined)}" if defined else "it has none"
        raise UserError(f"{own.file} has no class or function '{own.name}': {has}")
    return own.key


def source_of(key: str) -> Source:
    """The file of a thing, which the command line must have named."""
    own = parse(key)
    assert own is not None, f"{key} names a thing of the user's"
    if own.file not in SOURCES:
        raise UserError(
            f"'{own.name}' is code of {own.file}, which no checkpoint brings along: "
            f"name the file by --code {own.file}"
        )
    return SOURCES[own.file]


def load(key: str):
    """The class or function of a thing whose file the command line named."""
    own, source = parse(key), source_of(key)
    assert own is not None, f"{key} names a thing of the user's"
    if own.name not in definitions(source):  # what it imports is not offered
        raise UserError(f"{own.file} has no class or function '{own.name}'")
    place = (str(source.path), source.digest)
    if place not in MODULES:
        MODULES[place] = run(source)
    return getattr(MODULES[place], own.name)


def report_change(key: str, digest: str, since: str) -> None:
    """Says when a file is not what it was; a digest must be one."""
    source = source_of(key)
    if not re.fullmatch("[0-9a-f]{12}", str(digest)):
        raise UserError(f"'{key}': its digest is none")
    if source.digest != digest:
        print(
            f"{source.path.name} is not what it was when {since} "
            f"(digest {digest}, now {source.digest}): its outputs may differ"
        )


def run(source: Source) -> ModuleType:
    """The module of a file, which can import what lies beside it as it is read."""
    module = ModuleType(source.path.stem)
    module.__file__ = str(source.path)
    sys.modules.setdefault(source.path.stem, module)
    sys.path.append(str(source.path.parent))  # last, so that nothing of ours is hidden
    try:
        with pointing_at(source.path):
            exec(compile(source.text, str(source.path), "exec"), module.__dict__)
    finally:
        sys.path.pop()  # later imports of ours must not find what lies beside the file
    return module


@contextmanager
def pointing_at(path: Path) -> Iterator[None]:
    """Reports an error in a file of the user's by its line there."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
        if not frames and not isinstance(error, SyntaxError):
            raise
        line = frames[-1].lineno if frames else getattr(error, "lineno", "?")
        text = (frames[-1].line if frames else None) or ""
        reason = " ".join(str(error).split()) or "no message"
        shown = f" ({text})" if text else ""
        raise UserError(
            f"{path.name}, line {line}{shown}: {type(error).__name__}: {reason}"
        ) from error


def settings_for(function: Callable, key: str, settings: dict, offered: dict) -> dict:
    """The arguments of a thing: all of the settings, and what it asks for of what is offered."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in settings if name not in parameters and not takes_all]
    if unknown:
        own = ", ".join(name for name in parameters if name not in offered) or "none"
        raise UserError(f"set {unknown[0]}: {key} has no such argument, only {own}")
    given = {name: value for name, value in offered.items() if name in parameters}
    return given | settings
