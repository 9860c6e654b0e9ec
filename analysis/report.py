"""Tables for the terminal and for Markdown."""


def cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def markdown(rows: list[dict]) -> str:
    """Rows as an aligned Markdown table, numbers to the right."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = [columns] + [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[j]) for line in table) for j in range(len(columns))]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns]

    def line(words: list[str]) -> str:
        padded = [word.rjust(w) if r else word.ljust(w) for word, w, r in zip(words, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([line(columns), line(rule), *map(line, table[1:])])
