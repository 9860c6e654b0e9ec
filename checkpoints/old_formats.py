"""Checkpoints and run states of earlier versions, in the words of the present one.

Format 1 had no digest. Formats 1 and 2 called a physics's config its recipe, and a run's task its
stage.
"""


def upgraded(content: dict) -> dict:
    """The content of a checkpoint as the present version writes it."""
    physics, state = content.get("physics"), content.get("resume")
    if isinstance(physics, dict) and "recipe" in physics:
        config = {"config": physics["recipe"]}
        content = content | {"physics": without(physics, "recipe") | config, "format": 3}
    if isinstance(state, dict) and "stage" in state:
        content = content | {"resume": without(state, "stage") | {"task": state["stage"]}}
    return content


def without(values: dict, name: str) -> dict:
    return {key: value for key, value in values.items() if key != name}
