"""A run with code of the user's own: what a checkpoint keeps of it, and which files it needs."""

from argparse import Namespace
from contextlib import suppress

from core import own


def network_config(args: Namespace) -> dict:
    """What rebuilds a network of the user's, from a checkpoint and the same file."""
    config = {"name": args.network, "c": args.c, "digest": own.source_of(args.network).digest}
    if args.set:
        config["settings"] = {name: value_of(text) for name, text in pairs_of(args.set)}
    if args.layers:
        config["layers"] = dict(pairs_of(args.layers))
    return config


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
    names += [name for name in (getattr(args, "teacher", None),) if isinstance(name, str)]
    things = [thing for thing in map(own.parse, names) if thing is not None]
    return {f"code {thing.file}": str(own.source_of(thing.key).path) for thing in things}
