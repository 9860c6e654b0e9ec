"""Networks: forward(x) -> image, features(x) -> named taps whose last is the output."""

from core.registry import MODELS, look_up


def build_network(recipe: dict):
    """The network that a recipe names; the recipe is plain data and travels in the checkpoint."""
    recipe = dict(recipe)
    if "classes" in recipe:
        recipe["classes"] = len(recipe["classes"])  # a recipe names them
    return look_up(MODELS, recipe.pop("name"), "model")(**recipe)
