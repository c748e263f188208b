"""A file written by hand: one line a node, `NODE LEAF [POD [BLOCK]]`."""

import re
from collections import defaultdict
from itertools import pairwise

from trainmaster.errors import FabricError
from trainmaster.fabric.draft import build
from trainmaster.fabric.model import Block, Fabric, Hca, Switch
from trainmaster.fabric.sources.source import Source
from trainmaster.fabric.topology_conf import unfold

_LINE = re.compile(r"^[A-Za-z0-9_.,\[\]-]+([ \t]+[A-Za-z0-9_.-]+){1,3}$")


def recognise(head: str) -> bool:
    """Whether the first lines all have two to four words."""
    lines = [line.partition("#")[0].strip() for line in head.splitlines()[:20]]
    lines = [line for line in lines if line]
    return bool(lines) and all(_LINE.match(line) for line in lines)


def read(text: str) -> Fabric:
    """A fabric with a switch for each leaf and pod, and one above all. Raises FabricError at the first other line."""
    switches: dict[str, Switch] = {}
    hcas: dict[str, Hca] = {}
    cables: list[tuple[str, int, str, int, int, float]] = []
    blocks: dict[str, list[str]] = defaultdict(list)
    joined: set[tuple[str, str]] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        if not _LINE.match(content):
            raise FabricError(f"line {number} cannot be read: {content[:80]!r}", hint="write NODE LEAF [POD [BLOCK]]")
        nodes, leaf, *more = content.split()
        pod = more[0] if more else "pod01"
        try:
            names = unfold(nodes)
        except ValueError as error:
            raise FabricError(f"line {number} has no list of nodes: {error}") from None
        chain = [f"leaf {leaf}", f"pod {pod}", "top"]
        for guid, name in zip(chain, (leaf, pod, "fabric"), strict=True):
            switches.setdefault(guid, Switch(guid=guid, name=name))
        for low, high in pairwise(chain):
            if (low, high) not in joined:
                joined.add((low, high))
                cables.append((low, 0, high, 0, 0, 0.0))
        for name in names:
            hcas.setdefault(f"node {name}", Hca(guid=f"node {name}", host=name))
            cables.append((f"node {name}", 0, f"leaf {leaf}", 0, 0, 0.0))
        if len(more) > 1:
            blocks[more[1]] += names
    if not hcas:
        raise FabricError("no node is in this file", hint="write NODE LEAF [POD [BLOCK]], a line each")
    return build(
        source="file",
        switches=switches,
        hcas=hcas,
        cables=cables,
        blocks=tuple(Block(name=name, nodes=tuple(nodes)) for name, nodes in blocks.items()),
    )


PLAIN = Source(name="plain", help="NODE LEAF [POD [BLOCK]], a line each", recognise=recognise, read=read)
