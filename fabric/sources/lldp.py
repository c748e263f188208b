"""`lldpcli -f json show neighbors` of every host, for fabrics of Ethernet (RoCE): one JSON object, host -> its output.

Only what hosts and switches see beside them is told, so spines appear where switches run lldpd as well and their
outputs are in the object too.
"""

import json
from collections.abc import Iterator
from typing import Any

from trainmaster.errors import FabricError
from trainmaster.fabric.describe import read_description
from trainmaster.fabric.draft import build
from trainmaster.fabric.model import Fabric, Hca, Switch
from trainmaster.fabric.sources.source import Source


def recognise(head: str) -> bool:
    """Whether a JSON text speaks of LLDP."""
    return head.lstrip()[:1] == "{" and '"lldp"' in head


def read(text: str) -> Fabric:
    """The fabric that the hosts' neighbours make up. Raises FabricError when the text is no such object."""
    try:
        outputs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FabricError(f"these LLDP neighbours are no JSON: {error}", hint="is the file whole?") from None
    if not isinstance(outputs, dict) or "lldp" in outputs:
        raise FabricError(
            "these LLDP neighbours do not say whose they are",
            hint='write one object for all hosts: {"n01": <output of lldpcli -f json show neighbors>, …}',
        )
    seen = [
        (host.partition(".")[0], port, *_neighbour(entry))
        for host, output in outputs.items()
        for port, entry in _interfaces(output)
    ]
    seen = [entry for entry in seen if entry[2]]
    # Whoever is another's neighbour and has ports by name is a switch; a host's neighbours are never hosts here.
    switches = {name: Switch(guid=f"switch {name}", name=name) for _, _, name, _ in seen}
    hcas: dict[str, Hca] = {}
    numbers: dict[tuple[str, str], int] = {}
    count: dict[str, int] = {}
    cables = []

    def port_number(owner: str, name: str) -> int:
        if (owner, name) not in numbers:
            count[owner] = count.get(owner, 0) + 1
            numbers[owner, name] = count[owner]
        return numbers[owner, name]

    for host, port, name, far_port in seen:
        if host in switches:
            # A switch that lists a host says again what the host says; between switches both numbers are by name.
            own, own_number = f"switch {host}", port_number(host, port)
        else:
            own, own_number = f"{host} {port}", 1
            _, _, kind = read_description(host)
            hcas.setdefault(own, Hca(guid=own, host=host, device=port, kind=kind))
        cables.append((own, own_number, f"switch {name}", port_number(name, far_port), 0, 0.0))
    if not cables:
        raise FabricError(
            "no host of these has an LLDP neighbour", hint="lldpd runs on hosts and switches, and answers?"
        )
    return build(
        source="lldp",
        switches={switch.guid: switch for switch in switches.values()},
        hcas=hcas,
        cables=cables,
    )


def _interfaces(output: Any) -> Iterator[tuple[str, Any]]:
    """Interface name and entry, from the short and the long form of lldpcli's JSON."""
    lldp = _one(output.get("lldp")) if isinstance(output, dict) else None
    interfaces = lldp.get("interface") if isinstance(lldp, dict) else None
    for entry in interfaces if isinstance(interfaces, list) else [interfaces]:
        if not isinstance(entry, dict):
            continue
        if isinstance(entry.get("name"), str):
            yield entry["name"], entry
        else:
            yield from ((name, one) for name, one in entry.items() if isinstance(one, dict))


def _neighbour(entry: Any) -> tuple[str, str]:
    """The neighbour's name, or its chassis' id, and its port."""
    chassis, port = _one(entry.get("chassis")), _one(entry.get("port"))
    name = ""
    if isinstance(chassis, dict):
        if "id" in chassis or "name" in chassis:
            name = _value(chassis.get("name")) or _value(chassis.get("id"))
        elif chassis:
            # The short form has the name as the key.
            name = str(next(iter(chassis)))
    return name.partition(".")[0], _value(port.get("id")) if isinstance(port, dict) else ""


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _value(value: Any) -> str:
    value = _one(value)
    if isinstance(value, dict):
        value = value.get("value")
    return value if isinstance(value, str) else ""


LLDP = Source(
    name="lldp",
    help='{"HOST": <lldpcli -f json show neighbors>, …} for Ethernet fabrics',
    recognise=recognise,
    read=read,
)
