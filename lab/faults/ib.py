"""Cables, adapters and counters of the lab's simulated InfiniBand."""

from collections.abc import Callable, Sequence

import numpy as np

from trainmaster.errors import UsageError
from trainmaster.fabric.model import Fabric
from trainmaster.lab import ib
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target
from trainmaster.lab.running import Lab

# What a bad cable collects in an hour, far above any threshold.
_SYMBOL_ERRORS = 4000
_HINT = "write n05:3 (node and rail), n05 (all its rails), or su001-rail0:4 (switch and port)"


def links_of(fabric: Fabric, target: str) -> tuple[int, ...]:
    """The cables that "n05:3", "n05" or "su001-rail0:4" names, commas between several; UsageError for none."""
    found: list[int] = []
    switches = {switch.name: number for number, switch in enumerate(fabric.switches)}
    nodes = {node.name: node for node in fabric.nodes()}
    for part in target.split(","):
        name, _, number = part.partition(":")
        if number and not number.isdecimal():
            raise UsageError(f"{part!r} is no cable of this lab", hint=_HINT)
        links = fabric.links
        if name in switches:
            at = [(links.a == switches[name], links.a_port), (links.b == switches[name], links.b_port)]
            hit = [own & ((port == int(number)) if number else True) for own, port in at]
            chosen = np.flatnonzero(hit[0] | hit[1]).tolist()
        elif name in nodes and int(number or 0) < len(nodes[name].hcas):
            hcas = [nodes[name].hcas[int(number)]] if number else nodes[name].hcas
            ends = [len(fabric.switches) + hca for hca in hcas]
            chosen = np.flatnonzero(np.isin(links.a, ends) | np.isin(links.b, ends)).tolist()
        else:
            chosen = []
        if not chosen:
            raise UsageError(f"{part!r} is no cable of this lab", hint=_HINT)
        found += chosen
    return tuple(dict.fromkeys(found))


def ends_of(fabric: Fabric, link: int) -> tuple[str, str]:
    """Both ends of a cable as ibsim's console names them."""
    links = fabric.links

    def end(owner: int, port: int) -> str:
        count = len(fabric.switches)
        word = f"S-{fabric.switches[owner].guid[2:]}" if owner < count else f"H-{fabric.hcas[owner - count].guid[2:]}"
        return f'"{word}"[{port}]'

    return (
        end(int(links.a[link]), int(links.a_port[link])),
        end(int(links.b[link]), int(links.b_port[link])),
    )


def _console(name: str, what: str, lines: Callable[[Fabric, Sequence[int]], list[str]]) -> Callable[..., Injected]:
    """A fault that is said to ibsim's console."""

    def inject(lab: Lab, target: str, options: Options) -> Injected:
        fabric = ib.fabric_of(lab)
        chosen = links_of(fabric, target)
        said = lines(fabric, chosen)
        if not options.dry_run:
            ib.change(lab, said)
        would = "would have " if options.dry_run else ""
        return Injected(fault=name, target=target, summary=f"{would}{what} {len(chosen)} cables: {target}")

    return inject


def _cut(fabric: Fabric, links: Sequence[int]) -> list[str]:
    return [f"Unlink {ends_of(fabric, link)[0]}" for link in links]


def _mend(fabric: Fabric, links: Sequence[int]) -> list[str]:
    return [f"ReLink {ends_of(fabric, link)[0]}" for link in links]


def _errors(fabric: Fabric, links: Sequence[int]) -> list[str]:
    return [
        f"PerformanceSet {end} PortCounters.{counter}={amount}"
        for link in links
        for end in ends_of(fabric, link)
        for counter, amount in (("SymbolErrorCounter", _SYMBOL_ERRORS), ("LinkErrorRecoveryCounter", 7))
    ]


def _swap(fabric: Fabric, links: Sequence[int]) -> list[str]:
    if len(links) != 2:
        raise UsageError(f"ib-swap takes two cables, and was given {len(links)}", hint="n05:2,n07:3")
    (one, one_top), (other, other_top) = (ends_of(fabric, link) for link in links)
    return [
        *(f"Clear {end}" for end in (one, one_top, other, other_top)),
        f"Link {one} {other_top}",
        f"Link {other} {one_top}",
    ]


def _slower(name: str, what: str, lanes: int, lane_gbps: float) -> Callable[..., Injected]:
    """A fault that ibsim reads at its start only."""

    def inject(lab: Lab, target: str, options: Options) -> Injected:
        chosen = links_of(ib.fabric_of(lab), target)
        if not options.dry_run:
            ib.slow_down(lab, chosen, lanes=lanes, lane_gbps=lane_gbps)
        would = "would have " if options.dry_run else ""
        return Injected(fault=name, target=target, summary=f"{would}set {len(chosen)} cables to {what}: {target}")

    return inject


def _renew(lab: Lab, target: str, options: Options) -> Injected:
    ib.fabric_of(lab)
    if not options.dry_run:
        ib.renew(lab)
    would = "would have " if options.dry_run else ""
    return Injected(fault="ib-renew", target=target, summary=f"{would}made every cable whole and every counter 0")


FAULTS = (
    Fault(
        name="ib-cut",
        help="InfiniBand cables are pulled: of a node's rail, of a whole node, or of a switch's port",
        target=Target.CABLES,
        inject=_console("ib-cut", "pulled", _cut),
    ),
    Fault(
        name="ib-mend",
        help="pulled InfiniBand cables are plugged in again",
        target=Target.CABLES,
        inject=_console("ib-mend", "plugged in", _mend),
    ),
    Fault(
        name="ib-swap",
        help="two InfiniBand cables change places, as when somebody plugs rail 2 in where rail 3 belongs",
        target=Target.CABLES,
        inject=_console("ib-swap", "exchanged", _swap),
    ),
    Fault(
        name="ib-symbol-errors",
        help="symbol errors and recoveries on both ends of InfiniBand cables",
        target=Target.CABLES,
        inject=_console("ib-symbol-errors", "put errors on", _errors),
    ),
    Fault(
        name="ib-narrow",
        help="InfiniBand cables run with one lane of four; restarts the simulation",
        target=Target.CABLES,
        inject=_slower("ib-narrow", "one lane", 1, 53.125),
    ),
    Fault(
        name="ib-slow",
        help="InfiniBand cables run at QDR instead of HDR; restarts the simulation",
        target=Target.CABLES,
        inject=_slower("ib-slow", "QDR", 4, 10.0),
    ),
    Fault(
        name="ib-renew",
        help="the simulated fabric starts over, whole",
        target=Target.NOTHING,
        inject=_renew,
    ),
)
