"""What the benchmark writes: table, figure, targets."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt

from core.files import folder_for, write_csv, write_text
from report.figures import COLORS, SMALLEST, save_figure, use_decimal_labels
from report.tables import markdown

COLUMNS = (
    *("group", "case", "contender", "n", "width", "batch", "seconds", "ratio"),
    *("images/s", "GFLOP/s", "MiB", "epoch (s)", "of the matrix peak"),
)
STEP = "distilled, step"


def found(rows: list[dict], column: str, **what) -> float | None:
    """The value of a column in the row that has these others."""
    return next(
        (
            row[column]
            for row in rows
            if all(row.get(name) == value for name, value in what.items())
        ),
        None,
    )


def targets(rows: list[dict], device: str) -> list[dict]:
    """What was asked of the machine at hand, and what was measured; nothing where it was not run."""
    cpu = rows if device == "cpu" else []
    step = {"case": STEP, "n": 32, "batch": 50}
    limit = found(cpu, "ratio", **step, width=64, contender="limit (c)")
    release = next(
        (
            r["ratio"]
            for r in cpu
            if r["case"].startswith("distilled by ")
            and r["contender"] == "plain loop"
            and r["batch"] == 50
        ),
        None,
    )
    asked = [
        ("CPU, distilled step, width 64: ours / limit (c)", "<=", 1.1, limit and 1 / limit),
        (
            "CPU, distilled step, width 64: plain loop / ours",
            ">=",
            1.3,
            found(cpu, "ratio", **step, width=64, contender="plain loop"),
        ),
        (
            "CPU, distilled step, width 16: plain loop / ours",
            ">=",
            2.0,
            found(cpu, "ratio", **step, width=16, contender="plain loop"),
        ),
        ("CPU, distilled step, --teacher: plain loop / ours", ">=", 10.0, release),
        (
            "physics, n 256: deepinv / ours",
            ">=",
            5.0,
            found(rows, "ratio", case="first image, 256 x 256", contender="deepinv"),
        ),
        (
            "observation, 1024 x 1024, MiB",
            "<",
            1024.0,
            found(rows, "MiB", n=1024, contender="ours", group="physics", case=MEMORY),
        ),
        (
            "CUDA, epoch of 60,000 images, width 64, bf16, s",
            "<",
            2.0,
            epoch_of(rows) if device == "cuda" else None,
        ),
    ]
    return [
        {"target": text, "asked": f"{sign} {value:g}", "measured": m, "": verdict(sign, value, m)}
        for text, sign, value, m in asked
    ]


MEMORY = "memory of an observation, 1024 x 1024"


def epoch_of(rows: list[dict]) -> float | None:
    return found(rows, "epoch (s)", contender="60,000 images", width=64)


def verdict(sign: str, asked: float, measured: float | None) -> str:
    if measured is None:
        return "not run"
    return (
        "met"
        if {"<=": measured <= asked, "<": measured < asked, ">=": measured >= asked}[sign]
        else "missed"
    )


def report(rows: list[dict], head: str, asked: list[dict]) -> str:
    """The tables as text."""
    parts = [f"{title}\n\n{markdown(group)}" for title, group in grouped(rows).items()]
    return "\n\n".join([head, NOTE, *parts, markdown(asked)])


def write(rows: list[dict], text: str, folder: Path) -> None:
    """table.csv, figure.png, and the text as report.md."""
    folder = folder_for(folder, "benchmark")
    write_csv(folder / "table.csv", [{name: row.get(name, "") for name in COLUMNS} for row in rows])
    draw(rows, folder / "figure.png")
    write_text(folder / "report.md", f"# Benchmark\n\n{text}\n\n![times](figure.png)\n")


NOTE = (
    "Medians over the rounds, in which the contenders take turns; `ratio` is the median over the rounds of a contender's time to that "
    "of the first line of its case. Limit (c) is the student's forward and backward pass alone on a resident batch, with the teacher's "
    "forward pass where images are augmented; limit (d) is the time of the same arithmetic at the machine's fastest convolution. "
    "The images are scikit-learn's digits in MNIST's shape, over and over."
)


def grouped(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each group as they are read: milliseconds, and no column that is empty."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        shown = {
            "ms" if name == "seconds" else name: value
            for name, value in row.items()
            if name != "group"
        }
        groups.setdefault(f"## {row['group']}", []).append(
            shown | ({"ms": 1e3 * row["seconds"]} if "seconds" in row else {})
        )
    return groups


def draw(rows: list[dict], path: Path) -> None:
    """One panel a group that was run."""
    panels: dict[str, Callable] = {
        "training": ratios,
        "inference": ratios,
        "physics": over_sizes,
        "losses": ratios,
        "scaling": ratios,
        "peak": rates,
    }
    groups = {
        name: [row for row in rows if row["group"] == name and "seconds" in row] for name in panels
    }
    groups = {name: some for name, some in groups.items() if some}
    heights = [
        max(2.2, 0.2 * len(some)) if panels[name] is not over_sizes else 3.0
        for name, some in groups.items()
    ]
    figure, axes = plt.subplots(
        len(groups),
        1,
        figsize=(9, sum(heights) + 0.7 * len(groups)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, some) in zip(axes[:, 0], groups.items(), strict=True):
        panels[name](axis, some)
        axis.set_title(name)
        axis.grid()
    save_figure(figure, path)


def ratios(axis: plt.Axes, rows: list[dict]) -> None:
    """Ratios to the first line of each case."""
    names = [
        f"{row['case']}{', width ' + str(row['width']) if 'width' in row else ''}: {row['contender']}"
        for row in rows
    ]
    for k, row in enumerate(rows):
        how = {"color": COLORS[0] if row["ratio"] == 1 else COLORS[1], "ls": "-", "lw": 2}
        axis.plot((1, row["ratio"]), (k, k), **how)
        axis.plot(row["ratio"], k, "o", color=how["color"])
    axis.set_yticks(range(len(rows)), names, fontsize=SMALLEST)
    axis.axvline(1, color="black", lw=0.8, ls="-")
    axis.set(xscale="log", xlabel="time / time of the first of its case")
    use_decimal_labels(axis.xaxis)
    axis.invert_yaxis()


def rates(axis: plt.Axes, rows: list[dict]) -> None:
    axis.barh([row["contender"] for row in rows], [row["GFLOP/s"] for row in rows], height=0.5)
    axis.tick_params(axis="y", labelsize=SMALLEST)
    axis.set(xlabel="GFLOP/s")


def over_sizes(axis: plt.Axes, rows: list[dict]) -> None:
    """Time of an image over its side."""
    for name in dict.fromkeys(row["contender"] for row in rows):
        some = [row for row in rows if row["contender"] == name]
        axis.plot(
            [row["n"] for row in some],
            [1e3 * row["seconds"] / row["batch"] for row in some],
            marker="o",
            label=name,
        )
    axis.set(xscale="log", yscale="log", xlabel="side n (pixels)", ylabel="ms an image")
    use_decimal_labels(axis.yaxis)
    sides = sorted({row["n"] for row in rows})
    axis.set_xticks(sides, map(str, sides))
    axis.minorticks_off()
    axis.legend()
