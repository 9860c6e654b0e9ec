"""The losses of classifiers against other libraries and against formulas written with loops; what each of them promises."""

import random
from collections import Counter
from functools import partial

import numpy as np
import pytest
import tensorly
import torch
import torch.nn.functional as F
from scipy.stats import chisquare, zscore
from tensorly.decomposition import partial_tucker
from tensorly.tenalg import multi_mode_dot

from core.errors import UserError
from core.registry import CLASS_LOSSES
from distill.contrast import CRD
from distill.factor import FT, tucker
from distill.layers import check_layers
from distill.logits import dist, dkd, kd
from distill.pixel import ISRD
from distill.relation import ICKD, rkd, sp

generator = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
MAPS = torch.randn(2, 6, 6, 5, 4, generator=generator, dtype=torch.float64)
VECTOR = torch.Size((2, 5))
LABEL = torch.tensor([0, 4, 2, 2, 1, 3])
DKD = {"epoch": 5.0, "temperature": 4.0, "dkd_alpha": 1.0, "dkd_beta": 8.0, "dkd_warmup": 20.0}
RESPONSES = {
    "kd": partial(kd, temperature=4.0, standardise=False),
    "kd_standardise": partial(kd, temperature=2.0, standardise=True),
    "dkd": partial(dkd, label=LABEL, **DKD),
    "dist": partial(dist, dist_beta=2.0, dist_gamma=2.0),
}
FEATURES = {"sp": sp, "rkd": partial(rkd, rkd_distance=25.0, rkd_angle=50.0)} | {
    f"tucker_{space}_{over}": partial(
        tucker, tucker_ranks=0.5, tucker_space=space, tucker_over=over
    )
    for space in ("core", "projected")
    for over in ("batch", "sample")
}
FUNCTIONS = RESPONSES | FEATURES


def layers_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    s, t = LOGITS if name in RESPONSES else MAPS
    return s.clone().requires_grad_(), t


@pytest.mark.parametrize("name", FUNCTIONS)
class TestEveryFunction:
    def test_is_a_scalar_whose_gradient_has_the_directional_derivative(self, name):
        s, t = layers_of(name)
        loss = FUNCTIONS[name](s, t)
        assert loss.shape == () and loss.isfinite() and loss > 0.001
        assert torch.autograd.gradcheck(lambda x: FUNCTIONS[name](x, t), s, fast_mode=True)

    def test_is_zero_where_the_student_is_the_teacher(self, name):
        _, t = layers_of(name)
        s = t.clone().requires_grad_()
        loss = FUNCTIONS[name](s, t)
        loss.backward()
        assert abs(loss.item()) < 1e-9 and s.grad.isfinite().all()

    def test_does_not_depend_on_the_order_of_the_images(self, name):
        s, t = layers_of(name)
        order = torch.tensor([3, 1, 5, 0, 4, 2])
        more = {"label": LABEL[order]} if name == "dkd" else {}
        assert torch.isclose(
            FUNCTIONS[name](s[order], t[order], **more), FUNCTIONS[name](s, t), rtol=1e-9
        )

    def test_stays_finite_for_large_values_in_single_precision(self, name):
        s, t = (1e4 * x.detach().float() for x in layers_of(name))
        loss = FUNCTIONS[name](s.requires_grad_(), t)
        loss.backward()
        assert loss.isfinite() and s.grad.isfinite().all()

    def test_stays_finite_where_a_student_says_nothing(self, name):
        _, t = layers_of(name)
        s = torch.zeros_like(t, requires_grad=True)
        loss = FUNCTIONS[name](s, t)
        loss.backward()
        assert loss.isfinite() and s.grad.isfinite().all()


# ---------------------------------------------------------------- answers


def test_kd_is_torchs_divergence_times_the_squared_temperature():
    s, t = LOGITS
    for T in (1.0, 2.0, 4.0):
        expected = T**2 * F.kl_div(
            (s / T).log_softmax(1), (t / T).softmax(1), reduction="batchmean"
        )
        assert torch.isclose(kd(s, t, temperature=T, standardise=False), expected)
        scored = (torch.tensor(zscore(x.numpy(), axis=1, ddof=1)) for x in (s, t))
        assert torch.isclose(
            kd(s, t, temperature=T, standardise=True),
            kd(*scored, temperature=T, standardise=False),
            rtol=1e-6,
        )


def test_dkd_with_the_teachers_doubt_as_its_weight_is_kd_for_each_sample():
    for temperature in (1.0, 4.0):
        for s, t, label in zip(*LOGITS, LABEL, strict=True):
            doubt = 1 - (t / temperature).softmax(0)[label].item()
            whole = kd(s[None], t[None], temperature=temperature, standardise=False)
            parts = DKD | {"temperature": temperature, "dkd_beta": doubt, "dkd_warmup": 0.0}
            assert torch.isclose(dkd(s[None], t[None], label=label[None], **parts), whole)


def test_dkd_warms_up_by_the_passes_so_far():
    def at(epoch, warmup):
        return dkd(*LOGITS, label=LABEL, **DKD | {"epoch": epoch, "dkd_warmup": warmup})

    full = at(0.0, 0.0)
    assert (
        torch.isclose(at(5.0, 20.0), full / 4)
        and torch.isclose(at(30.0, 20.0), full)
        and at(0.0, 20.0) == 0
    )


def test_dist_correlates_the_rows_and_the_columns_of_the_softmaxes():
    s, t = (x.softmax(1).numpy() for x in LOGITS)
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(s, t, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(s.T, t.T, strict=True)])
    assert np.isclose(dist(*LOGITS, dist_beta=2.0, dist_gamma=0.5).item(), 2 * rows + 0.5 * columns)


# ---------------------------------------------------------------- relations


def test_sp_is_the_distance_of_gram_matrices_with_unit_rows():
    s, t = (MAPS[0, :, :3], MAPS[1])  # shapes may differ
    grams = []
    for side in (s.flatten(1).numpy(), t.flatten(1).numpy()):
        gram = np.array([[sum(a * b) for b in side] for a in side])
        grams.append(np.array([row / np.linalg.norm(row) for row in gram]))
    assert np.isclose(sp(s, t).item(), np.linalg.norm(grams[0] - grams[1]) ** 2 / len(s) ** 2)


def huber(d: float) -> float:
    return d**2 / 2 if abs(d) < 1 else abs(d) - 0.5


def test_rkd_compares_distances_and_angles():
    s, t = MAPS[0, :, :3].flatten(1).numpy().copy(), MAPS[1].flatten(1).numpy()
    s[0] *= 30  # beyond Huber's square
    n = range(len(s))
    distances = [np.array([[np.linalg.norm(a - b) for b in side] for a in side]) for side in (s, t)]
    d_s, d_t = (d / d[d > 0].mean() for d in distances)

    def cosine(side, i, j, k):
        return (
            (side[j] - side[i])
            @ (side[k] - side[i])
            / np.linalg.norm(side[j] - side[i])
            / np.linalg.norm(side[k] - side[i])
        )

    of_pairs = np.mean([[huber(d_s[i, j] - d_t[i, j]) for j in n] for i in n])
    triples = [
        huber(cosine(s, i, j, k) - cosine(t, i, j, k))
        for i in n
        for j in n
        for k in n
        if i not in (j, k)
    ]
    of_triples = np.sum(triples) / len(s) ** 3
    assert np.isclose(
        rkd(*map(torch.tensor, (s, t)), rkd_distance=1.0, rkd_angle=0.0).item(), of_pairs
    )
    assert np.isclose(
        rkd(*map(torch.tensor, (s, t)), rkd_distance=3.0, rkd_angle=2.0).item(),
        3 * of_pairs + 2 * of_triples,
    )


def test_rkd_has_a_gradient_where_two_images_are_the_same():
    s = MAPS[0].clone()
    s[1] = s[0]
    rkd(s.requires_grad_(), MAPS[1], rkd_distance=25.0, rkd_angle=50.0).backward()
    assert s.grad.isfinite().all() and s.grad[2:].abs().sum() > 0


def test_ickd_compares_the_correlations_of_channels():
    torch.manual_seed(0)
    s, t = (
        MAPS[0, :, :3],
        F.interpolate(MAPS[1], scale_factor=2.0),
    )  # pooled, it is the teacher's again
    loss = ICKD(s.shape, t.shape, 10, SEEN).double()
    projected = loss.project(s).detach()
    total = 0.0
    for a, b in zip(projected.numpy(), MAPS[1].numpy(), strict=True):
        a, b = (np.array([[np.sum(p * q) for q in side] for p in side]) for side in (a, b))
        total += sum(
            np.sum((p / np.linalg.norm(p) - q / np.linalg.norm(q)) ** 2)
            for p, q in zip(a, b, strict=True)
        )
    assert np.isclose(loss(s, t).item(), total / (6 * len(s)))
    assert torch.allclose(
        projected.mean((0, 2, 3)), torch.zeros(6).double(), atol=1e-9
    )  # the student's channels are normalised


def test_ickd_is_zero_where_its_projection_gives_the_teacher():
    loss = ICKD(MAPS[1].shape, MAPS[1].shape, 10, SEEN).double().eval()
    torch.nn.init.dirac_(loss.project[0].weight)
    assert loss(MAPS[1], MAPS[1]) < 1e-12 < loss(MAPS[0], MAPS[1])


# ---------------------------------------------------------------- factors


def unit(f: np.ndarray) -> np.ndarray:
    return f / np.linalg.norm(f)


@pytest.mark.parametrize("share, ranks", [(0.5, [3, 2, 2]), (0.2, [1, 1, 1]), (1.0, [6, 5, 4])])
@pytest.mark.parametrize("space", ["core", "projected"])
def test_tucker_is_tensorlys(share, ranks, space):
    tensorly.set_backend("numpy")

    def compared(f, factors, modes):
        core = multi_mode_dot(f, factors, modes=modes, transpose=True)
        return core if space == "core" else multi_mode_dot(core, factors, modes=modes)

    s, t = (x.numpy() for x in MAPS)
    (_, factors), _ = partial_tucker(t, ranks, modes=[1, 2, 3], n_iter_max=0)
    of_batch = [compared(x, factors, [1, 2, 3]) for x in (s, t)]
    of_samples = [], []
    for a, b in zip(s, t, strict=True):
        (_, factors), _ = partial_tucker(b, ranks, modes=[0, 1, 2], n_iter_max=0)
        for side, x in zip(of_samples, (a, b), strict=True):
            side.append(compared(x, factors, [0, 1, 2]))
    for over, (a, b) in {"batch": of_batch, "sample": of_samples}.items():
        expected = np.mean([np.abs(unit(x) - unit(y)).mean() for x, y in zip(a, b, strict=True)])
        assert np.isclose(
            tucker(*MAPS, tucker_ranks=share, tucker_space=space, tucker_over=over).item(), expected
        )


@pytest.mark.parametrize("over", ["batch", "sample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_core_does_not_see_a_change_of_basis_of_the_channels(over, dtype):
    turn = torch.linalg.qr(
        torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )[0]
    layers, turned = MAPS.to(dtype), torch.einsum("ij,sbjhw->sbihw", turn, MAPS).to(dtype)
    core = partial(tucker, tucker_ranks=0.5, tucker_space="core", tucker_over=over)
    assert (
        abs(core(*turned) - core(*layers)) < 1e-5 < abs(core(turned[0], layers[1]) - core(*layers))
    )


@pytest.mark.parametrize("space", ["core", "projected"])
@pytest.mark.parametrize("over", ["batch", "sample"])
def test_a_student_equal_to_the_teacher_up_to_a_thousandth_scores_near_zero(space, over):
    loss = partial(tucker, tucker_ranks=0.5, tucker_space=space, tucker_over=over)
    s, t = MAPS
    assert loss(t + 1e-3 * s, t) < 0.002 * loss(s, t)


def test_tucker_takes_few_images_of_one_place_and_maps_that_lack_directions():
    s, t = torch.randn(2, 3, 8, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    projected = partial(tucker, tucker_ranks=0.5, tucker_space="projected", tucker_over="batch")
    basis = torch.linalg.svd(
        t.flatten(1).T, full_matrices=False
    ).U  # three images span less than half of eight channels
    expected = (
        (F.normalize(s.flatten(1) @ basis @ basis.T) - F.normalize(t.flatten(1))).abs().mean()
    )
    assert torch.isclose(projected(s, t), expected)
    dead = MAPS[1] * torch.tensor([1.0, 1, 0, 0, 0, 0]).view(6, 1, 1)
    student = MAPS[0].clone().requires_grad_()
    for over in ("batch", "sample"):
        tucker(student, dead, tucker_ranks=1.0, tucker_space="core", tucker_over=over).backward()
    assert (
        student.grad[:, :2].abs().sum() > 0 and student.grad[:, 2:].abs().max() < 1e-12
    )  # nothing is asked of channels that the teacher lacks
    assert projected(student, torch.zeros_like(dead)) == 0


def test_a_paraphraser_learns_to_reconstruct_and_stands_still_afterwards():
    torch.manual_seed(0)
    s, t = (
        torch.randn(8, 3, 4, 4),
        F.relu(torch.randn(8, 2, 6, 6).repeat_interleave(3, 1)),
    )  # six channels that say what two do
    loss = FT(s.shape, t.shape, 10, SEEN, ft_rate=0.5)
    assert not any(w.requires_grad for w in loss.pretrained_parameters())
    for w in loss.pretrained_parameters():
        w.requires_grad_(True)
    before = loss.pretrain(t).item()
    optimizer = torch.optim.Adam(loss.pretrained_parameters(), lr=0.005)
    for _ in range(100):
        optimizer.zero_grad()
        loss.pretrain(t).backward()
        optimizer.step()
    assert loss.pretrain(t).item() < 0.3 * min(before, t.var().item())
    optimizer.zero_grad()
    learnt = [w.clone() for w in loss.pretrained_parameters()]
    start = loss(s, t).item()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(s, t)
        value.backward()
        optimizer.step()
    assert (
        all(torch.equal(a, b) for a, b in zip(learnt, loss.pretrained_parameters(), strict=True))
        and value.item() < start
    )


def test_ft_compares_factors_of_unit_length_and_pools_the_larger_map():
    torch.manual_seed(0)
    s, t = torch.randn(4, 6, 3, 3), torch.randn(4, 6, 6, 6)
    loss = FT(s.shape, t.shape, 10, SEEN, ft_rate=0.34)
    factor_s, factor_t = loss.translator(s).detach().numpy(), loss.paraphraser(t).detach()
    factor_t = factor_t.unflatten(3, (3, 2)).unflatten(2, (3, 2)).mean((3, 5)).numpy()
    assert factor_s.shape == factor_t.shape == (4, 2, 3, 3)
    expected = np.mean(
        [np.abs(unit(a) - unit(b)).mean() for a, b in zip(factor_s, factor_t, strict=True)]
    )
    assert np.isclose(loss(s, t).item(), expected)
    loss.translator.load_state_dict(loss.paraphraser.state_dict())
    assert loss(t, t) == 0


# ---------------------------------------------------------------- memory


def test_crd_is_the_papers_sum_over_samples_with_a_memory_of_both_sides():
    torch.manual_seed(0)
    count, negatives, tau = 12, 5, 0.3
    kinds = [i % 3 for i in range(count)]
    loss = CRD(
        torch.Size((2, 6, 5, 4)),
        torch.Size((2, 5)),
        kinds,
        SEEN,
        crd_tau=tau,
        crd_negatives=negatives,
    ).double()
    memory = {"s": loss.memory_s.numpy().copy(), "t": loss.memory_t.numpy().copy()}
    z = {}
    for step, index in enumerate([[3, 0, 11, 7, 1, 2], [7, 3, 10, 4, 0, 5]]):
        s, t = MAPS[step], LOGITS[step]
        weights = {
            side: [w.detach().numpy() for w in getattr(loss, f"embed_{side}").parameters()]
            for side in "st"
        }
        v = {
            side: x @ weights[side][0].T + weights[side][1]
            for side, x in {"s": s.numpy().mean((2, 3)), "t": t.numpy()}.items()
        }
        v = {side: np.array([unit(row) for row in x]) for side, x in v.items()}
        others = loss.others(torch.tensor(index), torch.Generator().manual_seed(step)).tolist()
        expected = 0.0
        for side, other in ("st", "ts"):
            p = np.array(
                [
                    [np.exp(v[side][b] @ memory[other][k] / tau) for k in (i, *others[b])]
                    for b, i in enumerate(index)
                ]
            )
            z.setdefault(side, p.mean() * count)
            p = p / z[side]
            for row in p:
                d = row / (row + negatives / count)
                expected -= (np.log(d[0]) + sum(np.log(1 - d[1:]))) / len(index)
        value = loss(s, t, index=torch.tensor(index), generator=torch.Generator().manual_seed(step))
        assert np.isclose(value.item(), expected)
        for side in "st":
            for b, i in enumerate(index):
                memory[side][i] = unit(0.5 * memory[side][i] + 0.5 * v[side][b])
            assert np.allclose(getattr(loss, f"memory_{side}").numpy(), memory[side])
        value.backward()


KINDS = [0] * 12 + [1] * 3 + [2] * 5
random.Random(0).shuffle(KINDS)


def drawn(negatives: int, times: int) -> dict[int, list[list[int]]]:
    """For an image of each class the negatives of several draws."""
    loss = CRD(VECTOR, VECTOR, KINDS, SEEN, crd_tau=0.07, crd_negatives=negatives)
    firsts = [KINDS.index(kind) for kind in range(3)]
    draws = torch.Generator().manual_seed(0)
    found = [loss.others(torch.tensor(firsts), draws).tolist() for _ in range(times)]
    return {kind: [one[kind] for one in found] for kind in range(3)}


def test_crd_draws_its_negatives_uniformly_among_the_images_of_other_classes():
    for negatives in (4, 10, 17):  # of the first class there are 8 others, of the second 17
        for kind, sets in drawn(negatives, 600).items():
            others = [i for i, other in enumerate(KINDS) if other != kind]
            counts = Counter(i for one in sets for i in one)
            assert set(counts) == set(others)
            assert chisquare([counts[i] for i in others]).pvalue > 1e-3
            distinct = {len(set(one)) == negatives for one in sets}
            assert distinct == {True} if negatives <= len(others) else distinct == {False}
            if negatives == len(others):
                assert all(sorted(one) == others for one in sets)


def test_crd_draws_without_replacement_as_numpy_does():
    pairs = Counter(tuple(sorted(one)) for one in drawn(2, 4000)[0])
    rng, others = np.random.default_rng(0), [i for i, kind in enumerate(KINDS) if kind]
    expected = Counter(
        tuple(sorted(rng.choice(others, 2, replace=False).tolist())) for _ in range(4000)
    )
    assert pairs.keys() == expected.keys() and len(pairs) == 8 * 7 / 2
    assert chisquare([pairs[pair] for pair in sorted(pairs)]).pvalue > 1e-3


def test_crd_remembers_only_what_trains_and_goes_on_from_its_state():
    torch.manual_seed(0)
    make = partial(
        CRD, MAPS[0].shape, MAPS[1].shape, [0] * 5 + [1] * 4, SEEN, crd_tau=0.07, crd_negatives=1024
    )
    loss, resumed = make(), make()
    assert loss.negatives == 8  # at most one less than there are images
    s, t = MAPS.float()

    def value(module, seed):
        return module(s, t, index=torch.arange(6), generator=torch.Generator().manual_seed(seed))

    fresh = {name: w.clone() for name, w in loss.state_dict().items()}
    with torch.no_grad():
        value(loss, 0)
    value(loss.eval(), 0)
    assert all(torch.equal(w, fresh[name]) for name, w in loss.state_dict().items())
    value(loss.train(), 0).backward()
    assert (
        not torch.equal(loss.memory_s, fresh["memory_s"])
        and loss.log_z_s.isfinite()
        and torch.equal(loss.memory_t[6:], fresh["memory_t"][6:])
    )
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(value(loss, 1), value(resumed, 1)) and torch.equal(
        loss.memory_t, resumed.memory_t
    )
    assert not torch.equal(value(loss.eval(), 1), value(loss, 2))


def test_crd_learns_to_tell_images_apart():
    torch.manual_seed(0)
    code = torch.randn(40, 6)
    s, t = code @ torch.randn(6, 10), code @ torch.randn(6, 12)
    loss = CRD(s.shape, t.shape, range(40), SEEN, crd_tau=0.2, crd_negatives=20)
    draws, optimizer, values = (
        torch.Generator().manual_seed(0),
        torch.optim.Adam(loss.parameters(), lr=0.01),
        [],
    )
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(s, t, index=torch.arange(40), generator=draws)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])
    nearest = (loss.embed_s(s) @ loss.embed_t(t).T).argmax(1)
    assert (nearest == torch.arange(40)).float().mean() > 0.8


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("side, r", [(4, 8), (8, 4), (5, 7), (32, 1)])
def test_isrd_paints_the_teachers_image_from_a_stem_of_any_size(side, r):
    torch.manual_seed(0)
    s, seen = torch.randn(2, 6, side, side), torch.randn(2, 3, 32, 32)
    loss = ISRD(s.shape, torch.Size((2, 64, 8, 8)), 10, seen.shape)
    assert [name for name, _ in loss.named_parameters()] == ["enlarge.0.weight", "enlarge.2.weight"]
    slopes = loss.enlarge[2].weight.data.copy_(torch.tensor([0.25, 0.5, 0.75])).view(3, 1, 1)
    values = torch.einsum("oi,bihw->bohw", loss.enlarge[0].weight[..., 0, 0], s)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    painted = torch.stack(
        [values[:, c * r**2 + (y % r) * r + x % r, y // r, x // r] for c in range(3)], 1
    )
    painted = torch.where(painted > 0, painted, slopes * painted)
    assert torch.isclose(loss(s, None, teacher_input=seen), (painted - seen).abs().mean())


def test_isrd_is_zero_where_the_stem_holds_the_pixels():
    seen = torch.rand(2, 3, 32, 32)
    s = F.pixel_unshuffle(seen, 4)
    loss = ISRD(s.shape, s.shape, 10, seen.shape)
    torch.nn.init.dirac_(loss.enlarge[0].weight)
    assert loss(s, None, teacher_input=seen) == 0


# ---------------------------------------------------------------- those with weights of their own

S, T, SEEN = torch.Size((6, 3, 4, 4)), torch.Size((6, 4, 8, 8)), torch.Size((6, 1, 16, 16))
OWN = {
    "ickd": (partial(ICKD, S, T, 9, SEEN), {}),
    "ft": (partial(FT, S, T, 9, SEEN, ft_rate=0.5), {}),
    "crd": (
        partial(CRD, S, T, range(9), SEEN, crd_tau=0.07, crd_negatives=4),
        {"index": torch.arange(6), "generator": None},
    ),
    "isrd": (partial(ISRD, S, T, 9, SEEN), {"teacher_input": torch.rand(SEEN)}),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_with_weights_teach_the_student_and_themselves_and_are_finite(name, scale):
    torch.manual_seed(0)
    make, needs = OWN[name]
    loss = make()
    s, t = (scale * torch.randn(S)).requires_grad_(), scale * torch.randn(T)
    value = loss(s, t, **needs)
    value.backward()
    assert (
        value.shape == ()
        and value.isfinite()
        and s.grad.isfinite().all()
        and s.grad.abs().sum() > 0
    )
    fixed = set(loss.pretrained_parameters()) if name == "ft" else set()
    for w in loss.parameters():
        assert w.grad is None if w in fixed else w.grad.isfinite().all()
    assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in loss.parameters())


@pytest.mark.parametrize("name", ["ickd", "ft", "isrd"])
def test_losses_with_weights_do_not_depend_on_the_order_of_the_images(name):
    torch.manual_seed(0)
    make, needs = OWN[name]
    loss, order = make(), torch.tensor([3, 1, 5, 0, 4, 2])
    s, t = torch.randn(S), torch.randn(T)
    assert torch.isclose(
        loss(s[order], t[order], **{need: x[order] for need, x in needs.items()}),
        loss(s, t, **needs),
        rtol=1e-5,
    )


# ---------------------------------------------------------------- what is refused

LOGIT, ONE_CLASS, MAP, ALONE = (
    torch.randn(4, 5),
    torch.randn(4, 1),
    torch.randn(4, 3, 2, 2),
    torch.randn(1, 5),
)
PLACE = torch.randn(4, 3, 1, 1)


def check(loss: str, s: torch.Tensor, t: torch.Tensor) -> None:
    check_layers(loss, CLASS_LOSSES[loss].needs, s, t)


CORE = {"tucker_ranks": 0.5, "tucker_space": "core", "tucker_over": "batch"}
REFUSED = {
    "kd of one class": (
        lambda: check("kd", ONE_CLASS, ONE_CLASS),
        "'kd' compares the logits of two or more classes",
    ),
    "dkd of one class": (
        lambda: check("dkd", ONE_CLASS, ONE_CLASS),
        "'dkd' compares the logits",
    ),
    "dist of a map": (
        lambda: check("dist", MAP, MAP),
        "'dist' compares the logits .* choose --type_dist output",
    ),
    "kd of other classes": (
        lambda: check("kd", LOGIT, LOGIT[:, :4]),
        "the teacher has 4 classes and the student 5",
    ),
    "dist of one image": (
        lambda: check("dist", ALONE, ALONE),
        "'dist' compares the images of a batch.* choose a --batch_size",
    ),
    "sp of one image": (lambda: check("sp", ALONE, ALONE), "'sp' compares the images of a batch"),
    "rkd of one image": (
        lambda: check("rkd", ALONE, ALONE),
        "'rkd' compares the images of a batch",
    ),
    "ickd of logits": (
        lambda: check("ickd", LOGIT, LOGIT),
        "'ickd' compares feature maps.* choose --type_dist latent",
    ),
    "ickd of one channel": (
        lambda: check("ickd", MAP[:, :1], MAP[:, :1]),
        "'ickd' compares the channels",
    ),
    "ickd of one place of one image": (
        lambda: ICKD(*[PLACE[:1].shape] * 2, 9, SEEN)(PLACE[:1], PLACE[:1]),
        "'ickd' compares the images of a batch",
    ),
    "ft of logits": (lambda: check("ft", LOGIT, LOGIT), "'ft' compares feature maps"),
    "ft of no channels": (lambda: FT(MAP.shape, MAP.shape, 9, SEEN, ft_rate=0.0), "ft_rate 0: "),
    "tucker of logits": (lambda: check("tucker", LOGIT, LOGIT), "'tucker' compares feature maps"),
    "tucker of no rank": (
        lambda: tucker(MAP, MAP, **CORE | {"tucker_ranks": 0.0}),
        "tucker_ranks 0: .* above 0 and at most 1",
    ),
    "tucker of too many ranks": (
        lambda: tucker(MAP, MAP, **CORE | {"tucker_ranks": 2.0}),
        "tucker_ranks 2: ",
    ),
    "tucker elsewhere": (
        lambda: tucker(MAP, MAP, **CORE | {"tucker_space": "moon"}),
        "tucker_space 'moon'.* choose core or projected",
    ),
    "tucker over years": (
        lambda: tucker(MAP, MAP, **CORE | {"tucker_over": "years"}),
        "tucker_over 'years'",
    ),
    "tucker of samples of one place": (
        lambda: tucker(PLACE, PLACE, **CORE | {"tucker_over": "sample"}),
        "choose --tucker_over batch",
    ),
    "crd of one image": (
        lambda: CRD(VECTOR, VECTOR, [0], SEEN, crd_tau=0.07, crd_negatives=4),
        "'crd' needs two training images",
    ),
    "crd of no negatives": (
        lambda: CRD(VECTOR, VECTOR, range(9), SEEN, crd_tau=0.07, crd_negatives=0),
        "crd_negatives 0",
    ),
    "crd without a tau": (
        lambda: CRD(VECTOR, VECTOR, range(9), SEEN, crd_tau=0.0, crd_negatives=4),
        "crd_tau 0",
    ),
    "crd of one class": (
        lambda: CRD(VECTOR, VECTOR, [2] * 9, SEEN, crd_tau=0.07, crd_negatives=4),
        "all 9 training images are of one class: give a larger --limit_train",
    ),
    "isrd of logits": (lambda: check("isrd", LOGIT, LOGIT), "'isrd' compares feature maps"),
    "isrd of a large student": (
        lambda: ISRD(torch.Size((2, 3, 20, 20)), T, 9, SEEN),
        "larger than the teacher's image of 16 x 16 pixels",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_line(case):
    call, words = REFUSED[case]
    with pytest.raises(UserError, match=words) as refusal:
        call()
    assert "\n" not in str(refusal.value)
