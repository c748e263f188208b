"""`trainmaster report`: where the hours went. Reads only."""

import argparse
from pathlib import Path

JOURNAL = Path("/var/lib/trainmaster/controller.sqlite")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    ettr = verbs.add_parser(
        "ettr",
        help="how much of their time jobs got further, and what the rest went into",
        description="Effective training time ratio of a job, a user's jobs, a partition or the fleet, from accounting.",
    )
    ettr.add_argument("job", nargs="?", metavar="JOB", help="1234, 1234_5, or 1234 for all tasks of an array")
    who = ettr.add_mutually_exclusive_group()
    who.add_argument("--user", action="append", metavar="NAME")
    who.add_argument("--partition", action="append", metavar="NAME")
    who.add_argument("--fleet", action="store_true", help="all jobs of all users")
    _time(ettr)
    _files(ettr)
    ettr.add_argument("--by", choices=("auto", "gpus", "nodes"), default="auto", help="what hours are counted in")
    ettr.add_argument(
        "--folder", type=Path, metavar="DIR", help="where jobs that are not in your list were submitted to"
    )
    assumed = ettr.add_argument_group("what accounting cannot tell; a job's own record goes before these")
    assumed.add_argument("--init-s", type=float, default=300.0, metavar="S", help="to the first step; default 300")
    assumed.add_argument(
        "--checkpoint-s", type=float, default=3600.0, metavar="S", help="between checkpoints; default 3600"
    )
    assumed.add_argument("--block-s", type=float, default=0.0, metavar="S", help="standstill for each; default 0")
    assumed.add_argument(
        "--unseen-s",
        type=float,
        default=None,
        metavar="S",
        help="until a dead node is noticed; default 7/6 SlurmdTimeout",
    )
    _form(ettr)
    ettr.set_defaults(run=_ettr)
    fleet = verbs.add_parser(
        "fleet",
        help="availability, what took nodes out, drains that look wrong, nodes that fail often",
        description="From slurmdbd's node events, and the controller's memory where there is one.",
    )
    _time(fleet)
    fleet.add_argument("--events-file", type=Path, metavar="FILE", help="what sacctmgr show event printed, elsewhere")
    fleet.add_argument(
        "--journal", type=Path, default=JOURNAL, metavar="FILE", help=f"the controller's; default {JOURNAL}"
    )
    _form(fleet)
    fleet.set_defaults(run=_fleet)


def _time(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", default="30d", metavar="WHEN", help="30d, 12h, 2026-11-01 or 2026-11-01T12:00; default 30d"
    )
    parser.add_argument("--until", default="now", metavar="WHEN", help="the same; default now")


def _files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="rows_file", type=Path, metavar="FILE", help="what sacct printed, elsewhere")
    parser.add_argument("--events-file", type=Path, metavar="FILE", help="what sacctmgr show event printed, elsewhere")
    parser.add_argument(
        "--journal", type=Path, default=JOURNAL, metavar="FILE", help=f"the controller's; default {JOURNAL}"
    )


def _form(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures, which needs no other file")


def _ettr(args: argparse.Namespace) -> int:
    import json
    import sys

    from trainmaster.errors import UsageError
    from trainmaster.report import ettr_report, page, text
    from trainmaster.report.gather import Sources, gather
    from trainmaster.report.moments import period
    from trainmaster.report.phases import Assumptions
    from trainmaster.slurm.accounting import Question

    if not (args.job or args.user or args.partition or args.fleet):
        raise UsageError("what shall be reported on?", hint="name a job, --user, --partition or --fleet")
    if args.checkpoint_s <= 0 or min(args.init_s, args.block_s, args.unseen_s or 0.0) < 0:
        raise UsageError("--checkpoint-s has to be positive, and no other time negative")
    since_s, until_s = period(args.since, args.until)
    question = Question(
        since_s=since_s,
        until_s=until_s,
        users=tuple(args.user or ()),
        partitions=tuple(args.partition or ()),
        jobs=(args.job,) if args.job else (),
    )
    unseen_s = args.unseen_s if args.unseen_s is not None else _unseen_s(asked=args.rows_file is None)
    assumed = Assumptions(init_s=args.init_s, interval_s=args.checkpoint_s, block_s=args.block_s, unseen_s=unseen_s)
    found = gather(
        Sources(
            question=question,
            by=args.by,
            assumptions=assumed,
            rows_file=args.rows_file,
            events_file=args.events_file,
            journal=args.journal,
            folder=args.folder,
        )
    )
    values = ettr_report.values(found.ledger, found.spans, found.notes, _scope(args))
    if args.json:
        print(json.dumps(values))
    elif args.html is not None:
        _write(args.html, page.ettr(values))
    else:
        print(text.ettr(values, colour=sys.stdout.isatty()), end="")
    return 0


def _fleet(args: argparse.Namespace) -> int:
    import json
    import sys

    from trainmaster.report import fleet, page, text
    from trainmaster.report.gather import Notes, fleet_events, verdicts
    from trainmaster.report.moments import period

    since_s, until_s = period(args.since, args.until)
    notes = Notes()
    events = fleet_events(since_s, until_s, args.events_file)
    values = fleet.values(events, since_s, until_s, verdicts(args.journal, notes), notes.all())
    if args.json:
        print(json.dumps(values))
    elif args.html is not None:
        _write(args.html, page.fleet(values))
    else:
        print(text.fleet(values, colour=sys.stdout.isatty()), end="")
    return 0


def _write(path: Path, html: str) -> None:
    from trainmaster.errors import UsageError

    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"could not write {path}: {error.strerror or error}") from None
    print(path)


def _scope(args: argparse.Namespace) -> str:
    if args.job:
        return f"job {args.job}"
    if args.user:
        return f"jobs of {', '.join(args.user)}"
    return f"partition {', '.join(args.partition)}" if args.partition else "all jobs"


def _unseen_s(*, asked: bool) -> float:
    """7/6 of SlurmdTimeout: a node that has died is called DOWN after 1 to 4/3 of it."""
    from trainmaster.errors import SlurmError
    from trainmaster.report.phases import Assumptions
    from trainmaster.slurm.commands import Commands

    if asked:
        try:
            timeout = Commands(timeout_s=10.0).config().get("SlurmdTimeout", "").split(" ")[0]
            if timeout.isdecimal() and int(timeout) > 0:
                return round(int(timeout) * 7 / 6, 1)
        except SlurmError:
            pass
    return Assumptions().unseen_s
