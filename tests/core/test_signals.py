"""A process that is asked to end does so, even where it hangs inside a step."""

import signal
import subprocess
import sys
import time

import pytest
from test_house import ROOT

HANGS = {
    "in Python": "while True: time.sleep(0.01)",
    "inside of torch": "torch.linalg.svd(torch.rand(9000, 9000))",
}
CODE = """
import time, torch
from core import runtime
from core.errors import Stopped
runtime.GRACE = {grace}
with runtime.Stop() as stop:
    print("ready", flush=True)
    {work}
"""


def started(work: str, grace: float = 1) -> subprocess.Popen:
    """A process that is at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE.format(work=work, grace=grace)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    return process


def ended(process: subprocess.Popen) -> str:
    """What it says in the end."""
    try:
        return process.communicate(timeout=20)[1]
    finally:
        process.kill()


@pytest.mark.parametrize("work", HANGS.values(), ids=HANGS)
def test_a_signal_that_is_not_obeyed_in_time_ends_the_process(work):
    process = started(work)
    process.send_signal(signal.SIGTERM)
    printed = ended(process)
    assert process.returncode == 75
    assert (
        printed
        == "-c: stopped: no end of the step within 1 s after SIGTERM; what was saved is intact\n"
    )


def test_a_second_signal_ends_a_process_that_hangs_at_once():
    process = started(HANGS["inside of torch"], grace=1000)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == ""
    # By the watch, or by the system where the step came to its end between the two signals.
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)


def test_a_signal_that_is_obeyed_leaves_all_the_time_to_save():
    work = """
    while not stop.received: time.sleep(0.01)
    try:
        stop.check()
    except Stopped as error:
        time.sleep(3)
        raise SystemExit(str(error))"""
    process = started(work)
    process.send_signal(signal.SIGUSR1)
    assert ended(process) == "SIGUSR1\n"
    assert process.returncode == 1
