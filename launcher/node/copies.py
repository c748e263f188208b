"""The agent's hold on its keeper of copies: begins it when a rank or the supervisor needs it, passes messages on.

Standard library only. Ranks find the keeper's Unix socket in the folder that TRAINMASTER_COPIES names. The agent
listens there until the first of them comes, and then hands the socket over: a job that makes no copies has no keeper.
"""

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainmaster.launcher.node import processes
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank.copy_link import DOOR, FOLDER, TOLD

LOG = logging.getLogger("trainmaster.agent")
SHARE_OF_MEMORY = 0.25
"""Of the job's memory on a node, what copies may take when nobody has said."""
SHARE_OF_FREE = 0.8
"""Of what the file system in memory has free, what copies may take at most."""


def budget_bytes(asked: int | None, *, job_bytes: int, free_bytes: int) -> int:
    """What the copies on a node may take. Pure.

    >>> budget_bytes(None, job_bytes=400, free_bytes=1000), budget_bytes(900, job_bytes=400, free_bytes=1000)
    (100, 800)
    """
    wanted = int(job_bytes * SHARE_OF_MEMORY) if asked is None else asked
    return min(wanted, int(free_bytes * SHARE_OF_FREE))


class Copies:
    """The keeper of this node, or the wish for one."""

    def __init__(self, folder: Path, *, plan: Plan, key_dir: Path, log: Path, tell: Callable[[dict[str, Any]], None]):
        """`folder`: in memory, and nobody else's; it is made here. `key_dir`: where the job's key lies."""
        self.folder = folder
        self.plan = plan
        self.pid = 0
        self.address = ""
        """This node's, for other keepers."""
        self.have: dict[str, Any] | None = None
        """What the keeper said last of what it holds."""
        self._key_dir = key_dir
        self._log = log
        self._tell = tell
        self._selector: selectors.BaseSelector | None = None
        self._door: socket.socket | None = None
        self._channel: socket.socket | None = None
        self._outbox = bytearray()
        self._buffer = b""
        self._told_of = -1
        """The last cycle of which the keeper was told what to go on from."""
        # Elsewhere than in memory a copy would be no copy in memory, and slow.
        if plan.memory_copies != 0 and _is_memory(folder.parent):
            try:
                self._open_door()
            except OSError as error:
                LOG.warning("no copies in memory: %s", error)

    def _open_door(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(self.folder / DOOR))
        self._door.listen(64)

    def env(self, cycle: int) -> dict[str, str]:
        """What the environment of a cycle's ranks gains."""
        if self._door is None:
            return {}
        # A rank may come to the keeper before what the supervisor has said of its cycle does.
        return {FOLDER: str(self.folder), TOLD: str(int(self._told_of == cycle))}

    def attach(self, selector: selectors.BaseSelector) -> None:
        """Wait for the first who needs a keeper."""
        self._selector = selector
        if self._door is not None:
            selector.register(self._door, selectors.EVENT_READ, "copies")

    def hear(self) -> None:
        """Something has come: a first rank, or what the keeper says."""
        if self._channel is None:
            self._start()
            return
        try:
            data = self._channel.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["what"] == "have":
                self.have = message
            self._tell({"do": "copies", **message})

    def pass_on(self, message: dict[str, Any]) -> None:
        """What the supervisor says to the keeper, which is begun if need be."""
        if self._channel is None:
            self._start()
        if message["what"] == "restore":
            self._told_of = message["cycle"]
        self._send(message)

    def ended(self, pid: int) -> bool:
        """Whether a child that has ended was the keeper."""
        if not pid or pid != self.pid:
            return False
        self._lose()
        return True

    def flush(self) -> None:
        """Write what the keeper's socket takes."""
        if self._channel is None:
            return
        try:
            while self._outbox:
                del self._outbox[: self._channel.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError:
            self._lose()

    def close(self) -> None:
        """End the keeper; its files are removed by it, or with the agent's folder."""
        self._selector = None
        for sock in (self._door, self._channel):
            if sock is not None:
                sock.close()
        if self.pid:
            processes.send(self.pid, signal.SIGKILL)
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass
            self.pid = 0
        self._door = self._channel = None

    def _send(self, message: dict[str, Any]) -> None:
        if self._channel is not None:
            self._outbox += json.dumps(message).encode() + b"\n"
            self.flush()

    def _start(self) -> None:
        if self._door is None or self._selector is None:
            return
        self._selector.unregister(self._door)
        ours, theirs = socket.socketpair()
        budget = budget_bytes(self.plan.memory_copies, job_bytes=_job_bytes(), free_bytes=_free_bytes(self.folder))
        argv = [sys.executable, "-P", "-m", "trainmaster.launcher.node.copy_keeper", str(self._key_dir)]
        argv += [str(self.folder), self.address, str(budget), str(theirs.fileno()), str(self._door.fileno())]
        try:
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno(), self._door.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            LOG.warning("no copies in memory: %s", error)
            self._door.close()
            self._door = None
            ours.close()
            return
        finally:
            theirs.close()
        LOG.info("the keeper of copies begins, with %d MiB", budget >> 20)
        ours.setblocking(False)
        # The agent reaps all its children itself; Popen must neither wait nor warn about this one.
        process.returncode = 0
        self.pid = process.pid
        self._channel, self._buffer = ours, b""
        self._outbox.clear()
        self._selector.register(ours, selectors.EVENT_READ, "copies")

    def _lose(self) -> None:
        """The keeper has ended: what it held is lost. The next rank that comes begins another."""
        if self._channel is None or self._selector is None or self._door is None:
            return
        LOG.warning("the keeper of copies has ended")
        self._selector.unregister(self._channel)
        self._channel.close()
        self._channel = None
        self.pid = 0
        for path in self.folder.glob("*.*"):
            path.unlink(missing_ok=True)
        self.have = {"what": "have", "rounds": [], "port": 0, "bytes": 0}
        self._tell({"do": "copies", **self.have})
        self._selector.register(self._door, selectors.EVENT_READ, "copies")


def _job_bytes() -> int:
    """The memory that the job may use on this node: as Slurm says, or else all there is."""
    mib = os.environ.get("SLURM_MEM_PER_NODE", "")
    if mib.isdecimal() and int(mib):
        return int(mib) << 20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _is_memory(folder: Path) -> bool:
    """Whether a folder lies in memory: on tmpfs, by the longest of the mount points above it (proc(5))."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    above = [(point, kind) for point, kind in mounts if Path(point) == folder or Path(point) in folder.parents]
    return bool(above) and max(above, key=lambda one: len(one[0]))[1] == "tmpfs"


def _free_bytes(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
