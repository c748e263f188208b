"""How nodes that we drained come back: verified, resumed, watched. Never stopped by the breaker. Pure."""

from trainmaster.controller import snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.memory import Memory, NodeRecord, NodeState
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot

_WAIT_FOR_A_PERSON = frozenset({NodeState.LEMON, NodeState.REPAIR})


def decide(look: Snapshot, memory: Memory, policy: Policy, now: float) -> list[Act]:
    """Verifications, resumes and repair tickets that are due."""
    acts: list[Act] = []
    for name in sorted(memory.nodes):
        record, node = memory.nodes[name], look.nodes.get(name)
        if record.state is NodeState.MAINTENANCE:
            continue  # its train brings it back
        if node is None or not record.reason or record.reason != node.reason or f"node:{name}" in memory.open_targets:
            continue
        attempt = f"{record.drained_at or 0:.0f}"
        if proven(record, policy):
            if not snapshot.silent(node):
                acts.append(
                    Act(
                        kind=Kind.RESUME,
                        cause="verified",
                        why=f"{'passed verification' if record.proof_at else 'released'} after {record.reason}"[:180],
                        attempt=attempt,
                        nodes=(name,),
                        expected_reason=record.reason,
                    )
                )
            continue
        if record.state in _WAIT_FOR_A_PERSON and not record.released:
            if ticket_due(record, policy, now):
                acts.append(
                    Act(
                        kind=Kind.TICKET,
                        cause=record.state.lower(),
                        why=record.why,
                        attempt=f"{attempt}:{record.since:.0f}",
                        nodes=(name,),
                    )
                )
            continue
        if policy.returning.verify and snapshot.at_rest(node) and not snapshot.down(node):
            acts.append(
                Act(
                    kind=Kind.VERIFY,
                    cause="verify",
                    why=record.why,
                    attempt=f"{attempt}:{record.since:.0f}",
                    nodes=(name,),
                    expected_reason=record.reason,
                    deadline_s=policy.returning.verify_timeout_s,
                )
            )
    return acts[: policy.returning.at_once_max]


def ticket_due(record: NodeRecord, policy: Policy, now: float) -> bool:
    """Whether somebody is to be told, or told again after an attempt that failed."""
    wanted = policy.returning
    if record.ticketed or not (wanted.ticket or wanted.ticket_url):
        return False
    if not record.ticket_tries or not wanted.ticket_again_s:
        return True
    return now - record.ticket_at >= wanted.ticket_again_s[min(record.ticket_tries, len(wanted.ticket_again_s)) - 1]


def over(record: NodeRecord, policy: Policy, now: float) -> bool:
    """Whether a probation has been long enough, and busy enough."""
    since_s = now - record.since
    wanted = policy.returning
    enough = since_s >= wanted.probation_s and record.busy_s >= wanted.probation_busy_s
    return enough or since_s >= wanted.probation_max_s


def on_probation(memory: Memory) -> frozenset[str]:
    """Nodes that came back lately."""
    return frozenset(name for name, record in memory.nodes.items() if record.state is NodeState.PROBATION)


def proven(record: NodeRecord, policy: Policy) -> bool:
    """Whether it has passed verification since it was drained; without a command for that, a person's word is it."""
    if record.released and not policy.returning.verify:
        return True
    return record.proof_at is not None and record.drained_at is not None and record.proof_at > record.drained_at
