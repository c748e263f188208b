"""Several looks at a fabric as one: subnets become planes of the same hosts, looks at one subnet are laid together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trainmaster.fabric.draft import build
from trainmaster.fabric.model import Fabric, Hca, Links, Switch

_LIDS_MAX = 0xBFFF
"""Unicast addresses of one subnet (InfiniBand Architecture 1, 4.1.1)."""


def join(fabrics: Sequence[Fabric]) -> Fabric:
    """One fabric of all; those that share a switch are the same plane, all others have planes of their own.

    An adapter with ports in two planes is one in each.
    """
    looks: list[Fabric] = []
    for fabric in fabrics:
        guids = {switch.guid for switch in fabric.switches}
        while True:
            same = next((look for look in looks if not guids.isdisjoint(s.guid for s in look.switches)), None)
            if same is None:
                break
            looks.remove(same)
            fabric = _overlaid(same, fabric)
            guids = {switch.guid for switch in fabric.switches}
        looks.append(fabric)
    remarks = [remark for look in looks for remark in look.remarks]
    remarks += [remark for look in looks if len(look.planes) == 1 and (remark := _addresses(look))]
    if len(looks) == 1:
        return replace(looks[0], remarks=tuple(dict.fromkeys(remarks)))
    switches: list[Switch] = []
    hcas: list[Hca] = []
    planes: list[str] = []
    for look in looks:
        base = len(planes)
        switches += [replace(switch, plane=base + switch.plane) for switch in look.switches]
        hcas += [replace(hca, plane=base + hca.plane) for hca in look.hcas]
        planes += [f"plane{base + number}" for number in range(len(look.planes))]
    links = Links.of([], [], [], [])
    switches_before = hcas_before = 0
    for look in looks:
        count = len(look.switches)
        a, b = (
            np.where(end < count, end + switches_before, end - count + len(switches) + hcas_before)
            for end in (look.links.a, look.links.b)
        )
        links = links.joined(replace(look.links, a=a, b=b))
        switches_before += count
        hcas_before += len(look.hcas)
    return Fabric(
        source=" + ".join(dict.fromkeys(look.source for look in looks)),
        taken_at=looks[0].taken_at,
        planes=tuple(planes),
        switches=tuple(switches),
        hcas=tuple(hcas),
        links=links,
        blocks=tuple(dict.fromkeys(block for look in looks for block in look.blocks)),
        remarks=tuple(remarks),
    )


def _overlaid(one: Fabric, other: Fabric) -> Fabric:
    """Two looks at the same subnet."""
    cables = []
    for look in (one, other):
        guids = [switch.guid for switch in look.switches] + [hca.guid for hca in look.hcas]
        links = look.links
        columns = (links.a, links.a_port, links.b, links.b_port, links.lanes, links.lane_gbps)
        for a, a_port, b, b_port, lanes, rate in zip(*(column.tolist() for column in columns), strict=True):
            cables.append((guids[a], a_port, guids[b], b_port, lanes, rate))
    switches = {switch.guid: switch for look in (one, other) for switch in look.switches}
    return build(
        source=one.source,
        taken_at=one.taken_at,
        switches=switches,
        hcas={hca.guid: hca for look in (one, other) for hca in look.hcas if hca.guid not in switches},
        cables=cables,
        blocks=(*one.blocks, *other.blocks),
        remarks=(*one.remarks, *other.remarks),
    )


def _addresses(look: Fabric) -> str:
    """A remark when a subnet is close to having no local addresses left."""
    needed = len(look.switches) + len(look.hcas)
    if needed <= 0.9 * _LIDS_MAX:
        return ""
    return (
        f"one subnet has {needed} switches and adapters, and there are {_LIDS_MAX} local addresses: split it in planes"
    )
