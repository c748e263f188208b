"""What planning ahead needs of Slurm's nodes, partitions and jobs. Pure: takes what `slurm/` read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainmaster.fabric.foresight import Busy, Part, Waiting
from trainmaster.fabric.lookup import is_ours
from trainmaster.fabric.topology_conf import unfold
from trainmaster.slurm.values import Job, Node

_READY = frozenset({"IDLE", "CLOUD", "POWERED_DOWN", "POWERED_UP", "DYNAMIC_NORM"})
_IN_USE = frozenset({"ALLOCATED", "MIXED", "COMPLETING", "PLANNED"})
# Only these wait for nodes; others wait for a date, another job, a limit or a person (squeue(1), "JOB REASON CODES").
_WAITS_FOR_NODES = frozenset({"", "None", "Priority", "Resources"})
HELD_FOR_CONSTRAINTS = "BadConstraints"
NO_PLACE = "tm-placement=off"
"""In the comment of a job whose owner wants to be kept to no pods; job_submit.lua puts it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Slurm at one moment."""

    parts: tuple[Part, ...]
    waiting: tuple[Waiting, ...]
    busy: tuple[Busy, ...]
    prefer: dict[int, str]
    """Of waiting jobs that may be given a preference, the one that they have."""
    ours: frozenset[int]
    """All jobs without nodes whose preference is nothing but pods."""
    spoilt: dict[int, bool]
    """Jobs that our preference does harm, and whether Slurm holds them for it; else their constraint has changed."""
    remarks: tuple[str, ...]


def view_of(nodes: Sequence[Node], jobs: Sequence[Job], labels: Iterable[str]) -> View:
    """Sort it out.

    Args:
        nodes: all nodes.
        jobs: all jobs, in any order.
        labels: the features that stand for pods.
    """
    known = frozenset(filter(None, labels))
    parts, remarks = _parts(nodes)
    features = {part.name: part.features for part in parts}
    waiting, prefer, spoilt = [], {}, {}
    marked = set()
    pending = sorted((job for job in jobs if job.state == "PENDING"), key=lambda job: (-job.priority, job.job_id))
    for job in pending:
        ours = is_ours(job.prefer, known)
        marked |= {job.job_id} if ours else set()
        free_to_choose = _any_node_will_do(job, features.get(job.partition))
        held = job.reason == HELD_FOR_CONSTRAINTS and job.priority == 0
        if ours and (held or not free_to_choose):
            spoilt[job.job_id] = held
        elif job.reason in _WAITS_FOR_NODES and free_to_choose and NO_PLACE not in job.comment.split():
            left_out = frozenset(_unfolded(job.excluded_nodes))
            waiting.append(Waiting(job_id=job.job_id, partition=job.partition, nodes=job.node_count, left_out=left_out))
            if ours or not job.prefer:
                prefer[job.job_id] = job.prefer
    busy = [
        Busy(nodes=frozenset(_unfolded(job.nodes)), end_time=job.end_time)
        for job in jobs
        if job.nodes and job.end_time is not None and job.state in ("RUNNING", "COMPLETING", "CONFIGURING")
    ]
    return View(
        parts=tuple(parts),
        waiting=tuple(waiting),
        busy=tuple(busy),
        prefer=prefer,
        ours=frozenset(marked),
        spoilt=spoilt,
        remarks=tuple(remarks),
    )


def _parts(nodes: Sequence[Node]) -> tuple[list[Part], list[str]]:
    parts, remarks = [], []
    for name in sorted({part for node in nodes for part in node.partitions}):
        members = [node for node in nodes if name in node.partitions]
        states = {node.name: set(node.state.split("+")) for node in members}
        usable = [node for node in members if states[node.name] <= _READY | _IN_USE]
        kinds = {(node.gres, node.cpus, node.memory_mib) for node in usable}
        if len(kinds) > 1:
            # A job that only some of the nodes can hold would be refused where its pods lack them.
            remarks.append(f"partition {name} is left out: its nodes are of {len(kinds)} kinds (GPUs, CPUs or memory)")
            continue
        if usable:
            common = frozenset.intersection(*(frozenset(node.features) for node in usable))
            parts.append(
                Part(
                    name=name,
                    nodes=frozenset(node.name for node in usable),
                    free=frozenset(node.name for node in usable if states[node.name] <= _READY),
                    features=common,
                )
            )
    return parts, remarks


def _any_node_will_do(job: Job, features: frozenset[str] | None) -> bool:
    """Whether all nodes of the job's partition, one that is planned for, have what it asks for."""
    words = {word for word in job.features.replace(",", "&").split("&") if word}
    return features is not None and words <= features and not job.required_nodes and not job.reservation


def _unfolded(nodes: str) -> tuple[str, ...]:
    try:
        return unfold(nodes) if nodes else ()
    except ValueError:
        return ()
