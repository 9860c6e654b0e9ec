"""Recordings of other people: values in an order, in pairs, of a scale, with noise of a size."""

from argparse import Namespace
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algo_functions import build_physics
from core.errors import UserError, in_a_line
from core.inputs import read_calibration
from core.registry import LIGHT
from data.splits import shuffled_order
from laboratory.checks import Problem, find_problems, spread_of_neighbours, sums_of
from laboratory.orders import patterns_in_order, places_of, walsh_places
from laboratory.readers import Raw, read_raw
from laboratory.report import describe, next_command
from laboratory.spas import read_spas, spas_files
from physics.orderings import is_hadamard
from physics.single_pixel import SinglePixel
from recordings.file import Recording, write_recording

WHITE = 0.999  # share of the pixels of all back-projections that scale auto makes at most 1
NORMAL = 0.6745  # median of |z| of a standard normal z
BRIEF = 3  # frames that a message names


# ---------------------------------------------------------------- values


def pair_up(values: np.ndarray, pairs: str) -> np.ndarray:
    """(N, C, m, 2) of values of both patterns of each pair."""
    if values.shape[-1] % 2:
        raise UserError(
            f"pairs {pairs}: a frame has {values.shape[-1]} values, an odd number; "
            "--pairs none is for values that are differences already"
        )
    if pairs == "interleaved":
        return np.stack((values[..., 0::2], values[..., 1::2]), axis=-1)
    half = values.shape[-1] // 2
    return np.stack((values[..., :half], values[..., half:]), axis=-1)


def side_of(args: Namespace, m: int) -> int:
    """--n, or the side of the images whose patterns were all shown."""
    if args.n is not None:
        if m > args.n**2:
            raise UserError(
                f"a frame has {m} values, but {args.n} x {args.n} pixels have {args.n**2} "
                "patterns: another --n or --pairs?"
            )
        return args.n
    n = isqrt(m)
    if n * n != m or n & (n - 1):
        raise UserError(
            f"a frame has {m} values, which is no square of a power of two: "
            "give the side of the images by --n, or another --pairs"
        )
    return n


def scale_of(values: np.ndarray, physics: SinglePixel, scale: str | float) -> np.ndarray:
    """The factor (N, 1, 1) that takes the light of a white pixel to 1."""
    if not isinstance(scale, str):
        return np.full((len(values), 1, 1), scale)
    images = []
    for part in torch.from_numpy(values).float().split(64):
        images.append(physics.back_projection(physics.place_values(part)).flatten(1))
    pixels = torch.cat(images)
    pixels = pixels if scale == "frame" else pixels.reshape(1, -1)
    last = max(1, round(WHITE * pixels.shape[1]))
    white = pixels.kthvalue(last, dim=1).values.double().expand(len(values))
    if (white <= 0).any():
        raise UserError(f"scale {scale}: a frame has no bright pixel; give a number")
    return (1 / white.numpy())[:, None, None]


def noise_of(
    args: Namespace, pairs: np.ndarray | None, values: np.ndarray, physics: SinglePixel
) -> tuple[np.ndarray, str]:
    """The variance of the values before they are scaled, and where it is from."""
    if args.imported_calibration:
        assert pairs is not None, "a calibration is of counts"
        camera = read_calibration(args.imported_calibration)
        gain, dark, sigma = camera["gain"], camera["dark"], camera["dark_noise"]
        return (gain * (pairs.sum(-1) - 2 * dark) + 2 * sigma**2).clip(0), "calibration and counts"
    of_last, last = last_coefficients(values, physics)[..., None], "last tenth of the values"
    if is_hadamard(physics.patterns, physics.config["n"]):
        last = "coefficients of the highest sequency"
    if pairs is None or pairs.shape[2] <= 2:
        return of_last, f"{last}, which hold some of the image too"
    of_sums, sums = spread_of_neighbours(pairs)[..., None], "spread of the sums of pairs"
    if not are_grey(physics):
        return of_sums, sums
    return np.minimum(of_sums, of_last), (
        f"{sums} or the {last}, the smaller of them, as behind grey patterns both may hold some of "
        "the image too"
    )


def are_grey(physics: SinglePixel) -> bool:
    """Whether a pattern is not ±1, so that a pair in [0, 1] may show less than a white image."""
    if is_hadamard(physics.patterns, physics.config["n"]):
        return False
    rows = physics.rows().abs()
    return not torch.allclose(rows, rows.amax(1, keepdim=True), rtol=1e-3, atol=0)


def last_coefficients(values: np.ndarray, physics: SinglePixel) -> np.ndarray:
    """The variance (N, C) of the tenth of the values that have the highest sequency, by medians."""
    count = max(1, values.shape[-1] // 10)
    n = physics.config["n"]
    chosen = np.arange(values.shape[-1])[-count:]
    if is_hadamard(physics.patterns, n):
        places = walsh_places(n)
        sequency = (places // n + places % n).flatten()[physics.index]
        chosen = sequency.argsort(stable=True)[-count:].numpy()
    last = values[..., chosen]
    deviation = np.abs(last - np.median(last, axis=-1, keepdims=True))
    return np.square(np.median(deviation, axis=-1) / NORMAL)


# ---------------------------------------------------------------- the import


def read_input(args: Namespace) -> Raw:
    """The raw values of --input."""
    path, in_columns = Path(args.input), args.frames_in == "columns"
    if in_columns and (path.is_dir() or spas_files(path)):
        raise UserError(
            f"frames_in columns: only one table has frames in columns, not {path}; "
            "leave out --frames_in"
        )
    if spas_files(path):
        for flag in ("key", "order", "pairs", "n"):
            if getattr(args, flag) is not None:
                raise UserError(f"{flag}: the manifest of {path} says it; leave out --{flag}")
        return read_spas(path, args.bands, args.band_count or 1)
    for flag in ("bands", "band_count"):
        if getattr(args, flag) is not None:
            raise UserError(f"{flag}: only SPAS folders have wavelengths, not {path}")
    if args.order is None:
        raise UserError("which order do the patterns have? give --order, such as natural or walsh")
    return read_raw(path, args.key, in_columns)


def build_camera(args: Namespace, raw: Raw, m: int) -> SinglePixel:
    """The physics of the patterns that were shown."""
    n = raw.n or side_of(args, m)
    if raw.walsh is not None:
        natural = walsh_places(n).flatten().argsort().numpy()[raw.walsh]
        order, patterns = "walsh", places_of(natural, n)
    else:
        order, patterns = args.order, patterns_in_order(args.order, n, m)
    config = {"name": "spc", "n": n, "c": raw.values.shape[1], "cr": m / (n * n)}
    config |= {"ordering": order, "x0": "adjoint", "awgn_snr": None, **LIGHT}
    physics = build_physics(config, state=[{"patterns": patterns, "lmmse": None}])
    assert isinstance(physics, SinglePixel), "its config is that of a single-pixel camera"
    if physics.m != m:
        raise UserError(f"order {order} has {physics.m} patterns for {m} values")
    return physics


def all_ones(physics: SinglePixel) -> int | None:
    """The place of the all-ones pattern among the values."""
    n = physics.config["n"]
    if not is_hadamard(physics.patterns, n):
        return None
    place = int(physics.patterns[0, 0])
    return place if place < physics.m else None


def import_recording(args: Namespace) -> dict:
    """Reads other people's files, checks them, and writes a recording."""
    raw = read_input(args)
    kind = "interleaved" if raw.walsh is not None else args.pairs or "none"
    pairs = None if kind == "none" else pair_up(raw.values, kind)
    if args.imported_calibration and pairs is None:
        raise UserError(
            f"calibration {args.imported_calibration}: it tells the noise of pairs of counts, but "
            "--pairs is none"
        )
    differences = raw.values if pairs is None else pairs[..., 0] - pairs[..., 1]
    physics = build_camera(args, raw, differences.shape[-1])
    if pairs is not None and not are_grey(physics):
        check_pairs(raw.values, pairs, kind)
    problems = [*find_problems(raw.values, differences, all_ones(physics), pairs is not None)]
    kept = choose_frames(problems, raw, args.on_bad_frame)
    differences, pairs = differences[kept], None if pairs is None else pairs[kept]
    recording = build_recording(args, raw, kept, differences, pairs, physics)
    path = Path(args.output)
    write_recording(path, recording)
    if pairs is not None:
        report_sums(pairs, physics)
    print(path)
    source = recording.calibration["noise_from"]
    print(f"{describe(recording)}; noise from the {source}: {noise_words(recording)}")
    print(f"next: {next_command(path, recording)}")
    return {"frames": len(recording), "digest": recording.digest}


def build_recording(
    args: Namespace,
    raw: Raw,
    kept: np.ndarray,
    differences: np.ndarray,
    pairs: np.ndarray | None,
    physics: SinglePixel,
) -> Recording:
    """The recording of the kept frames, from the values of patterns in [-1, 1]."""
    amplitude = amplitude_of(physics, pairs is not None)
    scale = scale_of(differences * amplitude, physics, args.scale)
    factor = scale * amplitude  # (N, 1, m) or (N, 1, 1)
    variance, source = noise_of(args, pairs, differences, physics)
    calibration = {"made_by": "import", "noise_from": source, **raw.notes}
    calibration |= {"scale": scale.ravel().tolist() if args.scale == "frame" else scale.flat[0]}
    if args.imported_calibration:
        calibration |= read_calibration(args.imported_calibration)
    return Recording(
        config=physics.config,
        patterns=physics.patterns,
        values=torch.from_numpy(differences * factor).float(),
        variance=torch.from_numpy(variance * factor**2).float(),
        split=split_frames(len(kept), args.val_share, args.test_share),
        names=tuple(raw.names[k] for k in kept),
        counts=None if pairs is None else torch.from_numpy(pairs).float(),
        calibration=calibration,
    )


def amplitude_of(physics: SinglePixel, in_pairs: bool) -> np.ndarray:
    """What a row of A is of its pattern, (m,), or (1,) where that is one number.

    Single values are those of own rows as they are.
    """
    if not in_pairs and not is_hadamard(physics.patterns, physics.config["n"]):
        return np.ones(1)
    amplitudes = physics.amplitudes.numpy()
    return amplitudes[:1] if (amplitudes == amplitudes[0]).all() else amplitudes


def noise_words(recording: Recording) -> str:
    """The noise of a recording as a ratio to its values."""
    noise = recording.variance.mean().sqrt().item()
    signal = recording.values.square().mean().sqrt().item()
    return f"standard deviation {noise:.3g}, that of the values {signal:.3g}"


def check_pairs(raw: np.ndarray, pairs: np.ndarray, kind: str) -> None:
    """Refuses pairs whose sums are much less equal than those of the other arrangement."""
    if not np.isfinite(raw).all():
        return
    other = "stacked" if kind == "interleaved" else "interleaved"
    spread = np.median(sums_of(pairs).spread)
    other_spread = np.median(sums_of(pair_up(raw, other)).spread)
    if other_spread < spread / 2:
        raise UserError(
            f"pairs {kind}: the sums of the pairs spread by {spread:.1%}, but only by "
            f"{other_spread:.1%} if they are {other}: give --pairs {other}"
        )


def report_sums(pairs: np.ndarray, physics: SinglePixel) -> None:
    """Prints how equal the sums of pairs are, and whether the light drifts."""
    if are_grey(physics):
        print(
            "sums of pairs: not compared, as behind grey patterns they may hold the image; "
            "--calibration gives the noise of counts"
        )
        return
    sums = sums_of(pairs)
    spread, drift = np.median(sums.spread), np.median(np.abs(sums.drift))
    print(
        f"sums of pairs: they spread by {spread:.2%} within a frame, and the light changes by "
        f"{drift:.2%} from its first to its last pair (medians)"
    )


def choose_frames(problems: list[Problem], raw: Raw, on_bad_frame: str) -> np.ndarray:
    """The frames that are imported."""
    frames = np.arange(len(raw.values))
    listed = "; ".join(
        f"frame {one.frame} ({in_a_line(raw.names[one.frame])}): {one.text}"
        for one in problems[:BRIEF]
    )
    listed += f"; and {len(problems) - BRIEF} more" if len(problems) > BRIEF else ""
    if not problems:
        return frames
    if on_bad_frame == "stop":
        raise UserError(f"{listed} (--on_bad_frame skip leaves such frames out, keep takes them)")
    broken = {one.frame for one in problems if one.is_broken or on_bad_frame == "skip"}
    if on_bad_frame == "keep" and broken:
        raise UserError(
            f"{listed}: such frames cannot be kept; --on_bad_frame skip leaves them out"
        )
    kept = np.array([k for k in frames if k not in broken], dtype=int)
    print(f"{'left out' if on_bad_frame == 'skip' else 'kept'}: {listed}")
    if not len(kept):
        raise UserError(f"no frame is left of {len(frames)}")
    return kept


def split_frames(count: int, val_share: float, test_share: float) -> Tensor:
    """A fixed random split (N,), with a frame in each part that has a share.

    Fewer than three frames are all for the test.
    """
    if count < 3:
        return torch.full((count,), 2, dtype=torch.uint8)
    sizes = [max(round(share * count), 1 if share else 0) for share in (test_share, val_share)]
    if sum(sizes) >= count:
        raise UserError(
            f"val_share {val_share:g} and test_share {test_share:g} of {count} frames leave none "
            "for training"
        )
    split = torch.zeros(count, dtype=torch.uint8)
    order = shuffled_order(count)
    split[order[: sizes[0]]] = 2
    split[order[sizes[0] : sum(sizes)]] = 1
    return split
