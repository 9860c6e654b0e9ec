"""What is on the page: networks, example pictures, reports of studies, a recording."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from checkpoints.checkpoint import RESTORER, digest, restore
from core import zoo
from core.errors import UserError
from data.datasets import PHOTOGRAPHS, photograph_path
from data.images import to_tensor
from data_loader import Request, build_splits
from evaluation.checkpoints import checkpoint_name, short_name
from page.recorded import Frames
from page.scene import FITTED_TO, RATIOS, Bench, N, choice, encoded
from page.server import Server
from physics.single_pixel import SinglePixel
from recordings.file import read_recording

SAMPLE = 512  # pixels of an example picture's side


def build_server(args: Namespace) -> Server:
    """The server of the flags; nothing is answered before all of it is there."""
    recording = args.recording and read_recording(args.recording)
    shown_there = args.checkpoint or []
    own = [] if recording else shown_there
    bench = Bench(named(own) or zoo_networks(), training_images)
    for ratio in RATIOS:  # the first answer is as quick as the next ones
        bench.lmmse(ratio, "xy", None)
    reports = find_reports(args.results)
    options = bench.options() | {"samples": samples(), "reports": [*reports], "frames": None}
    answers = {
        "/options": lambda _: options,
        "/restore": bench.restore,
        "/sample": lambda request: sample(choice(request, "name", samples())),
    }
    if recording:
        networks = {name: restorer(path) for name, path in named(shown_there).items()}
        frames = Frames(recording, networks)
        options |= frames.options()
        answers["/frame"] = frames.show
    try:
        return Server(args.port, answers, reports)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"port {args.port}: {reason}; --port 0 takes a free one") from None


def named(paths: Sequence[str]) -> dict[str, str]:
    """Networks by short names; those of equal names get a digest of their content."""
    names = [short_name(checkpoint_name(path)) for path in paths]
    return {
        f"{name}_{digest(path)}" if names.count(name) > 1 else name: path
        for name, path in zip(names, paths, strict=True)
    }


def zoo_networks() -> dict[str, str]:
    """The networks of the repository that the page can show."""
    names = [name for name, entry in zoo.entries().items() if "cr" in entry["flags"]]
    return {name: str(zoo.file_of(name)) for name in names if zoo.file_of(name).is_file()}


def restorer(path: str):
    """A network and its camera, for the frames of a recording."""
    checkpoint = restore(path, kind=RESTORER)
    if not isinstance(checkpoint.physics, SinglePixel):
        raise UserError(f"checkpoint {path}: a single-pixel camera of one ratio is needed")
    return checkpoint.network, checkpoint.physics


def training_images() -> Tensor:
    """Tiles of photographs, to which LMMSE is fitted."""
    images = build_splits(Request(dataset="photos", n=N), ("train",))["train"].stack()
    return images[:: max(1, len(images) // FITTED_TO)][:FITTED_TO]


def samples() -> list[str]:
    """Photographs that no network was trained on."""
    names = f"{PHOTOGRAPHS['test']} {PHOTOGRAPHS['val']}".split()
    return [name.partition(".")[0] for name in names]


def sample(name: str) -> dict:
    """A photograph in gray, its middle square."""
    file = next(
        file
        for files in PHOTOGRAPHS.values()
        for file in files.split()
        if file.partition(".")[0] == name
    )
    with Image.open(photograph_path(file)) as image:
        return encoded(to_tensor(image, Request(n=SAMPLE, c=1)))


def find_reports(results: str) -> dict[str, Path]:
    """The reports of studies, by the names of the studies."""
    paths = sorted(Path(results).glob("sweeps/*/report.html"))
    return {path.parent.name: path for path in paths}
