"""A run with code of the user's own: what a checkpoint keeps of it, and which files it needs."""

from argparse import Namespace
from contextlib import suppress
from inspect import signature

from core import own
from core.errors import UserError


def network_config(args: Namespace) -> dict:
    """What rebuilds a network of the user's, from a checkpoint and the same file."""
    config = {"name": args.network, "c": args.c, "digest": own.source_of(args.network).digest}
    if settings := settings_of(args, args.network):
        config["settings"] = settings
    if args.layers:
        config["layers"] = dict(pairs_of(args.layers))
    return config


def physics_config(args: Namespace) -> dict:
    """What rebuilds a physics of the user's, beside its flags."""
    config = {"digest": own.source_of(args.physics).digest}
    settings = settings_of(args, args.physics)
    return config | ({"settings": settings} if settings else {})


def settings_of(args: Namespace, key: str) -> dict:
    """The values of --set that a thing of the user's takes, by name."""
    pairs = pairs_of(getattr(args, "set", None) or [])
    return {name: value_of(text) for name, text in pairs if takes(key, name)}


def takes(key: str, name: str) -> bool:
    """Whether a thing has an argument of a name, or takes all."""
    parameters = signature(own.load(key)).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_settings(args: Namespace) -> None:
    """Refuses a name of --set that no thing of the user's takes."""
    things = [key for key in keys_of(args) if key != args.dataset]
    for name, _ in pairs_of(getattr(args, "set", None) or []):
        if not any(takes(key, name) for key in things):
            known = dict.fromkeys(
                parameter for key in things for parameter in signature(own.load(key)).parameters
            )
            raise UserError(
                f"set {name}: {', '.join(things)} has no such argument, "
                f"only {', '.join(known) or 'none'}"
            )


def keys_of(args: Namespace) -> list[str]:
    """The things of the user's that the flags name."""
    losses = [own.split_word(word)[0] for word in getattr(args, "loss_distill", None) or ()]
    others = [getattr(args, name, None) for name in ("network", "teacher", "dataset", "physics")]
    return [name for name in (*others, *losses) if name and own.is_own(name)]


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
    check_settings(args)
    found = {}
    for key in keys_of(args):
        source = own.source_of(key)
        found[f"code {source.path.name}"] = str(source.path)
    return found
