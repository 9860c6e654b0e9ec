"""The whole story in one command: a teacher, a student alone and a distilled student, for images or for classes."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.choosers["task"] = flags.STORIES
    stories = ", ".join(flags.STORIES)
    parser.add_argument(
        "--task",
        type=flags.one_of(flags.STORIES, "task"),
        default="reconstruct",
        help=f"one of {stories}; in brackets who reads a flag",
    )

    def add(flag: str, text: str, **how) -> None:
        parser.add_argument(
            flag, help=f"{text} {flags.defaults_of(flag[2:], flags.STORIES)}", **how
        )

    add("--cr", "the students' ratio", type=flags.ratio)
    add("--cr_teacher", "the teacher's ratio", type=flags.ratio)
    add("--dataset", "labelled images", type=flags.one_of(flags.LABELLED, "dataset"))
    add("--data_root", "their folder")
    add("--n", "side of the images in pixels", type=flags.within(2, 4096, int))
    add("--c", "channels: grey or RGB", type=int, choices=(1, 3))
    add("--model_teacher", "the teacher", type=flags.one_of(flags.CLASSIFIERS, "model"))
    add("--model", "the students", type=flags.one_of(flags.CLASSIFIERS, "model"))
    add("--balance", "of labels and teacher", type=flags.one_of(flags.BALANCES, "balance"))
    add(
        "--lessen_ratio",
        "how many times smaller the students' images are along a side",
        type=flags.within(1, 4096),
    )
    add(
        "--loss_distill",
        "what is compared",
        type=flags.weighted(flags.CLASS_LOSSES),
        nargs="+",
        action=flags.Distinct,
        metavar="NAME[:WEIGHT]",
    )
    seeds = {"type": flags.natural, "nargs": "+", "action": flags.Distinct}
    add("--seeds", "of the students; the teacher's is 0", **seeds)
    add("--seed", "of weights, order and augmentation", type=flags.natural)
    add("--epochs", "passes over the training images, for each network", type=flags.counting)
    add("--width", "channels of the networks at full resolution", type=flags.counting)
    add("--pictures", "test images in the figure", type=flags.within(1, 12, int))
    parser.add_argument(
        "--limit_train", type=flags.counting, help="use only so many training images"
    )
    flags.add_device(parser, parser)
    flags.add_results(parser, parser, "results/demo")
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    import time
    from pathlib import Path

    from core import runtime
    from core.registry import look_up

    began = time.perf_counter()
    device = runtime.start(args.device)
    folder = Path(args.results)
    commands = {"reconstruct": images, "classify": classes, "benchmark": losses}[args.task](args)
    shared = ["--epochs", args.epochs, "--device", args.device, "--results", folder]
    shared += ["--overwrite"]  # another demo's networks in the same folder
    shared += ["--limit_train", args.limit_train] if args.limit_train else []
    lines = {
        name: (script, [str(word) for word in flags + shared])
        for name, (script, flags) in commands.items()
    }
    for script, words in lines.values():
        script.parse(words)  # a wrong one is said before the first network is trained
    trained = {}
    for name, (script, words) in lines.items():
        words = [trained.get(word, word) for word in words]
        print(f"\n{name}: python {script.__name__}.py {' '.join(words)}")
        done = script.main(script.parse(words))
        trained[name] = done.get("checkpoint") or done["checkpoints"]
    result = look_up(flags.STORIES, args.task, "task")(trained, args, folder, device)
    print(
        f"{folder}/table.csv, figure.png, report.md written; {time.perf_counter() - began:.0f} s in all"
    )
    return result


def images(args) -> dict:
    """A teacher that measures much, and students that measure little."""
    import main_unet
    import main_unet_dist

    how = ["--width", args.width, "--seed", args.seed]
    return {
        f"teacher, cr {args.cr_teacher:g}": (main_unet, ["--cr", args.cr_teacher, *how]),
        f"student alone, cr {args.cr:g}": (main_unet, ["--cr", args.cr, *how]),
        f"student distilled, cr {args.cr:g}": (
            main_unet_dist,
            ["--cr", args.cr, "--cr_teacher", args.cr_teacher, *how],
        ),
    }


def model(name: str, args) -> list:
    """The flags of a classifier, which need not have a width."""
    return [
        "--model",
        name,
        *(["--width", args.width] if "width" in flags.CLASSIFIERS[name].flags else []),
    ]


def classes(args) -> dict:
    """A large classifier, and small ones."""
    import main_classify
    import main_classify_dist

    data = [
        "--dataset",
        args.dataset,
        "--data_root",
        args.data_root,
        "--n",
        args.n,
        "--c",
        args.c,
        "--seed",
        args.seed,
    ]
    teacher, student = f"teacher, {args.model_teacher}", [*model(args.model, args), *data]
    return {
        teacher: (main_classify, [*model(args.model_teacher, args), *data]),
        f"student alone, {args.model}": (main_classify, student),
        f"student distilled, {args.model}": (
            main_classify_dist,
            [*student, "--teacher", teacher, "--balance", args.balance],
        ),
    }


def losses(args) -> dict:
    """One teacher of large images; students of small ones, alone and with every loss, for every seed."""
    import main_classify
    import main_classify_dist

    data = ["--dataset", args.dataset, "--data_root", args.data_root, "--n", args.n, "--c", args.c]
    student = [
        *model(args.model, args),
        *data,
        "--lessen_ratio",
        args.lessen_ratio,
        "--seeds",
        *args.seeds,
    ]
    taught = {
        loss: (main_classify_dist, [*student, "--teacher", "teacher", "--loss_distill", loss])
        for loss in args.loss_distill
    }
    return {
        "teacher": (main_classify, [*model(args.model_teacher, args), *data, "--seed", 0]),
        "alone": (main_classify, student),
    } | taught


if __name__ == "__main__":
    flags.run(parse, main)
