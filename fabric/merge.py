"""From cables to the tree that Slurm and placement need: rails become one leaf, spines a pod, all planes at once. Pure.

Real fabrics have dead adapters and cables in the wrong socket, so nothing here asks for sets to be equal:

* two leaf switches belong to one unit when of the nodes on either at least half are on both (Jaccard index);
* each node is in the unit on which most of its adapters hang;
* two units belong to one pod when they have at least a third of their uplinks in common, spine by spine, or when units
  between them do.

So a unit neither loses a node that has lost a rail, nor gains one whose cable leads astray.
"""

from dataclasses import dataclass

import numpy as np

from trainmaster.fabric.components import components, majority, shared, summed, tally
from trainmaster.fabric.levels import Layout, lay_out, switch_levels
from trainmaster.fabric.model import Fabric, Floats, Ints
from trainmaster.fabric.naming import named, own_names
from trainmaster.fabric.score import node_scores
from trainmaster.fabric.tree import Tree, arrange

_UNIT_JACCARD = 0.5
_POD_SHARE = 1 / 3
# A name such as "localhost" that very many adapters have says nothing about which switches belong together.
_SWITCHES_OF_A_NODE_MAX = 64
# Units that share a spine are compared with so many neighbours; the others follow from these.
_NEIGHBOURS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """A fabric with the tree that it collapsed to, and which switch went where."""

    fabric: Fabric
    layout: Layout
    tree: Tree
    levels: Ints
    """[switches] 0 for leaf switches, 1 for spines …"""
    leaf_of_switch: Ints
    """[switches] The tree's leaf that a leaf switch is part of, or -1."""


def collapse(fabric: Fabric, *, like: Tree | None = None) -> Tree:
    """The tree of a fabric.

    Args:
        fabric: what was found; between switches, links of score 0 are taken for absent.
        like: an earlier tree whose names shall stay: a leaf or pod takes the name of the one that most of its nodes
            were in.
    """
    return merge(fabric, like=like).tree


def merge(fabric: Fabric, *, like: Tree | None = None) -> Merged:
    """The tree of a fabric and how it came about; arguments as for `collapse`."""
    layout = lay_out(fabric)
    levels = switch_levels(layout, len(fabric.switches))
    unit_of_switch = _units(layout, levels)
    unit_of_switch, unit_of_node = _vote(layout, unit_of_switch, _trust(fabric, layout))
    units = int(unit_of_switch.max(initial=-1)) + 1
    uplinks = _Uplinks.of(fabric, layout, levels, unit_of_switch, units)
    pod_of_unit = _pods(uplinks, layout, levels, unit_of_switch, units)
    tree = arrange(
        nodes=layout.nodes,
        leaf_of=unit_of_node,
        pod_of_leaf=pod_of_unit,
        island_of_pod=_islands(layout, unit_of_switch, pod_of_unit),
        leaves=own_names(fabric.switches, unit_of_switch, units),
        pods=own_names(fabric.switches, uplinks.pod_of_switch(pod_of_unit), int(pod_of_unit.max(initial=-1)) + 1),
        score=node_scores(fabric, layout, levels),
        blocks=fabric.blocks,
        leaf_oversubscription=_leaf_oversubscription(fabric, layout, unit_of_node, uplinks, units),
        pod_oversubscription=_pod_oversubscription(fabric, layout, levels, unit_of_node, pod_of_unit, uplinks),
    )
    tree = named(tree, like)
    # From a node of each unit to the place that the tree gave the unit.
    place = np.full(units, -1, dtype=np.int32)
    number = np.array([tree.index[name] for name in layout.nodes], dtype=np.int32)
    place[unit_of_node] = tree.leaf_of[number]
    leaf_of_switch = np.where(unit_of_switch >= 0, place[unit_of_switch], -1) if units else unit_of_switch
    return Merged(fabric=fabric, layout=layout, tree=tree, levels=levels, leaf_of_switch=leaf_of_switch)


def _units(layout: Layout, levels: Ints) -> Ints:
    """[switches] The unit of each leaf switch; -1 for the others."""
    on_leaf = levels[layout.on_switch] == 0
    node, switch, _ = tally(layout.on_node[on_leaf], layout.on_switch[on_leaf])
    size = np.bincount(switch, minlength=len(levels))
    few = np.bincount(node)[node] <= _SWITCHES_OF_A_NODE_MAX
    a, b, both = shared(switch[few], node[few], np.ones(int(few.sum())), reach=_SWITCHES_OF_A_NODE_MAX)
    alike = both >= _UNIT_JACCARD * (size[a] + size[b] - both)
    component = components(len(levels), a[alike], b[alike])
    unit = np.full(len(levels), -1, dtype=np.int32)
    leaves = np.flatnonzero(levels == 0)
    unit[leaves] = np.unique(component[leaves], return_inverse=True)[1].reshape(-1)
    return unit


def _trust(fabric: Fabric, layout: Layout) -> Floats:
    """[attachments] How much a cable's word counts: less where it leads to a switch of another rail."""
    number = {name: place for place, name in enumerate(dict.fromkeys(hca.device for hca in fabric.hcas))}
    device = np.fromiter((number[hca.device] for hca in fabric.hcas), dtype=np.int32, count=len(fabric.hcas))
    rail = majority(len(fabric.switches), layout.on_switch, device[layout.on_hca])
    return np.where(device[layout.on_hca] == rail[layout.on_switch], 1.0, 0.6)


def _vote(layout: Layout, unit_of_switch: Ints, trust: Floats) -> tuple[Ints, Ints]:
    """The unit of each switch and each node: a node's by most of its adapters, a switch's by most of its nodes.

    Nodes that hang on spines only make a unit with that spine.
    """
    on_leaf = unit_of_switch[layout.on_switch] >= 0
    nodes = len(layout.nodes)
    unit_of_node = majority(nodes, layout.on_node[on_leaf], unit_of_switch[layout.on_switch[on_leaf]], trust[on_leaf])
    left = unit_of_node[layout.on_node] < 0
    new = unit_of_switch.copy()
    strange = np.unique(layout.on_switch[left])
    new[strange] = int(unit_of_switch.max(initial=-1)) + 1 + np.arange(len(strange))
    spare = majority(nodes, layout.on_node[left], new[layout.on_switch[left]])
    unit_of_node = np.where(unit_of_node < 0, spare, unit_of_node).astype(np.int32)
    # A switch too empty to be like its rails' switches goes where its nodes are; of equals its own unit wins.
    leaves = np.flatnonzero(unit_of_switch >= 0)
    votes = np.concatenate([np.ones(int(on_leaf.sum())), np.full(len(leaves), 0.5)])
    home = majority(
        len(new),
        np.concatenate([layout.on_switch[on_leaf], leaves]),
        np.concatenate([unit_of_node[layout.on_node[on_leaf]], unit_of_switch[leaves]]),
        votes,
    )
    new = np.where(unit_of_switch >= 0, home, new).astype(np.int32)
    # So each node is where one of its switches is.
    again = majority(nodes, layout.on_node[on_leaf], new[layout.on_switch[on_leaf]], trust[on_leaf])
    unit_of_node = np.where(again >= 0, again, unit_of_node)
    numbers = np.unique(new[new >= 0])
    new[new >= 0] = np.searchsorted(numbers, new[new >= 0])
    return new, np.searchsorted(numbers, unit_of_node).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Uplinks:
    """Cables between units and the switches right above them, one entry a pair."""

    unit: Ints
    spine: Ints
    cables: Floats
    gbps: Floats
    switches: int

    @classmethod
    def of(cls, fabric: Fabric, layout: Layout, levels: Ints, unit_of_switch: Ints, units: int) -> "_Uplinks":
        up = np.concatenate([np.stack([layout.low, layout.high]), np.stack([layout.high, layout.low])], axis=1)
        link = np.concatenate([layout.trunk_link, layout.trunk_link])
        chosen = (levels[up[0]] == 0) & (levels[up[1]] == 1)
        unit, spine = unit_of_switch[up[0][chosen]], up[1][chosen]
        rate = fabric.links.gbps[link[chosen]]
        unit_of, spine_of, cables = tally(unit, spine)
        _, _, gbps = tally(unit, spine, rate)
        return cls(unit=unit_of, spine=spine_of, cables=cables, gbps=gbps, switches=len(levels))

    def pod_of_switch(self, pod_of_unit: Ints) -> Ints:
        """[switches] The pod to which most of a spine's cables go; -1 for all other switches."""
        return majority(self.switches, self.spine, pod_of_unit[self.unit], self.cables)


def _pods(uplinks: _Uplinks, layout: Layout, levels: Ints, unit_of_switch: Ints, units: int) -> Ints:
    """[units] The pod of each unit."""
    total = summed(uplinks.unit, uplinks.cables, units)
    a, b, common = shared(uplinks.unit, uplinks.spine, uplinks.cables, reach=_NEIGHBOURS)
    joined = common >= _POD_SHARE * np.minimum(total[a], total[b])
    pairs = [(a[joined], b[joined])]
    # Units without a spine above them: leaf switches cabled to each other, or a spine that has nodes itself.
    low, high = unit_of_switch[layout.low], unit_of_switch[layout.high]
    direct = (low >= 0) & (high >= 0) & (low != high)
    direct &= (levels[layout.low] <= 1) & (levels[layout.high] <= 1)
    bare = np.flatnonzero(direct)
    bare = bare[(total[low[bare]] == 0) | (total[high[bare]] == 0)]
    pairs.append((low[bare], high[bare]))
    pod = components(units, *(np.concatenate([pair[side] for pair in pairs]) for side in (0, 1)))
    return pod


def _islands(layout: Layout, unit_of_switch: Ints, pod_of_unit: Ints) -> Ints:
    """[pods] What can reach what, in any plane."""
    pods = int(pod_of_unit.max(initial=-1)) + 1
    reach = components(len(unit_of_switch), layout.low, layout.high)
    own = np.flatnonzero(unit_of_switch >= 0)
    # A pod and every part of the fabric that its switches are in, as one graph.
    pod, part = pod_of_unit[unit_of_switch[own]], pods + reach[own]
    return components(pods + len(unit_of_switch), pod, part)[:pods] if pods else pod_of_unit


def _leaf_oversubscription(fabric: Fabric, layout: Layout, unit_of_node: Ints, uplinks: _Uplinks, units: int) -> float:
    rate = fabric.links.gbps[layout.on_link]
    down = summed(unit_of_node[layout.on_node], rate, units)
    up = summed(uplinks.unit, uplinks.gbps, units)
    return _ratio(down, up)


def _pod_oversubscription(
    fabric: Fabric, layout: Layout, levels: Ints, unit_of_node: Ints, pod_of_unit: Ints, uplinks: _Uplinks
) -> float:
    pods = int(pod_of_unit.max(initial=-1)) + 1
    pod_of_switch = uplinks.pod_of_switch(pod_of_unit)
    low, high = layout.low, layout.high
    rate = fabric.links.gbps[layout.trunk_link]
    up = np.zeros(pods)
    for one, other in ((low, high), (high, low)):
        top = (levels[one] == 1) & (levels[other] == 2) & (pod_of_switch[one] >= 0)
        up += summed(pod_of_switch[one[top]], rate[top], pods)
    down_rate = fabric.links.gbps[layout.on_link]
    down = summed(pod_of_unit[unit_of_node[layout.on_node]], down_rate, pods)
    return _ratio(down, up)


def _ratio(down: Floats, up: Floats) -> float:
    """The median of down through up where there is an up, at least 1; also where no rate is known, as from Slurm."""
    known = (up > 0) & (down > 0)
    return max(1.0, round(float(np.median(down[known] / up[known])), 2)) if known.any() else 1.0
