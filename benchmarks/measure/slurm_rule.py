"""How Slurm's topology/tree chooses leaves, as a rule over counts of free nodes. For benchmarks.

Written from slurm.conf(5), the topology guide and what slurmctld answers to `sbatch --test-only`. Two rules are known:
that up to 24.05.2, compared with 22.05.8 (tests/cluster/test_slurm_rule.py), and that since 24.05.3, compared with
24.11.5; each agreed in every state tried, from 48 nodes to 12,672.

The rule walks over the leaves in the order of topology.conf and keeps the best so far. Another leaf is better in two
cases: it is as near to what has been taken and fits better, or it is nearer and (up to 24.05.2) fits no worse or (since
24.05.3) can hold all that is missing. "Fits better" is asked of the leaves first and then of the pods above them: whose
free nodes suffice for what is missing wins, of two that suffice the smaller, and where none does the larger. What is
picked gives all of its nodes; then the walk starts again. Nearness adds up over the leaves taken. The older rule keeps
counting nodes of a pod that have been taken.
"""

from collections.abc import Sequence

import numpy as np

from trainmaster.fabric.model import Ints


def choose(
    free: Sequence[int] | Ints, pod_of_leaf: Sequence[int] | Ints, wanted: int, *, since_24_05_3: bool
) -> list[int] | None:
    """[leaves] How many nodes each leaf gives to a job of `wanted` nodes; None when too few are free.

    Args:
        free: [leaves] free nodes, leaves in the order of topology.conf.
        pod_of_leaf: [leaves] the pod of each, all equal for a fabric of two tiers.
        wanted: nodes of the job.
        since_24_05_3: the newer rule.
    """
    leaf = [int(count) for count in free]
    pod_of = [int(pod) for pod in pod_of_leaf]
    if sum(leaf) < wanted:
        return None
    pod = [0] * (max(pod_of) + 1)
    for count, where in zip(leaf, pod_of, strict=True):
        pod[where] += count
    far = [0] * len(leaf)
    taken = [0] * len(leaf)
    usable = [number for number, count in enumerate(leaf) if count]
    missing = wanted
    while missing:
        best = usable[0]
        for other in usable[1:]:
            better, fits = _compare(leaf, pod, pod_of, other, best, missing)
            nearer = far[other] < far[best] and (fits if since_24_05_3 else better >= 0)
            if nearer or (far[other] == far[best] and better > 0):
                best = other
        taken[best] = min(leaf[best], missing)
        missing -= taken[best]
        if since_24_05_3:
            pod[pod_of[best]] -= leaf[best]
        leaf[best] = 0
        usable.remove(best)
        for other in usable:
            far[other] += 1 if pod_of[other] == pod_of[best] else 2
    return taken


def _compare(leaf: list[int], pod: list[int], pod_of: list[int], one: int, two: int, missing: int) -> tuple[int, bool]:
    """1, 0 or -1 as `one` fits better, equally or worse than `two`; and whether it suffices where that was decided."""
    first, second = leaf[one], leaf[two]
    if first < missing and second < missing and pod_of[one] != pod_of[two]:
        first, second = pod[pod_of[one]], pod[pod_of[two]]
    if first >= missing and second >= missing:
        return (first < second) - (first > second), True
    if first >= missing:
        return 1, True
    if second >= missing:
        return -1, False
    return (first > second) - (first < second), False


def as_counts(nodes: Sequence[int], leaf_of: Sequence[int] | Ints, leaves: int) -> list[int]:
    """[leaves] How many of these nodes hang under each leaf."""
    found: list[int] = np.bincount(np.asarray(leaf_of)[list(nodes)], minlength=leaves).tolist()
    return found
