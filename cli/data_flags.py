"""The flags of datasets, loading, and bare files of weights."""

from argparse import Namespace
from typing import Any

from core import own
from core.errors import UserError
from core.inputs import check_data, recorded_config
from core.registry import DATASETS, LABELLED, LIGHT, PADDINGS, PHYSICS, READERS, Entry
from parsing.parser import Parser, Several
from parsing.values import counting, dataset, natural, one_of, ordering, own_source, ratio, within

# The noise of a single-pixel camera.
OF_LIGHT = ("awgn_snr", "noise", *LIGHT, "calibration")
# What a bare file of weights may lack.
BARE = ("n", "cr", "ordering", "scales", "width", "padding")


def defaults_of(flag: str, table: dict) -> str:
    """For the help: which entries of a table read a flag, and with what default."""
    defaults = {name: entry.flags[flag] for name, entry in table.items() if flag in entry.flags}
    readers = [
        name if default in (..., None) else f"{name} {default}"
        for name, default in defaults.items()
    ]
    return f"({', '.join(readers)})"


def add_data(
    parser: Parser,
    n_default: int | None = 32,
    c_default: int | None = 1,
    crop_default: str | None = "center",
    limits: tuple[str, ...] = ("train", "val", "test"),
    whole: bool = False,
    table: dict = DATASETS,
) -> Any:
    """The flags of datasets; returns their group."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        type=dataset(table),
        default=next(iter(table)),
        help=f"one of {', '.join(table)}, or your own, FILE.py:FUNCTION",
    )
    group.add_argument(
        "--data_root",
        default="data",
        help="folder with the dataset's files; for array, npz and recorded the file itself; your "
        "own function may ask for it",
    )
    group.add_argument(
        "--download", action="store_true", help="download a torchvision dataset if it is missing"
    )
    group.add_argument(
        "--on_bad_image",
        choices=("stop", "skip"),
        default="stop",
        help="stop at a picture that is broken or smaller than half of n, or skip it",
    )
    group.add_argument(
        "--n", type=within(2, 4096, int), default=n_default, help="side of the images in pixels"
    )
    group.add_argument(
        "--c",
        type=int,
        choices=(1, 3),
        default=c_default,
        help="channels, 1 for grey and 3 for RGB; transparent pixels become white",
    )
    crops = {
        "center": "resize the central square",
        "none": "resize the whole picture",
        "tiles": "cut the pictures of dataset folder into tiles n x n at full and half size",
    }
    if whole:
        crops["whole"] = "test on all pictures of dataset folder in their own sizes"
    group.add_argument(
        "--crop",
        choices=crops,
        default=crop_default,
        help="; ".join(f"{name}: {what}" for name, what in crops.items()),
    )
    add_pairs(parser, group, table)

    def check_readers(args: Namespace) -> None:
        for flag, readers in READERS.items():
            if getattr(args, flag) == parser.get_default(flag) or args.dataset in readers:
                continue
            if flag == "data_root" and own.is_own(args.dataset):  # its function may ask for it
                continue
            if not (flag == "download" and getattr(args, "pretrained", False)):
                listed = ", ".join(name for name in readers if name in table)
                parser.error(f"dataset '{args.dataset}' does not read --{flag}: it is for {listed}")

    def take_from_recording(args: Namespace) -> None:
        """n and c are those of a recording, which also brings its noise."""
        if args.dataset != "recorded":
            return
        refuse_with_recording(parser, args, OF_LIGHT)
        config = recorded_config(args.data_root)
        for name in ("n", "c"):
            value, default = config.get(name), parser.get_default(name)
            if default is None or not isinstance(value, int):
                continue
            if getattr(args, name) not in (value, default) or (
                getattr(args, name) != value and parser.is_typed(name)
            ):
                parser.error(
                    f"{name} {getattr(args, name)}: recording {args.data_root} has {name} {value}"
                )
            setattr(args, name, value)

    parser.rules += [check_readers, take_from_recording]
    parser.files.append(check_data)
    names = {"train": "training", "val": "validation", "test": "test"}
    for split in limits:
        group.add_argument(
            f"--limit_{split}",
            type=counting,
            help=f"use only this many {names[split]} images, a random subset",
        )
    if {"train", "val"} <= {*limits}:
        group.add_argument(
            "--subset_seed",
            type=natural,
            default=0,
            help="which images are in the subsets of training and validation, whatever the --seed",
        )
        parser.checks.append(check_subset)
    return group


def check_subset(args: Namespace) -> None:
    """Refuses the seed of a subset where there is none."""
    limits = [getattr(args, f"limit_{what}", None) for what in ("train", "val", "labels")]
    if args.subset_seed and limits == [None] * 3 and args.dataset != "hybrid":
        raise UserError(
            f"subset_seed {args.subset_seed}: all images are used, so no subset is chosen; give "
            "--limit_train or --limit_val, or a classifier's --limit_labels"
        )


def refuse_with_recording(parser: Parser, args: Namespace, flags: tuple[str, ...]) -> None:
    """Refuses flags of patterns and noise beside a recording.

    A file of settings, which names them all, may have those of the recording or of the defaults.
    """
    config, defaults = recorded_config(args.data_root), PHYSICS["spc"].flags
    for flag in flags:
        value = getattr(args, flag, None)
        agrees = value in (config.get(flag), defaults.get(flag))
        if value is not None and (parser.is_typed(flag) or not agrees):
            parser.error(f"a recording brings its own patterns and noise: leave out --{flag}")


def add_pairs(parser: Parser, group, table: dict) -> None:
    lines = {name: line for name, line in table.items() if isinstance(line, Entry)}
    if not lines:
        return
    parser.choosers["dataset"] = {
        name: lines.get(name) or Entry(path=line, flags={}) for name, line in table.items()
    }
    helps = {
        "gt": "folder with the clean pictures of pairs",
        "lq": "folder with their degraded pictures, the inputs of the network",
        "pairs": "text file with one pair a line: 'gt_name, lq_name', or one name for both",
        "unpaired": "folder, or list of paths, of clean pictures that --physics degrades",
        "paired_share": "share of pairs among the training items",
    }
    metavars = {"gt": "DIR", "lq": "DIR", "pairs": "FILE", "unpaired": "DIR|FILE"}
    for flag, text in helps.items():
        text = f"{text} {defaults_of(flag, lines)}"
        if flag in metavars:
            group.add_argument(f"--{flag}", metavar=metavars[flag], help=text)
        else:
            group.add_argument(f"--{flag}", type=within(0, 1), help=text)


def add_labelled(
    parser: Parser, limits: tuple[str, ...] = ("train", "val", "test"), **defaults
) -> Any:
    return add_data(parser, limits=limits, table=LABELLED, **defaults)


def add_code(group) -> None:
    group.add_argument(
        "--code",
        type=own_source,
        action="append",
        metavar="FILE.py",
        help="your own code that a checkpoint needs, for no checkpoint brings any; once a file",
    )


def add_bare(parser: Parser, n: bool = False, several: bool = False) -> None:
    """Flags that complete a file; with `several`, --cr may be several ratios."""
    group = parser.add_argument_group(
        "values that a bare .pth of the original release lacks; other files must agree"
    )
    add_code(group)
    if n:
        group.add_argument("--n", type=within(2, 4096, int), help="side of the images in pixels")
    how = {"nargs": "+", "action": Several} if several else {}
    group.add_argument(
        "--cr",
        type=ratio,
        help="ratio of measurements to pixels; of a network for several ratios, one"
        + (" or some of them, or any in its range" if several else " of them, or any in its range"),
        **how,
    )
    group.add_argument(
        "--ordering", type=ordering, help="ordering of the patterns; that of the release is strip"
    )
    group.add_argument("--scales", type=within(2, 5, int), help="resolutions of the U-Net")
    group.add_argument("--width", type=counting, help="channels at full resolution")
    group.add_argument(
        "--padding", type=one_of(PADDINGS, "padding"), help="padding of the convolutions"
    )


def add_loading(parser: Parser) -> None:
    group = parser.add_argument_group("loading")
    group.add_argument("--batch_size", type=counting, default=16, help="images in a batch")
    group.add_argument(
        "--num_workers",
        type=natural,
        default=0,
        help="processes that load data; 0 loads in the main process",
    )
