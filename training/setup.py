"""What the training scripts have in common: data, physics and networks from the command line, and names from numbers."""

import statistics
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from algo_functions import build_physics
from cli.checks import loss_options, named_losses
from core.errors import UserError
from core.registry import (
    ALPHA_SCHEDULES,
    DATASETS,
    FETCHED,
    LOSSES,
    MODELS,
    PHYSICS,
    bound,
    label_of,
    words,
)
from core.runtime import data_seed
from data.batches import Images
from data_loader import Request, build_splits
from distill import Term, build_task, build_term
from distill.task import Distillation, Guide, Supervised
from models import build_network
from models.base import to_device
from models.hybrid_unet import graft
from physics.base import Physics
from physics.paired import physics_for
from training import checkpoint
from training.loop import Fit, train
from training.run import Run

LARGEST = 2_000_000_000  # parameters


class Teacher(NamedTuple):
    """A network that saw more, what rebuilds it, and what it sees."""

    network: nn.Module
    config: dict
    physics: Physics


def request_of(args: Namespace, **changes) -> Request:
    """What the flags ask of a dataset."""
    return Request(
        **{
            name: getattr(args, name)
            for name in Request._fields
            if getattr(args, name, None) is not None
        }
        | changes
    )


def splits_of(
    args: Namespace, table: dict = DATASETS, augment: bool = True, **changes
) -> dict[str, Images]:
    """The splits that a training uses: the test set is not among them."""
    check_physics(args, physics_config(args))
    return build_splits(
        request_of(args, **changes), ("train", "val"), data_seed(args) if augment else None, table
    )


class Asked(Exception):
    """The images are asked for: all else of a camera is right."""


def check_physics(args: Namespace, config: dict) -> None:
    """Refuses a wrong camera before a dataset is fetched or unpacked."""

    def images() -> Tensor:
        raise Asked

    if args.dataset in FETCHED:
        with suppress(Asked):
            build_physics(config, images)


def physics_config(args: Namespace) -> dict:
    """The recipe of the camera that the flags describe."""
    return {
        "name": args.physics,
        "n": args.n,
        "c": args.c,
        **{flag: getattr(args, flag) for flag in PHYSICS[args.physics].flags},
    }


def network_of(args: Namespace, **more) -> tuple[nn.Module, dict]:
    """The network that the flags describe, and its recipe; one seed begins with the same weights in every script."""
    flags = {
        flag: getattr(args, flag)
        for flag in MODELS[args.network].flags
        if getattr(args, flag) is not None
    }
    config = {"name": args.network, "c": args.c, **flags, **more}
    with torch.device("meta"):  # before anything of that size is made
        count = sum(w.numel() for w in build_network(config).parameters())
    if count > LARGEST:
        raise UserError(
            f"network '{args.network}' would have {count:,} parameters: at most {LARGEST:,} are made"
        )
    torch.manual_seed(args.seed)
    return apply_checkpointing(build_network(config), args), config


def apply_checkpointing(network: nn.Module, args: Namespace) -> nn.Module:
    """The network, which computes features again in the backward pass where that is asked."""
    network.checkpointing = args.gradient_checkpointing
    if args.gradient_checkpointing and not network.can_checkpoint:
        raise UserError(
            f"gradient_checkpointing saves nothing in a {type(network).__name__}: choose another network"
        )
    return network


def ordering_file(config: dict) -> dict[str, str]:
    """The user's own patterns, whose content belongs to the configuration."""
    ordering = config.get("ordering", "")
    return {"ordering_file": ordering.removeprefix("file:")} if ordering.startswith("file:") else {}


def warm_start(network: nn.Module, config: dict, path: str | None) -> None:
    """Begins with the weights of a checkpoint, whose network must be the same."""
    if path is not None:
        found = checkpoint.restore(path, kind=checkpoint.RESTORER)
        differ = differences(
            {"freeze": None} | config,
            {"freeze": None} | found.content["network"],
            but=("name", "freeze"),
        )
        if differ:
            raise UserError(f"checkpoint {path} is of another network: {differ}")
        checkpoint.load_weights(network, found.network.state_dict(), path)


def differences(ours: dict, theirs: dict, but: tuple[str, ...] = ()) -> str:
    """In words, what two recipes do not share."""
    names = [
        name
        for name in {**ours, **theirs}
        if name not in but and ours.get(name) != theirs.get(name)
    ]
    return ", ".join(f"{name} {theirs.get(name)}, not {ours.get(name)}" for name in names)


def fitted_physics(config: dict, splits: dict[str, Images]) -> Physics:
    """The physics of a recipe, fitted to the training images where it has to be, with its measurement counts printed."""
    physics = build_physics(config, images=splits["train"].stack)
    print(f"physics: {physics.describe()}")
    return physics


def check_pairs(dataset: str, images: Images, seeing: list[tuple[nn.Module, Physics]]) -> None:
    """Refuses networks and cameras that cannot see these images: what measures nothing needs pairs, and pairs tell no noise level."""
    for network, camera in seeing:
        name = camera.config["name"]
        if dataset != "paired" and name == "given":
            raise UserError(
                f"dataset '{dataset}' with physics 'given': it needs a camera that can measure its clean pictures"
            )
        physics_for(images, camera, network)


def check_losses(args: Namespace) -> None:
    """Refuses losses that lack what they are made of, such as published weights, before anything is trained."""
    losses_of(args)
    build_task(args.loss_gt, **loss_options(args))


def losses_of(
    args: Namespace,
    table: dict = LOSSES,
    options: dict | None = None,
    layers: Callable = lambda line: None,
) -> list[Term]:
    """The distillation losses, with the weights that the command line gives, and the taps that a table's line is to have."""
    options = loss_options(args) if options is None else options
    return [
        build_term(name, weight, table, layers(table[name]), **options)
        for name, weight in named_losses(args).items()
    ]


def teacher_from(
    path: str | Path,
    given: dict,
    dataset: str,
    camera: dict | None = None,
    kind: str = checkpoint.RESTORER,
) -> Teacher:
    """A checkpoint's network with its own physics, or with `camera` where the file carries none."""
    network, physics, content, _ = checkpoint.restore_with_physics(path, given, camera, kind)
    trained_on = content["config"].get("dataset", dataset)
    if trained_on != dataset:
        print(f"teacher: it was trained on {trained_on}, the student learns on {dataset}")
    return Teacher(network, content["network"], physics)


def teacher_of(args: Namespace, path: Path | None, images: Callable[[], Tensor]) -> Teacher:
    """The teacher of a checkpoint; one that learns beside the student may also be the student's network at its own ratio."""
    if path is not None:
        given = {"n": args.n, "c": args.c, "cr": args.cr_teacher, "ordering": args.ordering_teacher}
        shared = (
            None
            if "cr" in PHYSICS[args.physics].flags
            else physics_config(args) | {"x0": "adjoint"}
        )
        return teacher_from(path, given, args.dataset, shared)
    if "cr" not in PHYSICS[args.physics].flags:
        raise UserError(
            f"cr_teacher {words(args.cr_teacher)}: physics '{args.physics}' has no ratio; give --teacher PATH"
        )
    physics = build_physics(
        physics_config(args) | {"cr": args.cr_teacher, "awgn_snr": None}, images=images
    )
    network, config = network_of(
        Namespace(**vars(args) | {"seed": args.seed + 1})
    )  # unlike the student
    return Teacher(network, config, physics)


def hybrid_of(
    encoder: checkpoint.Restored, decoder: checkpoint.Restored, freeze: str
) -> tuple[nn.Module, dict]:
    """A network of the first one's encoder and the second one's decoder, a part of it frozen on request."""
    configs = [
        restored.content["network"] | {"name": "hybrid_unet", "freeze": freeze}
        for restored in (encoder, decoder)
    ]
    if configs[0] != configs[1]:
        raise UserError(
            f"encoder and decoder come from different U-Nets: the decoder's has {differences(*configs)}"
        )
    network = build_network(configs[0])
    network.load_state_dict(graft(encoder.network.state_dict(), decoder.network.state_dict()))
    return network, configs[0]


def thawed(restored: checkpoint.Restored) -> tuple[nn.Module, dict]:
    """The network of a checkpoint with nothing frozen in it: a hybrid has become an ordinary U-Net."""
    config = restored.content["network"]
    if config["name"] != "hybrid_unet":
        return restored.network, config
    config = {name: value for name, value in config.items() if name != "freeze"} | {"name": "unet"}
    network = build_network(config)
    network.load_state_dict(restored.network.state_dict())
    return network, config


def student_names(
    args: Namespace, camera: dict, teachers: dict | None, start: str
) -> tuple[str, str]:
    """The run's name without its hash, and the exported file, into which the run puts its hash, from the recipes of the cameras."""
    what = label_of(camera)
    if "cr" in camera:
        what = f"crs_{words(camera['cr'])}"
    if teachers is not None:
        if "cr" in teachers:
            what += f"_crt_{words(teachers['cr'])}"
        elif label_of(teachers) != what:
            what += f"_teacher_{label_of(teachers)}"
        what += f"_type_{args.type_dist}_loss_{'_'.join(args.loss_distill).replace(':', '_')[:80]}"  # names of files have an end
    return (
        f"{start}_{what}_{args.dataset}",
        f"{date.today()}_{start}_weights_{what}_{args.dataset}_seed_{args.seed}_{{hash}}.pth",
    )


def supervised(
    args: Namespace, network: nn.Module, physics: Physics, loss: str, device: torch.device
) -> Supervised:
    """A network and its camera, on the device."""
    task = build_task(loss, **loss_options(args))
    return Supervised(to_device(network, device), physics.to(device), task)


def distillation(
    args: Namespace,
    student: nn.Module,
    physics: Physics,
    teacher: Teacher,
    images: Callable,
    device: torch.device,
    online: bool = False,
) -> Distillation:
    """Student, teacher and adapters on the device; one physics object where both see alike. `images` loads the training images."""
    torch.manual_seed(args.seed)  # of the adapters
    physics_t = teacher.physics
    if args.awgn_teacher:
        if physics_t.level != "awgn_snr":
            raise UserError(
                f"awgn_teacher: the teacher's physics '{physics_t.config['name']}' does not read --awgn_snr"
            )
        physics_t = physics_t.at_noise(args.awgn_snr).refit(images)
    physics_t = physics if physics.same_first_image_as(physics_t) else physics_t
    return Distillation(
        to_device(student, device),
        physics.to(device),
        [Guide(to_device(teacher.network, device), physics_t.to(device))],
        selection=args.type_dist,
        losses=losses_of(args),
        task=build_task(args.loss_gt, **loss_options(args)),
        alpha=args.alpha,
        schedule=bound(ALPHA_SCHEDULES, args.alpha_schedule, args),
        beta=args.beta,
        supervised=bool(args.sup_loss),
        online=online,
        shuffled=args.shuffle_teacher,
    )


def learner(
    stage: nn.Module, config: dict, splits: dict[str, Images], args: Namespace, run: Run, **more
) -> Fit | dict:
    """A stage that is ready to be trained; or --dry_run says what would be trained."""
    check_pairs(
        args.dataset,
        splits["val"],
        [
            (stage.student, stage.physics),
            *(teacher[:2] for teacher in getattr(stage, "guides", ())),
        ],
    )
    count = sum(w.numel() for w in stage.student.parameters())
    often = f" ({args.repeat} times an epoch)" if args.repeat > 1 else ""
    print(
        f"network: {config['name']}, {count:,} parameters; "
        f"{len(splits['train'])} training{often} and {len(splits['val'])} validation images"
    )
    if args.dry_run:
        run.describe()
        return {}
    return Fit(stage, config, splits, args, run, **more)


def trained(found: list[Fit | dict]) -> list[dict]:
    """The scores of runs; those that are not finished yet are trained, beside each other."""
    scores = iter(train([fit for fit in found if isinstance(fit, Fit)]))
    return [next(scores) if isinstance(fit, Fit) else fit for fit in found]


def every_seed(
    make: Callable[[Namespace, Fit | None], Fit | dict], args: Namespace, score: str
) -> dict:
    """One run, or one for each of --seeds and the mean and deviation of a score; with --data_seed they are trained beside each other."""
    if not args.seeds:
        return trained([make(args, None)])[0]
    found: list[Fit | dict] = []
    for seed in args.seeds:
        one = Namespace(
            **vars(args)
            | {"seed": seed, "run_name": args.run_name and f"{args.run_name}_seed_{seed}"}
        )
        companion = next((fit for fit in found if isinstance(fit, Fit)), None)
        found += (
            [make(one, companion)] if args.data_seed is not None else trained([make(one, None)])
        )
    runs = trained(found)
    if args.dry_run:
        return {}
    scores = [run[score] for run in runs]
    print(
        f"{score.replace('val_', 'validation ')}: {mean_and_deviation(scores)} over seeds {', '.join(map(str, args.seeds))}"
    )
    return {
        "runs": runs,
        score: statistics.mean(scores),
        "checkpoints": [run["checkpoint"] for run in runs],
    }


def mean_and_deviation(values: list[float], sign: str = "") -> str:
    deviation = f" ± {statistics.stdev(values):.2f} (n = {len(values)})" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"
