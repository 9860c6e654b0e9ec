"""What the benchmark writes: table, figure, goals."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from core.files import folder_for, write_csv, write_text
from report.figures import COLORS, SMALLEST, save_figure, use_decimal_labels
from report.tables import markdown

COLUMNS = (
    *("group", "case", "candidate", "n", "width", "batch", "seconds", "ratio"),
    *("images/s", "99th percentile (ms)", "GFLOP/s", "MiB", "epoch (s)", "of the matrix peak"),
)
STEP = "distilled, step"
MEMORY = "memory of an observation, 1024 x 1024"
NOTE = """\
Medians over the rounds, in which the candidates take turns; `ratio` is the median over the rounds \
of a candidate's time to that of the first line of its case. Limit (c) is the student's forward \
and backward pass alone on a resident batch, with the teacher's forward pass where images are \
augmented; limit (d) is the time of the same arithmetic at the machine's fastest convolution. The \
images are scikit-learn's digits in MNIST's shape, over and over."""


# ---------------------------------------------------------------- goals


def find_value(rows: list[dict], column: str, **others) -> float | None:
    """The value of a column in the first row that has these others."""
    for row in rows:
        if all(row.get(name) == value for name, value in others.items()):
            return row[column]
    return None


def check_goals(rows: list[dict], device: str) -> list[dict]:
    """The goals for the machine at hand and what was measured; nothing where it was not run."""
    on_cpu = rows if device == "cpu" else []
    step = {"case": STEP, "n": 32, "batch": 50}
    limit = find_value(on_cpu, "ratio", **step, width=64, candidate="limit (c)")
    wide, narrow = (
        find_value(on_cpu, "ratio", **step, width=width, candidate="baseline loop")
        for width in (64, 16)
    )
    by_teacher = [row for row in on_cpu if row["case"].startswith("distilled by ")]
    teacher = find_value(by_teacher, "ratio", candidate="baseline loop", batch=50)
    deepinv = find_value(rows, "ratio", case="first image, 256 x 256", candidate="deepinv")
    memory = find_value(rows, "MiB", n=1024, candidate="ours", group="physics", case=MEMORY)
    epoch = find_value(rows, "epoch (s)", candidate="60,000 images", width=64)
    unet, unrolled = (
        find_value(on_cpu, "images/s", group="live", candidate=name)
        for name in ("U-Net, width 16", "unrolled")
    )
    goals = [
        ("CPU, distilled step, width 64: ours / limit (c)", "<=", 1.1, limit and 1 / limit),
        ("CPU, distilled step, width 64: baseline loop / ours", ">=", 1.3, wide),
        ("CPU, distilled step, width 16: baseline loop / ours", ">=", 2.0, narrow),
        ("CPU, distilled step, --teacher: baseline loop / ours", ">=", 10.0, teacher),
        ("physics, n 256: deepinv / ours", ">=", 5.0, deepinv),
        ("observation, 1024 x 1024, MiB", "<", 1024.0, memory),
        ("CPU, live, 128 x 128, U-Net of width 16: frames a second", ">=", 100.0, unet),
        ("CPU, live, 128 x 128, unrolled: frames a second", ">=", 30.0, unrolled),
        (
            "CUDA, epoch of 60,000 images, width 64, bf16, s",
            "<",
            2.0,
            epoch if device == "cuda" else None,
        ),
    ]
    return [
        {
            "case": text,
            "goal": f"{sign} {value:g}",
            "measured": measured,
            "": check_goal(sign, value, measured),
        }
        for text, sign, value, measured in goals
    ]


def check_goal(sign: str, goal: float, measured: float | None) -> str:
    if measured is None:
        return "not run"
    met = {"<=": measured <= goal, "<": measured < goal, ">=": measured >= goal}[sign]
    return "met" if met else "missed"


# ---------------------------------------------------------------- text and files


def format_benchmark(rows: list[dict], head: str, goals: list[dict]) -> str:
    """The tables as text."""
    parts = [f"## {name}\n\n{markdown(group)}" for name, group in group_tables(rows).items()]
    return "\n\n".join([head, NOTE, *parts, markdown(goals)])


def write_benchmark(rows: list[dict], text: str, folder: Path) -> None:
    """table.csv, figure.png, and the text as report.md."""
    folder = folder_for(folder, "benchmark")
    write_csv(folder / "table.csv", [{name: row.get(name, "") for name in COLUMNS} for row in rows])
    draw_benchmark(rows, folder / "figure.png")
    write_text(folder / "report.md", f"# Benchmark\n\n{text}\n\n![times](figure.png)\n")


def group_tables(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each group as they are printed, with milliseconds."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        printed = {
            "ms" if name == "seconds" else name: 1e3 * value if name == "seconds" else value
            for name, value in row.items()
            if name != "group"
        }
        groups.setdefault(row["group"], []).append(printed)
    return groups


# ---------------------------------------------------------------- figure


def draw_benchmark(rows: list[dict], path: Path) -> None:
    """One panel a group that was run."""
    plots: dict[str, Callable[[Axes, list[dict]], None]] = {
        "training": plot_ratios,
        "inference": plot_ratios,
        "physics": plot_sizes,
        "losses": plot_ratios,
        "scaling": plot_ratios,
        "peak": plot_rates,
        "live": plot_ratios,
    }
    groups = {
        name: [row for row in rows if row["group"] == name and "seconds" in row] for name in plots
    }
    groups = {name: group for name, group in groups.items() if group}
    heights = [
        3.0 if plots[name] is plot_sizes else max(2.2, 0.2 * len(group))
        for name, group in groups.items()
    ]
    figure, axes = plt.subplots(
        len(groups),
        1,
        figsize=(9, sum(heights) + 0.7 * len(groups)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, group) in zip(axes[:, 0], groups.items(), strict=True):
        plots[name](axis, group)
        axis.set_title(name)
        axis.grid()
    save_figure(figure, path)


def plot_ratios(axis: Axes, rows: list[dict]) -> None:
    """Ratios to the first line of each case."""
    names = []
    for k, row in enumerate(rows):
        width = f", width {row['width']}" if "width" in row else ""
        names.append(f"{row['case']}{width}: {row['candidate']}")
        color = COLORS[0] if row["ratio"] == 1 else COLORS[1]
        axis.plot((1, row["ratio"]), (k, k), color=color, ls="-", lw=2)
        axis.plot(row["ratio"], k, "o", color=color)
    axis.set_yticks(range(len(rows)), names, fontsize=SMALLEST)
    axis.axvline(1, color="black", lw=0.8, ls="-")
    axis.set(xscale="log", xlabel="time / time of the first of its case")
    use_decimal_labels(axis.xaxis)
    axis.invert_yaxis()


def plot_rates(axis: Axes, rows: list[dict]) -> None:
    axis.barh([row["candidate"] for row in rows], [row["GFLOP/s"] for row in rows], height=0.5)
    axis.tick_params(axis="y", labelsize=SMALLEST)
    axis.set(xlabel="GFLOP/s")


def plot_sizes(axis: Axes, rows: list[dict]) -> None:
    """Time of an image over its side."""
    for name in dict.fromkeys(row["candidate"] for row in rows):
        own = [row for row in rows if row["candidate"] == name]
        milliseconds = [1e3 * row["seconds"] / row["batch"] for row in own]
        axis.plot([row["n"] for row in own], milliseconds, marker="o", label=name)
    axis.set(xscale="log", yscale="log", xlabel="side n (pixels)", ylabel="ms an image")
    use_decimal_labels(axis.yaxis)
    sides = sorted({row["n"] for row in rows})
    axis.set_xticks(sides, [str(side) for side in sides])
    axis.minorticks_off()
    axis.legend()
