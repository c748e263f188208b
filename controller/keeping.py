"""Keeps a job's nodes for it while it is on its way back into them: which, when, and when they are given back. Pure.

Between the end of an attempt and the next start, whoever waits may take the nodes. A reservation for the job's owner
prevents that. It is made while the job still runs, if there is time; the job is put into it when it is back in the
queue, since without accounting slurmctld changes nothing of a running job that has lost a node. With FLEX the job may
take other nodes as well and outlive the reservation, with IGNORE_JOBS it can be made under a running job, and with
NO_HOLD_JOBS_AFTER its end leaves a job that still waits as it is (seen on 22.05.8). It ends by itself after `keep_s`.
Its name, `tm-keep-JOB-RESTARTS-ID`, tells all that has to be known of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trainmaster.controller import evidence, snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.memory import JobRecord, Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job

PREFIX = "tm-keep-"
_NAME = re.compile(re.escape(PREFIX) + r"(\d+)-(\d+)-([0-9a-f]{10})")
FLAGS = "FLEX,IGNORE_JOBS,NO_HOLD_JOBS_AFTER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the name of a reservation of ours says."""

    name: str
    job_id: int
    restarts: int
    """Of the attempt whose nodes they were."""


def name_of(act: Act) -> str:
    """The name of the reservation that an act is about.

    >>> name_of(Act(kind=Kind.KEEP, cause="", why="", job_id=7, restarts=1))[:12]
    'tm-keep-7-1-'
    """
    return act.reservation or f"{PREFIX}{act.job_id}-{act.restarts}-{act.id}"


def read(name: str) -> Kept | None:
    """A name of ours; None for another's.

    >>> read("tm-keep-7-1-0123456789").job_id, read("tm-train-7")
    (7, None)
    """
    match = _NAME.fullmatch(name)
    return Kept(name=name, job_id=int(match[1]), restarts=int(match[2])) if match else None


def ours(look: Snapshot) -> Iterator[Kept]:
    """The reservations of this kind that there are."""
    for one in look.reservations:
        if (kept := read(one.name)) is not None:
            yield kept


def name_for(look: Snapshot, job_id: int) -> str:
    """The reservation in which a job's nodes are kept; "" when there is none."""
    return next((kept.name for kept in ours(look) if kept.job_id == job_id), "")


def survivors(look: Snapshot, job: Job, nodes: str, policy: Policy) -> tuple[str, ...]:
    """Those of an attempt's nodes that are worth keeping: in service, unsuspected, and no other job's by now."""
    held = frozenset(look.expand(nodes))
    others: set[str] = set()
    for job_id, taken in look.holders.items():
        if job_id != job.job_id and not held.isdisjoint(taken):
            others.update(taken)
    return tuple(
        sorted(
            name
            for name in held
            if name in look.nodes
            and name not in others
            and snapshot.in_service(look.nodes[name])
            and not evidence.fatal(look.nodes[name], policy)
        )
    )


def wanted(
    look: Snapshot, job: Job, record: JobRecord, nodes: str, policy: Policy, *, why: str, cause: str
) -> Act | None:
    """The act that keeps a job's nodes for it; None when there is nothing to keep, or it has been tried.

    Args:
        look: The view.
        job: That is about to leave these nodes, or just has.
        record: What is remembered of it.
        nodes: A hostlist, of its last attempt.
        policy: The site's.
        why: For people.
        cause: In one word.
    """
    if policy.requeue.keep_s <= 0 or record.kept_for >= job.restarts or job.reservation:
        # A job in a reservation of its owner's has its nodes kept by that.
        return None
    there = name_for(look, job.job_id)
    if there and job.state == "RUNNING":
        return None
    names = () if there else survivors(look, job, nodes, policy)
    if not there and len(names) < policy.requeue.keep_nodes_min:
        return None
    return Act(
        kind=Kind.KEEP,
        cause=cause,
        why=f"{why}; its nodes are kept for it",
        attempt=f"{job.restarts}@{job.submit_time or 0:.0f}",
        job_id=job.job_id,
        restarts=job.restarts,
        reserve=snapshot.fold(names) if names else "",
        reservation=there,
        owner=job.user,
    )


def over(look: Snapshot, memory: Memory, policy: Policy) -> list[Act]:
    """Reservations that have served their purpose, or whose job is no more."""
    acts = []
    for kept in ours(look):
        job, record = look.jobs.get(kept.job_id), memory.jobs.get(kept.job_id)
        if f"job:{kept.job_id}" in memory.open_targets or (job is not None and job.state == "COMPLETING"):
            continue
        if job is None or not job.active:
            why = "its job is over"
        elif job.state == "RUNNING" and not _in_danger(look, job, policy):
            why = "its job has nodes"
        elif job.state == "PENDING" and not _comes_back(job, record):
            why = "its job does not come back now"
        else:
            continue
        acts.append(
            Act(
                kind=Kind.FREE,
                cause="kept",
                why=why,
                attempt=kept.name,
                job_id=kept.job_id,
                restarts=job.restarts if job is not None else kept.restarts,
                reservation=kept.name,
            )
        )
    return acts


def _comes_back(job: Job, record: JobRecord | None) -> bool:
    if record is None or record.held or not record.tries or record.tries[-1].cause == "preempted":
        return False
    # Slurm's own hold after a failed prolog is lifted soon.
    return "held" not in job.reason.lower() or "launch failed" in job.reason


def endangered(look: Snapshot) -> list[tuple[Job, str]]:
    """Running jobs with a node that does not answer: Slurm will give it up, end them, and free their other nodes."""
    silent = [name for name in look.troubled if snapshot.silent(look.nodes[name])]
    found: dict[int, str] = {}
    for name, job_ids in sorted(look.jobs_on(silent).items()):
        for job_id in job_ids:
            found.setdefault(job_id, name)
    return [(look.jobs[job_id], name) for job_id, name in sorted(found.items()) if look.jobs[job_id].state == "RUNNING"]


def _in_danger(look: Snapshot, job: Job, policy: Policy) -> bool:
    held = look.holders.get(job.job_id, ())
    return any(
        name in held and (snapshot.silent(look.nodes[name]) or evidence.fatal(look.nodes[name], policy))
        for name in look.troubled
    )
