"""A camera and images of the user's own code, through the scripts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_scripts import TINY, call

import main_classify
import main_unet
import main_unet_dist
import predict
import test_UNet
from checkpoints import checkpoint
from core import own
from core.errors import UserError
from physics.base import Linear
from physics.own_physics import check_operator
from tests.doubles import own_code_forgotten

CODE = """
import numpy as np
import torch
from deepinv.physics import LinearPhysics


def camera(n, m=50):
    rows = torch.randn(m, n * n, generator=torch.Generator().manual_seed(0)) / n
    return LinearPhysics(
        A=lambda x, **_: x.flatten(2) @ rows.T,
        A_adjoint=lambda y, **_: (y @ rows).unflatten(2, (n, n)),
    )


class Half:
    def A(self, x):
        return x[..., ::2, :]

    def A_adjoint(self, y):
        return torch.repeat_interleave(y, 2, dim=2) * torch.tensor([1.0, 0.0]).repeat(y.shape[2])[:, None]


def half():
    return Half()


def wrong_adjoint(n):
    return LinearPhysics(A=lambda x, **_: 2 * x, A_adjoint=lambda y, **_: 3 * y)


def wrong_shape():
    return LinearPhysics(A=lambda x, **_: x.sum(), A_adjoint=lambda y, **_: y)


def fails():
    return LinearPhysics(A=lambda x, **_: x @ undefined, A_adjoint=lambda y, **_: y)


def number():
    return 3


def images(n):
    return np.random.default_rng(0).random((60, n, n))


def labelled(n):
    x = np.random.default_rng(0).random((60, n, n))
    x[30:] *= 0.2
    return {"x": torch.from_numpy(x).float(), "y": np.repeat([0, 1], 30)}


def bytes_of_another_kind(n):
    return np.full((9, n, n), 300)
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    path = tmp_path / "my.py"
    path.write_text(CODE)
    with own_code_forgotten(monkeypatch):
        yield path


def test_a_camera_is_trained_behind_distilled_and_read_again(code):
    words = ["--physics", f"{code}:camera", *TINY]
    teacher = call(main_unet, *words, "--set", "m=120")
    student = call(main_unet_dist, *words, "--teacher", teacher["export"], "--type_dist", "output")
    saved = checkpoint.restore(student["export"])
    assert isinstance(saved.physics, Linear) and saved.physics.m == 50
    assert checkpoint.restore(teacher["export"]).physics.m == 120
    assert "camera" in teacher["export"] and ":" not in Path(student["export"]).name
    rows = call(
        test_UNet, "--checkpoint", student["export"], "--dataset", "digits", "--limit_test", "4"
    )
    assert [row["estimate"] for row in rows["rows"]][:2] == ["back-projection", "LMMSE"]


def test_its_first_image_is_the_pseudo_inverse(code):
    teacher = call(main_unet, "--physics", f"{code}:camera", *TINY)["export"]
    physics = checkpoint.restore(teacher).physics
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    rows = torch.randn(50, 256, generator=torch.Generator().manual_seed(0)) / 16
    expected = x.flatten(2) @ rows.T @ torch.linalg.pinv(rows).T
    assert torch.allclose(physics.observe(x).flatten(2), expected, atol=2e-3)


def test_an_object_with_an_adjoint_suffices_and_network_and_camera_share_set(code, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, k=3):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(1, 1, k, padding=k // 2)\n\n"
        "    def forward(self, x0):\n        return self.conv(x0)\n"
    )
    assert call(main_unet, "--physics", f"{code}:half", *TINY)
    both = ["--network", f"{tmp_path / 'net.py'}:Net", "--physics", f"{code}:camera"]
    data = ["--dataset", "digits", "--n", "16", "--limit_train", "8", "--limit_val", "4"]
    path = call(main_unet, *both, "--set", "k=5", "m=40", *data, "--steps", "1")["export"]
    saved = checkpoint.restore(path)
    assert saved.physics.m == 40 and saved.network_config["settings"] == {"k": 5}
    with pytest.raises(UserError, match="set z"):
        call(main_unet, *both, "--set", "z=5", *data, "--steps", "1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong_adjoint", r"A_adjoint is not the adjoint of A: <A x, u> is "),
        ("wrong_shape", r"A makes \(\) of \(2, 1, 16, 16\), not \(2, 1, ...\)"),
        ("fails", r"my.py, line \d+ .*NameError"),
        ("number", "makes int: it needs A and A_adjoint"),
    ],
)
def test_what_is_no_camera_is_refused_in_words(code, name, message):
    with pytest.raises(UserError, match=message):
        call(main_unet, "--physics", f"{code}:{name}", *TINY)


class Cyclic:
    """The mean of copies of an image that are shifted by some columns."""

    key = "cyclic"

    def __init__(self, shifts, back):
        self.shifts, self.back = shifts, back

    def A(self, x):
        return sum(x.roll(k, -1) for k in self.shifts) / len(self.shifts)

    def A_adjoint(self, y):
        return sum(y.roll(k, -1) for k in self.back) / len(self.back)


@pytest.mark.parametrize("n", [8, 32, 128])
@pytest.mark.parametrize("shifts", [[1], [3], range(3), range(5)])
def test_an_operator_that_keeps_the_mean_is_no_adjoint_of_itself(shifts, n):
    opposite = [-k for k in shifts]
    assert check_operator(Cyclic(shifts, opposite), n, 1) == n * n
    with pytest.raises(UserError, match="A_adjoint is not the adjoint of A"):
        check_operator(Cyclic(shifts, shifts), n, 1)


@pytest.mark.parametrize("wrong", [0, 5])
def test_an_adjoint_that_is_wrong_in_one_of_ten_values_is_refused(wrong):
    rows = torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
    signs = torch.ones(10)
    signs[wrong] = -1
    operator = Cyclic([], [])
    operator.A = lambda x: x.flatten(2) @ rows.T
    operator.A_adjoint = lambda y: (y @ rows).unflatten(2, (8, 8))
    assert check_operator(operator, 8, 1) == 10
    operator.A_adjoint = lambda y: (y * signs @ rows).unflatten(2, (8, 8))
    with pytest.raises(UserError, match="A_adjoint is not the adjoint of A"):
        check_operator(operator, 8, 1)


def test_a_checkpoint_brings_no_code(code, monkeypatch):
    path = call(main_unet, "--physics", f"{code}:camera", *TINY)["export"]
    monkeypatch.setattr(own, "SOURCES", {})
    with pytest.raises(UserError, match=r"'camera' is code of my\.py, which no checkpoint brings"):
        checkpoint.restore(path)
    with pytest.raises(SystemExit):
        main_unet.parse(["--physics", f"{code}:nothing"])


def test_images_are_made_by_a_function(code):
    words = ["--cr", "0.25", "--n", "16", "--width", "4", "--steps", "2", "--batch_size", "4"]
    given = ["--dataset", f"{code}:images"]
    first = call(main_unet, *words, *given)
    assert "images" in Path(first["run"]).name and ":" not in first["run"]
    rows = call(test_UNet, "--checkpoint", first["export"], *given)["rows"]
    assert rows[0]["images"] == 6
    code.write_text(CODE.replace("default_rng(0)", "default_rng(1)"))
    assert call(main_unet, *words, *given)["run"] != first["run"], "its code belongs to the run"
    with pytest.raises(UserError, match=r"x of my\.py:bytes_of_another_kind holds int64"):
        call(main_unet, *words, "--dataset", f"{code}:bytes_of_another_kind")


def test_images_with_labels_train_a_classifier(code):
    words = ["--dataset", f"{code}:labelled", "--n", "16", "--c", "1", "--model", "resnet8"]
    scores = call(main_classify, *words, "--width", "4", "--epochs", "1", "--batch_size", "8")
    assert checkpoint.restore(scores["export"]).classes == ["0", "1"]
    np.save("x.npy", np.zeros((1, 16, 16)))
    assert call(predict, "--checkpoint", scores["export"], "--export", "safetensors")
