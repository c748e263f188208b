"""The kernel's log since the last pass: /dev/kmsg with a cursor. Each event is seen once, whatever logrotate does.

A gap in the numbers means that the kernel's ring was overrun between two passes, and is told.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from trainmaster.health.check import Absent, Place, Source
from trainmaster.health.record import Any

PATH = "/dev/kmsg"
ALIKE_MAX = 20
"""Records that begin alike are kept up to this many: a storm of one error must not drown the others, or fill a pipe."""
ALIKE_CHARACTERS = 60
"""Up to the first comma, as in "NVRM: Xid (PCI:0000:0f:00): 119, pid=…"."""
RECORDS_MAX = 4000
TEXT_MAX = 400
# What any check asks about; the rest of the log stays where it is. Patterns stand as text here and in the checks: they
# are compiled when there is something to look at, and mostly there is nothing.
OF_INTEREST = (
    r"NVRM|nvidia-nvswitch|mlx5|Hardware Error|I/O error|Remounting filesystem|EXT4-fs error|XFS .*[Cc]orruption"
    r"|nvme nvme.*(timeout|controller is down|failure)|md/raid|not responding, still trying|lock reclaim"
)


def read(place: Place) -> Any:
    """{"records": [[number, microseconds, priority, text], …], "last": number, "lost": how many}."""
    memory = place.memory if isinstance(place.memory, dict) else {}
    cursor = memory.get("last")
    if not isinstance(cursor, int):
        cursor = -1
    try:
        descriptor = os.open(place.root + PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise Absent("there is no /dev/kmsg") from None
        raise
    try:
        newest = [0]
        found = collect(_lines(descriptor, cursor, newest), cursor)
        if newest[0] < cursor:
            # No log of this boot is shorter than it was: the cursor is wrong, and with it nothing would be seen again.
            os.lseek(descriptor, 0, os.SEEK_SET)
            found = collect(_lines(descriptor, -1, newest), -1)
        return found
    finally:
        os.close(descriptor)


def _lines(descriptor: int, cursor: int, newest: list[int]) -> Any:
    """Records of a log, or of a file that holds such lines; `newest` is given the number of the last one."""
    rest = b""
    # The kernel gives one record a read and cannot be asked for the new ones only; a ring holds thousands of old ones.
    whole_records = stat.S_ISCHR(os.fstat(descriptor).st_mode)
    while True:
        try:
            data = os.read(descriptor, 8192)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno == errno.EPIPE:
                continue  # overrun while we read; the next read goes on with the oldest record there is
            raise
        if not data:
            break
        if whole_records:
            newest[0] = _number(data)
            if newest[0] <= cursor:
                continue
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            newest[0] = max(newest[0], _number(line))
            yield line
    if rest:
        yield rest


def _number(record: bytes) -> int:
    """A record's number; one beyond all for what has none, so that it is looked at."""
    fields = record.split(b",", 2)
    return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() and len(fields[1]) < 20 else 1 << 63


def collect(lines: Any, cursor: int) -> dict[str, Any]:
    """The records after `cursor` that are of interest. Pure."""
    records: list[list[Any]] = []
    alike: dict[str, int] = {}
    last, lost = cursor, 0
    for line in lines:
        if _number(line) <= last:
            continue
        record = parse(line.decode(errors="replace"))
        if record is None or record[0] <= last:
            continue
        if last >= 0 and record[0] > last + 1:
            lost += record[0] - last - 1
        last = record[0]
        if not re.search(OF_INTEREST, record[3]) or len(records) >= RECORDS_MAX:
            continue
        begin = record[3].partition(",")[0][:ALIKE_CHARACTERS]
        alike[begin] = alike.get(begin, 0) + 1
        if alike[begin] <= ALIKE_MAX:
            records.append([*record[:3], record[3][:TEXT_MAX]])
    return {"records": records, "last": last, "lost": lost}


def parse(line: str) -> tuple[int, int, int, str] | None:
    """Number, microseconds since boot, priority, text; None for the continuation lines between records.

    >>> parse("4,361,226868903,c;NVRM: Xid (PCI:0000:00:06): 43, pid=4420, name=python3")
    (361, 226868903, 4, 'NVRM: Xid (PCI:0000:00:06): 43, pid=4420, name=python3')
    """
    head, separator, text = line.partition(";")
    fields = head.split(",")
    if not separator or len(fields) < 3 or line.startswith(" "):
        return None
    try:
        return int(fields[1]), int(fields[2]), int(fields[0]), text
    except ValueError:
        return None


def remember(value: Any) -> Any:
    """How far it was read."""
    return {"last": value["last"]}


SOURCE = Source(name="node.kmsg", about="/dev/kmsg after the last record seen", read=read, remember=remember)
