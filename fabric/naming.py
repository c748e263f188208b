"""Names of leaves and pods: a switch's own where one switch is meant, else numbers in fabric order, kept over time."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trainmaster.fabric.model import Ints, Switch
from trainmaster.fabric.tree import Tree

# slurm.conf(5) calls longer names of anything a mistake; brackets and commas would be read as a list.
NAME_MAX = 63
_FORBIDDEN = re.compile(r"[^A-Za-z0-9._-]+")


def clean(name: str) -> str:
    """A name that Slurm reads as one name.

    >>> clean("MF0;sw-hpc[1]:MQM9700/U1")
    'MF0-sw-hpc-1-MQM9700-U1'
    """
    return _FORBIDDEN.sub("-", name).strip("-.")[:NAME_MAX]


def own_names(switches: Sequence[Switch], group_of_switch: Ints, groups: int) -> tuple[str, ...]:
    """[groups] The cleaned name of the one switch of a group; empty where there are several or others are called so."""
    size = np.bincount(group_of_switch[group_of_switch >= 0], minlength=groups)
    names = [""] * groups
    common = Counter(clean(switch.name).lower() for switch in switches)
    for number, group in enumerate(group_of_switch.tolist()):
        name = clean(switches[number].name) if group >= 0 and size[group] == 1 else ""
        # Slurm tells a1 from A1; people do not.
        if name and common[name.lower()] == 1:
            names[group] = name
    return tuple(names)


def named(tree: Tree, like: Tree | None = None) -> Tree:
    """The tree with a name for every leaf and pod: those of `like` first, then its own, then numbers.

    No name is used twice, by whatever.
    """
    leaves, pods = list(tree.leaves), list(tree.pods)
    if like is not None:
        old = [like.index.get(name, -1) for name in tree.nodes]
        known = np.array([number >= 0 for number in old], dtype=bool)
        was = np.array([max(number, 0) for number in old], dtype=np.int32)
        if known.any():
            leaves = _inherit(leaves, tree.leaf_of[known], like.leaf_of[was[known]], like.leaves)
            pods = _inherit(pods, tree.pod_of[known], like.pod_of[was[known]], like.pods)
    taken = {name.lower() for name in (*leaves, *pods) if name} | {"fabric"}
    taken |= {f"fabric{number}" for number in range(1, 10)}
    # A leaf and a pod may come with the same name; the pod keeps its own.
    twice = Counter(name.lower() for name in (*leaves, *pods) if name)
    leaves = [name if twice[name.lower()] == 1 else "" for name in leaves]
    return replace(tree, leaves=_number(leaves, "su", taken), pods=_number(pods, "pod", taken))


def _inherit(own: list[str], new: Ints, old: Ints, names: Sequence[str]) -> list[str]:
    """Give each new group the name of the old group that it shares most nodes with, each name once, best first."""
    given: dict[int, str] = {}
    used: set[int] = set()
    pairs = Counter(zip(new.tolist(), old.tolist(), strict=True))
    sizes = Counter(old.tolist())
    for (group, before), count in sorted(pairs.items(), key=lambda entry: (-entry[1], entry[0])):
        if group not in given and before not in used and count * 2 > sizes[before]:
            given[group] = names[before]
            used.add(before)
    kept = set(given.values())
    return [given.get(group, "" if name in kept else name) for group, name in enumerate(own)]


def _number(names: list[str], prefix: str, taken: set[str]) -> tuple[str, ...]:
    """Numbers for those without a name: the place in the fabric where that is free."""
    width = max(3 if prefix == "su" else 2, len(str(len(names))))
    filled, spare = [], len(names)
    for place, name in enumerate(names, start=1):
        fresh = name or f"{prefix}{place:0{width}}"
        while not name and fresh.lower() in taken:
            spare += 1
            fresh = f"{prefix}{spare:0{width}}"
        taken.add(fresh.lower())
        filled.append(fresh)
    return tuple(filled)
