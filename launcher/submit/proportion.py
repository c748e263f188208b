"""CPUs and memory in proportion to the GPUs that a job asks of each node. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainmaster.launcher.submit.origin import Origin, Source

_MIB = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What a node has, as far as the profile says."""

    profile: str
    gpus: int | None = None
    cpus: int | None = None
    memory_mib: int | None = None


def mib(size: int | str) -> int:
    """A size as sbatch takes it, in MiB.

    >>> mib("1900G"), mib(512), mib("2048K")
    (1945600, 512, 2)
    """
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", str(size), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{size!r} is not a size")
    return int(int(match[1]) * _MIB[match[2].upper()])


def derive(values: Mapping[str, Any], node: Node, gpu_count: Callable[[Any], int]) -> Iterator[tuple[str, int, Origin]]:
    """`cpus_per_task` and `mem` of a job that names neither, with their origin.

    A quarter of a node's GPUs brings a quarter of its CPUs and memory: with less the job starves, with more it keeps
    others from GPUs that are free. A job without GPUs, or on nodes of which nothing is known, is left to Slurm.
    """
    asked = gpu_count(values.get("gpus_per_node"))
    if not asked or not node.gpus or asked > node.gpus:
        return
    ranks = values.get("tasks_per_node") or asked
    options = values.get("sbatch", {})
    share = f"{asked} of {node.gpus} GPUs of a node (profile {node.profile})"
    if node.cpus and values.get("cpus_per_task") is None and "cpus-per-gpu" not in options and isinstance(ranks, int):
        cpus = max(1, node.cpus * asked // node.gpus // max(1, ranks))
        why = f"{share}, so {node.cpus * asked // node.gpus} of {node.cpus} CPUs for {ranks} rank(s)"
        yield "cpus_per_task", cpus, Origin(source=Source.DERIVED, where="share of the node", why=why)
    if node.memory_mib and values.get("mem") is None and not {"mem-per-cpu", "mem-per-gpu"} & set(options):
        why = f"{share}, so as much of {node.memory_mib} MiB"
        origin = Origin(source=Source.DERIVED, where="share of the node", why=why)
        yield "mem", node.memory_mib * asked // node.gpus, origin
