"""`ibnetdiscover -p`: one line a port, both ends of its cable in it. Adapters are told by the GUID of their port."""

import re

from trainmaster.errors import FabricError
from trainmaster.fabric.describe import read_description
from trainmaster.fabric.draft import build
from trainmaster.fabric.model import Fabric, Hca, Kind, Switch
from trainmaster.fabric.rates import lane_rate
from trainmaster.fabric.sources.source import Source

_LINE = re.compile(
    r"^(SW|CA|RT)\s+(\d{1,5})\s+(\d{1,3})\s+0x([0-9a-fA-F]+)\s+(\d{1,3})x\s+(\S+)\s+-\s+"
    r"(SW|CA|RT)\s+(\d{1,5})\s+(\d{1,3})\s+0x([0-9a-fA-F]+)\s+\(\s*'(.*)'\s+-\s+'(.*)'\s*\)",
    re.MULTILINE,
)


def recognise(head: str) -> bool:
    """Whether a text begins as that of `ibnetdiscover -p` does."""
    return bool(re.search(r"^(SW|CA|RT)\s+\d+\s+\d+\s+0x[0-9a-fA-F]{16}\s+\d+x\s", head, re.MULTILINE))


def read(text: str) -> Fabric:
    """The fabric of one subnet. Raises FabricError when no switch is in it."""
    switches: dict[str, Switch] = {}
    hcas: dict[str, Hca] = {}
    cables = []
    highest: dict[str, int] = {}
    for kind, lid, port, guid, lanes, rate, far_kind, far_lid, far_port, far, name, far_name in _LINE.findall(text):
        ends = []
        for what, own_lid, own_port, digits, description in (
            (kind, lid, port, guid, name),
            (far_kind, far_lid, far_port, far, far_name),
        ):
            own = "0x" + digits.lower().zfill(16)
            ends += [own, int(own_port)]
            if what == "SW":
                highest[own] = max(highest.get(own, 0), int(own_port))
                switches.setdefault(own, Switch(guid=own, name=description, lid=int(own_lid)))
            elif own not in hcas:
                host, device, kind_of = read_description(description)
                kind_of = Kind.SERVICE if what == "RT" else kind_of
                hcas[own] = Hca(guid=own, host=host, device=device, kind=kind_of, lid=int(own_lid))
        cables.append((ends[0], ends[1], ends[2], ends[3], int(lanes), lane_rate(rate)))
    if not switches:
        raise FabricError("no cable of a switch is in this output of ibnetdiscover -p", hint="it may be cut off")
    both = hcas.keys() & switches.keys()
    for guid in both:
        del hcas[guid]
    counted = {
        guid: Switch(guid=guid, name=one.name, lid=one.lid, ports=highest[guid]) for guid, one in switches.items()
    }
    return build(
        source="ibnetdiscover -p",
        switches=counted,
        hcas=hcas,
        cables=cables,
        remarks=[f"{guid} is the GUID of a switch and of an adapter; the adapter is left out" for guid in sorted(both)],
    )


IBNETDISCOVER_PORTS = Source(
    name="ibnetdiscover-p",
    help="ibnetdiscover -p > FILE, as root on one node of each subnet",
    recognise=recognise,
    read=read,
)
