"""Figures of the gain of each setting over the student that is not adapted."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from laboratory.comparison import MOST_COLUMNS, ORACLE, Cell, Table, cells_of, settings_of
from report import figures
from report.statistics import Summary

LIGHTS = ("photons", "noise", "awgn_snr")  # what a gain is drawn over, from much light to little
FRAMES = "frames"
MARKERS = "osD^v<>Pp*"
ORACLE_COLOR = "0.55"
AXES = {
    "photons": "photons (none: no noise)",
    "noise": "noise of a value",
    FRAMES: "recorded frames",
}
ROOM = 1.5  # times the largest gain: harm below minus that leaves the panel


@dataclass(frozen=True)
class Point:
    """A gain at one value of what varies."""

    value: object
    gain: Summary


Panels = dict[str, dict[str, list[Point]]]  # titles, names of settings, points


def plot_over_light(table: Table) -> Figure | None:
    """The cross-over in light: gains over photons or noise, a panel for the rest of the cell."""
    name = next((name for name in LIGHTS if varies(table, name)), None)
    if name is None:
        return None
    return draw(panels_over(table, name), name, logarithmic=False)


def plot_over_frames(table: Table) -> Figure | None:
    """Gains over the number of recorded frames."""
    if not varies(table, FRAMES):
        return None
    return draw(panels_over(table, FRAMES), FRAMES, logarithmic=True)


def varies(table: Table, name: str) -> bool:
    return len({dict(cell).get(name) for cell in table}) > 1


def panels_over(table: Table, name: str) -> Panels:
    """The lines of all settings, or where they are many of those with labels alone."""
    panels, few = Panels(), len(settings_of(table)) <= MOST_COLUMNS
    for cell, columns in table.items():
        for setting, column in columns.items():
            if few or setting == column.first.labels:
                lines = panels.setdefault(title_of(cell, name), {})
                point = Point(dict(cell).get(name), column.gain)
                lines.setdefault(setting, []).append(point)
    return panels


def title_of(cell: Cell, name: str) -> str:
    """The rest of a cell."""
    rest = {other: value for other, value in cells_of(cell).items() if other != name}
    kind = rest.pop("dataset", None)
    words = [str(kind)] if kind is not None else []
    return ", ".join(words + [f"{other} {value}" for other, value in rest.items()])


def place_of(value: object) -> tuple[int, float]:
    """In the order of light: none, which is no noise, comes first, then many photons."""
    return (0, 0.0) if value is None else (1, float(str(value)))


def draw(panels: Panels, name: str, logarithmic: bool) -> Figure:
    """Panels of lines, with one legend for all above them."""
    figure, axes = figures.panels(len(panels), 2, figures.NARROW, 2.5)
    points = [point for lines in panels.values() for line in lines.values() for point in line]
    values = sorted({point.value for point in points}, key=place_of)
    if name in ("photons", "awgn_snr"):  # from much light to little
        values = [v for v in values if v is None] + [v for v in values if v is not None][::-1]
    settings = list(dict.fromkeys(setting for lines in panels.values() for setting in lines))
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for setting, line in lines.items():
            draw_line(axis, setting, settings, line, values, logarithmic)
        axis.axhline(0, color="black", lw=0.8, ls="-")
        axis.set(title=title, xlabel=AXES.get(name, name), ylabel="gain (dB)")
        if logarithmic:
            axis.set_xscale("log")
            places = [float(str(value)) for value in values]
            axis.set_xticks(places, [f"{place:g}" for place in places])
            axis.minorticks_off()
        else:
            labels = ["none" if value is None else f"{value:g}" for value in values]
            axis.set_xticks(range(len(values)), labels)
        limit(axis, lines)
        axis.grid()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def draw_line(
    axis: Axes,
    setting: str,
    settings: list[str],
    line: list[Point],
    values: list,
    logarithmic: bool,
) -> None:
    """The gains of one setting with their intervals, beside those of the others."""
    k = settings.index(setting)
    line = sorted(line, key=lambda point: values.index(point.value))
    shift = (k - (len(settings) - 1) / 2) * 0.3 / len(settings)
    if logarithmic:
        x = [float(str(point.value)) * 10 ** (0.3 * shift) for point in line]
    else:
        x = [values.index(point.value) + shift for point in line]
    y = [point.gain.mean for point in line]
    half = [point.gain.high - point.gain.mean for point in line]
    has_interval = all(value == value for value in half)
    axis.errorbar(
        x,
        y,
        half if has_interval else None,
        label=setting,
        marker=MARKERS[k % len(MARKERS)],
        color=ORACLE_COLOR if setting == ORACLE else figures.COLORS[k % len(figures.COLORS)],
        ls=figures.DASHES[k % len(figures.DASHES)],
        capsize=2,
    )


def limit(axis: Axes, lines: dict[str, list[Point]]) -> None:
    """Shows all gains; harm much larger than the largest gain leaves the panel at the bottom."""
    gains = [point.gain for line in lines.values() for point in line]
    ends = [end for gain in gains for end in (gain.mean, gain.low, gain.high) if end == end]
    highest = max(*(gain.mean for gain in gains), 0.1)
    top, low = max(*ends, 0.1), max(min(*ends, 0.0), -ROOM * highest)
    axis.set_ylim(low - 0.1 * (top - low), top + 0.1 * (top - low))
