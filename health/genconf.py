"""A profile from the node that it runs on: what is here now is what should be here. Run it on a node that is well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainmaster.health import runner
from trainmaster.health.check import Place, Source
from trainmaster.health.record import Any
from trainmaster.health.sources import cpu, driver, image, infiniband, memory, mounts, neighbours, pci, rails

SOURCES: tuple[Source, ...] = (
    pci.SOURCE, driver.SOURCE, infiniband.SOURCE, memory.SOURCE, mounts.SOURCE, cpu.SOURCE,
    image.SOURCE, rails.SOURCE,
    Source(name="ib.neighbours", about="", ask=neighbours.find, deadline_s=30.0),
)  # fmt: skip
# Mounts of the kernel itself, and of containers and sessions, that come and go.
_NO_DISKS = frozenset(
    (
        *("proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "ramfs", "cgroup", "cgroup2", "mqueue", "hugetlbfs", "nsfs"),
        *("debugfs", "tracefs", "securityfs", "pstore", "bpf", "configfs", "fusectl", "binfmt_misc", "efivarfs"),
        *("autofs", "overlay", "squashfs", "rpc_pipefs"),
    )
)


def from_node(root: str = "") -> dict[str, Any]:
    """Look at the node and describe it; what cannot be read is left out."""
    readings = runner.read_all(SOURCES, lambda source: Place(root))
    return describe({name: reading.value for name, reading in readings.items() if reading.state == "ok"})


def describe(values: Mapping[str, Any]) -> dict[str, Any]:
    """A profile from the sources' values. Pure."""
    found: dict[str, Any] = {}
    gpus = values.get(pci.SOURCE.name, {}).get("gpus")
    if gpus:
        found["gpus"] = len(gpus)
        module = values.get(driver.SOURCE.name, {}).get("module")
        if module:
            found["gpu"] = {"driver": module}
    ports = {
        f"{device}/{number}": {"rate": port["rate"], "link_layer": port["link_layer"]}
        for device, facts in sorted(values.get(infiniband.SOURCE.name, {}).items())
        for number, port in facts["ports"].items()
        if "ACTIVE" in str(port["state"])
    }
    if ports:
        found["ib"] = ports
    bus = values.get(rails.SOURCE.name, {"adapters": {}, "gpus": {}})
    places: dict[str, dict[str, Any]] = {}
    for name, facts in sorted(bus["adapters"].items()):
        near = rails.nearest(facts, bus["gpus"])
        places[name] = {"pci": facts["pci"], "numa": facts["numa"], **({"gpu": near[0]} if len(near) == 1 else {})}
    if places:
        found["rails"] = places
    switches = {
        name: facts["guid"]
        for name, facts in sorted(values.get(neighbours.SOURCE.name, {}).items())
        if facts["type"] == "Switch"
    }
    if switches:
        found["leaves"] = switches
    if values.get(image.SOURCE.name):
        found["host"] = values[image.SOURCE.name]
    total = values.get(memory.SOURCE.name, {}).get("meminfo", {}).get("MemTotal")
    if total:
        # To the GiB: firmware leaves the kernel a little more or less of it on each node.
        found["memory_mib"] = total // (1 << 20) * 1024
    kept = {
        path: {"type": facts["type"], "options": ["rw" if "ro" not in facts["options"] else "ro"]}
        for path, facts in sorted(values.get(mounts.SOURCE.name, {}).items())
        if facts["type"] not in _NO_DISKS and not path.startswith(("/run/", "/snap/", "/var/lib/docker/"))
    }
    if kept:
        found["mounts"] = kept
    cpus = values.get(cpu.SOURCE.name, {})
    if cpus.get("online"):
        found["cpus"] = cpus["online"]
    if cpus.get("clocksource"):
        found["clocksource"] = cpus["clocksource"]
    if len(cpus.get("governors", {})) == 1:
        found["governor"] = next(iter(cpus["governors"]))
    return found


def majority(profiles: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """What most of several nodes have, and who differs in what: (number of the profile, key). Pure.

    A value counts as a whole, except in tables, whose entries are counted one by one.

    >>> majority([{"gpus": 8}, {"gpus": 8}, {"gpus": 7}])
    ({'gpus': 8}, [(2, 'gpus')])
    """
    flat = [_flat(profile) for profile in profiles]
    chosen: dict[tuple[str, ...], Any] = {}
    for key in sorted({key for profile in flat for key in profile}):
        counts: dict[str, int] = {}
        for profile in flat:
            text = repr(profile.get(key, _NOTHING))
            counts[text] = counts.get(text, 0) + 1
        most = max(counts.values())
        usual = next(p.get(key, _NOTHING) for p in flat if counts[repr(p.get(key, _NOTHING))] == most)
        if usual is not _NOTHING:
            chosen[key] = usual
    odd = [
        (number, ".".join(key))
        for number, profile in enumerate(flat)
        for key in sorted(set(profile) | set(chosen))
        if profile.get(key, _NOTHING) != chosen.get(key, _NOTHING)
    ]
    found: dict[str, Any] = {}
    for key, value in chosen.items():
        if len(key) == 1:
            found[key[0]] = value
        else:
            found.setdefault(key[0], {})[key[1]] = value
    return found, odd


_NOTHING = object()


def _flat(profile: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in profile.items():
        if isinstance(value, dict):
            found.update({(key, str(inner)): entry for inner, entry in value.items()})
        else:
            found[(key,)] = value
    return found
