"""Reads topology.conf, and what `scontrol show topology` prints, which has the same words. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ClusterShell.NodeSet import NodeSet, NodeSetException

from trainmaster.errors import FabricError
from trainmaster.fabric.model import Unit
from trainmaster.fabric.tree import Tree, arrange

# Level is what `scontrol show topology` adds; LinkSpeed is read by Slurm and used by nothing in it.
_KEYS = {"switchname", "switches", "nodes", "linkspeed", "level", "blockname", "blocksizes", "blockindex", "blocksize"}
_SPECIAL = re.compile(r"[\[\],!&^@%\s]")
_PAIR = re.compile(r"([A-Za-z]+)=(\S*)")
# A list such as n[1-999999999] would fill the memory.
_NAMES_MAX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One `SwitchName=` or `BlockName=` line."""

    line: int
    kind: str
    """switch or block."""
    name: str
    nodes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole file."""

    entries: tuple[Entry, ...]
    block_sizes: tuple[int, ...] = ()
    faults: tuple[tuple[int, str], ...] = ()
    """Line and words: what could not be read."""

    @property
    def switches(self) -> tuple[Entry, ...]:
        """The switches."""
        return tuple(entry for entry in self.entries if entry.kind == "switch")

    @property
    def blocks(self) -> tuple[Entry, ...]:
        """The blocks."""
        return tuple(entry for entry in self.entries if entry.kind == "block")


def unfold(text: str) -> tuple[str, ...]:
    """The names of a host list, in its order as Slurm reads it. Raises ValueError when it is none.

    >>> unfold("n[1-3],x")
    ('n1', 'n2', 'n3', 'x')
    """
    for low, high in re.findall(r"(\d+)-(\d+)", text):
        if len(high) > 9 or int(high) - int(low) > _NAMES_MAX:
            raise ValueError(f"{low}-{high} is too long a range")
    if "@" in text:
        raise ValueError("a name may not hold @")
    try:
        found: list[str] = []
        for part in _split(text):
            names = NodeSet(part)
            if len(names) > _NAMES_MAX:
                raise ValueError(f"{len(names)} names are too many")
            found += names
        return tuple(found)
    except NodeSetException as error:
        raise ValueError(str(error)) from None


def fold(names: Iterable[str]) -> str:
    """A host list that Slurm reads: numbers in brackets in one place only.

    >>> fold(["r1n1", "r1n2", "r2n1"])
    'r1n[1-2],r2n1'
    """
    chosen = list(names)
    if any(_SPECIAL.search(name) or not name for name in chosen):
        # No names of nodes or switches, but what a faulty file has in their place.
        return ",".join(chosen)
    nodes = NodeSet.fromlist(chosen)
    nodes.fold_axis = (-1,)
    return str(nodes)


def read_config(text: str) -> Config:
    """Every entry of a file, and what in it cannot be read."""
    entries: list[Entry] = []
    faults: list[tuple[int, str]] = []
    sizes: tuple[int, ...] = ()
    for number, line in _lines(text):
        pairs = {key.lower(): value for key, value in _PAIR.findall(line)}
        rest = _PAIR.sub("", line).strip()
        if rest:
            faults.append((number, f"{rest[:60]!r} is no Key=Value"))
        faults += [(number, f"{key} is no word of topology.conf") for key in sorted(pairs.keys() - _KEYS)]
        if "blocksizes" in pairs:
            digits = pairs["blocksizes"].split(",")
            sizes = tuple(int(size) for size in digits if size.isdecimal() and len(size) < 9)
            if len(sizes) != len(digits):
                faults.append((number, f"BlockSizes={pairs['blocksizes'][:60]} is no list of numbers"))
        kind = "switch" if "switchname" in pairs else "block" if "blockname" in pairs else ""
        if not kind:
            if "blocksizes" not in pairs and not rest:
                faults.append((number, f"a line without SwitchName or BlockName: {line[:60]!r}"))
            continue
        lists: dict[str, tuple[str, ...]] = {"nodes": (), "switches": ()}
        for key in lists:
            # `scontrol show topology` writes (null) for none.
            if pairs.get(key, "") not in ("", "(null)"):
                try:
                    lists[key] = unfold(pairs[key])
                except ValueError as error:
                    faults.append((number, f"{key.capitalize()}={pairs[key][:60]} is no list of names: {error}"))
        # It also shows the nodes below a switch that has switches.
        shown = "level" in pairs and lists["switches"]
        entries.append(
            Entry(
                line=number,
                kind=kind,
                name=pairs[f"{kind}name"],
                nodes=() if shown else lists["nodes"],
                switches=lists["switches"],
            )
        )
    return Config(entries=tuple(entries), block_sizes=sizes, faults=tuple(faults))


def units_of(config: Config) -> tuple[Unit, ...]:
    """The trees of a file, roots in its order. A switch under several parents counts with the last, as in Slurm.

    Raises:
        FabricError: switches contain each other, or nothing is in the file.
    """
    by_name = {entry.name: entry for entry in config.switches}
    parent = {child: entry.name for entry in config.switches for child in entry.switches if child in by_name}
    children: dict[str, list[str]] = {name: [] for name in by_name}
    for child, above in parent.items():
        children[above].append(child)
    place = {name: number for number, name in enumerate(by_name)}

    def unit(name: str, depth: int) -> Unit:
        if depth > len(by_name) or depth > 50:
            raise FabricError(f"the switch {name} is above itself", hint="take it out of one of the Switches= lists")
        below = tuple(unit(child, depth + 1) for child in sorted(children[name], key=place.__getitem__))
        return Unit(name=name, children=below, nodes=() if below else by_name[name].nodes)

    roots = tuple(unit(name, 0) for name in by_name if name not in parent)
    if not roots:
        raise FabricError(
            "no switch of this topology is at the top", hint="write SwitchName= lines, or see which contain each other"
        )
    return roots


def tree_of(config: Config) -> Tree:
    """A file's tree with its own names: leaves, what is above them, and what is joined at all. Raises FabricError."""
    leaves: list[Unit] = []
    pod_of_leaf: list[int] = []
    pods: list[str] = []
    islands: list[int] = []

    def walk(unit: Unit, island: int, above: int) -> None:
        if not unit.children:
            if above < 0:
                pods.append(f"{unit.name}-pod")
                islands.append(island)
                above = len(pods) - 1
            leaves.append(unit)
            pod_of_leaf.append(above)
            return
        own = -1
        for child in unit.children:
            if not child.children and own < 0:
                pods.append(unit.name)
                islands.append(island)
                own = len(pods) - 1
            walk(child, island, own)

    for island, root in enumerate(units_of(config)):
        walk(root, island, -1)
    leaf_of: dict[str, int] = {}
    for number, leaf in enumerate(leaves):
        for name in leaf.nodes:
            leaf_of.setdefault(name, number)
    return arrange(
        nodes=tuple(leaf_of),
        leaf_of=list(leaf_of.values()),
        pod_of_leaf=pod_of_leaf,
        island_of_pod=islands,
        leaves=[leaf.name for leaf in leaves],
        pods=pods,
    )


def _lines(text: str) -> Sequence[tuple[int, str]]:
    """Number and content of each line that has any; a backslash at the end continues a line."""
    found: list[tuple[int, str]] = []
    held, start = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].rstrip()
        start = start or number
        if content.endswith("\\"):
            held += content[:-1]
            continue
        if (held + content).strip():
            found.append((start, (held + content).strip()))
        held, start = "", 0
    if held.strip():
        found.append((start, held.strip()))
    return found


def _split(text: str) -> list[str]:
    """The parts of a list between commas that stand in no bracket."""
    parts, depth, begin = [], 0, 0
    for place, character in enumerate(text):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[begin:place])
            begin = place + 1
    return [part for part in (*parts, text[begin:]) if part]
