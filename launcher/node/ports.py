"""Ports and interfaces of this node, for the ranks' rendezvous. Standard library only."""

import errno
import fcntl
import socket
import struct
from pathlib import Path

from trainmaster.launcher.rank import rank_env

_SIOCGIFADDR = 0x8915


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def port_is_free(address: str, port: int) -> bool:
    """Whether a listener could take it now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As torch's store binds: a port whose old connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def is_listening(port: int) -> bool:
    """Whether some process of this network listens on a port: read from /proc, so that nobody is disturbed."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        # Columns: number, local address, remote address, state; 0A is LISTEN.
        if any(fields[1].endswith(wanted) and fields[3] == "0A" for fields in map(str.split, lines)):
            return True
    return False


def free_port(address: str, allowed: range) -> int:
    """A port of `allowed` that nothing listens on now. Raises OSError when a thousand are taken."""
    for port in rank_env.candidate_ports(allowed, count=1000):
        if port_is_free(address, port):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port in {allowed.start}-{allowed.stop - 1} on {address}")


def allowed_ports() -> range:
    """Ports that the kernel gives to nobody by itself."""
    try:
        lowest, highest = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return rank_env.port_range(int(lowest), int(highest))
    except (OSError, ValueError):
        return rank_env.port_range(32768, 60999)
