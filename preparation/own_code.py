"""A run with code of the user's own: what a checkpoint keeps of it, and which files it needs."""

from argparse import Namespace
from contextlib import suppress
from inspect import signature

from core import own


def network_config(args: Namespace) -> dict:
    """What rebuilds a network of the user's, from a checkpoint and the same file."""
    config = {"name": args.network, "c": args.c, "digest": own.source_of(args.network).digest}
    settings, physics = settings_of(args), arguments_of(args.physics)
    own_arguments = arguments_of(args.network)
    if settings:  # a name that nobody has is refused by the network
        config["settings"] = {
            name: value
            for name, value in settings.items()
            if name in own_arguments or name not in physics
        }
    if args.layers:
        config["layers"] = dict(pairs_of(args.layers))
    return config


def physics_config(args: Namespace) -> dict:
    """What rebuilds a physics of the user's, beside its flags."""
    config = {"digest": own.source_of(args.physics).digest}
    known, others = arguments_of(args.physics), own.is_own(getattr(args, "network", None))
    settings = {
        name: value for name, value in settings_of(args).items() if name in known or not others
    }
    return config | ({"settings": settings} if settings else {})


def settings_of(args: Namespace) -> dict:
    """The values of --set, by name."""
    return {name: value_of(text) for name, text in pairs_of(getattr(args, "set", None) or [])}


def arguments_of(name: str | None) -> set[str]:
    """The arguments of a thing of the user's; of all else none."""
    return set(signature(own.load(name)).parameters) if name and own.is_own(name) else set()


def flags_of(config: dict) -> dict[str, list[str] | None]:
    """The flags that such a config stands for."""
    return {
        flag: [f"{name}={value}" for name, value in config.get(key, {}).items()] or None
        for flag, key in (("set", "settings"), ("layers", "layers"))
    }


def pairs_of(words: list[str]) -> list[tuple[str, str]]:
    """Names and values of words NAME=VALUE."""
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]


def value_of(text: str) -> int | float | bool | str:
    """A value of --set as the number or truth value that it is, or as text.

    Not as YAML, whose dates a checkpoint could not hold.
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def files(args: Namespace) -> dict[str, str]:
    """The user's own code, whose content belongs to the configuration of a run."""
    names = [args.network, *(own.split_word(word)[0] for word in getattr(args, "loss_distill", []))]
    others = (getattr(args, name, None) for name in ("teacher", "dataset", "physics"))
    names += [name for name in others if isinstance(name, str)]
    things = [thing for thing in map(own.parse, names) if thing is not None]
    return {f"code {thing.file}": str(own.source_of(thing.key).path) for thing in things}
