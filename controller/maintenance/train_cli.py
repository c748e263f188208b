"""`trainmaster controller train`: maintenance trains, from their catalogue to where each host stands."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="train_verb", required=True, metavar="VERB")
    check = verbs.add_parser(
        "check", help="read a catalogue of operations as the controller does, and say what it says"
    )
    check.add_argument("catalogue", nargs="?", type=Path, default=None, metavar="FILE", help="default: the example")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)
    domain = verbs.add_parser("domain", help="how many hosts to take out at once, and why so many")
    domain.add_argument("--hosts", type=int, required=True, help="of the fleet")
    domain.add_argument("--largest-job", type=int, default=None, metavar="HOSTS", help="default: all of them")
    domain.add_argument("--cycle-days", type=float, default=28.0)
    domain.add_argument("--visit-hours", type=float, default=2.0, help="for which one host is out; default 2")
    domain.add_argument(
        "--interruption-minutes", type=float, default=9.0, help="that one costs the largest job; default 9"
    )
    domain.add_argument("--size", default="auto", help='"30", "1.5%%" or "auto" (the default)')
    domain.add_argument("--json", action="store_true")
    domain.set_defaults(run=_domain)


def _check(args: argparse.Namespace) -> int:
    import msgspec

    from trainmaster.controller.maintenance import catalogue as catalogues

    found = catalogues.load(args.catalogue or catalogues.EXAMPLE)
    order = catalogues.order(found)
    if args.json:
        values = {"operations": len(found.operations), "components": len(found.components), "order": order}
        print(msgspec.json.encode(values).decode())
        return 0
    print(f"{len(found.operations)} operations on {len(found.components)} components, in this order on every host:")
    for name in order:
        one = found.operations[name]
        what = ", ".join(f"{component} {version}" for component, version in one.upgrades.items()) or one.title
        marks: list[str] = [one.executor.kind] + [one.scope] * (one.scope != "node")
        marks += ["reboots later"] * one.needs_reboot + ["beside jobs"] * (not one.disruptive)
        print(f"  {name:<22}{one.duration_s:6.0f} s  {what}  ({', '.join(marks)})")
    for pair in found.requires.values():
        print(f"  {pair.words}")
    return 0


def _domain(args: argparse.Namespace) -> int:
    import msgspec

    from trainmaster.controller.maintenance import domains
    from trainmaster.errors import UsageError

    largest = args.hosts if args.largest_job is None else args.largest_job
    if not 1 <= largest <= args.hosts or min(args.cycle_days, args.visit_hours) <= 0 or args.interruption_minutes < 0:
        raise UsageError("hosts, days and hours have to be positive, and the largest job no larger than the fleet")
    fleet = domains.Fleet(
        hosts=args.hosts,
        largest_job=largest,
        cycle_h=args.cycle_days * 24.0,
        visit_h=args.visit_hours,
        interruption_h=args.interruption_minutes / 60.0,
    )
    found = domains.size(args.size, fleet)
    if args.json:
        print(msgspec.json.encode(found).decode())
        return 0
    print(f"{found.hosts} hosts at once")
    for line in found.why:
        print(f"  {line}")
    return 0
