"""The networks of the folder zoo/: what they are, whether they are whole, and their training."""

import json
import math
import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from core.errors import UserError
from core.files import write_text
from core.zoo import FOLDER, entries, file_of
from report.tables import markdown

FACTS = FOLDER / "zoo.json"  # what was measured of the files
SCORES = {"PSNR": 0.01, "SSIM": 0.001, "top-1": 0.0}  # and the largest difference
Test = Callable[[str, bool, Namespace], dict]


def facts() -> dict[str, dict]:
    """Parameters, digest and scores of the networks."""
    return json.loads(FACTS.read_text()) if FACTS.is_file() else {}


def words_of(name: str) -> list[str]:
    """The flags of a network's training, as they are typed."""
    script = import_module(entries()[name]["script"].removesuffix(".py"))
    return script.build_parser().words_of(entries()[name]["flags"], f"zoo:{name}")


def command_of(name: str) -> str:
    return shlex.join(["python", entries()[name]["script"], *words_of(name)])


def list_networks(names: list[str]) -> dict:
    """A table of the networks."""
    known = facts()
    rows = [
        {"name": name, "what": entries()[name]["what"]}
        | {key: value for key, value in known.get(name, {}).items() if key != "digest"}
        for name in names
    ]
    print(markdown(rows))
    return {row["name"]: row for row in rows}


def describe(names: list[str]) -> dict:
    """Everything that is known of networks, with the commands that trained them."""
    found = {}
    for name in names:
        found[name] = {
            "name": f"zoo:{name}",
            "what": entries()[name]["what"],
            "file": str(file_of(name)),
            **facts().get(name, {}),
            "command": command_of(name),
        }
        print("\n".join(f"{key:<12}{value}" for key, value in found[name].items()) + "\n")
    return found


def measured(name: str, test: Test, args: Namespace) -> dict:
    """Parameters, digest and scores of a file, as they are now."""
    from checkpoints import checkpoint

    path = file_of(name)
    network, config = checkpoint.restore_network(path)
    rows = test(str(path), "classes" in config, args)
    count = sum(weight.numel() for weight in network.parameters())
    return {"parameters": count, "digest": checkpoint.digest(path), **rows}


def verify(names: list[str], test: Test, args: Namespace) -> dict:
    """Whether files are those that were stored, and score what they did."""
    wrong, known = [], facts()
    for name in names:
        now = measured(name, test, args)
        before = known.get(name, {})
        for key, value in now.items():
            same = value == before.get(key)
            if key in SCORES and isinstance(before.get(key), float):
                same = math.isclose(value, before[key], abs_tol=SCORES[key])
            if not same:
                wrong.append(f"{name}: {key} is {value}, and was {before.get(key)}")
    if wrong:
        raise UserError("; ".join(wrong))
    print(f"{len(names)} networks are as they were stored")
    return known


def train(name: str, test: Test, args: Namespace) -> dict:
    """Trains a network again by its command; --store puts it into the zoo."""
    script = import_module(entries()[name]["script"].removesuffix(".py"))
    folder = Path(args.results) / "zoo" / name
    words = [*words_of(name), "--results", str(folder), "--device", args.device]
    print(command_of(name))
    scores = script.main(script.parse(words))
    if args.store:
        shutil.copyfile(scores["checkpoint"], file_of(name))
        known = facts() | {name: measured(name, test, args)}
        ordered = {name: known[name] for name in entries() if name in known}
        write_text(FACTS, json.dumps(ordered, indent=1) + "\n")
        print(f"zoo:{name} is {scores['checkpoint']}")
    return scores
