"""`trainmaster doctor`: what this cluster's Slurm lacks, and what to write."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe `trainmaster doctor` to the parser."""
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from trainmaster.slurm.commands import Commands
    from trainmaster.slurm_plugins import doctor

    config = Commands().config()
    found = [*doctor.lint(config), *doctor.hooks_here(config)]
    if args.json:
        print(json.dumps([asdict(advice) for advice in found]))
    elif not found:
        print("the health hooks have all that they need of slurm.conf")
    for advice in () if args.json else found:
        print(f"{'fault ' if advice.fault else 'advice'}  {advice.key} = {advice.seen}\n        {advice.why}")
        print(f"        write: {advice.write}")
    return 1 if any(advice.fault for advice in found) else 0
