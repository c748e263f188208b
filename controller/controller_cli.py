"""`trainmaster controller`: takes bad nodes out and brings jobs back."""

import argparse
from pathlib import Path

JOURNAL = "/var/lib/trainmaster/controller.sqlite"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="the daemon, on the host of slurmctld or beside it")
    _common(run, policy=True)
    run.add_argument("--once", action="store_true", help="one tick, then end")
    run.add_argument("--dry-run", action="store_true", help="one look, and the plan that follows; nothing is written")
    run.add_argument("--json", action="store_true", help="with --dry-run: the plan as JSON")
    run.add_argument(
        "--page", default="", metavar="ADDRESS:PORT", help="serve `trainmaster controller page` there meanwhile"
    )
    run.set_defaults(run=_run)
    status = verbs.add_parser(
        "status", help="what it has in hand, what it would do now, and which promises cannot be kept"
    )
    _common(status, policy=True)
    status.add_argument("--offline", action="store_true", help="only what the journal says; nothing is asked of Slurm")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)
    why = verbs.add_parser("why", help="the chain of evidence about a node or a job")
    why.add_argument("subject", metavar="NODE|JOB")
    why.add_argument("--json", action="store_true")
    _common(why)
    why.set_defaults(run=_why)
    lemons = verbs.add_parser("lemons", help="nodes that fail more often than their likes")
    lemons.add_argument("--explain", action="store_true", help="with the figures behind each")
    lemons.add_argument("--json", action="store_true")
    _common(lemons, policy=True)
    lemons.set_defaults(run=_lemons)
    from trainmaster.controller.maintenance import train_cli

    train_cli.configure(verbs.add_parser("train", help="maintenance trains: what is upgraded where, when, and how far"))
    for verb, text in (
        ("quarantine", "have a node taken out, as far as the guarantee allows"),
        ("release", "let a node that waits for a person be verified, and then come back"),
    ):
        ask = verbs.add_parser(verb, help=text)
        ask.add_argument("node", metavar="NODE")
        ask.add_argument("--reason", default="", help="in your words; it stands in the chain of evidence")
        ask.add_argument("--dry-run", action="store_true", help="only say what would be asked")
        _common(ask)
        ask.set_defaults(run=_ask)


def _common(parser: argparse.ArgumentParser, *, policy: bool = False) -> None:
    parser.add_argument("--journal", type=Path, default=Path(JOURNAL), metavar="FILE", help=f"default: {JOURNAL}")
    if policy:
        usual = "/etc/trainmaster/controller.toml"
        parser.add_argument(
            "--policy", type=Path, default=None, metavar="FILE", help=f"default: {usual}, if it is there"
        )


def _run(args: argparse.Namespace) -> int:
    from trainmaster.controller import daemon

    if args.dry_run:
        text = daemon.preview(args.policy, as_json=args.json)
        print(text)
        return 0
    return daemon.run(args.journal, args.policy, once=args.once, page=args.page)


def _status(args: argparse.Namespace) -> int:
    from trainmaster.controller import told
    from trainmaster.slurm.commands import Commands

    door = None if args.offline else Commands(timeout_s=30.0)
    print(told.status(args.journal, args.policy, door=door, as_json=args.json))
    return 0


def _why(args: argparse.Namespace) -> int:
    from trainmaster.controller import told

    print(told.why(args.journal, args.subject, as_json=args.json))
    return 0


def _lemons(args: argparse.Namespace) -> int:
    from trainmaster.controller import told

    print(told.lemons(args.journal, args.policy, explain=args.explain, as_json=args.json))
    return 0


def _ask(args: argparse.Namespace) -> int:
    import getpass

    from trainmaster.controller.journal import Journal

    why = args.reason or "no reason given"
    if args.dry_run:
        print(f"would ask the controller of {args.journal} to {args.verb} {args.node}: {why}")
        return 0
    journal = Journal(args.journal, read_only=True)
    journal.ask(args.verb, args.node, by=getpass.getuser(), why=why)
    journal.close()
    print(f"asked: {args.verb} {args.node}; the controller takes it up at its next tick")
    return 0
