"""Two hooks of a node at once: one waits for the other, but never for long. A lock that cannot be had stops nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import time

_PAUSE_S = 0.02


class Lock:
    """`with Lock(path, limit_s) as held:` - whether it was free within the limit.

    Where the file cannot be made (a full or read-only disk) it counts as held: then there is nothing to share either.
    The kernel lets go when the process ends, however it ends; children that were abandoned do not hold it on.
    """

    def __init__(self, path: str, limit_s: float) -> None:
        self._path, self._limit_s = path, limit_s
        self._descriptor = -1

    def __enter__(self) -> bool:
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return True
        deadline_s = time.monotonic() + self._limit_s
        while True:
            try:
                # Not flock: a child that was forked and never died would go on holding that.
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    return True
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_PAUSE_S)

    def __exit__(self, *raised: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
