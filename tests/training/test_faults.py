"""What the drill cannot see from outside: files, checkpoints of strangers, and how a run ends in its own process."""

import math
import os
import random
import resource
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from test_house import ROOT
from test_training import TINY, same, train

from algo_functions import build_physics
from checkpoints import checkpoint
from core import files
from core.errors import Diverged, Stopped, UserError
from models import build_network
from training import loop

DENOISE = {"name": "denoise", "n": 16, "c": 1, "sigma": 25.0, "x0": "adjoint"}
UNET = {"name": "unet", "c": 1, "width": 4}
LONG = ["--cr", "0.25", *TINY, "--device", "cpu", "--wandb", "disabled"]


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


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        files.write_text(tmp_path / "file" / "a.txt", "x")


def test_rows_of_several_writers_all_arrive(tmp_path):
    def write():
        for k in range(20):
            files.append_csv(tmp_path / "t.csv", ["a"], {"a": k})

    writers = [get_context("fork").Process(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    lines = (tmp_path / "t.csv").read_text().split()
    assert lines[0] == "a" and sorted(map(int, lines[1:])) == sorted([*range(20)] * 3)


HOLDER = """
import os, sys, time
from pathlib import Path
from core.files import lock
held = lock(Path(sys.argv[1]))
child = os.fork()
print(child, flush=True) if child else None
time.sleep(60)
"""


def test_a_lock_is_free_once_its_process_is_killed_even_if_a_forked_worker_lives_on(tmp_path):
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        child = int(holder.stdout.readline())
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on .* still running"):
            files.lock(path)
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it lives
        with files.lock(path), files.lock(path):
            os.kill(child, signal.SIGKILL)


def test_old_strays_are_swept_out_of_a_folder_that_several_write_to(tmp_path):
    old, new = (tmp_path / "a" / f".{letter * 12}.tmp.png" for letter in "ab")
    old.parent.mkdir()
    for path in (old, new):
        path.write_text("stray")
    os.utime(old, (0, 0))
    files.folder_for(tmp_path, "a")
    assert new.exists() and not old.exists()


def test_a_file_is_never_without_content_while_its_predecessor_is_kept(tmp_path, monkeypatch):
    path, before, replace = tmp_path / "a", tmp_path / "b", os.replace

    def watched(source, target):
        replace(source, target)
        assert path.exists()

    monkeypatch.setattr(os, "replace", watched)
    for text in ("old", "new"):
        files.durable(path, lambda temporary, text=text: temporary.write_text(text), before)
    assert path.read_text() == "new" and before.read_text() == "old"
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(
        os, "link", lambda *_: path.joinpath("x").stat()
    )  # a file system without links
    files.durable(path, lambda temporary: temporary.write_text("newer"), before)
    assert path.read_text() == "newer" and before.read_text() == "new"


def test_no_stray_is_left_where_both_names_are_of_one_file_already(tmp_path):
    """As after a kill between the two renames of a save."""
    path, before = tmp_path / "a", tmp_path / "b"
    path.write_text("old")
    os.link(path, before)
    files.durable(path, lambda temporary: temporary.write_text("new"), before)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "new", "b": "old"}


@pytest.mark.parametrize("name", ["..", "../b", "/etc/x", "link", "a/../.."])
def test_no_name_leads_out_of_its_folder(tmp_path, name):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is outside of"):
        files.inside(tmp_path / "a", name)


def test_a_record_cannot_export_elsewhere():
    done = train("--epochs", "1", "--run_name", "r")
    record = Path(done["run"]) / "run.json"
    record.write_text(record.read_text().replace('"export": "', '"export": "../../../'))
    with pytest.raises(UserError, match="is outside of"):
        train("--epochs", "1", "--run_name", "r")


# ---------------------------------------------------------------- checkpoints


def test_every_flip_and_every_cut_is_caught(tmp_path):
    saved(tmp_path / "a.pth")
    whole, generator, path = (tmp_path / "a.pth").read_bytes(), random.Random(0), tmp_path / "b.pth"
    flips = [generator.randrange(8 * len(whole)) for _ in range(100)] + [
        8 * (len(whole) - 1 - k) for k in range(90)
    ]
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
    "network, physics, printed",
    [
        ({"width": 10**9}, {}, "impossible config: width 1000000000"),
        ({"width": 4096, "scales": 5}, {}, "holds another network"),
        ({"name": "dncnn", "channels": 4, "blocks": 10**9}, {}, "impossible config: blocks"),
        ({}, {"n": 10**9}, "impossible config: n"),
        (
            {},
            {"name": "spc", "cr": 1.0, "ordering": "random", "awgn_snr": None, "n": 512},
            "dense patterns need",
        ),
        ({"width": math.nan}, {}, "impossible config: width nan"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_made_of_them(
    tmp_path, network, physics, printed
):
    saved(tmp_path / "a.pth")
    content = checkpoint.read(tmp_path / "a.pth")
    config = {
        name: value
        for name, value in (UNET | network).items()
        if not (name == "width" and "channels" in network)
    }
    checkpoint.write(
        tmp_path / "a.pth",
        content | {"network": config, "physics": {"recipe": DENOISE | physics, "state": None}},
    )
    with pytest.raises(UserError, match=printed):
        checkpoint.restore(tmp_path / "a.pth")


def test_bombs_are_refused(tmp_path):
    import zipfile

    torch.save({"weights": torch.zeros(10**6)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(UserError, match="its content is too large"):
        checkpoint.read(tmp_path / "b.pth")
    saved(tmp_path / "c.pth")
    content = checkpoint.read(tmp_path / "c.pth")
    checkpoint.write(
        tmp_path / "c.pth", content | {"weights": {"a": torch.zeros(1).expand(10**12)}}
    )
    with pytest.raises(UserError, match="larger than their stored values"):
        checkpoint.restore(tmp_path / "c.pth")


@pytest.mark.parametrize("shape", [(), (4,), (4, 1), (4, 1, 3, 3)])
@pytest.mark.parametrize(
    "names",
    [["Conv1.0.weight"], ["conv_first.weight", "conv_last.weight", "body.0.rdb1.conv1.weight"]],
    ids=len,
)
def test_bare_files_of_other_dimensions_are_one_line(shape, names, tmp_path):
    torch.save({name: torch.zeros(shape) for name in names}, tmp_path / "a.pth")
    with pytest.raises(UserError):
        checkpoint.restore(tmp_path / "a.pth", {"n": 16, "cr": 0.1, "ordering": "xy"})


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_step_and_the_handlers_are_given_back(monkeypatch, number):
    before = signal.getsignal(number)
    interrupt(monkeypatch, 1, number)
    with pytest.raises(Stopped, match=f"{number.name}; step 2 of 9"):
        train("--run_name", "r")
    assert (
        checkpoint.read("results/runs/r/last.pth")["resume"]["steps"] == 2
        and signal.getsignal(number) == before
    )


def test_two_damaged_states_are_one_line(monkeypatch):
    interrupt(monkeypatch, 7)
    with pytest.raises(Stopped):
        train("--run_name", "r")
    for name in ("last", "last_before"):
        Path(f"results/runs/r/{name}.pth").write_text("nothing")
    with pytest.raises(
        UserError,
        match=r"last\.pth .*last_before\.pth .*: there is nothing to resume from, --no-resume starts again",
    ):
        train("--run_name", "r")


def test_what_is_not_finite_is_named_and_never_saved(monkeypatch):
    poison, step = torch.tensor(math.inf), loop.Fit.step

    def poisoned(self, batch):
        if self.steps == 4:
            next(p for p in self.weights if p.dim() > 1).register_hook(
                lambda gradient: gradient * poison
            )
        return step(self, batch)

    monkeypatch.setattr(loop.Fit, "step", poisoned)
    with pytest.raises(
        Diverged,
        match=r"a gradient is not finite in epoch 1\.33, step 5, a batch of training images (\d+ ?){10}; the checkpoints",
    ):
        train("--run_name", "r", "--ema", "0.9")
    for name in ("best", "last"):
        content = checkpoint.read(f"results/runs/r/{name}.pth")
        assert content["epoch"] == 1 and all(
            tensor.isfinite().all() for tensor in content["weights"].values()
        )
