"""Which nodes are to be taken out now: those with a cause, and lemons, as far as capacity and breaker bear it. Pure."""

from trainmaster.controller import breaker, snapshot
from trainmaster.controller.acts import Act, Kind, Refusal, Trip
from trainmaster.controller.capacity import Ledger
from trainmaster.controller.lemons import condemned
from trainmaster.controller.memory import OURS, Memory, NodeState
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot


def wanted(look: Snapshot, memory: Memory, policy: Policy, now: float) -> dict[str, tuple[str, str, str, bool]]:
    """By node: cause, why, what tells this cause from an earlier one, and whether the drain could wait."""
    found: dict[str, tuple[str, str, str, bool]] = {}
    for name, record in memory.nodes.items():
        if record.cause_at is not None and record.state not in OURS and record.state is not NodeState.FOREIGN:
            cause, _, why = record.why.partition(": ")
            found[name] = (cause, why, f"{record.cause_at:.0f}", True)
    for verdict in condemned(memory, policy, now):
        record_of = memory.nodes.get(verdict.node)
        if record_of is not None and (record_of.state in OURS or record_of.state is NodeState.FOREIGN):
            continue
        why = (
            f"{verdict.failures:.1f} failures in {verdict.exposure_days:.1f} days under jobs, "
            f"a lemon with probability {verdict.probability:.3f}"
        )
        found[verdict.node] = ("lemon", why, f"lemon@{memory.blame[verdict.node].incident_at:.0f}", True)
    return found


def decide(
    look: Snapshot, memory: Memory, policy: Policy, now: float, *, tripped: tuple[Trip, ...], left: Ledger
) -> tuple[list[Act], list[Refusal]]:
    """Drains, nodes of one cause together, and what stands in the way of others."""
    acts: list[Act] = []
    refused: list[Refusal] = []
    together: dict[tuple[str, str, str], list[str]] = {}
    for name, (cause, why, attempt, planned) in sorted(wanted(look, memory, policy, now).items()):
        node = look.nodes.get(name)
        if node is None or snapshot.drained(node) or f"node:{name}" in memory.open_targets:
            continue
        subject = f"node:{name}"
        trip = breaker.stops(tripped, node=name, cause=cause, leaf_of=look.leaf_of)
        if trip is not None:
            refused.append(Refusal(subject=subject, wanted=Kind.DRAIN, rule="I3", why=trip.why))
            continue
        against = left.refuses(name, planned=planned)
        if against is not None:
            refused.append(Refusal(subject=subject, wanted=Kind.DRAIN, rule=against[0], why=against[1]))
            continue
        together.setdefault((cause, why, attempt), []).append(name)
    for (cause, why, attempt), names in together.items():
        acts.append(
            Act(kind=Kind.DRAIN, cause=cause, why=why, attempt=attempt, nodes=tuple(sorted(names)), planned=True)
        )
    return acts, refused
