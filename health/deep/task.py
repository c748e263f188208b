"""What a validation asks of its nodes: one file, written before the job begins. Standard library only, Python 3.9."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

FILE, ENDED, AGAIN, ALIVE = "task.json", "ended.json", "again", "alive"
"""In a folder that all nodes see: the task, what the job says when it is over, the folder of the second look, and a
file that changes as long as the job's first node lives."""


class Task(NamedTuple):
    """One kind of nodes, and how they are looked at."""

    nodes: tuple[str, ...]
    addresses: Mapping[str, str]
    """Of every node, by name; the first holds the store of the tournament."""
    means: tuple[str, ...] = ()
    """By what pairs of nodes meet: torch, mpi; one tournament for each."""
    set: str = "deep"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    root: str = ""
    """What stands before every path on a node; $SLURMD_NODENAME is its name. For labs."""
    profile: str = ""
    limit_s: float = 600.0
    """After which everything ends, however stuck it is."""
    pair_s: float = 0.5
    python: str = "/usr/bin/python3"
    gpus: int = 0
    """Of each node, which the steps have to ask for."""
    lifted: Mapping[str, str] = {}
    """By node, the reason of our drain that was lifted for the job to start; it is put back first of all."""


def write(folder: str, task: Task) -> None:
    """Put it where the nodes look."""
    with open(f"{folder}/{FILE}", "w", encoding="utf-8") as stream:
        json.dump(task._asdict(), stream)


def read(folder: str) -> Task:
    """As it was written. Raises OSError, ValueError, TypeError."""
    with open(f"{folder}/{FILE}", encoding="utf-8") as stream:
        raw: dict[str, Any] = json.load(stream)
    lists = {key: tuple(raw[key]) for key in ("nodes", "means", "only", "skip")}
    return Task(**{**raw, **lists})


def place_of(text: str, node: str) -> str:
    """A path of the task, on a node.

    >>> place_of("/lab/nodes/$SLURMD_NODENAME/root", "n01")
    '/lab/nodes/n01/root'
    """
    return text.replace("$SLURMD_NODENAME", node).rstrip("/") if text else ""


def node_name() -> str:
    """As Slurm calls this node."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
