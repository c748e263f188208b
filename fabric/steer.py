"""Which pods to keep a job to, for whoever may not tell Slurm which nodes to take. Pure.

A user can leave nodes out (`--exclude`), and that is enough: Slurm fills the leaves of the pods that are left nearly as
well as can be. Naming the nodes themselves would be a race with everybody else's jobs.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainmaster.fabric.allot import Weights, weights_for
from trainmaster.fabric.place import SOUND, Placement, place
from trainmaster.fabric.tree import Tree, arrange


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The pods for a job."""

    pods: tuple[str, ...]
    """Empty when the job is kept to none, and only bad nodes are left out."""
    exclude: tuple[str, ...]
    """Every node of the other pods, and `avoided`."""
    avoided: tuple[str, ...] = ()
    """Nodes of these pods whose links are not sound, and which the job does not need."""
    now: bool
    """Whether enough of their nodes are free now."""
    why: tuple[str, ...]


def scored(tree: Tree, scores: Mapping[str, float]) -> Tree:
    """The tree with the scores of its nodes, which Slurm's topology knows nothing of."""
    score = np.minimum(tree.score, [scores.get(name, 1.0) for name in tree.nodes])
    return replace(tree, score=score)


def flat(names: Collection[str]) -> Tree:
    """A tree of nodes of which nobody knows how they are joined."""
    return arrange(
        nodes=tuple(names),
        leaf_of=[0] * len(names),
        pod_of_leaf=[0],
        island_of_pod=[0],
        leaves=["leaf"],
        pods=["pod"],
    )


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
    """The pods that hold a job best, and bad nodes in them; None when no choice does, or there is nothing to choose.

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
        if not now and pods_max is None:
            # Which nodes will be free first is for Slurm to know.
            return _without_bad(tree, usable, wanted + spares)
        free = np.array([name in names for name in tree.nodes], dtype=bool)
        found = place(tree, free, wanted, spares=spares, weights=weights, groups=groups)
        if found is None:
            continue
        pods = sorted(set(tree.pod_of[_taken(found)].tolist()))
        if pods_max is not None and len(pods) > pods_max:
            continue
        kept = np.isin(tree.pod_of, pods)
        # What place() left alone for its links, Slurm shall leave alone as well.
        bad = kept & (tree.score < SOUND)
        bad[_taken(found)] = False
        exclude = _named(tree, ~kept | bad)
        if not exclude:
            return None
        names_of_pods = () if kept.all() else tuple(tree.pods[pod] for pod in pods)
        return Course(pods=names_of_pods, exclude=exclude, avoided=_named(tree, bad), now=now, why=found.why)
    return None


def _without_bad(tree: Tree, usable: Collection[str], wanted: int) -> Course | None:
    """For a job that waits: all pods, but no node whose links are bad, if there are enough others."""
    bad = tree.score < SOUND
    good = sum(name in usable for name in _named(tree, ~bad))
    if not bad.any() or good < wanted:
        return None
    return Course(pods=(), exclude=_named(tree, bad), avoided=_named(tree, bad), now=False, why=())


def _taken(found: Placement) -> Any:
    return np.concatenate((found.nodes, found.spares))


def _named(tree: Tree, chosen: Any) -> tuple[str, ...]:
    return tuple(tree.nodes[number] for number in np.flatnonzero(chosen))
