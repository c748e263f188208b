"""Which jobs leave bad nodes, start again without Slurm's delay, or are held because they get nowhere. Pure.

A requeue sets the begin time to the credential's lifetime plus one second (121 s by default); the job may start at once
when that is set to now, but only once it is PENDING and no longer COMPLETING (seen on 22.05.8). A job that
trainmaster's launcher runs recovers by itself inside its allocation, and is left alone while it runs.
"""

import re

from trainmaster.controller import breaker, evidence, exclusions, forgotten, keeping, returning, snapshot
from trainmaster.controller.acts import Act, Kind, Refusal, Trip
from trainmaster.controller.attempts import LAUNCH_FAILED
from trainmaster.controller.budgets import standing
from trainmaster.controller.memory import JobRecord, Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job

_ON_ITS_WAY = frozenset({"PENDING", "COMPLETING"})
_LOOK_AGAIN_S = 1.0
_PATIENCE_S = 30.0
_SUBMITIT = re.compile(r"/(\.)?submission_file_[0-9a-f]{32}\.sh$")
_SUBMITIT_MARGIN_S = 60.0
_CLEANING_UP_S = 60.0
"""For so long after the end of an attempt its job is looked at more often than at each tick."""
_SETTLED_S = 1.05
"""slurmd refuses a credential of the second in which it revoked the last one (seen on 22.05.8)."""


def supervised(job: Job) -> bool:
    """Whether trainmaster's launcher runs it: its batch output lies in a run folder."""
    return job.std_out.endswith("/batch.out")


def refills(job: Job) -> bool:
    """Whether it brings a node to a job of trainmaster's launcher; USR2 has that job leave the node."""
    return job.std_out.endswith("/refill.out")


def heeds_usr2(job: Job, now: float) -> bool:
    """Whether it is submitit's, which saves and requeues itself on SIGUSR2, and does not take that for a timeout now.

    submitit counts the signal as a timeout from four fifths of the time limit on, or ten minutes before it if that is
    sooner; a function that cannot save ends for good then, and another one after three of them.
    """
    if not (_SUBMITIT.search(job.command) and job.std_out.endswith("_log.out")):
        return False
    if job.start_time is None or job.end_time is None:
        return False
    limit_s = job.end_time - job.start_time
    return now - job.start_time < min(0.8 * limit_s, limit_s - 600.0) - _SUBMITIT_MARGIN_S


def decide(
    look: Snapshot, memory: Memory, policy: Policy, now: float, *, tripped: tuple[Trip, ...]
) -> tuple[list[Act], list[Refusal], float | None]:
    """Acts on jobs, what stands in the way of others, and when the next one falls due."""
    acts: list[Act] = []
    refused: list[Refusal] = []
    due: list[float] = []
    for job_id in sorted(memory.jobs):
        record, job = memory.jobs[job_id], look.jobs.get(job_id)
        if job is not None and job.requeue and forgotten.requeue(job, record, look.at):
            if f"job:{job_id}" not in memory.open_targets:
                acts.append(forgotten.act(job, record))
            continue
        if job is None or job.state not in _ON_ITS_WAY or f"job:{job_id}" in memory.open_targets:
            continue
        keep = _keep_while_it_waits(look, job, record, policy, now)
        if keep is not None:
            acts.append(keep)
            continue
        if job.state == "COMPLETING":
            if record.awaited and now - record.tries[-1].at < _CLEANING_UP_S:
                due.append(now + _LOOK_AGAIN_S)
            continue
        waiting = _waiting(look, job, record, policy, now, returning.on_probation(memory))
        if isinstance(waiting, Act):
            acts.append(waiting)
        elif isinstance(waiting, Refusal):
            refused.append(waiting)
        elif isinstance(waiting, float):
            due.append(waiting)
    for job, name in keeping.endangered(look) if policy.modes.of(Kind.KEEP) == "act" else ():
        if f"job:{job.job_id}" in memory.open_targets or supervised(job) or not job.requeue:
            continue
        record = memory.jobs.get(job.job_id) or JobRecord(job_id=job.job_id, restarts=job.restarts)
        keep = keeping.wanted(look, job, record, job.nodes, policy, why=f"{name} does not answer", cause="silent")
        if keep is not None:
            acts.append(keep)
    for job, name in _on_bad_nodes(look, policy):
        if f"job:{job.job_id}" in memory.open_targets:
            continue
        left = _leaving(look, job, name, memory, policy, now, tripped)
        if isinstance(left, Act):
            acts.append(left)
        elif isinstance(left, Refusal):
            refused.append(left)
        elif left is not None:
            due.append(left)
    return acts, refused, min(due, default=None)


def _waiting(
    look: Snapshot, job: Job, record: JobRecord, policy: Policy, now: float, young: frozenset[str]
) -> Act | Refusal | float | None:
    """What a job in the queue needs: an act, or a time to look again."""
    stand = standing(record, policy.requeue, now, node_count=job.node_count)
    if record.held:
        if record.held.startswith("blast") and not stand.exhausted:
            return _release(look, job, record, policy, now, young, unhold=True)
        return None
    if not record.awaited:
        return None
    last = record.tries[-1]
    if last.cause == "preempted":
        # Its delay lets the job that took its nodes start.
        return None
    if stand.exhausted:
        return Act(
            kind=Kind.HOLD,
            cause=stand.exhausted.partition(":")[0],
            why=stand.exhausted,
            attempt=f"{record.restarts}@{job.submit_time or 0:.0f}",
            job_id=job.job_id,
            restarts=job.restarts,
        )
    launch_failed = LAUNCH_FAILED in job.reason
    if not launch_failed and ("Held" in job.reason or "held" in job.reason):
        return None  # somebody holds it
    if later(job, policy):
        return None
    wait_s = stand.wait_s
    if supervised(job):
        patience_s = policy.requeue.supervised_patience_s
        wait_s = max(wait_s, _PATIENCE_S if patience_s is None else patience_s)
    # Slurm's clock need not be ours: what it calls later than our look is not waited for.
    at = max(last.at + wait_s, min((job.submit_time or 0.0), last.at) + _SETTLED_S)
    if now < at:
        return at
    return _release(look, job, record, policy, now, young, unhold=launch_failed)


def _keep_while_it_waits(look: Snapshot, job: Job, record: JobRecord, policy: Policy, now: float) -> Act | None:
    """The act that keeps a job's last nodes for it, while it is on its way back by our word or its launcher's."""
    if policy.modes.of(Kind.KEEP) != "act" or not record.awaited or not record.last_nodes:
        return None
    stand = standing(record, policy.requeue, now, node_count=job.node_count)
    last = record.tries[-1]
    someone_holds = "held" in job.reason.lower() and LAUNCH_FAILED not in job.reason
    if last.cause == "preempted" or stand.exhausted or someone_holds or later(job, policy):
        return None
    if stand.wait_s > policy.requeue.keep_wait_max_s:
        return None
    if keeping.name_for(look, job.job_id) and not supervised(job):
        return None  # its release puts it there
    why = _WHY[last.cause].format(nodes=",".join(last.blamed[:4]) or "a node")
    return keeping.wanted(look, job, record, record.last_nodes, policy, why=why, cause=last.cause)


def later(job: Job, policy: Policy) -> bool:
    """Whether its owner wants it to start later. Both times are Slurm's: its clock need not be ours."""
    return (job.eligible_time or 0.0) - (job.submit_time or 0.0) > policy.requeue.delay_max_s


def _release(
    look: Snapshot, job: Job, record: JobRecord, policy: Policy, now: float, young: frozenset[str], *, unhold: bool
) -> Act | Refusal | None:
    choice = exclusions.choose(look, job, record, policy, now, young)
    if unsafe := set(choice.dropped).intersection(exclusions.certain(look, policy)):
        why = f"it could start on {','.join(sorted(unsafe))}, where nothing can run, and may not exclude more nodes"
        return Refusal(subject=f"job:{job.job_id}", wanted=Kind.RELEASE, rule="I9", why=why)
    changed = frozenset(choice.whole) != snapshot.members(job.excluded_nodes)
    least = int((1.0 - policy.requeue.priority_loss) * record.priority)
    # Slurm takes the age out of a job's priority not at its requeue but when its begin time is set.
    delayed = "BeginTime" in job.reason or (job.eligible_time is not None and job.eligible_time > now)
    lowered = 0 < job.priority < least
    reservation = keeping.name_for(look, job.job_id)
    if job.reservation:
        reservation = ""  # it is in it, or in one of its owner's
    if not (changed or delayed or unhold or lowered):
        return None
    last = record.tries[-1]
    without = f", without {','.join(choice.ours)}" if choice.ours else ""
    return Act(
        kind=Kind.RELEASE,
        cause=last.cause,
        why=f"{_WHY[last.cause].format(nodes=','.join(last.blamed[:4]) or 'a node')}{without}",
        attempt=f"{record.restarts}@{job.submit_time or 0:.0f}",
        job_id=job.job_id,
        restarts=job.restarts,
        reservation=reservation,
        priority=least if job.priority > 0 else 0,
        exclude=choice.whole if changed else None,
        ours=choice.ours,
        unhold=unhold,
    )


_WHY = {
    "node_fail": "it lost {nodes}",
    "check": "a check says that nothing can run on {nodes}",
    "suspect": "its supervisor suspects {nodes}",
    "launch": "the prolog failed on {nodes}",
    "unknown": "it came back for a reason that nothing here tells",
    "preempted": "it was preempted",
    "maintenance": "it made room for maintenance",
}


def _on_bad_nodes(look: Snapshot, policy: Policy) -> list[tuple[Job, str]]:
    """Running jobs on nodes of which a check says that nothing can run there; Slurm ends those on DOWN nodes itself."""
    bad = [name for name in look.troubled if evidence.fatal(look.nodes[name], policy)]
    serving = [name for name in bad if not snapshot.silent(look.nodes[name])]
    found: dict[int, str] = {}
    for name, job_ids in sorted(look.jobs_on(serving).items()):
        for job_id in job_ids:
            found.setdefault(job_id, name)
    jobs = [(look.jobs[job_id], name) for job_id, name in sorted(found.items())]
    return [(job, name) for job, name in jobs if job.state == "RUNNING" and not supervised(job)]


def _leaving(
    look: Snapshot, job: Job, name: str, memory: Memory, policy: Policy, now: float, tripped: tuple[Trip, ...]
) -> Act | Refusal | float | None:
    """What happens to a job on a bad node: it is asked to save, then requeued."""
    subject = f"job:{job.job_id}"
    cause = evidence.cause_of(look.nodes[name].reason)
    record = memory.jobs.get(job.job_id) or JobRecord(job_id=job.job_id, restarts=job.restarts)
    trip = breaker.stops(tripped, node=name, cause=cause, leaf_of=look.leaf_of)
    if trip is not None:
        return Refusal(subject=subject, wanted=Kind.REQUEUE, rule="I3", why=f"{name}: {trip.why}")
    if not job.requeue:
        return Refusal(subject=subject, wanted=Kind.REQUEUE, rule="I4", why="its owner said --no-requeue")
    stand = standing(record, policy.requeue, now, node_count=job.node_count)
    if stand.exhausted:
        return Refusal(subject=subject, wanted=Kind.REQUEUE, rule="I5", why=stand.exhausted)
    why = f"{name} has {look.nodes[name].reason}"[:180]
    # Job numbers come round again; with the time of submission an attempt is nobody else's.
    attempt = f"{job.restarts}@{job.submit_time or 0:.0f}"
    asks = policy.requeue.signal_comment
    if (asks and asks in job.comment) or (policy.requeue.submitit and heeds_usr2(job, now)):
        if record.signalled_at is None:
            return Act(
                kind=Kind.NOTIFY,
                cause=cause,
                why=why,
                attempt=attempt,
                job_id=job.job_id,
                restarts=job.restarts,
                signal="USR2",
            )
        if now < record.signalled_at + policy.requeue.grace_s:
            return record.signalled_at + policy.requeue.grace_s
    if policy.modes.of(Kind.KEEP) == "act":
        keep = keeping.wanted(look, job, record, job.nodes, policy, why=why, cause=cause)
        if keep is not None:
            return keep
    return Act(kind=Kind.REQUEUE, cause=cause, why=why, attempt=attempt, job_id=job.job_id, restarts=job.restarts)
