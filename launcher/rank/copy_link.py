"""A rank's line to the keeper of copies on its node. Standard library only.

The keeper grants a file, the rank writes its state there and offers it. Nothing here waits but `restore`: a step at
which no file is granted, since the round before is not whole yet, is skipped, and the keeper is told.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "TRAINMASTER_COPIES"
"""The variable that names the keeper's folder."""
DOOR = "door"
"""The keeper's socket there."""
TOLD = "TRAINMASTER_COPIES_TOLD"
"""1 when the keeper is told from what this cycle's ranks are to go on."""
RESTORE_PATIENCE_S = 300.0
"""How long the keeper may take to fetch this rank's copy from another node."""
LOG = logging.getLogger("trainmaster.checkpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A file that the rank may write."""

    slot: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """The copy that this rank is to go on from."""

    round: tuple[int, int]
    """Cycle and step."""
    path: Path
    size: int
    """Bytes."""
    crc: int


class CopyLink:
    """The line of one rank. When the keeper is gone it looks for the next one, with every copy."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """`env`: the rank's environment, with TRAINMASTER_COPIES."""
        self._door = Path(env[FOLDER], DOOR)
        self._rank, self._cycle = int(env["RANK"]), int(env["TRAINMASTER_CYCLE"])
        self._of = int(env["LOCAL_WORLD_SIZE"])
        self._told = env.get(TOLD) == "1"
        self._owner = os.getpid()
        self._lock = threading.Lock()
        """One thread takes grants, another offers what it has summed."""
        self._sock: socket.socket | None = None
        self._buffer = b""
        self._grant: Grant | None = None
        self._answer: dict[str, Any] | None = None
        self.share_bytes = 0
        """The largest copy that has its place; 0 when nobody has said."""

    def _say(self, message: dict[str, Any]) -> None:
        if self._sock is None:
            return
        try:
            self._sock.settimeout(5.0)
            self._sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            self._lose(str(error))

    def _lose(self, why: str) -> None:
        if self._sock is not None:
            LOG.warning("the keeper of copies is gone: %s", why)
            self._sock.close()
        self._sock, self._grant, self._buffer = None, None, b""

    def _connect(self) -> bool:
        if self._sock is not None:
            return True
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(1.0)
            sock.connect(str(self._door))
        except OSError:
            sock.close()
            return False
        self._sock = sock
        hello = {"do": "hello", "rank": self._rank, "cycle": self._cycle, "of": self._of, "told": self._told}
        self._say(hello)
        return self._sock is not None

    def _hear(self, timeout_s: float) -> bool:
        """Take in what has come; False when nothing has, or nobody is there."""
        if self._sock is None:
            return False
        try:
            self._sock.settimeout(timeout_s)
            data = self._sock.recv(1 << 16)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError as error:
            self._lose(str(error))
            return False
        if not data:
            self._lose("it has ended")
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "grant" in message:
                self._grant = Grant(slot=message["grant"], path=Path(message["path"]))
            else:
                self._answer = message
                self.share_bytes = message["share_bytes"]
        return True

    def restore(self) -> Restore | None:
        """What to go on from; waits until it is here. None when there is nothing."""
        if not self._connect():
            return None
        while self._answer is None and self._hear(RESTORE_PATIENCE_S):
            pass
        found = self._answer["restore"] if self._answer is not None else None
        if found is None:
            return None
        return Restore(round=tuple(found["round"]), path=Path(found["path"]), size=found["size"], crc=found["crc"])

    def take(self) -> Grant | None:
        """The file to be written now, if there is one. Never waits."""
        with self._lock:
            if os.getpid() != self._owner or not self._connect():
                return None
            while self._hear(0.0):
                pass
            grant, self._grant = self._grant, None
        return grant

    def offer(self, grant: Grant, *, step: int, size: int, crc: int) -> None:
        """A file is written whole."""
        with self._lock:
            self._say({"do": "offer", "round": [self._cycle, step], "slot": grant.slot, "size": size, "crc": crc})

    def skip(self, step: int, *, pending: int | None) -> None:
        """This rank makes no copy of this step. `pending`: the step whose copy it has made and not offered yet."""
        with self._lock:
            before = None if pending is None else [self._cycle, pending]
            self._say({"do": "skip", "round": [self._cycle, step], "pending": before})

    def close(self) -> None:
        """Leave."""
        if self._sock is not None:
            self._sock.close()
        self._sock = None
