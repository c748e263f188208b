"""Which nodes a validation may take, and how they are put together. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainmaster.health.policy import MARK
from trainmaster.slurm.values import Node, Partition

_BUSY = frozenset(
    ("COMPLETING", "POWERED_DOWN", "POWERING_DOWN", "POWERING_UP", "REBOOT_REQUESTED", "REBOOT_ISSUED", "FAIL")
)
"""Flags of a node that is idle and yet cannot be had. Source: slurm.h of 22.05 to 26.05."""
_GPU = re.compile(r"(?:^|,)gpu(?::[^:,(]+)?:(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be looked at, and why the rest is not."""

    taken: tuple[Node, ...]
    lifts: Mapping[str, str]
    """By node, the reason of our drain: it has to be lifted for a job to start there."""
    left: Mapping[str, str]
    """By node, why it cannot be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Nodes that are each other's peers, in one job."""

    nodes: tuple[Node, ...]
    partition: str
    gpus: int

    @property
    def names(self) -> tuple[str, ...]:
        """Of its nodes."""
        return tuple(node.name for node in self.nodes)


def choose(nodes: Sequence[Node], *, within: str = "", held: Mapping[str, str] | None = None) -> Choice:
    """Nodes that are idle, or idle and drained by health checks of ours.

    Args:
        nodes: as slurmctld sees them.
        within: the name of a reservation in which the caller may run jobs, if it is to be used.
        held: by node, the name of the reservation that it is in now.
    """
    held = held or {}
    taken, lifts, left = [], {}, {}
    for node in nodes:
        why = _why_not(node, within, held.get(node.name, ""))
        if why:
            left[node.name] = why
            continue
        taken.append(node)
        if "DRAIN" in node.state:
            lifts[node.name] = node.reason
    return Choice(taken=tuple(taken), lifts=lifts, left=left)


def _why_not(node: Node, within: str, reservation: str) -> str:
    base, *flags = node.state.split("+")
    if "*" in node.state or "NOT_RESPONDING" in flags:
        return f"it does not answer slurmctld ({node.state})"
    if base.rstrip("~#%$@^!-") != "IDLE" or _BUSY.intersection(flags):
        return f"it is {node.state}"
    if "DRAIN" in flags and not node.reason.startswith(MARK):
        return f"drained by somebody else: {node.reason or 'no reason given'}"
    if reservation and reservation != within:
        return f"it is in the reservation {reservation}"
    return ""


def gpus_of(gres: str) -> int:
    """How many GPUs a node has, by its Gres.

    >>> gpus_of("gpu:h100:8(S:0-1),nvme:2"), gpus_of("gpu:2,gpu:a100:2"), gpus_of("")
    (8, 4, 0)
    """
    return sum(int(count) for count in _GPU.findall(gres))


def kinds(nodes: Sequence[Node], partitions: Sequence[Partition], *, wanted: str = "") -> tuple[Kind, ...]:
    """Nodes with the same hardware, as Slurm knows it, and a partition that has all of them.

    Args:
        nodes: to be sorted.
        partitions: of the cluster; one that is not up starts no job.
        wanted: the only partition to be used, if one was chosen.
    """
    up = [partition.name for partition in partitions if partition.up and wanted in ("", partition.name)]
    found: dict[tuple[int, int, str, str], list[Node]] = {}
    for node in nodes:
        usable = [name for name in up if name in node.partitions]
        if usable:
            gres = re.sub(r"\([^)]*\)", "", node.gres)
            # The smallest partition is the one that was made for this kind.
            key = (node.cpus, node.memory_mib, gres, min(usable, key=lambda name: _size(name, partitions)))
            found.setdefault(key, []).append(node)
    return tuple(
        Kind(nodes=tuple(members), partition=key[3], gpus=gpus_of(members[0].gres)) for key, members in found.items()
    )


def _size(name: str, partitions: Sequence[Partition]) -> int:
    return next((partition.total_nodes for partition in partitions if partition.name == name), 0)
