"""The whole story in one command: a teacher, a student alone and a distilled student, for images or for classes."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    parser.choosers["task"] = options.STORIES
    stories = ", ".join(options.STORIES)
    parser.add_argument(
        "--task",
        type=options.one_of(options.STORIES, "task"),
        default="reconstruct",
        help=f"one of {stories}; in brackets who reads a flag",
    )

    def add(flag: str, text: str, **how) -> None:
        parser.add_argument(
            flag, help=f"{text} {options.defaults_of(flag[2:], options.STORIES)}", **how
        )

    add("--cr", "the students' ratio", type=options.ratio)
    add("--cr_teacher", "the teacher's ratio", type=options.ratio)
    add("--dataset", "labelled images", type=options.one_of(options.LABELLED, "dataset"))
    add("--data_root", "their folder")
    add("--n", "side of the images in pixels", type=options.within(2, 4096, int))
    add("--c", "channels: grey or RGB", type=int, choices=(1, 3))
    add("--model_teacher", "the teacher", type=options.one_of(options.CLASSIFIERS, "model"))
    add("--model", "the students", type=options.one_of(options.CLASSIFIERS, "model"))
    add("--balance", "of labels and teacher", type=options.one_of(options.BALANCES, "balance"))
    add(
        "--lessen_ratio",
        "how many times smaller the students' images are along a side",
        type=options.within(1, 4096),
    )
    add(
        "--loss_distill",
        "what is compared",
        type=options.weighted(options.CLASS_LOSSES),
        nargs="+",
        action=options.Distinct,
        metavar="NAME[:WEIGHT]",
    )
    seeds = {"type": options.natural, "nargs": "+", "action": options.Distinct}
    add("--seeds", "of the students; the teacher's is 0", **seeds)
    add("--seed", "of weights, order and augmentation", type=options.natural)
    add("--epochs", "passes over the training images, for each network", type=options.counting)
    add("--width", "channels of the networks at full resolution", type=options.counting)
    add("--pictures", "test images in the figure", type=options.within(1, 12, int))
    parser.add_argument(
        "--limit_train", type=options.counting, help="use only so many training images"
    )
    options.add_device(parser, parser)
    options.add_results(parser, parser, "results/demo")
    return parser.parse_args(argv)


def main(args) -> dict:
    import time
    from pathlib import Path

    from tables import look_up
    from training import engine

    began = time.perf_counter()
    device = engine.start(args.device)
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
    result = look_up(options.STORIES, args.task, "task")(trained, args, folder, device)
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
        *(["--width", args.width] if "width" in options.CLASSIFIERS[name].flags else []),
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
    options.run(parse, main)
