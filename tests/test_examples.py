"""The examples run to their end, and the functions of distillpool are the scripts."""

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import deepinv
import numpy as np
import pytest
import torch

import distillpool as dp
import main_unet
from checkpoints import checkpoint
from core.errors import UserError
from data_loader import Request, build_splits

EXAMPLES = sorted(
    path
    for path in (Path(__file__).parents[1] / "examples").glob("*.py")
    if path.stem not in ("my", "photocurrents", "cifar10_small")  # parts, and a download
)
TINY = {
    "dataset": "digits", "n": 16, "width": 4, "steps": 2, "batch_size": 4, "limit_train": 8,
    "limit_val": 4,
}  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_to_its_end(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, count = re.subn(r"^(STEPS.*) = 500(, 200)?$", r"\1 = 4\2", path.read_text(), flags=re.M)
    assert count == 1, "its steps are where the test can make them few"
    exec(compile(text, str(path), "exec"), {"__file__": str(path), "__name__": "example"})
    assert capsys.readouterr().out


def test_the_small_cifar10_has_the_same_number_of_every_class(tmp_path, monkeypatch):
    def images(folder, train, download):
        generator = np.random.default_rng(int(train))
        y = generator.integers(0, 10, 6000)
        x = y[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3).astype(np.uint8)
        return SimpleNamespace(data=x, targets=y.tolist(), classes=[*"abcdefghij"])

    monkeypatch.setattr("torchvision.datasets.CIFAR10", images)
    path = Path(__file__).parents[1] / "examples" / "cifar10_small.py"
    runpy.run_path(str(path))["main"](tmp_path)
    splits = build_splits(
        Request("npz", 8, 3, str(tmp_path / "cifar10_small.npz")), wanted=("train", "test")
    )
    with np.load(tmp_path / "cifar10_small.npz") as file:
        assert np.bincount(file["y_train"]).tolist() == [400] * 10
        assert np.bincount(file["y_test"]).tolist() == [100] * 10
        assert (file["x_test"][:, 0, 0, 0] == file["y_test"]).all()
    assert len(splits["test"]) == 1000


def test_a_function_is_its_script_with_the_same_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = dp.train(cr=0.25, **TINY)
    words = ["--cr", "0.25"]
    for name, value in TINY.items():
        words += [f"--{name}", str(value)]
    again = main_unet.main(main_unet.parse(words))
    assert again["run"] == result["run"], "it is the same run, which is finished"
    assert result.path == Path(again["kept"]) and result.path.is_file()
    network, physics = dp.load(result)
    saved = checkpoint.restore(result.path)
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(network(physics.observe(x)), saved.network(saved.physics.observe(x)))
    record = json.loads((Path(result["run"]) / "run.json").read_text())
    assert record["command"][:3] == ["main_unet.py", "--cr", "0.25"], "what a user would type"
    student = dp.distill(teacher=result, cr=0.1, type_dist="output", **TINY)
    scores = dp.evaluate([result, student], dataset="digits", limit_test=4, baselines=False)
    assert len(scores["rows"]) == 2


def test_mistakes_are_exceptions_that_say_what_is_allowed():
    for flags, message in (
        ({"crr": 0.1}, "unknown setting 'crr'"),
        ({"cr": 3}, r"3 is outside \(0, 1\]"),
        ({"cr": 0.5, "network": "vgg"}, "vgg"),
    ):
        with pytest.raises(UserError, match=message):
            dp.train(**flags)
    with pytest.raises(UserError, match="several seeds have a network each"):
        _ = dp.Result({"runs": [], "checkpoints": ["a.pth", "b.pth"]}).path
    with pytest.raises(UserError, match="noise"):
        dp.physics(cr=0.5, noise=0.1)
    with pytest.raises(UserError, match="not a linear operator of one ratio"):
        dp.physics(cr=[0.1, 0.5])


@pytest.mark.parametrize("ordering", ["xy", "random"])
def test_the_camera_is_a_physics_of_deepinv(ordering):
    camera = dp.physics(cr=0.25, n=16, ordering=ordering)
    assert isinstance(camera, deepinv.physics.LinearPhysics)
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = camera.A(x)
    assert abs(camera.adjointness_test(x)) < 1e-4
    fidelity = deepinv.optim.L2()
    for name in ("PGD", "ADMM"):
        algorithm = deepinv.optim.optim_builder(
            name,
            prior=deepinv.optim.TVPrior(n_it_max=20),
            data_fidelity=fidelity,
            max_iter=40,
            params_algo={"stepsize": 1.0, "lambda": 1e-3},
        )
        restored = algorithm(y, camera)
        assert fidelity(restored, y, camera).max() < 0.02 * fidelity(0 * x, y, camera).min(), name
