"""CPUs: how many run, how they are clocked, what tells the time."""

from __future__ import annotations

from trainmaster.health import files
from trainmaster.health.check import Place, Source
from trainmaster.health.record import Any

_CPU = "/sys/devices/system/cpu"


def read(place: Place) -> Any:
    """{"online", "present": how many, "governors": {name: how many}, "clocksource", "available"}."""
    root = place.root
    governors: dict[str, int] = {}
    for policy in files.names(f"{root}{_CPU}/cpufreq"):
        governor = files.text(f"{root}{_CPU}/cpufreq/{policy}/scaling_governor", 64)
        if governor:
            governors[governor] = governors.get(governor, 0) + 1
    clock = f"{root}/sys/devices/system/clocksource/clocksource0"
    return {
        "online": width(files.text(f"{root}{_CPU}/online") or ""),
        "present": width(files.text(f"{root}{_CPU}/present") or ""),
        "governors": governors,
        "clocksource": files.text(f"{clock}/current_clocksource", 64),
        "available": (files.text(f"{clock}/available_clocksource", 256) or "").split(),
    }


def width(text: str) -> int | None:
    """How many CPUs a list names; None for no list. Pure.

    >>> width("0-3,8,10-11")
    7
    """
    total = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            return None
        total += int(last) - int(first) + 1 if dash else 1
    return total


SOURCE = Source(name="cpu.info", about="/sys/devices/system/{cpu,clocksource}", read=read)
