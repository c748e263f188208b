"""Child processes that can be given up: a session of their own, descriptors of their own, killed and abandoned.

A process in uninterruptible sleep does not die of SIGKILL, and whoever waits for it, or for the end of a pipe that it
holds, hangs with it; slurmd waits for both. So a child here inherits nothing of ours but its own pipes, and nobody ever
waits for it without a limit.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

OUTPUT_MAX = 4 << 20
"""What is read of one stream; a tool that prints more is broken."""
REAP_S = 0.3
"""How long killed children are waited for, all together."""


class Child:
    """A forked process, and the read ends of its pipes."""

    def __init__(self, pid: int, streams: Sequence[int]) -> None:
        self.pid = pid
        self.streams = {descriptor: bytearray() for descriptor in streams}
        self.open = set(streams)
        self.status: int | None = None
        """Exit status as of `os.waitstatus_to_exitcode`, once it has ended."""

    def hear(self, descriptor: int) -> None:
        """Read what is there; at the end of the stream, or when it is too long, close it."""
        try:
            data = os.read(descriptor, 1 << 16)
        except OSError:
            data = b""
        text = self.streams[descriptor]
        text += data
        if not data or len(text) > OUTPUT_MAX:
            os.close(descriptor)
            self.open.discard(descriptor)

    def ended(self) -> bool:
        """Whether it has ended; never waits."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # Somebody else in this process has collected it; all that can be said is that it is gone.
                self.status = -signal.SIGCHLD
                return True
            if pid == 0:
                return False
            self.status = os.waitstatus_to_exitcode(status)
        return True

    def where(self) -> str:
        """In which function of the kernel it sleeps, for the log; only root may know."""
        try:
            with open(f"/proc/{self.pid}/wchan") as stream:
                return stream.read().strip("0 \n")
        except OSError:
            return ""

    def hang_up(self) -> None:
        """Listen no longer."""
        for descriptor in self.open:
            os.close(descriptor)
        self.open = set()

    def kill(self, send: Callable[[int, int], None] = os.killpg) -> None:
        """End its whole session, and forget its streams."""
        self.hang_up()
        try:
            send(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def identity(pid: int, proc: str = "/proc") -> list[int] | None:
    """[pid, start time] of a process that is there and no zombie: with its start time no later one is meant."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            rest = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return [pid, int(rest[19])] if len(rest) > 19 and rest[0] not in "ZX" else None


def lives(known: object) -> bool:
    """Whether an abandoned process, as `identity` named it, is still there. Anything may stand in a state file."""
    return isinstance(known, list) and len(known) == 2 and isinstance(known[0], int) and identity(known[0]) == known


def reap(killed: Sequence[Child], limit_s: float = REAP_S) -> list[Child]:
    """Collect killed children; returns those that are still there and have to be abandoned."""
    deadline_s = time.monotonic() + limit_s
    left = [child for child in killed if not child.ended()]
    pause_s = 0.0005
    while left and time.monotonic() < deadline_s:
        time.sleep(pause_s)
        pause_s = min(0.01, pause_s * 2)
        left = [child for child in left if not child.ended()]
    return left


def fork(body: Callable[[int], None]) -> Child:
    """Run `body(descriptor)` in a child; what it writes there is heard here."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _leave_everything({write_end})
            body(write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    return Child(pid, [read_end])


def execute(argv: Sequence[str]) -> Child:
    """Run a program; its streams are [stdout, stderr]. `argv[0]` is a path that exists."""

    def body() -> int:
        os.execve(argv[0], list(argv), {**os.environ, "LC_ALL": "C"})

    return _with_streams(body)


def call(function: Callable[[], str]) -> Child:
    """Run `function` in a child, as if it were a program: stdout is what it returns, stderr what it raises, with 1."""

    def body() -> int:
        try:
            descriptor, text, status = 1, function(), 0
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            descriptor, text, status = 2, str(error) or type(error).__name__, 1
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(descriptor, data) :]
        return status

    return _with_streams(body)


def _with_streams(body: Callable[[], int]) -> Child:
    """Run `body` in a child with a stdout and a stderr that are heard here; it ends with what `body` returns."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 127
        try:
            _leave_everything({out_write, err_write})
            os.dup2(out_write, 1)
            os.dup2(err_write, 2)
            status = body()
        finally:
            os._exit(status)
    os.close(out_write)
    os.close(err_write)
    return Child(pid, [out_read, err_read])


def _leave_everything(kept: set[int]) -> None:
    """In the child: a session of its own, the default signals, no descriptor but those in `kept`."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the one that listed the folder


_FOLDERS = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin:/usr/local/nvidia/bin:/opt/bin"
"""slurmd gives its hooks a short PATH, or none."""


def which(name: str, root: str = "", path: str | None = None) -> str | None:
    """The program `name`; under a fake root only what lies in its own bin."""
    folders = [root + "/bin", root + "/usr/bin"] if root else (path or os.environ.get("PATH", "")).split(":")
    for folder in folders if root else [*folders, *_FOLDERS.split(":")]:
        candidate = f"{folder}/{name}"
        if folder and os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    return None
