"""Datasets in three splits: validation is a part of training, the test set is for evaluation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import CONTROL, UserError, in_a_line
from core.inputs import check_data
from core.registry import DATASETS, LAYOUTS, look_up
from data.batches import UNLABELLED, Images, Source
from data.images import SUFFIXES, Request
from data.splits import SPLIT_SEED, SPLITS, WORDS, shuffled_order, stratified_order

__all__ = ["Request", "build_splits"]


def build_splits(
    request: Request,
    wanted: Sequence[str] = SPLITS,
    augment_seed: int | None = None,
    table: dict = DATASETS,
) -> dict[str, Images]:
    """Splits of a table's dataset, limited to fixed random subsets on request.

    Only training images are augmented.
    """
    check_data(request)
    pieces = {"whole": "keep their own size", "tiles": "are cut into tiles"}
    if request.crop in pieces and (request.labelled or request.dataset != "folder"):
        raise UserError(
            f"crop {request.crop}: only the pictures of dataset 'folder' {pieces[request.crop]}, "
            f"not those of '{request.dataset}'"
        )
    sources = look_up(table, request.dataset, "dataset")(request)
    check_classes(request, sources)
    splits = {}
    for split in wanted:
        source, limit = sources[split], getattr(request, f"limit_{split}")
        count = len(source.images)
        if count == 0:
            raise too_few_error(request, sources, split)
        subset = torch.arange(count)
        if limit is not None and limit < count:
            subset = random_order(source, SPLIT_SEED if split == "test" else request.subset_seed)
            subset = subset[:limit]
        if split == "train" and request.limit_labels is not None:
            source = limit_labels(source, len(subset), request)
        seed = augment_seed if split == "train" else None
        splits[split] = (source.kind or Images)(source, subset, seed, request.shift)
    return splits


def random_order(source: Source, seed: int) -> Tensor:
    """A random order of a split's images; every beginning of it holds the shares of the classes."""
    if source.labels is None:
        return shuffled_order(len(source.images), seed)
    return stratified_order(source.labels, seed)


def limit_labels(source: Source, count: int, request: Request) -> Source:
    """The training images, of which `count` are used, with the labels of some of them alone."""
    limit = request.limit_labels
    assert source.labels is not None and limit is not None, "a dataset with labels"
    if limit > count:
        raise UserError(f"limit_labels {limit}: there are only {count} training images")
    known = set(random_order(source, request.subset_seed)[:limit].tolist())
    labels = [label if k in known else UNLABELLED for k, label in enumerate(source.labels)]
    return source._replace(labels=labels)


def check_classes(request: Request, sources: dict[str, Source]) -> None:
    """Refuses names with control characters, and classes without training images."""
    where, classes = f"dataset '{request.dataset}':", sources["train"].classes
    for name in sources["test"].classes:
        if CONTROL.search(name):
            raise UserError(f"{where} the name of class '{in_a_line(name)}' has control characters")
    labels = sources["train"].labels
    if labels is not None:
        present = set(labels)
        absent = [name for k, name in enumerate(classes) if k not in present]
        if absent:
            raise UserError(f"{where} no training images of class {', '.join(absent)}")


def too_few_error(request: Request, sources: dict[str, Source], split: str) -> UserError:
    """Why a split has no image, and what to do."""
    total, name = sum(len(source.images) for source in sources.values()), request.dataset
    root = (
        request.data_root if name in ("folder", "npz", "array", "recorded", "cub") else request.gt
    )
    place = f"dataset '{name}'" + (f": {root}" if root and name not in LAYOUTS else "")
    if name in ("photos", "photos_without_text", "text"):
        return UserError(
            f"{place} has no {WORDS[split]} images of {request.n} x {request.n}: choose a smaller "
            "--n"
        )
    if not total:
        suffixes = ", ".join(sorted(SUFFIXES))
        return UserError(f"{place} has no pictures (files that end in {suffixes})")
    if request.crop == "whole":
        return UserError(
            f"{place}: --crop whole uses all {total} pictures for the test and leaves none for "
            f"{WORDS[split]}"
        )
    counts = ", ".join(f"{len(source.images)} for {WORDS[k]}" for k, source in sources.items())
    return UserError(
        f"{place} has {total} images, too few for {WORDS[split]}: {counts}; "
        "give more, at least one for each"
    )
