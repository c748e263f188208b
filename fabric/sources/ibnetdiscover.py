"""`ibnetdiscover`: one paragraph a switch and an adapter, each with a line a cable.

Every cable of a host is also told by its switch, so the paragraphs of adapters, most of the text, are only read when a
switch's paragraph is missing. Written for speed: a fabric of 32,768 adapters is 357,000 lines.
"""

import gc
import re
from functools import cache, lru_cache

from trainmaster.errors import FabricError
from trainmaster.fabric.describe import read_description
from trainmaster.fabric.draft import build
from trainmaster.fabric.model import Fabric, Hca, Kind, Switch
from trainmaster.fabric.rates import lane_rate
from trainmaster.fabric.sources.source import Source

# No number is longer than the field of InfiniBand that it stands for: a damaged text may hold any number of digits.
_HEAD = re.compile(r'^Switch\s+(\d{1,4})\s+"S-([0-9a-fA-F]+)"\s*#\s*"(.*)"(.*)$', re.MULTILINE)
# Port, kind of peer, its GUID, its port, its description, its lid, width and speed. `[ext 5]` is a chassis' name.
_CABLE = re.compile(
    r'^\[(\d{1,3})\](?:\[ext \S+\])?\s+"([SHR])-([0-9a-fA-F]+)"\[(\d{1,3})\](?:\[ext \S+\])?(?:\([0-9a-fA-F]+\))?'
    r'\s*#\s*"(.*)" lid (\d{1,5}) (\S*)',
    re.MULTILINE,
)
_ADAPTER = re.compile(r'^Ca\s+(\d+)\s+"H-([0-9a-fA-F]+)"\s*#\s*"(.*)"', re.MULTILINE)
_OWN_CABLE = re.compile(
    r'^\[(\d{1,3})\](?:\([0-9a-fA-F]+\))?\s+"S-([0-9a-fA-F]+)"\[(\d{1,3})\]\s*#\s*lid (\d{1,5}) lmc \d+ "(.*)"'
    r" lid (\d{1,5}) (\S*)",
    re.MULTILINE,
)
_DATE = re.compile(r"^# Topology file: generated on (.+)$", re.MULTILINE)
_LID = re.compile(r"lid (\d{1,5})\b")


def recognise(head: str) -> bool:
    """Whether a text begins as ibnetdiscover's does."""
    return bool(
        re.search(r'^Switch\s+\d+\s+"S-|^Ca\s+\d+\s+"H-|^(switchguid|caguid)=0x|^# Topology file', head, re.MULTILINE)
    )


def read(text: str) -> Fabric:
    """The fabric of one subnet. Raises FabricError when no switch is in it."""
    # The collector would look at hundreds of thousands of new tuples again and again, a quarter of the time; none is
    # garbage before the end.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _read(text)
    finally:
        if collecting:
            gc.enable()


def _read(text: str) -> Fabric:
    switches: dict[str, Switch] = {}
    hcas: dict[str, Hca] = {}
    cables: list[tuple[str, int, str, int, int, float]] = []
    remarks: list[str] = []
    heads = list(_HEAD.finditer(text))
    for place, head in enumerate(heads):
        ports, guid, name, rest = head.groups()
        own = _guid(guid)
        if own in switches and switches[own].ports:
            remarks.append(f"two switches have the GUID {own}: {switches[own].name!r} and {name!r}")
        lid = _LID.search(rest)
        switches[own] = Switch(guid=own, name=name, ports=int(ports), lid=int(lid[1]) if lid else 0)
        end = heads[place + 1].start() if place + 1 < len(heads) else len(text)
        for port, kind, far, far_port, description, far_lid, rate in _CABLE.findall(text, head.end(), end):
            lanes, lane_gbps = _rate(rate)
            peer = _guid(far)
            cables.append((own, int(port), peer, int(far_port), lanes, lane_gbps))
            if kind == "S":
                if peer not in switches:
                    # A switch of which only its neighbours tell; it gets its own paragraph later, or never.
                    switches[peer] = Switch(guid=peer, name=description)
            elif peer not in hcas:
                hcas[peer] = _adapter(peer, description, int(far_lid), router=kind == "R")
            else:
                _compare(hcas[peer], description, remarks)
    if text.count("\nCa\t") + text.count("\nCa ") > len(hcas):
        _read_adapters(text, switches, hcas, cables)
    if not switches:
        raise FabricError(
            "no switch is in this output of ibnetdiscover",
            hint="it is cut off, or the adapter it was run on has no link: ibstat shows State and Physical state",
        )
    lost = [switch.name or switch.guid for switch in switches.values() if not switch.ports]
    if lost:
        some = ", ".join(lost[:5])
        remarks.append(f"{len(lost)} switches have no paragraph of their own ({some}): the text may be cut off")
    for both in hcas.keys() & switches.keys():
        remarks.append(f"{both} is the GUID of a switch and of an adapter; the adapter is left out")
        del hcas[both]
    date = _DATE.search(text, 0, 4096)
    return build(
        source="ibnetdiscover",
        taken_at=date[1].strip() if date else "",
        switches=switches,
        hcas=hcas,
        cables=cables,
        remarks=remarks,
    )


def _read_adapters(
    text: str,
    switches: dict[str, Switch],
    hcas: dict[str, Hca],
    cables: list[tuple[str, int, str, int, int, float]],
) -> None:
    """Add those adapters that only their own paragraphs tell of."""
    heads = list(_ADAPTER.finditer(text))
    for place, head in enumerate(heads):
        guid = _guid(head[2])
        if guid in hcas or guid in switches:
            continue
        end = heads[place + 1].start() if place + 1 < len(heads) else len(text)
        for port, far, far_port, lid, name, _, rate in _OWN_CABLE.findall(text, head.end(), end):
            lanes, lane_gbps = _rate(rate)
            peer = _guid(far)
            switches.setdefault(peer, Switch(guid=peer, name=name))
            hcas.setdefault(guid, _adapter(guid, head[3], int(lid), router=False))
            cables.append((guid, int(port), peer, int(far_port), lanes, lane_gbps))


def _adapter(guid: str, description: str, lid: int, *, router: bool) -> Hca:
    host, device, kind = read_description(description)
    return Hca(guid=guid, host=host, device=device, kind=Kind.SERVICE if router else kind, lid=lid)


def _compare(hca: Hca, description: str, remarks: list[str]) -> None:
    host, _, _ = read_description(description)
    if host != hca.host:
        remarks.append(f"two adapters have the GUID {hca.guid}: one of {hca.host or '?'} and one of {host or '?'}")


@lru_cache(maxsize=1 << 18)
def _guid(digits: str) -> str:
    return "0x" + digits.lower().zfill(16)


@cache
def _rate(text: str) -> tuple[int, float]:
    """Lanes and a lane's Gbit/s from "4xHDR"; 0 for what is not told."""
    lanes, _, speed = text.partition("x")
    return (int(lanes), lane_rate(speed)) if lanes.isdecimal() and len(lanes) < 4 else (0, 0.0)


IBNETDISCOVER = Source(
    name="ibnetdiscover",
    help="ibnetdiscover > FILE, as root on one node of each subnet",
    recognise=recognise,
    read=read,
)
