"""Collects what a source tells, cable by cable, and makes a `Fabric` of it. What is said twice counts once."""

from collections.abc import Iterable

import numpy as np

from trainmaster.fabric.model import Block, Fabric, Hca, Links, Switch

# More ports than this no switch has; a larger number is a misread one.
_PORT_MAX = 4095
REMARKS_MAX = 50


def build(
    *,
    source: str,
    switches: dict[str, Switch],
    hcas: dict[str, Hca],
    cables: Iterable[tuple[str, int, str, int, int, float]],
    taken_at: str = "",
    blocks: tuple[Block, ...] = (),
    remarks: Iterable[str] = (),
) -> Fabric:
    """A fabric of one plane.

    Args:
        source: what told it.
        switches: by GUID, in the order in which they shall stand.
        hcas: by GUID, likewise; none of them may be a switch too.
        cables: GUID and port of both ends, lanes, rate of a lane in Gbit/s. The same cable may come from both ends.
        taken_at: when, if known.
        blocks: nodes that share something faster.
        remarks: what was strange.
    """
    number = {guid: place for place, guid in enumerate([*switches, *hcas])}
    columns = list(zip(*cables, strict=True)) or [(), (), (), (), (), ()]
    a = np.fromiter((number[guid] for guid in columns[0]), dtype=np.int64, count=len(columns[0]))
    b = np.fromiter((number[guid] for guid in columns[2]), dtype=np.int64, count=len(columns[2]))
    a_port, b_port = (np.clip(np.array(columns[place], dtype=np.int64), 0, _PORT_MAX) for place in (1, 3))
    one, other = a * (_PORT_MAX + 1) + a_port, b * (_PORT_MAX + 1) + b_port
    low, high = np.minimum(one, other), np.maximum(one, other)
    # A cable has one entry, whichever of its ends spoke first.
    _, first = np.unique((low << 32) | high, return_index=True)
    first.sort()
    lanes, rates = np.array(columns[4], dtype=np.int32), np.array(columns[5], dtype=np.float64)
    told = list(remarks)
    ends = np.concatenate([low[first], high[first]])
    numbered = ends[ends % (_PORT_MAX + 1) > 0]
    values, counts = np.unique(numbered, return_counts=True)
    names = [*(switch.name for switch in switches.values()), *(hca.guid for hca in hcas.values())]
    for end in values[counts > 1]:
        owner, port = divmod(int(end), _PORT_MAX + 1)
        told.append(f"port {port} of {names[owner]} has more than one cable")
    return Fabric(
        source=source,
        taken_at=taken_at,
        switches=tuple(switches.values()),
        hcas=tuple(hcas.values()),
        links=Links.of(
            low[first] // (_PORT_MAX + 1),
            low[first] % (_PORT_MAX + 1),
            high[first] // (_PORT_MAX + 1),
            high[first] % (_PORT_MAX + 1),
            lanes=lanes[first],
            lane_gbps=rates[first],
        ),
        blocks=blocks,
        remarks=tuple(told[:REMARKS_MAX]),
    )
