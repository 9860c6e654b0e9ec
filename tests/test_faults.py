"""A small version of every promise: killing, stopping, filling, flipping, racing. What is lost here would be lost in a cluster."""

import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_house import ROOT
from test_training import NOISY, TINY, rows, same, train, weights

import files
import main_classify
import main_unet_dist
from algo_functions import build_physics
from models import build_network
from tables import Diverged, Stopped, UserError
from training import checkpoint, loop

DENOISE = {"name": "denoise", "n": 16, "c": 1, "sigma": 25.0, "x0": "adjoint"}
UNET = {"name": "unet", "c": 1, "width": 4}
LONG = ["--cr", "0.25", *TINY, "--device", "cpu", "--wandb", "disabled"]


def script(name, *words, **how):
    """A script in a process of its own, with as many threads as the tests have: sums of several threads round in another order."""
    how = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | how
    return subprocess.Popen([sys.executable, str(ROOT / f"{name}.py"), *words], **how)


def until(there, process, seconds=60):
    end = time.time() + seconds
    while not there():
        assert process.poll() is None and time.time() < end, process.communicate()
        time.sleep(0.02)


def saved(path):
    network = build_network(UNET)
    checkpoint.write(path, checkpoint.pack(network, UNET, build_physics(DENOISE), {}))
    return network


def interrupt(monkeypatch, when, number=signal.SIGTERM):
    """A signal in the middle of the step that is so many steps behind the first."""
    step = loop.Fit.step

    def signalled(self, batch):
        if self.steps == when:
            os.kill(os.getpid(), number)
        return step(self, batch)

    monkeypatch.setattr(loop.Fit, "step", signalled)


# ---------------------------------------------------------------- files


def test_a_save_that_is_killed_leaves_a_whole_file(tmp_path):
    code = (
        "import sys; from pathlib import Path; from files import durable\n"
        "for k in range(10**9): durable(Path(sys.argv[1]), lambda path: path.write_bytes(bytes([k % 256]) * 10**6))"
    )
    target, generator = tmp_path / "a.bin", random.Random(0)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code, str(target)], cwd=ROOT)
        until(target.exists, process)
        time.sleep(generator.random() * 0.05)
        process.kill()
        process.wait()
        content = target.read_bytes()
        assert len(content) == 10**6 and len(set(content)) == 1
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_full_disk_is_named_and_leaves_the_old_file_alone(tmp_path):
    target, limits = tmp_path / "a.txt", resource.getrlimit(resource.RLIMIT_FSIZE)
    files.write_text(target, "old")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match=r"a\.txt"):
            files.write_text(target, "new" * 1000)
        with pytest.raises(OSError, match=r"b\.pth"):
            saved(tmp_path / "b.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_training_on_a_full_disk_ends_with_one_line_and_keeps_its_checkpoint(tmp_path):
    process = script("main_unet", *LONG, "--steps", "100000", "--val_every", "20", "--run_name", "r")
    last = tmp_path / "results/runs/r/last.pth"
    until(last.exists, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4000, 4000))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and said.count("\n") == 1 and "results/runs/r/" in said and "File too large" in said
    assert checkpoint.read(last)["resume"]["steps"] % 20 == 0 and not list(last.parent.glob("*.tmp*"))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        files.write_text(tmp_path / "file" / "a.txt", "x")


def test_rows_of_several_writers_all_arrive(tmp_path):
    code = "import sys; from pathlib import Path; from files import append_csv\nfor k in range(20): append_csv(Path(sys.argv[1]), ['a'], {'a': k})"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "t.csv")], cwd=ROOT) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = (tmp_path / "t.csv").read_text().split()
    assert lines[0] == "a" and sorted(map(int, lines[1:])) == sorted([*range(20)] * 3)


@pytest.mark.parametrize("name", ["..", "../b", "/etc/x", "link", "a/../.."])
def test_no_name_leads_out_of_its_folder(tmp_path, name):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of"):
        files.inside(tmp_path / "a", name)


def test_a_record_cannot_export_elsewhere():
    done = train("--epochs", "1", "--run_name", "r")
    record = Path(done["run"]) / "run.json"
    record.write_text(record.read_text().replace('"export": "', '"export": "../../../'))
    with pytest.raises(UserError, match="leads out of"):
        train("--epochs", "1", "--run_name", "r")


# ---------------------------------------------------------------- checkpoints


def test_every_flip_and_every_cut_is_caught(tmp_path):
    saved(tmp_path / "a.pth")
    whole, generator, path = (tmp_path / "a.pth").read_bytes(), random.Random(0), tmp_path / "b.pth"
    flips = [generator.randrange(8 * len(whole)) for _ in range(100)] + [8 * (len(whole) - 1 - k) for k in range(90)]
    damaged = [whole[: len(whole) * k // 5] for k in range(1, 5)] + [whole[:-1], whole[:-64]]
    for place in flips:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint .*b\.pth"):
            checkpoint.read(path)


def test_a_file_of_the_first_format_still_loads(tmp_path):
    network = saved(tmp_path / "a.pth")
    torch.save(checkpoint.read(tmp_path / "a.pth") | {"format": 1}, tmp_path / "b.pth")
    assert same(network.state_dict(), checkpoint.restore(tmp_path / "b.pth").network.state_dict())


@pytest.mark.parametrize(
    "network, physics, said",
    [
        ({"width": 10**9}, {}, "absurd recipe: width 1000000000"),
        ({"width": 4096, "scales": 5}, {}, "is of another network"),
        ({"name": "dncnn", "features": 4, "blocks": 10**9}, {}, "absurd recipe: blocks"),
        ({}, {"n": 10**9}, "absurd recipe: n"),
        ({}, {"name": "spc", "cr": 1.0, "ordering": "random", "awgn_snr": None, "n": 512}, "dense patterns need"),
        ({"width": math.nan}, {}, "absurd recipe: width nan"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_made_of_them(tmp_path, network, physics, said):
    saved(tmp_path / "a.pth")
    content = checkpoint.read(tmp_path / "a.pth")
    recipe = {name: value for name, value in (UNET | network).items() if not (name == "width" and "features" in network)}
    checkpoint.write(tmp_path / "a.pth", content | {"network": recipe, "physics": {"recipe": DENOISE | physics, "state": None}})
    with pytest.raises(UserError, match=said):
        checkpoint.restore(tmp_path / "a.pth")


def test_bombs_are_refused(tmp_path):
    import zipfile

    torch.save({"weights": torch.zeros(10**6)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(UserError, match="too large a content"):
        checkpoint.read(tmp_path / "b.pth")
    saved(tmp_path / "c.pth")
    content = checkpoint.read(tmp_path / "c.pth")
    checkpoint.write(tmp_path / "c.pth", content | {"weights": {"a": torch.zeros(1).expand(10**12)}})
    with pytest.raises(UserError, match="larger than what it holds"):
        checkpoint.restore(tmp_path / "c.pth")


# ---------------------------------------------------------------- runs


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path):
    words = [*LONG, *NOISY, "--epochs", "8", "--save_every", "2", "--val_every", "5", "--run_name", "r"]
    whole = train("--results", "whole", "--epochs", "8", "--val_every", "5", "--run_name", "r", *NOISY)
    last = tmp_path / "results/runs/r/last.pth"
    process = script("main_unet", *words)
    until(last.exists, process)
    process.kill()
    process.wait()
    parts = train("--epochs", "8", "--val_every", "5", "--run_name", "r", "--device", "cpu", *NOISY)
    assert rows(whole["run"]) == rows(parts["run"])
    for name in ("best.pth", "last.pth"):
        assert same(weights(f"{whole['run']}/{name}"), weights(f"{parts['run']}/{name}"))


ADAPTED = ["--teacher", "teacher/trained_models/UNET_cr_0.5.pth", "--type_dist", "latent", "--loss_distill", "hint", "--width", "2"]
DROPPED = ["--dataset", "digits", "--n", "16", "--model", "vgg16", "--width", "1", "--limit_train", "30", "--limit_val", "10", "--batch_size", "10"]


@pytest.mark.parametrize(  # inside a round, and at its last step
    "kind, when, workers", [("noise and average", 4, "0"), ("noise and average", 5, "2"), ("adapters", 4, "2"), ("dropout", 5, "0")]
)
def test_a_stopped_run_goes_on_bit_by_bit(monkeypatch, kind, when, workers):
    if kind == "adapters":
        train("--results", "teacher", "--epochs", "1", cr="0.5")

    def run(*more):
        if kind == "dropout":
            return main_classify.main(main_classify.parse([*DROPPED, "--epochs", "3", *more]))
        return train(*ADAPTED, *more, script=main_unet_dist) if kind == "adapters" else train(*NOISY, *more)

    whole, go_on = run("--results", "whole"), loop.Fit.step
    interrupt(monkeypatch, when)
    with pytest.raises(Stopped, match=f"SIGTERM; step {when + 1} of 9 is saved in .*, the same command goes on"):
        run("--results", "parts", "--num_workers", workers)
    monkeypatch.setattr(loop.Fit, "step", go_on)
    parts = run("--results", "parts", "--num_workers", workers)
    assert rows(whole["run"]) == rows(parts["run"]) and same(weights(whole["export"]), weights(parts["export"]))
    states = [checkpoint.read(f"{done['run']}/last.pth")["resume"] for done in (whole, parts)]
    torch.testing.assert_close(*({name: state[name] for name in ("stage", "optimizer", "average")} for state in states), rtol=0, atol=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_step_and_the_handlers_are_given_back(monkeypatch, number):
    before = signal.getsignal(number)
    interrupt(monkeypatch, 1, number)
    with pytest.raises(Stopped, match=f"{number.name}; step 2 of 9"):
        train("--run_name", "r")
    assert checkpoint.read("results/runs/r/last.pth")["resume"]["steps"] == 2 and signal.getsignal(number) == before


def test_a_signal_to_the_whole_group_is_exit_code_75_and_one_line(tmp_path):
    words = [*LONG, "--steps", "1000000", "--save_every", "2", "--val_every", "100000", "--num_workers", "2", "--run_name", "r"]
    process = script("main_unet", *words, start_new_session=True)
    until((tmp_path / "results/runs/r/last.pth").exists, process)
    began = time.time()
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 75 and said.count("\n") == 1 and "stopped: SIGTERM" in said and time.time() - began < 5


def test_a_damaged_state_falls_back_to_the_one_before(monkeypatch, capsys):
    whole, go_on = train("--results", "whole", *NOISY), loop.Fit.step
    interrupt(monkeypatch, 7)
    with pytest.raises(Stopped):
        train("--results", "parts", *NOISY)
    monkeypatch.setattr(loop.Fit, "step", go_on)
    (last,) = Path("parts/runs").glob("*/last.pth")
    last.write_bytes(last.read_bytes()[:-1000])
    parts = train("--results", "parts", *NOISY)
    said = capsys.readouterr().out
    assert "last.pth cannot be read" in said and "the one before it is good" in said and "goes on after step 6 of 9" in said
    assert rows(whole["run"]) == rows(parts["run"]) and same(weights(whole["export"]), weights(parts["export"]))


def test_two_damaged_states_are_one_line(monkeypatch):
    interrupt(monkeypatch, 7)
    with pytest.raises(Stopped):
        train("--run_name", "r")
    for name in ("last", "last_before"):
        Path(f"results/runs/r/{name}.pth").write_text("nothing")
    with pytest.raises(UserError, match=r"last\.pth .*last_before\.pth .*: nothing to resume from, --no-resume starts again"):
        train("--run_name", "r")


def test_what_is_not_finite_is_named_and_never_saved(monkeypatch):
    poison, step = torch.tensor(math.inf), loop.Fit.step

    def poisoned(self, batch):
        if self.steps == 4:
            next(p for p in self.weights if p.dim() > 1).register_hook(lambda gradient: gradient * poison)
        return step(self, batch)

    monkeypatch.setattr(loop.Fit, "step", poisoned)
    with pytest.raises(Diverged, match=r"a gradient is not finite in epoch 1\.33, step 5, a batch of training images (\d+ ?){10}; the checkpoints"):
        train("--run_name", "r", "--ema", "0.9")
    for name in ("best", "last"):
        content = checkpoint.read(f"results/runs/r/{name}.pth")
        assert content["epoch"] == 1 and all(tensor.isfinite().all() for tensor in content["weights"].values())


def test_a_run_that_diverged_ends_its_loaders(tmp_path):
    words = [*LONG, "--epochs", "3", "--optimizer", "sgd", "--lr", "1e30", "--grad_clip", "0", "--num_workers", "2"]
    process = script("main_unet", *words)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3 and said.count("\n") == 1 and "is not finite in epoch" in said


def test_two_runs_into_one_folder_and_a_dead_owner(tmp_path):
    words = [*LONG, "--steps", "1000000", "--val_every", "1", "--run_name", "r"]
    first = script("main_unet", *words)
    until((tmp_path / "results/runs/r/last.pth").exists, first)
    train("--dry_run")  # what has to be imported is
    began = time.time()
    with pytest.raises(UserError, match=f"results/runs/r belongs to process {first.pid} on .*, which is still at work"):
        train("--steps", "1000000", "--val_every", "1", "--run_name", "r", "--device", "cpu")
    assert time.time() - began < 1
    first.kill()
    first.wait()
    train("--steps", "2", "--run_name", "r", "--overwrite")


def test_of_two_that_begin_together_one_runs(tmp_path):
    words = [*LONG, "--steps", "1000000", "--val_every", "1", "--run_name", "r"]
    both = [script("main_unet", *words) for _ in range(2)]
    end = time.time() + 60
    while all(process.poll() is None for process in both) and time.time() < end:
        time.sleep(0.05)
    refused, running = sorted(both, key=lambda process: process.poll() is None)
    _, said = refused.communicate()
    assert refused.returncode == 2 and f"belongs to process {running.pid}" in said and running.poll() is None
    running.kill()
    running.wait()
