"""Real pairs of a clean and a degraded picture, alone or among clean pictures without a partner."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from data.augment import mirror, sample_mirror, sample_turn, turn
from data.batches import SampledImages, Source
from data.images import Request, check_image, drop_bad_images, open_image, pictures_in
from data.splits import SPLITS, Lazy, hold_out, shuffled_order, split_by_tenths


class Pair(NamedTuple):
    """The files of a clean picture and its degraded one, if there is one, and their size."""

    clean: Path
    degraded: Path | None
    size: tuple[int, int]


class Pairs(SampledImages):
    """Pieces n x n of pairs, the same of both pictures; outside of training the central ones."""

    paired = True

    def __getitem__(self, i: int) -> dict:
        rng = None if self.augment_seed is None else self.rng(i)
        return self.source.images[int(self.subset[i])](rng) | {"index": i}

    def stack(self) -> Tensor:
        """The central pieces of all clean pictures (N, C, n, n)."""
        return torch.stack([self.source.images[int(k)](None)["image"] for k in self.subset])


def cut_piece(pair: Pair, request: Request, rng: np.random.Generator | None) -> dict:
    """A random or the central piece of a pair, with black for a missing degraded picture."""
    n = request.n
    if rng is None:
        left, top = ((side - n) // 2 for side in pair.size)
    else:
        left, top = (int(rng.integers(side - n + 1)) for side in pair.size)
    box = (left, top, left + n, top + n)
    image = open_image(pair.clean, request, box)
    degraded = torch.zeros_like(image)
    if pair.degraded is not None:
        degraded = open_image(pair.degraded, request, box)
    if rng is not None:
        both = torch.stack((image, degraded))
        for sample, change in ((sample_mirror, mirror), (sample_turn, turn)):
            both = change(both, torch.tensor([sample(rng, n)] * 2))
        image, degraded = both
    has_partner = torch.tensor(pair.degraded is not None)
    return {"image": image, "degraded": degraded, "paired": has_partner}


def paired(request: Request) -> dict[str, Source]:
    """The pairs of --gt and --lq, by their names or as --pairs lists them."""
    return {
        split: source_of_pairs(pairs, request) for split, pairs in splits_of_pairs(request).items()
    }


def hybrid(request: Request) -> dict[str, Source]:
    """Pairs among the clean pictures of --unpaired; validation and test have pairs alone.

    u unpaired pictures make N = round(u / (1 - share)) items, at most --limit_train, of which
    round(share N) are pairs: a fixed random subset, or all of them in turn.
    """
    if not 0 < request.paired_share < 1:
        raise UserError(
            f"paired_share {request.paired_share:g}: a mixture needs a share between 0 and 1; "
            "for pairs alone choose --dataset paired"
        )
    splits = splits_of_pairs(request)
    held_out = {pair.clean.resolve() for split in ("val", "test") for pair in splits[split]}
    pictures = drop_bad_images({"unpaired": read_unpaired(request)}, request, most=1)["unpaired"]
    alone = [Pair(path, None, check_image(path)) for path in pictures]
    for path in (pair.clean for pair in alone):
        if path.resolve() in held_out:
            raise UserError(
                f"dataset 'hybrid': {path} of --unpaired is a validation or test picture of --gt; "
                "take it out of --unpaired"
            )
    for flag, pairs in (("unpaired", alone), ("gt", splits["train"])):
        if not pairs:
            raise UserError(
                f"dataset 'hybrid': no training pictures in --{flag} {getattr(request, flag)}"
            )
    total = round(len(alone) / (1 - request.paired_share))
    total = min(total, request.limit_train or total)
    count = round(request.paired_share * total)
    order = shuffled_order(len(splits["train"]), request.subset_seed).tolist()
    repeated = [splits["train"][order[k % len(order)]] for k in range(count)]
    selected = shuffled_order(len(alone), request.subset_seed).tolist()[: total - count]
    splits["train"] = repeated + [alone[k] for k in selected]
    return {split: source_of_pairs(pairs, request) for split, pairs in splits.items()}


def read_unpaired(request: Request) -> list[Path]:
    """The clean pictures of a folder, or of a list of paths relative to its own folder."""
    file = folder_of(request.unpaired, "unpaired")
    if file.is_dir():
        return pictures_in(file)
    paths = [file.parent / line for _, line in read_list(file, "unpaired")]
    check_listed(file, "unpaired", paths)
    name, times = Counter(path.resolve() for path in paths).most_common(1)[0]
    if times > 1:
        raise UserError(f"--unpaired {file}: {name} is listed {times} times")
    return paths


def source_of_pairs(pairs: Sequence[Pair], request: Request) -> Source:
    return Source(
        Lazy(lambda pair: partial(cut_piece, pair, request), pairs),
        "dihedral",
        Pairs,
        files=[pair.clean for pair in pairs],
    )


def splits_of_pairs(request: Request) -> dict[str, list[Pair]]:
    """The pairs by train/ val/ test/ where the folders have them, else split 80 / 10 / 10.

    All pairs of a clean picture are in one split.
    """
    if request.crop != "center":
        raise UserError(
            f"crop {request.crop}: dataset '{request.dataset}' is cut into pieces of n x n, "
            "not resized; leave out --crop"
        )
    gt, lq = folder_of(request.gt, "gt"), folder_of(request.lq, "lq")
    in_folders = any((root / split).is_dir() for root in (gt, lq) for split in SPLITS)
    list_file = Path(request.pairs) if request.pairs else None
    names = read_pairs(list_file, gt, lq) if list_file else match_pairs(gt, lq, in_folders)
    clean = sorted({name for name, _ in names})
    splits = split_by_folders(names, clean) if in_folders else split_by_tenths(clean)
    partners = {name: [] for name in clean}
    for name, partner in names:
        partners[name].append(partner)
    files = {
        split: [(gt / name, lq / partner) for name in splits[split] for partner in partners[name]]
        for split in SPLITS
    }
    files = drop_bad_images(files, request, lambda pair: pair, most=1)
    return {split: [check_pair(*pair) for pair in pairs] for split, pairs in files.items()}


def folder_of(path: str | None, flag: str) -> Path:
    """The path of a flag, which was checked before."""
    assert path is not None, f"--{flag} is not given"
    return Path(path)


def split_by_folders(names: list[tuple[Path, Path]], clean: list[Path]) -> dict[str, list]:
    """The clean pictures by train/ val/ test/; a missing val/ is a tenth of train/."""
    for name, partner in names:
        if name.parts[0] not in SPLITS or name.parts[0] != partner.parts[0]:
            folders = ", ".join(f"{split}/" for split in SPLITS)
            raise UserError(
                f"pair {name}, {partner}: both pictures must be in the same one of {folders}"
            )
    splits = {split: [name for name in clean if name.parts[0] == split] for split in SPLITS}
    if len(splits["train"]) > 1 and not splits["val"]:
        training, validation = hold_out(len(splits["train"]))
        splits |= {
            "train": [splits["train"][i] for i in training],
            "val": [splits["train"][i] for i in validation],
        }
    return splits


def match_pairs(gt: Path, lq: Path, in_folders: bool) -> list[tuple[Path, Path]]:
    """The pictures of the same relative name without suffix; each must have its partner."""
    clean, degraded = pictures_by_name(gt, in_folders), pictures_by_name(lq, in_folders)
    for ours, root, theirs, other in ((clean, gt, degraded, lq), (degraded, lq, clean, gt)):
        missing = [path for name, path in ours.items() if name not in theirs]
        if not missing and ours:
            continue
        what = f"there are no pictures in {root}"
        if missing:
            what = f"{root / missing[0]} has no picture of the same name in {other}"
        raise UserError(
            f"{what}; {len(clean.keys() & degraded.keys())} pairs match, "
            "and --pairs FILE can list them"
        )
    return [(path, degraded[name]) for name, path in clean.items()]


def pictures_by_name(root: Path, in_folders: bool) -> dict[Path, Path]:
    """The pictures of a folder by their relative name without suffix."""
    pictures: dict[Path, Path] = {}
    for path in (path.relative_to(root) for path in pictures_in(root)):
        if in_folders and path.parts[0] not in SPLITS:
            continue
        name = path.with_suffix("")
        if name in pictures:
            raise UserError(
                f"{root / path} and {root / pictures[name]} have the same name: "
                "list the pairs by --pairs FILE"
            )
        pictures[name] = path
    return pictures


def read_list(file: Path, flag: str) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, with their numbers."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--{flag} {file} cannot be read: {error}") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f"--{flag} {file} lists no {'pairs' if flag == 'pairs' else 'pictures'}")
    return numbered


def check_listed(file: Path, flag: str, paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise UserError(f"--{flag} {file}: {path} does not exist")


def read_pairs(file: Path, gt: Path, lq: Path) -> list[tuple[Path, Path]]:
    """The pairs of a list, of 'gt_name, lq_name' or one name for both in a line."""
    names = []
    for number, line in read_list(file, "pairs"):
        words = [word.strip() for word in line.split(",")]
        if len(words) > 2 or "" in words:
            raise UserError(
                f"--pairs {file}, line {number}: "
                f"'{line}' is neither 'gt_name, lq_name' nor one name"
            )
        names.append((Path(words[0]), Path(words[-1])))
    paths = [root / name for pair in names for root, name in zip((gt, lq), pair, strict=True)]
    check_listed(file, "pairs", paths)
    name, times = Counter(degraded for _, degraded in names).most_common(1)[0]
    if times > 1:
        raise UserError(f"--pairs {file}: {name} is in {times} pairs")
    return names


def check_pair(clean: Path, degraded: Path) -> Pair:
    """A pair of readable pictures of one size."""
    sizes = [check_image(path) for path in (clean, degraded)]
    if sizes[0] != sizes[1]:
        (a, b), (c, d) = sizes
        raise UserError(
            f"{clean} is {a} x {b} and {degraded} is {c} x {d}: "
            "the pictures of a pair must have the same size"
        )
    return Pair(clean, degraded, sizes[0])
