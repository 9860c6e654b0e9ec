"""A value that is given twice, of which one would be dropped without a word, is an error in one line."""

import pytest
from test_bad_data import ran

import analyze_features
import benchmark
import compare_models
import demo
import main_classify
import main_unet
import main_unet_dist
import predict
import progressive_distill
import sweep
import test_classify
import test_UNet

DENOISE = ["--physics", "denoise", "--sigma"]
CASES = [
    (main_unet, ["--cr", "0.1", "--seeds", "1", "1", "1"], "--seeds: 1 is given 3 times"),
    (main_unet, ["--cr", "0.1", "0.3", "0.10"], "--cr/--cr_student: 0.1 is given 2 times"),
    (main_unet, ["--crs_expert", "0.5", "0.5"], "--crs_expert: 0.5 is given 2 times"),
    (main_unet, [*DENOISE, "25", "25"], "--sigma: 25 is given 2 times"),
    (main_unet_dist, ["--cr", "0.1", "--crs_expert_teacher", "0.5", "0.5"], "0.5 is given 2 times"),
    (main_classify, ["--seeds", "0", "0"], "--seeds: 0 is given 2 times"),
    (progressive_distill, ["--ladder", "0.5", "0.5"], "--ladder: 0.5 is given 2 times"),
    (test_UNet, ["--checkpoint", "a", "a"], "--checkpoint: a is given 2 times"),
    (
        test_UNet,
        ["--checkpoint", "a", "--awgn_snr", "none", "20", "none"],
        "--awgn_snr: none is given 2 times",
    ),
    (test_UNet, ["--checkpoint", "a", "--sigma", "5", "5.0"], "--sigma: 5 is given 2 times"),
    (test_classify, ["--checkpoint", "a", "a"], "--checkpoint: a is given 2 times"),
    (test_classify, ["--checkpoint", "a", "--splits", "val", "val"], "--splits: val is given 2"),
    (compare_models, ["a", "a"], "PATH: a is given 2 times"),
    (compare_models, ["a", "--batches", "1", "1"], "--batches: 1 is given 2 times"),
    (analyze_features, ["a", "a"], "PATH: a is given 2 times"),
    (analyze_features, ["a", "b", "--measures", "std", "std"], "--measures: std is given 2 times"),
    (predict, ["--checkpoint", "a", "--export", "onnx", "onnx"], "--export: onnx is given 2 times"),
    (benchmark, ["--only", "peak", "peak"], "--only: peak is given 2 times"),
    (demo, ["--task", "benchmark", "--seeds", "0", "0"], "--seeds: 0 is given 2 times"),
    (demo, ["--task", "benchmark", "--loss_distill", "kd", "kd"], "kd is given 2 times"),
    (sweep, ["--seeds", "0", "0", "--vary", "cr=0.1"], "--seeds: 0 is given 2 times"),
    (
        sweep,
        ["--vary", "cr=0.1,0.1", "--teacher", "cr=0.5"],
        "study: the grid's cr lists 0.1 2 times",
    ),
    (sweep, ["--vary", "cr=0.1", "cr=0.2"], "study: --vary lists cr 2 times"),
    (sweep, ["--vary", "cr=0.1", "--fixed", "lr=1", "--fixed", "lr=2"], "--fixed lists lr 2 times"),
    (sweep, ["--vary", "cr=0.1"], "study: main_unet_dist.py needs a teacher"),
]


@pytest.mark.parametrize("script, words, message", CASES)
def test_a_value_that_is_given_twice_is_one_line(script, words, message, monkeypatch, capsys):
    # a study is planned, and nothing is trained where a value is let through
    monkeypatch.setattr(script, "main", getattr(script, "build_plan", lambda args: None))
    code, _, error = ran(script, words, monkeypatch, capsys)
    assert code == 2 and error.count("\n") == 1 and message in error, error


def test_different_values_keep_their_order_and_mixtures_are_sorted():
    assert main_unet.parse(["--cr", "0.1", "--seeds", "2", "0"]).seeds == [2, 0]
    assert main_unet.parse(["--crs_expert", "0.5", "0.1"]).cr == [0.1, 0.5]
    assert main_unet.parse([*DENOISE, "50", "5"]).sigma == [5, 50]
