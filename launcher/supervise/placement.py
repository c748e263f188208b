"""Which nodes run, which wait as spares, and which ranks go where. Pure.

Node order comes from the fabric (SLURM_TOPOLOGY_ADDR, one switch path a node), never from SLURM_NODEID: Slurm sorts
nodes by name, so neighbours in its order can sit under different leaves. Our map is keyed by node name.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from trainmaster.fabric.crossings import Place, Score, score
from trainmaster.fabric.mesh import Axis
from trainmaster.fabric.order import arrange

_SOUND: Mapping[str, float] = MappingProxyType({})


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


def lay_out(
    addresses: Mapping[str, str],
    wanted: int,
    *,
    running: Iterable[str] = (),
    axes: Sequence[Axis] = (),
    links: Mapping[str, float] = _SOUND,
) -> Layout | None:
    """Choose `wanted` of the healthy nodes in `addresses`, or None when there are too few.

    A node of `running` (the previous cycle) stays, since its data is warm. A free place is taken by a node with sound
    links, and among those by one whose pod and leaf already run most of the job, so that the job spans few of them; the
    spares are then the nodes that fit worst. With the axes of a mesh the ranks follow the order in which its traffic
    crosses least. `links`: the score of each node whose links are not all sound; a ring is as fast as its slowest.
    """
    order = in_fabric_order(addresses)
    if len(order) < wanted:
        return None
    leaf = {node: switch_path(addresses[node], node) for node in order}
    kept = set(running)
    chosen = [node for node in order if node in kept][:wanted]
    crowd = Counter(leaf[node] for node in (chosen or order))
    pods = Counter(leaf[node][:-1] for node in (chosen or order))
    # Sorting is stable, so that the fabric's order breaks ties and the choice is repeatable.
    free = sorted(
        (node for node in order if node not in kept),
        key=lambda node: (-links.get(node, 1.0), -pods[leaf[node][:-1]], -crowd[leaf[node]]),
    )
    taken = {*chosen, *free[: wanted - len(chosen)]}
    nodes = tuple(node for node in order if node in taken)
    if axes and math.prod(axis.size for axis in axes) == wanted:
        nodes = tuple(nodes[at] for at in arrange(_spots(addresses, nodes), axes).order)
    return Layout(nodes=nodes, spares=tuple(node for node in order if node not in taken))


def score_of(addresses: Mapping[str, str], nodes: Sequence[str], axes: Sequence[Axis] = ()) -> Score | None:
    """How nodes in rank order lie in the fabric; None where there are no switches."""
    spots = _spots(addresses, nodes)
    if not any(spot.leaf for spot in spots):
        return None
    return score(spots, axes if math.prod(axis.size for axis in axes) == len(nodes) else ())


def _spots(addresses: Mapping[str, str], nodes: Iterable[str]) -> list[Place]:
    paths = [switch_path(addresses[node], node) for node in nodes]
    return [Place(pod=path[:-1], leaf=path) for path in paths]


def keep_places(
    addresses: Mapping[str, str],
    wanted: int,
    *,
    before: tuple[str, ...],
    axes: Sequence[Axis] = (),
    links: Mapping[str, float] = _SOUND,
) -> tuple[str, ...] | None:
    """As `lay_out`, but who stays keeps its rank, and a new place takes the rank of one that is gone.

    >>> keep_places({"n2": "n2", "n3": "n3"}, 2, before=("n1", "n2"))
    ('n3', 'n2')
    """
    layout = lay_out(addresses, wanted, running=before, axes=axes, links=links)
    if layout is None or len(before) != wanted:
        return None if layout is None else layout.nodes
    fresh = iter([place for place in layout.nodes if place not in before])
    return tuple(place if place in layout.nodes else next(fresh) for place in before)


def first_free(
    addresses: Mapping[str, str], *, before: tuple[str, ...], links: Mapping[str, float] = _SOUND
) -> tuple[str, ...] | None:
    """One place, for a replica of its own: where it was, or else that with the best links; of equals the first.

    `links`: as in `lay_out`.
    """
    kept = tuple(place for place in before if place in addresses)
    if kept or not addresses:
        return kept or None
    return (max(in_fabric_order(addresses), key=lambda place: links.get(place, 1.0)),)
