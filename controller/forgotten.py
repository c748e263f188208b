"""What slurmctld forgot in a crash: it saves at most every five seconds, so the last ones are lost. Pure.

Seen on 22.05.8: after kill -9 within seconds of a requeue the old attempt stands there as RUNNING, with nothing left of
it on its nodes, until slurmctld has all nodes registered anew (each twentieth ping: 33 min at SlurmdTimeout=300), or is
over for good. A drain can be gone likewise. Who has lost the journal as well cannot tell it.
"""

from dataclasses import replace

from trainmaster.controller import evidence, snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.memory import OURS, JobRecord, Memory, NodeRecord, NodeState
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job

CAUSE = "forgotten"
SAVED_WITHIN_S = 15.0
"""slurmctld's SAVE_MAX_WAIT is 5 s, then it has to write; a drain that is older has been saved."""
_STANDS_AS = frozenset({"RUNNING", "FAILED", "NODE_FAIL"})


def requeue(job: Job, record: JobRecord | None, at: float) -> bool:
    """Whether an attempt stands there again of which Slurm had said, by a look before `at`, that it came back.

    It is told from another job under the same number, or another attempt, by its start.
    """
    if record is None or job.state not in _STANDS_AS or job.start_time is None or job.start_time != record.last_start:
        return False
    came_back = bool(record.tries) and record.tries[-1].restarts > job.restarts
    taken_on = record.requeued_at is not None and record.requeued_at < at and record.restarts == job.restarts
    return came_back or taken_on


def act(job: Job, record: JobRecord) -> Act:
    """The requeue, once more."""
    last = record.requeued_at or record.tries[-1].at
    return Act(
        kind=Kind.REQUEUE,
        cause=CAUSE,
        why=f"slurmctld has forgotten that attempt {job.restarts} was over",
        attempt=f"{job.restarts}@{job.submit_time or 0:.0f}:{last:.0f}",
        job_id=job.job_id,
        restarts=job.restarts,
    )


def awaited_again(record: JobRecord, restarts: int, now: float) -> JobRecord:
    """The record of a job whose forgotten requeue was asked for again: it waits to be let start, as it did before."""
    tries = record.tries
    if tries and tries[-1].restarts > restarts:
        tries = (*tries[:-1], replace(tries[-1], at=now))
    return replace(
        record, tries=tries, released=min(record.released, restarts), kept_for=min(record.kept_for, restarts)
    )


def known(record: JobRecord | None, restarts: int, start_time: float) -> bool:
    """Whether the end of this attempt stands in the record already: it came back a second time, after a crash."""
    return bool(
        record is not None
        and record.tries
        and record.tries[-1].restarts == restarts
        and record.last_start == start_time
    )


def doubtful(look: Snapshot, memory: Memory) -> bool:
    """Whether a drain of ours is gone that may not have been saved: worth asking whether slurmctld crashed."""
    return any(
        _may_be_lost(record, memory) and name in look.nodes and not snapshot.drained(look.nodes[name])
        for name, record in memory.nodes.items()
    )


def drain(look: Snapshot, record: NodeRecord, memory: Memory) -> bool:
    """Whether a drain of ours that is gone was forgotten; otherwise somebody took it away."""
    return look.restarted and _may_be_lost(record, memory)


def _may_be_lost(record: NodeRecord, memory: Memory) -> bool:
    ours = record.state in OURS and record.state is not NodeState.MAINTENANCE
    return ours and record.drained_at is not None and memory.at - record.drained_at <= SAVED_WITHIN_S


def to_be_drained(record: NodeRecord, now: float) -> NodeRecord:
    """The record of a node whose drain was forgotten: with the cause that it had, and in service."""
    cause = evidence.cause_of(record.reason)
    return replace(
        record,
        state=NodeState.OK,
        since=now,
        why=f"{cause}: {record.why}",
        reason="",
        drained_at=None,
        cause_at=now,
        proof_at=None,
    )
