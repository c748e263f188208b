"""What is wrong, or will go wrong, with a topology.conf: each finding with the reason and the mend. Pure.

Sources: Slurm's topology/tree and topology/block plug-ins, topology.conf(5), and trials on 22.05, 24.11 and 26.05.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainmaster.fabric.naming import NAME_MAX
from trainmaster.fabric.topology_conf import Config, Entry, fold, read_config

# slurmctld computes all distances between switches at each start in the third power of their number.
_SWITCHES_MAX = 512
_ALIKE = 0.5


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """slurmctld ends at its start, or jobs are given wrong nodes."""
    WARNING = "warning"
    """Works, and not as it is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to mend."""

    code: str
    """A short name that stays: duplicate-switch, unequal-depth …"""
    severity: Severity
    line: int
    """Where, 0 for the file as a whole."""
    what: str
    why: str
    mend: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{self.severity}: {where}{self.what} [{self.code}]\n  why:  {self.why}\n  mend: {self.mend}"


def lint(text: str, *, slurm_nodes: Collection[str] | None = None) -> tuple[Finding, ...]:
    """All findings of a topology.conf, errors first, then by line.

    Args:
        text: the file.
        slurm_nodes: the nodes that Slurm has; None leaves out what compares with them.
    """
    config = read_config(text)
    found = [
        Finding(
            code="unreadable", severity=Severity.ERROR, line=line, what=words,
            why="slurmctld ends with a fatal error at a line that it cannot read",
            mend="write SwitchName=NAME Nodes=LIST, SwitchName=NAME Switches=LIST or BlockName=NAME Nodes=LIST",
        )
        for line, words in config.faults
    ]  # fmt: skip
    if not config.entries:
        found.append(
            Finding(
                code="empty", severity=Severity.ERROR, line=0, what="no switch and no block is in this file",
                why="with TopologyPlugin=topology/tree every node then counts as unreachable from every other",
                mend="write one with `trainmaster fabric emit tree`, or set TopologyPlugin=topology/none (24.05: flat)",
            )
        )  # fmt: skip
    for rule in (_names, _children, _parents, _depth, _roots, _leaves, _alike, _size, _order, _blocks):
        found += rule(config)
    if slurm_nodes is not None:
        found += _against_slurm(config, slurm_nodes)
    return tuple(sorted(found, key=lambda one: (one.severity is not Severity.ERROR, one.line, one.code, one.what)))


def _names(config: Config) -> Iterator[Finding]:
    seen: dict[str, Entry] = {}
    for entry in config.entries:
        low = f"{entry.kind} {entry.name}"
        if low in seen:
            yield Finding(
                code="duplicate-name", severity=Severity.ERROR, line=entry.line,
                what=f"{entry.name} is already the name of the {entry.kind} of line {seen[low].line}",
                why="slurmctld ends at its start: the switch has already been defined",
                mend="give each its own name",
            )  # fmt: skip
        seen.setdefault(low, entry)
        if len(entry.name) > NAME_MAX:
            yield Finding(
                code="long-name", severity=Severity.WARNING, line=entry.line,
                what=f"the name {entry.name[:20]}… has {len(entry.name)} characters",
                why="22.05 takes it, but 64 bytes are what Slurm and tools around it keep for such names",
                mend=f"at most {NAME_MAX}",
            )  # fmt: skip
        if not entry.name or "[" in entry.name or "," in entry.name:
            yield Finding(
                code="bad-name", severity=Severity.ERROR, line=entry.line, what=f"{entry.name!r} is no single name",
                why="a line describes one switch or block, and other lines name it in lists",
                mend="letters, digits, dots, dashes and underscores",
            )  # fmt: skip


def _children(config: Config) -> Iterator[Finding]:
    known = {entry.name for entry in config.switches}
    for entry in config.switches:
        strange = [name for name in entry.switches if name not in known]
        if strange:
            yield Finding(
                code="unknown-child", severity=Severity.ERROR, line=entry.line,
                what=f"{entry.name} contains {fold(strange)}, which no line describes",
                why="slurmctld ends at its start: the child is invalid",
                mend="add a SwitchName= line for it, or take it out of Switches=",
            )  # fmt: skip
        if entry.switches and entry.nodes:
            yield Finding(
                code="both", severity=Severity.ERROR, line=entry.line,
                what=f"{entry.name} has both Nodes= and Switches=",
                why="slurmctld ends at its start: a switch is either a leaf with nodes or above others",
                mend="put the nodes in a leaf of their own below it",
            )  # fmt: skip
        if not entry.switches and not entry.nodes:
            yield Finding(
                code="empty-switch", severity=Severity.ERROR, line=entry.line,
                what=f"{entry.name} has neither Nodes= nor Switches=",
                why="slurmctld ends at its start: a switch has something below it",
                mend="leave the line out",
            )  # fmt: skip


def _parents(config: Config) -> Iterator[Finding]:
    above: dict[str, list[Entry]] = defaultdict(list)
    for entry in config.switches:
        for child in dict.fromkeys(entry.switches):
            above[child].append(entry)
    by_name = {entry.name: entry for entry in config.switches}
    for child, entries in above.items():
        if len(entries) > 1 and child in by_name:
            yield Finding(
                code="many-parents", severity=Severity.WARNING, line=by_name[child].line,
                what=f"{child} is below {len(entries)} switches: {fold(entry.name for entry in entries)}",
                why=f"Slurm keeps one parent, the one that comes last ({entries[-1].name}); real spines all over the "
                "file also slow each scheduling down",
                mend="write one virtual switch for all spines of a pod",
            )  # fmt: skip
    cycle = _cycle(config)
    if cycle:
        yield Finding(
            code="cycle", severity=Severity.ERROR, line=by_name[cycle[0]].line,
            what=f"{' contains '.join(cycle)}", why="slurmctld ends at its start: this is not a tree",
            mend="take one of them out of the other's Switches=",
        )  # fmt: skip


def _cycle(config: Config) -> tuple[str, ...]:
    children = {entry.name: entry.switches for entry in config.switches}
    done: set[str] = set()
    for start in children:
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop()
                done.add(name)
            elif name in path:
                return (*path[path.index(name) :], name)
            elif name not in done and name in children:
                path.append(name)
                stack.append((name, True))
                stack += [(child, False) for child in children[name]]
    return ()


def _depths(config: Config) -> dict[str, int]:
    """Of each switch that can be reached from a root: how far below it."""
    children = {entry.name: entry.switches for entry in config.switches}
    below = {child for names in children.values() for child in names}
    depth = {name: 0 for name in children if name not in below}
    stack = list(depth)
    while stack:
        name = stack.pop()
        for child in children[name]:
            if child in children and child not in depth:
                depth[child] = depth[name] + 1
                stack.append(child)
    return depth


def _depth(config: Config) -> Iterator[Finding]:
    depth = _depths(config)
    leaves = [entry for entry in config.switches if not entry.switches and entry.name in depth]
    if not leaves or _cycle(config):
        return
    usual = Counter(depth[entry.name] for entry in leaves).most_common(1)[0][0]
    odd = [entry for entry in leaves if depth[entry.name] != usual]
    if odd:
        yield Finding(
            code="unequal-depth", severity=Severity.ERROR, line=odd[0].line,
            what=f"{fold(entry.name for entry in odd)} has {depth[odd[0].name]} switches above it, most leaves {usual}",
            why="Slurm climbs from two leaves in lock step: it compares a pod with the whole fabric, which fits every "
            "job, and so scatters jobs",
            mend="put a switch with this one child in between, so that all leaves are equally deep",
        )  # fmt: skip


def _roots(config: Config) -> Iterator[Finding]:
    depth = _depths(config)
    roots = [name for name, level in depth.items() if level == 0]
    if len(roots) > 1:
        yield Finding(
            code="many-roots", severity=Severity.WARNING, line=0,
            what=f"{len(roots)} switches have nothing above them: {fold(roots[:20])}",
            why="no job gets nodes below two of them",
            mend="where cables join them, add a switch above all; where none do, this is right",
        )  # fmt: skip


def _leaves(config: Config) -> Iterator[Finding]:
    where: dict[str, list[Entry]] = defaultdict(list)
    for entry in config.switches:
        if not entry.switches:
            for node in dict.fromkeys(entry.nodes):
                where[node].append(entry)
    twice: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for node, entries in where.items():
        if len(entries) > 1:
            twice[tuple(entry.name for entry in entries)].append(node)
    lines = {entry.name: entry.line for entry in config.switches}
    for leaves, nodes in list(twice.items())[:20]:
        yield Finding(
            code="node-twice", severity=Severity.ERROR, line=lines[leaves[1]],
            what=f"{fold(nodes)} is below {len(leaves)} leaves: {fold(leaves)}",
            why="Slurm counts each leaf that overlaps a job, so --switches=1 cannot hold; it warns that multiple leaf "
            "switches contain nodes",
            mend="one virtual leaf for all rails of a scalable unit: `trainmaster fabric emit tree` merges them",
        )  # fmt: skip


def _alike(config: Config) -> Iterator[Finding]:
    leaves = [entry for entry in config.switches if entry.nodes and not entry.switches]
    groups: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in leaves:
        groups[tuple(sorted(set(entry.nodes)))].append(entry)
    for nodes, entries in groups.items():
        if len(entries) > 1:
            yield Finding(
                code="rails-as-leaves", severity=Severity.ERROR, line=entries[1].line,
                what=f"{fold(entry.name for entry in entries)} have the same {len(nodes)} nodes",
                why="these are the rails of one unit, not leaves: nodes of a unit are one switch apart on each rail",
                mend=f"keep one of them and delete {len(entries) - 1}",
            )  # fmt: skip


def _size(config: Config) -> Iterator[Finding]:
    if len(config.switches) > _SWITCHES_MAX:
        cubed = len(config.switches) ** 3
        yield Finding(
            code="many-switches", severity=Severity.WARNING, line=0, what=f"{len(config.switches)} switches",
            why=f"slurmctld computes {cubed:.0e} distances at each start and each change of a node's topology",
            mend="virtual leaves and pods instead of real switches",
        )  # fmt: skip


def _order(config: Config) -> Iterator[Finding]:
    if _cycle(config):
        return
    parent = {child: entry.name for entry in config.switches for child in entry.switches}
    left: set[str] = set()
    last = ""
    for entry in config.switches:
        above = parent.get(entry.name, "")
        if entry.switches or not above:
            continue
        if above != last:
            if above in left:
                yield Finding(
                    code="pods-mixed", severity=Severity.WARNING, line=entry.line,
                    what=f"{entry.name} stands apart from the other leaves of {above}",
                    why="with TopologyParam=SwitchAsNodeRank nodes are numbered in the order of this file, so jobs go "
                    "to and fro between pods",
                    mend="write all leaves of one pod before those of the next: `trainmaster fabric emit tree` does",
                )  # fmt: skip
                return
            left.add(last)
            last = above


def _blocks(config: Config) -> Iterator[Finding]:
    sizes = config.block_sizes
    if sizes:
        bad = [size for size in sizes if not size or size % sizes[0] or (size // sizes[0]) & (size // sizes[0] - 1)]
        if bad:
            yield Finding(
                code="block-sizes", severity=Severity.ERROR, line=0,
                what=f"BlockSizes={','.join(map(str, sizes))}: {bad[0]} is not {sizes[0]} times a power of two",
                why="Slurm joins blocks in pairs, pairs of pairs and so on, and refuses other sizes",
                mend=f"BlockSizes={','.join(str(sizes[0] * 2**power) for power in range(max(1, len(sizes))))}",
            )  # fmt: skip
        small = [entry for entry in config.blocks if len(entry.nodes) < sizes[0]]
        if small:
            yield Finding(
                code="small-block", severity=Severity.ERROR, line=small[0].line,
                what=f"{fold(entry.name for entry in small)} has {len(small[0].nodes)} nodes, and the first of "
                f"BlockSizes is {sizes[0]}",
                why="slurmctld 24.11 ends with a fatal error; to a newer one such a block holds no whole segment",
                mend=f"a base size of at most {min(len(entry.nodes) for entry in small)}",
            )  # fmt: skip
    if config.switches and config.blocks:
        yield Finding(
            code="switches-and-blocks", severity=Severity.ERROR, line=config.blocks[0].line,
            what="switches and blocks are in one file",
            why="topology/tree does not know BlockName, topology/block does not know SwitchName: slurmctld ends",
            mend="a file for one of them, or topology.yaml (25.05), which has room for both",
        )  # fmt: skip
    where = Counter(node for entry in config.blocks for node in set(entry.nodes))
    twice = [node for node, count in where.items() if count > 1]
    if twice:
        yield Finding(
            code="node-in-two-blocks", severity=Severity.ERROR, line=0, what=f"{fold(twice)} is in several blocks",
            why="slurmctld starts without a word and counts the node in each of them", mend="each node in one block",
        )  # fmt: skip


def _against_slurm(config: Config, slurm_nodes: Collection[str]) -> Iterator[Finding]:
    known = set(slurm_nodes)
    for entry in config.entries:
        strange = [node for node in entry.nodes if node not in known]
        if strange:
            yield Finding(
                code="unknown-node", severity=Severity.WARNING, line=entry.line,
                what=f"{entry.name} has {fold(strange)}, which Slurm does not know",
                why="slurmctld warns of invalid host names at each start and goes on without them",
                mend="take it out, or define it in slurm.conf first",
            )  # fmt: skip
    has: Sequence[Entry] = config.switches or config.blocks
    missing = known - {node for entry in has for node in entry.nodes}
    if missing and config.blocks and not config.switches:
        yield Finding(
            code="missing-node", severity=Severity.WARNING, line=0,
            what=f"{fold(missing)} is in no block",
            why="no job gets it together with nodes of blocks; one that needs both is refused as impossible",
            mend="add it to a block, or keep such nodes in a partition of their own",
        )  # fmt: skip
    if missing and config.switches:
        yield Finding(
            code="missing-node", severity=Severity.WARNING, line=0,
            what=f"{fold(missing)} is below no switch",
            why="a job that needs more than one node is never given it, without a word",
            mend="add it to its leaf; without a cable, to a leaf below a root of its own",
        )  # fmt: skip
