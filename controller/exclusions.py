"""Which nodes a job does without when it starts again: for a while, a tenth of what it could use at most. Pure.

A node that fails a job is free again first, so without this it would take every retry.
"""

from collections.abc import Collection
from dataclasses import dataclass

from trainmaster.controller import evidence, snapshot
from trainmaster.controller.memory import JobRecord
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The whole list, and those in it that are ours."""

    whole: tuple[str, ...]
    ours: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    """Those that there was no room for."""


def eligible(look: Snapshot, job: Job) -> int:
    """How many nodes Slurm could give to the job, by its partitions and the nodes' states."""
    return sum(look.available(partition) for partition in job.partition.split(",") if partition)


def certain(look: Snapshot, policy: Policy) -> tuple[str, ...]:
    """Nodes in service with a check's word that nothing can run there: I9 keeps every retry off them."""
    return tuple(
        sorted(
            name
            for name in look.troubled
            if snapshot.in_service(look.nodes[name]) and evidence.fatal(look.nodes[name], policy)
        )
    )


def choose(
    look: Snapshot, job: Job, record: JobRecord, policy: Policy, now: float, young: Collection[str] = ()
) -> Choice:
    """The job's ExcNodeList: its owner's own, what is certain, and what failed it lately, as far as there is room.

    Args:
        look: The view.
        job: Which waits.
        record: What is remembered of it.
        policy: The site's.
        now: Epoch seconds.
        young: Nodes on probation, of which big jobs are kept clear where they can be.
    """
    current = sorted(snapshot.members(job.excluded_nodes))
    theirs = [name for name in current if name not in record.ours_before]
    usable = eligible(look, job)
    most = max(1, int(policy.requeue.exclude_share * usable))
    room = _room(look, job, theirs)
    kept: list[str] = []
    dropped: list[str] = []
    counted = 0
    lately = [one.node for one in sorted(record.exclusions, key=lambda one: -one.until) if one.until > now]
    big = job.node_count > policy.returning.probation_job_nodes_max
    for name in dict.fromkeys((*certain(look, policy), *lately, *(sorted(young) if big else ()))):
        if name in theirs or name not in look.nodes:
            continue
        if snapshot.in_service(look.nodes[name]):
            # What Slurm would not give to it anyway costs it nothing.
            if counted >= min(most, room):
                dropped.append(name)
                continue
            counted += 1
        kept.append(name)
    return Choice(whole=tuple(dict.fromkeys((*theirs, *kept))), ours=tuple(kept), dropped=tuple(dropped))


def _room(look: Snapshot, job: Job, theirs: Collection[str]) -> int:
    """How many more nodes may be left out and still leave every part of the job a place."""
    parts = look.parts.get(job.job_id, (job,))
    return max(0, min(eligible(look, part) - max(1, part.node_count) for part in parts) - _serving(look, theirs))


def _serving(look: Snapshot, names: Collection[str]) -> int:
    return sum(1 for name in names if name in look.nodes and snapshot.in_service(look.nodes[name]))
