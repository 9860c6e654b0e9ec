"""Pictures with labels: trees with a folder for each class, FGVC Aircraft, CUB-200-2011."""

from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.registry import LAYOUTS
from data.batches import Source
from data.datasets import from_torchvision
from data.images import Request, drop_bad_images, open_image, pictures_in
from data.splits import SPLITS, Lazy, hold_out_per_class

CUB_FILES = (
    "images",
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "classes.txt",
)


class Labelled(NamedTuple):
    """A file and the number of its class."""

    path: Path
    label: int


def class_folder(request: Request) -> dict[str, Source]:
    """Trees <class>/* in train/ and perhaps val/ and test/, or one such tree at --data_root."""
    root = Path(request.data_root)
    where = f"dataset '{request.dataset}': --data_root {root}"
    has_train = bool(folders_in(root / "train"))
    if not has_train and any(folders_in(root / split) for split in ("val", "test")):
        raise UserError(
            f"{where} has no class folders in train/: name its folders train/<class>/*, "
            "and those of val/ and test/ likewise"
        )
    trees = {"train": root}
    if has_train:
        trees = {split: root / split for split in SPLITS if (root / split).is_dir()}
    classes = folders_in(trees["train"])
    if len(classes) < 2:
        raise UserError(
            f"{where} has {len(classes)} class folders: expected are train/<class>/* or <class>/* "
            "of at least two classes"
        )
    files = {split: labelled_files(tree, trees["train"], classes) for split, tree in trees.items()}
    return build_sources(files, classes, request)


def labelled_files(tree: Path, train: Path, classes: list[str]) -> list[Labelled]:
    """The pictures of a tree whose folders are classes of the training tree."""
    folders = folders_in(tree)
    unknown = [name for name in folders if name not in classes]
    if unknown:
        raise UserError(
            f"class {', '.join(unknown)} of {tree} is not in {train}, "
            f"which has {', '.join(classes)}"
        )
    if not folders:
        raise UserError(f"{tree} has no class folders: expected are {tree}/<class>/*")
    files = []
    for name in folders:
        paths = pictures_in(tree / name)
        if not paths:
            raise UserError(f"{tree / name} has no pictures")
        files += [Labelled(path, classes.index(name)) for path in paths]
    return files


def folders_in(root: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones."""
    if not root.is_dir():
        return []
    folders = (path.name for path in root.iterdir() if path.is_dir())
    return sorted(name for name in folders if not name.startswith("."))


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
            f"{lists}: a line is not 'number variant' with a variant "
            f"that variants.txt names ({error})"
        ) from None
    files = {}
    for split, images in zip(SPLITS, sets, strict=True):
        listed = zip(images._image_files, images._labels, strict=True)
        files[split] = [Labelled(Path(path), label) for path, label in listed]
    check_listed_files(files, root / "data" / "images")
    return build_sources(files, sets[0].classes, request)


def cub(request: Request) -> dict[str, Source]:
    """CUB-200-2011 from its extracted folder --data_root, in its own two splits."""
    root = Path(request.data_root)
    absent = [name for name in CUB_FILES if not (root / name).exists()]
    if absent:
        raise UserError(
            f"dataset '{request.dataset}': --data_root {root} is not the extracted folder "
            f"CUB_200_2011: it lacks {', '.join(absent)}"
        )
    classes = read_numbered_lines(root / "classes.txt")
    names = read_numbered_lines(root / "images.txt")
    numbers = {str(key): k for k, key in enumerate(sorted(classes))}
    labels = read_texts(names, root / "image_class_labels.txt", numbers, "a number of classes.txt")
    splits = read_texts(
        names, root / "train_test_split.txt", ("0", "1"), "0 (test) or 1 (training)"
    )
    files = {"train": [], "test": []}
    for key, name in names.items():
        split = "train" if splits[key] == "1" else "test"
        files[split].append(Labelled(root / "images" / name, numbers[labels[key]]))
    check_listed_files(files, root / "images")
    return build_sources(files, [classes[key] for key in sorted(classes)], request)


def read_numbered_lines(file: Path) -> dict[int, str]:
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
                f"{file}, line {number}: '{line}' is not 'number text' with a new number"
            )
        texts[int(key)] = text
    return texts


def read_texts(
    images: dict[int, str], file: Path, allowed: Container[str], what: str
) -> dict[int, str]:
    """The lines of a file that has one text for each image."""
    texts = read_numbered_lines(file)
    if texts.keys() != images.keys():
        raise UserError(
            f"{file}: image {min(texts.keys() ^ images.keys())} must be both here and in images.txt"
        )
    for key, text in texts.items():
        if text not in allowed:
            raise UserError(f"{file}: image {key} has '{text}', which is not {what}")
    return texts


def check_listed_files(files: dict[str, list[Labelled]], folder: Path) -> None:
    """Refuses listed files that do not exist, are outside the folder, or are listed twice."""
    inside = folder.resolve()
    counts = Counter(file.path.resolve() for listed in files.values() for file in listed)
    for path, times in counts.items():
        if not path.is_relative_to(inside):
            raise UserError(f"{path} is listed but is outside of {folder}")
        if times > 1:
            raise UserError(f"{path} is listed {times} times")
        if not path.is_file():
            raise UserError(f"{path} is listed but does not exist")


def build_sources(
    files: dict[str, list[Labelled]], classes: Sequence[str], request: Request
) -> dict[str, Source]:
    """The splits; a missing one is a tenth of every class of training, fixed and random."""
    missing = [split for split in SPLITS if split not in files]
    if missing:
        train = files["train"]
        parts = hold_out_per_class([file.label for file in train], len(missing))
        for split, part in zip(("train", *missing), parts, strict=True):
            files = files | {split: [train[i] for i in part]}
    files = drop_bad_images(files, request, lambda file: (file.path,))
    splits = {}
    for split in SPLITS:
        paths = [file.path for file in files[split]]
        splits[split] = Source(
            Lazy(lambda path: open_image(path, request), paths),
            "flip",
            labels=[file.label for file in files[split]],
            classes=tuple(classes),
            files=paths,
        )
    return splits
