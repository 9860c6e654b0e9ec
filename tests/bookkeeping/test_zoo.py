"""The networks of the repository: small, whole, what their table says, and found by zoo:NAME."""

import shutil
from argparse import ArgumentTypeError

import pytest
from test_scripts import call

import predict
import zoo as script
from bookkeeping import zoo
from checkpoints import checkpoint
from core.errors import UserError
from core.zoo import FOLDER, entries, file_of
from parsing.values import network_file

LARGEST = 2_200_000  # bytes of all networks


def test_all_networks_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.pth")) <= LARGEST
    assert {path.stem for path in FOLDER.glob("*.pth")} == {*entries()} == {*zoo.facts()}


@pytest.mark.parametrize("name", entries())
def test_a_network_is_the_one_that_was_stored_and_its_command_can_be_typed(name):
    facts = zoo.facts()[name]
    assert checkpoint.digest(file_of(name)) == facts["digest"]
    network, _ = checkpoint.restore_network(network_file(f"zoo:{name}"))
    assert sum(weight.numel() for weight in network.parameters()) == facts["parameters"]
    trained = entries()[name]
    module = __import__(trained["script"].removesuffix(".py"))
    args = module.parse(zoo.words_of(name))
    saved = checkpoint.read(file_of(name))["config"]
    for flag, value in trained["flags"].items():
        if flag == "teacher":
            digest = checkpoint.digest(network_file(value))
            assert digest in (saved["teacher"], saved.get("teacher 0")), "it is in the zoo too"
        elif flag != "model":
            stored = saved.get("features" if flag == "channels" else flag)
            assert stored == getattr(args, flag), f"{flag} is what the command says"


def test_a_picture_is_restored_by_name(tmp_path):
    from PIL import Image

    Image.new("L", (70, 70), 120).save("scene.png")
    assert call(predict, "--checkpoint", "zoo:student_cr_0.1", "scene.png")


def test_an_unknown_network_is_refused_with_the_names_that_there_are(capsys):
    with pytest.raises(ArgumentTypeError, match=r"no network 'x': it has teacher_cr_0.5"):
        network_file("zoo:x")
    with pytest.raises(UserError, match=r"no network .\.\./x"):
        script.parse(["verify", "../x"])
    with pytest.raises(SystemExit):
        script.parse(["train"])
    assert "train needs a name" in capsys.readouterr().err


def test_verify_notices_another_file_and_other_scores(tmp_path, monkeypatch):
    for path in FOLDER.glob("zoo.*"):
        shutil.copy(path, tmp_path)
    names = ("classifier_teacher", "classifier_student")
    for name in names:
        shutil.copy(file_of(name), tmp_path)
    monkeypatch.setattr("core.zoo.FOLDER", tmp_path)
    call(script, "verify", *names)
    shutil.copy(tmp_path / f"{names[1]}.pth", tmp_path / f"{names[0]}.pth")
    with pytest.raises(UserError, match=r"classifier_teacher: parameters is .* was .*digest"):
        call(script, "verify", *names)


def test_a_network_is_trained_again_and_stored(tmp_path, monkeypatch):
    flags = "{dataset: digits, n: 16, width: 4, steps: 2, batch_size: 4, limit_train: 8, cr: 0.25}"
    (tmp_path / "zoo.yml").write_text(
        f"tiny:\n  what: nothing\n  script: main_unet.py\n  flags: {flags}\n"
    )
    monkeypatch.setattr("core.zoo.FOLDER", tmp_path)
    monkeypatch.setattr("core.zoo.TABLE", tmp_path / "zoo.yml")
    monkeypatch.setattr(zoo, "FACTS", tmp_path / "zoo.json")
    monkeypatch.setattr(script, "test", lambda *_: {"PSNR": 1.0})
    call(script, "train", "tiny", "--store")
    assert zoo.facts()["tiny"]["digest"] == checkpoint.digest(tmp_path / "tiny.pth")
    call(script, "verify")
    call(script, "list")
