"""Evaluate checkpoints on a test set: PSNR, SSIM, reconstructions, and training-free baselines."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        type=flags.network_file,
        nargs="+",
        action=flags.Distinct,
        required=True,
        metavar="PATH",
        help="one or several checkpoints, which contain the configs of network and physics",
    )
    flags.add_data(parser, n_default=None, c_default=None, limits=("train", "test"), whole=True)
    flags.add_loading(parser)
    flags.add_truth(parser)
    flags.add_bare(parser, several=True)
    flags.add_scoring(parser)
    group = flags.add_evaluation(parser)
    group.add_argument(
        "--save_batches",
        type=flags.natural,
        default=1,
        help="number of batches whose images are written",
    )
    group.add_argument(
        "--baselines",
        "--anchors",
        action=flags.BooleanOptionalAction,
        default=True,
        help="also evaluate back-projection, LMMSE and total variation, which need no training",
    )
    group.add_argument(
        "--denoiser",
        type=flags.network_file,
        metavar="PATH",
        help="also evaluate plug-and-play with this denoiser: zoo:plug_in_denoiser, or one that "
        "main_unet.py --physics denoise --network drunet --sigma 0 50 trains",
    )
    flags.add_self_ensemble(parser, "each network answers")
    parser.checks.append(check_denoiser)
    parser.files.append(flags.checkpoints("checkpoint", "denoiser"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def check_denoiser(args) -> None:
    if args.denoiser and not args.baselines:
        raise flags.UserError("denoiser: plug-and-play is a baseline; leave out --no-baselines")


def main(args) -> dict:
    from core import runtime
    from evaluation.checkpoints import checkpoint_names, format_paths, open_restorer
    from evaluation.recorded import evaluate_recorded, write_recorded
    from evaluation.restoration import evaluate_checkpoint, write_restoration
    from preparation.mirrored import mirrored_checkpoint
    from report import tables

    device = runtime.start(args.device)
    checkpoints = {path: open_restorer(path, args) for path in args.checkpoint}
    names = checkpoint_names(checkpoints)
    if args.self_ensemble:
        names = {path: f"self_ensemble_{name}" for path, name in names.items()}
        checkpoints = {path: mirrored_checkpoint(path, one) for path, one in checkpoints.items()}
    print(format_paths(names))
    rows = []
    with tables.print_at_end(rows):
        for path, name in names.items():
            if args.dataset == "recorded" and args.truth is None:
                scored = evaluate_recorded(path, name, checkpoints[path], args, device)
                rows += scored.rows
                write_recorded(scored, args)
                continue
            result = evaluate_checkpoint(path, name, checkpoints[path], args, device)
            rows += result.rows
            write_restoration(result, args, device)
            if result.growing is not None:
                print(
                    f"PSNR grows with every ratio for {100 * result.growing:.1f} % of "
                    f"{len(result.images):,} images"
                )
    if args.dataset == "recorded" and args.truth is None:
        return {"rows": rows, "recorded_psnr": rows[-1]["recorded values (dB)"]}
    return {"rows": rows, "psnr": rows[-1]["PSNR"], "ssim": rows[-1]["SSIM"]}


if __name__ == "__main__":
    flags.run(parse, main)
