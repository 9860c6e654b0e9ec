"""Networks: forward(x) is the output, features(x) the named layers that end with it."""

from core.registry import MODELS, look_up
from models.base import Network

OLD_KEYS = {"features": "channels"}  # of DnCNN and RRDBNet in checkpoints of earlier versions


def current_config(config: dict) -> dict:
    """A network's config with this version's names, whichever version wrote it."""
    return {OLD_KEYS.get(name, name): value for name, value in config.items()}


def build_network(config: dict) -> Network:
    """The network of a config, which is plain data and travels in the checkpoint."""
    config = current_config(config)
    if "classes" in config:
        config["classes"] = len(config["classes"])  # the config has their names
    return look_up(MODELS, config.pop("name"), "model")(**config)
