"""Checkpoints and run states of earlier versions, in the words of the present one.

Format 1 had no digest. Formats 1 and 2 called the config of a physics its recipe, the task of a run
its stage, and the channels of DnCNN and RRDBNet their features.
"""


def upgraded(content: dict) -> dict:
    """The content of a checkpoint as the present version writes it."""
    network, physics, state = (content.get(key) for key in ("network", "physics", "resume"))
    if isinstance(network, dict) and "features" in network:
        channels = {"channels": network["features"]}
        content = content | {"network": without(network, "features") | channels}
    if isinstance(physics, dict) and "recipe" in physics:
        config = {"config": physics["recipe"]}
        content = content | {"physics": without(physics, "recipe") | config, "format": 3}
    if isinstance(state, dict) and "stage" in state:
        content = content | {"resume": without(state, "stage") | {"task": state["stage"]}}
    return content


def without(values: dict, name: str) -> dict:
    return {key: value for key, value in values.items() if key != name}
