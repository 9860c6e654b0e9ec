"""The one checkpoint format: weights, and the recipes that rebuild the network and the physics without guessing."""

import hashlib
import io
import math
import zipfile
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import nn

from algo_functions import build_physics
from core.errors import CONTROL, UserError
from core.files import durable
from core.inputs import checkpoint_file, existing_file
from models import build_network, rrdbnet, unet
from models.base import Network
from models.weights import UNREADABLE, reason
from physics.base import Physics

RESTORER, CLASSIFIER = "a network that restores images", "a classifier"
READERS = {  # of the two kinds, for those who took one for the other
    RESTORER: "main_unet_dist.py --teacher, progressive_distill.py and test_UNet.py",
    CLASSIFIER: "main_classify_dist.py --teacher and test_classify.py",
}
FORMAT = 2  # 1 had no digest
SEAL = 64  # hexadecimal digits of a sha256
LARGEST = 4096  # number in a recipe, unless a tensor of the file has such a side


P = TypeVar("P", bound=Physics | None)


class Restored(NamedTuple, Generic[P]):
    """What a checkpoint gives back; a bare file has no physics."""

    network: Network
    physics: P
    content: dict
    digest: str

    @property
    def crop(self) -> str:
        """What of a picture the network was shown."""
        return self.content["config"].get("crop", "center")


def write(path: Path, content: dict, before: Path | None = None) -> None:
    """Saves so that a reader finds the old file or the new one, never a part; the old one may be kept as `before`."""
    torch.save(content, buffer := io.BytesIO())
    durable(path, lambda temporary: temporary.write_bytes(sealed(buffer.getvalue())), before)


def sealed(archive: bytes) -> bytes:
    """A zip archive whose comment is the sha256 of all that stands before it."""
    archive = archive[:-2] + SEAL.to_bytes(
        2, "little"
    )  # the end of an archive tells the length of its comment
    return archive + hashlib.sha256(archive).hexdigest().encode()


def read(path: str | Path) -> dict:
    """The plain data of a checkpoint that is what was written; nothing in the file is ever executed, nothing in it is larger than the file."""
    data = checkpoint_file(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            seal, size = archive.comment, sum(member.file_size for member in archive.infolist())
            damaged = "too large a content" if size > len(data) else archive.testzip()
        if seal and seal != hashlib.sha256(data[:-SEAL]).hexdigest().encode():
            damaged = "it is not what was written"
        content = (
            {} if damaged else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        )
    except UNREADABLE as error:
        raise UserError(f"checkpoint {path} cannot be read: {reason(error)}") from None
    if not seal and isinstance(content, dict) and content.get("format") == FORMAT:
        damaged = "its digest is missing"
    if damaged:
        raise UserError(f"checkpoint {path} is damaged: {damaged}")
    return content


def digest(path: str | Path) -> str:
    """Twelve hexadecimal digits that name a file's content."""
    return hashlib.sha256(existing_file(path, "file").read_bytes()).hexdigest()[:12]


def pack(network: nn.Module, recipe: dict, physics: Physics, config: dict, **more) -> dict:
    """What is saved of a network: its weights under the key `weights`, its recipe, its physics, its configuration."""
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    seen = {"recipe": physics.config, "state": physics.state()}
    return {
        "format": FORMAT,
        "weights": weights,
        "network": recipe,
        "physics": seen,
        "config": config,
        **more,
    }


def bare(content: dict) -> dict | None:
    """What a state dict of another project tells: a U-Net of the original release, or BasicSR's RRDBNet under its average's key or its own."""
    weights = content.get("params_ema", content.get("params", content))
    if not isinstance(weights, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in weights.values()
    ):
        return None
    kernels = {name for name, tensor in weights.items() if tensor.dim() == 4}
    if "Conv1.0.weight" in kernels:
        return {
            "weights": dict(weights),
            "network": unet.config_of(weights),
            "physics": None,
            "config": {},
        }
    if {"conv_first.weight", "conv_last.weight", "body.0.rdb1.conv1.weight"} <= kernels:
        network = rrdbnet.config_of(weights)
        return {
            "weights": dict(weights),
            "network": network,
            "physics": {"name": "given", "n": 64},
            "config": {},
        }  # it restores given pictures
    return None


def told(foreign: dict, given: dict, camera: dict | None) -> dict:
    """The same with the camera that the user names, in words of the single-pixel camera or as a recipe, or with the one that such files have."""
    recipe = camera or (
        foreign["physics"]
        and foreign["physics"] | {name: given[name] for name in ("n",) if name in given}
    )
    if {"n", "cr", "ordering"} <= given.keys():
        recipe = {"name": "spc", "x0": "adjoint", "awgn_snr": None} | {
            name: given[name] for name in ("n", "cr", "ordering")
        }
    return foreign | {
        "physics": recipe and {"recipe": recipe | {"c": foreign["network"]["c"]}, "state": None}
    }


def check_kind(path: str | Path, network: dict, kind: str) -> None:
    """Refuses a classifier where a network that restores images is asked for, and the other way round."""
    found = CLASSIFIER if "classes" in network else RESTORER
    if found != kind:
        raise UserError(
            f"checkpoint {path} is {found} ('{network.get('name')}'), {kind} is needed here; it is for {READERS[found]}"
        )


def restore(
    path: str | Path,
    given: dict | None = None,
    camera: dict | None = None,
    kind: str | None = None,
) -> Restored[Physics | None]:
    """The network, in eval mode, and the physics of a checkpoint, which may have to be a RESTORER or a CLASSIFIER.

    `given` are values of n, c, cr, ordering, scales, width, padding that the user named: they must not contradict the file,
    and they complete a bare `.pth` of the original release, which carries no physics. `camera` is the recipe of the physics
    for any other file that carries none.
    """
    given = {name: value for name, value in (given or {}).items() if value is not None}
    content = read(path)
    foreign = bare(content) if isinstance(content, dict) else None
    content = told(foreign, given, camera) if foreign else content
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), dict) for name in ("weights", "network", "config")
    ):
        raise UserError(
            f"checkpoint {path} is neither of this project, nor a U-Net of the original release, nor an RRDBNet of BasicSR"
        )
    if content.get("format", FORMAT) > FORMAT:
        raise UserError(
            f"checkpoint {path} has format {content['format']}: this version reads up to {FORMAT}"
        )
    if kind:
        check_kind(path, content["network"], kind)
    seen = content.get("physics")
    if seen is not None and not (
        isinstance(seen, dict) and isinstance(seen.get("recipe"), dict) and "state" in seen
    ):
        raise UserError(f"checkpoint {path} has a physics that is no recipe")
    found = content["network"] | (seen["recipe"] if seen else {})
    for name, value in given.items():
        if name == "cr" and value in (found.get("cr") if isinstance(found.get("cr"), list) else ()):
            continue  # one ratio of a mixture
        if found.get(name, None if seen else value) != value:
            has = f"has {name} {found[name]}" if name in found else f"has no {name}"
            raise UserError(
                f"checkpoint {path} {has}, which contradicts the {name} {value} that was asked for"
            )
    check_sizes(found, content["weights"], path)
    try:
        with torch.device("meta"):
            check_weights(
                build_network(content["network"]), content["weights"], path
            )  # before anything of that size is made
        network = build_network(content["network"])
        physics = build_physics(seen["recipe"], state=seen["state"]) if seen else None
    except UserError as error:
        named = str(path) in str(error)
        raise error if named else UserError(f"checkpoint {path}: {error}") from None
    except (KeyError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError) as error:
        raise UserError(
            f"checkpoint {path} has a recipe that builds nothing: {repr(error).splitlines()[0]}"
        ) from None
    classes = content["network"].get("classes", [])
    if not isinstance(classes, list) or not all(
        isinstance(name, str) and not CONTROL.search(name) for name in classes
    ):
        raise UserError(f"checkpoint {path} has classes that are not names: {classes!r:.200}")
    load_weights(network, content["weights"], path)
    return Restored(network.eval(), physics, content, digest(path))


def restore_with_physics(
    path: str | Path, given: dict, camera: dict | None = None, kind: str | None = None
) -> Restored[Physics]:
    """A checkpoint that must say, or be told, what its network sees."""
    restored = restore(path, given, camera, kind)
    if restored.physics is None:
        raise UserError(
            f"checkpoint {path} is a bare file of the original release and carries no physics: n, cr and ordering must be given"
        )
    return Restored(restored.network, restored.physics, restored.content, restored.digest)


def check_sizes(recipe: dict, weights: dict, path: str | Path) -> None:
    """Refuses recipes and weights of a size that their file cannot have."""
    if not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise UserError(f"checkpoint {path} has weights that are no tensors")
    sides = [side for tensor in weights.values() for side in tensor.shape]
    for name, value in recipe.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= max(
                LARGEST, len(weights), *sides
            ):
                raise UserError(f"checkpoint {path} has an absurd recipe: {name} {number}")
    if any(
        math.prod(tensor.shape) * tensor.element_size() > tensor.untyped_storage().nbytes()
        for tensor in weights.values()
    ):
        raise UserError(f"checkpoint {path} has weights larger than what it holds of them")


def check_weights(network: nn.Module, weights: dict, path: str | Path) -> None:
    """Refuses weights whose names and shapes are not the network's."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        name = next(
            name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)
        )
        raise UserError(
            f"checkpoint {path} is of another network: {name} is {found.get(name)}, expected {expected.get(name)}"
        )


def load_weights(network: nn.Module, weights: dict, path: str | Path) -> None:
    """Loads weights whose names and shapes must be the network's; denormal numbers become zero."""
    check_weights(network, weights, path)
    # Numbers this small cost a CPU thirty times the work and change nothing.
    network.load_state_dict(
        {
            k: v.where(v.abs() >= 1e-30, 0) if v.is_floating_point() else v
            for k, v in weights.items()
        }
    )
