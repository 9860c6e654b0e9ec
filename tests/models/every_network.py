"""Trains every network at every small width for a few steps, each in a process of its own.

Called by tests/models/test_narrow.py, once for each set of instructions that oneDNN may use. It prints one
JSON object: what became of each network and width.
"""

import json
import os
import sys
import time

import torch

from core.errors import UserError
from core.registry import CLASSIFIERS, NETWORKS, READ_MEASUREMENTS
from models import build_network
from models.base import to_device

LIMIT = 60  # seconds
STEPS = 2
CPU = torch.device("cpu")
FINE, REFUSED, ERROR = 0, 10, 11  # exit codes of a case
OUTCOMES = {FINE: "fine", REFUSED: "refused", ERROR: "error"}


def config_for(name: str, width: int) -> dict:
    """The network's recipe at a width; deep ones no deeper than they have to be."""
    line = NETWORKS.get(name) or CLASSIFIERS[name]
    flags = {flag: value for flag, value in line.flags.items() if flag != "pretrained"}
    widths = {flag: width for flag in ("width", "channels", "growth") if flag in flags}
    blocks = {"blocks": 1} if "blocks" in flags else {}
    stem = {"stem": "small"} if "stem" in flags else {}
    classes = {"classes": ["a", "b", "c"], "side": 32} if name in CLASSIFIERS else {}
    return {"name": name, "c": 3} | flags | widths | blocks | stem | classes


def train(config: dict) -> None:
    """A few forward and backward passes, as a training does them."""
    torch.manual_seed(0)
    network = to_device(build_network(config), CPU).train()
    channels = 10 if config["name"] in READ_MEASUREMENTS else 3  # values, variances and a mask
    x = torch.rand(2, channels, 32, 32).contiguous(
        memory_format=torch.channels_last
    )  # as pictures may lie
    for _ in range(STEPS):
        loss = network(x).square().mean()
        loss.backward()
        assert loss.isfinite()


def outcome(config: dict) -> str:
    """What becomes of a process that trains this network: fine, refused, error, never ends, or its signal."""
    child = os.fork()
    if child == 0:
        os._exit(exit_code(config))
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended and os.WIFSIGNALED(status):
            return f"signal {os.WTERMSIG(status)}"
        if ended:
            return OUTCOMES[os.WEXITSTATUS(status)]
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "never ends"


def exit_code(config: dict) -> int:
    try:
        train(config)
    except UserError:
        return REFUSED
    except (RuntimeError, ValueError, AssertionError) as error:
        print(f"{config['name']}: {error}", file=sys.stderr)
        return ERROR
    return FINE


if __name__ == "__main__":
    torch.set_num_threads(1)
    widths = [int(word) for word in sys.argv[1:]]
    found = {}
    names = (*NETWORKS, *CLASSIFIERS)
    for name in names:
        build_network(config_for(name, 16))  # imports what the processes of the cases then have
    for name in names:
        has_width = {"width", "channels"} & {*(NETWORKS.get(name) or CLASSIFIERS[name]).flags}
        for width in widths if has_width else widths[:1]:
            found[f"{name} {width}"] = outcome(config_for(name, width))
    print(json.dumps(found))
