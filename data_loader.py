"""Datasets of clean images in three splits: validation comes out of training, the test set is for evaluation only."""

from collections.abc import Sequence

import torch

from core.errors import CONTROL, UserError, in_a_line
from core.inputs import check_data
from core.registry import DATASETS, LAYOUTS, look_up
from data.batches import Images, Source
from data.images import SUFFIXES, Request
from data.splits import SPLITS, WORDS, shuffled, stratified

__all__ = ["Request", "build_splits"]


def build_splits(
    request: Request,
    wanted: Sequence[str] = SPLITS,
    augment_seed: int | None = None,
    table: dict = DATASETS,
) -> dict[str, Images]:
    """The wanted splits of a table's dataset, limited to fixed random subsets where asked; only training is augmented."""
    check_data(request)
    if request.crop == "whole" and (request.labelled or request.dataset != "folder"):
        raise UserError(
            f"crop whole: dataset '{request.dataset}' has no pictures of their own size; 'folder' has"
        )
    sources = look_up(table, request.dataset, "dataset")(request)
    strange = next((name for name in sources["test"].classes if CONTROL.search(name)), None)
    if strange:
        raise UserError(
            f"dataset '{request.dataset}': class '{in_a_line(strange)}' has a name with control characters"
        )
    if sources["train"].labels is not None:
        learnt = set(sources["train"].labels)
        absent = [name for k, name in enumerate(sources["train"].classes) if k not in learnt]
        if absent:
            raise UserError(
                f"dataset '{request.dataset}': no training images of class {', '.join(absent)}"
            )
    splits = {}
    for split in wanted:
        source, limit = sources[split], getattr(request, f"limit_{split}")
        count = len(source.images)
        if count == 0:
            raise too_few(request, sources, split)
        subset = torch.arange(count)
        if limit is not None and limit < count:
            subset = (shuffled(count) if source.labels is None else stratified(source.labels))[
                :limit
            ]
        splits[split] = (source.kind or Images)(
            source, subset, augment_seed if split == "train" else None, request.shift
        )
    return splits


def too_few(request: Request, sources: dict[str, Source], split: str) -> UserError:
    """Why a split has no image, and what to do."""
    total, name = sum(len(source.images) for source in sources.values()), request.dataset
    root = request.data_root if name in ("folder", "npz", "cub") else request.gt
    place = f"dataset '{name}'" + (f": {root}" if root and name not in LAYOUTS else "")
    if name == "photos":
        return UserError(
            f"{place} has no {split} images of {request.n} x {request.n}: choose a smaller --n"
        )
    if not total:
        return UserError(
            f"{place} holds no pictures (files that end in {', '.join(sorted(SUFFIXES))})"
        )
    if request.crop == "whole":
        return UserError(
            f"{place}: --crop whole takes all {total} pictures for the test, none for {WORDS[split]}"
        )
    held = ", ".join(f"{len(source.images)} for {WORDS[k]}" for k, source in sources.items())
    advice = "give more, at least one for each"
    return UserError(f"{place} holds {total} images, too few for {WORDS[split]}: {held}; {advice}")
