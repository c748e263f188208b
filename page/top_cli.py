"""`trainmaster top`: the facts of the page in a terminal."""

import argparse

from trainmaster.page import page_cli


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    page_cli.sources(parser)
    parser.add_argument("--once", action="store_true", help="one look, then end; so it is where there is no terminal")
    parser.add_argument("--json", action="store_true", help="one look, as the page's server tells it")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from trainmaster.page import top

    return top.run(args)
