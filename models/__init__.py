"""Networks: forward(x) is the output, features(x) the named layers that end with it."""

from core import own
from core.registry import MODELS, READ_MEASUREMENTS, look_up
from models.base import Network, Restorer


def build_network(config: dict) -> Network:
    """The network of a config, which is data in the checkpoint."""
    config = dict(config)
    if config.pop("consistency", "none") == "range":
        from models.consistent import Consistent

        n = config["n"]
        if config["name"] not in READ_MEASUREMENTS:
            del config["n"]
        network = build_network(config)
        assert isinstance(network, Restorer), "a classifier has no image to be consistent"
        return Consistent(network, n)
    if own.is_own(config["name"]):
        from models.own_network import build

        return build(**config)
    if "classes" in config:
        config["classes"] = len(config["classes"])  # the config has their names
    return look_up(MODELS, config.pop("name"), "model")(**config)
