"""Networks: forward(x) -> image, features(x) -> named taps whose last is the output."""

from core.registry import MODELS, look_up


def build_network(config: dict):
    """The network that a recipe names; the recipe is plain data and travels in the checkpoint."""
    config = dict(config)
    if "classes" in config:
        config["classes"] = len(config["classes"])  # a recipe names them
    return look_up(MODELS, config.pop("name"), "model")(**config)
