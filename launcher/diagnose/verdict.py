"""From what the nodes measured to the nodes, or the pair, that are to blame. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainmaster.health.deep import peers
from trainmaster.health.deep.schedule import Pair

SOLO_FACTOR = 1.3
"""So many times the median time is slow, for a node's own work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What one node told."""

    node: str
    ready: bool = False
    """It came as far as the tournament."""
    checks: tuple[str, ...] = ()
    """Health checks that speak for taking the node out of service: "gpu.xid: 79"."""
    solo_s: float | None = None
    """What a fixed piece of work took."""
    pairs: Mapping[str, float | None] = field(default_factory=dict)
    """By partner, what an all-reduce with it took; None when it did not come about."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guilty:
    """One node, or two nodes that are slow only with each other."""

    nodes: tuple[str, ...]
    why: str
    slow: bool = False
    """It works, but slowly; else it does not answer, or is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from a round of checks."""

    nodes: tuple[Guilty, ...] = ()
    pairs: tuple[Guilty, ...] = ()
    notes: tuple[str, ...] = ()
    """What was seen and blames nobody."""

    @property
    def clean(self) -> bool:
        """Nobody is to blame."""
        return not self.nodes and not self.pairs


def pair_times(reports: Mapping[str, NodeReport]) -> dict[Pair, float | None]:
    """The time of each pair that was tried: that of the slower side; None when either side did not get through."""
    return peers.of_pairs({report.node: report.pairs for report in reports.values()})


def judge(nodes: Sequence[str], reports: Mapping[str, NodeReport]) -> Verdict:
    """Who is to blame, of `nodes`, by what those of them told that told anything."""
    guilty: dict[str, Guilty] = {}
    notes: list[str] = []
    _blame_checks(nodes, reports, guilty, notes)
    _blame_silence(nodes, reports, guilty, notes)
    solo = {report.node: report.solo_s for report in reports.values() if report.solo_s is not None}
    for node, times in peers.outliers(solo, factor=SOLO_FACTOR).items():
        why = f"its own work takes {times:.1f} times the median"
        guilty.setdefault(node, Guilty(nodes=(node,), why=why, slow=True))
    tried = pair_times(reports)
    for node, times in peers.slow_nodes(nodes, tried).items():
        why = f"an all-reduce takes {times:.1f} times the median, even with its best partners"
        guilty.setdefault(node, Guilty(nodes=(node,), why=why, slow=True))
    pairs = tuple(
        Guilty(nodes=pair, why=f"an all-reduce takes {times:.1f} times the median, only with each other", slow=True)
        for pair, times in peers.slow_pairs(set(nodes) - guilty.keys(), tried).items()
    )
    return Verdict(nodes=tuple(guilty[node] for node in nodes if node in guilty), pairs=pairs, notes=tuple(notes))


def _blame_checks(
    nodes: Sequence[str], reports: Mapping[str, NodeReport], guilty: dict[str, Guilty], notes: list[str]
) -> None:
    """Health checks speak against a node, but not one that most nodes fail: then it is the check that is wrong."""
    common = Counter(check.partition(":")[0] for report in reports.values() for check in report.checks)
    wrong = {check for check, count in common.items() if len(nodes) > 1 and count > len(nodes) / 2}
    notes += [f"{check} fails on {common[check]} of {len(nodes)} nodes, so it counts for nothing" for check in wrong]
    for report in reports.values():
        against = [check for check in report.checks if check.partition(":")[0] not in wrong]
        if against:
            guilty[report.node] = Guilty(nodes=(report.node,), why=f"health check {'; '.join(against)}")


def _blame_silence(
    nodes: Sequence[str], reports: Mapping[str, NodeReport], guilty: dict[str, Guilty], notes: list[str]
) -> None:
    """Who did not come as far as most did, or got through to nobody."""
    ready = {node for node in nodes if node in reports and reports[node].ready}
    if len(ready) <= len(nodes) / 2:
        late = [node for node in nodes if node not in reports]
        notes += [f"no answer from {', '.join(late)}"] if late else []
        return
    for node in nodes:
        if node not in reports:
            guilty.setdefault(node, Guilty(nodes=(node,), why="it did not answer"))
        elif node not in ready:
            guilty.setdefault(node, Guilty(nodes=(node,), why="it was not ready in time, when most others were"))
    cut = peers.cut_off((node for node in nodes if node in ready), pair_times(reports))
    if len(cut) <= len(ready) / 2:
        for node in cut:
            guilty.setdefault(node, Guilty(nodes=(node,), why="it got through to none of its partners"))
    elif cut:
        notes.append("most nodes got through to nobody: the means of the tournament failed, not a node")


def to_leave(verdict: Verdict, *, spares: int) -> tuple[str, ...]:
    """The nodes to leave out, as far as there are spares: broken ones first, then slow ones, then one of each pair.

    >>> slow = Guilty(nodes=("n3",), why="slow", slow=True)
    >>> dead = Guilty(nodes=("n1",), why="silent")
    >>> to_leave(Verdict(nodes=(slow, dead), pairs=(Guilty(nodes=("n4", "n5"), why="slow"),)), spares=2)
    ('n1', 'n3')
    """
    order = [one.nodes[0] for one in sorted(verdict.nodes, key=lambda one: one.slow)]
    often = Counter(node for pair in verdict.pairs for node in pair.nodes)
    for pair in verdict.pairs:
        if not set(pair.nodes) & set(order):
            # One bad port of many pairs is in each of them.
            order.append(max(pair.nodes, key=lambda node: often[node]))
    return tuple(order[: max(0, spares)])
