"""Evaluate checkpoints on a test set: PSNR and SSIM into a CSV, reconstructions, the first feature, and training-free anchors."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action=flags.Distinct,
        required=True,
        metavar="PATH",
        help="one or several; they tell network and physics",
    )
    flags.add_data(parser, n_default=None, c_default=None, limits=("train", "test"), whole=True)
    flags.add_loading(parser)
    flags.add_bare(parser)
    flags.add_scoring(parser)
    group = flags.add_evaluation(parser)
    group.add_argument(
        "--save_batches", type=flags.natural, default=1, help="batches whose pictures are written"
    )
    group.add_argument(
        "--anchors",
        action=flags.BooleanOptionalAction,
        default=True,
        help="back-projection and LMMSE beside the network",
    )
    parser.files.append(flags.checkpoints("checkpoint"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from core import runtime
    from evaluation import restoration
    from report import tables

    device = runtime.start(args.device)
    restored = {path: restoration.restored(path, args) for path in args.checkpoint}
    rows = []
    with tables.printed(rows):
        for path, name in restoration.names_of(restored).items():
            tests = restoration.test_checkpoint(path, name, restored[path], args, device)
            rows += tests.rows
            restoration.write(tests, args, device)
    return {"rows": rows, "psnr": rows[-1]["PSNR"], "ssim": rows[-1]["SSIM"]}


if __name__ == "__main__":
    flags.run(parse, main)
