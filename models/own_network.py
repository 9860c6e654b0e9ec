"""A network of the user's own, which any PyTorch module can be."""

from typing import Any

from torch import Tensor, nn

from core import own
from core.errors import UserError, in_a_line
from models.base import Restorer


def check_image(output, image: Tensor, name: str) -> None:
    """Refuses an output that is no image of the shape of the first image."""
    if isinstance(output, Tensor) and output.shape == image.shape:
        return
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UserError(
        f"{name} returns {shape} for a first image {tuple(image.shape)}: "
        "an image of the same shape is needed"
    )


class OwnNetwork(Restorer):
    """A module of the user's that takes a first image (B, c, H, W) and returns an image.

    `layers` are names that distillation knows, each with the name of a submodule whose output it
    is; or the module has a method `features` that returns them all by name, "output" last.
    """

    can_checkpoint = False

    def __init__(self, c: int, key: str, module: nn.Module, layers: dict[str, str]):
        super().__init__(c)
        self.key, self.layers = key, layers
        self.module = module
        features = getattr(module, "features", None)
        self.has_features = callable(features) and not isinstance(features, nn.Module)
        if self.has_features and layers:
            raise UserError(f"layers: {key} names its own in `features`; leave out --layers")
        known = dict(module.named_modules())
        for layer, name in layers.items():
            if not layer.isidentifier() or layer == "output":
                raise UserError(f"layers: '{in_a_line(layer)}' cannot be the name of a layer")
            if name not in known or not name:
                names = ", ".join(name for name in known if name) or "none"
                raise UserError(f"layers: {key} has no submodule '{name}': it has {names}")

    def features(self, x: Tensor) -> dict[str, Tensor]:
        image = x[:, : self.c]
        features: Any = getattr(self.module, "features", None)
        with own.pointing_at(own.source_of(self.key).path):
            found = features(image) if self.has_features else self.watch(image)
        if not isinstance(found, dict) or [*found][-1:] != ["output"]:
            raise UserError(f"{self.key}: features must return a dict that ends with 'output'")
        check_image(found["output"], image, self.key)
        return found

    def watch(self, image: Tensor) -> dict[str, Any]:
        """The output, and before it the outputs of the submodules that `layers` names."""
        found: dict[str, Any] = {}
        modules = dict(self.module.named_modules())

        def keep(layer: str):
            def hook(_module, _inputs, output) -> None:
                if not isinstance(output, Tensor):
                    raise UserError(f"layers: '{layer}' of {self.key} is no tensor")
                found[layer] = output.clone()  # which an activation in place would change

            return hook

        hooks = [
            modules[name].register_forward_hook(keep(layer)) for layer, name in self.layers.items()
        ]
        try:
            output = self.module(image)
        finally:
            for hook in hooks:
                hook.remove()
        missing = [name for layer, name in self.layers.items() if layer not in found]
        if missing:
            raise UserError(f"layers: {self.key} does not use its submodule '{missing[0]}'")
        return found | {"output": output}


def build(
    name: str,
    c: int,
    digest: str,
    settings: dict | None = None,
    layers: dict[str, str] | None = None,
) -> OwnNetwork:
    """The network of a config, whose code must be in a file that the command line named."""
    own.report_change(name, digest, "the network was trained")
    kind = own.load(name)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UserError(f"{name} is not a class of torch.nn.Module")
    arguments = own.settings_for(kind, name, settings or {}, {"c": c})
    with own.pointing_at(own.source_of(name).path):
        module = kind(**arguments)
    return OwnNetwork(c, name, module, layers or {})
