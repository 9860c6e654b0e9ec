"""Real pairs of a clean and a degraded picture, alone or among clean pictures that a camera degrades."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from data.batches import Drawn, Source, draw_mirror, draw_turn, mirrored, turned
from data.images import Request, check_image, open_image, pictures_in, sound
from data.splits import SPLITS, Lazy, hold_out, shuffled, tenths


class Pair(NamedTuple):
    """The files of a clean picture and, where there is one, of its degraded picture; both have this size."""

    clean: Path
    degraded: Path | None
    size: tuple[int, int]


class Pairs(Drawn):
    """Pieces n x n of pairs, cut and turned alike in both pictures; the central ones outside training."""

    paired = True

    def __getitem__(self, i: int) -> dict:
        rng = (
            None
            if self.augment_seed is None
            else np.random.default_rng((self.augment_seed, self.epoch, i))
        )
        return self.source.images[int(self.subset[i])](rng) | {"index": i}

    def stack(self) -> Tensor:
        """The central pieces of all clean pictures (N, C, n, n)."""
        return torch.stack([self.source.images[int(k)](None)["image"] for k in self.subset])


def piece(pair: Pair, request: Request, rng: np.random.Generator | None) -> dict:
    """A random or the central piece of a pair; `seen` is black where there is no degraded picture."""
    n = request.n
    left, top = (
        (side - n) // 2 if rng is None else int(rng.integers(side - n + 1)) for side in pair.size
    )
    box = (left, top, left + n, top + n)
    image = open_image(pair.clean, request, box)
    seen = (
        torch.zeros_like(image)
        if pair.degraded is None
        else open_image(pair.degraded, request, box)
    )
    if rng is not None:
        both = torch.stack((image, seen))
        for draw, change in ((draw_mirror, mirrored), (draw_turn, turned)):
            both = change(both, torch.tensor([draw(rng, n)] * 2))
        image, seen = both
    return {"image": image, "degraded": seen, "paired": torch.tensor(pair.degraded is not None)}


def paired(request: Request) -> dict[str, Source]:
    """The pairs of --gt and --lq, of one name or as --pairs lists them."""
    return {split: source(pairs, request) for split, pairs in splits_of_pairs(request).items()}


def hybrid(request: Request) -> dict[str, Source]:
    """Pairs among the clean pictures of --unpaired in training; validation and test are pairs alone.

    u unpaired pictures make N = round(u / (1 - share)) items, at most --limit_train, of which round(share N) are pairs: a fixed
    random subset, or all of them again and again, none more than once oftener than another.
    """
    if not 0 < request.paired_share < 1:
        raise UserError(
            f"paired_share {request.paired_share:g}: a mixture needs a share between 0 and 1; --dataset paired has pairs alone"
        )
    splits = splits_of_pairs(request)
    held = {pair.clean.resolve() for split in ("val", "test") for pair in splits[split]}
    pictures = sound({"unpaired": unpaired(request)}, request, most=1)["unpaired"]
    alone = [Pair(path, None, check_image(path)) for path in pictures]
    for path in (pair.clean for pair in alone):
        if path.resolve() in held:
            raise UserError(
                f"dataset 'hybrid': {path} of --unpaired is a validation or test picture of --gt"
            )
    for flag, found in (("unpaired", alone), ("gt", splits["train"])):
        if not found:
            raise UserError(
                f"dataset 'hybrid': no training pictures in --{flag} {getattr(request, flag)}"
            )
    total = round(len(alone) / (1 - request.paired_share))
    total = min(total, request.limit_train or total)
    count = round(request.paired_share * total)
    order = shuffled(len(splits["train"]))
    repeated = [splits["train"][order[j % len(order)]] for j in range(count)]
    splits["train"] = repeated + [alone[k] for k in shuffled(len(alone))[: total - count]]
    return {split: source(pairs, request) for split, pairs in splits.items()}


def unpaired(request: Request) -> list[Path]:
    """The clean pictures of a folder, or of a list with a path a line, from the folder of the list on."""
    file = Path(request.unpaired)
    if file.is_dir():
        return pictures_in(file)
    paths = [file.parent / line for _, line in lines_of(file, "unpaired")]
    check_listed(file, "unpaired", paths)
    name, times = Counter(path.resolve() for path in paths).most_common(1)[0]
    if times > 1:
        raise UserError(f"--unpaired {file}: {name} is listed {times} times")
    return paths


def source(pairs: Sequence[Pair], request: Request) -> Source:
    return Source(
        Lazy(lambda pair: partial(piece, pair, request), pairs),
        "dihedral",
        Pairs,
        files=[pair.clean for pair in pairs],
    )


def splits_of_pairs(request: Request) -> dict[str, list[Pair]]:
    """By train/ val/ test/ where the folders have them, else fixed and random, 80 / 10 / 10; all pairs of a clean picture stay together."""
    if request.crop != "center":
        raise UserError(
            f"crop {request.crop}: dataset '{request.dataset}' is cut into pieces of n x n, not resized"
        )
    gt, lq = Path(request.gt), Path(request.lq)
    in_folders = any((root / split).is_dir() for root in (gt, lq) for split in SPLITS)
    names = listed(Path(request.pairs), gt, lq) if request.pairs else matched(gt, lq, in_folders)
    clean = sorted({name for name, _ in names})
    if in_folders:
        for name, other in names:
            if name.parts[0] not in SPLITS or name.parts[0] != other.parts[0]:
                raise UserError(
                    f"pair {name}, {other}: both must be in the same one of {', '.join(split + '/' for split in SPLITS)}"
                )
        splits = {split: [name for name in clean if name.parts[0] == split] for split in SPLITS}
        if len(splits["train"]) > 1 and not splits["val"]:
            training, validation = hold_out(len(splits["train"]))
            splits |= {
                "train": [splits["train"][i] for i in training],
                "val": [splits["train"][i] for i in validation],
            }
    else:
        splits = tenths(clean)
    others = {name: [] for name in clean}
    for name, other in names:
        others[name].append(other)
    files = {
        split: [(gt / name, lq / other) for name in splits[split] for other in others[name]]
        for split in SPLITS
    }
    return {
        split: [checked(*pair) for pair in pairs]
        for split, pairs in sound(files, request, lambda pair: pair, most=1).items()
    }


def matched(gt: Path, lq: Path, in_folders: bool) -> list[tuple[Path, Path]]:
    """The pictures of one relative name, suffix aside; each must have its other one."""
    clean, degraded = by_name(gt, in_folders), by_name(lq, in_folders)
    for ours, root, theirs, other in ((clean, gt, degraded, lq), (degraded, lq, clean, gt)):
        missing = [path for name, path in ours.items() if name not in theirs]
        if missing or not ours:
            what = (
                f"{root / missing[0]} has no picture of its name in {other}"
                if missing
                else f"no pictures in {root}"
            )
            raise UserError(
                f"{what}; {len(clean.keys() & degraded.keys())} pairs match, and --pairs FILE can list them"
            )
    return [(path, degraded[name]) for name, path in clean.items()]


def by_name(root: Path, in_folders: bool) -> dict[Path, Path]:
    found = {}
    for path in (path.relative_to(root) for path in pictures_in(root)):
        if not in_folders or path.parts[0] in SPLITS:
            if path.with_suffix("") in found:
                raise UserError(
                    f"{root / path} and {root / found[path.with_suffix('')]} have one name: --pairs FILE must list the pairs"
                )
            found[path.with_suffix("")] = path
    return found


def lines_of(file: Path, flag: str) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, with their numbers."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--{flag} {file} cannot be read: {error}") from None
    found = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UserError(f"--{flag} {file} lists no {'pairs' if flag == 'pairs' else 'pictures'}")
    return found


def check_listed(file: Path, flag: str, paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise UserError(f"--{flag} {file}: there is no {path}")


def listed(file: Path, gt: Path, lq: Path) -> list[tuple[Path, Path]]:
    """The pairs of a list: 'gt_name, lq_name' or one name for both in a line; a degraded picture belongs to one pair."""
    names = []
    for number, line in lines_of(file, "pairs"):
        words = [word.strip() for word in line.split(",")]
        if len(words) > 2 or "" in words:
            raise UserError(
                f"--pairs {file}, line {number}: '{line}' is neither 'gt_name, lq_name' nor one name"
            )
        names.append((Path(words[0]), Path(words[-1])))
    paths = [root / name for pair in names for root, name in zip((gt, lq), pair, strict=True)]
    check_listed(file, "pairs", paths)
    name, times = Counter(degraded for _, degraded in names).most_common(1)[0]
    if times > 1:
        raise UserError(f"--pairs {file}: {name} is in {times} pairs")
    return names


def checked(clean: Path, degraded: Path) -> Pair:
    """A pair of readable pictures of one size."""
    sizes = [check_image(path) for path in (clean, degraded)]
    if sizes[0] != sizes[1]:
        (a, b), (c, d) = sizes
        raise UserError(
            f"{clean} is {a} x {b} and {degraded} is {c} x {d}: the pictures of a pair have one size"
        )
    return Pair(clean, degraded, sizes[0])
