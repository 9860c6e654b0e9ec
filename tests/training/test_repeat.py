"""--repeat K: an epoch is K passes over the training images, each in its own order and augmentation."""

from collections import Counter

import pytest
import torch
from test_training import rows, same, weights

import main_classify
import main_classify_dist
import main_unet
from cli import flags
from training import loop

FEW = ["--n", "16", "--width", "4", "--batch_size", "10", "--warmup", "0"]
FEW += ["--limit_train", "22", "--limit_val", "8"]
PHOTOS = ["--cr", "0.25", "--awgn_snr", "20", "--schedule", "constant", *FEW]
DIGITS = ["--dataset", "digits", "--model", "resnet8", "--schedule", "constant", *FEW]


def train(name, *words, script=main_unet):
    return script.main(script.parse(["--results", name, *map(str, words)]))


@pytest.fixture
def seen(monkeypatch):
    """The images of every step, and their places."""
    found, step = [], loop.Fit.step

    def watched(self, batch):
        found.append((batch.index.tolist(), batch.image))
        return step(self, batch)

    monkeypatch.setattr(loop.Fit, "step", watched)
    return found


def test_an_epoch_shows_every_image_so_often_and_none_twice_in_a_batch(seen):
    run = train("a", *PHOTOS, "--repeat", 3, "--epochs", 2)
    table = rows(run["run"])
    assert [(row["epoch"], row["step"]) for row in table] == [("1.0", "9"), ("2.0", "18")]
    for first in (0, 9):
        epoch = seen[first : first + 9]
        assert set(Counter(i for index, _ in epoch for i in index).values()) == {3}
    assert all(len(set(index)) == len(index) for index, _ in seen)
    looks = [
        image for index, images in seen for i, image in zip(index, images, strict=True) if i == 0
    ]
    assert len({image.numpy().tobytes() for image in looks}) > 2, "augmented anew"


def test_repeated_epochs_are_so_many_passes():
    """Where the rate does not depend on the epoch they are the passes of a run of more epochs."""
    whole = train("a", *PHOTOS, "--epochs", 4, "--val_every", 6)
    repeated = train("b", *PHOTOS, "--epochs", 2, "--repeat", 2)
    assert same(weights(f"{whole['run']}/last.pth"), weights(f"{repeated['run']}/last.pth"))
    names = ("step", "train_loss", "val_psnr")
    a, b = ([[row[n] for n in names] for row in rows(run["run"])] for run in (whole, repeated))
    assert a == b and len(a) == 2


def test_a_stop_in_a_later_pass_is_resumed_where_it_was(monkeypatch):
    words = [*PHOTOS, "--epochs", 1, "--repeat", 3, "--save_every", 1, "--data_seed", 5]
    whole, step = train("a", *words), loop.Fit.step

    def interrupted(self, batch):
        if self.steps == 5:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(loop.Fit, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("b", *words)
    monkeypatch.setattr(loop.Fit, "step", step)
    parts = train("b", *words)
    assert same(weights(f"{whole['run']}/last.pth"), weights(f"{parts['run']}/last.pth"))
    assert rows(whole["run"]) == rows(parts["run"])


def test_what_is_remembered_of_an_image_belongs_to_it_in_every_pass():
    """Observations, the teacher's answers and crd's memory go by the image, not by its turn."""
    teacher = train("t", *DIGITS, "--steps", 1, script=main_classify)["checkpoint"]
    words = [*DIGITS, "--teacher", teacher, "--lessen_ratio", 2, "--loss_distill", "kd", "crd"]
    runs = [
        train(name, *words, *more, script=main_classify_dist)
        for name, more in (
            ("a", ["--epochs", 2, "--val_every", 6, "--cache", 0]),
            ("b", ["--epochs", 1, "--repeat", 2]),
        )
    ]
    a, b = (weights(f"{run['run']}/last.pth") for run in runs)
    assert all(torch.allclose(a[name].double(), b[name].double(), atol=1e-5) for name in a)


def test_it_belongs_to_what_a_run_is(capsys):
    once, twice = (main_unet.parse(["--cr", "0.1", *more]) for more in ([], ["--repeat", "2"]))
    assert flags.identity(twice) == flags.identity(once) | {"repeat": 2}
    assert "repeat" not in flags.identity(once), "so that older run folders go on"
    with pytest.raises(SystemExit) as end:
        main_unet.parse(["--cr", "0.1", "--repeat", "0"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and "--repeat: 0 is outside [1, infinity)" in error
    assert error.count("\n") == 1
