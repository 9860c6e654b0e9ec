"""Flags beside --dataset recorded: a recording brings its own size, patterns and noise."""

import json

import pytest
import torch

import main_unet
from recordings.file import Recording, write_recording


@pytest.fixture
def lab(tmp_path):
    config = {"name": "spc", "n": 16, "c": 1, "cr": 0.5, "ordering": "natural", "x0": "adjoint"}
    config["awgn_snr"] = None
    patterns = torch.arange(256).view(16, 16)
    values, variance = torch.ones(3, 1, 128), torch.zeros(3, 1, 1)
    split = torch.tensor([0, 1, 2], dtype=torch.uint8)
    path = tmp_path / "lab.npz"
    write_recording(path, Recording(config, patterns, values, variance, split, ("a", "b", "c")))
    return str(path)


@pytest.fixture
def dense(tmp_path):
    """A recording by patterns of a side that no Hadamard patterns have."""
    config = {"name": "spc", "n": 6, "c": 1, "cr": 0.5, "ordering": "random", "x0": "adjoint"}
    config["awgn_snr"] = None
    patterns = torch.randn(18, 36, generator=torch.Generator().manual_seed(0))
    values, variance = torch.ones(3, 1, 18), torch.zeros(3, 1, 1)
    split = torch.tensor([0, 1, 2], dtype=torch.uint8)
    path = tmp_path / "dense.npz"
    write_recording(path, Recording(config, patterns, values, variance, split, ("a", "b", "c")))
    return str(path)


def parse(lab, *words):
    return main_unet.parse(["--cr", "0.25", "--dataset", "recorded", "--data_root", lab, *words])


def test_the_size_is_that_of_the_recording(lab, dense):
    assert parse(lab).n == 16 and parse(lab, "--n", "16").n == 16
    assert parse(dense).n == 6, (
        "the side is that of its patterns, whatever --ordering is without it"
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["--n", "32"], "n 32: recording"),  # the default, but typed
        (["--n", "64"], "n 64: recording"),
        (["--c", "3"], "c 3: recording"),
        (["--ordering", "xy"], "leave out --ordering"),
        (["--awgn-snr", "20"], "leave out --awgn_snr"),
        (["--noise", "0.1"], "leave out --noise"),
        (["--photons", "3"], "leave out --photons"),
        (["--gain", "1"], "leave out --gain"),
        (["--physics", "denoise", "--sigma", "5"], "it needs --physics spc"),
    ],
)
def test_flags_that_a_recording_answers_are_refused(words, message, lab, capsys):
    with pytest.raises(SystemExit) as end:
        parse(lab, *words)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_the_settings_of_a_run_with_a_recording_are_read_again(lab, tmp_path, capsys):
    args = parse(lab)
    settings = {name: value for name, value in vars(args).items() if name != "config"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    assert vars(main_unet.parse(["--config", str(path)])) == vars(args) | {"config": str(path)}
    for change in ({"n": 8}, {"ordering": "strip"}, {"gain": 2.0}, {"awgn_snr": 10.0}):
        path.write_text(json.dumps(settings | change))
        with pytest.raises(SystemExit):
            main_unet.parse(["--config", str(path)])
        assert "recording" in capsys.readouterr().err
