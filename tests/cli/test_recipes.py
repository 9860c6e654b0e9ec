"""--recipe and --weights: one word for flags that can be typed one by one."""

from pathlib import Path

import pytest
from test_scripts import call

import main_classify
import main_classify_dist
import main_unet
import main_unet_dist
import progressive_distill
from cli.checks import balanced
from cli.flags import identity
from core.errors import UserError
from core.registry import CLASS_LOSSES

RELEASE = [
    "--optimizer",
    "adam",
    "--lr",
    "1e-5",
    "--weight_decay",
    "1e-4",
    "--schedule",
    "constant",
]
RELEASE += ["--warmup", "0", "--grad_clip", "0", "--batch_size", "50"]
COMMANDS = [
    (main_unet, ["--cr", "0.1"], "--loss"),
    (main_unet_dist, ["--cr", "0.1", "--teacher", "T.pth"], "--loss_gt"),
    (progressive_distill, ["--ladder", "0.5", "0.1", "--teacher", "T.pth"], "--loss_gt"),
]


def settings(args) -> dict:
    """What distinguishes a run; a ladder also keeps which flags were typed, as this word is."""
    return {name: value for name, value in identity(args).items() if name != "typed"}


@pytest.mark.parametrize("script, words, loss", COMMANDS)
def test_the_releases_recipe_is_its_flags(script, words, loss):
    """A run by the word is the run by the flags; a flag before or behind it overrules it."""
    recipe = ["--recipe", "release"]
    typed = script.parse([*words, *RELEASE, loss, "mse"])
    assert settings(script.parse([*words, *recipe])) == settings(typed)
    for overruled in (["--lr", "3e-4", *recipe], [*recipe, "--lr", "3e-4"]):
        args = script.parse([*words, *overruled])
        assert args.lr == 3e-4 and args.optimizer == "adam" and args.batch_size == 50
    ours = settings(script.parse([*words, "--recipe", "ours"]))
    assert ours == settings(script.parse(words))


def test_a_file_of_settings_overrules_a_recipe(tmp_path):
    (tmp_path / "flags.yml").write_text("recipe: release\nlr: 0.01\ncr: 0.1\n")
    args = main_unet.parse(["--config", str(tmp_path / "flags.yml")])
    assert args.lr == 0.01 and args.optimizer == "adam" and args.loss == "mse"
    (tmp_path / "run.yml").write_text("recipe: ours\nlr: 0.01\ncr: 0.1\n")
    args = main_unet.parse(["--config", str(tmp_path / "run.yml"), "--recipe", "release"])
    assert args.lr == 1e-5 and args.batch_size == 50, "what is typed overrules a file"


def test_an_unknown_recipe_is_one_line(capsys):
    with pytest.raises(SystemExit):
        main_unet.parse(["--cr", "0.1", "--recipe", "theirs"])
    error = capsys.readouterr().err
    assert "invalid choice: 'theirs'" in error and error.count("\n") == 1


def losses(*words: str) -> list[str]:
    return balanced(main_classify_dist.parse(["--teacher", "T.pth", *words])).loss_distill


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_a_loss_without_a_weight_gets_its_safe_one(name):
    """Written behind its name, so that a run says what it was; a typed weight is kept."""
    spec = CLASS_LOSSES[name]
    published = losses("--loss_distill", name, "--weights", "published")
    assert published == [name]
    (safe,) = losses("--loss_distill", name)
    weight = float(safe.partition(":")[2] or spec.weight)
    assert weight == (spec.weight if spec.safe is None else spec.safe) <= spec.weight
    assert losses("--loss_distill", f"{name}:7") == [f"{name}:7"]


def test_a_published_balance_keeps_its_weights():
    assert losses("--balance", "halves") == ["kd:0.5"]
    with pytest.raises(UserError, match="balance halves sets the weights"):
        losses("--balance", "halves", "--weights", "safe")


@pytest.mark.parametrize("weights", [[], ["--weights", "published"]])
def test_the_configuration_of_a_run_keeps_its_weights(weights, tmp_path):
    """What `config.json` holds is the same training, whatever the default was."""
    data = ["--dataset", "digits", "--n", "16", "--limit_train", "40", "--limit_val", "20"]
    words = [*data, "--model", "resnet8", "--width", "4", "--steps", "1"]
    teacher = call(main_classify, *words)["export"]
    words += ["--teacher", teacher, "--loss_distill", "at", "kd:3", *weights]
    run = call(main_classify_dist, *words)
    config = str(Path(run["run"]) / "config.json")
    again = balanced(main_classify_dist.parse(["--config", config]))
    assert again.loss_distill == balanced(main_classify_dist.parse(words)).loss_distill
    assert identity(again) == identity(balanced(main_classify_dist.parse(words)))
