"""From the command line to a training: data, physics, networks, tasks, and all seeds."""

import statistics
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from algo_functions import Meter, build_physics
from checkpoints import checkpoint
from checkpoints.checkpoint import Checkpoint
from cli.checks import given_teacher, loss_options, named_losses, untrained_teacher
from core import own
from core.errors import UserError
from core.registry import (
    ALPHA_SCHEDULES,
    DATASETS,
    FETCHED,
    LABELS,
    LIGHT,
    LOSSES,
    MODELS,
    PHYSICS,
    READ_MEASUREMENTS,
    RECORDED_LOSSES,
    LossSpec,
    bound,
    label_of,
    light_of,
    look_up,
    ratios_of,
    words,
)
from core.runtime import data_seed
from data.batches import Images
from data_loader import Request, build_splits
from distill import WeightedLoss, build_loss, build_task_loss
from distill.recorded import Labels
from distill.task import Distillation, Supervised, Task, Teacher
from models import build_network
from models.base import Network, to_device
from models.hybrid_unet import graft
from physics.base import Physics
from physics.paired import physics_for
from physics.single_pixel import SinglePixel
from preparation import own_code
from recordings.file import Recording, read_recording
from recordings.frames import RecordedFrames
from training.held_out import HeldOutMeter
from training.loop import Fit, train
from training.run import Run

LARGEST = 2_000_000_000  # parameters


class Finished(Exception):
    """Nothing is left to be trained: the run is finished, or --dry_run only describes it."""

    def __init__(self, scores: dict):
        super().__init__("finished")
        self.scores = scores


def request_of(args: Namespace, **changes) -> Request:
    """What the flags ask of a dataset."""
    values = {name: getattr(args, name, None) for name in Request._fields}
    return Request(**{k: v for k, v in values.items() if v is not None} | changes)


def splits_of(
    args: Namespace, table: dict = DATASETS, augment: bool = True, check: bool = True, **changes
) -> dict[str, Images]:
    """The splits that a training uses: the test set is not among them.

    The physics of the flags is checked before, unless a checkpoint brings its own.
    """
    if check:
        check_physics(args, physics_config_of(args))
    seed = data_seed(args) if augment else None
    return build_splits(request_of(args, **changes), ("train", "val"), seed, table)


class ImagesNeeded(Exception):
    """A physics asks for its training images: all else of it is right."""


def check_physics(args: Namespace, config: dict) -> None:
    """Refuses a wrong physics before a dataset is downloaded or unpacked."""

    def images() -> Tensor:
        raise ImagesNeeded

    if args.dataset in FETCHED:
        with suppress(ImagesNeeded):
            build_physics(config, images)


def physics_config_of(args: Namespace) -> dict:
    """The config of the physics that the flags describe, with the patterns of a recording."""
    reads = {"measurements": True} if reads_measurements(args) else {}
    if args.dataset == "recorded":
        return read_recording(args.data_root).config | {"cr": args.cr, "x0": args.x0} | reads
    flags = {flag: getattr(args, flag) for flag in PHYSICS[args.physics].flags}
    config = {"name": args.physics, "n": args.n, "c": args.c, **flags, **reads}
    return config | (own_code.physics_config(args) if own.is_own(args.physics) else {})


def reads_measurements(args: Namespace) -> bool:
    """Whether the network of the flags sees the measurements beside the first image."""
    consistent = getattr(args, "consistency", "none") == "range"
    return consistent or getattr(args, "network", None) in READ_MEASUREMENTS


def network_of(args: Namespace, **more) -> tuple[Network, dict]:
    """The network that the flags describe, and its config.

    One seed gives the same first weights in every script.
    """
    flags = {flag: getattr(args, flag) for flag in MODELS[args.network].flags}
    flags = {flag: value for flag, value in flags.items() if value is not None}
    if reads_measurements(args):
        more["n"] = getattr(args, "block", None) or args.n
    if getattr(args, "consistency", "none") == "range":
        more["consistency"] = "range"
    if own.is_own(args.network):
        config = own_code.network_config(args) | more
        torch.manual_seed(args.seed)
        return apply_checkpointing(build_network(config), args), config
    config = {"name": args.network, "c": args.c, **flags, **more}
    with torch.device("meta"):  # before anything of that size is made
        count = sum(w.numel() for w in build_network(config).parameters())
    if count > LARGEST:
        raise UserError(
            f"network '{args.network}' would have {count:,} parameters; "
            f"at most {LARGEST:,} are allowed; choose a smaller --width"
        )
    torch.manual_seed(args.seed)
    return apply_checkpointing(build_network(config), args), config


def apply_checkpointing(network: Network, args: Namespace) -> Network:
    """The network, which recomputes features in the backward pass if --gradient_checkpointing."""
    network.checkpointing = args.gradient_checkpointing
    if args.gradient_checkpointing and not network.can_checkpoint:
        raise UserError(
            f"gradient_checkpointing saves nothing in a {type(network).__name__}: "
            "leave out --gradient_checkpointing"
        )
    return network


def ordering_file(physics_config: dict) -> dict[str, str]:
    """The user's own patterns, whose content belongs to the configuration of a run."""
    ordering = physics_config.get("ordering", "")
    return {"ordering_file": ordering.removeprefix("file:")} if ordering.startswith("file:") else {}


def warm_start(network: Network, config: dict, physics: Physics, path: str | None) -> None:
    """Begins with the weights of a checkpoint, whose network must be the same."""
    if path is None:
        return
    if physics.learns:
        raise UserError(
            f"checkpoint {path} was trained for other patterns than those that --ordering learned "
            "begins with; export its own by visualize_mask_spc.py --checkpoint and give --ordering "
            "file:patterns.npy"
        )
    other, other_config = checkpoint.restore_network(path, kind=checkpoint.RESTORER)
    ours, theirs = ({"freeze": None} | c for c in (config, other_config))
    different = differences(ours, theirs, ignore=("name", "freeze", "digest", "layers"))
    if different:
        raise UserError(f"checkpoint {path} holds another network: {different}")
    checkpoint.load_weights(network, other.state_dict(), path)


def differences(ours: dict, theirs: dict, ignore: tuple[str, ...] = ()) -> str:
    """In words, what two configs do not share."""
    names = [name for name in {**ours, **theirs} if name not in ignore]
    return ", ".join(
        f"{name} {theirs.get(name)}, not {ours.get(name)}"
        for name in names
        if ours.get(name) != theirs.get(name)
    )


def fitted_physics(config: dict, splits: dict[str, Images]) -> Physics:
    """The physics of a config, fitted to the training images where it must be; it is printed."""
    images = splits["train"]
    state = state_of(images.recording) if isinstance(images, RecordedFrames) else None
    physics = build_physics(config, images=images.stack, state=state)
    print(f"physics: {physics.describe()}")
    return physics


# ---------------------------------------------------------------- recordings


def recording_files(args: Namespace) -> dict[str, str]:
    """The files of a recording, whose content belongs to the configuration of a run."""
    if args.dataset != "recorded":
        return {}
    truth = getattr(args, "truth", None)
    return {"recording": args.data_root} | ({"truth_file": truth} if truth else {})


def state_of(recording: Recording) -> list[dict]:
    """What a physics keeps of the patterns of a recording."""
    return [{"patterns": recording.patterns, "lmmse": None}]


def physics_of_recording(images: Images) -> SinglePixel | None:
    """The physics that measures all that was recorded."""
    if not isinstance(images, RecordedFrames):
        return None
    return camera_of(images.recording)


def camera_of(recording: Recording) -> SinglePixel:
    """The physics of the apparatus that made a recording."""
    physics = build_physics(recording.config, state=state_of(recording))
    assert isinstance(physics, SinglePixel), "a recording is made by one camera"
    return physics


def labels_of(args: Namespace, recording: SinglePixel | None) -> Labels | None:
    """What a restorer learns from a recording."""
    if recording is None:
        return None
    spec, loss = LABELS[args.labels], None
    if spec.loss is not None:
        name = "outside_student" if args.measurement_part == "unmeasured" else spec.loss
        loss = look_up(RECORDED_LOSSES, name, "loss")
    weight = 1.0 if args.measurement_weight is None else args.measurement_weight
    return Labels(physics=recording, target=spec.target, loss=loss, weight=weight)


def check_unmeasured(args: Namespace, physics: Physics, recording: SinglePixel) -> None:
    """Refuses a loss on the values that a network does not see, where it sees all."""
    part = getattr(args, "measurement_part", None)
    if part == "unmeasured" and isinstance(physics, SinglePixel) and physics.m == recording.m:
        raise UserError(
            f"measurement_part unmeasured: the network sees all {recording.m} recorded values, so "
            "none is left; give a smaller --cr"
        )


def score_of(args: Namespace) -> str:
    """The score by which the runs of a restorer are compared."""
    return "val_recorded_psnr" if args.dataset == "recorded" else "val_psnr"


def meter_of(task: Task) -> Meter | None:
    """What scores the images of a task: without a truth, the recorded values of held-out frames."""
    if task.recorded is None:
        return None
    assert isinstance(task.physics, SinglePixel), "a recording is made by one camera"
    return HeldOutMeter(task.physics, task.recorded.physics)


def check_pairs(dataset: str, images: Images, networks: list[tuple[Network, Physics]]) -> None:
    """Refuses networks whose physics cannot be used with these images.

    A physics that measures nothing needs pairs, and pairs come without a noise level.
    """
    for network, physics in networks:
        name = physics.config["name"]
        if dataset != "paired" and name == "given":
            raise UserError(
                f"dataset '{dataset}' with physics 'given': choose a physics that can measure its "
                "clean pictures"
            )
        physics_for(images, physics, network)


def check_losses(args: Namespace) -> None:
    """Refuses losses that lack what they need, such as published weights, before any training."""
    losses_of(args)
    build_task_loss(args.loss_gt, **loss_options(args))


def losses_of(
    args: Namespace,
    table: dict[str, LossSpec] = LOSSES,
    options: dict | None = None,
    layers: Callable[[LossSpec], str | None] = lambda spec: None,
) -> list[WeightedLoss]:
    """The distillation losses with the weights of the command line.

    `layers` gives the selection that a loss compares, where that is not the table's.
    """
    options = loss_options(args) if options is None else options
    losses = []
    for name, weight in named_losses(args).items():
        settings = own_code.settings_of(args, name) if own.is_own(name) else None
        losses.append(build_loss(name, weight, table, layers(table[name]), settings, **options))
    return losses


def teacher_from(
    path: str | Path,
    requested: dict,
    dataset: str,
    physics_config: dict | None = None,
    kind: str = checkpoint.RESTORER,
) -> Teacher:
    """The teacher of a checkpoint, with the given physics where the file names none."""
    teacher = checkpoint.restore(path, requested, physics_config, kind)
    trained_on = teacher.training_config.get("dataset", dataset)
    if trained_on != dataset:
        print(f"teacher: it was trained on {trained_on}, and the student learns on {dataset}")
    return Teacher(teacher.network, teacher.physics, teacher.network_config)


def teacher_of(args: Namespace, path: Path | None, images: Callable[[], Tensor]) -> Teacher:
    """The teacher of a checkpoint, or for --online the student's network at --cr_teacher."""
    has_ratio = "cr" in PHYSICS[args.physics].flags
    kind, option = untrained_teacher(args.teacher)
    if kind:
        from preparation.given import build_untrained_teacher

        return build_untrained_teacher(args, kind, option, images)
    if given_teacher(args.teacher):
        from preparation.given import build_given_teacher

        return build_given_teacher(args, images)
    if path is not None:
        if not args.teacher:
            print(f"teacher: {path}, of the run that ended last with {words(args.cr_teacher)}")
        requested = {
            "n": args.n,
            "c": args.c,
            "cr": args.cr_teacher,
            "ordering": args.ordering_teacher,
        }
        shared = None if has_ratio else physics_config_of(args) | {"x0": "adjoint"}
        return teacher_from(path, requested, args.dataset, shared)
    if not has_ratio:
        raise UserError(
            f"cr_teacher {words(args.cr_teacher)}: physics '{args.physics}' has no ratio; "
            "give --teacher PATH"
        )
    noise = {"awgn_snr": None, "noise": None, "photons": None}
    config = physics_config_of(args) | {"cr": args.cr_teacher, "cr_range": None} | noise
    physics = build_physics(config, images=images)
    seed = args.seed + 1  # not the student's first weights
    network, network_config = network_of(Namespace(**vars(args) | {"seed": seed}))
    return Teacher(network, physics, network_config)


def with_noise_of(args: Namespace, physics: Physics) -> Physics:
    """A teacher's physics with the noise of the student's."""
    names = ("awgn_snr", "noise", "photons")
    level = next(name for name in names if getattr(args, name) is not None)
    if level not in physics.levels:
        raise UserError(
            f"awgn_teacher: the teacher's physics '{physics.config['name']}' does not read "
            f"--{level}"
        )
    noise = {name: getattr(args, name) for name in LIGHT if level == "photons"}
    return physics.at_noise(**noise | {level: getattr(args, level)})


def hybrid_of(encoder: Checkpoint, decoder_path: str, freeze: str) -> tuple[Network, dict]:
    """A network of one U-Net's encoder and another's decoder, a part of it frozen on request."""
    decoder, decoder_config = checkpoint.restore_network(decoder_path, kind=checkpoint.RESTORER)
    for name in (encoder.network_config["name"], decoder_config["name"]):
        if name not in ("unet", "hybrid_unet"):
            raise UserError(f"a hybrid is made of two U-Nets, not of network '{name}'")
    config, other = (
        c | {"name": "hybrid_unet", "freeze": freeze}
        for c in (encoder.network_config, decoder_config)
    )
    if config != other:
        raise UserError(
            "encoder and decoder come from different U-Nets: the decoder's has "
            f"{differences(config, other)}"
        )
    network = build_network(config)
    network.load_state_dict(graft(encoder.network.state_dict(), decoder.state_dict()))
    return network, config


def unfrozen(start: Checkpoint) -> tuple[Network, dict]:
    """The network of a checkpoint with nothing frozen in it: a hybrid becomes a U-Net."""
    config = start.network_config
    if config["name"] != "hybrid_unet":
        return start.network, config
    config = {name: value for name, value in config.items() if name != "freeze"} | {"name": "unet"}
    network = build_network(config)
    network.load_state_dict(start.network.state_dict())
    return network, config


def student_names(
    args: Namespace, physics_config: dict, teacher_config: dict | None, prefix: str
) -> tuple[str, str]:
    """The run's name without its hash, and the exported file's, into which the run puts its hash.

    `teacher_config` is that of the teacher's physics.
    """
    label = label_of(physics_config)
    if "cr" in physics_config:
        label = f"{ratios_of(physics_config, one='crs')}{light_of(physics_config)}"
    if teacher_config is not None:
        if "cr" in teacher_config:
            label += f"_crt_{ratios_of(teacher_config).partition('_')[2]}"
        elif label_of(teacher_config) != label:
            label += f"_teacher_{label_of(teacher_config)}"
        if args.loss_distill:
            losses = "_".join(args.loss_distill).replace(":", "_")[:80]  # file names have a limit
            label += f"_type_{args.type_dist}_loss_{losses}"
    if getattr(args, "labels", None):
        label += f"_labels_{args.labels}"
    return (
        f"{prefix}_{label}_{own.short_name(args.dataset)}",
        f"{date.today()}_{prefix}_weights_{label}_{own.short_name(args.dataset)}_seed_{args.seed}_{{hash}}.pth",
    )


def supervised(
    args: Namespace,
    network: Network,
    physics: Physics,
    loss: str,
    device: torch.device,
    recording: SinglePixel | None = None,
) -> Supervised:
    """A network and its physics, on the device."""
    task_loss = build_task_loss(loss, **loss_options(args))
    labels = labels_of(args, recording)
    network, physics = to_device(network, device), physics.to(device)
    return Supervised(network, physics, task_loss, recorded=labels)


def distillation(
    args: Namespace,
    student: Network,
    physics: Physics,
    teacher: Teacher,
    images: Callable[[], Tensor],
    device: torch.device,
    online: bool = False,
    recording: SinglePixel | None = None,
) -> Distillation:
    """Student, teacher and adapters on the device; `images` loads the training images.

    Where student and teacher see the same, they share one physics object.
    """
    torch.manual_seed(args.seed)  # of the adapters
    physics_t = teacher.physics
    if args.awgn_teacher:
        physics_t = with_noise_of(args, physics_t).refit(images)
    if physics.same_first_image_as(physics_t):
        physics_t = physics
    labels = labels_of(args, recording)
    network_t = to_device(teacher.network, device)
    return Distillation(
        to_device(student, device),
        physics.to(device),
        [replace(teacher, network=network_t, physics=physics_t.to(device))],
        selection=args.type_dist,
        losses=losses_of(args),
        task_loss=build_task_loss(args.loss_gt, **loss_options(args)),
        alpha=args.alpha,
        schedule=bound(ALPHA_SCHEDULES, args.alpha_schedule, args),
        beta=args.beta,
        supervised=bool(args.sup_loss),
        online=online,
        shuffled=args.shuffle_teacher,
        unmeasured_only=args.dist_part == "unmeasured",
        recorded=labels,
    )


def begin_run(
    args: Namespace,
    stem: str,
    export: str,
    inputs: dict | None = None,
    changes: dict | None = None,
) -> Run:
    """The folder of a run that is not finished yet; see `Run` for the arguments."""
    run = Run(args, stem, export, inputs or {}, changes)
    if run.finished:
        raise Finished(run.already())
    return run


def fit_of(
    task: Task, config: dict, splits: dict[str, Images], args: Namespace, run: Run, **more
) -> Fit:
    """A task that is ready to be trained; --dry_run only describes it."""
    networks = [(task.student, task.physics)]
    networks += [(teacher.network, teacher.physics) for teacher in task.teachers]
    check_pairs(args.dataset, splits["val"], networks)
    recording = physics_of_recording(splits["train"])
    if recording is not None:
        for k, (_, physics) in enumerate(networks):
            recording.check_part(physics, "a teacher" if k else "the network")
        check_unmeasured(args, task.physics, recording)
    count = sum(w.numel() for w in task.student.parameters())
    repeated = f" ({args.repeat} times an epoch)" if args.repeat > 1 else ""
    print(
        f"network: {config['name']}, {count:,} parameters; "
        f"{len(splits['train'])} training{repeated} and {len(splits['val'])} validation images"
    )
    if args.dry_run:
        run.describe()
        raise Finished({})
    more.setdefault("meter", meter_of(task))
    return Fit(task, config, splits, args, run, **more)


Prepare = Callable[[Namespace, Fit | None], Fit]


def run_once(prepare: Prepare, args: Namespace) -> dict:
    """The scores of one run, which is trained unless it is finished."""
    return train_together(prepare, [args])[0]


def train_together(prepare: Prepare, runs: list[Namespace]) -> list[dict]:
    """The scores of several runs; the unfinished ones share what they compute of a batch.

    A run that sees or learns something of its own is trained by itself, after the others.
    """
    alone = [k for k, args in enumerate(runs) if shares_nothing(args)]
    together = [k for k in range(len(runs)) if k not in alone]
    done: dict[int, dict] = {}
    for places in filter(None, (together, *([k] for k in alone))):
        scores = train_sharing(prepare, [runs[k] for k in places])
        done |= zip(places, scores, strict=True)
    return [done[k] for k in range(len(runs))]


def shares_nothing(args: Namespace) -> bool:
    """Whether a run has patterns or a teacher of its own, which are learned by its seed."""
    labels = getattr(args, "labels", None)
    adapts = labels is not None and LABELS[labels].teacher_labels is not None
    assists = getattr(args, "assistant", False)
    return getattr(args, "ordering", None) == "learned" or adapts or assists


def train_sharing(prepare: Prepare, runs: list[Namespace]) -> list[dict]:
    """The scores of runs of the same images, physics and teachers, which share all of them."""
    outcomes: list[Fit | dict] = []
    for args in runs:
        companion = next((fit for fit in outcomes if isinstance(fit, Fit)), None)
        try:
            outcomes.append(prepare(args, companion))
        except Finished as finished:
            outcomes.append(finished.scores)
    scores = iter(train([fit for fit in outcomes if isinstance(fit, Fit)]))
    return [next(scores) if isinstance(outcome, Fit) else outcome for outcome in outcomes]


def run_seeds(prepare: Prepare, args: Namespace, score: str) -> dict:
    """One run, or one for each of --seeds, with the mean and deviation of a score."""
    return over_seeds(lambda runs: train_together(prepare, runs), args, score)


def over_seeds(
    train_runs: Callable[[list[Namespace]], list[dict]], args: Namespace, score: str
) -> dict:
    """The same where `train_runs` trains several runs.

    With --data_seed the runs see the same batches, and are trained together.
    """
    if not args.seeds:
        return train_runs([args])[0]
    runs = []
    for seed in args.seeds:
        name = args.run_name and f"{args.run_name}_seed_{seed}"
        runs.append(Namespace(**vars(args) | {"seed": seed, "run_name": name}))
    together = [[run] for run in runs] if args.data_seed is None else [runs]
    done = [scores for some in together for scores in train_runs(some)]
    if args.dry_run:
        return {}
    scores = [run[score] for run in done]
    print(
        f"{score.replace('val_', 'validation ')}: {mean_and_deviation(scores)} over seeds "
        f"{', '.join(map(str, args.seeds))}"
    )
    return {
        "runs": done,
        score: statistics.mean(scores),
        "checkpoints": [run["checkpoint"] for run in done],
    }


def mean_and_deviation(values: list[float], sign: str = "") -> str:
    deviation = f" ± {statistics.stdev(values):.2f} (n = {len(values)})" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"
