"""NVIDIA's devices on the PCI bus, from /sys/bus/pci/devices, whether a driver sees them or not."""

from __future__ import annotations

import os

from trainmaster.health import files
from trainmaster.health.check import Place, Source
from trainmaster.health.record import Any

FOLDER = "/sys/bus/pci/devices"
NVIDIA = "0x10de"
_FILES = ("class", "current_link_speed", "max_link_speed", "current_link_width", "max_link_width", "numa_node")
_GPU_CLASSES = ("0x0302", "0x0300")


def nvidia_devices(root: str) -> list[str]:
    """Addresses of the NVIDIA GPUs that the kernel knows, but for those that were handed on to virtual machines."""
    folder = root + FOLDER
    found = [name for name in files.names(folder) if files.text(f"{folder}/{name}/vendor", 64) == NVIDIA]
    gpus = [name for name in found if (files.text(f"{folder}/{name}/class", 64) or "").startswith(_GPU_CLASSES)]
    return [name for name in gpus if os.path.basename(os.path.realpath(f"{folder}/{name}/driver")) != "vfio-pci"]


def read(place: Place) -> Any:
    """{"gpus": {address: {class, current_link_speed, …, config}}}; `config` is the first four bytes, in hex."""
    found: dict[str, dict[str, str | None]] = {}
    for address in nvidia_devices(place.root):
        folder = f"{place.root}{FOLDER}/{address}"
        found[address] = {name: files.text(f"{folder}/{name}", 64) for name in _FILES}
        found[address]["config"] = first_bytes(f"{folder}/config")
    return {"gpus": found}


def first_bytes(path: str) -> str | None:
    """Of a device's configuration space, in hex: its vendor and its kind, or ones when nothing answers."""
    try:
        with open(path, "rb") as stream:
            return stream.read(4).hex()
    except OSError:
        return None


SOURCE = Source(name="gpu.pci", about="/sys/bus/pci/devices/*/{vendor,class,config,…}", read=read)
