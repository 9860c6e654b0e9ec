"""Recordings of a laboratory: measured values without clean images, in one .npz file.

The truth of a simulated recording is in a second file, which no training opens.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError, in_a_line
from core.files import durable
from core.inputs import npz_file
from data.arrays import read_arrays
from data.splits import SPLITS
from recordings.checks import check_recording

FORMAT = 1
NEEDED = ("config", "calibration", "patterns", "patterns_digest", "values", "variance")
NEEDED += ("split", "names", "format", "digest")
OPTIONAL = ("counts", "labels", "classes")


@dataclass(frozen=True, eq=False)
class Recording:
    """The measured values of some frames, and what is known of the apparatus."""

    config: dict  # of the physics of the apparatus
    patterns: Tensor  # places (n, n) over the natural-order Hadamard grid, or rows (M, n²)
    values: Tensor  # (N, C, m) orthonormal coefficients in measuring order
    variance: Tensor  # (N, C, m) or (N, C, 1), of their noise
    split: Tensor  # (N,) bytes: 0 training, 1 validation, 2 test
    names: tuple[str, ...]  # of the frames
    counts: Tensor | None = None  # (N, C, m, 2) of the two patterns of each pair
    labels: Tensor | None = None  # (N,) classes
    classes: tuple[str, ...] = ()
    calibration: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def m(self) -> int:
        return self.values.shape[2]

    @property
    def is_hadamard(self) -> bool:
        n = self.config["n"]
        return self.patterns.shape == (n, n)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the content."""
        return digest_of(arrays_of(self))

    @cached_property
    def index(self) -> Tensor:
        """Where the values are in a flattened y, (m,)."""
        if not self.is_hadamard:
            return torch.arange(self.m)
        return self.patterns.flatten().argsort()[: self.m]

    def place(self, values: Tensor) -> Tensor:
        """Values (B, C, m) or (B, C, 1) as a y of the physics, zero where nothing was measured."""
        values = values.expand(-1, -1, self.m)
        if not self.is_hadamard:
            return values.clone()
        n = self.config["n"]
        y = torch.zeros(*values.shape[:2], n * n)
        return y.index_copy(2, self.index, values).unflatten(2, (n, n))

    def grid(self) -> tuple[Tensor, Tensor]:
        """All values and their variances as the physics lays out y: (N, C, n, n) or (N, C, m)."""
        return self.place(self.values), self.place(self.variance)

    def mask(self) -> Tensor:
        """Which Hadamard coefficients were measured, (n, n)."""
        assert self.is_hadamard, "only Hadamard patterns have places on a grid"
        return self.patterns < self.m

    def frames(self, split: str) -> Tensor:
        """The numbers of the frames of a split."""
        return (self.split == SPLITS.index(split)).nonzero().flatten()


# ---------------------------------------------------------------- files


def digest_of(arrays: dict[str, np.ndarray]) -> str:
    """The SHA-256 of named arrays with their types and shapes."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape};".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def arrays_of(recording: Recording) -> dict[str, np.ndarray]:
    """The content of a recording as arrays without objects."""
    patterns = recording.patterns.numpy()
    arrays = {
        "format": np.array(FORMAT),
        "config": np.array(json.dumps(recording.config, sort_keys=True)),
        "calibration": np.array(json.dumps(recording.calibration, sort_keys=True)),
        "patterns": patterns,
        "patterns_digest": np.array(digest_of({"patterns": patterns})),
        "values": recording.values.numpy(),
        "variance": recording.variance.numpy(),
        "split": recording.split.numpy(),
        "names": np.array(recording.names),
    }
    if recording.counts is not None:
        arrays["counts"] = recording.counts.numpy()
    if recording.labels is not None:
        arrays["labels"] = recording.labels.numpy()
        arrays["classes"] = np.array(recording.classes)
    return arrays


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays in an .npz file, whole or not at all."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    durable(path, write)


def write_recording(path: Path, recording: Recording) -> None:
    check_recording(recording, path)
    save_arrays(path, arrays_of(recording) | {"digest": np.array(recording.digest)})


def truth_path(path: str | Path) -> Path:
    """The file of the clean images of a simulated recording."""
    path = Path(path)
    return path.with_name(f"{path.stem}_truth{path.suffix}")


def write_truth(path: Path, images: Tensor, recording: Recording) -> None:
    """The clean images (N, C, n, n) of a recording's frames."""
    of = np.array(recording.digest)
    save_arrays(path, {"format": np.array(FORMAT), "images": images.numpy(), "recording": of})


def read_recording(path: str | Path) -> Recording:
    """The recording of a file, whose digest agrees with its content."""
    path, what = Path(path), "recording"
    npz_file(path, what)
    arrays = read_arrays(path, what=what)
    if "recording" in arrays and "images" in arrays:
        raise UserError(
            f"recording {path} holds the truth of a recording, which no training may open: "
            "give the recording itself"
        )
    lacking = [name for name in NEEDED if name not in arrays]
    if lacking:
        raise UserError(
            f"recording {path} lacks {', '.join(lacking)}: acquire.py makes recordings, "
            "and imports the files of others"
        )
    check_format(arrays, what, path)
    check_arrays(arrays, path)
    written = str(arrays.pop("digest"))
    if digest_of(arrays) != written:
        raise UserError(
            f"recording {path} was changed after it was written: its digest is {written[:12]}, "
            f"but that of its content is {digest_of(arrays)[:12]}; make it again by acquire.py"
        )
    recording = parse_recording(arrays, path)
    check_recording(recording, path)
    return recording


def read_truth(path: str | Path, recording: Recording) -> Tensor:
    """The clean images (N, C, n, n) of a recording's frames."""
    path, what = Path(path), "truth"
    npz_file(path, what)
    arrays = read_arrays(path, what=what)
    if "values" in arrays and "patterns" in arrays:
        raise UserError(f"truth {path} is a recording itself: give the file of its clean images")
    lacking = [name for name in ("format", "images", "recording") if name not in arrays]
    if lacking:
        raise UserError(
            f"truth {path} lacks {', '.join(lacking)}: acquire.py simulate writes such a file"
        )
    check_format(arrays, what, path)
    if str(arrays["recording"]) != recording.digest:
        raise UserError(
            f"truth {path} belongs to recording {str(arrays['recording'])[:12]}, "
            f"not to {recording.digest[:12]}: give the truth of this recording"
        )
    n, c = recording.config["n"], recording.config["c"]
    images = arrays["images"]
    if images.dtype != np.float32 or images.shape != (len(recording), c, n, n):
        raise UserError(
            f"truth {path}: its images are {images.dtype} {images.shape}, "
            f"not float32 {(len(recording), c, n, n)}"
        )
    if not np.isfinite(images).all():
        raise UserError(f"truth {path}: its images are not all finite")
    return torch.from_numpy(images)


def check_format(arrays: dict[str, np.ndarray], what: str, path: Path) -> None:
    """Refuses a file of another version."""
    number = arrays["format"]
    if number.shape != () or number.dtype.kind not in "iu" or int(number) != FORMAT:
        raise UserError(
            f"{what} {path} has format {in_a_line(str(number))}, but this version reads {FORMAT}"
        )


def check_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Refuses arrays that no recording has, and those of neither numbers nor text."""
    for name, array in arrays.items():
        if name not in (*NEEDED, *OPTIONAL):
            raise UserError(
                f"recording {path} has an array '{in_a_line(name):.40}', which no recording has: "
                "leave it out, and make the file by acquire.py"
            )
        if array.dtype.kind not in "iufU":
            raise UserError(f"recording {path}: its {name} are {array.dtype}, not numbers or text")


def parse_recording(arrays: dict[str, np.ndarray], path: Path) -> Recording:
    """A recording of the arrays of its file."""
    dicts = {}
    for name in ("config", "calibration"):
        try:
            dicts[name] = json.loads(str(arrays[name]))
        except (ValueError, RecursionError):
            raise UserError(f"recording {path}: its {name} is not JSON") from None
        if not isinstance(dicts[name], dict):
            raise UserError(f"recording {path}: its {name} is not a set of names and values")
    tensors = {}
    for name in ("patterns", "values", "variance", "split", "counts", "labels"):
        if name not in arrays:
            continue
        if arrays[name].dtype.kind not in "iuf" or not arrays[name].dtype.isnative:
            raise UserError(f"recording {path}: its {name} are {arrays[name].dtype}, not numbers")
        tensors[name] = torch.from_numpy(arrays[name])
    names = tuple(arrays["names"].astype(str).ravel().tolist())
    classes = tuple(arrays.get("classes", np.array([], str)).astype(str).ravel().tolist())
    return Recording(**dicts, **tensors, names=names, classes=classes)
