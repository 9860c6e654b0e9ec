"""Find the runs of a results folder again: list, show, compare, export, delete or extend them."""

from pathlib import Path

from cli import flags


def build_parser() -> flags.Parser:
    reads_of = {  # of each command: how many runs it needs, and its flags
        "list": (0, {"where", "sort", "last", "columns"}),
        "show": (1, set()),
        "compare": (2, {"output"}),
        "export": (0, {"where", "sort", "last", "columns", "output"}),
        "delete": (1, {"yes"}),
        "extend": (1, {"epochs", "steps"}),
    }
    endings_of = {"export": (".tex", ".csv", ".md"), "compare": (".png", ".pdf", ".svg")}
    parser = flags.Parser(__doc__)
    parser.records_typed = True
    parser.add_argument("command", choices=tuple(reads_of), help="what to do with runs")
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run: its folder, its name, or the beginning or end of its name, such as its hash",
    )
    parser.add_argument("--results", default="results", help="folder that the runs are in")
    group = parser.add_argument_group("tables")
    group.add_argument(
        "--where",
        type=flags.assignment,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="only runs with these values of flags or scores",
    )
    group.add_argument("--sort", metavar="NAME", help="a flag or score, the largest value first")
    group.add_argument("--last", type=flags.counting, help="this many rows at most")
    group.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME",
        help="flags and scores; by default those flags in which the runs differ, and the scores",
    )
    group.add_argument(
        "--output",
        metavar="FILE",
        help="export: the table, .tex, .csv or .md; compare: a figure, .png, .pdf or .svg",
    )
    group = parser.add_argument_group("delete and extend")
    group.add_argument("--yes", action="store_true", help="delete without a question")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--epochs", type=flags.counting, help="extend: epochs of both runs together")
    one.add_argument("--steps", type=flags.counting, help="extend: steps of both runs together")

    def check_command(args) -> None:
        """Refuses flags of the other commands, and too few or too many runs."""
        needed, reads = reads_of[args.command]
        for name in sorted(args.typed - reads - {"command", "runs", "results"}):
            parser.error(f"{args.command} does not read --{name}")
        if len(args.runs) < needed:
            parser.error(f"{args.command} needs {'two runs' if needed == 2 else 'a run'}")
        if args.runs and args.command == "list":
            parser.error("list reads no runs: it shows all, or those of --where")
        if args.command == "extend":
            if len(args.runs) > 1:
                parser.error("extend takes one run")
            if args.epochs is None and args.steps is None:
                parser.error("extend needs --epochs or --steps, of both runs together")
        if args.command == "export" and args.output is None:
            parser.error("export needs --output FILE.tex, .csv or .md")
        endings = endings_of.get(args.command)
        if args.output is not None and endings and Path(args.output).suffix not in endings:
            parser.error(f"output {args.output}: its name must end with {', '.join(endings)}")

    parser.rules.append(check_command)
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args):
    from bookkeeping.commands import COMMANDS

    return COMMANDS[args.command](args)


if __name__ == "__main__":
    flags.run(parse, main)
