"""Whether the clock is kept right, as the kernel knows it: adjtimex(2), without asking any daemon."""

from __future__ import annotations

from typing import Any

from trainmaster.health.check import Absent, Place, Source, SourceFault

# struct timex of <sys/timex.h> on 64-bit Linux: modes, offset, freq, maxerror, esterror, status … as longs.
_LONGS = 26
STA_UNSYNC = 0x40
TIME_ERROR = 5


def read(place: Place) -> Any:
    """{"state": adjtimex's answer, "status": bits, "maxerror_us", "esterror_us"}."""
    if place.root:
        raise Absent("a fake root has no clock of its own")
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    timex = (ctypes.c_long * _LONGS)()
    state = libc.adjtimex(timex)
    if state < 0:
        raise SourceFault(f"adjtimex: errno {ctypes.get_errno()}")
    return {"state": state, "status": timex[5] & 0xFFFFFFFF, "maxerror_us": timex[3], "esterror_us": timex[4]}


SOURCE = Source(name="time.kernel", about="adjtimex(2)", read=read)
