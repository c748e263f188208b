"""Finds TCP ports for a lab and holds them until its daemons take them."""

import errno
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

from trainmaster.errors import LabError

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _HIGHEST = 10_000, 64_999


def candidates(ephemeral: tuple[int, int], taken: Collection[int], start: int) -> Iterable[int]:
    """All ports that a lab may use, from `start` on and around: never one that the kernel gives to clients.

    >>> list(candidates((10_002, 64_998), {10_001}, start=64_999))
    [64999, 10000]
    """
    allowed = [p for p in range(_LOWEST, _HIGHEST + 1) if not ephemeral[0] <= p <= ephemeral[1] and p not in taken]
    turn = sum(port < start for port in allowed)
    return allowed[turn:] + allowed[:turn]


def ephemeral_range() -> tuple[int, int]:
    """The kernel's range of client ports, both ends included."""
    low, high = _EPHEMERAL.read_text().split()
    return int(low), int(high)


class HeldPorts:
    """Bound sockets that keep ports from other labs that start at the same moment; let go right before use."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def hold(self, port: int) -> bool:
        """Try to take one port on all addresses; False when something has it."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # Without SO_REUSEADDR a port that still has old connections counts as taken too.
            holder.bind(("0.0.0.0", port))
        except OSError as error:
            holder.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        self._sockets[port] = holder
        return True

    def release(self, port: int) -> None:
        """Free a port for the daemon that is about to listen on it."""
        holder = self._sockets.pop(port, None)
        if holder is not None:
            holder.close()

    def release_all(self) -> None:
        """Free whatever is still held."""
        for port in tuple(self._sockets):
            self.release(port)


def hold_free(count: int, *, taken: Collection[int], start: int, held: HeldPorts) -> tuple[int, ...]:
    """Hold `count` free ports and return them in ascending turn from `start`.

    Args:
        count: how many.
        taken: ports that other labs own although nothing may listen on them now (a node that is down).
        start: where to begin to look, different for each lab so that they seldom meet.
        held: keeps them.
    """
    found: list[int] = []
    for port in candidates(ephemeral_range(), taken, start):
        if len(found) == count:
            break
        if held.hold(port):
            found.append(port)
    if len(found) < count:
        held.release_all()
        raise LabError(
            f"the lab needs {count} TCP ports and only {len(found)} are free between {_LOWEST} and {_HIGHEST} "
            f"outside the ephemeral range {ephemeral_range()}",
            hint="take fewer nodes, or end other labs (`trainmaster lab status --all`)",
        )
    return tuple(found)
