"""Reading and drawing the recordings of a calibration."""

from pathlib import Path

import numpy as np

from core.errors import UserError
from core.inputs import existing_file
from data.arrays import BAD_ARRAY
from laboratory.calibration import Calibration, Exposures
from laboratory.readers import read_numbers
from report.figures import WIDE, panels, save_figure, write_below

ARRAY = "rows are exposures, their values are repeats"


def read_exposures(paths: list[str]) -> Exposures:
    """The exposures of files: one in a row of values, several in the rows of an array."""
    exposures = []
    for path in paths:
        for array in arrays_of(Path(path)):
            if array.dtype.kind not in "iuf":
                raise UserError(f"{path} holds {array.dtype} values, but counts are numbers")
            if array.ndim not in (1, 2) or array.size == 0:
                raise UserError(f"{path} has shape {array.shape}: {ARRAY}")
            exposures += [*np.atleast_2d(array).astype(np.float64)]
    return exposures


def arrays_of(path: Path) -> list[np.ndarray]:
    """The arrays of a file: several of .npz, one of all others."""
    existing_file(path, "recording")
    if path.suffix.lower() != ".npz":
        return [read_numbers(path, None, "save the one of the counts alone, or all as .npz")]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in arrays]
    except BAD_ARRAY as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"recording {path} cannot be read: {reason}") from None


def draw_transfer(calibration: Calibration, path: Path) -> None:
    """The variance over the light with the line of the gain, and its ratio to the line."""
    figure, (left, right) = panels(2, 2, WIDE / 2, 3.4)
    transfer, gain = calibration.transfer, calibration.gain
    ends = np.array([0, transfer.light.max() * 1.05])
    bars = {"fmt": "o", "color": "C0", "ms": 4, "capsize": 2, "lw": 1, "label": "exposures"}
    left.errorbar(transfer.light, transfer.variance, 1.96 * transfer.deviation, **bars)
    left.plot(ends, gain.value * ends, color="C1", ls="-", label=f"slope {gain.value:.4g}")
    left.fill_between(ends, gain.low * ends, gain.high * ends, color="C1", alpha=0.25, lw=0)
    left.set(ylabel="variance, white less black (counts²)", xlim=(0, ends[1]), ylim=(0, None))
    left.legend(loc="upper left")
    left.set_title("photon transfer")
    line = gain.value * transfer.light
    right.errorbar(
        transfer.light, transfer.variance / line, 1.96 * transfer.deviation / line, **bars
    )
    right.axhline(1, color="C1", ls="-")
    right.fill_between(
        ends, gain.low / gain.value, gain.high / gain.value, color="C1", alpha=0.25, lw=0
    )
    right.set(ylabel="variance over that of the line", xlim=(0, ends[1]))
    right.set_title("a linear detector and steady light: 1")
    for axis in (left, right):
        axis.set_xlabel("mean, white less black (counts)")
        axis.grid()
    write_below(figure, ["Bars and the band of the slope: 95 % intervals.", *calibration.notes])
    save_figure(figure, path)
