"""What the training scripts have in common: data, physics and networks from the command line, and names from numbers."""

from argparse import Namespace
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from algo_functions import Physics, build_physics
from data_loader import Images, Request, build_splits
from distill import build_loss
from distill.stage import Distillation, Supervised
from models import build_network
from models.hybrid_unet import graft
from tables import LOSSES, TASK_LOSSES, UserError, look_up
from training import checkpoint
from training.loop import Fit
from training.run import Run


class Teacher(NamedTuple):
    """A network that saw more, what rebuilds it, and what it sees."""

    network: nn.Module
    recipe: dict
    physics: Physics


def request_of(args: Namespace, **changes) -> Request:
    """What the flags ask of a dataset."""
    return Request(**{name: getattr(args, name) for name in Request._fields if hasattr(args, name)} | changes)


def splits_of(args: Namespace) -> dict[str, Images]:
    """The splits that a training uses: the test set is not among them."""
    return build_splits(request_of(args), wanted=("train", "val"), augment_seed=args.seed)


def mixture(cr: float | None, crs: list[float] | None) -> float | list[float] | None:
    """One ratio, or the sorted ratios of a mixture."""
    return sorted(set(crs)) if crs else cr


def ratio_name(cr: float | list[float]) -> str:
    return "_".join(f"{value:g}" for value in cr) if isinstance(cr, list) else f"{cr:g}"


def teacher_name(cr: float | list[float]) -> str:
    """The exported file of a teacher or baseline."""
    return f"UNET_{'crs' if isinstance(cr, list) else 'cr'}_{ratio_name(cr)}.pth"


def physics_recipe(args: Namespace, cr: float | list[float]) -> dict:
    """The recipe of the camera that the flags describe."""
    return {
        "name": args.physics,
        "n": args.n,
        "c": args.c,
        "cr": cr,
        "ordering": args.ordering,
        "x0": args.x0,
        "awgn_snr": args.awgn_snr,
    }


def network_of(args: Namespace) -> tuple[nn.Module, dict]:
    """The U-Net that the flags describe, and its recipe; one seed begins with the same weights in every script."""
    flags = ("c", "scales", "width", "batch_norm", "padding")
    recipe = {"name": "unet", **{name: getattr(args, name) for name in flags}}
    torch.manual_seed(args.seed)
    return build_network(recipe), recipe


def ordering_file(args: Namespace) -> dict[str, str]:
    """The user's own patterns, whose content belongs to the configuration."""
    if not args.ordering.startswith("file:"):
        return {}
    return {"ordering_file": args.ordering.removeprefix("file:")}


def warm_start(network: nn.Module, path: str | None) -> None:
    """Begins with the weights of a checkpoint, which must fit."""
    if path is not None:
        checkpoint.load_weights(network, checkpoint.restore(path).network.state_dict(), path)


def camera_of(args: Namespace, cr: float | list[float], splits: dict[str, Images]) -> Physics:
    """The physics of the flags, fitted to the training images where it has to be, with its measurement counts printed."""
    physics = build_physics(physics_recipe(args, cr), images=splits["train"].stack)
    print(f"physics: {physics.describe()}")
    return physics


def same_camera(a: Physics, b: Physics) -> bool:
    """Whether two physics measure the same values and make the same first image of them."""

    def equal(x, y) -> bool:
        if isinstance(x, dict) and isinstance(y, dict):
            return x.keys() == y.keys() and all(equal(x[k], y[k]) for k in x)
        if isinstance(x, list) and isinstance(y, list):
            return len(x) == len(y) and all(map(equal, x, y))
        return torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else type(x) is type(y) and x == y

    return equal(a.recipe, b.recipe) and equal(a.state(), b.state())


def distance_of(args: Namespace) -> Callable[[Tensor, Tensor], Tensor]:
    """The distillation loss; an option that it does not read is refused."""
    if args.gamma is not None and "gamma" not in LOSSES[args.loss_distill].options:
        readers = ", ".join(name for name, loss in LOSSES.items() if "gamma" in loss.options)
        raise UserError(f"gamma {args.gamma}: loss '{args.loss_distill}' has no kernel width; only {readers} reads --gamma")
    return build_loss(args.loss_distill, gamma="auto" if args.gamma is None else args.gamma)


def teacher_path(args: Namespace) -> Path | None:
    """The file that --teacher, --cr_teacher or --crs_expert_teacher stands for; none where an online teacher begins afresh."""
    if args.teacher:
        return Path(args.teacher)
    cr = mixture(args.cr_teacher, args.crs_expert_teacher)
    if cr is None:
        raise UserError("which teacher? give --teacher PATH, --cr_teacher or --crs_expert_teacher")
    if args.online:
        return None
    path = Path(args.results) / "trained_models" / teacher_name(cr)
    if not path.is_file():
        flags = f"--crs_expert {' '.join(f'{v:g}' for v in cr)}" if isinstance(cr, list) else f"--cr {cr:g}"
        raise UserError(f"no teacher {path}: train it with main_unet.py {flags}, or name one with --teacher PATH")
    return path


def teacher_from(path: str | Path, given: dict, dataset: str) -> Teacher:
    """A checkpoint's network with its own physics."""
    network, physics, content, _ = checkpoint.restore_with_physics(path, given)
    trained_on = content["config"].get("dataset", dataset)
    if trained_on != dataset:
        print(f"teacher: it was trained on {trained_on}, the student learns on {dataset}")
    return Teacher(network, content["network"], physics)


def teacher_of(args: Namespace, path: Path | None, splits: dict[str, Images]) -> Teacher:
    """The teacher of a checkpoint; an online teacher without one is the student's network at the teacher's ratio."""
    cr = mixture(args.cr_teacher, args.crs_expert_teacher)
    if path is not None:
        return teacher_from(path, {"n": args.n, "c": args.c, "cr": cr, "ordering": args.ordering_teacher}, args.dataset)
    physics = build_physics(physics_recipe(args, cr) | {"awgn_snr": None}, images=splits["train"].stack)
    network, recipe = network_of(Namespace(**vars(args) | {"seed": args.seed + 1}))  # unlike the student
    return Teacher(network, recipe, physics)


def hybrid_of(encoder: checkpoint.Restored, decoder: checkpoint.Restored, freeze: str) -> tuple[nn.Module, dict]:
    """A network of the first one's encoder and the second one's decoder, a part of it frozen on request."""
    recipes = [restored.content["network"] | {"name": "hybrid_unet", "freeze": freeze} for restored in (encoder, decoder)]
    if recipes[0] != recipes[1]:
        differ = ", ".join(f"{k} {recipes[0].get(k)} and {recipes[1].get(k)}" for k in recipes[0] if recipes[0][k] != recipes[1].get(k))
        raise UserError(f"encoder and decoder come from different U-Nets: {differ}")
    network = build_network(recipes[0])
    network.load_state_dict(graft(encoder.network.state_dict(), decoder.network.state_dict()))
    return network, recipes[0]


def student_names(args: Namespace, cr: float | list[float], cr_teacher: float | list[float] | None, start: str) -> tuple[str, str]:
    """The run's name without its hash, and the exported file, into which the run puts its hash."""
    what = f"crs_{ratio_name(cr)}"
    if cr_teacher is not None:
        what += f"_crt_{ratio_name(cr_teacher)}_type_{args.type_dist}_loss_{args.loss_distill}"
    return f"{start}_{what}_{args.dataset}", f"{date.today()}_{start}_weights_{what}_{args.dataset}_seed_{args.seed}_{{hash}}.pth"


def supervised(network: nn.Module, physics: Physics, loss: str, device: torch.device) -> Supervised:
    """A network and its camera, on the device."""
    stage = Supervised(network, physics, look_up(TASK_LOSSES, loss, "loss"))
    return stage.to(device, memory_format=torch.channels_last)


def distillation(args: Namespace, student: nn.Module, physics: Physics, teacher: Teacher, device: torch.device, online: bool = False) -> Distillation:
    """Student, teacher and adapters on the device; one physics object where both see alike."""
    physics_t = teacher.physics
    if args.awgn_teacher:
        if args.awgn_snr is None:
            raise UserError("awgn_teacher needs a noise level: give --awgn_snr")
        physics_t = physics_t.at_noise(args.awgn_snr)
    physics_t = physics if same_camera(physics, physics_t) else physics_t
    # Convolutions are faster with channels innermost; the numbers are the same up to rounding.
    return Distillation(
        student.to(device, memory_format=torch.channels_last),
        teacher.network.to(device, memory_format=torch.channels_last),
        physics.to(device),
        physics_t.to(device),
        selection=args.type_dist,
        distance=distance_of(args),
        adapted=LOSSES[args.loss_distill].adapted,
        task=look_up(TASK_LOSSES, args.loss_gt, "loss"),
        alpha=args.alpha * LOSSES[args.loss_distill].weight,
        beta=args.beta,
        supervised=bool(args.sup_loss),
        online=online,
    )


def fit(stage: nn.Module, recipe: dict, splits: dict[str, Images], args: Namespace, run: Run) -> dict:
    """Trains a stage, or says what would be trained."""
    count = sum(w.numel() for w in stage.student.parameters())
    print(f"network: {recipe['name']}, {count:,} parameters; {len(splits['train'])} training and {len(splits['val'])} validation images")
    if args.dry_run:
        run.describe()
        return {}
    return Fit(stage, recipe, splits, args, run)()
