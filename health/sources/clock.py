"""Whether the clock is kept right, as the kernel knows it: adjtimex(2), without asking any daemon."""

from __future__ import annotations

import time

from trainmaster.health import files
from trainmaster.health.check import Absent, Place, Source, SourceFault
from trainmaster.health.record import Any

# struct timex of <sys/timex.h> on 64-bit Linux: modes, offset, freq, maxerror, esterror, status … as longs.
_LONGS = 26
STA_UNSYNC = 0x40
TIME_ERROR = 5
AGAIN_S = 600.0
"""How long a clock that was well is believed: to ask costs as much as a walk through /proc, as it imports ctypes."""
FAKE = "/proc/sys/kernel/adjtimex"
"""Only below a fake root."""


def read(place: Place) -> Any:
    """{"state": adjtimex's answer, "status": bits, "maxerror_us", "esterror_us"}; of the kernel, "uptime_s" too."""
    if place.root:
        # A clock cannot be faked below a folder; a lab's node says in a file what the kernel would answer.
        told = files.text(place.root + FAKE)
        if told is None:
            raise Absent("a fake root has no clock of its own")
        state, status, maxerror_us, esterror_us = (int(word) for word in told.split())
        return {"state": state, "status": status, "maxerror_us": maxerror_us, "esterror_us": esterror_us}
    uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    if well(place.memory) and 0 <= uptime_s - place.memory["uptime_s"] < AGAIN_S:
        return place.memory
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    timex = (ctypes.c_long * _LONGS)()
    state = libc.adjtimex(timex)
    if state < 0:
        raise SourceFault(f"adjtimex: errno {ctypes.get_errno()}")
    said = {"state": state, "status": timex[5] & 0xFFFFFFFF, "maxerror_us": timex[3], "esterror_us": timex[4]}
    return {**said, "uptime_s": uptime_s}


def synchronised(value: Any) -> bool:
    """Whether the kernel's clock follows another."""
    return value["state"] != TIME_ERROR and not value["status"] & STA_UNSYNC


def well(memory: Any) -> bool:
    """Whether an earlier pass of this boot has asked, and all was well. Anything may stand in a state file."""
    numbers = isinstance(memory, dict) and all(
        isinstance(memory.get(name), (int, float)) for name in ("state", "status", "uptime_s")
    )
    return numbers and synchronised(memory)


def remember(value: Any) -> Any:
    """What the kernel said; of a fake root nothing, which costs nothing to ask."""
    return value if "uptime_s" in value else None


SOURCE = Source(name="time.kernel", about="adjtimex(2)", read=read, remember=remember)
