"""Time training, inference, physics and losses against a baseline loop and the machine's limits."""

from cli import flags
from core.registry import BENCHES


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    group = parser.add_argument_group("benchmark")
    group.add_argument(
        "--only",
        choices=BENCHES,
        nargs="+",
        action=flags.Distinct,
        default=list(BENCHES),
        metavar="GROUP",
        help=f"groups to run, some of {', '.join(BENCHES)}",
    )
    group.add_argument(
        "--width",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        default=[16, 64],
        help="channels of student and teacher at full resolution",
    )
    group.add_argument("--batch_size", type=flags.counting, default=50, help="images in a step")
    group.add_argument(
        "--sizes",
        type=flags.side,
        nargs="+",
        action=flags.Distinct,
        default=[32, 64, 128, 256, 512, 1024],
        help="sides of the images in the group physics",
    )
    group.add_argument(
        "--images",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        help="numbers of training images in the group scaling "
        "(default: 1000 4000 16000, on CUDA also 60000)",
    )
    group.add_argument(
        "--batch_sizes",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        help="batch sizes in the group scaling (default: 10 50 200, on CUDA 50 to 4000)",
    )
    group.add_argument(
        "--teacher",
        type=flags.network_file,
        metavar="PATH",
        help="also time distillation from this U-Net, whose file the baseline loop can read too",
    )
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--rounds",
        type=flags.counting,
        default=15,
        help="rounds in which the candidates take turns, after one to warm up",
    )
    group.add_argument(
        "--steps",
        type=flags.counting,
        help="steps of a candidate in a round (default: 1, on CUDA 20)",
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        help="type that convolutions compute in (default: fp32, on CUDA bf16)",
    )
    group.add_argument(
        "--training_flags",
        default="",
        metavar="WORDS",
        help="more flags of the training scripts, as in --training_flags='--compile'",
    )
    flags.add_device(parser, group)
    flags.add_results(parser, group)
    group.add_argument(
        "--config",
        metavar="FILE",
        help="JSON or YAML file with values of these flags; the command line overrides it",
    )
    parser.files.append(flags.checkpoints("teacher"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def set_defaults(args, cuda: bool) -> None:
    """Sets the defaults that depend on the device."""
    defaults = {
        "images": [1000, 4000, 16000] + [60000] * cuda,
        "batch_sizes": [50, 200, 1000, 4000] if cuda else [10, 50, 200],
        "steps": 20 if cuda else 1,
        "precision": "bf16" if cuda else "fp32",
    }
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def main(args) -> dict:
    import time
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import main_unet
    import main_unet_dist
    from core import runtime
    from core.registry import look_up
    from speed.candidates import Bench
    from speed.report import check_goals, format_benchmark, write_benchmark
    from speed.timing import describe_machine

    began = time.perf_counter()
    device = runtime.start(args.device)
    set_defaults(args, device.type == "cuda")
    rows, scripts = [], {"supervised": main_unet, "distilled": main_unet_dist}
    machine = describe_machine(device)
    print(machine)
    with TemporaryDirectory() as folder:
        bench = Bench(args, device, scripts, Path(folder))
        for group in args.only:
            timed = look_up(BENCHES, group, "group")(bench)
            seconds = time.perf_counter() - began
            print(f"{group}: {len(timed)} lines after {seconds:.0f} s", flush=True)
            rows += timed
    goals = check_goals(rows, device.type)
    head = f"{machine}; {args.precision}, {args.rounds} rounds"
    text = format_benchmark(rows, head, goals)
    print(f"\n{text}", flush=True)
    write_benchmark(rows, text, Path(args.results))
    seconds = time.perf_counter() - began
    print(
        f"{args.results}/benchmark/table.csv, figure.png, report.md written; {seconds:.0f} s in all"
    )
    return {"rows": rows, "goals": goals}


if __name__ == "__main__":
    flags.run(parse, main)
