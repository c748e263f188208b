"""What one look at Slurm showed: nodes, jobs and reservations as frozen values, and which nodes are out of service.

Decisions walk over `troubled` and over what is remembered, never over the whole fleet: a look at 12,500 healthy nodes
costs no more than one at eight.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ClusterShell.NodeSet import NodeSet

from trainmaster.controller.parts import merged
from trainmaster.slurm.values import Job, Node, Reservation

_NOT_IN_SERVICE = frozenset(
    {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "UNKNOWN", "INVAL", "MAINT", "MAINTENANCE"}
)
_BUSY = frozenset({"ALLOCATED", "MIXED", "COMPLETING", "ALLOCATED#", "MIXED#"})
_HOLDS_NODES = frozenset({"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"})


@lru_cache(maxsize=1024)
def words(state: str) -> frozenset[str]:
    """A node's state as single words, without the marks that Slurm hangs onto them.

    >>> sorted(words("ALLOCATED+DRAIN*"))
    ['ALLOCATED', 'DRAIN', 'NOT_RESPONDING']
    """
    found = set(re.sub(r"[^A-Z_+]", "", state.upper()).split("+")) - {""}
    return frozenset(found | {"NOT_RESPONDING"} if "*" in state else found)


def drained(node: Node) -> bool:
    """Whether nothing new may start there because somebody said so."""
    return bool(words(node.state) & {"DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING"})


def silent(node: Node) -> bool:
    """Whether slurmctld cannot reach it, or has given it up."""
    return bool(words(node.state) & {"DOWN", "NOT_RESPONDING", "ERROR"})


def down(node: Node) -> bool:
    """Whether slurmctld has given it up, and ended what ran there."""
    return "DOWN" in words(node.state)


def in_service(node: Node) -> bool:
    """Whether Slurm could start a job there, now or once the node is free."""
    found = words(node.state)
    return not found & _NOT_IN_SERVICE and "NOT_RESPONDING" not in found


def at_rest(node: Node) -> bool:
    """Whether nothing of any job is left there. The DRAIN flag alone does not say so."""
    return not words(node.state) & _BUSY


@lru_cache(maxsize=4096)
def gpu_types(gres: str) -> frozenset[str]:
    """The types of GPU in a node's Gres.

    >>> sorted(gpu_types("gpu:h100:8(S:0-1),shard:64")), sorted(gpu_types("gpu:8"))
    (['h100'], [])
    """
    return frozenset(re.findall(r"(?:^|,)gpu:([A-Za-z][^:(,]*):", gres))


def groups(node: Node) -> tuple[str, ...]:
    """What capacity is counted by: the node's partitions, and its GPUs' types as `gpu:TYPE`."""
    return (
        (*node.partitions, *(f"gpu:{name}" for name in sorted(gpu_types(node.gres)))) if node.gres else node.partitions
    )


@lru_cache(maxsize=65536)
def members(hostlist: str) -> frozenset[str]:
    """The node names of a hostlist.

    >>> sorted(members("n[01-02],m7"))
    ['m7', 'n01', 'n02']
    """
    return frozenset(NodeSet(hostlist)) if hostlist else frozenset()


def fold(names: Iterable[str]) -> str:
    """Node names as one hostlist, so that one command serves for all.

    >>> fold(["n02", "n01", "n03"])
    'n[01-03]'
    """
    return str(NodeSet.fromlist(sorted(names)))


def holds_nodes(job: Job) -> bool:
    """Whether it has nodes now."""
    return job.state in _HOLDS_NODES and job.nodes != ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look. `of` makes one from Slurm's answers; the simulator makes its own."""

    at: float
    """Epoch seconds when slurmctld was asked."""
    nodes: Mapping[str, Node]
    troubled: frozenset[str]
    """Names of the nodes that are not in service, or that carry a reason."""
    jobs: Mapping[int, Job]
    holders: Mapping[int, Collection[str]]
    """By job id, the nodes that it has; only of jobs that have some."""
    partition_size: Mapping[str, int]
    """Nodes in each partition, and of each type of GPU (`gpu:h100`), whatever their state."""
    reservations: tuple[Reservation, ...] = ()
    restarted: bool = False
    """slurmctld was started again since it was last asked for that. Only asked where a drain of ours is gone."""
    leaf_of: Mapping[str, str] = field(default_factory=dict)
    """The leaf switch of each node, where Slurm has a topology."""
    expand: Callable[[str], Collection[str]] = members
    """The names of a hostlist of this cluster."""
    parts: Mapping[int, tuple[Job, ...]] = field(default_factory=dict)
    """By their leader's number, the parts of heterogeneous jobs; `jobs` has each such job once (`controller/parts`)."""

    def jobs_on(self, names: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Which jobs have which of these nodes."""
        found: dict[str, list[int]] = {}
        wanted = frozenset(names)
        for job_id, held in self.holders.items():
            common = wanted.intersection(held) if len(held) < len(wanted) else [name for name in wanted if name in held]
            for name in common:
                found.setdefault(name, []).append(job_id)
        return {name: tuple(sorted(ids)) for name, ids in found.items()}

    def available(self, partition: str) -> int:
        """Nodes of a partition, or of a type of GPU (`gpu:h100`), that are in service."""
        lost = (self.nodes[name] for name in self.troubled if name in self.nodes)
        return self.partition_size.get(partition, 0) - sum(
            1 for node in lost if partition in groups(node) and not in_service(node)
        )


def of(
    *,
    at: float,
    nodes: Iterable[Node],
    jobs: Iterable[Job],
    reservations: tuple[Reservation, ...] = (),
    leaf_of: Mapping[str, str] | None = None,
) -> Snapshot:
    """A snapshot of what Slurm answered."""
    by_name: dict[str, Node] = {}
    troubled: set[str] = set()
    sizes: dict[str, int] = {}
    for node in nodes:
        if not node.name:
            continue
        by_name[node.name] = node
        for partition in groups(node):
            sizes[partition] = sizes.get(partition, 0) + 1
        if node.reason or not in_service(node):
            troubled.add(node.name)
    known, parts = merged(jobs)
    return Snapshot(
        at=at,
        nodes=by_name,
        troubled=frozenset(troubled),
        jobs=known,
        holders={job_id: members(job.nodes) for job_id, job in known.items() if holds_nodes(job)},
        partition_size=sizes,
        reservations=reservations,
        leaf_of=leaf_of or {},
        parts=parts,
    )


def full_id(job: Job) -> str:
    """The job as Slurm's commands take it: the number of an array's last task alone would name the whole array."""
    if job.het_job_id and job.het_offset:
        return f"{job.het_job_id}+{job.het_offset}"
    if job.array_job_id and job.array_tasks.isdecimal():
        return f"{job.array_job_id}_{job.array_tasks}"
    return str(job.job_id)
