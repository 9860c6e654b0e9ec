"""Teachers of the user's own code, and programs of torch.export, through the scripts."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from test_scripts import TINY, call

import main_unet
import main_unet_dist
import predict
from cli import flags
from core.errors import UserError
from models.given import load_program
from preparation import setup
from tests.doubles import own_code_forgotten

CODE = """
import torch
from torch import nn


class Brighter(nn.Module):
    def __init__(self, by=0.25):
        super().__init__()
        self.by = by

    def forward(self, x0):
        return x0 + self.by


def my_loss(student, teacher, power=1):
    return (student - teacher).abs().pow(power).mean()


def back_projection(c):
    class Reconstruct(nn.Module):
        def forward(self, y, physics):
            assert c == 1
            return physics.A_adjoint(y) + 0.5

    return Reconstruct()


class Wrong(nn.Module):
    def forward(self, x0):
        return x0[:, :, :8]


def number():
    return 7


class Fails(nn.Module):
    def forward(self, x0):
        return x0 + undefined
"""
TAUGHT = ["--cr", "0.25", "--type_dist", "output", *TINY]


@pytest.fixture
def code(tmp_path, monkeypatch):
    path = tmp_path / "my.py"
    path.write_text(CODE)
    with own_code_forgotten(monkeypatch):
        yield path


def teacher_of(*words: str):
    args = main_unet_dist.parse([*TAUGHT, *words])
    return setup.teacher_of(args, None, lambda: torch.rand(8, 1, 16, 16))


@pytest.mark.parametrize("ratio", [[], ["--cr_teacher", "0.5"]])
@pytest.mark.parametrize(("name", "added"), [("Brighter", 0.25), ("back_projection", 0.5)])
def test_it_sees_the_first_image_or_the_values_and_the_physics(code, name, added, ratio):
    teacher = teacher_of("--teacher", f"{code}:{name}", *ratio)
    x = torch.rand(3, 1, 16, 16)
    observed = teacher.physics.observe(x)
    assert teacher.physics.m == (128 if ratio else 64)
    expected = teacher.physics.operator.A_adjoint(teacher.physics.operator.A(x)) + added
    assert torch.allclose(teacher.network(observed), expected, atol=1e-5)


def test_a_student_learns_from_it_and_a_changed_teacher_is_another_run(code):
    words = ["--teacher", f"{code}:Brighter", *TAUGHT]
    first = call(main_unet_dist, *words)
    assert call(main_unet_dist, *words)["run"] == first["run"]
    code.write_text(CODE.replace("0.25", "0.2"))
    assert call(main_unet_dist, *words)["run"] != first["run"]
    again = call(main_unet_dist, "--config", f"{first['run']}/config.json")
    assert Path(again["run"]).is_dir()
    assert call(predict, "--checkpoint", first["export"], "--export", "safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}:Wrong"], r"my.py:Wrong returns \(.*\) for a first image"),
        (["{}:number"], "makes int, but a torch.nn.Module is needed"),
        (["{}:Fails"], r"my.py, line 39 \(return x0 \+ undefined\): NameError"),
        (["{}:Brighter", "--online"], "stays as it is; leave out --online"),
        (["{}:Brighter", "--answers", "1"], "only those of --teacher tv or pnp"),
        (["nowhere.pt2"], "nowhere.pt2: no such file"),
    ],
)
def test_what_cannot_teach_is_refused_in_words(code, words, message):
    given = ["--teacher", *(word.format(code) for word in words)]
    with pytest.raises(UserError, match=message):
        main_unet_dist.main(main_unet_dist.parse([*TAUGHT, *given]))


def test_teacher_and_loss_take_their_arguments_from_set(code):
    given = ["--teacher", f"{code}:Brighter", "--loss_distill", f"{code}:my_loss:0.5"]
    words = [*TAUGHT, *given, "--set", "by=0.5", "power=2"]
    assert teacher_of(*words[len(TAUGHT) :]).network.module.by == 0.5
    (loss,) = setup.losses_of(main_unet_dist.parse(words))
    student, teacher = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 3.0)
    assert loss.distance(student, teacher) == 9 and loss.weight == 0.5
    assert call(main_unet_dist, *words)["run"] != call(main_unet_dist, *TAUGHT, *given)["run"]
    with pytest.raises(UserError, match=r"set root: my.py:Brighter, my.py:my_loss has no such"):
        call(main_unet_dist, *TAUGHT, *given, "--set", "root=2")


def test_a_program_teaches_as_the_network_that_it_was_made_of():
    path = call(main_unet, "--cr", "0.5", *TINY)["export"]
    program = call(predict, "--checkpoint", path, "--export", "torch_export")["exports"]
    file = program["torch_export"]["path"]
    given = teacher_of("--teacher", str(file), "--cr_teacher", "0.5")
    known = setup.teacher_of(
        main_unet_dist.parse([*TAUGHT, "--teacher", path]), Path(path), lambda: None
    )
    x0 = known.physics.observe(torch.rand(4, 1, 16, 16))
    assert torch.allclose(given.network(x0), known.network(x0), atol=1e-5)
    assert call(main_unet_dist, "--teacher", str(file), "--cr_teacher", "0.5", *TAUGHT)


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("place", ["weights", "sample_inputs", "constants"])
def test_a_hostile_program_runs_nothing(place, tmp_path):
    program = torch.export.export(torch.nn.Conv2d(1, 1, 3, padding=1), (torch.rand(1, 1, 16, 16),))
    torch.export.save(program, buffer := io.BytesIO())
    torch.save(Canary(tmp_path / "canary"), hostile := io.BytesIO())
    bare = pickle.dumps(Canary(tmp_path / "canary"))
    path, changed = tmp_path / "hostile.pt2", 0
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if place in name and not name.endswith(".json"):
                data, changed = (bare if place == "constants" else hostile.getvalue()), changed + 1
            elif name.endswith("weights_config.json") and place == "weights":
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
            new.writestr(name, data)
        if place == "constants":
            new.writestr(old.namelist()[0].split("/")[0] + "/data/constants/opaque_obj_0", bare)
    assert changed or place == "constants"
    if changed:
        with pytest.raises(UserError, match=r"no program of torch\.export"):
            load_program(path)
    else:
        load_program(path)  # what the program does not name is not read
    assert not (tmp_path / "canary").exists()


def test_a_damaged_program_is_refused(tmp_path):
    (tmp_path / "x.pt2").write_bytes(b"PK" + bytes(200))
    with pytest.raises(UserError, match=r"no program of torch\.export"):
        load_program(tmp_path / "x.pt2")


def test_the_flags_of_a_teacher_name_what_is_possible():
    parser = flags.Parser("")
    flags.add_teacher(parser)
    assert parser.parse_args(["--teacher", "a.pt2"]).teacher == "a.pt2"
