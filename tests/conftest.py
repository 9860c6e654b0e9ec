"""One thread, no denormals, tiny images; real data only where it lies beside the project."""

import os
import signal
from pathlib import Path

import blank
import pytest
import torch

torch.set_flush_denormal(True)
torch.set_num_threads(1)

SHARED = Path(__file__).parents[2] / "shared" / "data"
FIRST = [
    *("test_study", "test_scripts", "test_classification", "test_engine", "test_ranks"),
    *("test_training", "test_drill", "test_cluster", "test_signals", "test_predict"),
]
CONFIG = {
    "name": "spc",
    "n": 16,
    "c": 1,
    "cr": 0.25,
    "ordering": "xy",
    "x0": "adjoint",
    "awgn_snr": None,
}


def pytest_collection_modifyitems(config, items):
    """The files that take the longest come first, so that both workers end together; of the long tests LONG_SHARE is kept."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else 99)
    long = [item for item in items if item.get_closest_marker("long")]
    left_out = {*long} - {*in_share(long, os.environ.get("LONG_SHARE", "0/1"))}
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]


def in_share(tests: list, share: str) -> list:
    """Every fourth of them, from the third on, where the share is 2/4."""
    first, step = map(int, share.split("/"))
    return tests[first::step]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before its fixtures: figures are rendered where a test is marked `pictures`, and only composed elsewhere."""
    blank.render(item.get_closest_marker("pictures") is not None)


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"real data is not in {SHARED}")
    return SHARED


@pytest.fixture
def images() -> torch.Tensor:
    """Smooth random images (N, 1, 16, 16), so that an estimator has something to learn."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(600, 1, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, 16, mode="bilinear", align_corners=True)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory) -> Path:
    """A teacher, a student and a recording, none of which are any good."""
    import acquire
    import main_unet

    folder = tmp_path_factory.mktemp("laboratory")
    network, light = ["--n", "16", "--width", "2", "--batch_size", "8"], ["--photons", "20"]
    for cr in ("0.5", "0.125"):
        argv = [*network, "--dataset", "digits", "--cr", cr, *light, "--limit_train", "40"]
        main_unet.main(main_unet.parse([*argv, "--epochs", "1", "--results", str(folder)]))
    frames = ["--frames", "40", "--test_frames", "12", "--val_share", "0.25"]
    where = ["--n", "16", "--output", str(folder / "lab.npz")]
    scenes = ["--dataset", "digits", "--cr", "0.5", *light]
    acquire.main(acquire.parse(["simulate", *scenes, *frames, *where]))
    return folder


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path, tmp_path_factory):
    """No test logs to W&B or waits for the disk, and what a script writes by default lands in a folder of the test's own."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.chdir(tmp_path)
    # A script that ended, perhaps in a fixture of the module, leaves the system's own handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
