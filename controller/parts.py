"""Heterogeneous jobs as one, since Slurm requeues and starts their parts together: nobody else here sees parts. Pure.

The job goes by its leader's number and has the nodes of all parts. As on 22.05.8: a requeue is asked of the leader and
takes all parts; `StartTime` set for the leader is set for all; `ExcNodeList` is each part's own (`7+1`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ClusterShell.NodeSet import NodeSet

from trainmaster.slurm.values import Job


def merged(jobs: Iterable[Job]) -> tuple[dict[int, Job], dict[int, tuple[Job, ...]]]:
    """Jobs by number, the parts of heterogeneous ones put together; and these parts by their leader's number."""
    known: dict[int, Job] = {}
    found: dict[int, list[Job]] = {}
    for job in jobs:
        if job.het_job_id:
            found.setdefault(job.het_job_id, []).append(job)
        else:
            known[job.job_id] = job
    parts = {leader: tuple(sorted(some, key=lambda one: one.het_offset or 0)) for leader, some in found.items()}
    for leader, some in parts.items():
        if some[0].job_id == leader:
            known[leader] = as_one(some)
    return known, parts


def as_one(parts: Sequence[Job]) -> Job:
    """The parts of a heterogeneous job, its leader first, as one job.

    >>> one = as_one([Job(job_id=7, state="PENDING", node_count=1), Job(job_id=8, state="COMPLETING", node_count=2)])
    >>> one.job_id, one.state, one.node_count
    (7, 'COMPLETING', 3)
    """
    leader = parts[0]
    states = [part.state for part in parts]
    # Each part comes out of COMPLETING, and out of the queue, in its own time.
    state = next((one for one in ("COMPLETING", "CONFIGURING", "RUNNING") if one in states), leader.state)
    times = [part.eligible_time for part in parts if part.eligible_time is not None]
    reason = next((part.reason for part in parts if "BeginTime" in part.reason), leader.reason)
    return replace(
        leader,
        state=state if leader.active else leader.state,
        reason=reason,
        nodes=_union(part.nodes for part in parts),
        node_count=sum(part.node_count for part in parts),
        partition=",".join(dict.fromkeys(name for part in parts for name in part.partition.split(",") if name)),
        excluded_nodes=_union(part.excluded_nodes for part in parts),
        eligible_time=max(times, default=None),
    )


def _union(hostlists: Iterable[str]) -> str:
    every = NodeSet()
    for one in hostlists:
        every.update(NodeSet(one))
    return str(every)
