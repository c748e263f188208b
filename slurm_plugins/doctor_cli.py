"""`trainmaster doctor`: every known trap in this cluster's Slurm configuration, and what to write instead."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainmaster.slurm_plugins.doctor.facts import Facts

EXIT_CODES = "Exit codes: 0 no fault (advice may be there), 1 a fault, 2 wrong usage, 3 the cluster could not be asked."


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe `trainmaster doctor` to the parser."""
    parser.epilog = EXIT_CODES
    parser.add_argument("--conf", type=Path, metavar="FOLDER", help="look at the files in a folder, ask no daemon")
    parser.add_argument("--slurm-version", metavar="X.Y", help="with --conf: for which Slurm they are (the one here)")
    parser.add_argument("--skip", action="append", default=[], metavar="RULE", help="leave a rule out; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the rules")
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    import json
    import sys
    from dataclasses import asdict

    from trainmaster.errors import SlurmError, UsageError
    from trainmaster.slurm_plugins.doctor import examine, show

    unknown = sorted(set(args.skip) - {rule.id for rule in examine.RULES})
    if unknown:
        raise UsageError(f"there is no rule {', '.join(unknown)}", hint="`trainmaster doctor --list` prints them")
    if args.list:
        print(json.dumps(show.listed(examine.RULES)) if args.json else show.table(examine.RULES))
        return 0
    try:
        facts = _facts(args)
    except SlurmError as error:
        print(f"trainmaster doctor: {error}", file=sys.stderr)
        return 3
    found = examine.examine(facts, skip=args.skip)
    if args.json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        left_out = len(examine.RULES) - len(examine.asked(facts))
        print(show.told(found, asked=len(examine.asked(facts, skip=args.skip))))
        if facts.shares_a_machine:
            print("several nodes are one machine: rules that only real nodes can keep were left out", file=sys.stderr)
        elif left_out:
            print(f"{left_out} rules are about newer releases of Slurm", file=sys.stderr)
    return 1 if any(one.severity == "fault" for one in found) else 0


def _facts(args: argparse.Namespace) -> "Facts":
    from trainmaster.errors import SlurmError, UsageError
    from trainmaster.slurm import versions
    from trainmaster.slurm.commands import Commands
    from trainmaster.slurm_plugins.doctor import from_cluster, from_files

    if args.conf is None:
        return from_cluster.gather(Commands())
    told = args.slurm_version or ""
    if not told:
        try:
            told = Commands(timeout_s=10.0).version()
        except SlurmError:
            told = versions.name(versions.RELEASES[-1])
    version = versions.release(told)
    if version == (0, 0):
        raise UsageError(f"{told!r} is no version of Slurm", hint="write it as 24.11")
    return from_files.gather(args.conf, version)
