"""Which pods to keep a job to, for whoever may not tell Slurm which nodes to take. Pure.

A user can leave nodes out (`--exclude`), and that is enough: Slurm fills the leaves of the pods that are left nearly as
well as can be. Naming the nodes themselves would be a race with everybody else's jobs.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from trainmaster.fabric.allot import Weights, weights_for
from trainmaster.fabric.place import place
from trainmaster.fabric.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The pods for a job."""

    pods: tuple[str, ...]
    exclude: tuple[str, ...]
    """Every node of the other pods."""
    now: bool
    """Whether enough of their nodes are free now."""
    why: tuple[str, ...]


def pods_first(tree: Tree) -> Weights:
    """Weights for a topology that Slurm tells, which says nothing of how much narrower the upper tier is."""
    usual = weights_for(tree)
    leaves_per_pod = len(tree.leaves) / max(1, len(tree.pods))
    return Weights(pod=max(usual.pod, leaves_per_pod), leaf=usual.leaf, degraded=usual.degraded)


def steer(
    tree: Tree,
    *,
    idle: Collection[str],
    usable: Collection[str],
    wanted: int,
    spares: int = 0,
    pods_max: int | None = None,
    groups: tuple[int, int] = (1, 1),
) -> Course | None:
    """The pods that hold a job best; None when no choice of them does, or there is nothing to choose.

    Args:
        tree: the fabric as Slurm knows it.
        idle: names of nodes that could be taken now.
        usable: those that could be once other jobs have ended; idle ones among them.
        wanted: nodes that run ranks.
        spares: nodes besides.
        pods_max: how many pods are too many.
        groups: see `place`.
    """
    weights = pods_first(tree)
    for names, now in ((idle, True), (usable, False)):
        free = np.array([name in names for name in tree.nodes], dtype=bool)
        if not now and pods_max is None:
            # Which nodes will be free first is for Slurm to know.
            return None
        found = place(tree, free, wanted, spares=spares, weights=weights, groups=groups)
        if found is None:
            continue
        taken = np.concatenate((found.nodes, found.spares))
        pods = sorted(set(tree.pod_of[taken].tolist()))
        if pods_max is not None and len(pods) > pods_max:
            continue
        kept = np.isin(tree.pod_of, pods)
        exclude = tuple(name for name, inside in zip(tree.nodes, kept.tolist(), strict=True) if not inside)
        if not exclude:
            return None
        return Course(pods=tuple(tree.pods[pod] for pod in pods), exclude=exclude, now=now, why=found.why)
    return None
