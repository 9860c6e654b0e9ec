"""One HTML file that contains its tables, figures and commands; it loads nothing from elsewhere."""

import base64
import hashlib
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from report.tables import MINUS, cell, columns_of, number, numeric

FOLDER = Path(__file__).parent
CSS, SCRIPT = (
    FOLDER.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
)
BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w*])")
DPI = 192  # two dots for each of the 96 CSS pixels of an inch
ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
TEMPLATE: Any = ENVIRONMENT.get_template("page.html").module  # its macros


# ---------------------------------------------------------------- the document


class Section:
    """A heading with the elements below it."""

    def __init__(self, heading: str, *parts: Markup):
        self.heading, self.parts = heading, parts
        self.name = re.sub(r"\W+", "-", heading.casefold()).strip("-") or "section"


def render_page(title: str, parts: Sequence[Markup | Section]) -> str:
    """The document, with a table of contents where there are several sections."""
    contents: dict[str, str] = {}
    rendered = []
    for part in parts:
        if isinstance(part, Section):
            candidates = chain([part.name], (f"{part.name}-{k}" for k in count(2)))
            name = next(name for name in candidates if name not in contents)
            contents[name] = part.heading
            part = TEMPLATE.section(name, part.heading, part.parts)
        rendered.append(part)
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src '{policy_hash(CSS)}'; script-src '{policy_hash(SCRIPT)}'"
    )
    css, script = Markup(CSS), Markup(SCRIPT)  # files of this package
    return str(TEMPLATE.document(title, policy, css, script, list(contents.items()), rendered))


def policy_hash(text: str) -> str:
    """The name by which a policy allows one inline text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


# ---------------------------------------------------------------- elements


def render_paragraph(text: str) -> Markup:
    """Text; words between ** and ** are bold where the marks stand outside of words."""
    return TEMPLATE.paragraph(BOLD.split(text))


@dataclass(frozen=True)
class Column:
    name: str
    numeric: bool


@dataclass(frozen=True)
class Cell:
    text: str
    numeric: bool
    key: str | None = None  # the number by which it is sorted


@dataclass(frozen=True)
class Row:
    cells: list[Cell]
    marked: bool


def render_table(rows: list[dict], caption: str = "", marked: Collection[int] = ()) -> Markup:
    """Rows below headers that sort them.

    A column whose cells begin with numbers is sorted by these; empty cells come last. Text in the
    first column is the name of its row.
    """
    columns = [Column(name, numeric(rows, name)) for name in columns_of(rows)]
    lines = [
        Row([build_cell(row.get(column.name), column) for column in columns], i in marked)
        for i, row in enumerate(rows)
    ]
    return TEMPLATE.table(columns, lines, caption)


def build_cell(value, column: Column) -> Cell:
    if not column.numeric:
        return Cell(cell(value), False)
    key = number(value)
    text = MINUS.sub("−", cell(value))
    return Cell(text, True, None if key is None else str(key).replace("inf", "Infinity"))


def render_figure(figure: Figure, caption: str, alt: str) -> Markup:
    """A figure as a PNG of twice its size in CSS pixels; the figure is closed.

    Its letters keep their size: a narrow window scrolls.
    """
    file = io.BytesIO()
    figure.savefig(
        file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.03, facecolor="white"
    )
    plt.close(figure)
    image = reduce_colors(Image.open(file).convert("RGB"))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    width, height = (round(pixels * 96 / DPI) for pixels in image.size)
    return TEMPLATE.figure(source, width, height, caption, alt)


def reduce_colors(image: Image.Image) -> Image.Image:
    """The image in 256 colours, a third of the bytes, if this is hardly visible.

    All but one in a thousand values must stay within 8 of 255: so it is with curves, not with
    photographs in colour.
    """
    reduced = image.quantize(256, kmeans=1, dither=Image.Dither.NONE)
    error = np.abs(np.asarray(reduced.convert("RGB"), dtype=np.int16) - np.asarray(image))
    return reduced if np.quantile(error, 0.999) <= 8 else image


def render_commands(lines: Sequence[str]) -> Markup:
    """Lines for a shell; each wraps between its words, with an indent."""
    return TEMPLATE.commands([line.split(" ") for line in lines])


def render_facts(pairs: dict[str, str]) -> Markup:
    """Names and their values, as settings."""
    return TEMPLATE.facts([(name, cell(value).split("/")) for name, value in pairs.items()])
