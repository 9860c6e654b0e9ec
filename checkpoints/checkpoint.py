"""The one checkpoint format: weights, and the configs that rebuild network and physics."""

import hashlib
import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from algo_functions import build_physics
from checkpoints.old_formats import upgraded
from core import own
from core.errors import CONTROL, UserError
from core.files import durable
from core.inputs import checkpoint_file, existing_file
from core.registry import LIGHT_LIMITS
from models import build_network, rrdbnet, unet
from models.base import Network
from models.weights import UNREADABLE, describe_unreadable
from physics.base import Physics
from physics.cameras import Mixture

RESTORER, CLASSIFIER = "a network that restores images", "a classifier"
READERS = {  # of the two kinds, for those who took one for the other
    RESTORER: "main_unet_dist.py --teacher, progressive_distill.py and test_UNet.py",
    CLASSIFIER: "main_classify_dist.py --teacher and test_classify.py",
}
FORMAT = 3  # see `checkpoints.old_formats`
SEALED = 2  # the first format with a digest
SEAL = 64  # hexadecimal digits of a sha256
LARGEST = 4096  # number in a config, unless a tensor of the file has such a side


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with the physics it was trained behind, and what rebuilds both."""

    network: Network  # in eval mode
    physics: Physics
    network_config: dict
    training_config: dict
    digest: str

    @property
    def is_classifier(self) -> bool:
        return "classes" in self.network_config

    @property
    def classes(self) -> list[str]:
        return self.network_config["classes"]

    @property
    def crop(self) -> str:
        """How pictures were cropped for the network."""
        return self.training_config.get("crop", "center")


@dataclass(frozen=True)
class Content:
    """The plain data of a checkpoint, in the present format."""

    path: str | Path
    weights: dict
    network: dict  # its config
    physics: dict | None  # its config and state; a file of another project may have none
    config: dict  # of the training


def write(path: Path, content: dict, before: Path | None = None) -> None:
    """Saves a file as a whole or not at all; the old one may be kept as `before`."""
    torch.save(content, buffer := io.BytesIO())
    durable(path, lambda temporary: temporary.write_bytes(sealed(buffer.getvalue())), before)


def sealed(archive: bytes) -> bytes:
    """A zip archive whose comment is the sha256 of all that stands before it."""
    archive = archive[:-2] + SEAL.to_bytes(
        2, "little"
    )  # the end of an archive holds the length of its comment
    return archive + hashlib.sha256(archive).hexdigest().encode()


def read(path: str | Path) -> dict:
    """The plain data of a checkpoint, which must be what was written.

    Nothing in the file is executed, and nothing in it may be larger than the file.
    """
    data = checkpoint_file(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            seal, size = archive.comment, sum(member.file_size for member in archive.infolist())
            damaged = "its content is too large" if size > len(data) else archive.testzip()
        if seal and seal != hashlib.sha256(data[:-SEAL]).hexdigest().encode():
            damaged = "its content does not match its digest"
        content = (
            {} if damaged else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        )
    except UNREADABLE as error:
        raise UserError(f"checkpoint {path} cannot be read: {describe_unreadable(error)}") from None
    if not seal and isinstance(content, dict) and content.get("format") in (SEALED, FORMAT):
        damaged = "its digest is missing"
    if damaged:
        raise UserError(f"checkpoint {path} is damaged: {damaged}")
    return upgraded(content) if isinstance(content, dict) else content


def digest(path: str | Path) -> str:
    """Twelve hexadecimal digits that name a file's content."""
    return hashlib.sha256(existing_file(path, "file").read_bytes()).hexdigest()[:12]


def pack(
    network: Network, network_config: dict, physics: Physics, training_config: dict, **more
) -> dict:
    """What is saved of a network: its weights, and what rebuilds it and its physics."""
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    return {
        "format": FORMAT,
        "weights": weights,
        "network": network_config,
        "physics": {"config": physics.config, "state": physics.state()},
        "config": training_config,
        **more,
    }


def foreign_content(content: dict) -> dict | None:
    """The content of another project's file, if it is one that is known.

    Known are a U-Net of the original release, and BasicSR's RRDBNet or its average.
    """
    weights = content.get("params_ema", content.get("params", content))
    if not isinstance(weights, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in weights.values()
    ):
        return None
    kernels = {name for name, tensor in weights.items() if tensor.dim() == 4}
    if "Conv1.0.weight" in kernels:
        network, physics = unet.config_of(weights), None
    elif {"conv_first.weight", "conv_last.weight", "body.0.rdb1.conv1.weight"} <= kernels:
        network = rrdbnet.config_of(weights)
        physics = {"name": "given", "n": 64}  # it restores given pictures
    else:
        return None
    return {"weights": dict(weights), "network": network, "physics": physics, "config": {}}


def with_physics(foreign: dict, requested: dict, physics_config: dict | None) -> dict:
    """A foreign file's content with the physics that the user names, or that such files have.

    The user names it by n, cr and ordering of a single-pixel camera, or by a config.
    """
    config = physics_config
    if not config and foreign["physics"]:
        config = foreign["physics"] | {
            name: requested[name] for name in ("n",) if name in requested
        }
    if {"n", "cr", "ordering"} <= requested.keys():
        named = {name: requested[name] for name in ("n", "cr", "ordering")}
        config = {"name": "spc", "x0": "adjoint", "awgn_snr": None} | named
    if not config:
        return foreign | {"physics": None}
    channels = {"c": foreign["network"]["c"]}
    return foreign | {"physics": {"config": config | channels, "state": None}}


def check_kind(path: str | Path, network: dict, kind: str) -> None:
    """Refuses a classifier where a network that restores images is needed, and the reverse."""
    actual = CLASSIFIER if "classes" in network else RESTORER
    if actual != kind:
        raise UserError(
            f"checkpoint {path} is {actual} ('{network.get('name')}'), but {kind} is needed here; "
            f"it is for {READERS[actual]}"
        )


def parse(path: str | Path, requested: dict, physics_config: dict | None = None) -> Content:
    """The content of a file of this project, or of another project's that is known."""
    content = read(path)
    foreign = foreign_content(content) if isinstance(content, dict) else None
    if foreign:
        content = with_physics(foreign, requested, physics_config)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), dict) for name in ("weights", "network", "config")
    ):
        raise UserError(
            f"checkpoint {path} is neither of this project, nor a U-Net of the original release, "
            "nor an RRDBNet of BasicSR"
        )
    if content.get("format", FORMAT) > FORMAT:
        raise UserError(
            f"checkpoint {path} has format {content['format']}: this version reads up to {FORMAT}"
        )
    network, physics = content["network"], content.get("physics")
    if physics is not None and not (
        isinstance(physics, dict) and isinstance(physics.get("config"), dict) and "state" in physics
    ):
        raise UserError(f"checkpoint {path} has a physics without a config and a state")
    return Content(path, content["weights"], network, physics, content["config"])


def validate(content: Content, requested: dict, kind: str | None) -> None:
    """Refuses what is of another kind, contradicts the user, or cannot be true of its weights."""
    path, physics = content.path, content.physics
    if kind:
        check_kind(path, content.network, kind)
    config = content.network | (physics["config"] if physics else {})
    for name, value in requested.items():
        if name == "cr" and isinstance(config.get("cr"), list):
            continue  # of a network for several ratios, see `at_ratios`
        if config.get(name, None if physics else value) != value:
            has = f"has {name} {config[name]}" if name in config else f"has no {name}"
            raise UserError(
                f"checkpoint {path} {has}, which contradicts the {name} {value} that was asked for"
            )
    check_sizes(config, content.weights, path)
    classes = content.network.get("classes", [])
    if not isinstance(classes, list) or not all(
        isinstance(name, str) and not CONTROL.search(name) for name in classes
    ):
        raise UserError(f"checkpoint {path} has classes that are not names: {classes!r:.200}")


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Names the file whose configs cannot be built."""
    try:
        yield
    except UserError as error:
        named = str(path) in str(error)
        raise error if named else UserError(f"checkpoint {path}: {error}") from None
    except (KeyError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError) as error:
        raise UserError(
            f"checkpoint {path} has a config that nothing can be built from: "
            f"{repr(error).splitlines()[0]}"
        ) from None


def rebuild_network(content: Content) -> Network:
    """The network of a checkpoint, in eval mode."""
    with naming(content.path):
        if not own.is_own(content.network.get("name")):  # a user's own code may need real tensors
            with torch.device("meta"):  # before anything of that size is made
                check_weights(build_network(content.network), content.weights, content.path)
        network = build_network(content.network)
    load_weights(network, content.weights, content.path)
    return network.eval()


def rebuild_physics(content: Content) -> Physics:
    if content.physics is None:
        raise UserError(
            f"checkpoint {content.path} is a bare file of the original release, which does not "
            "name its physics: n, cr and ordering must be given"
        )
    with naming(content.path):
        return build_physics(content.physics["config"], state=content.physics["state"])


def restore(
    path: str | Path,
    requested: dict | None = None,
    physics_config: dict | None = None,
    kind: str | None = None,
) -> Checkpoint:
    """A checkpoint's network and physics; `kind` is RESTORER or CLASSIFIER where one is needed.

    `requested` are values of n, c, cr, ordering, scales, width, padding that the user named: they
    must not contradict the file, and they complete a file of the original release, which does not
    name its physics. cr may be some of the ratios of a network for several.
    `physics_config` is the physics of any other file that names none.
    """
    requested = {name: value for name, value in (requested or {}).items() if value is not None}
    content = parse(path, requested, physics_config)
    validate(content, requested, kind)
    network, physics = rebuild_network(content), rebuild_physics(content)
    if "cr" in requested and isinstance(physics, Mixture):
        with naming(path):
            physics = physics.at_ratios(requested["cr"])
    return Checkpoint(network, physics, content.network, content.config, digest(path))


def restore_network(path: str | Path, kind: str | None = None) -> tuple[Network, dict]:
    """A checkpoint's network and its config, whatever the physics."""
    content = parse(path, {})
    validate(content, {}, kind)
    return rebuild_network(content), content.network


def check_sizes(config: dict, weights: dict, path: str | Path) -> None:
    """Refuses configs and weights of a size that their file cannot have."""
    if not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise UserError(f"checkpoint {path} has weights that are not tensors")
    sides = [side for tensor in weights.values() for side in tensor.shape]
    for name, value in config.items():
        if name in LIGHT_LIMITS:
            continue  # they have limits of their own
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= max(
                LARGEST, len(weights), *sides
            ):
                raise UserError(f"checkpoint {path} has an impossible config: {name} {number}")
    if any(
        math.prod(tensor.shape) * tensor.element_size() > tensor.untyped_storage().nbytes()
        for tensor in weights.values()
    ):
        raise UserError(f"checkpoint {path} has weights larger than their stored values")


def check_weights(network: Network, weights: dict, path: str | Path) -> None:
    """Refuses weights whose names and shapes are not the network's."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        name = next(
            name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)
        )
        raise UserError(
            f"checkpoint {path} holds another network: {name} is {found.get(name)}, "
            f"expected {expected.get(name)}"
        )


def load_weights(network: Network, weights: dict, path: str | Path) -> None:
    """Loads weights whose names and shapes must be the network's; denormal numbers become zero."""
    check_weights(network, weights, path)
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"checkpoint {path} cannot be used: weight {name} holds numbers that are not finite"
            )
    # Numbers this small cost a CPU thirty times the work and change nothing.
    network.load_state_dict(
        {
            k: v.masked_fill(v.abs() < 1e-30, 0) if v.is_floating_point() else v
            for k, v in weights.items()
        }
    )
