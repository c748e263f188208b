"""What is odd about a fabric: cables in wrong sockets, missing rails, nameless hosts, parts cut off. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from trainmaster.fabric.components import majority
from trainmaster.fabric.lint import Finding, Severity
from trainmaster.fabric.merge import Merged
from trainmaster.fabric.model import Kind
from trainmaster.fabric.topology_conf import fold

_SHOWN = 20


def inspect(merged: Merged, *, slurm_nodes: Collection[str] | None = None) -> tuple[Finding, ...]:
    """Everything odd, in words.

    Args:
        merged: a fabric and its tree.
        slurm_nodes: the nodes that Slurm has; None leaves out what compares with them.
    """
    found = [*_remarks(merged), *_nameless(merged), *_parts(merged), *_wrong_sockets(merged), *_missing_rails(merged)]
    if slurm_nodes is not None:
        found += _against_slurm(merged, slurm_nodes)
    return tuple(found)


def _warning(code: str, what: str, why: str, mend: str) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, line=0, what=what, why=why, mend=mend)


def _remarks(merged: Merged) -> Iterator[Finding]:
    for remark in merged.fabric.remarks:
        yield _warning("source", remark, "the source's text says so", "take the text again, and see what it is about")


def _nameless(merged: Merged) -> Iterator[Finding]:
    nameless = [hca.guid for hca in merged.fabric.hcas if hca.kind is Kind.HOST and not hca.host]
    if nameless:
        some = ", ".join(nameless[:5])
        yield _warning(
            "nameless", f"{len(nameless)} adapters name no host: {some}",
            "rdma-ndd has not set their NodeDescription, so whose they are is not known and they are left out",
            "start rdma-ndd on the hosts, or give --guids a list of HOST DEVICE GUID from /sys/class/infiniband",
        )  # fmt: skip


def _parts(merged: Merged) -> Iterator[Finding]:
    tree = merged.tree
    islands = int(tree.island_of_pod.max(initial=0)) + 1
    if islands > 1:
        pods = [fold(tree.pods[pod] for pod in np.flatnonzero(tree.island_of_pod == one)) for one in range(islands)]
        yield _warning(
            "cut", f"the fabric is in {islands} parts that nothing joins: {'; '.join(pods[:_SHOWN])}",
            "no job can span them, and the topology gets a root for each",
            "if they should be joined, a top switch or its cables are down: look at them before anything is emitted",
        )  # fmt: skip


def _wrong_sockets(merged: Merged) -> Iterator[Finding]:
    for stray in wrong_sockets(merged)[:_SHOWN]:
        yield _warning(
            "wrong-socket", f"{stray.host} {stray.device} {stray.where}",
            "traffic of this rail takes a longer way than its peers', and slows each collective",
            "change the cable; the node stays where most of its cables are meanwhile",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A cable of a node in a socket where it does not belong."""

    host: str
    device: str
    where: str
    """In words that continue "n02 mlx5_2 …"."""


def wrong_sockets(merged: Merged) -> tuple[Stray, ...]:
    """Cables into another unit, and into the switch of another rail."""
    fabric, layout, tree = merged.fabric, merged.layout, merged.tree
    number = np.array([tree.index[name] for name in layout.nodes], dtype=np.int64)
    own = tree.leaf_of[number[layout.on_node]] if len(number) else layout.on_node
    there = merged.leaf_of_switch[layout.on_switch]
    devices = {name: place for place, name in enumerate(dict.fromkeys(hca.device for hca in fabric.hcas))}
    device = np.array([devices[hca.device] for hca in fabric.hcas], dtype=np.int64)
    rail = majority(len(fabric.switches), layout.on_switch, device[layout.on_hca])
    # Only where a unit has a switch a rail is a cable on another's switch a mistake.
    switches_of = np.bincount(merged.leaf_of_switch[merged.leaf_of_switch >= 0], minlength=len(tree.leaves))
    wrong_unit = (there >= 0) & (there != own)
    wrong_rail = (there == own) & (switches_of[own] > 1) & (device[layout.on_hca] != rail[layout.on_switch])
    # A host whose devices have numbers of their own (mlx5_4 first) is another kind of host, not eight mistakes.
    node = layout.on_node
    cables = np.bincount(node, minlength=len(layout.nodes))
    wrong = np.bincount(node, weights=wrong_rail, minlength=len(layout.nodes))
    wrong_rail &= wrong[node] * 2 <= np.maximum(cables[node], 2)
    found = []
    for place in np.flatnonzero(wrong_unit | wrong_rail).tolist():
        hca, switch = fabric.hcas[layout.on_hca[place]], fabric.switches[layout.on_switch[place]]
        if wrong_unit[place]:
            where = f"is on {switch.name} of {tree.leaves[there[place]]}, and its node is in {tree.leaves[own[place]]}"
        else:
            usual = next(name for name, code in devices.items() if code == rail[layout.on_switch[place]])
            where = f"is on {switch.name}, where its peers have {usual}"
        found.append(Stray(host=hca.host, device=hca.device, where=where))
    return tuple(found)


def _missing_rails(merged: Merged) -> Iterator[Finding]:
    tree = merged.tree
    poor: dict[float, list[str]] = defaultdict(list)
    cables = np.bincount(merged.layout.on_node, minlength=len(merged.layout.nodes))
    for name, count in zip(merged.layout.nodes, cables.tolist(), strict=True):
        if tree.score[tree.index[name]] < 1:
            poor[count].append(name)
    usual = np.bincount(cables).argmax() if len(cables) else 0
    for count, names in sorted(poor.items()):
        if count < usual:
            yield _warning(
                "missing-rail", f"{fold(names)} has {int(count)} cables up where most nodes have {int(usual)}",
                "an adapter, a cable or a port is down; collectives run at the speed of the node with the fewest",
                "look at ibstat on the node; it keeps its place in the topology and comes last in placement",
            )  # fmt: skip


def _against_slurm(merged: Merged, slurm_nodes: Collection[str]) -> Iterator[Finding]:
    missing = set(slurm_nodes) - set(merged.tree.nodes)
    if missing:
        yield _warning(
            "not-in-fabric", f"Slurm has {fold(missing)}, and the fabric does not",
            "they are off, have no InfiniBand, or call themselves otherwise on the fabric",
            "emit puts them below a root of their own; give --guids if it is their names",
        )  # fmt: skip
