"""A page to look at: pictures through a single-pixel camera, studies, and a recording."""

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        type=flags.network_file,
        nargs="+",
        action=flags.Distinct,
        metavar="PATH",
        help="networks of a single-pixel camera at n 64; without it those of zoo/. With "
        "--recording, those that restore its frames",
    )
    parser.add_argument(
        "--recording", metavar="FILE.npz", help="a recording whose frames are shown"
    )
    flags.add_code(parser)
    parser.add_argument("--results", default="results", help="folder with studies")
    parser.add_argument(
        "--port", type=flags.natural, default=7860, help="of this machine; 0 takes a free one"
    )
    parser.add_argument(
        "--open",
        action=flags.BooleanOptionalAction,
        default=True,
        help="open the page in the browser",
    )
    parser.files.append(flags.checkpoints("checkpoint"))
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> None:
    import webbrowser

    from core import runtime
    from page.content import build_server

    runtime.start("cpu")
    server = build_server(args)
    print(f"the page is at {server.address} (Ctrl-C ends it)", flush=True)
    if args.open:
        webbrowser.open(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("ended")
    finally:
        server.server_close()


if __name__ == "__main__":
    flags.run(parse, main)
