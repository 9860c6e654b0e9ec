"""The whole story in one command: a teacher, a student alone and a distilled student, beside anchors that need no training."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    parser.add_argument("--cr", type=options.ratio, default=0.1, help="the students' ratio")
    parser.add_argument("--cr_teacher", type=options.ratio, default=0.5, help="the teacher's ratio")
    parser.add_argument("--epochs", type=options.counting, default=6, help="passes over the training images, for each network")
    parser.add_argument("--width", type=options.counting, default=16, help="channels of the networks at full resolution")
    parser.add_argument("--limit_train", type=options.counting, help="use only so many training tiles")
    parser.add_argument("--seed", type=options.natural, default=42, help="of weights, order and augmentation")
    parser.add_argument("--pictures", type=options.within(1, 12, int), default=4, help="test images in the figure")
    parser.add_argument("--device", default="auto", help="auto, cpu (= -1), cuda, cuda:N (= N)")
    parser.add_argument("--results", default="results/demo", help="folder of everything that is written")
    return parser.parse_args(argv)


def main(args) -> dict:
    import time
    from pathlib import Path

    import main_unet
    import main_unet_dist
    from analysis import story
    from training import engine

    began = time.perf_counter()
    device = engine.start(args.device)
    folder = Path(args.results)
    shared = ["--width", args.width, "--epochs", args.epochs, "--seed", args.seed, "--device", args.device, "--results", folder]
    shared += ["--overwrite"]  # another demo's networks in the same folder
    shared += ["--limit_train", args.limit_train] if args.limit_train else []
    commands = {
        f"teacher, cr {args.cr_teacher:g}": (main_unet, ["--cr", args.cr_teacher]),
        f"student alone, cr {args.cr:g}": (main_unet, ["--cr", args.cr]),
        f"student distilled, cr {args.cr:g}": (main_unet_dist, ["--cr", args.cr, "--cr_teacher", args.cr_teacher]),
    }
    trained = {}
    for name, (script, flags) in commands.items():
        words = [str(word) for word in flags + shared]
        print(f"\n{name}: python {script.__name__}.py {' '.join(words)}")
        trained[name] = script.main(script.parse(words))["checkpoint"]
    result = story.tell(trained, args, folder, device)
    print(f"\n{result['text']}\n{folder}/table.csv, figure.png, report.md written; {time.perf_counter() - began:.0f} s in all")
    return result


if __name__ == "__main__":
    options.run(parse, main)
