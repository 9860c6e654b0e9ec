"""The flags of training, runs, and cluster jobs."""

from argparse import BooleanOptionalAction, Namespace

from cli import checks
from cli.data_flags import defaults_of
from core.inputs import check_device, folder_to_write
from core.registry import CLUSTERS, LIGHT, OPTIMIZERS, QUEUED, RECIPES, SCHEDULES, Entry
from parsing.parser import EPOCHS, Distinct, Parser
from parsing.values import counting, decay, natural, not_negative, one_of, positive, share

# Flags that do not change what is computed.
TECHNICAL = {
    "command_line",  # the words of a call that was not typed, which `with_command` adds
    "cache",
    "code",
    "calibration",  # its values are those of flags
    "compile",
    "config",
    "answers",
    "device",
    "download",
    "dry_run",
    "num_workers",
    "on_bad_image",
    "overwrite",
    "results",
    "resume",
    "run_name",
    "save_every",
    "seeds",
    "tensorboard",
    "recipe",  # it is its flags
    "wandb",
    "wandb_project",
    "weights",  # they are written behind the names of the losses
}

# Run folders of earlier versions are resumed: a later flag is left out of a run's identity at the
# values of what was done before, and a renamed flag keeps its old name there.
LATER = {
    "betas": (None, [0.9, 0.999]),
    "repeat": (1,),
    "noise": (None,),
    "labels": (None,),
    "measurement_weight": (None,),
    "measurement_part": (None,),
    "truth": (None,),
    "stages": (None,),
    "share": (None,),
    "consistency": ("none",),
    "dist_part": ("all",),
    "block": (None,),
    "cr_range": (None,),
    "set": (None,),
    "layers": (None,),
    "limit_labels": (None,),
    "subset_seed": (0,),
    "self_ensemble": (False,),
    **{name: (None, default) for name, default in LIGHT.items()},
}
RENAMED = {"channels": "features"}


def with_command(args: Namespace, script: str, words: list[str]) -> Namespace:
    """The flags of a script that another one calls, and the command that would be typed."""
    return Namespace(**vars(args) | {"command_line": [f"{script}.py", *words]})


def identity(args: Namespace) -> dict:
    """The settings that distinguish a run from others."""
    settings = {RENAMED.get(name, name): value for name, value in vars(args).items()}
    return {
        name: value
        for name, value in sorted(settings.items())
        if name not in TECHNICAL and value not in LATER.get(name, ())
    }


def changes(parser: Parser, args: Namespace) -> dict:
    """The settings that distinguish a run from others, where they are not at their defaults."""
    known = {RENAMED.get(name, name): value for name, value in parser.changes(args).items()}
    return {name: value for name, value in identity(args).items() if name in known}


def check_device_name(args: Namespace) -> None:
    check_device(args.device)


def check_results(args: Namespace) -> None:
    if not (getattr(args, "dry_run", False) or getattr(args, "status", False)):
        folder_to_write(args.results, "--results")


def check_name(args: Namespace) -> None:
    if args.run_name:
        checks.check_run_name(args.run_name)


def add_device(parser: Parser, group) -> None:
    group.add_argument("--device", default="auto", help="auto, cpu (= -1), cuda, cuda:N (= N)")
    parser.checks.append(check_device_name)


def add_results(parser: Parser, group, default: str = "results") -> None:
    group.add_argument("--results", default=default, help="folder for everything that is written")
    parser.files.append(check_results)


def add_config(group) -> None:
    group.add_argument(
        "--config",
        metavar="FILE",
        help="JSON or YAML file with values of these flags; the command line overrides it",
    )


def add_training(
    parser: Parser, pictures: bool = True, lr: float = 2e-3, several: bool = True
) -> None:
    group = parser.add_argument_group("training")
    add_length(group, pictures)
    if pictures:
        add_recipe(parser, group)
    add_optimization(parser, group, lr)
    seeds = group.add_mutually_exclusive_group()
    # The default is a word, so that argparse notices the same number on the command line.
    seeds.add_argument(
        "--seed", type=natural, default="42", help="seed of weights, order, augmentation and noise"
    )
    if several:
        seeds.add_argument(
            "--seeds",
            type=natural,
            nargs="+",
            action=Distinct,
            help="train once with each seed, and print mean ± standard deviation",
        )
    group.add_argument(
        "--data_seed",
        type=natural,
        help="another seed of order, augmentation and noise; with --seeds all share it "
        "and train together",
    )
    group.add_argument(
        "--amp",
        choices=("auto", "bf16", "fp16", "off"),
        default="off",
        help="type that convolutions compute in; auto: the fastest one of the device",
    )
    group.add_argument(
        "--compile", action="store_true", help="compile the networks by torch.compile"
    )
    group.add_argument(
        "--cache",
        type=not_negative,
        default=2.0,
        metavar="GiB",
        help="memory for first images and teachers' features that are the same in every epoch",
    )
    add_device(parser, group)


def add_length(group, pictures: bool) -> None:
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs",
        "--iters",
        type=counting,
        help="number of epochs, each of one pass over the training images, or --repeat passes; "
        f"{EPOCHS} without --steps",
    )
    length.add_argument("--steps", type=counting, help="number of updates, instead of epochs")
    group.add_argument(
        "--repeat",
        type=counting,
        default=1,
        metavar="K",
        help="passes over the training images in an epoch, with their own order and augmentation",
    )
    group.add_argument(
        "--val_every", type=counting, help="updates between validations; without it an epoch"
    )
    group.add_argument(
        "--save_every",
        type=counting,
        help="updates after which the state to resume from is saved, as it is after validations",
    )
    group.add_argument(
        "--log_every", type=counting, help="updates between printed lines with the loss"
    )
    if pictures:
        group.add_argument(
            "--save_images",
            type=natural,
            default=0,
            help="validation images that are saved as a figure after every validation",
        )
    group.add_argument(
        "--accumulate",
        type=counting,
        default=1,
        help="batches of --batch_size images that make one update",
    )
    group.add_argument(
        "--gradient_checkpointing",
        action="store_true",
        help="save memory by computing features again in the backward pass",
    )


def add_recipe(parser: Parser, group) -> None:
    """How restorers are trained, by one word."""
    parser.presets["recipe"] = RECIPES
    named = ", ".join(f"--{name} {value}" for name, value in RECIPES["release"].items())
    group.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        default="ours",
        help=f"ours: the defaults; release: the settings of the original release, {named}, as far "
        "as this script has them; other flags overrule it",
    )


def add_optimization(parser: Parser, group, lr: float) -> None:
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
        help="weight decay, decoupled for adamw, coupled for adam and sgd",
    )
    parser.choosers["schedule"] = SCHEDULES
    group.add_argument(
        "--schedule",
        type=one_of(SCHEDULES, "schedule"),
        default="cosine",
        help=f"schedule of the learning rate: {', '.join(SCHEDULES)}",
    )
    group.add_argument(
        "--milestones",
        type=share,
        nargs="+",
        help="fractions of the training after warm-up at which the learning rate falls "
        f"{defaults_of('milestones', SCHEDULES)}",
    )
    group.add_argument(
        "--lr_gamma",
        type=positive,
        help=f"factor of the learning rate at milestones {defaults_of('lr_gamma', SCHEDULES)}",
    )
    group.add_argument("--warmup", type=not_negative, default=0.5, help="epochs of linear warm-up")
    group.add_argument(
        "--ema",
        type=decay,
        default=0.0,
        help="decay of a moving average of the weights; 0 is no average",
    )
    group.add_argument(
        "--grad_clip",
        type=not_negative,
        default=1.0,
        help="largest norm of the gradient; 0 is no limit",
    )


def add_run(parser: Parser) -> None:
    group = parser.add_argument_group("run")
    add_results(parser, group)
    group.add_argument(
        "--run_name", help="name of the run folder; without it the configuration makes one"
    )
    parser.checks.append(check_name)
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run of another configuration that has the same --run_name",
    )
    group.add_argument(
        "--resume",
        action=BooleanOptionalAction,
        default=True,
        help="resume an unfinished run; --no-resume trains it again",
    )
    group.add_argument(
        "--wandb",
        choices=("auto", "online", "offline", "disabled"),
        default="auto",
        help="Weights & Biases; auto is online after a login",
    )
    group.add_argument("--wandb_project", default="DistillPool", help="project at Weights & Biases")
    group.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard's files into the run folder"
    )
    add_config(group)
    group.add_argument(
        "--dry_run", action="store_true", help="print the resolved configuration and stop"
    )


def add_cluster(parser: Parser) -> None:
    """Where jobs are queued instead of run, and what they request there."""
    parser.choosers["cluster"] = {None: Entry(path="", flags={})} | CLUSTERS

    def check_cluster(args: Namespace) -> None:
        for flag in QUEUED:
            if args.cluster is None and getattr(args, flag) is not None:
                parser.error(f"--{flag} is read only with --cluster: {', '.join(CLUSTERS)}")

    parser.rules.append(check_cluster)
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster",
        type=one_of(CLUSTERS, "cluster"),
        help=f"queue the jobs instead of running them: {', '.join(CLUSTERS)}",
    )
    group.add_argument(
        "--time",
        metavar="HH:MM:SS",
        help="time limit of a job, which is queued again until it is finished",
    )
    group.add_argument("--partition", help="partition or queue; without it the cluster's default")
    group.add_argument(
        "--memory", help="memory of a job, such as 16G; without it the cluster's default"
    )
    group.add_argument("--gpus", type=natural, help=f"GPUs of a job; without it {QUEUED['gpus']}")
    group.add_argument(
        "--cpus", type=counting, help=f"CPU cores of a job; without it {QUEUED['cpus']}"
    )
    group.add_argument(
        "--environment",
        action="append",
        metavar="LINE",
        help="line of shell run before a job, such as 'source .venv/bin/activate'; may be repeated",
    )
    group.add_argument(
        "--signal_before",
        type=counting,
        help="seconds before the time limit at which a job begins to save; "
        f"without it {QUEUED['signal_before']}",
    )
