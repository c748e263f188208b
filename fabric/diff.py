"""What changes between two trees: nodes that move, come and go, units renamed. Pure."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from trainmaster.fabric.topology_conf import fold
from trainmaster.fabric.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. `new` is empty for what is gone, `old` for what came."""

    kind: str
    """node-gone, node-new, node-moved, leaf-renamed, pod-renamed, leaf-moved."""
    names: tuple[str, ...]
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        what = fold(self.names) if self.names else ""
        match self.kind:
            case "node-gone":
                return f"- {what}: was below {self.old}"
            case "node-new":
                return f"+ {what}: below {self.new}"
            case "node-moved":
                return f"~ {what}: from {self.old} to {self.new}"
            case "leaf-moved":
                return f"~ {what}: from below {self.old} to below {self.new}"
            case _:
                return f"= {self.old} is called {self.new}"


def diff(old: Tree, new: Tree) -> tuple[Change, ...]:
    """How `new` differs from `old`; nothing when every node has the same leaf and pod by the same names.

    A leaf that keeps most of its nodes is the same leaf, whatever it is called.
    """
    common = [name for name in new.nodes if name in old.index]
    leaf = _same([(old.leaf_of[old.index[n]], new.leaf_of[new.index[n]]) for n in common])
    changes: list[Change] = []
    for number, other in sorted(leaf.items()):
        if old.leaves[number] != new.leaves[other]:
            changes.append(Change(kind="leaf-renamed", names=(), old=old.leaves[number], new=new.leaves[other]))
    pod = _same([(old.pod_of[old.index[n]], new.pod_of[new.index[n]]) for n in common])
    for number, other in sorted(pod.items()):
        if old.pods[number] != new.pods[other]:
            changes.append(Change(kind="pod-renamed", names=(), old=old.pods[number], new=new.pods[other]))
    for number, other in sorted(leaf.items()):
        was, now = int(old.pod_of_leaf[number]), int(new.pod_of_leaf[other])
        if pod.get(was) != now:
            changes.append(Change(kind="leaf-moved", names=(new.leaves[other],), old=old.pods[was], new=new.pods[now]))
    gone: dict[str, list[str]] = defaultdict(list)
    came: dict[str, list[str]] = defaultdict(list)
    moved: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in old.nodes:
        if name not in new.index:
            gone[old.leaves[old.leaf_of[old.index[name]]]].append(name)
    for name in new.nodes:
        now = int(new.leaf_of[new.index[name]])
        if name not in old.index:
            came[new.leaves[now]].append(name)
        elif leaf.get(int(old.leaf_of[old.index[name]])) != now:
            moved[old.leaves[old.leaf_of[old.index[name]]], new.leaves[now]].append(name)
    changes += [Change(kind="node-gone", names=tuple(names), old=where) for where, names in gone.items()]
    changes += [Change(kind="node-new", names=tuple(names), new=where) for where, names in came.items()]
    changes += [Change(kind="node-moved", names=tuple(names), old=a, new=b) for (a, b), names in moved.items()]
    return tuple(changes)


def _same(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """Which new group each old one became: the one that shares most with it, each once."""
    became: dict[int, int] = {}
    used: set[int] = set()
    counted = Counter((int(old), int(new)) for old, new in pairs)
    for (old, new), _ in sorted(counted.items(), key=lambda entry: (-entry[1], entry[0])):
        if old not in became and new not in used:
            became[old] = new
            used.add(new)
    return became
