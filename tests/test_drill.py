"""A few tries of every fault, as `python -m tests.drill --few` makes them; what is lost here would be lost in a cluster."""

import os
import subprocess
import sys

import pytest
from test_house import ROOT

from tests import drill

GROUPS = [  # rows by words of their names, so that they run beside each other
    ["kill", "disk", "read-only", "full device", "damaged"],
    ["stopped", "cut or flipped", "release"],
    ["SIG", "NaN", "malicious", "wrong"],
    ["two runs", "picture", "W&B"],
    ["changed", "measurements"],
]


@pytest.mark.parametrize(
    "words",
    [
        ["damaged"],
        *(pytest.param(words, marks=pytest.mark.long) for words in GROUPS),
    ],
    ids=lambda words: words[0],
)
def test_nothing_is_lost(words, tmp_path):
    command = [sys.executable, "-m", "tests.drill", "--few", "--only", *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "nothing was lost" in done.stdout, done.stdout + done.stderr


def test_every_fault_is_tried(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["drill", "--list"])
    drill.main()
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) > 15
    for name in listed:
        tried = [words for words in GROUPS if any(word in name for word in words)]
        assert len(tried) == 1 or name == "a distributed rank dies", (
            name
        )  # that one is test_ranks.py's
