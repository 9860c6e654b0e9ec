"""Several processes under torchrun train like one, and stop and go on together."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from socket import socket

import pytest
import torch
from test_house import ROOT

import main_classify
import main_classify_dist
import main_unet
import main_unet_dist
from algo_functions import ClassMeter
from checkpoints import checkpoint
from core import distributed
from core.registry import LABELLED
from data.batches import build_loader
from data_loader import Request, build_splits
from training.cache import Views
from training.loop import Fit
from training.validation import evaluate

DATA = [
    "--dataset",
    "digits",
    "--n",
    "16",
    "--limit_train",
    "30",
    "--limit_val",
    "11",
    "--batch_size",
    "8",
    "--wandb",
    "disabled",
]
UNET = [*DATA, "--width", "4", "--epochs", "2"]
VIT = [*DATA, "--model", "vit_tiny", "--patch", "8", "--width", "64", "--epochs", "2"]


def torchrun(script, *words, ranks=2):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={ranks}",
        "--",
        str(ROOT / f"{script.__name__}.py"),
    ]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        [*command, *words], **streams, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def started(rank, port, script, words):
    """What torchrun starts, in a copy of this process, which has imported everything."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with (
        open(f"said_{rank}.txt", "w") as printed,
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        script.main(script.parse(list(words)))


def forked(script, *words):
    """Two processes without torchrun, and what they say."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        get_context("fork").Process(target=started, args=(rank, port, script, words))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    printed = "".join(Path(f"said_{rank}.txt").read_text() for rank in range(2))
    assert [process.exitcode for process in both] == [0, 0], printed
    return printed


def together(script, *words):
    process = torchrun(script, *words)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    return printed


def alone(script, *words):
    return script.main(script.parse(list(words)))


def last(root):
    (path,) = Path(root).glob("runs/*/last.pth")
    return checkpoint.read(path)


def rows(root):
    (path,) = Path(root).glob("runs/*/metrics.csv")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_runs(a, b):
    first, second = (last(root)["resume"] for root in (a, b))
    for name, tensor in first["task"].items():
        if name.endswith(
            "attn.qkv.bias"
        ):  # Adam enlarges what is rounded: a key's bias has no gradient
            for bias in (tensor, second["task"][name]):
                bias.chunk(3)[1].zero_()
        assert torch.allclose(tensor.float(), second["task"][name].float(), atol=1e-5), name
    for ours, theirs in zip(rows(a), rows(b), strict=True):
        for name in ours.keys() - {"seconds"}:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=2e-3, abs=2e-3), name


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    root = tmp_path_factory.mktemp("teachers")
    unet = alone(main_unet, "--cr", "0.5", *UNET, "--results", str(root))["export"]
    return {"unet": unet, "vit": alone(main_classify, *VIT, "--results", str(root))["export"]}


@pytest.mark.parametrize(
    "begin", [forked, pytest.param(together, marks=pytest.mark.long)], ids=["forked", "torchrun"]
)
@pytest.mark.parametrize(
    "script, teacher, words",
    [
        (
            main_unet,
            None,
            ["--cr", "0.25", "--awgn_snr", "20", "--ema", "0.9", "--accumulate", "2", *UNET],
        ),
        (
            main_unet_dist,
            "unet",
            [
                "--cr",
                "0.25",
                "--awgn_snr",
                "20",
                "--loss_distill",
                "mse",
                "comb_matrix:0.1",
                "hint",
                *UNET,
            ],
        ),
        (
            main_classify_dist,
            "vit",
            ["--loss_distill", "kd", "sp:10", "rkd:0.1", "crd", "dist", *VIT],
        ),
    ],
    ids=["supervised", "distilled", "classified"],
)
def test_two_processes_train_like_one(begin, script, teacher, words, teachers):
    words = [*words, "--teacher", teachers[teacher]] if teacher else words
    printed = begin(script, *words, "--results", "two")
    alone(script, *words, "--results", "one")
    assert_equal_runs("one", "two")
    assert printed.count("parameters;") == 1  # only one of them speaks


def test_every_process_draws_random_numbers_of_its_own(monkeypatch):
    """The first one those of a run alone, so that its curve does not change."""
    forward = Fit.forward

    def recording(fit, *arguments):
        with open(f"{fit.args.results}_{distributed.rank()}.txt", "a") as file:
            print(*torch.get_rng_state().tolist(), file=file)
        return forward(fit, *arguments)

    monkeypatch.setattr(Fit, "forward", recording)
    words = ["--cr", "0.25", *UNET[:-2], "--steps", "3"]
    forked(main_unet, *words, "--results", "two")
    alone(main_unet, *words, "--results", "one")
    one, first, second = (
        Path(name).read_text().splitlines() for name in ("one_0.txt", "two_0.txt", "two_1.txt")
    )
    assert first == one and len({*first, *second}) == 6


def test_what_is_saved_is_what_was_scored_and_uneven_parts_do_not_wait_for_each_other(teachers):
    words = [
        *DATA,
        "--model",
        "resnet8",
        "--width",
        "4",
        "--epochs",
        "2",
        "--teacher",
        teachers["vit"],
        "--loss_distill",
        "sp:10",
    ]
    forked(
        main_classify_dist,
        *words,
        "--limit_train",
        "17",
        "--batch_size",
        "5",
        "--accumulate",
        "4",
        "--results",
        "two",
    )
    (best,) = Path("two").glob("runs/*/best.pth")
    found = checkpoint.restore(best)
    val = build_splits(
        Request("digits", n=16, labelled=True, limit_val=11), ["val"], table=LABELLED
    )["val"]
    scores = evaluate(
        found.network,
        Views(found.physics, build_loader(val, 8), torch.device("cpu"), 42),
        ClassMeter(),
    ).summary()
    assert scores["loss"] == pytest.approx(checkpoint.read(best)["scores"]["loss"], rel=1e-5)


@pytest.mark.long
def test_all_stop_when_one_is_killed_and_the_run_goes_on_equal():
    words = ["--cr", "0.25", *UNET[:-2], "--epochs", "12"]
    process = torchrun(main_unet, *words, "--results", "two")
    while not list(Path("two").glob("runs/*/last.pth")):
        assert process.poll() is None
        time.sleep(0.05)
    mine = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(mine[-1]), signal.SIGKILL)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode != 0 and time.monotonic() - began < 60
    forked(main_unet, *words, "--results", "two")
    alone(main_unet, *words, "--results", "one")
    assert_equal_runs("one", "two")
