"""Tables for the terminal, for Markdown and for a paper; what their cells look like and count as."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

NUMBER = re.compile(
    r"[^\w+\-−.]*([+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?(?:e[+-]\d+)?)(?=$|[\s%±×,;)]|x\b)",
    re.IGNORECASE,
)
MISSING = re.compile(r"\W*|nan\b.*|n/a", re.IGNORECASE)
MINUS = re.compile(r"(?<![\w\-])-(?=[\d.])|(?<=\de)-(?=\d)")


def cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def number(value) -> float | None:
    """What a cell counts as: its own value, or the number that begins its text, as 0.02 in "+0.02 ± 0.05"; no number is None."""
    if isinstance(value, int | float):
        return None if math.isnan(value) else float(value)
    found = NUMBER.match(cell(value))
    return float(found[1].replace(",", "").replace("−", "-")) if found else None


def columns_of(rows: list[dict]) -> list[str]:
    """The columns of all rows, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def numeric(rows: list[dict], column: str) -> bool:
    """Whether a column holds a number, and no text beside numbers and gaps ("", "-", nan, n/a)."""
    filled = [
        number(row.get(column)) for row in rows if not MISSING.fullmatch(cell(row.get(column)))
    ]
    return bool(filled) and None not in filled


def markdown(rows: list[dict]) -> str:
    """Rows as an aligned Markdown table, numbers to the right."""
    columns = columns_of(rows)
    table = [columns] + [[cell(row.get(name)) for name in columns] for row in rows]
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
def printed(rows: list[dict]) -> Iterator[None]:
    """Prints the rows that there are at the end, whatever ends it, such as a full disk."""
    try:
        yield
    finally:
        if rows:
            print(markdown(rows))


GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma sigma tau upsilon phi chi psi omega"
GREEK += " Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
SYMBOLS = {
    "±": r"\pm",
    "−": "-",
    "×": r"\times",
    "·": r"\cdot",
    "≤": r"\le",
    "≥": r"\ge",
    "≈": r"\approx",
    "→": r"\to",
    "∞": r"\infty",
}
SYMBOLS |= {"↑": r"\uparrow", "↓": r"\downarrow", "√": r"\surd", "<": "<", ">": ">", "|": "|"}
SYMBOLS |= {
    letter: f"\\{name}"
    for letter, name in zip("αβγδεζηθικλμνξπρςστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", GREEK.split(), strict=True)
}
TEX = {letter: f"${name}$" for letter, name in SYMBOLS.items()} | {
    letter: f"\\{letter}" for letter in "#$%&_{}"
}
TEX |= {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    '"': "''",
}
TEX |= {
    letter: f"{{{letter}}}" for letter in "[]*"
}  # an option of the line break before them, if they begin a line
TEX_TABLE = str.maketrans(TEX)


def tex(text: str) -> str:
    """Text as LaTeX prints it, letter by letter; two hyphens stay two."""
    words = " ".join(MINUS.sub("−", text).split())
    return re.sub("-(?=-)", "-{}", words.translate(TEX_TABLE))


def latex(rows: list[dict]) -> str:
    """Rows as a LaTeX tabular, which needs the package booktabs; numbers to the right."""
    columns = columns_of(rows)

    def line(words: list[str]) -> str:
        return f"{' & '.join(map(tex, words))} \\\\"

    body = [line([cell(row.get(name)) for name in columns]) for row in rows]
    head = f"\\begin{{tabular}}{{@{{}}{''.join('r' if numeric(rows, name) else 'l' for name in columns)}@{{}}}}"
    return "\n".join(
        [head, "\\toprule", line(columns), "\\midrule", *body, "\\bottomrule", "\\end{tabular}"]
    )
