"""Real recordings of other laboratories, which are not part of the project."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat
from scipy.ndimage import gaussian_filter

import acquire
from core.errors import UserError
from recordings.file import read_recording

REAL = Path(__file__).parents[3] / "shared" / "data" / "real"
FIELDS = REAL / "complex_field_spi"
JASZCZAK = REAL / "spirit_jaszczak" / "Jaszczak_Haar_4_128x128.mat"
DIGITS = REAL / "nonlinear_spi_digits" / "nonlinear_spi_digits.npz"


def needs(path: Path):
    return pytest.mark.skipif(not path.exists(), reason=f"no recordings in {path}")


def imported(tmp_path, *words):
    output = ["--output", str(tmp_path / "lab.npz")]
    acquire.main(acquire.parse(["import", *map(str, words), *output]))
    return read_recording(tmp_path / "lab.npz")


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def field_of(scene: str, tmp_path) -> np.ndarray:
    """The complex field (32, 32): each phase step is imported as a frame x_k = Hᵀ y_k."""
    lab = imported(
        tmp_path, "--input", FIELDS / "data_fields" / f"data_exp_{scene}_1024.csv",
        "--frames_in", "columns", "--order", "natural", "--scale", 1, "--on_bad_frame", "keep",
    )  # fmt: skip
    from core.hadamard import hadamard_2d

    x0, x1, x2 = hadamard_2d(lab.grid()[0].double())[:, 0].numpy()
    return -(x1 + x2 - 2 * x0) / 3 + 1j * (x2 - x1) / np.sqrt(3)


@needs(FIELDS)
@pytest.mark.parametrize("scene", ["Dog", "Gauss"])
def test_a_complex_field_shows_its_programmed_amplitude_and_phase(scene, tmp_path):
    """The light is a beam, so that the dog's amplitude is seen through the Gaussian one."""
    field, inside = field_of(scene, tmp_path), np.s_[1:31, 1:31]
    beam = np.loadtxt(FIELDS / "input_fields" / "gauss_amplitude.csv").reshape(32, 32)
    amplitude = np.loadtxt(FIELDS / "input_fields" / f"{scene.lower()}_amplitude.csv").reshape(
        32, 32
    )
    expected = amplitude * beam if scene == "Dog" else beam
    assert correlation(np.abs(field)[inside], expected[inside]) > (0.6 if scene == "Dog" else 0.85)
    phase = np.exp(1j * np.loadtxt(FIELDS / "input_fields" / "boat_phase.csv").reshape(32, 32))
    unit = field / np.abs(field)
    agreement = max(abs((unit * other)[inside].mean()) for other in (phase, phase.conj()))
    assert agreement > 0.6, "a constant phase is free, the rest is the boat"
    assert abs((unit * np.roll(phase, 16, 0))[inside].mean()) < agreement


@needs(FIELDS)
def test_the_other_axis_of_a_table_is_refused(tmp_path):
    path = FIELDS / "data_fields" / "data_exp_Dog_64.csv"
    with pytest.raises(UserError, match="all-ones pattern"):
        imported(
            tmp_path,
            "--input",
            path,
            "--order",
            "natural",
        )


def haar(n: int, coarsest: int) -> np.ndarray:
    """Rows (n², n²) of the Haar transform in MATLAB's layout, details as right minus left."""
    image = np.eye(n * n).reshape(-1, n, n)
    side = n
    while side > coarsest:
        for axis in (1, 2):
            part = np.moveaxis(image[:, :side, :side], axis, 0)
            low, high = part[0::2] + part[1::2], part[1::2] - part[0::2]
            image[:, :side, :side] = np.moveaxis(np.concatenate((low, high)), 0, axis) / np.sqrt(2)
        side //= 2
    return image.reshape(n * n, n * n).T


@needs(JASZCZAK)
def test_wavelet_coefficients_show_the_phantom_of_the_camera(tmp_path):
    """Own patterns: the 32 x 32 coarse coefficients of a 128 x 128 Haar transform to level 4."""
    n = 32
    content = loadmat(JASZCZAK)
    rows = haar(n, 8)
    np.testing.assert_allclose(rows @ rows.T, np.eye(n * n), atol=1e-9)
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    np.save(tmp_path / "y.npy", content["W"][:n, :n].reshape(1, -1))
    lab = imported(
        tmp_path,
        "--input",
        tmp_path / "y.npy",
        "--order",
        f"file:{tmp_path / 'rows.npy'}",
        "--n",
        n,
    )
    image = (lab.values[0, 0] @ lab.patterns).numpy().reshape(n, n)
    camera = content["F"].reshape(n, 4, n, 4).mean((1, 3))
    assert correlation(image, camera) > 0.9
    assert correlation(gaussian_filter(image, 1), gaussian_filter(camera, 1)) > 0.93
    assert image.max() == pytest.approx(1, abs=0.1)


@needs(DIGITS)
@pytest.mark.parametrize("words", [[], ["--n", "8"], ["--n", "8", "--order", "walsh"]])
def test_photocurrents_of_no_linear_camera_do_not_pass_for_a_recording(words, tmp_path):
    """40 currents a scene, behind no patterns that are known: none of the orders fits."""
    with np.load(DIGITS) as file:
        np.save(tmp_path / "y.npy", file["exp_july23_y"])
    order = [] if "--order" in words else ["--order", "natural"]
    with pytest.raises(UserError, match=r"no square of a power of two|all-ones pattern"):
        imported(tmp_path, "--input", tmp_path / "y.npy", *order, *words)
    assert not (tmp_path / "lab.npz").exists()
