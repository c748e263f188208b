"""Whether the clock is kept right, as the kernel knows it: adjtimex(2), without asking any daemon."""

from __future__ import annotations

from trainmaster.health import files
from trainmaster.health.check import Absent, Place, Source, SourceFault
from trainmaster.health.record import Any

# struct timex of <sys/timex.h> on 64-bit Linux: modes, offset, freq, maxerror, esterror, status … as longs.
_LONGS = 26
STA_UNSYNC = 0x40
TIME_ERROR = 5
FAKE = "/proc/sys/kernel/adjtimex"
"""Only below a fake root."""


def read(place: Place) -> Any:
    """{"state": adjtimex's answer, "status": bits, "maxerror_us", "esterror_us"}."""
    if place.root:
        # A clock cannot be faked below a folder; a lab's node says in a file what the kernel would answer.
        told = files.text(place.root + FAKE)
        if told is None:
            raise Absent("a fake root has no clock of its own")
        state, status, maxerror_us, esterror_us = (int(word) for word in told.split())
        return {"state": state, "status": status, "maxerror_us": maxerror_us, "esterror_us": esterror_us}
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    timex = (ctypes.c_long * _LONGS)()
    state = libc.adjtimex(timex)
    if state < 0:
        raise SourceFault(f"adjtimex: errno {ctypes.get_errno()}")
    return {"state": state, "status": timex[5] & 0xFFFFFFFF, "maxerror_us": timex[3], "esterror_us": timex[4]}


SOURCE = Source(name="time.kernel", about="adjtimex(2)", read=read)
