"""Who holds the controller's lease: a process, named so that no other is taken for it."""

import os
from pathlib import Path


def process_name(pid: int | None = None) -> str:
    """A process so that no other, on this machine or later, is taken for it: `host:pid:start`."""
    pid = os.getpid() if pid is None else pid
    return f"{os.uname().nodename}:{pid}:{_started(pid)}"


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def alive(holder: str) -> bool | None:
    """Whether a holder still runs; None when it is on another machine."""
    host, _, rest = holder.partition(":")
    pid, _, started = rest.partition(":")
    if host != os.uname().nodename or not pid.isdecimal():
        return None
    return started != "" and _started(int(pid)) == started
