"""Picture files with labels: trees with a folder for each class, FGVC Aircraft, CUB-200-2011."""

from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.registry import LAYOUTS
from data.batches import Source
from data.datasets import from_torchvision
from data.images import Request, open_image, pictures_in, sound
from data.splits import SPLITS, Lazy, hold_out_of_each


class Labelled(NamedTuple):
    """A file and the number of its class."""

    path: Path
    label: int


def class_folder(request: Request) -> dict[str, Source]:
    """Trees <class>/* in train/ and, where they are, val/ and test/; or one such tree at --data_root."""
    root = Path(request.data_root)
    where = f"dataset '{request.dataset}': --data_root {root}"
    in_folders = bool(folders_in(root / "train"))
    if not in_folders and any(folders_in(root / split) for split in ("val", "test")):
        raise UserError(
            f"{where} has no class folders in train/: expected train/<class>/*, and val/ and test/ like it"
        )
    trees = (
        {split: root / split for split in SPLITS if (root / split).is_dir()}
        if in_folders
        else {"train": root}
    )
    classes = folders_in(trees["train"])
    if len(classes) < 2:
        raise UserError(
            f"{where} has {len(classes)} class folders: expected train/<class>/* or <class>/* of two classes or more"
        )
    files = {}
    for split, tree in trees.items():
        strange = [name for name in folders_in(tree) if name not in classes]
        if strange:
            raise UserError(
                f"class {', '.join(strange)} of {tree} is not in {trees['train']}, which has {', '.join(classes)}"
            )
        found = {name: pictures_in(tree / name) for name in folders_in(tree)}
        empty = [name for name, paths in found.items() if not paths]
        if empty or not found:
            raise UserError(
                f"{tree / empty[0]} holds no pictures"
                if empty
                else f"{tree} has no class folders: expected {tree}/<class>/*"
            )
        files[split] = [
            Labelled(path, classes.index(name)) for name, paths in found.items() for path in paths
        ]
    return sources(files, classes, request)


def folders_in(root: Path) -> list[str]:
    """The names of the folders in a folder, sorted; hidden ones are none."""
    return (
        sorted(
            path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
        if root.is_dir()
        else []
    )


def aircraft(request: Request) -> dict[str, Source]:
    """FGVC Aircraft's variants, in its own three splits."""
    root = Path(request.data_root) / LAYOUTS["aircraft"]
    try:
        sets = from_torchvision(
            "FGVCAircraft", request, **{split: {"split": split} for split in SPLITS}
        )
    except UserError:
        raise
    except (ValueError, KeyError) as error:
        lists = root / "data" / "images_variant_*.txt"
        raise UserError(
            f"{lists}: a line is not 'number variant', with a variant of variants.txt ({error})"
        ) from None
    files = {
        split: [
            Labelled(Path(path), label)
            for path, label in zip(found._image_files, found._labels, strict=True)
        ]
        for split, found in zip(SPLITS, sets, strict=True)
    }
    return sources(present(files, root / "data" / "images"), sets[0].classes, request)


def cub(request: Request) -> dict[str, Source]:
    """CUB-200-2011 from its extracted folder --data_root, in its own two splits."""
    root = Path(request.data_root)
    absent = [
        name
        for name in (
            "images",
            "images.txt",
            "image_class_labels.txt",
            "train_test_split.txt",
            "classes.txt",
        )
        if not (root / name).exists()
    ]
    if absent:
        raise UserError(
            f"dataset '{request.dataset}': --data_root {root} is not the extracted folder CUB_200_2011: it lacks {', '.join(absent)}"
        )
    classes, names = lines_of(root / "classes.txt"), lines_of(root / "images.txt")
    numbers = {str(key): k for k, key in enumerate(sorted(classes))}
    labels = texts_for(names, root / "image_class_labels.txt", numbers, "a number of classes.txt")
    splits = texts_for(names, root / "train_test_split.txt", ("0", "1"), "0 (test) or 1 (training)")
    files = {"train": [], "test": []}
    for key, name in names.items():
        files["train" if splits[key] == "1" else "test"].append(
            Labelled(root / "images" / name, numbers[labels[key]])
        )
    return sources(
        present(files, root / "images"), [classes[key] for key in sorted(classes)], request
    )


def lines_of(file: Path) -> dict[int, str]:
    """The lines 'number text' of a file."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    texts = {}
    for number, line in enumerate(lines, 1):
        key, _, text = line.strip().partition(" ")
        if not (key.isdecimal() and text) or int(key) in texts:
            raise UserError(
                f"{file}, line {number}: '{line}' is not 'number text' with a number of its own"
            )
        texts[int(key)] = text
    return texts


def texts_for(
    images: dict[int, str], file: Path, allowed: Container[str], what: str
) -> dict[int, str]:
    """The lines of a file that says one thing of every image."""
    texts = lines_of(file)
    if texts.keys() != images.keys():
        raise UserError(
            f"{file}: image {min(texts.keys() ^ images.keys())} must stand both here and in images.txt"
        )
    for key, text in texts.items():
        if text not in allowed:
            raise UserError(f"{file}: image {key} has '{text}', which is not {what}")
    return texts


def present(files: dict[str, list[Labelled]], folder: Path) -> dict[str, list[Labelled]]:
    """The files that lists name, each of which must exist, inside the folder and in one place."""
    inside = folder.resolve()
    for path, times in Counter(
        file.path.resolve() for listed in files.values() for file in listed
    ).items():
        if not path.is_relative_to(inside):
            raise UserError(f"{path} is listed and lies outside {folder}")
        if not path.is_file() or times > 1:
            raise UserError(
                f"{path} is listed {times} times"
                if times > 1
                else f"{path} is listed and does not exist"
            )
    return files


def sources(
    files: dict[str, list[Labelled]], classes: Sequence[str], request: Request
) -> dict[str, Source]:
    """The splits, with a tenth of every class of training, fixed and random, for each split that is missing."""
    missing = [split for split in SPLITS if split not in files]
    if missing:
        train = files["train"]
        parts = hold_out_of_each([file.label for file in train], len(missing))
        files = files | {
            split: [train[i] for i in part]
            for split, part in zip(("train", *missing), parts, strict=True)
        }

    files = sound(files, request, lambda file: (file.path,))

    def source(split: str) -> Source:
        paths = [file.path for file in files[split]]
        images = Lazy(lambda path: open_image(path, request), paths)
        return Source(
            images,
            "flip",
            labels=[file.label for file in files[split]],
            classes=tuple(classes),
            files=paths,
        )

    return {split: source(split) for split in SPLITS}
