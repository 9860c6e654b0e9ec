"""Any words on a command line end in a configuration or in one line and exit code 2, never in a traceback."""

import contextlib
import importlib
import io
import json
from argparse import SUPPRESS
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_house import SCRIPTS

import main_classify
import main_unet
from core.errors import UserError
from core.registry import CLASSIFIERS, NETWORKS, PHYSICS, RESTORED

QUICK = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
)  # what a shell can pass
FLOATS = st.floats(allow_subnormal=False) | st.floats(0, 1, allow_subnormal=False)
NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.integers(),
    FLOATS,
    st.sampled_from(["1e-320", "1e400", "9" * 5000, "0x10", "1_0", "٣"]),
)
SETTINGS = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda x: st.lists(x) | st.dictionaries(WORDS, x),
).map(json.dumps)
NAMES = sorted(
    {
        name
        for table in vars(importlib.import_module("core.registry")).values()
        if isinstance(table, dict)
        for name in table
    }
)


def lines_of(script):
    """Command lines of a script: its own flags, with values of all kinds, and words that it does not know."""
    actions = [
        action
        for action in importlib.import_module(script).build_parser()._actions
        if action.option_strings and action.default is not SUPPRESS
    ]
    values = st.one_of(NUMBERS.map(str), st.sampled_from(NAMES), WORDS)

    def flag(action):
        own = st.sampled_from([*map(str, action.choices)]) if action.choices else values
        words = st.lists(st.one_of(own, values), max_size=0 if action.nargs == 0 else 3)
        return st.tuples(st.sampled_from(action.option_strings), words).map(
            lambda pair: [pair[0], *pair[1]]
        )

    return st.lists(
        st.one_of(st.sampled_from(actions).flatmap(flag), st.lists(values, max_size=2)), max_size=6
    ).map(lambda parts: [*chain(*parts)])


def ends_well(parse, words):
    """What parsing returns, or nothing where it ends in one line and exit code 2."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            return parse(words)
    except UserError as error:
        assert str(error)
        return None
    except SystemExit as end:
        helped = end.code == 0 and any(word.startswith(("-h", "--help")) for word in words)
        assert helped or (end.code == 2 and printed.getvalue().count("\n") == 1), (
            words,
            printed.getvalue(),
        )
        return None


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("lines", [10, pytest.param(40, marks=pytest.mark.long)])
def test_any_words_are_a_configuration_or_one_line(script, lines):
    @settings(max_examples=lines, **QUICK)
    @given(lines_of(script))
    def check(words):
        ends_well(importlib.import_module(script).parse, words)

    check()


@settings(max_examples=40, **QUICK)
@given(
    st.one_of(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers() | WORDS,
            lambda x: st.lists(x) | st.dictionaries(WORDS, x),
        ).map(json.dumps),
    )
)
def test_any_file_of_settings_is_a_configuration_or_one_line(text):
    with open("c.yml", "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
    ends_well(main_unet.parse, ["--cr", "0.1", "--config", "c.yml"])


@pytest.mark.parametrize(
    "text",
    [
        "a: 2020-13-45",
        "[" * 5000,
        "a: " + "9" * 5000,
        "? [1, 2]\n: 3",
        "1: 2",
        "a: !!python/object:os.system x",
    ],
)
def test_files_of_settings_that_their_readers_stumble_over(text, tmp_path):
    (tmp_path / "c.yml").write_text(text)
    assert ends_well(main_unet.parse, ["--cr", "0.1", "--config", "c.yml"]) is None


SMALL = ["--dataset", "digits", "--limit_train", "30", "--limit_val", "10", "--dry_run"]
VALUES = {
    "cr": [0.001, 0.1, 1], "ordering": ["xy", "strip", "random", "variance"], "sigma": [0, 25, "5 50"], "factor": [2, 3, 16],
    "kernel": ["bicubic", "gaussian", "motion", "box"], "blur_width": [0.1, 3, 99], "acceleration": [2, 8, 64], "mask_type": ["uniform", "gaussian"],
    "degradation": ["mild"], "lessen_ratio": [1, 3, 4096], "resize": ["nearest"], "x0": ["adjoint", "lmmse"], "awgn_snr": [-100, 20],
    "photons": [0.1, 10, "2 50", "none"], "photon_budget": ["frame"], "dark": [0, 3], "dark_noise": [0.5], "gain": [0.1, 40],
    "scales": [2, 5], "width": [1, 4, 7], "channels": [1, 4], "blocks": [1, 2], "growth": [1, 4], "batch_norm": ["on", "bias-free"],
    "padding": ["circular", "release"], "stem": ["small", "large"], "patch": [3, 8],
}  # fmt: skip
COMMON = {
    "n": [2, 3, 8, 16, 17],
    "c": [1, 3],
    "batch_size": [1, 7],
    "accumulate": [1, 5],
    "ema": [0, 0.9],
    "warmup": [0, 3],
    "epochs": [1, 10**9],
}


@st.composite
def configurations(draw, networks, cameras, named):
    """Command lines whose every flag is read and whose every value is allowed."""
    network, camera = (
        draw(st.sampled_from(sorted(networks))),
        draw(st.sampled_from(sorted(cameras))),
    )
    words = [named, network, "--physics", camera]
    for flag in [
        *NETWORKS.get(network, CLASSIFIERS.get(network)).flags,
        *PHYSICS[camera].flags,
        *COMMON,
    ]:
        values = (VALUES | COMMON).get(flag)
        if values and (draw(st.booleans()) or PHYSICS[camera].flags.get(flag) is ...):
            words += [f"--{flag}", *str(draw(st.sampled_from(values))).split()]
    return words


TINY_NETWORKS = {"unet", "dncnn", "rrdbnet", "drunet", "restormer"}


@pytest.mark.parametrize(
    "script, lines",
    [
        (main_unet, configurations(TINY_NETWORKS, set(RESTORED) - {"given"}, "--network")),
        (
            main_classify,
            configurations(
                {"resnet8", "shufflenet", "vit_tiny"}, {"image", "spc", "denoise"}, "--model"
            ),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("examples", [4, pytest.param(12, marks=pytest.mark.long)])
def test_a_configuration_is_described_or_refused(script, lines, examples, tmp_path):
    @settings(max_examples=examples, **QUICK)
    @given(lines)
    def check(words):
        args = ends_well(script.parse, [*words, *SMALL])
        if args is not None:
            with contextlib.suppress(UserError), contextlib.redirect_stdout(io.StringIO()):
                script.main(args)
        assert not any(tmp_path.iterdir())

    check()
