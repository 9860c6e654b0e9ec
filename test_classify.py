"""Evaluate classifiers: scores of every split into a CSV, confusion matrices, reports, and mean and deviation over checkpoints."""

from training import options


def parse(argv=None):
    parser = options.Parser(__doc__)
    parser.add_argument("--checkpoint", nargs="+", required=True, metavar="PATH", help="one or several; they tell network, physics and classes")
    options.add_labelled(parser, limits=("train", "val", "test"), n_default=None, c_default=None)
    options.add_loading(parser)
    group = parser.add_argument_group("evaluation")
    group.add_argument("--splits", nargs="+", choices=("train", "val", "test"), default=["train", "val", "test"], help="what is scored")
    group.add_argument("--awgn_snr", type=options.noise_level, nargs="+", help="noise levels in dB, or none; the checkpoint's own without it")
    group.add_argument("--sigma", type=options.sigma, nargs="+", help="noise levels of a denoiser's camera, on the 0..255 scale")
    group.add_argument("--seed", type=options.natural, default=42, help="of the noise")
    group.add_argument("--device", default="auto", help="auto, cpu (= -1), cuda, cuda:N (= N)")
    group.add_argument("--results", default="results", help="folder of everything that is written")
    group.add_argument("--config", metavar="FILE", help="JSON or YAML of these flags; the command line wins")
    return parser.parse_args(argv)


def main(args) -> dict:
    from analysis.report import markdown
    from training import classification, engine, grading
    from training.testing import names_of

    device = engine.start(args.device)
    found = {path: classification.exported(path) for path in args.checkpoint}
    rows = [row for path, name in names_of(found).items() for row in grading.grade(path, name, found[path], args, device)]
    print(markdown(rows))
    tops = [row["top-1"] for row in rows if row["split"] == args.splits[-1]]
    print(f"{args.splits[-1]} top-1: {classification.mean_and_deviation(tops)} %")
    return {"rows": rows, "top1": sum(tops) / len(tops)}


if __name__ == "__main__":
    options.run(parse, main)
