"""Takes a look at nodes into memory: which state each is in now, and what new speaks against it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainmaster.controller import evidence, forgotten, returning, snapshot
from trainmaster.controller.lemons import blamed
from trainmaster.controller.memory import (
    OURS,
    Drain,
    Evidence,
    Memory,
    NodeRecord,
    NodeState,
    Severity,
    put_nodes,
)
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Node

_KEPT = 8
"""Pieces of evidence that are kept of each node."""
_DAY_S = 86400.0


def fold(
    look: Snapshot,
    memory: Memory,
    policy: Policy,
    now: float,
    reported: Mapping[str, Sequence[Evidence]],
) -> Memory:
    """Memory with what this look and `reported` say of nodes."""
    concerned = look.troubled | memory.nodes.keys() | reported.keys()
    records: list[NodeRecord] = []
    drains: list[Drain] = []
    gone: list[str] = []
    blame = dict(memory.blame)
    for name in sorted(concerned):
        node = look.nodes.get(name)
        if node is None:
            gone.append(name)
            continue
        before = memory.nodes.get(name) or NodeRecord(name=name, since=now)
        after, seen, drain = _moved(
            before, node, policy, now, first=memory.at == 0, lost=forgotten.drain(look, before, memory)
        )
        if before.state is NodeState.LEMON and after.state is not NodeState.LEMON:
            # Somebody lets it work again: it has been repaired, or they know better. It starts anew.
            blame.pop(name, None)
        if after.state is NodeState.PROBATION and not snapshot.at_rest(node):
            # Time in which nobody looked proves nothing.
            after = replace(after, busy_s=after.busy_s + min(max(0.0, now - memory.at), 4 * policy.tick_s))
        seen = [*reported.get(name, ()), *seen]
        for piece in seen:
            if piece.weight > 0:
                blame[name] = blamed(blame.get(name), piece, policy)
        if drain is not None:
            drains.append(drain)
        records.append(_with(after, seen, policy, now))
    kept = [drain for drain in memory.drains if now - drain.at <= policy.drains.breaker_window_s]
    memory = put_nodes(memory, records)
    if gone:
        memory = replace(memory, nodes={name: one for name, one in memory.nodes.items() if name not in set(gone)})
    return replace(memory, drains=(*kept, *drains), blame=blame)


def _moved(
    record: NodeRecord, node: Node, policy: Policy, now: float, *, first: bool, lost: bool
) -> tuple[NodeRecord, list[Evidence], Drain | None]:
    """A record after a look at its node; what is new against it; and its drain, if somebody else made one."""
    seen: list[Evidence] = []
    is_down = snapshot.down(node)
    if is_down and not record.was_down and not first and record.state is not NodeState.MAINTENANCE:
        # Whether the node or its job is to blame is not known here; a job that it takes along weighs.
        seen.append(Evidence(at=now, kind="down", what=f"went down: {node.reason or 'no reason'}"))
        record = replace(record, falls=(*record.falls, now))
    if is_down is not record.was_down or (record.falls and now - record.falls[0] > _DAY_S):
        record = replace(record, was_down=is_down, falls=tuple(at for at in record.falls if now - at <= _DAY_S))
    coming_up = record.state is NodeState.MAINTENANCE and is_down and _rebooting(record, node)
    if not snapshot.drained(node) and lost:
        return forgotten.to_be_drained(record, now), seen, None
    if not snapshot.drained(node) and not coming_up:
        return _not_drained(record, node, policy, now), seen, None
    by = evidence.owner(node.reason)
    if by == "us" and (record.reason in ("", node.reason) or _rebooting(record, node)):
        return _ours(record, node, now), seen, None
    why = f"drained by {by}: {node.reason}"[:220]
    if record.state is NodeState.FOREIGN and record.why == why:
        return record, seen, None
    # Also a drain of ours whose reason somebody has changed: it is theirs now.
    if not first:
        seen.append(evidence.of_drain(node, policy, now))
    elif evidence.fatal(node, policy):
        seen.append(replace(evidence.of_drain(node, policy, now), weight=0.0))
    drain = None if first else Drain(at=now, node=node.name, cause=evidence.cause_of(node.reason), by=by)
    return _to(record, NodeState.FOREIGN, why, now), seen, drain


FOUND = {"lemon": NodeState.LEMON, "train": NodeState.MAINTENANCE}
"""The states of nodes that carry a drain of ours, by its cause."""


def _rebooting(record: NodeRecord, node: Node) -> bool:
    """Whether Slurm has hung words about a reboot of ours onto our reason."""
    return bool(record.reason) and evidence.plain(node.reason) == evidence.plain(record.reason) != ""


def _ours(record: NodeRecord, node: Node, now: float) -> NodeRecord:
    """Of a node that carries our drain."""
    if record.state not in OURS:
        # Found in Slurm and not in memory: the database was lost, or we were killed before noting it.
        state = FOUND.get(evidence.cause_of(node.reason), NodeState.QUARANTINING)
        record = _to(record, state, node.reason, now)
    if record.reason != node.reason or record.drained_at is None:
        record = replace(record, reason=node.reason, drained_at=record.drained_at or now)
    if record.state is NodeState.QUARANTINING and snapshot.at_rest(node):
        record = _to(record, NodeState.QUARANTINED, record.why, now)
    return record


def _not_drained(record: NodeRecord, node: Node, policy: Policy, now: float) -> NodeRecord:
    """Of a node that no drain keeps from its work."""
    state = record.state
    if state in OURS or state is NodeState.FOREIGN:
        # Somebody resumed it by hand, and is not contradicted until there is another cause.
        record = _to(record, NodeState.OK, "resumed by somebody", now)
    elif state is NodeState.PROBATION and returning.over(record, policy, now):
        record = _to(record, NodeState.OK, "probation is over", now)
    elif state is NodeState.OK and snapshot.silent(node):
        record = _to(record, NodeState.SUSPECT, node.reason or "does not answer", now)
    elif state is NodeState.SUSPECT and not snapshot.silent(node) and now - record.since >= policy.evidence.incident_s:
        record = _to(record, NodeState.OK, "answers again", now)
    return record


def _to(record: NodeRecord, state: NodeState, why: str, now: float) -> NodeRecord:
    if state is record.state:
        return record if why == record.why else replace(record, why=why)
    if state in OURS:
        return replace(record, state=state, since=now, why=why)
    return replace(
        record,
        state=state,
        since=now,
        why=why,
        reason="",
        drained_at=None,
        cause_at=None,
        released=False,
        ticketed=False,
        ticket_tries=0,
        busy_s=0.0,
        proof_at=None,
    )


def _with(record: NodeRecord, seen: Sequence[Evidence], policy: Policy, now: float) -> NodeRecord:
    """With new evidence, and what it makes of a node that is in service."""
    old = record.evidence
    young = not old or now - old[0].at <= policy.evidence.memory_s
    if young and not seen and not record.falls and record.cause_at is None:
        # Of most nodes, at most looks, there is nothing new.
        return record
    pieces = [piece for piece in old if now - piece.at <= policy.evidence.memory_s]
    pieces += seen
    if len(pieces) != len(old) or seen:
        record = replace(record, evidence=tuple(pieces[-_KEPT:]))
    if record.state in OURS or record.state is NodeState.FOREIGN:
        return record
    asked = next((piece for piece in reversed(pieces) if piece.kind == "quarantine" and piece.at >= record.since), None)
    if asked is not None and record.cause_at is None:
        return replace(record, cause_at=asked.at, why=f"person: {asked.what}")
    if record.cause_at is None and len(record.falls) >= policy.drains.falls_max and record.falls[-1] >= record.since:
        return replace(record, cause_at=record.falls[-1], why=f"flap: went down {len(record.falls)} times in a day")
    bad = [piece for piece in seen if piece.severity is not Severity.LOW and piece.weight >= 0.5]
    if record.cause_at is None and record.state is NodeState.PROBATION and bad:
        return replace(record, cause_at=now, why=f"probation: {bad[-1].what}"[:200])
    return record
