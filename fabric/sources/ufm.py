"""UFM's REST answers: /ufmRest/resources/links alone, or {"links": …, "systems": …} with /ufmRest/resources/systems."""

import json
import re
from typing import Any

from trainmaster.errors import FabricError
from trainmaster.fabric.describe import guid_text, read_description
from trainmaster.fabric.draft import build
from trainmaster.fabric.model import Fabric, Hca, Switch
from trainmaster.fabric.rates import lane_rate
from trainmaster.fabric.sources.source import Source

_PORT_AT_END = re.compile(r":(\d+|L?\d*/?U?\d+/\d+)$")


def recognise(head: str) -> bool:
    """Whether a JSON text has the fields of UFM's links."""
    return head.lstrip()[:1] in ("{", "[") and '"source_guid"' in head and '"destination_guid"' in head


def read(text: str) -> Fabric:
    """The fabric of one UFM. Raises FabricError when the text has no links of it."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FabricError(f"this answer of UFM is no JSON: {error}", hint="is the file whole?") from None
    links = answer.get("links") if isinstance(answer, dict) else answer
    systems = answer.get("systems") if isinstance(answer, dict) else None
    roles = {
        guid_text(str(one.get("guid", ""))): str(one.get("type") or one.get("role") or "").lower()
        for one in (systems if isinstance(systems, list) else [])
        if isinstance(one, dict)
    }
    switches: dict[str, Switch] = {}
    hcas: dict[str, Hca] = {}
    cables = []
    remarks: list[str] = []
    for number, link in enumerate(links if isinstance(links, list) else []):
        ends = [_end(link, side) for side in ("source", "destination")] if isinstance(link, dict) else []
        if len(ends) != 2 or not all(guid for guid, *_ in ends):
            remarks.append(f"link {number} lacks a GUID")
            continue
        for guid, _, name, label in ends:
            if guid in switches or guid in hcas:
                continue
            if _is_switch(roles.get(guid, ""), name, label):
                switches[guid] = Switch(guid=guid, name=_PORT_AT_END.sub("", name))
            else:
                host, device, kind = read_description(name)
                hcas[guid] = Hca(guid=guid, host=host, device=device or label.partition("/")[0], kind=kind)
        (a, a_port, *_), (b, b_port, *_) = ends
        lanes = re.search(r"(\d+)\s*x", str(link.get("width", "")))
        rate = lane_rate(str(link.get("speed") or link.get("active_speed") or ""))
        cables.append((a, a_port, b, b_port, int(lanes[1]) if lanes and len(lanes[1]) < 4 else 0, rate))
    if not switches:
        raise FabricError("no link of this answer has a switch", hint="save GET /ufmRest/resources/links as it comes")
    return build(source="ufm", switches=switches, hcas=hcas, cables=cables, remarks=remarks)


def _end(link: dict[str, Any], side: str) -> tuple[str, int, str, str]:
    """GUID, port, description and label (`HCA-1/1` on a host, `7` on a switch) of an end."""
    port = str(link.get(f"{side}_port", ""))
    return (
        guid_text(str(link.get(f"{side}_guid", ""))),
        int(port) if port.isdecimal() and len(port) < 6 else 0,
        str(link.get(f"{side}_port_node_description", "")),
        str(link.get(f"{side}_port_dname", "")),
    )


def _is_switch(role: str, name: str, label: str) -> bool:
    """By UFM's own word where there is one; else a switch's description ends in its port, and a host's label in HCA."""
    if role:
        return "switch" in role or role in ("tor", "core", "spine", "leaf", "aggregation")
    return not label.upper().startswith("HCA") and bool(_PORT_AT_END.search(name))


UFM = Source(name="ufm", help="GET /ufmRest/resources/links of a UFM, as it comes", recognise=recognise, read=read)
