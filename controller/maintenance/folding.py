"""Takes a look into what is remembered of maintenance: where hosts stand, phases, regressions, ends of trains. Pure."""

import math
from collections.abc import Iterable
from dataclasses import replace

from trainmaster.controller import evidence, snapshot
from trainmaster.controller.maintenance import cars, leaving, visit
from trainmaster.controller.maintenance.state import (
    Host,
    Maintenance,
    Stage,
    Train,
    drop_hosts,
    put_hosts,
    put_train,
    to,
)
from trainmaster.controller.memory import Memory, NodeRecord, NodeState, put_nodes
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot

_SILENT_S = 3600.0
"""A host that does not answer for so long while a train has it has failed."""
_FAILURES_PER_DAY = 6.5e-3
"""Of a node that was not touched: RSC-1 (Kokolis et al.). More than that after a phase is a regression."""


def fold(look: Snapshot, memory: Memory, policy: Policy, now: float) -> Memory:
    """Memory with what this look says of maintenance."""
    state = memory.maintenance
    if state.idle and not state.past and not state.notices:
        return memory
    memory = _released(memory, now)
    state = memory.maintenance
    dropped: list[str] = []
    moved: list[Host] = []
    stuck_s = _stuck_s(policy)
    for host in state.in_hand():
        after = _moved(look, memory, policy, host, now, stuck_s)
        if after is None:
            dropped.append(host.name)
        elif after is not host:
            moved.append(after)
    state = put_hosts(drop_hosts(state, dropped), moved)
    memory = put_nodes(memory, _repairs(memory, moved, now))
    state = _watched(look, memory, state, policy, now)
    # Jobs whose turn has come, or that are put off once more.
    state = replace(
        state,
        notices={
            **state.notices,
            **{
                one.job_id: one for one in leaving.decide(look, replace(memory, maintenance=state), policy, now).notices
            },
        },
    )
    for train in state.moving():
        state = put_train(state, _train(look, state, train, policy, now))
    notices = {
        job_id: one
        for job_id, one in state.notices.items()
        if job_id in look.jobs and look.jobs[job_id].active and look.jobs[job_id].restarts <= one.restarts
    }
    if len(notices) != len(state.notices):
        state = replace(state, notices=notices)
    return replace(memory, maintenance=state)


def _moved(look: Snapshot, memory: Memory, policy: Policy, host: Host, now: float, stuck_s: float) -> Host | None:
    """A host after this look; None when it goes back to where it came from, with nothing done to it."""
    node, train = look.nodes.get(host.name), memory.maintenance.trains.get(host.train)
    if node is None:
        return to(host, Stage.LEFT, now, "it is no longer in the cluster")
    record = memory.nodes.get(host.name)
    # A reboot takes the drain away for a moment and leaves the node DOWN.
    out = snapshot.drained(node) or snapshot.down(node)
    ours = record is not None and record.state is NodeState.MAINTENANCE and out
    if host.stage is Stage.BOOKED:
        if snapshot.drained(node) and not ours:
            return None
        return None if train is None or not train.active or train.paused else host
    if host.stage is Stage.FINISHING:
        if snapshot.drained(node):
            return to(host, Stage.DONE, now, f"drained again: {node.reason}"[:180], returned_at=now)
        return host
    if not ours:
        if host.stage is Stage.RETURNING and not snapshot.drained(node):
            return host  # it is just coming back
        why = f"taken over: {node.reason}" if snapshot.drained(node) else "somebody let it work again"
        return to(host, Stage.LEFT, now, why[:180])
    if host.stage is Stage.WORKING and now - host.since > stuck_s:
        return to(host, Stage.FAILED, now, "it waited in vain for what it shares with others", failed="unit")
    if host.stage is Stage.DRAINING:
        if snapshot.silent(node):
            if now - host.since > _SILENT_S:
                return to(host, Stage.FAILED, now, "it does not answer", failed="answer")
        elif snapshot.at_rest(node) and (
            host.worked_at is None or now - host.worked_at > visit.left_running_s(policy.maintenance)
        ):
            return to(host, Stage.WORKING, now)
    return host


def _stuck_s(policy: Policy) -> float:
    """Longer than any operation can take, and than hosts of one switch wait for each other's jobs to end."""
    registry = policy.maintenance.registry
    longest = max((one.timeout_s for one in registry.operations.values()), default=0.0) if registry is not None else 0.0
    return policy.maintenance.cycle_days * 86400.0 + longest


def _released(memory: Memory, now: float) -> Memory:
    """Hosts that failed and that a person has released: they are worked on again, from the first operation."""
    state = memory.maintenance
    again: list[Host] = []
    records: list[NodeRecord] = []
    for name, record in memory.nodes.items():
        host = state.past.get(name)
        if record.released and host is not None and host.stage is Stage.FAILED and record.state is NodeState.REPAIR:
            again.append(
                to(host, Stage.WORKING, now, "released by a person", done=(), tier=0, failed="", worked_at=now)
            )
            records.append(replace(record, state=NodeState.MAINTENANCE, since=now, released=False, ticketed=False))
    if not again:
        return memory
    past = {name: host for name, host in state.past.items() if name not in {one.name for one in again}}
    state = put_hosts(replace(state, past=past), again)
    return replace(put_nodes(memory, records), maintenance=state)


def _repairs(memory: Memory, moved: Iterable[Host], now: float) -> list[NodeRecord]:
    """Nodes of hosts that failed: they stay drained, and somebody is told."""
    return [
        replace(memory.nodes[host.name], state=NodeState.REPAIR, since=now, why=host.why)
        for host in moved
        if host.stage is Stage.FAILED and host.name in memory.nodes
    ]


def _watched(look: Snapshot, memory: Memory, state: Maintenance, policy: Policy, now: float) -> Maintenance:
    """Hosts that came back and went down, or that a check has drained, within the longest soak."""
    longest = max(policy.maintenance.rollout.soak_s, default=0.0)
    worse = []
    for name in look.troubled:
        host = state.past.get(name)
        if host is None or host.stage is not Stage.DONE or host.regressed or host.returned_at is None:
            continue
        if now - host.returned_at > longest:
            continue
        node = look.nodes[name]
        by_check = snapshot.drained(node) and evidence.owner(node.reason) == "health"
        if by_check or snapshot.silent(node):
            worse.append(replace(host, regressed=True, why=f"after maintenance: {node.reason or node.state}"[:180]))
    if not worse:
        return state
    return replace(state, past={**state.past, **{host.name: host for host in worse}})


def _train(look: Snapshot, state: Maintenance, train: Train, policy: Policy, now: float) -> Train:
    """A train after this look: its phase, a stop because of regressions, its end."""
    rollout = policy.maintenance.rollout
    come = cars.progress(look, state, train)
    limit = cars.phase_limit(train, come.hosts, rollout)
    if come.in_hand == 0 and (come.visited >= come.hosts or now >= train.deadline):
        missed = sorted(name for name in look.nodes if not _visited(state, train, name))
        return replace(train, ended_at=now, missed=tuple(missed))
    if come.visited < limit or come.in_hand:
        return train
    if train.full_at is None:
        train = replace(train, full_at=now)
    assert train.full_at is not None
    soak_s = cars.soak_s(train, rollout)
    if train.paused or limit >= come.hosts:
        return train
    if why := regression(state, train, soak_s):
        return replace(train, paused=why)
    if now < train.full_at + soak_s:
        return train
    train = replace(train, phase=train.phase + 1, full_at=None)
    while cars.phase_limit(train, come.hosts, rollout) <= come.visited < come.hosts:
        # On a small fleet a share may be no more than the canaries.
        train = replace(train, phase=train.phase + 1)
    return train


def _visited(state: Maintenance, train: Train, name: str) -> bool:
    host = state.past.get(name)
    return host is not None and train.name in host.visited


def regression(state: Maintenance, train: Train, soak_s: float) -> str:
    """Why hosts that came back are worse than they were; "" while no more fail than would anyway."""
    back = [host for host in state.past.values() if host.train == train.name and host.stage is Stage.DONE]
    worse = sorted(host.name for host in back if host.regressed)
    expected = len(back) * _FAILURES_PER_DAY * max(soak_s, 3600.0) / 86400.0
    if len(worse) <= expected + 3.0 * math.sqrt(expected) + (0 if train.phase == 0 else 1):
        return ""
    return (
        f"regression: {len(worse)} of {len(back)} hosts failed after it, {expected:.1f} expected: {','.join(worse[:8])}"
    )
