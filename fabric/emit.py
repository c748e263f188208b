"""Slurm's topology files from a tree. Pure, and the same text for the same tree, byte by byte.

Slurm's tree plug-in knows a single parent for each switch, counts leaves for `--switches`, climbs from two leaves in
lock step, and numbers nodes in the order of the file when SwitchAsNodeRank is set. So: one virtual leaf for a unit, one
virtual switch for a pod's spines, the same depth everywhere, parents before children and all of a pod before the next.
"""

from collections.abc import Collection, Iterator, Sequence

from trainmaster.errors import FabricError
from trainmaster.fabric.model import Unit, naturally
from trainmaster.fabric.topology_conf import fold
from trainmaster.fabric.tree import Tree

OUTSIDE = "outside"
"""The switch over nodes that Slurm has and the fabric lacks."""


def tree_conf(tree: Tree, *, slurm_nodes: Collection[str] | None = None) -> str:
    """topology.conf for topology/tree.

    Args:
        tree: the fabric.
        slurm_nodes: the nodes that Slurm has. Others are left out; those that the fabric lacks get a root of their own,
            since Slurm would not give them to any job otherwise. None: those of the fabric.
    """
    lines = [_comment(tree, slurm_nodes)]
    for switch, key, names in _switches(_units(tree, slurm_nodes)):
        lines.append(f"SwitchName={switch} {key.capitalize()}={names}")
    return "\n".join(lines) + "\n"


def block_conf(tree: Tree, *, slurm_nodes: Collection[str] | None = None, base: int = 0) -> str:
    """topology.conf for topology/block (Slurm 23.11 and later): NVLink domains, or leaves where there are none.

    Args:
        tree: the fabric.
        slurm_nodes: as for `tree_conf`; nodes of no block are left out, as Slurm allows.
        base: nodes that Slurm counts on in each block; 0 for as many as the smallest has.
    """
    blocks, sizes = _blocks(tree, slurm_nodes, base)
    lines = [_comment(tree, slurm_nodes)]
    lines += [f"BlockName={name} Nodes={fold(nodes)}" for name, nodes in blocks]
    lines.append(f"BlockSizes={','.join(map(str, sizes))}")
    return "\n".join(lines) + "\n"


def topology_yaml(
    tree: Tree, *, slurm_nodes: Collection[str] | None = None, base: int = 0, blocks: bool | None = None
) -> str:
    """topology.yaml (Slurm 25.05 and later): the tree as the default, and the blocks beside it.

    Args:
        tree: the fabric.
        slurm_nodes: as for `tree_conf`.
        base: as for `block_conf`.
        blocks: with a block topology too; None: where the fabric has NVLink domains.
    """
    out = [
        _comment(tree, slurm_nodes),
        "---",
        "- topology: tree",
        "  cluster_default: true",
        "  tree:",
        "    switches:",
    ]
    for switch, key, names in _switches(_units(tree, slurm_nodes)):
        out += [f"      - switch: {switch}", f"        {'children' if key == 'switches' else key}: {names}"]
    if tree.blocks if blocks is None else blocks:
        chosen, sizes = _blocks(tree, slurm_nodes, base)
        out += ["- topology: block", "  cluster_default: false", "  block:", "    block_sizes:"]
        out += [f"      - {size}" for size in sizes]
        out.append("    blocks:")
        for name, nodes in chosen:
            out += [f"      - block: {name}", f"        nodes: {fold(nodes)}"]
    return "\n".join(out) + "\n"


def _comment(tree: Tree, slurm_nodes: Collection[str] | None) -> str:
    nodes = len(tree.nodes) if slurm_nodes is None else len(set(slurm_nodes))
    return f"# Written by trainmaster: {nodes} nodes, {len(tree.leaves)} leaves, {len(tree.pods)} pods."


def _units(tree: Tree, slurm_nodes: Collection[str] | None) -> tuple[Unit, ...]:
    roots = tree.units()
    if slurm_nodes is not None:
        known = set(slurm_nodes)
        roots = tuple(kept for root in roots if (kept := _only(root, known)) is not None)
        missing = naturally(known - set(tree.nodes))
        if missing:
            taken = {*tree.leaves, *tree.pods}
            name = OUTSIDE
            while {name, f"{name}-leaf", f"{name}-pod"} & taken:
                name += "-1"
            outside = Unit(name=f"{name}-leaf", nodes=tuple(missing))
            for level in range(_depth(roots[0]) if roots else 1, 0, -1):
                outside = Unit(name=name if level == 1 else f"{name}-pod", children=(outside,))
            roots = (*roots, outside)
    if not roots:
        raise FabricError("the fabric has none of Slurm's nodes", hint="are hosts called otherwise? See --guids")
    return roots


def _only(unit: Unit, known: set[str]) -> Unit | None:
    """A unit without the nodes that Slurm does not know; None when nothing is left."""
    if not unit.children:
        nodes = tuple(name for name in unit.nodes if name in known)
        return Unit(name=unit.name, nodes=nodes) if nodes else None
    children = tuple(kept for child in unit.children if (kept := _only(child, known)) is not None)
    return Unit(name=unit.name, children=children) if children else None


def _depth(unit: Unit) -> int:
    return 1 + _depth(unit.children[0]) if unit.children else 0


def _switches(units: Sequence[Unit]) -> Iterator[tuple[str, str, str]]:
    """Name, "switches" or "nodes", and these folded: parents before children, all of one before the next."""
    for unit in units:
        if unit.children:
            yield unit.name, "switches", fold(child.name for child in unit.children)
            yield from _switches(unit.children)
        else:
            yield unit.name, "nodes", fold(unit.nodes)


def _blocks(
    tree: Tree, slurm_nodes: Collection[str] | None, base: int
) -> tuple[list[tuple[str, list[str]]], list[int]]:
    known = set(tree.nodes if slurm_nodes is None else slurm_nodes)
    names, of = (tree.blocks, tree.block_of) if tree.blocks else (tree.leaves, tree.leaf_of)
    members: list[list[str]] = [[] for _ in names]
    for node, number in zip(tree.nodes, of.tolist(), strict=True):
        if number >= 0 and node in known:
            members[number].append(node)
    blocks = [(name, nodes) for name, nodes in zip(names, members, strict=True) if nodes]
    if not blocks:
        raise FabricError("the fabric has no block of Slurm's nodes", hint="tree needs none: emit tree")
    smallest = min(len(nodes) for _, nodes in blocks)
    if base > smallest:
        short = next(name for name, nodes in blocks if len(nodes) < base)
        raise FabricError(f"the block {short} has fewer nodes than {base}", hint=f"take at most --base {smallest}")
    sizes = [base or smallest]
    # Above the base block, Slurm joins blocks by powers of two.
    while sizes[-1] * 2 <= sizes[0] * len(blocks):
        sizes.append(sizes[-1] * 2)
    return blocks, sizes
