"""Tell a story in one command: a laboratory without truth, or a classroom that has it."""

from pathlib import Path

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.choosers["task"] = flags.DEMOS
    parser.add_argument(
        "--task",
        type=flags.one_of(flags.DEMOS, "task"),
        default="laboratory",
        help=f"one of {', '.join(flags.DEMOS)}; the tasks that read a flag are in brackets",
    )

    def add(flag: str, text: str, **how) -> None:
        parser.add_argument(flag, help=f"{text} {flags.defaults_of(flag[2:], flags.DEMOS)}", **how)

    add("--scenes", "dataset that is recorded", type=flags.one_of(flags.SCENES, "scenes"))
    add("--photons", "photons that a pixel of value 1 gives a pattern", type=flags.photon_count)
    add("--frames", "recorded frames that the student is adapted to", type=flags.counting)
    add("--test_frames", "recorded frames of the test", type=flags.counting)
    add("--adapt_epochs", "passes over the recorded frames", type=flags.counting)
    add("--cr", "ratio of the students", type=flags.ratio)
    add("--cr_teacher", "ratio of the teacher", type=flags.ratio)
    add("--dataset", "dataset of labelled images", type=flags.one_of(flags.LABELLED, "dataset"))
    add("--data_root", "folder of the dataset")
    add("--n", "side of the images in pixels", type=flags.within(2, 4096, int))
    add("--c", "channels: grey or RGB", type=int, choices=(1, 3))
    add("--model_teacher", "network of the teacher", type=flags.one_of(flags.CLASSIFIERS, "model"))
    add("--model", "network of the students", type=flags.one_of(flags.CLASSIFIERS, "model"))
    add("--balance", "weights of labels and teacher", type=flags.one_of(flags.BALANCES, "balance"))
    add(
        "--lessen_ratio",
        "factor by which the students' images are smaller along a side",
        type=flags.within(1, 4096),
    )
    add(
        "--loss_distill",
        "losses that are compared",
        type=flags.weighted(flags.CLASS_LOSSES),
        nargs="+",
        action=flags.Distinct,
        metavar="NAME[:WEIGHT]",
    )
    add("--weights", "weights of losses that have none", choices=("safe", "published"))
    seeds = {"type": flags.natural, "nargs": "+", "action": flags.Distinct}
    add("--seeds", "seeds of the students (the teacher has seed 0)", **seeds)
    add("--seed", "seed of weights, order and augmentation", type=flags.natural)
    add("--epochs", "passes over the training images, for each network", type=flags.counting)
    add("--width", "channels of the networks at full resolution", type=flags.counting)
    add("--pictures", "number of test images in the figure", type=flags.within(1, 12, int))
    parser.add_argument(
        "--limit_train", type=flags.counting, help="use only this many training images"
    )
    flags.add_device(parser, parser)
    flags.add_results(parser, parser, "results/demo")
    parser.checks.append(check_ratios)
    return parser


def check_ratios(args) -> None:
    """Refuses a student that measures more than what was recorded at its teacher's ratio."""
    if args.task == "laboratory" and args.cr > args.cr_teacher:
        raise flags.UserError(
            f"cr {args.cr:g}: the student's values are a part of those that are recorded for the "
            f"teacher; give at most --cr_teacher {args.cr_teacher:g}"
        )


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    import time

    from core import runtime
    from core.registry import look_up

    began = time.perf_counter()
    device = runtime.start(args.device)
    folder = Path(args.results)
    builders = {
        "laboratory": campaign,
        "classroom": restorers,
        "reconstruct": restorers,
        "classify": classifiers,
        "benchmark": losses,
    }
    commands = {
        name: (script, [str(word) for word in words])
        for name, (script, words) in builders[args.task](args).items()
    }
    for script, words in commands.values():
        script.parse(words)  # a wrong flag is reported before the first network is trained
    trained = {}
    for name, (script, words) in commands.items():
        words = [trained.get(word, word) for word in words]
        print(f"\n{name}: python {script.__name__}.py {' '.join(words)}")
        result = script.main(script.parse(words))
        if "digest" not in result:  # a recording is no network
            trained[name] = result.get("checkpoint") or result["checkpoints"]
    result = look_up(flags.DEMOS, args.task, "task")(trained, args, folder, device)
    seconds = time.perf_counter() - began
    print(f"{folder}/table.csv, figure.png, report.md written; {seconds:.0f} s in all")
    return result


def run_flags(args) -> list:
    """Where a network is trained, and how long."""
    words = ["--epochs", args.epochs, "--device", args.device, "--results", args.results]
    words += ["--overwrite"]  # another demo's networks in the same folder
    return words + (["--limit_train", args.limit_train] if args.limit_train else [])


def campaign(args) -> dict:
    """A teacher and a student of photographs, a recording of other scenes, adapted students."""
    import acquire
    import main_unet
    import main_unet_dist
    from recordings.file import truth_path

    lab = Path(args.results) / "lab.npz"
    light = ["--photons", args.photons]
    network = ["--n", args.n, "--width", args.width, "--seed", args.seed]
    network += ["--batch_size", 8]  # images of 64 x 64 pixels
    photographs = "photos_without_text"  # none of the scenes that are recorded
    simulated = ["--dataset", photographs, *light, *network, *run_flags(args)]
    teacher, student = f"teacher, cr {args.cr_teacher:g}", f"not adapted, cr {args.cr:g}"
    recorded = ["--dataset", "recorded", "--data_root", lab, "--cr", args.cr, *network]
    recorded += ["--epochs", args.adapt_epochs]
    recorded += ["--device", args.device, "--results", args.results, "--overwrite"]
    distilled = [*recorded, "--teacher", teacher, "--init_student", student]
    alone = [*recorded, "--train_again", student]
    scenes = ["--dataset", args.scenes, "--data_root", args.data_root, "--n", args.n, *light]
    scenes += ["--cr", args.cr_teacher, "--frames", args.frames, "--seed", args.seed]
    scenes += ["--test_frames", args.test_frames, "--output", lab, "--overwrite"]
    truth = ["--truth", truth_path(lab), "--loss", "mse"]  # which PSNR is made of
    return {  # the recording first, as what is wrong with it needs no network to be seen
        "recording": (acquire, ["simulate", *scenes]),
        teacher: (main_unet, ["--cr", args.cr_teacher, *simulated]),
        student: (main_unet, ["--cr", args.cr, *simulated]),
        f"adapted, cr {args.cr:g}": (main_unet_dist, [*distilled, "--labels", "adapted"]),
        f"adapted alone, cr {args.cr:g}": (main_unet, [*alone, "--labels", "sure"]),
        f"oracle, cr {args.cr:g}": (main_unet, [*alone, "--labels", "oracle", *truth]),
    }


def restorers(args) -> dict:
    """A teacher of many measurements, and students of few."""
    import main_unet
    import main_unet_dist

    shared = ["--width", args.width, "--seed", args.seed, *run_flags(args)]
    student = ["--cr", args.cr, *shared]
    return {
        f"teacher, cr {args.cr_teacher:g}": (main_unet, ["--cr", args.cr_teacher, *shared]),
        f"student alone, cr {args.cr:g}": (main_unet, student),
        f"student distilled, cr {args.cr:g}": (
            main_unet_dist,
            ["--cr_teacher", args.cr_teacher, *student],
        ),
    }


def model_flags(name: str, args) -> list:
    """The flags of a classifier; some have no width."""
    has_width = "width" in flags.CLASSIFIERS[name].flags
    return ["--model", name, *(["--width", args.width] if has_width else [])]


def data_flags(args) -> list:
    words = ["--dataset", args.dataset, "--data_root", args.data_root, "--n", args.n, "--c", args.c]
    return [*words, *run_flags(args)]


def classifiers(args) -> dict:
    """A large classifier, and small ones."""
    import main_classify
    import main_classify_dist

    shared = [*data_flags(args), "--seed", args.seed]
    teacher, student = f"teacher, {args.model_teacher}", [*model_flags(args.model, args), *shared]
    return {
        teacher: (main_classify, [*model_flags(args.model_teacher, args), *shared]),
        f"student alone, {args.model}": (main_classify, student),
        f"student distilled, {args.model}": (
            main_classify_dist,
            [*student, "--teacher", teacher, "--balance", args.balance],
        ),
    }


def losses(args) -> dict:
    """A teacher of large images; students of small ones, alone and with every loss and seed."""
    import main_classify
    import main_classify_dist

    teacher = [*model_flags(args.model_teacher, args), *data_flags(args), "--seed", 0]
    student = [*model_flags(args.model, args), *data_flags(args)]
    student += ["--lessen_ratio", args.lessen_ratio, "--seeds", *args.seeds]
    weights = ["--weights", args.weights]
    distilled = {
        loss: (
            main_classify_dist,
            [*student, "--teacher", "teacher", *weights, "--loss_distill", loss],
        )
        for loss in args.loss_distill
    }
    return {"teacher": (main_classify, teacher), "alone": (main_classify, student)} | distilled


if __name__ == "__main__":
    flags.run(parse, main)
