"""One HTML file that holds all it shows: text, sortable tables, pictures, commands; it loads nothing and lets nothing be loaded."""

import base64
import hashlib
import io
import re
from collections.abc import Collection, Sequence
from html import escape
from itertools import chain, count
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from report.tables import MINUS, cell, columns_of, number, numeric

CSS, SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
)
HEADING = re.compile(r'<section id="(.*?)"><h2>(.*?)</h2>')
BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w*])")
NUMERIC = ' class="number"'
DPI = 192  # two dots for each of the 96 CSS pixels of an inch


def page(title: str, parts: Sequence[str]) -> str:
    """The document of parts that the other functions made, with a table of contents where there are several sections."""
    baselines, entries = set(), []

    def listed(found: re.Match) -> str:
        baseline = next(
            name
            for name in chain([found[1]], (f"{found[1]}-{k}" for k in count(2)))
            if name not in baselines
        )
        baselines.add(baseline)
        entries.append(f'<li><a href="#{baseline}">{found[2]}</a></li>')
        return f'<section id="{baseline}"><h2>{found[2]}</h2>'

    body = HEADING.sub(listed, "\n".join(parts))
    contents = (
        f'<nav aria-label="Contents"><ul>{"".join(entries)}</ul></nav>' if len(entries) > 1 else ""
    )
    policy = f"default-src 'none'; img-src data:; style-src '{digest(CSS)}'; script-src '{digest(SCRIPT)}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{contents}
{body}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def digest(text: str) -> str:
    """The name by which a policy allows an inline text, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def section(heading: str, *parts: str) -> str:
    baseline = re.sub(r"\W+", "-", heading.casefold()).strip("-") or "section"
    return "\n".join([f'<section id="{baseline}"><h2>{escape(heading)}</h2>', *parts, "</section>"])


def paragraph(text: str) -> str:
    """Text; words between ** and ** are bold where the marks stand outside of words."""
    marked_up = BOLD.sub(r"<strong>\1</strong>", escape(text))
    return f"<p>{marked_up}</p>"


def table(rows: list[dict], caption: str = "", marked: Collection[int] = ()) -> str:
    """Rows under headers that sort them; a column whose cells begin with numbers is sorted by these, and gaps come last."""
    columns = columns_of(rows)
    right = [numeric(rows, name) for name in columns]
    head = "".join(header(name, r) for name, r in zip(columns, right, strict=True))
    lines = [
        "".join(
            entry(row.get(name), r, j == 0)
            for j, (name, r) in enumerate(zip(columns, right, strict=True))
        )
        for row in rows
    ]
    body = "\n".join(
        f'<tr class="marked">{line}</tr>' if i in marked else f"<tr>{line}</tr>"
        for i, line in enumerate(lines)
    )
    above = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    grid = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<figure class="rows">{above}<div class="scroll">{grid}</div></figure>'


def header(name: str, right: bool) -> str:
    label = "" if name.strip() else ' aria-label="name"'
    return f'<th scope="col"{NUMERIC if right else ""}><button type="button"{label}>{escape(name)}</button></th>'


def entry(value, right: bool, first: bool) -> str:
    """A cell; text in the first column is the name of its row."""
    if not right:
        return (
            f'<th scope="row">{escape(cell(value))}</th>'
            if first
            else f"<td>{escape(cell(value))}</td>"
        )
    key = number(value)
    sorted_by = "" if key is None else f' data-value="{key}"'.replace("inf", "Infinity")
    return f"<td{NUMERIC}{sorted_by}>{escape(MINUS.sub('−', cell(value)))}</td>"


def figure(drawn: plt.Figure, caption: str, alt: str) -> str:
    """A figure as a PNG of twice its size in CSS pixels, which closes it; its letters keep their size, a narrow window scrolls."""
    file = io.BytesIO()
    drawn.savefig(
        file, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.03, facecolor="white"
    )
    plt.close(drawn)
    image = small(Image.open(file).convert("RGB"))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    size = f'width="{round(image.width * 96 / DPI)}" height="{round(image.height * 96 / DPI)}"'
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    element = f'<img {size} alt="{escape(alt)}" src="{source}">'
    return f'<figure><div class="wide">{element}</div>{below}</figure>'


def small(image: Image.Image) -> Image.Image:
    """256 colours, a third of the bytes, where all but one in a thousand values stay within 8 of 255: curves, not photographs in colour."""
    reduced = image.quantize(256, kmeans=1, dither=Image.Dither.NONE)
    error = np.abs(np.asarray(reduced.convert("RGB"), dtype=np.int16) - np.asarray(image))
    return reduced if np.quantile(error, 0.999) <= 8 else image


def commands(lines: Sequence[str]) -> str:
    """Lines for a shell, each of which wraps between its words and below its own beginning."""
    wrapped = "".join(
        f"<code>{' '.join(f'<span>{escape(word)}</span>' for word in line.split(' '))}\n</code>"
        for line in lines
    )
    return f"<pre>{wrapped}</pre>"


def facts(pairs: dict[str, str]) -> str:
    """Names and what they stand for, as settings."""
    listed = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(cell(value)).replace('/', '/<wbr>')}</dd>"
        for name, value in pairs.items()
    )
    return f"<dl>{listed}</dl>"
