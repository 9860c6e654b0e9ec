"""The flags that scripts share, one group a noun; importing this costs nothing."""

from argparse import BooleanOptionalAction, Namespace
from collections.abc import Callable

from core import checks
from core.ending import run
from core.errors import UserError
from core.inputs import check_data, checkpoint_file, folder_to_write
from core.parser import (
    EPOCHS,
    Distinct,
    Parser,
    Several,
    assignment,
    counting,
    decay,
    decibels,
    degradation,
    gain,
    gamma,
    name,
    natural,
    noise_level,
    not_negative,
    one_of,
    ordering,
    physics_of,
    positive,
    ratio,
    selection,
    share,
    side,
    sigma,
    weighted,
    within,
)
from core.registry import (
    ALPHA_SCHEDULES,
    BALANCES,
    BATCH_NORMS,
    CLASS_LOSSES,
    CLASS_OPTIONS,
    CLASS_SELECTIONS,
    CLASSIFIED,
    CLASSIFIERS,
    CLUSTERS,
    DATASETS,
    DEGRADATIONS,
    DEMOS,
    EXPORTS,
    FIRST_IMAGES,
    KERNELS,
    LABELLED,
    LOSSES,
    MASK_TYPES,
    NETWORKS,
    OPTIMIZERS,
    ORDERINGS,
    PADDINGS,
    PHYSICS,
    PREPARE_EPOCHS,
    QUEUED,
    READERS,
    RESIZES,
    RESTORED,
    SCHEDULES,
    TASK_LOSSES,
    TRAINING,
    Entry,
)

__all__ = [
    "BALANCES",
    "CLASSIFIERS",
    "DEMOS",
    "EXPORTS",
    "LABELLED",
    "PHYSICS",
    "TRAINING",
    "Distinct",
    "UserError",
    "assignment",
    "gain",
    "name",
    "noise_level",
    "run",
    "side",
]  # for the scripts, beside what is defined here

# What may change between two calls without making them different experiments.
TECHNICAL = {
    "cache", "compile",
    "config", "device", "download", "dry_run", "num_workers", "on_bad_image", "overwrite", "results", "resume", "run_name", "save_every",
    "seeds", "tensorboard",
    "wandb", "wandb_project",
}  # fmt: skip


def checkpoints(*flags: str) -> Callable[[Namespace], None]:
    """A look at the files that flags name, before torch is imported to read them."""

    def check(args: Namespace) -> None:
        for flag in flags:
            given = getattr(args, flag)
            for path in [given] if isinstance(given, str) else given or ():
                checkpoint_file(path, "checkpoint" if flag == "checkpoints" else f"--{flag}")

    return check


def results_can_be_written(args: Namespace) -> None:
    if not (getattr(args, "dry_run", False) or getattr(args, "status", False)):
        folder_to_write(args.results, "--results")


def device_is_a_name(args: Namespace) -> None:
    checks.check_device(args.device)


def run_name_is_a_name(args: Namespace) -> None:
    if args.run_name:
        checks.check_run_name(args.run_name)


def add_device(parser: Parser, group) -> None:
    group.add_argument("--device", default="auto", help="auto, cpu (= -1), cuda, cuda:N (= N)")
    parser.checks.append(device_is_a_name)


def add_results(parser: Parser, group, default: str = "results") -> None:
    group.add_argument("--results", default=default, help="folder of everything that is written")
    parser.files.append(results_can_be_written)


def add_data(
    parser: Parser,
    n_default: int | None = 32,
    c_default: int | None = 1,
    crop_default: str | None = "center",
    limits=("train", "val", "test"),
    whole: bool = False,
    table: dict = DATASETS,
) -> None:
    group = parser.add_argument_group("data")
    names = {
        "type": one_of(table, "dataset"),
        "default": next(iter(table)),
        "help": f"one of {', '.join(table)}",
    }
    group.add_argument("--dataset", **names)
    group.add_argument(
        "--data_root",
        default="data",
        help="folder of the data set's files; the file itself for npz",
    )
    group.add_argument(
        "--download", action="store_true", help="fetch a torchvision data set that is not there"
    )
    broken = "picture files that are broken or smaller than half of n: name one and stop, or leave them out"
    group.add_argument("--on_bad_image", choices=("stop", "skip"), default="stop", help=broken)
    group.add_argument(
        "--n", type=within(2, 4096, int), default=n_default, help="side of the images in pixels"
    )
    group.add_argument(
        "--c",
        type=int,
        choices=(1, 3),
        default=c_default,
        help="channels: grey or RGB; transparent pixels lie over white",
    )
    crops = {"center": "the central square, resized", "none": "the picture, resized"}
    if whole:
        crops["whole"] = "folder's pictures in their own sizes, all of them"
    group.add_argument(
        "--crop",
        choices=crops,
        default=crop_default,
        help="; ".join(f"{name}: {what}" for name, what in crops.items()),
    )
    add_pairs(parser, group, table)

    def flags_are_read(args: Namespace) -> None:
        for flag, readers in READERS.items():
            needed = args.dataset in readers or (
                flag == "download" and getattr(args, "pretrained", False)
            )
            if getattr(args, flag) != parser.get_default(flag) and not needed:
                parser.error(
                    f"dataset '{args.dataset}' does not read --{flag}: {', '.join(name for name in readers if name in table)} do"
                )

    parser.rules.append(flags_are_read)
    parser.files.append(check_data)
    for split in limits:
        group.add_argument(
            f"--limit_{split}",
            type=counting,
            help=f"use only so many {split} images, a fixed random subset",
        )


def add_pairs(parser: Parser, group, table: dict) -> None:
    lines = {name: line for name, line in table.items() if isinstance(line, Entry)}
    if not lines:
        return
    parser.choosers["dataset"] = {
        name: lines.get(name) or Entry(line, {}) for name, line in table.items()
    }
    group.add_argument(
        "--gt", metavar="DIR", help=f"clean pictures of pairs {defaults_of('gt', lines)}"
    )
    group.add_argument(
        "--lq",
        metavar="DIR",
        help=f"their degraded pictures, which a network sees {defaults_of('lq', lines)}",
    )
    group.add_argument(
        "--pairs",
        metavar="FILE",
        help=f"'gt_name, lq_name' or one name for both a line {defaults_of('pairs', lines)}",
    )
    group.add_argument(
        "--unpaired",
        metavar="DIR|FILE",
        help=f"clean pictures that --physics degrades, a folder or a list with a path a line {defaults_of('unpaired', lines)}",
    )
    group.add_argument(
        "--paired_share",
        type=within(0, 1),
        help=f"of pairs among the training items {defaults_of('paired_share', lines)}",
    )


BARE = ("n", "cr", "ordering", "scales", "width", "padding")  # what a bare file may have to be told


def add_bare(parser: Parser, n: bool = False) -> None:
    group = parser.add_argument_group(
        "what a bare release .pth does not tell; must agree with any other checkpoint"
    )
    if n:
        group.add_argument("--n", type=within(2, 4096, int), help="side of the images in pixels")
    group.add_argument("--cr", type=ratio, help="ratio")
    group.add_argument("--ordering", type=ordering, help="ordering; the release's was strip")
    group.add_argument("--scales", type=within(2, 5, int), help="resolutions of the U-Net")
    group.add_argument("--width", type=counting, help="channels at full resolution")
    group.add_argument(
        "--padding", type=one_of(PADDINGS, "padding"), help="padding of the convolutions"
    )


def add_scoring(parser: Parser) -> None:
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--crop_border", type=natural, default=0, metavar="PIXELS", help="left out at every border"
    )
    group.add_argument("--y_channel", action="store_true", help="the luma of RGB images alone")


def add_evaluation(parser: Parser):
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--awgn_snr",
        type=noise_level,
        nargs="+",
        action=Distinct,
        help="noise levels in dB, or none; the checkpoint's own without it",
    )
    group.add_argument(
        "--sigma",
        type=sigma,
        nargs="+",
        action=Distinct,
        help="noise levels of a denoiser's camera, on the 0..255 scale",
    )
    group.add_argument("--seed", type=natural, default=42, help="of the noise")
    add_device(parser, group)
    add_results(parser, group)
    group.add_argument(
        "--config", metavar="FILE", help="JSON or YAML of these flags; the command line wins"
    )
    return group


def add_loading(parser: Parser) -> None:
    group = parser.add_argument_group("loading")
    group.add_argument("--batch_size", type=counting, default=16, help="images a step")
    group.add_argument(
        "--num_workers", type=natural, default=0, help="processes that load data; 0 is the main one"
    )


def defaults_of(flag: str, table: dict) -> str:
    """For the help: which entries of a table read a flag, and with what default."""
    defaults = {name: entry.flags[flag] for name, entry in table.items() if flag in entry.flags}
    return f"({', '.join(name if default in (..., None) else f'{name} {default}' for name, default in defaults.items())})"


def add_patterns(parser: Parser) -> None:
    group = parser.add_argument_group("patterns")
    group.add_argument(
        "--ordering", type=ordering, default="xy", help=f"{', '.join(ORDERINGS)} or file:PATH.npy"
    )


def add_physics(parser: Parser, table: dict = RESTORED, default: str = "spc") -> None:
    """The camera: the flags of every physics; which of them are read, the table says."""
    parser.choosers["physics"] = table

    def pairs_are_given(args: Namespace) -> None:
        if args.dataset == "paired" and args.physics != "given":
            parser.error(
                f"dataset 'paired' brings its degraded pictures: it goes with --physics given, not {args.physics}"
            )

    def side_is_measured(args: Namespace) -> None:
        if parser.demanding:  # else a checkpoint may say what the camera is
            checks.check_physics_side(args)

    parser.rules.append(pairs_are_given)
    parser.checks.append(side_is_measured)
    group = parser.add_argument_group(
        "physics; in brackets the physics that read a flag, and their defaults"
    )
    group.add_argument(
        "--physics",
        type=physics_of(table),
        default=default,
        help=f"what a network sees: {', '.join(table)}",
    )

    def add(flag: str, text: str, **how) -> None:
        if any(flag[2:] in entry.flags for entry in table.values()):
            group.add_argument(flag, help=f"{text} {defaults_of(flag[2:], table)}", **how)

    ratios = group.add_mutually_exclusive_group()
    how = {"dest": "cr", "type": ratio, "nargs": "+", "action": Several, "metavar": "CR"}
    ratios.add_argument(
        "--cr",
        "--cr_student",
        **how,
        help=f"measurements / pixels, in (0, 1] {defaults_of('cr', table)}",
    )
    ratios.add_argument(
        "--crs_expert",
        **how,
        help="a mixture: one network for several ratios, one of them drawn for every batch",
    )
    add("--ordering", type=ordering, text=f"{', '.join(ORDERINGS)} or file:PATH.npy")
    add(
        "--sigma",
        type=sigma,
        nargs="+",
        action=Several,
        text="noise on the 0..255 scale; of a range, drawn for each image",
    )
    add(
        "--factor", type=within(2, 16, int), text="how many times smaller the image is along a side"
    )
    add("--kernel", type=one_of(KERNELS, "kernel"), text=f"one of {', '.join(KERNELS)}")
    add(
        "--blur_width",
        type=positive,
        text="pixels: the deviation of a Gaussian, the side of a box, the length of a motion",
    )
    add("--acceleration", type=within(2, 64, int), text="how many times fewer lines of k-space")
    add(
        "--mask_type",
        type=one_of(MASK_TYPES, "mask_type"),
        text=f"lines beside the central ones: {', '.join(MASK_TYPES)}",
    )
    add(
        "--degradation",
        type=degradation,
        text=f"how strong: {', '.join(DEGRADATIONS)}, or file:PATH.yml with values of your own",
    )
    add("--lessen_ratio", type=within(1, 4096), text="how many times smaller along a side")
    add("--resize", type=one_of(RESIZES, "resize"), text=f"one of {', '.join(RESIZES)}")
    add("--x0", type=one_of(FIRST_IMAGES, "first image"), text="first image: adjoint or lmmse")
    add(
        "--awgn_snr",
        type=decibels,
        text="dB of signal to noise on the measurements; none without it",
    )


def add_network(parser: Parser, student: bool = False) -> None:
    """The network: the flags of every one; which of them are read, the table says."""
    parser.choosers["network"] = NETWORKS
    group = parser.add_argument_group("network (the student's)" if student else "network")

    def add(flag: str, text: str, **how) -> None:
        flags = (f"--{flag}", f"--student_{flag}") if student else (f"--{flag}",)
        readers = "" if flag == "network" else f" {defaults_of(flag, NETWORKS)}"
        group.add_argument(*flags, dest=flag, help=text + readers, **how)

    add(
        "network",
        type=one_of(NETWORKS, "network"),
        default="unet",
        text=f"one of {', '.join(NETWORKS)}",
    )
    add("scales", type=within(2, 5, int), text="resolutions")
    add("width", type=counting, text="channels at full resolution, doubled at each further one")
    add("features", type=counting, text="channels of all blocks")
    add("blocks", type=counting, text="blocks, or blocks a resolution")
    add("growth", type=counting, text="channels that each convolution of a dense block adds")
    add(
        "batch_norm",
        type=one_of(BATCH_NORMS, "batch_norm"),
        text=f"one of {', '.join(BATCH_NORMS)}",
    )
    add("padding", type=one_of(PADDINGS, "padding"), text=f"one of {', '.join(PADDINGS)}")


def add_training(
    parser: Parser, pictures: bool = True, lr: float = 2e-3, several: bool = True
) -> None:
    group = parser.add_argument_group("training")
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        "--iters",
        type=counting,
        help=f"passes over the training images, or K of them with --repeat; {EPOCHS} without --steps",
    )
    length.add_argument("--steps", type=counting, help="updates, instead of epochs")
    group.add_argument(
        "--repeat",
        type=counting,
        default=1,
        metavar="K",
        help="passes over the training images an epoch, each in its own order and augmentation",
    )
    group.add_argument(
        "--val_every", type=counting, help="updates between validations; an epoch without it"
    )
    group.add_argument(
        "--save_every",
        type=counting,
        help="updates between saves of the state to resume from, beside those after validations",
    )
    group.add_argument("--log_every", type=counting, help="updates between lines with the loss")
    if pictures:
        group.add_argument(
            "--save_images",
            type=natural,
            default=0,
            help="validation images drawn after every validation",
        )
    group.add_argument(
        "--accumulate", type=counting, default=1, help="batches of --batch_size an update"
    )
    group.add_argument(
        "--gradient_checkpointing",
        action="store_true",
        help="compute features again in the backward pass to save memory",
    )
    group.add_argument("--lr", type=positive, default=lr, help="highest learning rate")
    group.add_argument(
        "--optimizer",
        type=one_of(OPTIMIZERS, "optimizer"),
        default="adamw",
        help=f"one of {', '.join(OPTIMIZERS)}",
    )
    parser.choosers["optimizer"] = OPTIMIZERS
    group.add_argument(
        "--betas",
        type=decay,
        nargs=2,
        help=f"decays of Adam's two averages of the gradient {defaults_of('betas', OPTIMIZERS)}",
    )
    group.add_argument(
        "--weight_decay",
        type=not_negative,
        default=1e-4,
        help="decoupled for adamw, coupled for adam and sgd",
    )
    parser.choosers["schedule"] = SCHEDULES
    group.add_argument(
        "--schedule",
        type=one_of(SCHEDULES, "schedule"),
        default="cosine",
        help=f"of the learning rate: {', '.join(SCHEDULES)}",
    )
    group.add_argument(
        "--milestones",
        type=share,
        nargs="+",
        help=f"parts of the training after warm-up when it falls {defaults_of('milestones', SCHEDULES)}",
    )
    group.add_argument(
        "--lr_gamma",
        type=positive,
        help=f"what it is multiplied by {defaults_of('lr_gamma', SCHEDULES)}",
    )
    group.add_argument("--warmup", type=not_negative, default=0.5, help="epochs of linear warm-up")
    group.add_argument(
        "--ema",
        type=decay,
        default=0.0,
        help="decay of a moving average of the weights; 0 is none",
    )
    group.add_argument(
        "--grad_clip",
        type=not_negative,
        default=1.0,
        help="largest norm of the gradient; 0 is no limit",
    )
    seeds = group.add_mutually_exclusive_group()
    # The default is a word, so that the same number counts as given where it is given.
    seeds.add_argument(
        "--seed", type=natural, default="42", help="of weights, order, augmentation and noise"
    )
    if several:
        seeds.add_argument(
            "--seeds",
            type=natural,
            nargs="+",
            action=Distinct,
            help="one run each, instead of --seed; ends with mean ± std",
        )
    group.add_argument(
        "--data_seed",
        type=natural,
        help="of order, augmentation and noise; with --seeds one for all, which train together",
    )
    types = ("auto", "bf16", "fp16", "off")
    group.add_argument(
        "--amp",
        choices=types,
        default="off",
        help="type of the convolutions; auto: what the device has units for",
    )
    group.add_argument(
        "--compile", action="store_true", help="networks as torch.compile makes them"
    )
    group.add_argument(
        "--cache",
        type=not_negative,
        default=2.0,
        metavar="GiB",
        help="room for what never changes: observations, teachers' answers",
    )
    add_device(parser, group)


def add_run(parser: Parser) -> None:
    group = parser.add_argument_group("run")
    add_results(parser, group)
    group.add_argument(
        "--run_name", help="name of the run folder; made from the configuration without it"
    )
    parser.checks.append(run_name_is_a_name)
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a run or an exported file of another configuration",
    )
    group.add_argument(
        "--resume",
        action=BooleanOptionalAction,
        default=True,
        help="go on with an unfinished run, else start again",
    )
    group.add_argument(
        "--wandb",
        choices=("auto", "online", "offline", "disabled"),
        default="auto",
        help="auto is online where logged in",
    )
    group.add_argument("--wandb_project", default="DistillPool", help="project at Weights & Biases")
    group.add_argument(
        "--tensorboard", action="store_true", help="write its files into the run folder"
    )
    group.add_argument(
        "--config", metavar="FILE", help="JSON or YAML of these flags; the command line wins"
    )
    group.add_argument(
        "--dry_run", action="store_true", help="print the resolved configuration and stop"
    )


def add_cluster(parser: Parser) -> None:
    """Where jobs are queued instead of run, and what they ask for there."""
    parser.choosers["cluster"] = {None: Entry("", {})} | CLUSTERS

    def cluster_is_given(args: Namespace) -> None:
        for flag in QUEUED:
            if args.cluster is None and getattr(args, flag) is not None:
                parser.error(f"--{flag} is read with --cluster only: {', '.join(CLUSTERS)}")

    parser.rules.append(cluster_is_given)
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster",
        type=one_of(CLUSTERS, "cluster"),
        help=f"queue the jobs instead of running them: {', '.join(CLUSTERS)}",
    )
    group.add_argument(
        "--time",
        metavar="HH:MM:SS",
        help="limit of a job, which is queued again where it was not enough",
    )
    group.add_argument("--partition", help="or queue; the cluster's default without it")
    group.add_argument("--memory", help="of a job, such as 16G; the cluster's default without it")
    group.add_argument("--gpus", type=natural, help=f"of a job ({QUEUED['gpus']} without it)")
    group.add_argument("--cpus", type=counting, help=f"of a job ({QUEUED['cpus']} without it)")
    group.add_argument(
        "--environment",
        action="append",
        metavar="LINE",
        help="of shell, before a job; may be repeated: 'source .venv/bin/activate'",
    )
    group.add_argument(
        "--signal_before",
        type=counting,
        help=f"seconds before the limit when a job begins to save ({QUEUED['signal_before']} without it)",
    )


def add_distillation(parser: Parser) -> None:
    parser.checks.append(checks.check_distillation)
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--type_dist",
        type=selection,
        default="output_latent",
        help="taps to compare: 0..12 or a name",
    )
    group.add_argument(
        "--loss_distill",
        type=weighted(LOSSES),
        nargs="+",
        default=["mse"],
        metavar="NAME[:WEIGHT]",
        help=f"of {', '.join(LOSSES)}",
    )
    group.add_argument(
        "--loss_gt",
        type=one_of(TASK_LOSSES, "loss"),
        default="mae",
        help="task loss against the target",
    )
    add_alpha(parser, group)
    group.add_argument("--beta", type=not_negative, default=1.0, help="multiplies the task loss")
    group.add_argument(
        "--gamma", type=gamma, help="kernel width of comb_matrix: a number or auto (its default)"
    )
    group.add_argument("--temperature", type=positive, help="of soft (4 without it)")
    add_style(group)
    group.add_argument(
        "--sup_loss",
        type=int,
        choices=(0, 1),
        default=1,
        help="target: 1 the image, 0 the teacher's output",
    )
    group.add_argument(
        "--awgn_teacher",
        action="store_true",
        help="noise of --awgn_snr on the teacher's measurements too",
    )


def add_alpha(parser: Parser, group) -> None:
    group.add_argument(
        "--alpha",
        type=not_negative,
        default=1.0,
        help="multiplies the distillation losses and their weights",
    )
    parser.choosers["alpha_schedule"] = ALPHA_SCHEDULES
    names = ", ".join(ALPHA_SCHEDULES)
    group.add_argument(
        "--alpha_schedule",
        type=one_of(ALPHA_SCHEDULES, "schedule"),
        default="constant",
        help=f"how alpha changes: {names}",
    )
    group.add_argument(
        "--alpha_milestones",
        type=share,
        nargs="+",
        help=f"parts of the training {defaults_of('alpha_milestones', ALPHA_SCHEDULES)}",
    )
    group.add_argument(
        "--alpha_gamma",
        type=not_negative,
        help=f"what alpha is multiplied by {defaults_of('alpha_gamma', ALPHA_SCHEDULES)}",
    )
    group.add_argument(
        "--alpha_warmup",
        type=share,
        help=f"part of the training in which alpha grows {defaults_of('alpha_warmup', ALPHA_SCHEDULES)}",
    )
    group.add_argument(
        "--shuffle_teacher",
        action="store_true",
        help="a control: each image is taught what the teacher makes of another one",
    )


def add_style(group) -> None:
    group.add_argument(
        "--style_weight",
        type=not_negative,
        help="of the Gram matrices in perceptual (0 without it)",
    )


def add_labelled(parser: Parser, limits=("train", "val", "test"), **defaults) -> None:
    add_data(parser, limits=limits, table=LABELLED, **defaults)


def add_classifier(parser: Parser) -> None:
    """The classifier; `--model` names it."""
    parser.choosers["network"] = CLASSIFIERS
    group = parser.add_argument_group("classifier")

    def add(flag: str, text: str, **how) -> None:
        group.add_argument(f"--{flag}", help=f"{text} {defaults_of(flag, CLASSIFIERS)}", **how)

    group.add_argument(
        "--model",
        dest="network",
        type=one_of(CLASSIFIERS, "model"),
        default="resnet8",
        help=f"one of {', '.join(CLASSIFIERS)}",
    )
    add(
        "width",
        type=counting,
        text="channels of the first stage; 64 is the published network, 16 of CIFAR's",
    )
    add(
        "stem",
        choices=("auto", "large", "small"),
        text="large: 7 x 7, stride 2 and pooling; small: 3 x 3; auto is small below 64 pixels",
    )
    add("batch_norm", choices=("on", "off"), text="normalisation")
    add("patch", type=counting, text="pixels of a patch along a side")
    add(
        "pretrained",
        action=BooleanOptionalAction,
        text="begin with the published weights, from the cache or with --download",
    )
    group.add_argument(
        "--label_smoothing",
        type=within(0, 1),
        default=0.0,
        help="share of the target that is spread over all classes",
    )
    group.add_argument(
        "--augment",
        action=BooleanOptionalAction,
        default=True,
        help="shifts, and mirror images but of digits, in training",
    )


def add_class_training(parser: Parser) -> None:
    """What the trainings of classifiers have in common."""
    add_labelled(parser, limits=("train", "val"))
    add_loading(parser)
    add_physics(parser, CLASSIFIED, "image")
    add_classifier(parser)
    add_training(parser, pictures=False, lr=1e-3)
    add_run(parser)


def add_class_distillation(parser: Parser) -> None:
    parser.checks.append(checks.check_class_distillation)
    group = parser.add_argument_group("distillation")
    losses = ", ".join(CLASS_LOSSES)
    group.add_argument(
        "--loss_distill",
        type=weighted(CLASS_LOSSES),
        nargs="+",
        metavar="NAME[:WEIGHT]",
        help=f"of {losses}; kd without it",
    )
    group.add_argument(
        "--type_dist",
        type=one_of(CLASS_SELECTIONS, "selection"),
        help=f"taps of losses on features: {', '.join(CLASS_SELECTIONS)}",
    )
    group.add_argument(
        "--beta", type=not_negative, help="multiplies the cross-entropy; 1 without it"
    )
    group.add_argument(
        "--balance",
        type=one_of(BALANCES, "balance"),
        help=f"of labels and teacher, as published: {told_balances()}",
    )
    add_alpha(parser, group)
    kinds = {"gamma": gamma, "crd_negatives": counting, "tucker_ranks": share, "ft_rate": share}
    choices = {"tucker_space": ("core", "projected"), "tucker_over": ("batch", "sample")}
    for option, value in CLASS_OPTIONS.items():
        readers = ", ".join(name for name, loss in CLASS_LOSSES.items() if option in loss.options)
        how = (
            {"choices": choices[option]}
            if option in choices
            else {"type": kinds.get(option, not_negative)}
        )
        how = {"action": BooleanOptionalAction} if isinstance(value, bool) else how
        group.add_argument(
            f"--{option}", help=f"of {readers} ({value} without it)", default=None, **how
        )
    group.add_argument(
        "--prepare_epochs",
        type=counting,
        help=f"passes in which ft's paraphraser learns, before the student ({PREPARE_EPOCHS} without it)",
    )


def told_balances() -> str:
    return "; ".join(
        f"{name}: beta {b['beta']:g}, {' '.join(b['loss_distill'])}, temperature {b['temperature']:g}"
        for name, b in BALANCES.items()
    )


def add_class_teacher(parser: Parser) -> None:
    parser.files.append(checkpoints("teacher"))
    group = parser.add_argument_group("teacher")
    group.add_argument(
        "--teacher", metavar="PATH", nargs="+", required=True, help="its checkpoint, or several"
    )
    group.add_argument(
        "--teacher_weights",
        type=positive,
        nargs="+",
        metavar="WEIGHT",
        help="of several teachers; equal, summing to 1, without it",
    )
    group.add_argument(
        "--assistant",
        action="store_true",
        help="first the teacher's network learns to see as the student does, then it teaches",
    )


def add_teacher(
    parser: Parser, what: str = "its checkpoint; else the exported UNET_cr_<cr_teacher>.pth"
) -> None:
    parser.files.append(checkpoints("teacher"))
    group = parser.add_argument_group("teacher")
    group.add_argument("--teacher", metavar="PATH", help=what)
    ratios = group.add_mutually_exclusive_group()
    for flag in ("--cr_teacher", "--crs_expert_teacher"):
        ratios.add_argument(
            flag,
            dest="cr_teacher",
            type=ratio,
            nargs="+",
            action=Several,
            metavar="CR",
            help="its ratio; several are a mixture's",
        )
    group.add_argument(
        "--ordering_teacher",
        type=ordering,
        help="its ordering, only for a release .pth that does not tell",
    )


# Flags that came later, and the values that stand for what was done before there were any: with
# these a run is the one that it was, so that an older run folder goes on.
LATER = {"betas": (None, [0.9, 0.999]), "repeat": (1,)}


def identity(args: Namespace) -> dict:
    """The settings that make a run what it is."""
    return {
        name: value
        for name, value in sorted(vars(args).items())
        if name not in TECHNICAL and value not in LATER.get(name, ())
    }
