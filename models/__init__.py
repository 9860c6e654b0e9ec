"""Networks: forward(x) -> image, features(x) -> named taps whose last is the output."""

from tables import MODELS, look_up


def build_network(recipe: dict):
    """The network that a recipe names; the recipe is plain data and travels in the checkpoint."""
    recipe = dict(recipe)
    return look_up(MODELS, recipe.pop("name"), "model")(**recipe)
