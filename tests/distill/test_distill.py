"""Losses against formulas written another way; every selection, loss and pair of networks; what a stage promises."""

import itertools
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import CONFIG
from doubles import batch_of
from scipy.spatial.distance import cosine, pdist, squareform
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import normalize

from algo_functions import build_physics
from core.errors import UserError
from core.registry import LOSS_OPTIONS, LOSSES, SELECTIONS
from data.batches import Batch, tensors_in
from distill import build_loss, build_task_loss
from distill.feature import mse
from distill.layers import selected_layers
from distill.task import Distillation, Supervised, Teacher
from models import build_network


def attention_map(f):
    energy = f.double().numpy() ** 2
    return normalize(energy.mean(1).reshape(len(energy), -1))


def cosines(f):
    return 1 - squareform(pdist(f.flatten(1).double().numpy().T, "cosine"))


S, T = torch.randn(2, 6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
s, t = (x.flatten(1).double().numpy() for x in (S, T))
GAMMA = 1 / np.median(pdist(t) ** 2)
ORACLES = {
    "mse": np.mean((s - t) ** 2),
    "mae": np.mean(np.abs(s - t)),
    "l1": np.mean(np.abs(s - t)),
    "cs": np.mean([cosine(a, b) for a, b in zip(s, t, strict=True)]),
    "l2": np.mean([np.sqrt(((a - b) ** 2).sum()) for a, b in zip(s, t, strict=True)]),
    "linf": np.mean([np.abs(a - b).max() for a, b in zip(s, t, strict=True)]),
    "comb_matrix": np.linalg.norm(rbf_kernel(s, gamma=GAMMA) - rbf_kernel(t, gamma=GAMMA)),
    "smooth_l1": np.mean(np.where(np.abs(s - t) < 1, (s - t) ** 2 / 2, np.abs(s - t) - 0.5)),
    "charbonnier": np.mean(np.sqrt((s - t) ** 2 + 1e-12)),
    "hint": np.mean((s - t) ** 2),
    "at": np.mean((attention_map(S) - attention_map(T)) ** 2),
    "feature_attention": np.mean((s - t) ** 2)
    + 0.5 * np.mean((attention_map(S) - attention_map(T)) ** 2),
    "soft": 16
    * np.mean(entropy(*(softmax(x.double().numpy() / 4, axis=1) for x in (T, S)), axis=1)),
    "fakd": np.mean([np.abs(cosines(a) - cosines(b)).mean() for a, b in zip(S, T, strict=True)]),
}
PLAIN = [
    name for name in LOSSES if name != "perceptual"
]  # which needs weights, and has a test of its own


def loss_of(name: str, **options):
    return build_loss(name, **LOSS_OPTIONS | options).distance


@pytest.mark.parametrize("name", PLAIN)
class TestEveryLoss:
    def test_equals_its_formula(self, name):
        assert np.isclose(
            loss_of(name)(S, T).item(), ORACLES[name], rtol=0.02 if name == "comb_matrix" else 1e-5
        )

    def test_is_zero_where_student_and_teacher_agree_and_its_gradient_is_finite(self, name):
        x = T.clone().requires_grad_()
        loss = loss_of(name)(x, T)
        loss.backward()
        assert abs(loss.item()) < 1.1e-6 and torch.isfinite(x.grad).all()

    def test_has_the_gradient_that_finite_differences_have(self, name):
        a, b = S[:3, :2, :2, :2].double(), T[:3, :2, :2, :2].double()
        assert torch.autograd.gradcheck(
            lambda x: loss_of(name, gamma=0.3)(x, b), a.requires_grad_()
        )

    def test_does_not_grow_with_a_repeated_batch(self, name):
        once, twice = loss_of(name)(S, T), loss_of(name)(torch.cat([S, S]), torch.cat([T, T]))
        grows = (
            2 if name == "comb_matrix" else 1
        )  # a Frobenius norm of (2B)² kernel values, by its definition
        assert torch.isclose(twice, grows * once, rtol=0.1 if name == "comb_matrix" else 1e-5)


def test_comb_matrix_takes_the_kernel_width_it_is_given():
    for gamma in (0.01, 0.1, 1.0):
        expected = np.linalg.norm(rbf_kernel(s, gamma=gamma) - rbf_kernel(t, gamma=gamma))
        assert np.isclose(loss_of("comb_matrix", gamma=gamma)(S, T).item(), expected, rtol=1e-4)


def test_comb_matrix_takes_each_sides_own_unit_where_shapes_differ():
    other = 1e4 * S[:, :2]
    flat = other.flatten(1).double().numpy()
    kernels = [rbf_kernel(x, gamma=1 / np.median(pdist(x) ** 2)) for x in (flat, t)]
    assert np.isclose(
        loss_of("comb_matrix")(other, T).item(), np.linalg.norm(kernels[0] - kernels[1]), rtol=0.02
    )


def test_comb_matrix_is_exact_where_samples_nearly_agree():
    near = 5 + 1e-3 * torch.randn(6, 40)
    expected = np.linalg.norm(rbf_kernel(near.double().numpy(), gamma=1e4) - np.ones((6, 6)))
    assert np.isclose(
        loss_of("comb_matrix", gamma=1e4)(near, torch.zeros(6, 40)).item(), expected, rtol=1e-2
    )


def test_at_and_fakd_pool_the_larger_map_down():
    large = torch.nn.functional.interpolate(T, scale_factor=2.0)  # pooled, it is T again
    for name in ("at", "fakd"):
        assert torch.isclose(loss_of(name)(S, large), loss_of(name)(S, T), rtol=1e-4)


def test_soft_refuses_a_layer_of_one_channel():
    with pytest.raises(UserError, match="choose --type_dist latent"):
        task_of(losses=[build_loss("soft", temperature=4.0)], selection="output")


def test_perceptual_is_the_weighted_distance_of_named_layers_and_says_where_its_weights_belong(
    tmp_path, monkeypatch
):
    from torchvision.models import vgg19

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"needs the weights of VGG-19 in .*vgg19-.*pth"):
        build_task_loss("perceptual", style_weight=0.0)
    torch.manual_seed(0)
    vgg = vgg19(weights=None).eval()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(vgg.state_dict(), tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth")
    weights = {
        "features.2": 0.1,
        "features.7": 0.1,
        "features.16": 1.0,
        "features.25": 1.0,
        "features.34": 1.0,
    }
    a, b = torch.rand(2, 2, 3, 32, 32)
    images = [
        (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        for x in (a, b)
    ]
    f, g = (
        {name: vgg.features[: int(name.split(".")[1]) + 1](image) for name in weights}
        for image in images
    )
    expected = sum(w * (f[k] - g[k]).abs().mean() for k, w in weights.items())
    assert torch.isclose(build_task_loss("perceptual", style_weight=0.0)(a, b), expected, rtol=1e-4)
    grams = [
        {k: torch.einsum("bchw,bdhw->bcd", x, x) / x[0].numel() for k, x in side.items()}
        for side in (f, g)
    ]
    style = sum(w * (grams[0][k] - grams[1][k]).abs().mean() for k, w in weights.items())
    loss = build_task_loss("perceptual", style_weight=10.0)
    assert torch.isclose(loss(a, b), expected + 10 * style, rtol=1e-4)
    grey = torch.rand(1, 1, 32, 32, requires_grad=True)
    loss(grey, torch.rand(1, 1, 32, 32)).backward()
    assert grey.grad.abs().sum() > 0 and not any(w.requires_grad for w in loss.vgg.parameters())
    with pytest.raises(UserError, match="choose --type_dist output"):
        loss(torch.rand(1, 8, 32, 32), torch.rand(1, 8, 32, 32))
    (tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth").write_bytes(b"<html>")
    with pytest.raises(
        UserError, match=r"published weights .*vgg19-dcbb9e9d\.pth cannot be read: "
    ):
        build_task_loss("perceptual", style_weight=0.0)


TAPS = {
    k: [
        *[f"enc{i}" for i in range(1, k)],
        "latent",
        *[f"dec{i}" for i in range(k - 1, 0, -1)],
        "head",
        "output",
    ]
    for k in (2, 3, 5)
}
EXPECTED = {  # at the release's two scales, and at three
    "latent": ("latent", "latent"),
    "all": ("enc1 latent dec1 head", "enc1 enc2 latent dec2 dec1 head"),
    "first_latent": ("enc1 latent", "enc1 latent"),
    "output": ("output", "output"),
    "output_latent": ("latent output", "latent output"),
    "encoder": ("enc1", "enc1"),
    "encoder_latent": ("enc1 latent", "enc1 latent"),
    "latent_decoder": ("latent dec1 head", "latent dec2 dec1 head"),
    "output_latent_decoder": ("latent dec1 head output", "latent dec2 dec1 head output"),
    "output_all": ("enc1 latent dec1 head output", "enc1 enc2 latent dec2 dec1 head output"),
    "first": ("enc1", "enc1"),
    "output_first_latent": ("enc1 latent output", "enc1 latent output"),
    "output_first": ("enc1 output", "enc1 output"),
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_selections_name_the_layers_of_the_list(selection):
    for scales, expected in zip((2, 3), EXPECTED[selection], strict=True):
        assert selected_layers(selection, TAPS[scales], TAPS[scales]) == expected.split()
        assert selected_layers(selection, TAPS[scales], TAPS[5]) == expected.split()
        assert selected_layers(selection, TAPS[5], TAPS[scales]) == expected.split()


def network(scales=2, width=8, **more):
    torch.manual_seed(width)  # a seed whose few channels are not all dead
    unet = build_network({"name": "unet", "scales": scales, "width": width, **more})
    torch.nn.init.normal_(
        unet.Conv_1x1.weight, std=0.1
    )  # fresh networks all have the same head: zero
    return unet


def task_of(student=None, teacher=None, loss="mse", selection="output_latent", **more):
    physics = [build_physics(CONFIG | {"cr": cr}) for cr in (0.1, 0.5)]
    losses = [build_loss(loss, 1.0, **LOSS_OPTIONS)]
    setting = {"selection": selection, "losses": losses, "task_loss": mse} | more
    return Distillation(
        student or network(), physics[0], [Teacher(teacher or network(), physics[1])], **setting
    )


BATCH = batch_of(torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
PAIRS = [((2, 8), (2, 8)), ((2, 8), (4, 10)), ((3, 10), (2, 8)), ((5, 8), (3, 10))]


def rest(selection: str, loss: str) -> tuple:
    """The marks of what is neither a selection with one loss nor a loss with the first and the last map."""
    return () if loss == "mse" or selection in ("latent", "output") else (pytest.mark.long,)


@pytest.mark.parametrize(
    "selection, loss",
    [pytest.param(*pair, marks=rest(*pair)) for pair in itertools.product(SELECTIONS, PLAIN)],
)
def test_every_selection_and_loss_teaches_the_student_and_never_the_teacher(selection, loss):
    for student, teacher in PAIRS:
        layers = set(EXPECTED[selection][0].split())
        one_channel = loss in ("soft", "fakd") and layers & {"output", "head"}
        one_place = (
            loss in ("at", "fakd", "feature_attention") and student[0] == 5 and "latent" in layers
        )
        if one_channel or one_place:
            with pytest.raises(UserError, match=r"compares the (channels|pixels)"):
                task_of(network(*student), network(*teacher), loss, selection)
            continue
        task = task_of(network(*student), network(*teacher), loss, selection, beta=0.0).train()
        result = task(BATCH)
        terms = {name: term for name, term in result["terms"].items() if name != "task"}
        assert set(terms) == {f"distill/{loss}/{layer}" for layer in task.layers}
        for name, term in terms.items():
            grads = torch.autograd.grad(
                term, list(task.student.parameters()), retain_graph=True, allow_unused=True
            )
            assert any(g is not None and g.abs().sum() > 0 for g in grads), (
                f"{name} does not reach the student"
            )
        result["loss"].backward()
        assert all(w.grad is None for w in task.teachers[0].network.parameters())
        assert all(
            w.grad is not None and torch.isfinite(w.grad).all() for w in task.adapters.parameters()
        )
        assert torch.isclose(result["loss"], sum(result["terms"].values()))


def test_adapters_join_what_differs_learn_and_stay_out_of_the_student():
    task = task_of(network(2, 8), network(3, 10), selection="output_all")
    assert set(task.adapters) == {"enc1", "latent", "dec1"}
    assert set(task.student.state_dict()) == set(network(2, 8).state_dict())
    before = {name: w.clone() for name, w in task.adapters.named_parameters()}
    optimizer = torch.optim.Adam([w for w in task.parameters() if w.requires_grad], lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = task(BATCH)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(not torch.equal(w, before[name]) for name, w in task.adapters.named_parameters())
    assert losses[-1] < losses[0]


def test_equal_shapes_and_relations_need_no_adapter():
    assert not task_of().adapters
    assert not task_of(network(2, 8), network(4, 10), loss="comb_matrix", selection="all").adapters


def test_a_hint_is_seen_through_a_trained_adapter_even_where_shapes_agree():
    task = task_of(loss="hint", selection="latent")
    assert set(task.adapters) == {"hint/latent"}
    task(BATCH)["loss"].backward()
    assert all(w.grad.abs().sum() > 0 for w in task.adapters.parameters())


def test_several_losses_have_a_weight_each_and_one_of_weight_zero_is_only_measured():
    student, teacher = network(), network(2, 10)
    losses = [build_loss("mse", 2.0), build_loss("at", 500.0), build_loss("mae", 0.0)]
    task = task_of(student, teacher, losses=losses, selection="latent", alpha=0.5)
    result = task(BATCH)
    assert set(task.adapters) == {"latent"}  # shared by those that need one
    s, t = (
        student.features(task.physics.observe(BATCH.image))["latent"],
        teacher.features(task.teachers[0].physics.observe(BATCH.image))["latent"],
    )
    bridged = task.adapters["latent"](s, t)
    assert torch.isclose(result["terms"]["distill/mse/latent"], 0.5 * 2 * mse(*bridged))
    assert torch.isclose(result["terms"]["distill/at/latent"], 0.5 * 500 * loss_of("at")(s, t))
    assert (
        torch.isclose(result["metrics"]["mae/latent"], (bridged[0] - bridged[1]).abs().mean())
        and "distill/mae/latent" not in result["terms"]
    )


def test_teacher_stays_in_eval_mode():
    task = task_of(teacher=network(batch_norm="on"))
    statistics = {
        name: tensor.clone() for name, tensor in task.teachers[0].network.state_dict().items()
    }
    task.train()
    task(BATCH)["loss"].backward()
    assert not any(module.training for module in task.teachers[0].network.modules())
    assert all(
        torch.equal(tensor, statistics[name])
        for name, tensor in task.teachers[0].network.state_dict().items()
    )
    assert not any(name.startswith("teacher") for name in task.state_dict())


def test_an_online_teacher_learns_from_its_own_task_alone():
    task = task_of(online=True).train()
    result = task(BATCH)
    expected = torch.autograd.grad(
        result["terms"]["teacher"], list(task.teachers[0].network.parameters()), retain_graph=True
    )
    result["loss"].backward()
    assert all(
        torch.allclose(w.grad, g)
        for w, g in zip(task.teachers[0].network.parameters(), expected, strict=True)
    )
    assert any(g.abs().sum() > 0 for g in expected) and task.teachers[0].network.training


def test_weights_multiply_their_terms():
    student, teacher = network(), network()
    one, other = (
        task_of(student, teacher, alpha=a, beta=b)(BATCH)["terms"] for a, b in ((1, 1), (3, 0.5))
    )
    assert torch.isclose(other["task"], 0.5 * one["task"])
    assert torch.isclose(other["distill/mse/latent"], 3 * one["distill/mse/latent"])


@pytest.mark.parametrize("supervised", [True, False])
def test_the_task_loss_is_reported_without_its_weight_and_against_the_truth(supervised):
    made = task_of(beta=0.25, supervised=supervised)
    result = made(BATCH)
    output = result["output"].detach().numpy()
    expected = np.mean((output - BATCH.image.numpy()) ** 2)
    assert np.isclose(result["metrics"]["task_loss"].item(), expected, rtol=1e-5)
    assert not result["metrics"]["task_loss"].requires_grad
    weighted = np.isclose(result["terms"]["task"].item(), 0.25 * expected, rtol=1e-5)
    assert weighted == supervised


def test_the_target_is_the_image_or_the_teachers_output():
    student, teacher = network(), network()
    for supervised in (True, False):
        task = task_of(student, teacher, supervised=supervised)
        x0_s, (x0_t,) = task.observe(BATCH, None)
        target = BATCH.image if supervised else teacher(x0_t)
        assert torch.isclose(task(BATCH)["terms"]["task"], (student(x0_s) - target).square().mean())


def views(physics_s, physics_t):
    setting = {"selection": "output", "losses": [build_loss("mse")], "task_loss": mse}
    x0_s, (x0_t,) = Distillation(
        network(), physics_s, [Teacher(network(), physics_t)], **setting
    ).observe(BATCH, torch.Generator().manual_seed(0))
    return x0_s, x0_t


@pytest.mark.parametrize(
    "changes, same", [({}, True), ({"awgn_snr": 11.0}, False), ({"ordering": "strip"}, False)]
)
def test_cameras_that_measure_alike_see_one_noise_and_others_their_own(changes, same):
    configs = [
        CONFIG | {"cr": 1.0, "awgn_snr": 10.0},
        CONFIG | {"cr": 1.0, "awgn_snr": 10.0} | changes,
    ]
    noises = [(x0 - BATCH.image).flatten() for x0 in views(*map(build_physics, configs))]
    assert (
        torch.equal(*noises) is same
        and (abs(torch.cosine_similarity(*noises, dim=0).item()) < 0.2) is not same
    )


def test_one_denoiser_camera_with_two_first_images_draws_one_noise(images):
    config = {"name": "denoise", "n": 16, "c": 1, "sigma": [5.0, 50.0], "x0": "adjoint"}
    adjoint, lmmse = (
        build_physics(config | {"x0": x0}, images=lambda: images[:50])
        for x0 in ("adjoint", "lmmse")
    )
    x0_s, x0_t = views(adjoint, lmmse)
    assert torch.equal(x0_t, lmmse.first_image(x0_s))
    x0_s, x0_t = views(adjoint, build_physics(config | {"sigma": [5.0, 49.0]}))
    assert (
        abs(
            torch.cosine_similarity(
                *((x0[:, :1] - BATCH.image).flatten() for x0 in (x0_s, x0_t)), dim=0
            )
        )
        < 0.2
    )


def test_supervised_training_overfits_one_batch():
    task = Supervised(network(width=8), build_physics(CONFIG), mse)
    optimizer = torch.optim.Adam(task.student.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = task(BATCH)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_shuffled_teacher_speaks_of_another_image_of_the_batch():
    plain, shuffled = task_of(), task_of(shuffled=True)
    shuffled.load_state_dict(plain.state_dict())
    batch = batch_of(torch.rand(4, 1, 16, 16))
    answered = plain.add_teacher_features(plain.add_observations(batch))
    rolled = shuffled.shuffle_teachers(answered)
    for field in fields(Batch):
        before, after = (tensors_in(getattr(b, field.name)) for b in (answered, rolled))
        shift = 1 if field.name.startswith("teacher_") else 0
        for a, b in zip(before, after, strict=True):
            assert torch.equal(b, a.roll(shift, 0)), field.name
    assert plain.shuffle_teachers(answered) is answered, "and no other teacher does"
    late = shuffled(shuffled.shuffle_teachers(shuffled.add_observations(batch)))
    assert torch.allclose(shuffled(rolled)["loss"], late["loss"]), (
        "whether it has answered before or not"
    )
    s, t = plain.student.features(answered.x0), answered.teacher_features[0]["output"]
    terms = shuffled(rolled)["terms"]
    assert torch.isclose(terms["distill/mse/output"], (s["output"] - t.roll(1, 0)).square().mean())
    assert torch.equal(terms["task"], plain(answered)["terms"]["task"]), (
        "the target is the image's own"
    )


@pytest.mark.parametrize("ordering", ["xy", "random"])
def test_in_the_null_space_only_what_the_student_does_not_measure_is_compared(ordering):
    student, teacher = network(), network(width=10)
    cameras = [build_physics(CONFIG | {"cr": cr, "ordering": ordering}) for cr in (0.1, 0.5)]
    task = Distillation(
        student,
        cameras[0],
        [Teacher(teacher, cameras[1])],
        selection="output",
        losses=[build_loss("mse", 1.0, **LOSS_OPTIONS)],
        task_loss=mse,
        unmeasured_only=True,
    )
    rows = cameras[0].rows().double()
    null = torch.eye(256).double() - torch.linalg.pinv(rows) @ rows
    x = BATCH.image
    outputs = [
        net(camera.observe(x)) for net, camera in zip((student, teacher), cameras, strict=True)
    ]
    difference = (outputs[0] - outputs[1]).flatten(1).double() @ null
    found = task(BATCH)["terms"]["distill/mse/output"]
    torch.testing.assert_close(found.double(), difference.square().mean(), rtol=1e-4, atol=1e-9)


def test_the_null_space_needs_the_output_and_one_linear_camera():
    with pytest.raises(UserError, match="no loss compares the output"):
        task_of(selection="latent", unmeasured_only=True)
    mixture = build_physics(CONFIG | {"cr": [0.1, 0.25]})
    with pytest.raises(UserError, match="no linear measurements of one ratio"):
        Distillation(
            network(),
            mixture,
            [Teacher(network(), build_physics(CONFIG | {"cr": 0.5}))],
            selection="output",
            losses=[build_loss("mse", 1.0, **LOSS_OPTIONS)],
            task_loss=mse,
            unmeasured_only=True,
        )
