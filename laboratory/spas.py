"""Folders of SPAS, the software of the SPIHIM recordings: counts by wavelength, and a manifest."""

import json
import re
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.inputs import npz_file
from data.arrays import read_arrays
from laboratory.readers import Raw

DATA, MANIFEST = "_spectraldata.npz", "_metadata.json"
PARAMETERS = "Acquisition parameters"  # the class_description of the part that is read


def spas_files(path: Path) -> list[Path]:
    """The files of counts in a folder, or the one that is named."""
    if path.is_dir():
        return sorted(path.glob(f"*{DATA}"))
    return [path] if path.name.endswith(DATA) else []


def read_spas(path: Path, limits: list[float] | None, bins: int) -> Raw:
    """The frames of all acquisitions of a folder, one for each bin of wavelengths."""
    parts = [read_acquisition(file, limits, bins) for file in spas_files(path)]
    first = parts[0]
    for part in parts:
        if part.n != first.n or part.order() != first.order():
            raise UserError(f"{part.names[0]} and {first.names[0]} were measured by other patterns")
    values = np.concatenate([part.values for part in parts])
    names = tuple(name for part in parts for name in part.names)
    return Raw(values, names, first.n, first.walsh, first.notes)


def read_acquisition(file: Path, limits: list[float] | None, bins: int) -> Raw:
    """One acquisition: values (bins, 1, 2 m), of which even ones are behind positive patterns."""
    name = file.name.removesuffix(DATA)
    manifest = file.with_name(name + MANIFEST)
    npz_file(file, "--input")
    counts = read_arrays(file, "spectral_data", what="--input")["spectral_data"]
    if counts.ndim != 2 or counts.dtype.kind not in "iuf" or not counts.size:
        raise UserError(
            f"{file}: its spectral_data is {counts.dtype} {counts.shape}, "
            "not numbers (shots, wavelengths)"
        )
    parameters = read_manifest(manifest)
    n, walsh = read_patterns(parameters, manifest)
    if len(counts) != 2 * len(walsh):
        raise UserError(
            f"{file} has {len(counts)} shots, but {manifest} lists {2 * len(walsh)} patterns"
        )
    wavelengths = read_wavelengths(parameters, manifest, counts.shape[1], limits)
    columns = np.arange(counts.shape[1])
    if wavelengths is not None and limits:
        columns = columns[(limits[0] <= wavelengths) & (wavelengths <= limits[1])]
    parts = split_bins(columns, limits, bins, manifest)
    frames = np.stack([counts[:, part].astype(np.float64).sum(1) for part in parts])
    names = tuple(f"{name}_{label_of(wavelengths, part)}" for part in parts)
    return Raw(
        frames[:, None], names, n, walsh, {"bands": [list(map(int, p[[0, -1]])) for p in parts]}
    )


def read_manifest(path: Path) -> dict:
    """The parameters of the acquisition, wherever they are in the list of a manifest."""
    if not path.is_file():
        raise UserError(f"{path} is missing: it lists the patterns")
    try:
        parts = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError):
        raise UserError(f"{path} is not JSON") from None
    parts = parts if isinstance(parts, list) else [parts]
    found = [
        part
        for part in parts
        if isinstance(part, dict) and part.get("class_description") == PARAMETERS
    ]
    if len(found) != 1:
        raise UserError(
            f"{path} has {len(found)} parts of class_description '{PARAMETERS}'; one is needed"
        )
    return found[0]


def numbers_of(parameters: dict, name: str, manifest: Path) -> list[float]:
    """A list in a manifest, which is text such as "[1, 2]" or "[np.int32(1), np.int32(2)]"."""
    value = parameters.get(name)
    text = re.sub(r"np\.\w+\(|\)", "", value if isinstance(value, str) else json.dumps(value))
    if not re.fullmatch(r"\[[-+.,\d\seE]*\]", text.strip()):
        raise UserError(f"{manifest}: its {name} is not a list of numbers")
    words = text.strip()[1:-1].replace(",", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise UserError(f"{manifest}: its {name} is not a list of numbers") from None


def read_patterns(parameters: dict, manifest: Path) -> tuple[int, np.ndarray]:
    """The side of the patterns and the Walsh numbers of the pairs in measuring order."""
    sides = [parameters.get(f"pattern_dimension_{axis}") for axis in "xy"]
    n = sides[0]
    if not isinstance(n, int) or sides[0] != sides[1] or not 2 <= n <= 4096 or n & (n - 1):
        raise UserError(
            f"{manifest}: its patterns are {sides[0]} x {sides[1]}; squares whose side is a power "
            "of two are read"
        )
    if parameters.get("mask_index") not in (None, "", "[]", "]", []):
        raise UserError(f"{manifest}: patterns of a region of any shape (mask_index) are not read")
    patterns = np.array(numbers_of(parameters, "patterns", manifest))
    positive, negative = patterns[0::2], patterns[1::2]
    in_pairs = len(patterns) and len(positive) == len(negative)
    if not in_pairs or (positive % 2).any() or (negative != positive + 1).any():
        raise UserError(
            f"{manifest}: its patterns are not pairs 2k, 2k + 1 of a positive and a negative one"
        )
    walsh = (positive / 2).astype(int)
    if len(set(walsh)) < len(walsh) or not 0 <= walsh.min() <= walsh.max() < n * n:
        raise UserError(
            f"{manifest}: its patterns are not different ones of the {n * n} of {n} x {n}"
        )
    return n, walsh


def read_wavelengths(
    parameters: dict, manifest: Path, count: int, limits: list[float] | None
) -> np.ndarray | None:
    """The wavelength of each column, where the manifest has them."""
    if parameters.get("wavelengths") in (None, "", "[]"):
        if limits:
            raise UserError(f"bands: {manifest} has no wavelengths; leave out --bands")
        return None
    wavelengths = np.array(numbers_of(parameters, "wavelengths", manifest))
    if len(wavelengths) != count:
        raise UserError(
            f"{manifest} lists {len(wavelengths)} wavelengths, but the counts have {count}"
        )
    return wavelengths


def split_bins(
    columns: np.ndarray, limits: list[float] | None, bins: int, manifest: Path
) -> list[np.ndarray]:
    """The columns of each bin: as many for each, whose counts are summed."""
    size = len(columns) // bins
    if not size:
        between = f" from {limits[0]:g} to {limits[1]:g}" if limits else ""
        raise UserError(f"band_count {bins}: {manifest} has {len(columns)} wavelengths{between}")
    return list(columns[: size * bins].reshape(bins, size))


def label_of(wavelengths: np.ndarray | None, part: np.ndarray) -> str:
    """A bin in the name of a frame."""
    if wavelengths is None:
        return f"columns_{part[0]}_{part[-1]}"
    return f"{wavelengths[part[0]]:.0f}_{wavelengths[part[-1]]:.0f}_nm"
