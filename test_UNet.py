"""Evaluate checkpoints on a test set: PSNR and SSIM into a CSV, reconstructions, the first feature, and training-free anchors."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action=options.Distinct,
        required=True,
        metavar="PATH",
        help="one or several; they tell network and physics",
    )
    options.add_data(parser, n_default=None, c_default=None, limits=("train", "test"), whole=True)
    options.add_loading(parser)
    options.add_bare(parser)
    options.add_scoring(parser)
    group = options.add_evaluation(parser)
    group.add_argument(
        "--save_batches", type=options.natural, default=1, help="batches whose pictures are written"
    )
    group.add_argument(
        "--anchors",
        action=options.BooleanOptionalAction,
        default=True,
        help="back-projection and LMMSE beside the network",
    )
    parser.files.append(options.checkpoints("checkpoint"))
    return parser.parse_args(argv)


def main(args) -> dict:
    from analysis import report
    from training import engine, testing

    device = engine.start(args.device)
    restored = {path: testing.restored(path, args) for path in args.checkpoint}
    rows = []
    with report.printed(rows):
        for path, name in testing.names_of(restored).items():
            tests = testing.test_checkpoint(path, name, restored[path], args, device)
            rows += tests.rows
            testing.write(tests, args, device)
    return {"rows": rows, "psnr": rows[-1]["PSNR"], "ssim": rows[-1]["SSIM"]}


if __name__ == "__main__":
    options.run(parse, main)
