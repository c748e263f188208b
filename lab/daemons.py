"""Starts a lab's daemons in the foreground of a session of their own, so that their pids are known from the start."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainmaster.errors import LabError
from trainmaster.lab import install, processes
from trainmaster.lab.state import ProcessRecord

LAB_MARK = "TRAINMASTER_LAB_DAEMON"
"""In the environment of every daemon: the lab's folder. People set TRAINMASTER_LAB themselves, so not that."""

# slurmctld writes its state when it is asked to end.
_STOP_TIMEOUT_S = 20.0
# The daemons are this process's children while it lives; whoever ends must be collected or it stays a zombie.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
# What a daemon may know of its starter; a job's or a shell's other variables would end up in every job.
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LOGNAME", "TZ", "USER", "LD_LIBRARY_PATH")


def environment(*, folder: Path, conf: Path, node_name: str | None) -> dict[str, str]:
    """The environment of a daemon, with the marks by which its processes are found again.

    slurmstepd writes its title over the front of its own environment, on 22.05 up to SLURM_CONF, which slurmd has set
    anew. So the marks stand last, where they can still be read from /proc. (On 24.11 nothing is left of it.)
    """
    env = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    env |= {"PATH": install.search_path(), "SLURM_CONF": str(conf), LAB_MARK: str(folder)}
    if node_name is not None:
        env[processes.MARK] = processes.mark(folder, node_name)
    return env


def start(
    argv: Sequence[str],
    *,
    role: str,
    node: str | None,
    env: Mapping[str, str],
    output: Path,
    cwd: Path,
    stdin: int = subprocess.DEVNULL,
) -> ProcessRecord:
    """Start one daemon; what it prints goes to `output`, and it reads the descriptor `stdin`, if any."""
    reap()
    try:
        with output.open("ab") as stream:
            child = subprocess.Popen(
                list(argv),
                env=env,
                cwd=cwd,
                stdin=stdin,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
    except FileNotFoundError:
        raise LabError(f"could not start {role}: there is no {argv[0]!r}", hint=install.package_hint(role)) from None
    _CHILDREN[child.pid] = child
    seen = processes.look(child.pid)
    # Not collected yet, so even a daemon that ended at once is there to be seen.
    assert seen is not None
    return ProcessRecord(role=role, node=node, pid=child.pid, start_time=seen.start_time)


def reap() -> None:
    """Collect those children that have ended."""
    for pid, child in tuple(_CHILDREN.items()):
        if child.poll() is not None:
            del _CHILDREN[pid]


def running(record: ProcessRecord) -> bool:
    """Whether the process of this record still runs."""
    return processes.alive(record.pid, record.start_time)


def stop(record: ProcessRecord) -> None:
    """End a daemon by SIGTERM, and by SIGKILL if it takes its time."""
    process = processes.look(record.pid)
    if process is not None and running(record):
        processes.send(process, signal.SIGTERM)
        try:
            processes.wait_gone([process], timeout_s=_STOP_TIMEOUT_S)
        except LabError:
            processes.send(process, signal.SIGKILL)
            processes.wait_gone([process])
    reap()


def await_ready(record: ProcessRecord, ready: Callable[[], bool], *, output: Path, timeout_s: float) -> None:
    """Wait until `ready()`; LabError with the daemon's own last words when it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not running(record):
            raise LabError(f"{record.role} ended while it started; it said:\n{tail(output)}")
        if time.monotonic() > deadline:
            raise LabError(f"{record.role} was not ready after {timeout_s:g} s; it said:\n{tail(output)}")
        time.sleep(0.01)


def tail(path: Path, *, lines_max: int = 15) -> str:
    """The end of a log, errors first when there are any, each line indented."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"  ({path} cannot be read: {error.strerror})"
    # A first start has no state to recover, which slurmctld calls errors.
    loud = [line for line in lines if "error:" in line or "fatal:" in line]
    loud = [line for line in loud if "state file" not in line and "NOTE: Trying backup" not in line]
    chosen = (loud or lines)[-lines_max:]
    return "\n".join(f"  {line}" for line in chosen) or "  (nothing)"
