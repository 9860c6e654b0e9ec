"""Tables for the terminal, for Markdown and for a paper, and the format of their cells."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

NUMBER = re.compile(
    r"[^\w+\-−.]*"  # brackets and the like before it
    r"([+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?(?:e[+-]\d+)?)"
    r"(?=$|[\s%±×,;)]|x\b)",
    re.IGNORECASE,
)
MISSING = re.compile(r"\W*|nan\b.*|n/a", re.IGNORECASE)
MINUS = re.compile(r"(?<![\w\-])-(?=[\d.])|(?<=\de)-(?=\d)")


def format_cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def format_p(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def number_of(value) -> float | None:
    """The number by which a cell is sorted: its value, or the number that begins its text."""
    if isinstance(value, int | float):
        return None if math.isnan(value) else float(value)
    match = NUMBER.match(format_cell(value))
    return float(match[1].replace(",", "").replace("−", "-")) if match else None


def columns_of(rows: list[dict]) -> list[str]:
    """The columns of all rows, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def is_numeric(rows: list[dict], column: str) -> bool:
    """Whether a column holds a number, and no text beside numbers and gaps ("", "-", nan, n/a)."""
    filled = [
        number_of(row.get(column))
        for row in rows
        if not MISSING.fullmatch(format_cell(row.get(column)))
    ]
    return bool(filled) and None not in filled


def markdown(rows: list[dict]) -> str:
    """Rows as an aligned Markdown table, numbers to the right."""
    columns = columns_of(rows)
    table = [columns] + [[format_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[j]) for line in table) for j in range(len(columns))]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns]

    def line(words: list[str]) -> str:
        padded = [
            word.rjust(w) if r else word.ljust(w)
            for word, w, r in zip(words, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(columns), line(rule), *map(line, table[1:])])


@contextmanager
def print_at_end(rows: list[dict]) -> Iterator[None]:
    """Prints the rows at the end, also those of a work that an error ends."""
    try:
        yield
    finally:
        if rows:
            print(markdown(rows))


GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma "
    "sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
LETTERS = "αβγδεζηθικλμνξπρςστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"
SYMBOLS = {  # in math mode
    **{"±": r"\pm", "−": "-", "×": r"\times", "·": r"\cdot", "√": r"\surd", "∞": r"\infty"},
    **{"≤": r"\le", "≥": r"\ge", "≈": r"\approx", "<": "<", ">": ">", "|": "|"},
    **{"→": r"\to", "↑": r"\uparrow", "↓": r"\downarrow"},
    **{letter: f"\\{name}" for letter, name in zip(LETTERS, GREEK.split(), strict=True)},
}
TEX = {
    **{letter: f"${name}$" for letter, name in SYMBOLS.items()},
    **{letter: f"\\{letter}" for letter in "#$%&_{}"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"},
    **{"`": r"\textasciigrave{}", '"': "''"},
    # they are an option of the line break before them, if they begin a line
    **{letter: f"{{{letter}}}" for letter in "[]*"},
}
TEX_TABLE = str.maketrans(TEX)


def escape_tex(text: str) -> str:
    """Text as LaTeX prints it, letter by letter; two hyphens stay two."""
    words = " ".join(MINUS.sub("−", text).split())
    return re.sub("-(?=-)", "-{}", words.translate(TEX_TABLE))


def latex(rows: list[dict]) -> str:
    """Rows as a LaTeX tabular, which needs the package booktabs; numbers to the right."""
    columns = columns_of(rows)

    def line(words: list[str]) -> str:
        return f"{' & '.join(map(escape_tex, words))} \\\\"

    body = [line([format_cell(row.get(name)) for name in columns]) for row in rows]
    alignment = "".join("r" if is_numeric(rows, name) else "l" for name in columns)
    head = f"\\begin{{tabular}}{{@{{}}{alignment}@{{}}}}"
    return "\n".join(
        [head, "\\toprule", line(columns), "\\midrule", *body, "\\bottomrule", "\\end{tabular}"]
    )
