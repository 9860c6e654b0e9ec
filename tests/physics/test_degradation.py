"""Blind degradation in two stages: kernels, noise and JPEG against formulas of others, and the draws."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter

import main_unet
import main_unet_dist
import progressive_distill
import test_UNet
from algo_functions import build_physics
from checkpoints import checkpoint
from core.errors import UserError
from core.registry import DEGRADATIONS
from distill.task import Distillation
from physics import degradation
from physics.degradation import PRESETS, Sampler, blur_kernel, sinc_kernel

GUIDE = """
blur_kernel_size: 21
kernel_list: ['iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso']
kernel_prob: [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
sinc_prob: 0.1
blur_sigma: [0.2, 3]
betag_range: [0.5, 4]
betap_range: [1, 2]
resize_prob: [0.2, 0.7, 0.1]
resize_range: [0.15, 1.5]
gaussian_noise_prob: 0.5
noise_range: [1, 30]
poisson_scale_range: [0.05, 3]
gray_noise_prob: 0.4
jpeg_range: [30, 95]
second_blur_prob: 0.8
resize_prob2: [0.3, 0.4, 0.3]
resize_range2: [0.3, 1.2]
gaussian_noise_prob2: 0.5
noise_range2: [1, 25]
poisson_scale_range2: [0.05, 2.5]
gray_noise_prob2: 0.4
jpeg_range2: [30, 95]
"""
KEEP = [0, 0, 1]
STILL = PRESETS["real_esrgan"] | {  # nothing happens, but for JPEG and noise that a test switches on
    "kernel_list": ["iso"], "kernel_prob": [1], "sinc_prob": 0, "blur_sigma": [0.01, 0.01], "second_blur_prob": 0, "final_sinc_prob": 0,
    "resize_prob": KEEP, "resize_prob2": KEEP, "gaussian_noise_prob": 1, "gaussian_noise_prob2": 1, "noise_range": [0, 0], "noise_range2": [0, 0],
}  # fmt: skip


def camera(name="real_esrgan", n=16, c=1):
    return build_physics({"name": "degrade", "n": n, "c": c, "degradation": name})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def still(monkeypatch):
    """A camera of a preset that differs from doing nothing as told, without JPEG unless a range is told."""

    def build(n=16, c=1, **changes):
        monkeypatch.setitem(PRESETS, "still", STILL | changes)
        if not {"jpeg_range", "jpeg_range2"} & changes.keys():
            monkeypatch.setattr(degradation, "jpeg", lambda x, quality: x)
        return camera("still", n, c)

    return build


# ---------------------------------------------------------------- kernels


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_the_round_gaussian_is_scipys(sigma):
    delta = np.zeros((21, 21))
    delta[10, 10] = 1
    assert np.allclose(
        blur_kernel(21, "", (sigma, sigma)),
        gaussian_filter(delta, sigma, radius=10, mode="constant"),
        atol=1e-12,
    )


def test_the_long_gaussian_has_the_asked_covariance():
    kernel, angle = blur_kernel(41, "", (3.0, 1.5), 0.5), 0.5
    x, y = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="xy")
    points = torch.stack((x, y)).flatten(1).double()
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert torch.allclose(
        points * kernel.flatten() @ points.T,
        turn @ torch.diag(torch.tensor([9.0, 2.25]).double()) @ turn.T,
        atol=1e-2,
    )


@pytest.mark.parametrize("profile", ["generalized", "plateau"])
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_other_profiles_have_their_formula(profile, beta):
    sigma, angle = (2.0, 0.8), -1.1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag(np.square(sigma)) @ turn.T)
    p = np.stack(np.meshgrid(np.arange(-4, 5), np.arange(-4, 5)), axis=-1)  # (9, 9, 2) of x, y
    q = np.einsum("ija,ab,ijb->ij", p, inverse, p)
    expected = np.exp(-0.5 * q**beta) if profile == "generalized" else 1 / (1 + q**beta)
    kernel = blur_kernel(9, profile, sigma, angle, beta)
    assert np.allclose(kernel, expected / expected.sum(), atol=1e-12)
    if profile == "generalized" and beta == 1:
        assert torch.allclose(kernel, blur_kernel(9, "", sigma, angle))


@pytest.mark.parametrize("cutoff", [np.pi / 3, np.pi / 2])
def test_the_sinc_passes_what_is_below_its_cutoff(cutoff):
    response = np.abs(np.fft.fft2(sinc_kernel(61, cutoff), (256, 256)))
    w = 2 * np.pi * np.fft.fftfreq(256)
    radius = np.hypot(w[:, None], w[None])
    assert (
        np.abs(response[radius < 0.8 * cutoff] - 1).max() < 0.15
        and response[radius > 1.2 * cutoff].max() < 0.15
    )


@pytest.mark.parametrize("name", PRESETS)
def test_drawn_kernels_sum_to_one_and_fit_the_image(name):
    sampler = Sampler(seeded())
    for side in (1, 2, 5, 33):
        sizes = set()
        for _ in range(60):
            kernel = degradation.sample_kernel(PRESETS[name], side, sampler)
            sizes.add(len(kernel))
            assert (
                kernel.shape[0] == kernel.shape[1]
                and abs(kernel.sum() - 1) < 1e-9
                and kernel.isfinite().all()
            )
        assert all(size % 2 == 1 and size // 2 < side for size in sizes)
    assert sizes == set(range(7, PRESETS[name]["blur_kernel_size"] + 1, 2))


def test_kernels_are_drawn_as_often_as_the_preset_says(monkeypatch):
    seen = []
    monkeypatch.setattr(
        degradation,
        "blur_kernel",
        lambda size, profile, sigma, *_: seen.append((profile, sigma[0] == sigma[1])),
    )
    monkeypatch.setattr(degradation, "sinc_kernel", lambda *_: seen.append("sinc"))
    sampler = Sampler(seeded())
    for _ in range(4000):
        degradation.sample_kernel(PRESETS["real_esrgan"], 64, sampler)
    kinds = [
        ("", True),
        ("", False),
        ("generalized", True),
        ("generalized", False),
        ("plateau", True),
        ("plateau", False),
    ]
    assert abs(seen.count("sinc") / 4000 - 0.1) < 0.02
    for kind, probability in zip(kinds, PRESETS["real_esrgan"]["kernel_prob"], strict=True):
        assert abs(seen.count(kind) / 4000 - 0.9 * probability) < 0.03


# ---------------------------------------------------------------- the camera


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("n", [8, 16, 33])
def test_images_keep_their_shape_and_range(name, c, n):
    x = torch.rand(12, c, n, n, generator=seeded())
    y = camera(name, n, c).observe(x, seeded())
    assert y.shape == x.shape and y.dtype == x.dtype and y.min() >= 0 and y.max() <= 1
    assert ((y - x).abs().amax((1, 2, 3)) > 0.01).all()


def test_a_seed_is_a_degradation():
    x = torch.rand(4, 3, 16, 16, generator=seeded())
    one, same, other = (camera(c=3).observe(x, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not any(
        torch.allclose(a, b, atol=0.01) for a, b in zip(one, other, strict=True)
    )


def test_all_randomness_is_the_generators():
    x = torch.rand(4, 1, 16, 16, generator=seeded())
    torch.manual_seed(0)
    before, y = torch.get_rng_state(), camera().observe(x, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(camera().observe(x, seeded()), y)


def test_every_image_has_its_own_draw_whatever_the_others_are():
    x = torch.rand(1, 1, 16, 16, generator=seeded()).expand(6, -1, -1, -1)
    y = camera().observe(x, seeded())
    assert not any(torch.allclose(y[i], y[j], atol=0.01) for i in range(6) for j in range(i))
    z = camera().observe(torch.cat((x[:3] * 0, x[3:])), seeded())
    assert torch.equal(y[3:], z[3:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_seed_is_the_same_degradation_on_a_gpu():
    x = torch.rand(4, 3, 32, 32, generator=seeded())
    assert torch.equal(
        camera(n=32, c=3).observe(x, seeded()),
        camera(n=32, c=3).to("cuda").observe(x.cuda(), seeded()).cpu(),
    )


def test_milder_is_closer_to_the_image(images):
    errors = {
        name: (camera(name).observe(images[:200], seeded()) - images[:200]).square().mean()
        for name in DEGRADATIONS
    }
    assert errors["mild"] < 0.6 * errors["real_esrgan"]


# ---------------------------------------------------------------- steps, the others switched off


def test_nothing_happens_where_nothing_is_switched_on(still, images):
    assert torch.allclose(still().observe(images[:20], seeded()), images[:20], atol=1e-6)


@pytest.mark.parametrize("stage", ["", "2"])
def test_gaussian_noise_has_the_asked_level(still, stage):
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = (
        still(64, 3, **{f"noise_range{stage}": [20, 20], f"gray_noise_prob{stage}": 0}).observe(
            x, seeded()
        )
        - x
    )
    assert abs(noise.std() * 255 - 20) < 0.3 and not torch.allclose(
        noise[:, 0], noise[:, 1], atol=0.01
    )


@pytest.mark.parametrize("normal", [0, 1])
def test_grey_noise_is_the_same_in_all_channels(still, normal):
    x = torch.rand(1, 1, 64, 64, generator=seeded()).mul(0.2).add(0.4).expand(2, 3, -1, -1)
    changes = {
        "gaussian_noise_prob": normal,
        "noise_range": [10, 10],
        "poisson_scale_range": [0.3, 0.3],
        "gray_noise_prob": 1,
    }
    noise = still(64, 3, **changes).observe(x, seeded()) - x
    assert noise.std() > 0.01 and torch.allclose(noise[:, 0], noise[:, 1], atol=1e-6)


@pytest.mark.parametrize("stage", ["", "2"])
def test_poisson_noise_has_a_variance_proportional_to_the_signal(still, stage):
    levels = torch.tensor([51.0, 102, 128, 153]) / 255
    x = levels.repeat_interleave(32).expand(40, 1, 128, 128)
    changes = {f"gaussian_noise_prob{stage}": 0, f"poisson_scale_range{stage}": [0.2, 0.2]}
    noise = still(128, **changes).observe(x, seeded()) - x
    variance = noise.unflatten(-1, (4, 32)).var((0, 1, 2, 4))
    assert torch.allclose(variance, 0.2**2 * levels / 4, rtol=0.02)  # v = 4, the number of levels
    assert noise.mean().abs() < 1e-3


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("quality", [30, 95])
def test_jpeg_is_pils(c, quality):
    bytes_in = np.random.default_rng(0).integers(
        0, 256, (17, 17, 3)[: 2 if c == 1 else 3], dtype=np.uint8
    )
    file = io.BytesIO()
    Image.fromarray(bytes_in).save(file, format="jpeg", quality=quality)
    expected = np.asarray(Image.open(file)).reshape(17, 17, c).transpose(2, 0, 1) / 255
    x = torch.from_numpy(bytes_in.reshape(17, 17, c).transpose(2, 0, 1) / 255).float()
    assert np.allclose(degradation.jpeg(x, quality), expected, atol=1e-6)


def test_both_stages_compress_with_their_own_quality(still, monkeypatch):
    qualities, pil = [], degradation.jpeg
    monkeypatch.setattr(
        degradation, "jpeg", lambda x, quality: qualities.append(quality) or pil(x, quality)
    )
    x = torch.rand(1, 1, 16, 16, generator=seeded())
    y = still(jpeg_range=[30, 30], jpeg_range2=[70, 70]).observe(x, seeded())
    assert qualities == [30, 70] and torch.allclose(
        y[0], pil(pil(x[0], 30), 70).clamp(0, 1), atol=1e-6
    )


def test_sides_are_drawn_as_often_as_the_preset_says():
    sampler = Sampler(seeded())
    for stage, (up, down, keep), low, high in (
        ("", (0.2, 0.7, 0.1), 0.15, 1.5),
        ("2", (0.3, 0.4, 0.3), 0.3, 1.2),
    ):
        sides = np.array(
            [
                degradation.sample_sides(PRESETS["real_esrgan"], (1000, 500), stage, sampler)
                for _ in range(3000)
            ]
        )
        assert (abs(sides[:, 0] - 2 * sides[:, 1]) <= 1).all()  # the shape is kept
        sides = sides[:, 0]
        shares = [(sides > 1000).mean(), (sides < 1000).mean(), (sides == 1000).mean()]
        assert np.allclose(shares, (up, down, keep), atol=0.03)
        assert (
            1000 * low <= sides.min() < 1000 * low + 20
            and 1000 * high - 20 < sides.max() <= 1000 * high
        )


def test_the_second_jpeg_comes_before_or_after_the_own_size_equally_often(monkeypatch):
    order, back, pil = [], degradation.restore_size, degradation.compress
    monkeypatch.setattr(degradation, "restore_size", lambda *a: order.append("size") or back(*a))
    monkeypatch.setattr(
        degradation,
        "compress",
        lambda x, p, stage, d: order.append("jpeg" + stage) or pil(x, p, stage, d),
    )
    camera().observe(torch.rand(300, 1, 8, 8, generator=seeded()), seeded())
    orders = [tuple(order[i : i + 3]) for i in range(0, 900, 3)]
    assert set(orders) == {("jpeg", "size", "jpeg2"), ("jpeg", "jpeg2", "size")}
    assert abs(orders.count(("jpeg", "size", "jpeg2")) / 300 - 0.5) < 0.1


# ---------------------------------------------------------------- presets and command line


def test_the_preset_has_the_numbers_of_the_document():
    guide = yaml.safe_load(GUIDE)
    assert {name: PRESETS["real_esrgan"][name] for name in guide} == guide
    assert PRESETS["real_esrgan"].keys() - guide.keys() == {"final_sinc_prob"}


def test_every_preset_is_in_the_table_and_complete():
    assert set(PRESETS) == set(DEGRADATIONS)
    assert all(preset.keys() == PRESETS["real_esrgan"].keys() for preset in PRESETS.values())
    with pytest.raises(
        UserError, match="unknown degradation 'rain': choose from real_esrgan, mild"
    ):
        camera("rain")


def test_the_whole_story_from_the_command_line(monkeypatch, capsys):
    def call(script, *words):
        return script.main(script.parse([str(word) for word in words]))

    seen, forward = [], Distillation.forward
    monkeypatch.setattr(
        Distillation,
        "forward",
        lambda self, *a: seen.append(self.teachers[0].physics is self.physics) or forward(self, *a),
    )
    data = ["--dataset", "digits", "--limit_train", 20, "--limit_val", 8]
    tiny = [*data, "--n", 16, "--network", "dncnn", "--channels", 4, "--blocks", 2, "--epochs", 1]
    degrade = ["--physics", "degrade", "--degradation", "mild"]
    teacher = call(main_unet, *degrade, *tiny)
    assert re.search(r"degrade_mild\.pth$", str(teacher["export"]))
    student = call(main_unet_dist, *degrade, "--teacher", teacher["export"], *tiny)
    assert seen and all(seen)
    tested = call(
        test_UNet, "--checkpoint", student["export"], "--dataset", "digits", "--limit_test", 10
    )
    assert "degrade, preset mild" in capsys.readouterr().out
    assert [row["estimate"] == "back-projection" for row in tested["rows"]] == [True, False]
    again = call(
        progressive_distill,
        "--redistill",
        student["export"],
        "--teacher",
        teacher["export"],
        *data,
        "--limit_test",
        10,
        "--epochs",
        1,
    )
    assert checkpoint.restore(again["rungs"][0]["export"]).physics.config["degradation"] == "mild"
    with pytest.raises(
        UserError, match="awgn_snr: the noise of physics 'degrade' is set by its config"
    ):
        call(test_UNet, "--checkpoint", student["export"], "--dataset", "digits", "--awgn_snr", 20)
    with pytest.raises(
        UserError, match="awgn_teacher: the teacher's physics 'degrade' does not read --awgn_snr"
    ):
        call(
            main_unet_dist,
            "--cr",
            0.5,
            "--awgn_snr",
            20,
            "--awgn_teacher",
            "--teacher",
            teacher["export"],
            *tiny,
        )


@pytest.mark.parametrize(
    "words, message",
    [
        (["--x0", "lmmse"], "physics 'degrade' does not read --x0: it reads --degradation"),
        (["--awgn_snr", "20"], "does not read --awgn_snr"),
        (["--degradation", "rain"], "unknown degradation 'rain': choose from real_esrgan, mild"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main_unet.parse(["--physics", "degrade", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


# ---------------------------------------------------------------- values of one's own

MILD_BUT = {"preset": "mild", "second_blur_prob": 0.5, "jpeg_range": [50, 90]}


def own(settings, path="own.yml"):
    Path(path).write_text(yaml.safe_dump(settings) if isinstance(settings, dict) else settings)
    return ["--physics", "degrade", "--degradation", f"file:{path}"]


def test_a_file_replaces_single_values_of_a_preset():
    found = main_unet.parse(own(MILD_BUT)).degradation
    differ = {name for name in found if found[name] != PRESETS["mild"][name]}
    assert differ == {"second_blur_prob", "jpeg_range"} and found["jpeg_range"] == [50, 90]
    assert found.keys() == PRESETS["mild"].keys()
    assert main_unet.parse(own({"sinc_prob": 0})).degradation == PRESETS["real_esrgan"] | {
        "sinc_prob": 0
    }
    for preset in PRESETS:
        assert main_unet.parse(own({"preset": preset, **PRESETS[preset]})).degradation == preset


def test_values_of_ones_own_are_what_is_seen():
    """With all else at rest the noise of a flat image has the asked deviation, and quality 100 hardly rounds it."""
    quiet = STILL | {"noise_range": [20, 20], "jpeg_range": [100, 100], "jpeg_range2": [100, 100]}
    chosen = main_unet.parse(own(quiet)).degradation
    x = torch.full((4, 1, 64, 64), 0.5)
    assert abs((camera(chosen, 64).observe(x, seeded()) - x).std() * 255 - 20) < 0.5
    same_values = dict(PRESETS["mild"])
    assert torch.equal(
        camera(same_values).observe(x[:, :, :16, :16], seeded()),
        camera("mild").observe(x[:, :, :16, :16], seeded()),
    )


def test_a_checkpoint_never_needs_the_file_again(capsys):
    def call(script, *words):
        return script.main(script.parse([str(word) for word in words]))

    data = ["--dataset", "digits", "--limit_train", 20, "--limit_val", 8]
    tiny = [*data, "--n", 16, "--width", 4, "--steps", 1]
    done = call(main_unet, *own(MILD_BUT), *tiny)
    assert re.search(r"UNET_degrade_own_[0-9a-f]{8}\.pth$", str(done["export"]))
    config = Path(done["run"]) / "config.json"
    assert call(main_unet, "--config", config)["run"] == done["run"], "it is finished"
    Path("own.yml").unlink()
    call(test_UNet, "--checkpoint", done["export"], "--dataset", "digits", "--limit_test", 4)
    printed = "preset mild with jpeg_range [50, 90], second_blur_prob 0.5"
    assert printed in capsys.readouterr().out
    other = call(main_unet, *own(MILD_BUT | {"sinc_prob": 0}), *tiny)
    assert other["run"] != done["run"] and other["export"] != done["export"]
    content = checkpoint.read(done["export"])
    content["physics"]["config"]["degradation"]["blur_kernel_size"] = 10**9
    checkpoint.write(Path("strange.pth"), content)
    with pytest.raises(UserError, match="blur_kernel_size 1000000000 is not an odd whole number"):
        checkpoint.restore("strange.pth")


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"rain": 1},
            "unknown value 'rain' of the degradation: choose from preset, blur_kernel_size",
        ),
        (
            {"preset": "rain"},
            "unknown preset 'rain' of the degradation: choose from real_esrgan, mild",
        ),
        ({"preset": ["mild"]}, "unknown preset '['mild']'"),
        ({"sinc_prob": 1.5}, "sinc_prob 1.5 is not a probability from 0 to 1"),
        ({"sinc_prob": "often"}, "sinc_prob often is not a probability"),
        ({"sinc_prob": True}, "sinc_prob True is not a probability"),
        ("sinc_prob: .nan", "sinc_prob nan is not a probability"),
        ({"blur_kernel_size": 8}, "blur_kernel_size 8 is not an odd whole number from 7 to 99"),
        ({"blur_sigma": [3, 0.2]}, "blur_sigma [3, 0.2] is not two numbers [low, high] from 0.01"),
        ({"blur_sigma": 3}, "blur_sigma 3 is not two numbers"),
        ({"resize_range": [1.1, 1.5]}, "the first at most 1 and the second at least 1"),
        ({"resize_prob": [0.5, 0.5]}, "three probabilities [up, down, keep] that sum to 1"),
        ({"resize_prob2": [0.5, 0.5, 0.5]}, "three probabilities [up, down, keep] that sum to 1"),
        ({"jpeg_range": [30, 95.5]}, "two whole numbers [low, high] from 1 to 100"),
        ({"jpeg_range2": [0, 95]}, "two whole numbers [low, high] from 1 to 100"),
        ({"kernel_list": ["iso", "iso"]}, "kernel_list ['iso', 'iso'] is not a list of iso, aniso"),
        ({"kernel_list": ["iso"]}, "kernel_prob has 6 values for the 1 of kernel_list"),
        ("[1, 2]", "file:own.yml must have settings 'name: value'"),
        ("a: b: c", "file:own.yml is neither JSON nor YAML"),
    ],
)
def test_a_wrong_value_is_one_line(settings, message, capsys):
    with pytest.raises(SystemExit) as end:
        main_unet.parse(own(settings))
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("word", ["file:nowhere.yml", "file:", "{", '{"sinc_prob": 2}', "{}x"])
def test_what_is_no_degradation_is_one_line(word, capsys):
    with pytest.raises(SystemExit) as end:
        main_unet.parse(["--physics", "degrade", "--degradation", word])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
