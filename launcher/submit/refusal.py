"""Why a cluster will not run a spec, in the words of what it has. Pure, but for `unknown_names`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainmaster.errors import SlurmError
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.timelimit import seconds_of, slurm_time
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.values import Node, Partition


def _sizes(existing: Sequence[Partition]) -> str:
    return ", ".join(f"{one.name} ({one.total_nodes} nodes)" for one in existing)


def chosen_partitions(spec: JobSpec, existing: Sequence[Partition]) -> list[Partition]:
    """The partitions that a job may run in: those it names, or the default one."""
    if spec.partition is None:
        return [one for one in existing if one.default]
    return [one for one in existing if one.name in spec.partition.split(",")]


def too_much(spec: JobSpec, existing: Sequence[Partition]) -> tuple[str, ...]:
    """Why no partition that the spec may use will ever run it: too few nodes, or too short a time limit."""
    chosen = chosen_partitions(spec, existing)
    reasons = []
    largest = max(chosen, key=lambda one: one.total_nodes, default=None)
    if largest is not None and spec.allocated_nodes > largest.total_nodes:
        spares = f" ({spec.nodes} and {spec.spares} spare)" if spec.spares else ""
        reasons.append(
            f"it wants {spec.allocated_nodes} nodes{spares}, but partition {largest.name!r} has {largest.total_nodes}; "
            f"there are: {_sizes(existing)}"
        )
    longest = max(chosen, key=_longest_s, default=None)
    if longest is not None and (spec.time_limit_s or 0.0) > _longest_s(longest):
        asked = slurm_time(spec.time_limit_s or 0.0)
        reasons.append(f"it wants {asked}, but partition {longest.name!r} allows {longest.max_time}")
    return tuple(reasons)


def _longest_s(partition: Partition) -> float:
    try:
        return seconds_of(partition.max_time)
    except ValueError:
        return math.inf  # no limit that we can read


def why_refused(spec: JobSpec, existing: Sequence[Partition]) -> tuple[str, ...]:
    """What in the cluster's partitions speaks against a spec; nothing when they are not the cause."""
    names = {one.name for one in existing}
    unknown = [name for name in (spec.partition or "").split(",") if name and name not in names]
    if unknown:
        return (f"there is no partition {', '.join(map(repr, unknown))}; there are: {_sizes(existing)}",)
    chosen = chosen_partitions(spec, existing)
    if not chosen and existing:
        return (f"no partition was asked for and none is the default; there are: {_sizes(existing)}",)
    reasons = [f"partition {one.name!r} is not up" for one in chosen if not one.up]
    return (*reasons, *too_much(spec, existing))


def what_nodes_have(spec: JobSpec, existing: Sequence[Partition], nodes: Sequence[Node]) -> tuple[str, ...]:
    """The most that nodes of the spec's partitions have, for a spec that asks a node for more than that."""
    names = {one.name for one in chosen_partitions(spec, existing)}
    ours = [node for node in nodes if names & set(node.partitions)]
    if not ours:
        return ()
    gres = sorted({node.gres for node in ours if node.gres})
    return (
        f"the nodes of partition {', '.join(map(repr, sorted(names)))} have at most {max(n.cpus for n in ours)} CPUs, "
        f"{max(n.memory_mib for n in ours)} MiB of memory and {' or '.join(gres) or 'no GPUs'}",
    )


def unknown_names(values: Mapping[str, Any], client: SlurmClient) -> tuple[str, ...]:
    """Partition and MPI plug-in that this cluster has not, of a spec's plain values that are at fault elsewhere too.

    Nothing where the cluster does not answer: there is enough to mend without it.
    """
    found: list[str] = []
    try:
        partition, mpi = values.get("partition"), values.get("mpi")
        if isinstance(partition, str) and partition.strip():
            found += why_refused(JobSpec(partition=partition), client.partitions())
        if isinstance(mpi, str) and (known := client.mpi_types()) and mpi not in known:
            found.append(f"there is no MPI plug-in {mpi!r}; there are: {', '.join(known)}")
    except SlurmError:
        pass
    return tuple(found)
