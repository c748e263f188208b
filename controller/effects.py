"""What is remembered of an act that was done, or that failed. Pure; the daemon and the simulator share it."""

from dataclasses import replace

from trainmaster.controller import forgotten, keeping
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.maintenance import after
from trainmaster.controller.maintenance.state import CAUSE
from trainmaster.controller.memory import (
    Drain,
    JobRecord,
    Memory,
    NodeRecord,
    NodeState,
    put_job,
    put_nodes,
)


def done(memory: Memory, act: Act, now: float, *, ok: bool = True) -> Memory:
    """Memory after an act.

    Args:
        memory: Before.
        act: What was done.
        now: Epoch seconds.
        ok: Of a verification: whether the node passed.
    """
    if act.kind is Kind.BOOK:
        return after.booked(memory, act, now)
    if act.kind is Kind.UNBOOK:
        return after.unbooked(memory, act, now)
    if act.kind is Kind.LABEL:
        return after.labelled(memory, act, now)
    if act.nodes:
        return _on_nodes(memory, act, now, ok=ok)
    if act.kind is Kind.FREE:
        return replace(memory, kept=tuple(name for name in memory.kept if name != act.reservation))
    if act.cause == CAUSE and act.kind in (Kind.NOTIFY, Kind.REQUEUE):
        memory = after.told(memory, act, now)
    record = memory.jobs.get(act.job_id) or JobRecord(job_id=act.job_id, restarts=act.restarts, seen_at=now)
    if act.kind is Kind.RELEASE:
        record = replace(record, released=act.restarts, ours_before=act.ours, held="")
    elif act.kind is Kind.HOLD:
        record = replace(record, held=act.why)
    elif act.kind is Kind.NOTIFY:
        record = replace(record, signalled_at=now, seen_at=now)
    elif act.kind is Kind.REQUEUE:
        record = replace(record, seen_at=now)
    elif act.kind is Kind.KEEP:
        record = replace(record, kept_for=act.restarts, seen_at=now)
        memory = replace(memory, kept=tuple(sorted({*memory.kept, keeping.name_of(act)})))
    return put_job(memory, record)


def taken_on(memory: Memory, act: Act, now: float) -> Memory:
    """Memory when Slurm has said yes to a requeue: that attempt is over, whatever Slurm should say later."""
    record = memory.jobs.get(act.job_id) or JobRecord(job_id=act.job_id, restarts=act.restarts)
    ran = memory.running.get(act.job_id)
    if act.cause == forgotten.CAUSE:
        record = forgotten.awaited_again(record, act.restarts, now)
    elif ran is not None and ran.restarts == act.restarts:
        record = replace(record, last_nodes=ran.nodes, last_start=ran.start_time)
    return put_job(memory, replace(record, requeued_at=now, seen_at=now))


_DRAINED_FOR = {"lemon": NodeState.LEMON, CAUSE: NodeState.MAINTENANCE}


def _on_nodes(memory: Memory, act: Act, now: float, *, ok: bool) -> Memory:
    records = []
    drains = list(memory.drains)
    for name in act.nodes:
        record = memory.nodes.get(name) or NodeRecord(name=name, since=now)
        if act.kind is Kind.DRAIN:
            state = _DRAINED_FOR.get(act.cause, NodeState.QUARANTINING)
            record = replace(
                record, state=state, since=now, why=act.why, reason=act.reason, drained_at=now, proof_at=None
            )
            if act.cause != CAUSE:
                drains.append(Drain(at=now, node=name, cause=act.cause, by="us"))
        elif act.kind is Kind.RESUME:
            record = replace(
                record,
                # After maintenance it has passed three tiers; nothing speaks against it.
                state=NodeState.OK if act.cause == CAUSE else NodeState.PROBATION,
                since=now,
                why=act.why,
                reason="",
                drained_at=None,
                cause_at=None,
                released=False,
                ticketed=False,
                ticket_tries=0,
                busy_s=0.0,
                falls=(),
            )
        elif act.kind is Kind.VERIFY and ok:
            record = replace(record, proof_at=now)
        elif act.kind is Kind.VERIFY:
            why = "it failed verification"
            record = replace(
                record, state=NodeState.REPAIR, since=now, why=why, released=False, ticketed=False, ticket_tries=0
            )
        elif act.kind is Kind.TICKET:
            record = replace(record, ticketed=True)
        records.append(record)
    blame = memory.blame
    if act.kind is Kind.RESUME:
        # What came back from repair starts anew; a node that only flapped keeps its past.
        repaired = {name for name in act.nodes if name in memory.nodes and memory.nodes[name].state is NodeState.LEMON}
        blame = {name: one for name, one in blame.items() if name not in repaired}
    memory = replace(put_nodes(memory, records), drains=tuple(drains), blame=blame)
    if act.cause == CAUSE and act.kind is Kind.DRAIN:
        return after.drained(memory, act, now)
    if act.cause == CAUSE and act.kind is Kind.RESUME:
        return after.returned(memory, act, now)
    return memory


def given_up(memory: Memory, act: Act, now: float) -> Memory:
    """Memory when an act has come to nothing: what could not be kept is not asked for again, a ticket is, later."""
    if act.kind is Kind.TICKET:
        tried = [memory.nodes[name] for name in act.nodes if name in memory.nodes]
        again = [replace(one, ticket_tries=one.ticket_tries + 1, ticket_at=now) for one in tried]
        return put_nodes(memory, again)
    if act.kind is not Kind.KEEP:
        return memory
    record = memory.jobs.get(act.job_id) or JobRecord(job_id=act.job_id, restarts=act.restarts, seen_at=now)
    return put_job(memory, replace(record, kept_for=act.restarts))


def started(memory: Memory, act: Act, now: float) -> Memory:
    """Memory when something that takes its time has begun."""
    if act.kind is not Kind.VERIFY:
        return memory
    records = [
        replace(memory.nodes[name], state=NodeState.DIAGNOSING, since=now) for name in act.nodes if name in memory.nodes
    ]
    return put_nodes(memory, records)
