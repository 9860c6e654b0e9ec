"""Networks and losses in a file of the user's."""

import sys
from pathlib import Path

import pytest
import torch
from test_scripts import call

import main_classify
import main_classify_dist
import main_unet
import main_unet_dist
import predict
import progressive_distill
import test_UNet
from checkpoints import checkpoint
from core import own
from core.errors import UserError
from core.registry import CLASS_LOSSES, LOSSES, MODELS, NETWORKS
from models.own_network import OwnNetwork

CODE = """\
from collections import OrderedDict
import torch
from torch import nn
from torch.nn import Sequential

class Net(nn.Module):
    def __init__(self, width=4, c=1):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(c, width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(width, c, 3, padding=1)

    def forward(self, x0):
        return x0 + self.head(self.body(x0))

class Named(Net):
    def features(self, x0):
        latent = self.body(x0)
        return {"latent": latent, "output": x0 + self.head(latent)}

class Listed(Net):
    features = [8, 16]

class Large(Net):
    def forward(self, x0):
        return torch.cat((x0, x0))

class Broken(Net):
    def forward(self, x0):
        return x0 @ torch.ones(3, 3)

class NotANetwork:
    pass

def mean_error(student, teacher):
    return (student - teacher).abs().mean()

class Scaled:
    def __call__(self, student, teacher):
        return 2 * (student - teacher).square().mean()

def of_every_pixel(student, teacher):
    return (student - teacher).abs()

def divides(student, teacher):
    return 1 // 0 * student.mean()
"""
IN_PLACE = """\
class InPlace(Net):
    def forward(self, x0):
        return x0 + self.head(self.body[0](x0).relu_())
"""
TINY = ["--dataset", "digits", "--n", "16", "--limit_train", "20", "--limit_val", "4",
        "--batch_size", "10", "--epochs", "1"]  # fmt: skip
OWN = ["--cr", "0.25", "--network", "my.py:Net", *TINY]


@pytest.fixture(autouse=True)
def my_file(monkeypatch):
    """A file of the user's; what the tests name of it is forgotten afterwards."""
    tables = (NETWORKS, MODELS, LOSSES, CLASS_LOSSES)
    before = [dict(table) for table in tables]
    monkeypatch.setattr(own, "SOURCES", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my.py").write_text(CODE)
    yield Path("my.py")
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def config_of(path):
    return checkpoint.read(path)["network"]


def test_a_layer_is_what_its_submodule_returns_whatever_is_done_to_it_in_place():
    torch.manual_seed(0)
    Path("my.py").write_text(f"{CODE}\n\n{IN_PLACE}")
    own.read_source("my.py")
    module, x0 = own.load("my.py:InPlace")(), torch.randn(2, 1, 8, 8)
    network = OwnNetwork(1, "my.py:InPlace", module, {"latent": "body.0"})
    found, expected = network.features(x0), module.body[0](x0)
    assert expected.min() < 0 and torch.equal(found["latent"], expected)
    (found["latent"].mean() + found["output"].mean()).backward()
    assert module.body[0].weight.grad.any() and torch.equal(found["output"], module(x0))


class TestANetwork:
    def test_is_trained_kept_and_tested(self, my_file):
        path = call(main_unet, *OWN, "--set", "width=6")["export"]
        assert Path(path).name == "NET_cr_0.25.pth"
        config = config_of(path)
        assert config["settings"] == {"width": 6} and config["name"] == "my.py:Net"
        assert CODE.encode()[:60] not in Path(path).read_bytes()
        words = ["--checkpoint", path, "--code", "my.py", "--dataset", "digits"]
        rows = call(test_UNet, *words, "--limit_test", "5")["rows"]
        assert rows[-1]["parameters"] == sum(count for count in (6 * 9 + 6, 6 * 9 + 1))

    def test_is_not_run_for_a_checkpoint_that_no_one_gave_the_code_of(self, my_file, monkeypatch):
        path = call(main_unet, *OWN)["export"]
        monkeypatch.setattr(own, "SOURCES", {})
        monkeypatch.setattr(own, "run", None)  # nothing may be run
        with pytest.raises(
            UserError, match=r"no checkpoint brings along: name the file by --code my\.py"
        ):
            checkpoint.restore(path)

    @pytest.mark.parametrize(
        "name", ["Sequential", "OrderedDict", "NotANetwork", "mean_error", "no"]
    )
    def test_a_checkpoint_makes_nothing_but_networks_that_the_file_defines(self, name, my_file):
        path = call(main_unet, *OWN)["export"]
        content = torch.load(path, weights_only=True)
        content["network"] |= {"name": f"my.py:{name}", "settings": {}}
        checkpoint.write(Path("other.pth"), content)
        with pytest.raises(UserError, match=r"has no class or function|not a class of torch\.nn"):
            checkpoint.restore("other.pth")

    def test_a_changed_file_is_said_and_is_another_run(self, my_file, capsys):
        first = call(main_unet, *OWN)
        assert call(main_unet, *OWN)["export"] == first["export"]  # the finished run
        my_file.write_text(CODE + "\n# another thought\n")
        call(test_UNet, "--checkpoint", first["export"], "--code", "my.py", "--dataset", "digits",
             "--limit_test", "5")  # fmt: skip
        assert "my.py is not what it was when the network was trained" in capsys.readouterr().out
        second = call(main_unet, *OWN, "--results", "b")
        assert Path(second["run"]).name != Path(first["run"]).name

    def test_is_a_student_a_teacher_and_goes_on(self, my_file):
        teacher = call(main_unet, "--cr", "0.5", "--network", "my.py:Net", *TINY)["export"]
        words = [*OWN, "--teacher", teacher, "--type_dist", "output_latent"]
        layers = ["--layers", "latent=body.1"]
        with pytest.raises(
            UserError, match="share no layer of --type_dist latent; the student has"
        ):
            call(main_unet_dist, *words, *layers, "--type_dist", "latent")
        unet = call(main_unet, "--cr", "0.5", "--width", "4", *TINY)["export"]
        words[words.index(teacher)] = unet
        student = call(main_unet_dist, *words, *layers)
        (row,) = student_rows(student)
        assert "train_distill/mse/latent" in row or any("latent" in name for name in row)
        again = ["--redistill", student["export"], "--teacher", teacher, "--code", "my.py"]
        again += [word for word in TINY if word not in ("--n", "16")]
        with pytest.raises(UserError, match=r"set \['width=9'\] contradicts the checkpoint's None"):
            call(progressive_distill, *again, "--network", "my.py:Net", "--set", "width=9")
        again += ["--network", "my.py:Net", *layers]
        result = call(progressive_distill, *again, "--type_dist", "output", "--limit_test", "5")
        assert result["rungs"]

    def test_features_of_its_own_are_those_of_submodules(self, my_file):
        call(main_unet, *OWN)
        own.read_source("my.py")
        from models.own_network import build

        digest = own.SOURCES["my.py"].digest
        torch.manual_seed(0)
        hooked = build("my.py:Net", 1, digest, layers={"latent": "body.1"})
        torch.manual_seed(0)
        named = build("my.py:Named", 1, digest)
        x = torch.rand(2, 3, 16, 16)  # with a map of the noise level and more behind it
        a, b = hooked.features(x), named.features(x)
        assert [*a] == [*b] == ["latent", "output"]
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_agrees_with_the_measurements_on_request(self, my_file):
        path = call(main_unet, *OWN, "--consistency", "range")["export"]
        restored = checkpoint.restore(path)
        x = torch.rand(2, 1, 16, 16)
        with torch.no_grad():
            output = restored.network(restored.physics.observe(x))
        measured = restored.physics.project(x)
        torch.testing.assert_close(restored.physics.project(output), measured, atol=1e-4, rtol=1e-4)

    def test_an_attribute_called_features_is_no_method(self, my_file):
        assert call(main_unet, *OWN[:2], "--network", "my.py:Listed", *TINY)

    def test_its_settings_are_read_back(self, my_file, tmp_path, monkeypatch):
        first = call(main_unet, *OWN, "--set", "width=6")
        (tmp_path / "elsewhere").mkdir()
        config = Path(first["run"]).resolve() / "config.json"
        monkeypatch.chdir(tmp_path / "elsewhere")
        again = call(main_unet, "--config", config)
        assert config_of(again["export"])["settings"] == {"width": 6}

    def test_nothing_beside_the_file_is_found_later(self, my_file):
        Path("beside.py").write_text("VALUE = 3")
        my_file.write_text("import beside\n" + CODE)
        call(main_unet, *OWN)
        assert "beside" in sys.modules and str(my_file.resolve().parent) not in sys.path

    def test_restores_a_picture(self, my_file):
        path = call(main_unet, *OWN)["export"]
        from PIL import Image

        Image.new("L", (16, 16), 90).save("scene.png")
        assert call(predict, "--checkpoint", path, "--code", "my.py", "scene.png")


def student_rows(result):
    import csv

    with open(f"{result['run']}/metrics.csv", newline="") as file:
        return [*csv.DictReader(file)]


class TestALoss:
    @pytest.mark.parametrize(
        "ours, same", [("mean_error:0.1", "mae:0.1"), ("Scaled:0.2", "mse:0.4")]
    )
    def test_equals_the_same_one_of_the_table(self, ours, same, my_file):
        teacher = call(main_unet, "--cr", "0.5", "--width", "4", *TINY)["export"]
        words = ["--cr", "0.25", "--width", "2", "--teacher", teacher, *TINY]
        a = call(main_unet_dist, *words, "--loss_distill", f"my.py:{ours}", "--results", "a")
        b = call(main_unet_dist, *words, "--loss_distill", same, "--results", "b")
        a, b = (checkpoint.read(run["export"])["weights"] for run in (a, b))
        for name in a:
            torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-5)

    def test_teaches_classifiers_too(self, my_file):
        words = [*TINY[:-6], "--width", "2", "--epochs", "1", "--batch_size", "10"]
        teacher = call(main_classify, "--model", "resnet8", *words)["export"]
        words += ["--teacher", teacher, "--loss_distill", "my.py:mean_error:0.5"]
        assert call(main_classify_dist, "--model", "resnet8", *words, "--type_dist", "latent")


class TestMistakes:
    @pytest.mark.parametrize(
        "words, message",
        [
            (["--network", "no.py:Net"], "no.py: no such file"),
            (
                ["--network", "my.py:Nest"],
                "my.py has no class or function 'Nest': it has Net, Named",
            ),
            (["--network", "bad.py:Net"], "bad.py, line 2: '(' was never closed"),
            (["--network", "unet", "--set", "width=3"], "for a network of your own, not unet"),
            (["--network", "my.py:Net", "--set", "width"], "must be NAME=VALUE"),
            (["--network", "my.py:Net", "--set", "width=1", "width=2"], "must be NAME=VALUE|twice"),
            (["--network", "my.py:Net", "--width", "3"], "does not read --width"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_on_the_command_line_are_said_before_anything_is_run(self, words, message, capsys):
        Path("bad.py").write_text("x = 1\ny = (\n")
        with pytest.raises((SystemExit, UserError)) as stop:
            call(main_unet, "--cr", "0.25", *TINY, *words)
        text = capsys.readouterr().err + str(stop.value)
        assert any(part in text for part in message.split("|")) and "Traceback" not in text

    @pytest.mark.parametrize(
        "words, message",
        [
            (
                ["my.py:Net", "--set", "size=3"],
                "set size: my.py:Net has no such argument, only width",
            ),
            (["my.py:Net", "--layers", "latent=tail"], "no submodule 'tail': it has body, body.0"),
            (["my.py:Named", "--layers", "latent=body"], "leave out --layers"),
            (["my.py:NotANetwork"], "my.py:NotANetwork is not a class of torch.nn.Module"),
            (["my.py:Large"], "an image of the same shape is needed"),
            (["my.py:Broken"], r"my.py, line 29 \(return x0 @ torch.ones\(3, 3\)\): RuntimeError"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_in_the_file_are_said_by_their_line(self, words, message):
        with pytest.raises(UserError, match=message):
            call(main_unet, "--cr", "0.25", *TINY, "--network", *words)

    @pytest.mark.parametrize(
        "loss, message",
        [
            ("of_every_pixel", r"my.py:of_every_pixel returns \(.*\): a loss is one number"),
            ("divides", r"my.py, line 45 \(return 1 // 0 .*\): ZeroDivisionError"),
        ],
    )
    def test_in_a_loss_are_said_by_their_line(self, loss, message, my_file):
        teacher = call(main_unet, "--cr", "0.5", "--width", "2", *TINY)["export"]
        words = ["--cr", "0.25", "--width", "2", "--teacher", teacher, *TINY]
        with pytest.raises(UserError, match=message):
            call(main_unet_dist, *words, "--loss_distill", f"my.py:{loss}")

    def test_two_files_of_one_name_are_refused(self, my_file):
        Path("other").mkdir()
        Path("other/my.py").write_text(CODE)
        own.read_source("my.py")
        with pytest.raises(UserError, match="have the same name"):
            own.read_source("other/my.py")


def test_the_example_of_the_page_is_the_file_of_the_repository():
    root = Path(__file__).parents[2]
    file = (root / "examples" / "my.py").read_text()
    page = (root / "docs" / "your-own.md").read_text()
    blocks = page.split("```python\n")[1:]
    assert len(blocks) == 3
    for block in blocks:
        assert block.partition("```")[0].strip() in file


def test_the_example_learns_and_teaches():
    example = str(Path(__file__).parents[2] / "examples" / "my.py")
    path = call(main_unet, "--cr", "0.5", "--network", f"{example}:MyNet", *TINY)["export"]
    words = ["--cr", "0.25", "--teacher", path, "--network", f"{example}:MyNet", *TINY]
    words += ["--layers", "latent=body.2", "--loss_distill", f"{example}:my_loss:0.3"]
    run = call(main_unet_dist, *words, "--type_dist", "output")
    assert "my.py:my_loss" in "".join(student_rows(run)[0])
