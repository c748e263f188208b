"""What systemd is told of the daemon (sd_notify(3)): that it is ready, that it lives, that it ends."""

import os
import socket


def tell(state: str) -> bool:
    """Send `READY=1`, `WATCHDOG=1`, `STOPPING=1` or a STATUS; False when no systemd waits for it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        try:
            door.sendto(state.encode(), f"\0{path[1:]}" if path.startswith("@") else path)
        except OSError:
            return False
    return True
