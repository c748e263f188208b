"""Which nodes run, which wait as spares, and which ranks go where. Pure.

Node order comes from the fabric (SLURM_TOPOLOGY_ADDR, one switch path a node), never from SLURM_NODEID: Slurm sorts
nodes by name, so neighbours in its order can sit under different leaves. Our map is keyed by node name.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Nodes in rank order, and the nodes left over."""

    nodes: tuple[str, ...]
    spares: tuple[str, ...]


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which n2 comes before n10.

    >>> sorted(["n10", "n2"], key=natural)
    ['n2', 'n10']
    """
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def switch_path(topology_address: str, node: str) -> tuple[str, ...]:
    """The switches above a node, from the top: "spine.leaf1.n01" gives ("spine", "leaf1").

    An address without switches (topology/none) gives (). The node's own name may hold dots, so it is cut from the end.
    """
    switches = topology_address.removesuffix(node).rstrip(".")
    return tuple(switches.split(".")) if switches else ()


def in_fabric_order(addresses: Mapping[str, str]) -> tuple[str, ...]:
    """All nodes, those under one switch beside each other. `addresses`: node name -> SLURM_TOPOLOGY_ADDR."""

    def key(node: str) -> tuple[object, ...]:
        return tuple(natural(switch) for switch in switch_path(addresses[node], node)), natural(node)

    return tuple(sorted(addresses, key=key))


def lay_out(addresses: Mapping[str, str], wanted: int, *, running: Iterable[str] = ()) -> Layout | None:
    """Choose `wanted` of the healthy nodes in `addresses`, or None when there are too few.

    A node of `running` (the previous cycle) stays, since its data is warm. A free place is taken by a node whose leaf
    already runs most of the job, so that the job spans few leaves; the spares are then the nodes that fit worst.
    """
    order = in_fabric_order(addresses)
    if len(order) < wanted:
        return None
    leaf = {node: switch_path(addresses[node], node) for node in order}
    kept = set(running)
    chosen = [node for node in order if node in kept][:wanted]
    crowd = Counter(leaf[node] for node in (chosen or order))
    while len(chosen) < wanted:
        free = [node for node in order if node not in chosen]
        # Counter order breaks ties by the fabric's order, which makes the choice repeatable.
        best = max(free, key=lambda node: (crowd[leaf[node]], -order.index(node)))
        chosen.append(best)
        crowd[leaf[best]] += 1
    taken = set(chosen)
    return Layout(
        nodes=tuple(node for node in order if node in taken), spares=tuple(node for node in order if node not in taken)
    )


def keep_places(addresses: Mapping[str, str], wanted: int, *, before: tuple[str, ...]) -> tuple[str, ...] | None:
    """As `lay_out`, but who stays keeps its rank, and a new place takes the rank of one that is gone.

    >>> keep_places({"n2": "n2", "n3": "n3"}, 2, before=("n1", "n2"))
    ('n3', 'n2')
    """
    layout = lay_out(addresses, wanted, running=before)
    if layout is None or len(before) != wanted:
        return None if layout is None else layout.nodes
    fresh = iter([place for place in layout.nodes if place not in before])
    return tuple(place if place in layout.nodes else next(fresh) for place in before)


def first_free(addresses: Mapping[str, str], *, before: tuple[str, ...]) -> tuple[str, ...] | None:
    """One place, for a replica of its own: where it was, or else the first in the fabric's order."""
    kept = tuple(place for place in before if place in addresses)
    return kept or in_fabric_order(addresses)[:1] or None
