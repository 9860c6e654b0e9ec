"""Answers of slow teachers that are kept on disk."""

import sqlite3
import threading
from pathlib import Path

import pytest
import torch
from test_scripts import call

import main_unet_dist
from algo_functions import build_physics
from core.errors import UserError
from models import build_network, untrained
from models.untrained import TotalVariation
from training.answers import Remembered, identity_of

N, ROOM = 16, 2**20
CONFIG = {"name": "spc", "n": N, "c": 1, "cr": 0.25, "ordering": "xy", "x0": "adjoint"}
WORDS = ["--cr", "0.25", "--dataset", "digits", "--n", "16", "--limit_train", "20"]
WORDS += ["--limit_val", "4", "--width", "4", "--type_dist", "output"]


def first_images(count=6):
    physics = build_physics(CONFIG | {"awgn_snr": None, "measurements": True})
    x = torch.rand(count, 1, N, N, generator=torch.Generator().manual_seed(0))
    return physics.observe(x)


def teacher(folder, weight=1.0, room=ROOM):
    return Remembered(TotalVariation(1, N, weight), folder, room)


def test_every_image_is_computed_once_whatever_the_batches(tmp_path):
    x0 = first_images()
    expected = TotalVariation(1, N)(x0)
    one = teacher(tmp_path)
    assert torch.equal(one(x0[:4]), expected[:4]) and one.computed == 4
    assert torch.equal(one(x0.flip(0)), expected.flip(0)) and one.computed == 6
    again = teacher(tmp_path)  # as another process would
    assert torch.equal(again(x0), expected) and again.computed == 0


def test_another_weight_or_other_code_is_another_teacher(tmp_path, monkeypatch):
    x0 = first_images()
    teacher(tmp_path)(x0)
    other = teacher(tmp_path, weight=2.0)
    other(x0)
    assert other.computed == len(x0) and len(list(tmp_path.glob("*.sqlite"))) == 2
    before, network = identity_of(TotalVariation(1, N)), TotalVariation(1, N)
    source = Path(untrained.__file__).read_text()
    monkeypatch.setattr("inspect.getsource", lambda module: source + "# changed")
    assert identity_of(network) != before


def test_answers_are_in_full_precision_whatever_the_type_of_convolutions(tmp_path):
    x0 = first_images()[:, :1]
    network = build_network({"name": "unet", "c": 1, "width": 4}).eval()
    torch.nn.init.normal_(network.Conv_1x1.weight)  # which is zero at first
    with torch.autocast("cpu", torch.bfloat16):
        found = Remembered(network, tmp_path, ROOM)(x0)
    assert torch.equal(found, network(x0))


def test_damaged_answers_are_computed_again(tmp_path):
    x0 = first_images()
    expected = teacher(tmp_path)(x0)
    (path,) = tmp_path.glob("*.sqlite")
    base = sqlite3.connect(path)
    (key, stored) = base.execute("select key, image from answers").fetchone()
    wrong = bytes([stored[0] ^ 1]) + stored[1:]
    base.execute("update answers set image = ? where key = ?", (wrong, key))
    base.commit()
    base.close()
    again = teacher(tmp_path)
    assert torch.equal(again(x0), expected) and again.computed == 1
    healed = teacher(tmp_path)
    assert torch.equal(healed(x0), expected) and healed.computed == 0
    path.write_bytes(b"no database" * 1000)
    anew = teacher(tmp_path)
    assert torch.equal(anew(x0), expected) and anew.computed == len(x0)


def test_nothing_is_kept_beyond_its_room(tmp_path):
    x0 = first_images()
    small = teacher(tmp_path, room=1)
    small(x0)
    small(x0)
    assert small.computed == 2 * len(x0)


def test_processes_write_at_once(tmp_path):
    x0 = first_images(32)
    expected, failed = TotalVariation(1, N)(x0), []

    def work(k):
        own = teacher(tmp_path)
        for i in range(k, 32, 2):
            failed.extend([i] * (not torch.equal(own(x0[i : i + 1]), expected[i : i + 1])))

    threads = [threading.Thread(target=work, args=(k % 2,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = teacher(tmp_path)
    assert not failed and torch.equal(last(x0), expected) and last.computed == 0


def test_a_second_seed_asks_nothing_and_learns_the_same_as_without_a_disk():
    weights = {}
    for answers in ("0", "1", "1"):
        words = [*WORDS, "--teacher", "tv", "--epochs", "2", "--answers", answers]
        scores = call(main_unet_dist, *words, "--results", f"r{len(weights)}", "--overwrite")
        saved = torch.load(scores["export"], weights_only=True)["weights"]
        weights[len(weights)] = saved
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]) and torch.equal(weight, weights[2][name])
    assert not Path("r0/answers").exists() and len(list(Path("r1/answers").iterdir())) == 1


@pytest.mark.parametrize(
    "words",
    [["--noise", "0.1"], ["--photons", "20"], ["--cr_range", "0.1", "0.5"]],
)
def test_where_no_image_is_seen_twice_nothing_is_kept(words):
    ratios = WORDS[2:] if "--cr_range" in words else WORDS
    call(main_unet_dist, *ratios, "--teacher", "tv:1", "--epochs", "1", *words)
    assert not Path("results/answers").exists()


def test_answers_of_a_trained_teacher_are_not_kept():
    with pytest.raises(UserError, match="answers 1: only those of --teacher tv or pnp"):
        call(main_unet_dist, *WORDS, "--cr_teacher", "0.5", "--answers", "1")
