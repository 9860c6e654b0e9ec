"""Networks that answer with the mean over mirror images, where the physics allows that."""

from dataclasses import replace

from checkpoints.checkpoint import Checkpoint
from core.errors import UserError
from models.base import Network, Restorer
from models.self_ensemble import SelfEnsemble
from physics.base import Physics
from physics.mosaic import Mosaic
from physics.orderings import is_hadamard
from physics.single_pixel import SinglePixel


def self_ensemble(network: Network, physics: Physics, owner: str) -> SelfEnsemble:
    """The network's mean over mirror images; refused where they cannot be known."""
    for part in physics.parts:
        if part.config.get("x0") == "lmmse":
            raise UserError(
                f"self_ensemble: {owner} begins with x0 lmmse, which is fitted to images as they "
                "are, not to mirrored ones; it needs x0 adjoint"
            )
        if not mirrors(part):
            raise UserError(
                f"self_ensemble: what {owner} sees of a mirrored image is not known from what it "
                f"sees of the image (physics '{part.label}'); it is known of denoise, sr, blur "
                "without motion, and spc with Hadamard patterns"
            )
    assert isinstance(network, Restorer), "a teacher or a checkpoint that restores images"
    return SelfEnsemble(network, physics.block)


def mirrored_checkpoint(path: str, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a network that answers by its mean over mirror images."""
    if checkpoint.is_classifier:
        raise UserError(f"self_ensemble: {path} classifies; it is for networks that restore images")
    return replace(checkpoint, network=self_ensemble(checkpoint.network, checkpoint.physics, path))


def mirrors(physics: Physics) -> bool:
    """Whether the first image of a mirrored scene follows from that of the scene."""
    if isinstance(physics, Mosaic):
        return mirrors(physics.physics)
    if isinstance(physics, SinglePixel):
        return is_hadamard(physics.patterns, physics.config["n"])
    name, kernel = physics.config["name"], physics.config.get("kernel")
    return name in ("denoise", "sr") or (name == "blur" and kernel != "motion")
