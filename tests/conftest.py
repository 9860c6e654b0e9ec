"""One thread, no denormals, tiny images; real data only where it lies beside the project."""

import os
import signal
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

torch.set_flush_denormal(True)
torch.set_num_threads(1)

SHARED = Path(__file__).parents[2] / "shared" / "data"
RECIPE = {
    "name": "spc",
    "n": 16,
    "c": 1,
    "cr": 0.25,
    "ordering": "xy",
    "x0": "adjoint",
    "awgn_snr": None,
}


class Figures:
    """Figures are composed in every test, and rendered where a test is marked `pictures`: a tiny training is faster than its curves."""

    render = Figure.savefig
    rendered = True

    @staticmethod
    def save(figure: Figure, file, **how) -> None:
        if Figures.rendered:
            return Figures.render(figure, file, **how)
        size = [round(inches * how.get("dpi", figure.dpi)) for inches in figure.get_size_inches()]
        return Image.new("L", size, 255).save(file, "PNG", compress_level=1)


Figure.savefig = Figures.save


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    Figures.rendered = item.get_closest_marker("pictures") is not None


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


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path, tmp_path_factory):
    """No test logs to W&B or waits for the disk, and what a script writes by default lands in a folder of the test's own."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)  # a script that ends leaves the system's own
