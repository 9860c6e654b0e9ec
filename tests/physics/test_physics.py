"""Cameras, first images, noise, meters; over the table of orderings."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import CONFIG
from deepinv.loss.metric import PSNR, SSIM
from deepinv.physics import SinglePixelCamera
from deepinv.physics.singlepixel import hadamard_2d as deepinvs
from scipy.linalg import hadamard
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from algo_functions import Meter, build_physics, score
from core.errors import UserError
from core.hadamard import hadamard_2d
from core.registry import ORDERINGS
from physics import lmmse
from physics.orderings import patterns_of
from physics.single_pixel import count_measurements
from tests.doubles import gaussian_of

DEEPINV = ("xy", "zig_zag", "cake_cutting", "sequency")


def camera(images=None, **changes):
    return build_physics(CONFIG | changes, images=lambda: images)


@pytest.mark.parametrize("ordering", [name for name in ORDERINGS if name != "learned"])
class TestEveryOrdering:
    @pytest.mark.parametrize("c", [1, 3])
    def test_adjoint_is_the_adjoint(self, ordering, c, images):
        operator = camera(images, ordering=ordering, c=c).operator
        x = torch.randn(2, c, 16, 16)
        y = operator.A(x)
        v = torch.randn_like(y)
        left, right = (y * v).sum(), (x * operator.A_adjoint(v)).sum()
        assert torch.isclose(left, right, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("cr, m", [(1e-9, 1), (0.1, 25), (0.25, 64), (0.5, 128), (1.0, 256)])
    def test_takes_the_measurements_that_the_ratio_asks_for(self, ordering, cr, m, images):
        physics = camera(images, ordering=ordering, cr=cr)
        assert physics.m == m
        assert physics.values(physics.operator.A(images[:2])).shape == (2, 1, m)
        assert np.linalg.matrix_rank(physics.rows().numpy(), tol=1e-4) == m or ordering == "random"

    def test_a_students_patterns_are_the_first_of_its_teachers(self, ordering, images):
        student, teacher = (camera(images, ordering=ordering, cr=cr).rows() for cr in (0.1, 0.6))
        assert torch.allclose(student, teacher[: len(student)], atol=1e-5)

    def test_rows_measure_what_the_operator_measures(self, ordering, images):
        physics = camera(images, ordering=ordering)
        assert torch.allclose(
            images[:3].flatten(2) @ physics.rows().T,
            physics.values(physics.operator.A(images[:3])),
            atol=1e-4,
        )

    def test_back_projection_explains_the_measurements(self, ordering, images):
        physics = camera(images, ordering=ordering)
        y = physics.measure(images[:3])
        assert torch.allclose(physics.measure(physics.first_image(y)), y, atol=1e-4)

    def test_full_sampling_gives_the_image_back(self, ordering, images):
        physics = camera(images, ordering=ordering, cr=1.0)
        ill_conditioned = ordering == "random"
        assert torch.allclose(
            physics.observe(images[:3]), images[:3], atol=1e-3 if ill_conditioned else 1e-5
        )

    def test_a_checkpoint_rebuilds_the_same_camera(self, ordering, images):
        physics = camera(images, ordering=ordering, x0="lmmse")
        again = build_physics(physics.config, state=physics.state())
        assert torch.equal(again.observe(images[:3]), physics.observe(images[:3]))

    def test_noise_has_the_asked_snr_on_measured_values_only(self, ordering, images):
        physics, clean = (
            camera(images, ordering=ordering, awgn_snr=20.0),
            camera(images, ordering=ordering),
        )
        x = (
            images * torch.linspace(0.1, 3, len(images))[:, None, None, None]
        )  # each image has its own power
        noise = physics.measure(x, torch.Generator().manual_seed(0)) - clean.measure(x)
        power, variance = (clean.values(y).square().mean((1, 2)) for y in (clean.measure(x), noise))
        for group in range(0, 600, 150):  # dark images and bright ones alike
            ratio = (variance / power)[group : group + 150].mean()
            assert abs(-10 * torch.log10(ratio) - 20) < 0.1
        assert noise.count_nonzero() <= physics.m * len(x)


@pytest.mark.parametrize("ordering", DEEPINV)
@pytest.mark.parametrize("n", [2, 4, 16, 32])
def test_masks_are_deepinvs(ordering, n):
    for m in (1, 2, n, n * n // 3 + 1, n * n):
        expected = SinglePixelCamera(m=m, img_size=(1, n, n), ordering=ordering).mask[0, 0]
        assert torch.equal((patterns_of(ordering, n, m) < m).float(), expected)


@pytest.mark.parametrize(
    "n, m", [(1, 2), (2, 2), (8, 64), (32, 32), (64, 128), (128, 64), (256, 256), (1024, 4)]
)
def test_the_transform_is_deepinvs_and_scipys(n, m):
    x = torch.randn(2, 3, n, m)
    y = hadamard_2d(x)
    expected = hadamard(n) @ x.double().numpy() @ hadamard(m) / np.sqrt(n * m)
    assert torch.allclose(y, torch.from_numpy(expected).float(), atol=1e-5) and torch.allclose(
        y, deepinvs(x), atol=1e-5
    )
    assert torch.allclose(hadamard_2d(y), x, atol=1e-5)


def test_hadamard_patterns_are_scipys():
    h = hadamard(16) / 4
    physics = camera(cr=1.0, ordering="strip")
    expected = np.kron(h, h)[physics.index.numpy()]
    assert np.allclose(physics.rows().numpy(), expected, atol=1e-6)


def test_the_releases_masks_and_first_image(shared):
    golden = np.load(shared / "upstream_unet" / "golden_cr09_mnist.npz")
    for cr, key in ((0.9, "mask"), (0.1, "mask_cr0.1"), (0.3, "mask_cr0.3")):
        physics = camera(n=32, cr=cr, ordering="strip")
        assert np.array_equal(physics.operator.mask.numpy(), golden[key])
        if cr == 0.9:
            assert np.allclose(
                physics.observe(torch.from_numpy(golden["image"])), golden["x0"], atol=1e-5
            )


@pytest.mark.parametrize(
    "cr, n, m",
    [
        (0.1, 32, 102),
        (0.9, 32, 921),
        (0.29, 10, 29),
        (0.07, 100, 700),
        (1.0, 32, 1024),
        (1e-6, 32, 1),
    ],
)
def test_measurement_count_is_guarded_against_rounding(cr, n, m):
    assert count_measurements(cr, n) == m


def test_the_variance_ordering_measures_the_most_energy(images):
    energies = {}
    for ordering in ORDERINGS:
        if ordering != "random":
            physics = camera(images, ordering=ordering, cr=0.1)
            energies[ordering] = physics.values(physics.operator.A(images)).square().sum().item()
    assert max(energies, key=energies.get) == "variance" and len(set(energies.values())) > 1


class TestLMMSE:
    @pytest.mark.parametrize("awgn_snr", [None, 10.0])
    @pytest.mark.parametrize("share", [0.1, 1.0])
    def test_is_the_conditional_mean_of_a_gaussian(self, images, awgn_snr, share, monkeypatch):
        monkeypatch.setattr(lmmse, "SHARES", (share,))
        physics = camera(images, x0="lmmse", awgn_snr=awgn_snr)
        a, pixels = physics.rows().double().numpy(), images.flatten(1).double().numpy()
        mean, covariance = gaussian_of(pixels, share)
        variance = 0 if awgn_snr is None else np.mean((pixels @ a.T) ** 2) * 10 ** (-awgn_snr / 10)
        joint = a @ covariance @ a.T + variance * np.eye(len(a))
        y = physics.measure(images[:5], torch.Generator().manual_seed(0))
        seen = physics.values(y)[:, 0].double().numpy()
        expected = mean + (seen - mean @ a.T) @ np.linalg.pinv(joint) @ a @ covariance
        assert np.allclose(physics.first_image(y).flatten(1), expected, atol=2e-4)

    @pytest.mark.parametrize("count", [8, 30, 500])
    @pytest.mark.parametrize("awgn_snr", [None, 10.0])
    def test_its_covariance_is_chosen_well_on_few_images_and_on_many(
        self, images, count, awgn_snr, monkeypatch
    ):
        """On unseen images hardly worse than every choice that could have been made."""
        errors = {}
        for shares in [lmmse.SHARES, *((share,) for share in lmmse.SHARES)]:
            monkeypatch.setattr(lmmse, "SHARES", shares)
            physics = camera(images[:count], x0="lmmse", awgn_snr=awgn_snr, cr=0.25)
            y = physics.measure(images[500:], torch.Generator().manual_seed(1))
            errors[shares] = (physics.first_image(y) - images[500:]).square().mean().item()
        chosen, *fixed = errors.values()
        assert chosen < 1.05 * min(fixed) and max(fixed) > 1.1 * min(fixed)

    @pytest.mark.parametrize("awgn_snr", [None, 15.0])
    def test_errs_less_than_back_projection_on_images_it_has_not_seen(self, images, awgn_snr):
        physics = camera(images[:500], x0="lmmse", awgn_snr=awgn_snr, cr=0.1)
        y = physics.measure(images[500:], torch.Generator().manual_seed(1))
        errors = [
            (x0 - images[500:]).square().mean()
            for x0 in (physics.first_image(y), physics.back_projection(y))
        ]
        assert errors[0] < 0.9 * errors[1]

    def test_treats_every_colour_channel_by_its_own_statistics(self, images):
        colour = torch.cat([images, 1 - images, images.flip(0)], 1)
        physics = camera(colour, c=3, x0="lmmse")
        single = [camera(colour[:, k : k + 1], x0="lmmse") for k in range(3)]
        expected = torch.cat([p.observe(colour[:4, k : k + 1]) for k, p in enumerate(single)], 1)
        assert torch.allclose(physics.observe(colour[:4]), expected, atol=1e-5)


class TestMixture:
    def test_draws_every_ratio_and_keeps_to_one_in_a_batch(self, images):
        physics = camera(cr=[0.1, 0.3, 0.9])
        alone = [part.observe(images[:4]) for part in physics.parts]
        generator = torch.Generator().manual_seed(0)
        seen = [physics.observe(images[:4], generator) for _ in range(30)]
        counts = [sum(torch.equal(x0, a) for x0 in seen) for a in alone]
        assert sum(counts) == 30 and min(counts) >= 4

    def test_is_rebuilt_from_its_state(self, images):
        physics = camera(images, cr=[0.1, 0.5], x0="lmmse", awgn_snr=20.0)
        again = build_physics(physics.config, state=physics.state())
        draws = [p.observe(images[:2], torch.Generator().manual_seed(3)) for p in (physics, again)]
        assert torch.equal(*draws)


class TestOwnPatterns:
    def write(self, tmp_path, array):
        np.save(tmp_path / "own.npy", array)
        return f"file:{tmp_path / 'own.npy'}"

    def test_a_mask_keeps_what_it_marks(self, tmp_path, images):
        mask = np.zeros((16, 16), dtype=bool)
        mask[:4, :16] = True
        physics = camera(ordering=self.write(tmp_path, mask))
        assert np.array_equal(physics.operator.mask[0, 0].numpy(), mask)

    def test_places_choose_the_first_m(self, tmp_path):
        places = np.random.default_rng(0).permutation(256).reshape(16, 16)
        assert np.array_equal(
            camera(ordering=self.write(tmp_path, places)).operator.mask[0, 0].numpy(), places < 64
        )

    def test_a_matrix_measures_with_its_rows(self, tmp_path, images):
        matrix = np.random.default_rng(0).normal(size=(100, 256)).astype(np.float32)
        physics = camera(ordering=self.write(tmp_path, matrix))
        assert np.allclose(physics.rows().numpy(), matrix[:64], atol=1e-4)
        x = images[:2].flatten(1).numpy()
        assert np.allclose(
            physics.observe(images[:2]).flatten(1),
            x @ matrix[:64].T @ np.linalg.pinv(matrix[:64]).T,
            atol=1e-3,
        )

    @pytest.mark.parametrize(
        "array, message",
        [
            (np.ones((16, 16)), "selects 256 of 256 coefficients, but --cr asks for 64"),
            (np.full((16, 16), 7), "must hold 0 and 1, or each place"),
            (np.ones((10, 256)), "has 10 patterns, but --cr asks for 64"),
            (np.ones((3, 3)), "has shape"),
            (np.full((64, 256), np.nan), "not finite real numbers"),
            (np.array(["a"]), "not finite real numbers"),
            (np.array([{}], dtype=object), "is not an .npy array of numbers"),
        ],
    )
    def test_refuses_what_is_no_pattern(self, tmp_path, array, message):
        with pytest.raises(UserError, match=message):
            camera(ordering=self.write(tmp_path, array))


@pytest.mark.parametrize("n", [3, 24, 1])
def test_hadamard_sizes_are_powers_of_two_and_the_error_says_so(n):
    with pytest.raises(UserError, match="power of two"):
        camera(n=n)


def test_random_patterns_need_no_power_of_two():
    assert camera(n=12, ordering="random").observe(torch.rand(2, 1, 12, 12)).shape == (2, 1, 12, 12)


@pytest.mark.parametrize("cr", [0.0, -0.1, 1.5, float("nan")])
def test_impossible_ratios_are_refused(cr):
    with pytest.raises(UserError, match="a ratio must be in"):
        camera(cr=cr)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 with data range 1, Gaussian window of deviation 1.5 and 11 pixels, borders mirrored."""
    mean = partial(gaussian_filter, sigma=1.5, truncate=3.5, mode="mirror")
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return float(
        ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()
    )


def test_scores_are_per_image_and_agree_with_their_formulas():
    x, y = torch.rand(3, 1, 32, 32), torch.rand(3, 1, 32, 32) * 1.4 - 0.2
    values = score(y, x)
    for i in range(3):
        a, b = x[i, 0].numpy(), y[i, 0].numpy()
        assert np.isclose(values["psnr"][i], peak_signal_noise_ratio(a, b, data_range=1), atol=1e-4)
        assert np.isclose(
            values["psnr_clipped"][i],
            peak_signal_noise_ratio(a, b.clip(0, 1), data_range=1),
            atol=1e-4,
        )
        assert np.isclose(values["ssim"][i], ssim(a, b), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 1, 32, 32), (2, 3, 17, 40), (3, 1, 6, 6), (1, 1, 256, 64)])
def test_scores_are_deepinvs(shape):
    truth = torch.rand(shape)
    for output in (
        truth + 0.05 * torch.randn(shape),
        torch.rand(shape) - 0.3,
        torch.zeros(shape),
    ):
        found = score(output, truth)
        assert torch.allclose(found["ssim"], SSIM()(output, truth), atol=1e-5)
        assert torch.allclose(found["psnr"], PSNR()(output, truth), atol=1e-4)
    assert torch.allclose(score(truth, truth)["ssim"], SSIM()(truth, truth), atol=1e-5)


def test_psnr_is_exact_up_to_a_stated_100_db():
    truth = torch.rand(6, 1, 16, 16, dtype=torch.float64)
    sign = 1 - 2 * (torch.arange(16) % 2)
    errors = torch.tensor([1e-1, 1e-2, 1e-3, 2e-4, 1.1e-5, 0.9e-5]).double()  # 20 .. 99.2, 100.9 dB
    output = truth + errors[:, None, None, None] * sign
    found = score(output, truth)["psnr"]
    exact = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1)
        for a, b in zip(truth, output, strict=True)
    ]
    assert exact[-1] > 100 and np.allclose(found, np.minimum(exact, 100), rtol=0, atol=1e-6)
    assert score(truth, truth)["psnr"].tolist() == [100] * 6
    meter = Meter()
    meter.add(output[3:4], truth[3:4])
    assert np.isclose(meter.summary()["psnr_pooled"], exact[3], rtol=0, atol=1e-6)  # 73.98
    meter = Meter()
    meter.add(truth, truth)
    assert meter.summary()["psnr_pooled"] == 100


def test_scores_are_computed_in_fp32_whatever_convolutions_are_computed_in():
    truth, output = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32).bfloat16()
    expected = score(output.float(), truth)
    with torch.autocast("cpu", torch.bfloat16):
        found = score(output, truth)
    assert all(torch.equal(found[name], values) for name, values in expected.items())


def test_a_meters_mean_does_not_depend_on_the_batches_and_the_pooled_figure_stands_beside():
    x = torch.rand(6, 1, 16, 16)
    y = (
        x
        + torch.randn_like(x)
        * torch.tensor([0.5, 0.1, 0.01, 0.3, 0.02, 0.001])[:, None, None, None]
    )
    one, many = Meter(), Meter()
    one.add(y, x)
    for k in range(6):
        many.add(y[k : k + 1], x[k : k + 1])
    a, b = one.summary(), many.summary()
    assert a.keys() == b.keys() and all(np.isclose(a[k], b[k], rtol=1e-5) for k in a)
    assert np.isclose(a["psnr_pooled"], -10 * (y - x).square().mean().log10(), atol=1e-4)
    assert a["psnr"] > a["psnr_pooled"] + 10 and a["images"] == 6
