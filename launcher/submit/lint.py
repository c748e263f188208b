"""What is likely to go wrong with a job on this cluster, said before it is submitted. Pure.

These are remarks: the job is submitted all the same. What Slurm would never start is refused elsewhere (`refusal`).
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from trainmaster.launcher import runner
from trainmaster.launcher.submit.proportion import mib
from trainmaster.launcher.submit.refusal import chosen_partitions
from trainmaster.launcher.submit.spec import JobSpec, gpu_count
from trainmaster.launcher.submit.timelimit import seconds_of, slurm_time
from trainmaster.slurm.values import Node, Partition, Reservation

SIGNAL_EARLY_S = 60
"""sbatch(1), --signal: it may come up to 60 s early."""
TOLERANCE = 1.05
"""How far a share may go beyond that of the GPUs: numbers of CPUs are rounded."""
# sinfo(1), "NODE STATE CODES": the states in which a node takes no new job.
_OUT_OF_SERVICE = {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "FUTURE", "UNKNOWN", "INVAL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the cluster has."""

    partitions: tuple[Partition, ...] = ()
    nodes: tuple[Node, ...] = ()
    reservations: tuple[Reservation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing that a person should know; `check` names it for programs."""

    check: str
    text: str


def lint(spec: JobSpec, cluster: Cluster, *, now_s: float) -> tuple[Remark, ...]:
    """All remarks about a valid spec. `now_s`: seconds since the epoch."""
    partitions = chosen_partitions(spec, cluster.partitions)
    names = {one.name for one in partitions}
    nodes = [node for node in cluster.nodes if names & set(node.partitions)]
    return (
        *_signal(spec, partitions),
        *_closed(partitions),
        *_in_service(spec, partitions, nodes),
        *_reserved(spec, partitions, nodes, cluster.reservations, now_s),
        *_proportion(spec, partitions, nodes),
    )


def in_service(node: Node) -> bool:
    """Whether a node takes new jobs, now or once it is free.

    >>> [in_service(Node(name="n", state=state)) for state in ("IDLE", "MIXED+DRAIN", "DOWN*", "ALLOCATED*")]
    [True, False, False, False]
    """
    words = set(re.findall(r"[A-Z]+", node.state))
    return not words & _OUT_OF_SERVICE and "*" not in node.state


def _signal(spec: JobSpec, partitions: Sequence[Partition]) -> Iterator[Remark]:
    lead_s = spec.signal_lead_s
    limit_s = spec.time_limit_s
    whose = "the time limit"
    if limit_s is None:
        known = [one for one in partitions if one.default_time]
        limit_s = min((_seconds(one.default_time) for one in known), default=math.inf)
        whose = "the partition's default time limit"
    if lead_s and lead_s >= limit_s:
        text = f"{whose} is {slurm_time(limit_s)}, and {lead_s} s before it ranks are asked for a checkpoint: at once"
        yield Remark(check="signal", text=f"{text}; give a longer `time`, or a smaller `checkpoint_signal_s`")
    elif lead_s and lead_s + SIGNAL_EARLY_S >= limit_s:
        text = (
            f"ranks are asked for a checkpoint {lead_s} s before {whose} of {slurm_time(limit_s)}, and Slurm may be "
            "60 s early: possibly as soon as they start"
        )
        yield Remark(check="signal", text=text)


def _closed(partitions: Sequence[Partition]) -> Iterator[Remark]:
    if partitions and not any(one.up for one in partitions):
        names = ", ".join(repr(one.name) for one in partitions)
        yield Remark(check="partition", text=f"partition {names} is not up; the job waits until it is")


def _in_service(spec: JobSpec, partitions: Sequence[Partition], nodes: Sequence[Node]) -> Iterator[Remark]:
    if not nodes:
        return
    excluded = _set(spec.exclude or "")
    left = [node for node in nodes if node.name not in excluded]
    useful = [node for node in left if in_service(node)]
    if spec.allocated_nodes <= len(useful):
        return
    away = [node for node in left if not in_service(node)]
    why = "; ".join(f"{node.name} {node.state}" + (f" ({node.reason})" if node.reason else "") for node in away[:4])
    names = ", ".join(repr(one.name) for one in partitions)
    told = [why + (f"; and {len(away) - 4} more" if len(away) > 4 else "")] if away else []
    told += [f"{len(nodes) - len(left)} are excluded"] if len(nodes) > len(left) else []
    text = (
        f"it wants {spec.allocated_nodes} nodes, but {len(useful)} of the {len(nodes)} of partition {names} take jobs"
    )
    yield Remark(check="nodes", text=f"{text}: {'; '.join(told)}. It waits until there are enough")


def _reserved(
    spec: JobSpec,
    partitions: Sequence[Partition],
    nodes: Sequence[Node],
    reservations: Sequence[Reservation],
    now_s: float,
) -> Iterator[Remark]:
    limit_s = spec.time_limit_s
    if limit_s is None:
        limits = [one.default_time or one.max_time for one in partitions]
        limit_s = min((_seconds(text) for text in limits), default=math.inf)
    excluded = _set(spec.exclude or "")
    free = {node.name for node in nodes if in_service(node) and node.name not in excluded}
    own = set((spec.reservation or "").split(","))
    in_the_way = [
        (one, _set(one.nodes) & free)
        for one in reservations
        if one.name not in own
        and one.start_time is not None
        and (one.end_time or math.inf) > now_s
        and one.start_time < now_s + limit_s
        and _set(one.nodes) & free
    ]
    wanted = spec.allocated_nodes
    if wanted > len(free) or len(free - set().union(*(taken for _, taken in in_the_way))) >= wanted:
        return
    # A shorter job ends before some of them begin.
    shorter_s = 0.0
    for start_s in sorted({one.start_time or 0.0 for one, _ in in_the_way}):
        before = [taken for one, taken in in_the_way if (one.start_time or 0.0) < start_s]
        if len(free - set().union(*before)) >= wanted:
            shorter_s = start_s - now_s
    ends_s = max(one.end_time or math.inf for one, _ in in_the_way)
    told = ", ".join(
        f"{one.name!r} ({_kind(one)}, {_clock(one.start_time)} to {_clock(one.end_time)})" for one, _ in in_the_way
    )
    asked = slurm_time(limit_s) if spec.time is not None else f"{slurm_time(limit_s)}, the partition's"
    text = f"with a time limit of {asked}, it runs into {told}, which leaves fewer than {wanted} node(s) to it: "
    text += f"it waits until {_clock(ends_s)}"
    if shorter_s >= 60:
        text += f"; with a time limit of at most {slurm_time(shorter_s // 60 * 60)} it could start before"
    yield Remark(check="reservation", text=text)


def _kind(one: Reservation) -> str:
    return "maintenance" if one.maintenance else "reservation"


def _clock(epoch_s: float | None) -> str:
    if epoch_s is None or math.isinf(epoch_s):
        return "?"
    return f"{datetime.fromtimestamp(epoch_s).astimezone():%Y-%m-%d %H:%M}"


def _proportion(spec: JobSpec, partitions: Sequence[Partition], nodes: Sequence[Node]) -> Iterator[Remark]:
    """CPUs and memory beyond the share of GPUs, which keeps others from the GPUs left; or hardly any CPUs at all."""
    asked, ranks = gpu_count(spec.gpus_per_node), spec.ranks_per_node
    cpus = None if spec.cpus_per_task is None else spec.cpus_per_task * ranks
    told = {"cpus-per-gpu", "cores-per-socket", "exclusive", "ntasks-per-core"} & set(spec.sbatch)
    by_default = any("DefCpuPerGPU" in one.job_defaults for one in partitions) and asked
    # Where each rank is a task of Slurm, each has a CPU, as MPI programs are used to.
    shared = spec.chosen_runner not in runner.TASK_A_RANK
    if cpus is None and (asked or ranks > 1) and shared and not spec.exclusive and not told and not by_default:
        rank_word = "1 rank" if ranks == 1 else f"{ranks} ranks"
        text = f"it names no CPUs, so Slurm gives 1 CPU of each node to its {rank_word} and their data loaders"
        yield Remark(check="cpus", text=f"{text}; give `cpus_per_task`, or have a cluster profile work it out")
    having = [node for node in nodes if gpus_of(node) >= max(asked, 1)]
    if not asked or not having or spec.exclusive:
        return
    # The smallest node that it may get.
    node = min(having, key=lambda one: (gpus_of(one), one.cpus))
    share = asked / gpus_of(node)
    if share >= 1:
        return
    of_gpus = f"{asked} of {gpus_of(node)} GPUs of a node such as {node.name}"
    if cpus is not None and node.cpus and cpus > TOLERANCE * share * node.cpus:
        text = f"it asks for {cpus} of {node.cpus} CPUs with {of_gpus}; {int(share * node.cpus)} would be in proportion"
        yield Remark(check="cpus", text=f"{text}, the rest keeps others from the node's other GPUs")
    mem_mib = node.memory_mib if str(spec.mem) == "0" else mib(spec.mem) if spec.mem is not None else 0
    if node.memory_mib and mem_mib > TOLERANCE * share * node.memory_mib:
        text = f"it asks for {mem_mib} of {node.memory_mib} MiB of memory with {of_gpus}"
        text += f"; {int(share * node.memory_mib)} would be in proportion, the rest keeps others from the other GPUs"
        yield Remark(check="memory", text=text)


def gpus_of(node: Node) -> int:
    """How many GPUs a node has, from its gres.

    >>> gpus_of(Node(name="n", gres="gpu:h100:8(S:0-1),shard:16")), gpus_of(Node(name="n", gres="gpu:a:2,gpu:b:2"))
    (8, 4)
    """
    return sum(int(number) for number in re.findall(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)", node.gres))


def _seconds(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError:
        return math.inf


def _set(hostlist: str) -> set[str]:
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        return set(NodeSet(hostlist))
    except NodeSetException:
        return set()  # ALL, or a form that is not known here; Slurm itself will judge
