"""The NVIDIA driver in the kernel and its libraries on disk."""

from __future__ import annotations

import os

from trainmaster.health import files
from trainmaster.health.check import Absent, Place, Source
from trainmaster.health.record import Any

_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/aarch64-linux-gnu", "/usr/local/nvidia/lib64")


def read(place: Place) -> Any:
    """{"module": version, "modules": {name: version}, "empty": [libraries of no bytes]}."""
    root = place.root
    modules = {
        name: files.text(f"{root}/sys/module/{name}/version", 64)
        for name in ("nvidia", "nvidia_uvm", "nvidia_peermem")
        if os.path.isdir(f"{root}/sys/module/{name}")
    }
    version = modules.get("nvidia") or _from_proc(files.text(root + "/proc/driver/nvidia/version"))
    if version is None and not place.profile.gpus:
        raise Absent("no NVIDIA driver is loaded, and no GPU is expected")
    empty = []
    for folder in _FOLDERS:
        for name in files.names(root + folder):
            if name.startswith(("libnvidia", "libcuda.so")) and _empty(f"{root}{folder}/{name}"):
                empty.append(f"{folder}/{name}")
    return {"module": version, "modules": modules, "empty": empty}


def _from_proc(text: str | None) -> str | None:
    """The version in `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build`."""
    for word in (text or "").split():
        if word.count(".") >= 1 and word.replace(".", "").isdigit():
            return word
    return None


def _empty(path: str) -> bool:
    try:
        return os.path.isfile(path) and os.stat(path).st_size == 0
    except OSError:
        return False


SOURCE = Source(name="gpu.module", about="/sys/module/nvidia*/version, sizes of libnvidia*.so", read=read)
