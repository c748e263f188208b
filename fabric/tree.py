"""What placement needs of a fabric, and no more: every node's leaf and pod as arrays.

A *leaf* is the set of nodes that are one switch apart on each of their rails: the nodes of one leaf switch, or of a
scalable unit whose leaf switches were merged. A *pod* is what the next tier joins without the top one. An
*island* is what is joined at all; a whole fabric has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trainmaster.fabric.model import Block, Floats, Ints, Unit, natural


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """A collapsed fabric. Nodes, leaves and pods stand in depth-first order, so their numbers grow along the fabric."""

    nodes: tuple[str, ...]
    leaf_of: Ints
    """[nodes] The leaf of each node; never falls."""
    pod_of: Ints
    """[nodes] The pod of each node; never falls."""
    score: Floats
    """[nodes] 1 for a node whose links are all sound, 0 for one without a link."""
    block_of: Ints
    """[nodes] Which of `blocks`, or -1."""
    leaves: tuple[str, ...]
    pods: tuple[str, ...]
    blocks: tuple[str, ...] = ()
    pod_of_leaf: Ints
    island_of_pod: Ints
    leaf_oversubscription: float = 1.0
    """Capacity of a leaf's nodes through that of its uplinks; 1 where every node can send at full rate."""
    pod_oversubscription: float = 1.0
    """The same of a pod; 1 where there is one pod."""
    index: Mapping[str, int] = field(init=False, repr=False)
    """Node name -> its number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {name: number for number, name in enumerate(self.nodes)})

    @property
    def leaf_sizes(self) -> Ints:
        """[leaves] Nodes under each leaf."""
        return np.bincount(self.leaf_of, minlength=len(self.leaves)).astype(np.int32)

    @property
    def pod_sizes(self) -> Ints:
        """[pods] Nodes in each pod."""
        return np.bincount(self.pod_of, minlength=len(self.pods)).astype(np.int32)

    def nodes_of_leaf(self, leaf: int) -> tuple[str, ...]:
        """The nodes under a leaf."""
        low, high = np.searchsorted(self.leaf_of, [leaf, leaf + 1])
        return self.nodes[low:high]

    def units(self) -> tuple[Unit, ...]:
        """The tree as nested units, one a root: an island's pods, their leaves, their nodes.

        With a single pod in an island the pod is the root.
        """
        leaves = [Unit(name=name, nodes=self.nodes_of_leaf(number)) for number, name in enumerate(self.leaves)]
        pods = []
        for number, name in enumerate(self.pods):
            low, high = np.searchsorted(self.pod_of_leaf, [number, number + 1])
            pods.append(Unit(name=name, children=tuple(leaves[low:high])))
        islands = int(self.island_of_pod.max(initial=-1)) + 1
        if islands == len(self.pods):
            return tuple(pods)
        roots = []
        for island in range(islands):
            low, high = np.searchsorted(self.island_of_pod, [island, island + 1])
            name = "fabric" if islands == 1 else f"fabric{island + 1}"
            roots.append(Unit(name=name, children=tuple(pods[low:high])))
        return tuple(roots)


def arrange(
    *,
    nodes: Sequence[str],
    leaf_of: Sequence[int] | Ints,
    pod_of_leaf: Sequence[int] | Ints,
    island_of_pod: Sequence[int] | Ints,
    leaves: Sequence[str],
    pods: Sequence[str],
    score: Floats | None = None,
    blocks: Sequence[Block] = (),
    leaf_oversubscription: float = 1.0,
    pod_oversubscription: float = 1.0,
) -> Tree:
    """A tree from parts in any order: pods and leaves follow the natural order of their first nodes.

    Leaves without nodes and pods without leaves are left out.
    """
    keys = [natural(name) for name in nodes]
    by_name = np.array(sorted(range(len(nodes)), key=lambda number: (keys[number], nodes[number])), dtype=np.int32)
    rank = np.empty(len(nodes), dtype=np.int64)
    rank[by_name] = np.arange(len(nodes))
    leaf = np.asarray(leaf_of, dtype=np.int32).reshape(-1)
    pod_of = np.asarray(pod_of_leaf, dtype=np.int32).reshape(-1)
    island_of = np.asarray(island_of_pod, dtype=np.int32).reshape(-1)

    def first(groups: Ints, count: int) -> Ints:
        """The smallest rank of a node in each group."""
        smallest = np.full(count, len(nodes), dtype=np.int64)
        np.minimum.at(smallest, groups, rank)
        return smallest.astype(np.int32)

    pod = pod_of[leaf]
    island = island_of[pod]
    firsts = (
        first(island, int(island_of.max(initial=-1)) + 1)[island],
        first(pod, len(pods))[pod],
        first(leaf, len(leaves))[leaf],
    )
    order = np.lexsort((rank, firsts[2], firsts[1], firsts[0]))
    leaf, pod, island = leaf[order], pod[order], island[order]
    names = tuple(nodes[number] for number in order)
    leaf_numbers, leaf_used = _renumbered(leaf)
    pod_numbers, pod_used = _renumbered(pod)
    island_numbers, _ = _renumbered(island)
    starts = np.searchsorted(leaf_numbers, np.arange(len(leaf_used)))
    pod_starts = np.searchsorted(pod_numbers, np.arange(len(pod_used)))
    block_of_name = {name: number for number, block in enumerate(blocks) for name in block.nodes}
    return Tree(
        nodes=names,
        leaf_of=leaf_numbers,
        pod_of=pod_numbers,
        score=np.ones(len(names)) if score is None else score[order],
        block_of=np.array([block_of_name.get(name, -1) for name in names], dtype=np.int32),
        leaves=tuple(leaves[number] for number in leaf_used),
        pods=tuple(pods[number] for number in pod_used),
        blocks=tuple(block.name for block in blocks),
        pod_of_leaf=pod_numbers[starts],
        island_of_pod=island_numbers[pod_starts],
        leaf_oversubscription=leaf_oversubscription,
        pod_oversubscription=pod_oversubscription,
    )


def _renumbered(groups: Ints) -> tuple[Ints, list[int]]:
    """Groups that stand together, numbered 0, 1, 2 … as they come; and which group each number was."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(groups) else np.zeros(0, dtype=np.int64)
    numbers = np.zeros(len(groups), dtype=np.int32)
    numbers[starts[1:]] = 1
    return np.cumsum(numbers).astype(np.int32), [int(groups[start]) for start in starts]
