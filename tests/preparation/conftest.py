"""A small laboratory, for all tests of what is trained from recordings."""

from pathlib import Path

import pytest

import acquire
import main_unet

SMALL = ["--n", "16", "--width", "2", "--batch_size", "8"]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Path:
    """A teacher, a student and a recording, none of which are any good."""
    folder = tmp_path_factory.mktemp("laboratory")
    light = ["--photons", "20"]
    for cr in ("0.5", "0.125"):
        argv = [*SMALL, "--dataset", "digits", "--cr", cr, *light, "--limit_train", "40"]
        main_unet.main(main_unet.parse([*argv, "--epochs", "1", "--results", str(folder)]))
    frames = ["--frames", "40", "--test_frames", "12", "--val_share", "0.25"]
    where = ["--n", "16", "--output", str(folder / "lab.npz")]
    scenes = ["--dataset", "digits", "--cr", "0.5", *light]
    acquire.main(acquire.parse(["simulate", *scenes, *frames, *where]))
    return folder
