"""Which node keeps whose copies, and which round of copies a cycle can go on from. Pure.

A round is all ranks' state after one step: (cycle, step), since a cycle that fell back to an older checkpoint comes by
the same steps again with other numbers in them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from trainmaster.launcher.supervise.placement import in_fabric_order, switch_path

Round = tuple[int, int]
_TRIES_MAX = 64


def pair(addresses: Mapping[str, str], *, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """For each node the one that keeps its copies: under another leaf where there is one, and each keeps one node's.

    Pairs of `before` whose two nodes are still there stay, since their copies need not travel again. A node alone has
    nobody. `addresses`: node name -> SLURM_TOPOLOGY_ADDR.

    >>> pair({"n1": "a.n1", "n2": "a.n2", "n3": "b.n3", "n4": "b.n4"})
    {'n1': 'n3', 'n2': 'n4', 'n3': 'n1', 'n4': 'n2'}
    """
    order = in_fabric_order(addresses)
    if len(order) < 2:
        return {}
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for owner, keeper in (before or {}).items():
        if owner in addresses and keeper in addresses and owner != keeper and keeper not in taken:
            pairs[owner] = keeper
            taken.add(keeper)
    owners = [node for node in order if node not in pairs]
    keepers = [node for node in order if node not in taken]
    leaf = {node: switch_path(addresses[node], node) for node in order}

    def cost(turn: int) -> tuple[int, int]:
        chosen = [(owner, keepers[(index + turn) % len(keepers)]) for index, owner in enumerate(owners)]
        neighbours = sum(leaf[owner] == leaf[keeper] for owner, keeper in chosen)
        return sum(owner == keeper for owner, keeper in chosen), neighbours

    # In fabric order a turn by the size of the largest leaf takes every node out of its own, where that is possible.
    crowd = max(Counter(leaf.values()).values())
    turns = dict.fromkeys(turn % max(1, len(owners)) for turn in (crowd, len(order) // 2, *range(len(owners))))
    best = min(islice(turns, _TRIES_MAX), key=cost, default=0)
    for index, owner in enumerate(owners):
        pairs[owner] = keepers[(index + best) % len(keepers)]
    for owner in [one for one in owners if pairs[one] == one]:
        # The only place that is left for it is itself: it changes with one whose keeper suits it better.
        others = [one for one in order if one != owner and pairs[one] != owner]
        other = min(others, key=lambda one: (leaf[pairs[one]] == leaf[owner], leaf[one] == leaf[owner]))
        pairs[owner], pairs[other] = pairs[other], owner
    return {node: pairs[node] for node in order}


def newest_whole(have: Mapping[str, Mapping[Round, Collection[int]]], world_size: int) -> Round | None:
    """The newest round of which every rank's copy is on some node. `have`: node -> round -> ranks.

    >>> newest_whole({"n1": {(0, 50): [0, 1], (0, 100): [0]}, "n2": {(0, 50): [1]}}, 2)
    (0, 50)
    """
    rounds = sorted({one for rounds in have.values() for one in rounds}, reverse=True)
    for one in rounds:
        if len({rank for rounds in have.values() for rank in rounds.get(one, ()) if rank < world_size}) == world_size:
            return one
    return None


def missing(
    have: Mapping[str, Mapping[Round, Collection[int]]], wanted: Round, ranks: Mapping[str, Iterable[int]]
) -> dict[str, list[tuple[int, str]]]:
    """What each node has to fetch so that its ranks can go on from a round: (rank, from which node).

    `ranks`: node -> the ranks that it will run. A copy that nobody has is left out.

    >>> missing({"n1": {(0, 5): [0, 1]}, "n2": {}}, (0, 5), {"n1": [0], "n2": [1]})
    {'n2': [(1, 'n1')]}
    """
    homes: dict[int, str] = {}
    for node, rounds in have.items():
        for rank in rounds.get(wanted, ()):
            homes.setdefault(rank, node)
    found: dict[str, list[tuple[int, str]]] = {}
    for node, local in ranks.items():
        held = set(have.get(node, {}).get(wanted, ()))
        fetches = [(rank, homes[rank]) for rank in local if rank not in held and rank in homes]
        if fetches:
            found[node] = fetches
    return found
