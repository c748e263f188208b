"""`scontrol show topology` and topology.conf: what Slurm believes, as if it were a fabric."""

import re

from trainmaster.errors import FabricError
from trainmaster.fabric.draft import build
from trainmaster.fabric.model import Block, Fabric, Hca, Switch
from trainmaster.fabric.sources.source import Source
from trainmaster.fabric.topology_conf import read_config


def recognise(head: str) -> bool:
    """Whether there are SwitchName= or BlockName= lines."""
    return bool(re.search(r"^\s*(SwitchName|BlockName)=\S", head, re.MULTILINE | re.IGNORECASE))


def read(text: str) -> Fabric:
    """Each switch a switch, each node an adapter on its leaf. Raises FabricError when there is neither."""
    config = read_config(text)
    switches = {
        f"switch {entry.name}": Switch(guid=f"switch {entry.name}", name=entry.name) for entry in config.switches
    }
    hcas: dict[str, Hca] = {}
    cables = []
    for entry in config.switches:
        above = f"switch {entry.name}"
        for child in entry.switches:
            if f"switch {child}" in switches and child != entry.name:
                cables.append((above, 0, f"switch {child}", 0, 0, 0.0))
        for name in () if entry.switches else entry.nodes:
            hcas.setdefault(f"node {name}", Hca(guid=f"node {name}", host=name))
            cables.append((f"node {name}", 0, above, 0, 0, 0.0))
    blocks = tuple(Block(name=entry.name, nodes=entry.nodes) for entry in config.blocks)
    for block in () if switches else blocks:
        # Without a tree the blocks are what there is.
        guid = f"switch {block.name}"
        switches[guid] = Switch(guid=guid, name=block.name)
        switches["switch of blocks"] = Switch(guid="switch of blocks", name="blocks")
        cables.append((guid, 0, "switch of blocks", 0, 0, 0.0))
        for name in block.nodes:
            hcas.setdefault(f"node {name}", Hca(guid=f"node {name}", host=name))
            cables.append((f"node {name}", 0, guid, 0, 0, 0.0))
    if not hcas:
        raise FabricError("no switch of this topology has nodes", hint="is it the output of `scontrol show topology`?")
    return build(
        source="slurm",
        switches=switches,
        hcas=hcas,
        cables=cables,
        blocks=blocks,
        remarks=[f"line {line}: {words}" for line, words in config.faults],
    )


SLURM_TOPOLOGY = Source(
    name="slurm", help="scontrol show topology > FILE, or topology.conf itself", recognise=recognise, read=read
)
