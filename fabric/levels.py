"""Which switches carry nodes, and how far above them all others stand."""

from dataclasses import dataclass

import numpy as np

from trainmaster.fabric.model import Fabric, Ints, Kind, naturally

UNREACHED = np.int32(99)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """A fabric as arrays: which node hangs on which switch, and which switches are joined."""

    nodes: tuple[str, ...]
    """Those with a cable to a switch, by natural order of their names."""
    node_of_hca: Ints
    """[hcas] -1 for adapters that are no such node's."""
    on_node: Ints
    """[attachments] One entry a cable between a node and a switch: the node,"""
    on_hca: Ints
    """the adapter,"""
    on_switch: Ints
    """the switch,"""
    on_link: Ints
    """and the link."""
    low: Ints
    """[trunks] One entry a cable between two switches: one end,"""
    high: Ints
    """the other,"""
    trunk_link: Ints
    """and the link."""


def lay_out(fabric: Fabric) -> Layout:
    """Sort the cables of a fabric into those of nodes and those between switches.

    A link of which both ends are adapters (two hosts back to back) joins no switch and is left out.
    """
    count = len(fabric.switches)
    a, b = fabric.links.a, fabric.links.b
    a_switch, b_switch = a < count, b < count
    mixed = np.flatnonzero(a_switch != b_switch)
    hca = np.where(a_switch[mixed], b[mixed], a[mixed]) - count
    switch = np.where(a_switch[mixed], a[mixed], b[mixed])
    joined = np.zeros(len(fabric.hcas), dtype=bool)
    joined[hca] = True
    hosts = [
        found.host if there and found.kind is Kind.HOST else ""
        for found, there in zip(fabric.hcas, joined.tolist(), strict=True)
    ]
    names = tuple(naturally({host for host in hosts if host}))
    number = {name: index for index, name in enumerate(names)}
    node_of_hca = np.fromiter((number.get(host, -1) for host in hosts), dtype=np.int32, count=len(hosts))
    # A cable of a host that carries nothing still says where the host stands; between switches it joins nothing.
    alive = node_of_hca[hca] >= 0
    trunks = np.flatnonzero(a_switch & b_switch & (a != b) & (fabric.links.score > 0))
    return Layout(
        nodes=names,
        node_of_hca=node_of_hca,
        on_node=node_of_hca[hca][alive],
        on_hca=hca[alive].astype(np.int32),
        on_switch=switch[alive],
        on_link=mixed[alive].astype(np.int32),
        low=a[trunks],
        high=b[trunks],
        trunk_link=trunks.astype(np.int32),
    )


def switch_levels(layout: Layout, switches: int) -> Ints:
    """[switches] 0 for leaf switches, 1 for what is joined to those, and so on; UNREACHED for what joins no node.

    A spine that carries a login node or two is no leaf: it is joined to at least two switches with nodes, and
    has less than half as many nodes as they have (median).
    """
    carried = np.bincount(layout.on_switch, minlength=switches)
    leaf = carried > 0
    ends = np.concatenate([np.stack([layout.low, layout.high]), np.stack([layout.high, layout.low])], axis=1)
    to_leaf = ends[:, leaf[ends[0]] & leaf[ends[1]]]
    for switch in np.unique(to_leaf[0]):
        around = np.unique(to_leaf[1, to_leaf[0] == switch])
        if len(around) >= 2 and carried[switch] * 2 < np.median(carried[around]):
            leaf[switch] = False
    levels = np.where(leaf, np.int32(0), UNREACHED).astype(np.int32)
    for level in range(int(UNREACHED) - 1):
        reached = ends[1, levels[ends[0]] == level]
        fresh = reached[levels[reached] == UNREACHED]
        if not len(fresh):
            break
        levels[fresh] = level + 1
    return levels
