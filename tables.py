"""Every name a user can type and where its code lives; nothing here is imported until it is used."""

from importlib import import_module
from typing import NamedTuple


class UserError(ValueError):
    """A mistake of the user: scripts print it as one line and exit with code 2."""


class Diverged(ArithmeticError):
    """A loss that is not a number: scripts print it as one line and exit with code 3."""


class Loss(NamedTuple):
    """Where a distillation loss lives, its weight under the default recipe, the flags it reads, and whether shapes must agree."""

    path: str
    weight: float
    options: tuple[str, ...] = ()
    adapted: bool = True


MODELS = {
    "unet": "models.unet:UNet",
    "hybrid_unet": "models.hybrid_unet:HybridUNet",
}

PHYSICS = {
    "spc": "algo_functions:single_pixel_camera",
    "cs": "algo_functions:single_pixel_camera",
}

ORDERINGS = {  # of the Hadamard patterns, or dense patterns; file:PATH is the user's own
    "xy": "algo_functions:xy_places",
    "zig_zag": "algo_functions:zig_zag_places",
    "cake_cutting": "algo_functions:cake_cutting_places",
    "sequency": "algo_functions:sequency_places",
    "strip": "algo_functions:strip_places",
    "variance": "algo_functions:variance_places",
    "random": "algo_functions:random_patterns",
}

FIRST_IMAGES = ("adjoint", "lmmse")
BATCH_NORMS = ("off", "on", "bias-free")
PADDINGS = ("zeros", "circular", "release")

DATASETS = {
    "photos": "data_loader:photos",
    "digits": "data_loader:digits",
    "mnist": "data_loader:mnist",
    "fashion_mnist": "data_loader:fashion_mnist",
    "cifar10": "data_loader:cifar10",
    "celeba": "data_loader:celeba",
    "folder": "data_loader:folder",
    "npz": "data_loader:npz",
}

LOSSES = {
    "mse": Loss("distill.feature:mse", 0.1),
    "mae": Loss("distill.feature:mae", 0.1),
    "l1": Loss("distill.feature:mae", 0.1),
    "cs": Loss("distill.feature:cs", 0.03),
    "l2": Loss("distill.feature:l2", 0.0005),
    "linf": Loss("distill.feature:linf", 0.003),
    "comb_matrix": Loss("distill.relation:comb_matrix", 0.0005, options=("gamma",), adapted=False),
}

TASK_LOSSES = {
    "mse": "distill.feature:mse",
    "mae": "distill.feature:mae",
    "l2": "distill.feature:l2",
    "charbonnier": "distill.feature:charbonnier",
}

SELECTIONS = (  # --type_dist: the place in this list, or the name
    "latent",
    "all",
    "first_latent",
    "output",
    "output_latent",
    "encoder",
    "encoder_latent",
    "latent_decoder",
    "output_latent_decoder",
    "output_all",
    "first",
    "output_first_latent",
    "output_first",
)

OPTIMIZERS = {"adam": "torch.optim:Adam", "adamw": "torch.optim:AdamW", "sgd": "torch.optim:SGD"}


def load(path: str):
    """The object that a 'module:name' string points to."""
    module, name = path.split(":")
    return getattr(import_module(module), name)


def look_up(table: dict, name: str, what: str):
    """The object behind a table's name, or an error that lists the names."""
    if name not in table:
        raise UserError(f"unknown {what} '{name}': choose from {', '.join(table)}")
    entry = table[name]
    return load(entry if isinstance(entry, str) else entry.path)
