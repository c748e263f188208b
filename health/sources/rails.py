"""Where adapters and GPUs sit on the PCI bus, and so which GPU is nearest to which adapter."""

from __future__ import annotations

import os

from trainmaster.health import files
from trainmaster.health.check import Absent, Place, Source
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband, pci


def read(place: Place) -> Any:
    """{"adapters": {name: {"pci", "numa", "path"}}, "gpus": {address: the same}}; `path` is bridge by bridge."""
    folder = place.root + infiniband.FOLDER
    adapters = {}
    for name in files.names(folder):
        if os.path.exists(f"{folder}/{name}/device"):
            adapters[name] = _device(os.path.realpath(f"{folder}/{name}/device"))
    if not adapters and not place.profile.table("rails"):
        raise Absent("no InfiniBand adapter is here")
    gpus = {}
    for address in pci.nvidia_devices(place.root):
        gpus[address] = _device(os.path.realpath(f"{place.root}{pci.FOLDER}/{address}"))
    return {"adapters": adapters, "gpus": gpus}


def read_slots(place: Place) -> Any:
    """Of the adapters whose slot the profile names ({"rails": {name: {"pci": address}}}), those that are not in it."""
    slots = {name: rail.get("pci") for name, rail in place.profile.table("rails").items() if isinstance(rail, dict)}
    folder = place.root + pci.FOLDER
    return sorted(name for name, slot in slots.items() if isinstance(slot, str) and _is_empty(f"{folder}/{slot}"))


def _is_empty(folder: str) -> bool:
    """A card that fell off the bus may still be listed, and reads as ones."""
    return not os.path.isdir(folder) or pci.first_bytes(f"{folder}/config") == "ffffffff"


def _device(path: str) -> dict[str, Any]:
    numa = files.number(f"{path}/numa_node")
    # /sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0: the folders above a device are the bridges to it.
    bridges = path.partition("/devices/pci")[2].split("/")[:-1]
    return {"pci": os.path.basename(path), "numa": numa, "path": [bridge for bridge in bridges if bridge]}


def nearest(adapter: dict[str, Any], gpus: dict[str, dict[str, Any]]) -> list[str]:
    """The GPUs that share most bridges with an adapter; none when the bus tells no difference. Pure."""
    shared = {address: _common(adapter["path"], facts["path"]) for address, facts in gpus.items()}
    most = max(shared.values(), default=0)
    found = sorted(address for address, count in shared.items() if count == most)
    return found if most and len(found) < max(2, len(gpus)) else []


def _common(one: list[str], other: list[str]) -> int:
    count = 0
    for left, right in zip(one, other):  # noqa: B905 - strict is new in 3.10
        if left != right:
            break
        count += 1
    return count


SOURCE = Source(name="ib.bus", about="/sys/class/infiniband/*/device, /sys/bus/pci/devices", read=read, deadline_s=10.0)
SLOTS = Source(name="ib.slots", about="/sys/bus/pci/devices/<slot>/config", read=read_slots, deadline_s=10.0)
