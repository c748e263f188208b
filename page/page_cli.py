"""`trainmaster controller page`: the fleet, jobs, trains and decisions in a browser."""

import argparse
from pathlib import Path

JOURNAL = "/var/lib/trainmaster/controller.sqlite"
LISTEN = "127.0.0.1:9320"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    sources(parser)
    parser.add_argument("--listen", default=LISTEN, metavar="ADDRESS:PORT", help=f"default: {LISTEN}; port 0: any")
    text = "where the token is, or is written to (mode 0600); without it a new one is made and printed"
    parser.add_argument("--token-file", type=Path, default=None, metavar="FILE", help=text)
    parser.add_argument(
        "--allow-actions", action="store_true", help="trains may be paused and nodes released; who did is recorded"
    )
    parser.add_argument("--until-eof", action="store_true", help="end when the standard input does")
    parser.set_defaults(run=_run)


def sources(parser: argparse.ArgumentParser) -> None:
    """The options that say what is shown; the same in a browser and in a terminal."""
    parser.add_argument("--journal", type=Path, default=Path(JOURNAL), metavar="FILE", help=f"default: {JOURNAL}")
    usual = "/etc/trainmaster/controller.toml"
    parser.add_argument("--policy", type=Path, default=None, metavar="FILE", help=f"default: {usual}, if it is there")
    parser.add_argument(
        "--fabric",
        action="append",
        default=[],
        metavar="FILE",
        help="output of ibnetdiscover, or what else `fabric show --from` takes: pods, rails and bad links; read again "
        "when it changes",
    )
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two looks (2)")


def _run(args: argparse.Namespace) -> int:
    from trainmaster.page import daemon

    return daemon.run(args)
