"""`trainmaster controller train`: maintenance trains, from their catalogue to where each host stands."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainmaster.controller.maintenance import orders
    from trainmaster.controller.memory import Memory
    from trainmaster.controller.policy import Policy
    from trainmaster.controller.snapshot import Snapshot


JOURNAL = "/var/lib/trainmaster/controller.sqlite"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="train_verb", required=True, metavar="VERB")
    check = verbs.add_parser(
        "check", help="read a catalogue of operations as the controller does, and say what it says"
    )
    check.add_argument("catalogue", nargs="?", type=Path, default=None, metavar="FILE", help="default: the example")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)
    plan = verbs.add_parser("plan", help="what a train would do on this cluster: operations, domain, the first car")
    _start_options(plan)
    plan.add_argument("--json", action="store_true")
    plan.set_defaults(run=_plan, emergency=False)
    for verb, text in (
        ("start", "have the controller start a train"),
        ("emergency", "the same at once: before other trains, and without waiting for jobs to end or restart"),
    ):
        start = verbs.add_parser(verb, help=text)
        _start_options(start)
        if verb == "emergency":
            start.add_argument(
                "--break-glass", action="store_true", help="whatever was promised; the cap of the policy still holds"
            )
        _asking(start)
        start.set_defaults(run=_ask)
    for verb, text in (
        ("pause", "take nothing new, give back what was not touched, finish the rest"),
        ("resume", "go on"),
        ("end", "the same as pause, for good"),
    ):
        ask = verbs.add_parser(verb, help=text)
        ask.add_argument("train", metavar="NAME")
        _asking(ask)
        ask.set_defaults(run=_ask)
    off = verbs.add_parser("off-board", help="take operations off a train")
    off.add_argument("train", metavar="NAME")
    off.add_argument("operations", nargs="+", metavar="OPERATION")
    _asking(off)
    off.set_defaults(run=_ask)
    status = verbs.add_parser("status", help="where trains and their hosts stand")
    _journal(status)
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)
    report = verbs.add_parser("report", help="versions by component as last seen, drift, pairs that do not fit")
    _journal(report)
    _policy(report)
    report.add_argument("--json", action="store_true")
    report.set_defaults(run=_report)
    domain = verbs.add_parser("domain", help="how many hosts to take out at once, and why so many")
    domain.add_argument("--hosts", type=int, required=True, help="of the fleet")
    domain.add_argument("--largest-job", type=int, default=None, metavar="HOSTS", help="default: all of them")
    domain.add_argument("--cycle-days", type=float, default=28.0)
    domain.add_argument("--visit-hours", type=float, default=2.0, help="for which one host is out; default 2")
    domain.add_argument(
        "--interruption-minutes", type=float, default=9.0, help="that one costs the largest job; default 9"
    )
    domain.add_argument(
        "--failures-per-1000-node-days", type=float, default=2.34, metavar="R", help="default 2.34, RSC-2's"
    )
    domain.add_argument("--size", default="auto", help='"30", "1.5%%" or "auto" (the default)')
    domain.add_argument("--json", action="store_true")
    domain.set_defaults(run=_domain)


def _journal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--journal", type=Path, default=Path(JOURNAL), metavar="FILE", help=f"default: {JOURNAL}")


def _policy(parser: argparse.ArgumentParser) -> None:
    usual = "/etc/trainmaster/controller.toml"
    parser.add_argument("--policy", type=Path, default=None, metavar="FILE", help=f"default: {usual}, if it is there")


def _start_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", metavar="NAME", help="stands in reasons and names of reservations")
    parser.add_argument("--operations", default="", metavar="A,B", help="default: all of the catalogue")
    parser.add_argument("--cycle-days", type=float, default=None, help="default: the policy's")
    parser.add_argument("--domain", default=None, help='hosts at once: "30", "1.5%%", "leaf", "pod", "switch", "auto"')
    _policy(parser)


def _asking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="in your words; it stands in the chain of evidence")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be asked")
    _journal(parser)


def _order(args: argparse.Namespace) -> "orders.Order":
    import getpass
    import re

    from trainmaster.controller.maintenance import orders
    from trainmaster.errors import UsageError

    if not re.fullmatch(orders.NAME, args.train):
        raise UsageError(
            f"a train cannot be called {args.train!r}",
            hint="up to 31 lower-case letters, digits and dashes, not first a dash",
        )
    named = getattr(args, "operations", ())
    operations = tuple(word for word in named.split(",") if word) if isinstance(named, str) else tuple(named)
    return orders.Order(
        verb="start" if args.train_verb == "plan" else args.train_verb,
        train=args.train,
        operations=operations,
        why=getattr(args, "reason", ""),
        by=getpass.getuser(),
        cycle_days=getattr(args, "cycle_days", None),
        domain=getattr(args, "domain", None),
        break_glass=getattr(args, "break_glass", False),
    )


def _ask(args: argparse.Namespace) -> int:
    import msgspec

    from trainmaster.controller.journal import Journal

    order = _order(args)
    if args.train_verb in ("start", "emergency"):
        # The controller would refuse it a tick later, where nobody sees it.
        _try(args, order)
    text = msgspec.json.encode(order).decode()
    if args.dry_run:
        print(f"would ask the controller of {args.journal}: {text}")
        return 0
    journal = Journal(args.journal, read_only=True)
    journal.ask("train", args.train, by=order.by, why=text)
    journal.close()
    print(f"asked: {args.train_verb} {args.train}; the controller takes it up at its next tick")
    return 0


def _try(args: argparse.Namespace, order: "orders.Order") -> "tuple[Policy, Snapshot, Memory, float]":
    """Memory with the train, as the controller would have it. Raises UsageError where it would refuse."""
    from trainmaster.clock import SystemClock
    from trainmaster.controller import observe, policy, rebuild
    from trainmaster.controller.decide import observe as take_in
    from trainmaster.controller.maintenance import orders
    from trainmaster.slurm.commands import Commands

    wanted = policy.load(args.policy)
    door = Commands(timeout_s=30.0)
    now = SystemClock().now().timestamp()
    look = observe.look(door, now=now, leaf_of=observe.leaf_of(door))
    memory = take_in(look, rebuild.from_slurm(look, wanted, now), wanted, now)
    return wanted, look, orders.obey(memory, order, wanted, look, now), now


def _plan(args: argparse.Namespace) -> int:
    import msgspec

    from trainmaster.controller.acts import Kind
    from trainmaster.controller.decide import decide
    from trainmaster.controller.maintenance import orders, visit

    order = _order(args)
    policy, look, memory, now = _try(args, order)
    train = memory.maintenance.trains[order.train]
    catalogue = policy.maintenance.registry
    assert catalogue is not None, "a train was made of it"
    wanted = train.unit or args.domain
    domain = orders.domain(look, policy, train.operations, wanted, args.cycle_days)
    plan = decide(look, memory, policy, now)
    cars = [act for act in plan.acts if act.kind is Kind.BOOK]
    if args.json:
        values = {"train": train, "domain": domain, "cars": cars, "refused": plan.refused}
        print(msgspec.json.encode(values).decode())
        return 0
    minutes = visit.duration_s(catalogue, train.operations) / 60.0
    print(f"train {train.name}: {len(look.nodes)} hosts in {train.cycle_s / 86400.0:g} days, {train.domain} at once")
    for line in domain.why:
        print(f"  {line}")
    print(f"up to {minutes:.1f} min of operations on each, in this order, where they are due:")
    for name in train.operations:
        one = catalogue.operations[name]
        versions = ", ".join(f"{component} {version}" for component, version in one.upgrades.items())
        print(f"  {name:<22}{versions or one.title}")
    for act in cars:
        print(f"first car: {','.join(act.nodes)}")
    for refusal in plan.refused:
        print(f"no {refusal.wanted} of {refusal.subject}, by {refusal.rule}: {refusal.why}")
    return 0


def _status(args: argparse.Namespace) -> int:
    import time

    import msgspec

    from trainmaster.controller.journal import Journal
    from trainmaster.controller.maintenance import progress
    from trainmaster.controller.memory import Memory

    journal = Journal(args.journal, read_only=True)
    state = (journal.load() or Memory()).maintenance
    if args.json:
        print(msgspec.json.encode(progress.as_values(state)).decode())
        return 0
    for line in progress.lines(state, time.time()):
        print(line)
    for name in state.trains:
        for event in journal.events(f"train:{name}")[-12:]:
            print(f"    {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(event.at))}  {event.what}: {event.detail}")
    return 0


def _report(args: argparse.Namespace) -> int:
    import msgspec

    from trainmaster.controller import policy
    from trainmaster.controller.journal import Journal
    from trainmaster.controller.maintenance import progress
    from trainmaster.controller.memory import Memory

    catalogue = policy.load(args.policy).maintenance.registry
    state = (Journal(args.journal, read_only=True).load() or Memory()).maintenance
    if args.json:
        print(msgspec.json.encode(progress.versions(state, catalogue)).decode())
        return 0
    for line in progress.report(state, catalogue):
        print(line)
    return 0


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
    rates = (args.interruption_minutes, args.failures_per_1000_node_days)
    if not 1 <= largest <= args.hosts or min(args.cycle_days, args.visit_hours) <= 0 or min(rates) < 0:
        raise UsageError("hosts, days and hours have to be positive, and the largest job no larger than the fleet")
    fleet = domains.Fleet(
        hosts=args.hosts,
        largest_job=largest,
        cycle_h=args.cycle_days * 24.0,
        visit_h=args.visit_hours,
        interruption_h=args.interruption_minutes / 60.0,
        failures_per_1000_node_days=args.failures_per_1000_node_days,
    )
    found = domains.size(args.size, fleet)
    if args.json:
        print(msgspec.json.encode(found).decode())
        return 0
    print(f"{found.hosts} hosts at once")
    for line in found.why:
        print(f"  {line}")
    return 0
