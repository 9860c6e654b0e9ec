"""The trained networks of this repository, which zoo:NAME names wherever a checkpoint is read."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "command",
        choices=("list", "info", "verify", "train"),
        help="list: all with their scores; info: how one was trained; verify: files and scores are "
        "what they were; train: the same command again",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; without one all")
    flags.add_device(parser, parser)
    flags.add_results(parser, parser)
    parser.add_argument(
        "--store", action="store_true", help="train: put the network and its scores into the zoo"
    )

    def check(args) -> None:
        from core import zoo

        for name in args.names:
            zoo.file_of(name)
        if args.command in ("info", "train") and not args.names:
            parser.error(f"{args.command} needs a name: {', '.join(zoo.entries())}")
        if args.store and args.command != "train":
            parser.error(f"{args.command} does not read --store")

    parser.checks.append(check)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from bookkeeping import zoo

    names = args.names or list(zoo.entries())
    if args.command == "list":
        return zoo.list_networks(names)
    if args.command == "info":
        return zoo.describe(names)
    if args.command == "verify":
        return zoo.verify(names, test, args)
    return {name: zoo.train(name, test, args) for name in names}


def test(path: str, is_classifier: bool, args) -> dict:
    """The scores of a network on its test images."""
    import test_classify
    import test_UNet

    script = test_classify if is_classifier else test_UNet
    words = ["--checkpoint", path, "--results", args.results, "--device", args.device]
    words += ["--dataset", "digits"] if is_classifier else ["--no-baselines"]
    scores = script.main(script.parse(words))
    if is_classifier:
        return {"top-1": next(iter(scores["top1"].values()))}
    return {"PSNR": scores["psnr"], "SSIM": scores["ssim"]}


if __name__ == "__main__":
    flags.run(parse, main)
