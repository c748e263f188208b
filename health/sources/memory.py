"""Memory of the node and its error counters (EDAC)."""

from __future__ import annotations

from trainmaster.health import files
from trainmaster.health.check import Absent, Place, Source, SourceFault
from trainmaster.health.record import Any

EDAC = "/sys/devices/system/edac/mc"


def read(place: Place) -> Any:
    """{"meminfo": {key: KiB}, "nodes": {node: KiB}, "edac": {controller: {"ce_count", "ue_count"}}}."""
    meminfo = kib(files.text(place.root + "/proc/meminfo") or "")
    if not meminfo and place.root:
        raise Absent("the fake root has no /proc/meminfo")
    if "MemTotal" not in meminfo:
        raise SourceFault("/proc/meminfo shows no MemTotal")
    folder = place.root + "/sys/devices/system/node"
    nodes = {}
    for name in files.names(folder):
        if name.startswith("node") and name[4:].isdigit():
            nodes[name] = kib(files.text(f"{folder}/{name}/meminfo") or "").get("MemTotal")
    edac = {
        name: {count: files.number(f"{place.root}{EDAC}/{name}/{count}") for count in ("ce_count", "ue_count")}
        for name in files.names(place.root + EDAC)
        if name.startswith("mc") and name[2:].isdigit()
    }
    keys = ("MemTotal", "MemAvailable", "HugePages_Total", "HugePages_Free", "Hugepagesize")
    return {"meminfo": {key: meminfo[key] for key in keys if key in meminfo}, "nodes": nodes, "edac": edac}


def kib(text: str) -> dict[str, int]:
    """The numbers of /proc/meminfo, or of a NUMA node's, whose lines begin with `Node 0`. Pure."""
    found = {}
    for line in text.splitlines():
        head, separator, rest = line.partition(":")
        words = rest.split()
        if separator and words and words[0].isdecimal():
            found[head.split()[-1]] = int(words[0])
    return found


SOURCE = Source(name="mem.info", about="/proc/meminfo, /sys/devices/system/{node,edac}", read=read)
