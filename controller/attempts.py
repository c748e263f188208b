"""Takes a look at jobs into memory: which attempts ended, why, on which nodes, and what that says against those. Pure.

Slurm forgets a job's nodes when its attempt ends, so they are remembered while it has them (`Running`). A restart count
that has grown is an attempt that ended and came back; one that has shrunk is another job under an old number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainmaster.controller import evidence, forgotten, snapshot
from trainmaster.controller.memory import Evidence, Exclusion, JobRecord, Memory, Running, Severity, Try
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job

_DAY_S = 86400.0
_TRIES_KEPT = 512
"""More than the ends that are believed of 20,000 nodes in a day."""
LAUNCH_FAILED = "launch failed requeued held"
"""Slurm's reason for a job whose prolog failed."""


def fold(
    look: Snapshot, memory: Memory, policy: Policy, now: float, reported: Mapping[str, Sequence[Evidence]]
) -> tuple[Memory, dict[str, list[Evidence]]]:
    """Memory with what this look says of jobs, and what their ends say against nodes."""
    against: dict[str, list[Evidence]] = {}
    jobs = dict(memory.jobs)
    for job_id, ran in memory.running.items():
        job = look.jobs.get(job_id)
        if job is None or not job.active or job.restarts < ran.restarts:
            if job is None or (job.restarts < ran.restarts and not forgotten.requeue(job, jobs.get(job_id), now)):
                jobs.pop(job_id, None)
        elif job.restarts > ran.restarts and forgotten.known(jobs.get(job_id), job.restarts, ran.start_time):
            jobs[job_id] = replace(jobs[job_id], requeued_at=None)
        elif job.restarts > ran.restarts:
            one = ended(job, ran, look, memory, policy, now, reported)
            back = _came_back(jobs.get(job_id), job, one, policy, now)
            jobs[job_id] = replace(back, last_nodes=ran.nodes, last_start=ran.start_time, priority=ran.priority)
            weight = 1.0 / len(one.blamed) if one.blamed and one.cause == "node_fail" else 0.0
            for name in one.blamed if weight else ():
                piece = Evidence(
                    at=now,
                    kind="node_fail",
                    what=f"job {job_id} lost it after {one.ran_s:.0f} s",
                    severity=Severity.MEDIUM,
                    weight=weight,
                    job_id=job_id,
                )
                against.setdefault(name, []).append(piece)
    running: dict[int, Running] = {}
    for job_id, job in look.jobs.items():
        before = memory.running.get(job_id)
        if snapshot.holds_nodes(job) and job.state != "COMPLETING":
            same = before is not None and before.restarts == job.restarts and before.nodes == job.nodes
            running[job_id] = before if same and before is not None else _running(job, now)
            record = jobs.get(job_id)
            if forgotten.requeue(job, record, look.at):
                continue
            if record is not None and (before is None or before.restarts != job.restarts):
                jobs[job_id] = _started(record, job, look, jobs, policy, now)
        elif job.state == "PENDING" and job.restarts > 0 and _news(jobs.get(job_id), job):
            jobs[job_id] = _found_waiting(jobs.get(job_id), job, policy, now)
        elif job.state == "PENDING" and job_id in jobs:
            jobs[job_id] = _measured(jobs[job_id], job)
        elif job.state == "COMPLETING" and before is not None and before.restarts == job.restarts:
            running[job_id] = before
    ended_now = frozenset(job_id for job_id, job in look.jobs.items() if not job.active)
    kept = {
        job_id: _fresh(record, now)
        for job_id, record in jobs.items()
        if (job_id not in ended_now or forgotten.requeue(look.jobs[job_id], record, look.at))
        and (job_id in look.jobs or now - record.seen_at < policy.requeue.progress_s)
    }
    return replace(memory, jobs=kept, running=running, ended=ended_now), against


def _running(job: Job, now: float) -> Running:
    started = job.start_time if job.start_time is not None else now
    return Running(
        job_id=job.job_id,
        restarts=job.restarts,
        start_time=started,
        nodes=job.nodes,
        seen_at=now,
        priority=job.priority,
    )


def ended(
    job: Job,
    ran: Running,
    look: Snapshot,
    memory: Memory,
    policy: Policy,
    now: float,
    reported: Mapping[str, Sequence[Evidence]],
) -> Try:
    """Why an attempt ended, by what is known of its nodes."""
    held = look.expand(ran.nodes)
    suspicious = [name for name in sorted(look.troubled | reported.keys()) if name in held and name in look.nodes]
    # Slurm's clock need not be ours; `_measured` puts its own times in once it tells them.
    ran_s = max(0.0, now - ran.start_time, now - ran.seen_at if ran.seen_at else 0.0)

    def one(cause: str, blamed: Sequence[str] = ()) -> Try:
        return Try(at=now, restarts=job.restarts, cause=cause, ran_s=ran_s, blamed=tuple(blamed))

    if job.preempt_time is not None and job.preempt_time >= ran.start_time:
        return one("preempted")
    notice = memory.maintenance.notices.get(job.job_id)
    if notice is not None and notice.restarts == ran.restarts and (notice.signalled_at or notice.requeued_at):
        return one("maintenance")
    if LAUNCH_FAILED in job.reason:
        return one("launch", [name for name in suspicious if "prolog" in look.nodes[name].reason.lower()])
    if lost := [name for name in suspicious if snapshot.silent(look.nodes[name])]:
        return one("node_fail", lost)
    if bad := [name for name in suspicious if evidence.fatal(look.nodes[name], policy)]:
        return one("check", bad)
    told = [
        name
        for name in suspicious
        for piece in reported.get(name, ())
        if piece.job_id == job.job_id and piece.weight >= 0.5
    ]
    return one("suspect", tuple(dict.fromkeys(told))) if told else one("unknown")


def _measured(record: JobRecord, job: Job) -> JobRecord:
    """With how long the last attempt ran by Slurm's own times: a requeue submits the job anew."""
    last = record.tries[-1] if record.tries else None
    if last is None or not record.last_start or last.restarts != job.restarts or job.submit_time is None:
        return record
    ran_s = job.submit_time - record.last_start
    if ran_s < 0 or abs(ran_s - last.ran_s) < 5.0:
        return record
    return replace(record, tries=(*record.tries[:-1], replace(last, ran_s=ran_s)))


def _came_back(record: JobRecord | None, job: Job, one: Try, policy: Policy, now: float) -> JobRecord:
    """The record of a job that is in the queue again."""
    record = record or JobRecord(job_id=job.job_id)
    until = now + policy.requeue.exclude_s
    added = {name: Exclusion(node=name, until=until, why=one.cause) for name in one.blamed}
    kept = {other.node: other for other in record.exclusions}
    return replace(
        record,
        restarts=job.restarts,
        seen_at=now,
        tries=(*record.tries, one)[-_TRIES_KEPT:],
        exclusions=tuple((kept | added).values()),
        signalled_at=None,
        requeued_at=None,
        held="",
    )


def _started(
    record: JobRecord, job: Job, look: Snapshot, jobs: Mapping[int, JobRecord], policy: Policy, now: float
) -> JobRecord:
    """The record of a job that has nodes again, and what others lost to that."""
    lost = 0.0
    since = (job.start_time or now) - policy.requeue.blast_window_s
    if record.tries and record.tries[-1].cause != "preempted":
        for other in jobs.values():
            last = other.tries[-1] if other.tries else None
            if other.job_id != job.job_id and last is not None and last.cause == "preempted" and last.at >= since:
                size = look.jobs[other.job_id].node_count if other.job_id in look.jobs else 1
                lost += last.ran_s / 3600.0 * max(1, size)
    return replace(
        record,
        restarts=job.restarts,
        seen_at=now,
        released=max(record.released, job.restarts),
        held="",
        blast=(*record.blast, (now, lost)) if lost else record.blast,
    )


def _news(record: JobRecord | None, job: Job) -> bool:
    """Whether a job that waits came back and nobody saw it leave."""
    delayed = "BeginTime" in job.reason or LAUNCH_FAILED in job.reason
    return delayed and (record is None or record.restarts < job.restarts)


def _found_waiting(record: JobRecord | None, job: Job, policy: Policy, now: float) -> JobRecord:
    """The record of a job that came back while nobody looked. What it had run is not known and not held against it."""
    cause = "launch" if LAUNCH_FAILED in job.reason else "unknown"
    one = Try(at=now, restarts=job.restarts, cause=cause, ran_s=policy.requeue.progress_s)
    return _came_back(record, job, one, policy, now)


def _fresh(record: JobRecord, now: float) -> JobRecord:
    """Without what has expired."""
    exclusions = tuple(one for one in record.exclusions if one.until > now)
    blast = tuple(entry for entry in record.blast if now - entry[0] <= _DAY_S)
    if len(exclusions) == len(record.exclusions) and len(blast) == len(record.blast):
        return record
    return replace(record, exclusions=exclusions, blast=blast)
