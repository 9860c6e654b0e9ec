"""Our speed beside a plain loop's, and beside what the machine can do."""

from cli import flags
from core.registry import BENCHES


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    group = parser.add_argument_group("what is timed")
    group.add_argument(
        "--only",
        choices=BENCHES,
        nargs="+",
        action=flags.Distinct,
        default=list(BENCHES),
        metavar="GROUP",
        help=f"of {', '.join(BENCHES)}",
    )
    group.add_argument(
        "--width",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        default=[16, 64],
        help="channels of student and teacher at full resolution",
    )
    group.add_argument("--batch_size", type=flags.counting, default=50, help="images a step")
    group.add_argument(
        "--sizes",
        type=flags.side,
        nargs="+",
        action=flags.Distinct,
        default=[32, 64, 128, 256, 512, 1024],
        help="sides of images for the physics",
    )
    group.add_argument(
        "--images",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        help="training images, for scaling (1000 4000 16000, on CUDA 60000 too)",
    )
    group.add_argument(
        "--batch_sizes",
        type=flags.counting,
        nargs="+",
        action=flags.Distinct,
        help="for scaling (10 50 200, on CUDA 50 to 4000)",
    )
    group.add_argument(
        "--teacher",
        metavar="PATH",
        help="time its distillation too; the plain loop takes its weights as they are",
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--rounds",
        type=flags.counting,
        default=15,
        help="in which the contenders take turns, after one to warm up",
    )
    group.add_argument(
        "--steps", type=flags.counting, help="of a contender in a round (1, on CUDA 20)"
    )
    group.add_argument(
        "--precision", choices=("fp32", "bf16"), help="fp32, on CUDA bf16, without it"
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
        "--config", metavar="FILE", help="JSON or YAML of these flags; the command line wins"
    )
    parser.files.append(flags.checkpoints("teacher"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def settle(args, cuda: bool) -> None:
    """What depends on the device, unless it is given."""
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
    from speed import report
    from speed.groups import Bench
    from speed.timing import facts

    began = time.perf_counter()
    device = runtime.start(args.device)
    settle(args, device.type == "cuda")
    rows, scripts = [], {"supervised": main_unet, "distilled": main_unet_dist}
    print(facts(device))
    with TemporaryDirectory() as folder:
        bench = Bench(args, device, scripts, Path(folder))
        for group in args.only:
            done = look_up(BENCHES, group, "group")(bench)
            print(
                f"{group}: {len(done)} lines after {time.perf_counter() - began:.0f} s", flush=True
            )
            rows += done
    asked = report.targets(rows, device.type)
    head = f"{facts(device)}; {args.precision}, {args.rounds} rounds"
    text = report.report(rows, head, asked)
    print(f"\n{text}", flush=True)
    report.write(rows, text, Path(args.results))
    print(
        f"{args.results}/benchmark/table.csv, figure.png, report.md written; {time.perf_counter() - began:.0f} s in all"
    )
    return {"rows": rows, "targets": asked}


if __name__ == "__main__":
    flags.run(parse, main)
