"""A process that has imported what the ranks import, and forks them: a restart then pays for no import.

It is a child of the agent, runs in the interpreter of the ranks, and takes JSON lines on a Unix socket (file
descriptor in argv[1]):

    {"do": "learn", "modules": [...]}     import these; answers {"learned": n, "modules": [...], "fault": str | null}
    {"do": "stand_by", "ranks": n}        have n processes forked ahead; answers {"standbys": [pid, ...]}, all there are
    {"do": "fork", "task": {...}}         start a rank (a `worker.Task`); answers {"rank": r, "pid": pid}

It never touches CUDA: a context cannot cross a fork. When an import breaks that rule, or leaves a Python thread
running, the answer's `fault` says so and the agent goes on with cold starts. Ranks are re-parented to the agent, which
sees them end. A fork of a process as large as torch takes 20 ms, and it takes two (`_fork`), so a restart finds some
done: a standby has been forked already and only waits for its task.
Measured with 4 gloo ranks on 2 cores, from start to the end of the first DDP step: cold 9.6 s, forked 0.15 s.
"""

import ctypes
import gc
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from trainmaster.launcher.node import processes
from trainmaster.launcher.rank import worker

# Importing these starts threads or child processes; a forked copy of them would be broken.
_NEVER_IMPORTED = ("torch._inductor.compile_worker", "torch._inductor.async_compile", "concurrent.futures.process")
_CUDA_ERROR_NOT_INITIALIZED = 3  # cuda.h


def importable_ahead(name: str, origin: str | None, prefixes: tuple[str, ...]) -> bool:
    """Whether a module may be imported before the rank asks for it: a library's, never the user's own code.

    The user's modules may do anything on import, and change between restarts. Pure.
    """
    if name.startswith(("__main__", *_NEVER_IMPORTED)) or origin is None:
        return False
    return origin in ("built-in", "frozen") or origin.startswith(prefixes)


def library_prefixes() -> tuple[str, ...]:
    """Folders whose modules are libraries: the standard library and every site-packages."""
    import site
    import sysconfig

    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *site.getsitepackages()]
    folders.append(site.getusersitepackages())
    return tuple(sorted({folder + "/" for folder in folders if folder}))


def fault_after_import() -> str | None:
    """Why this process may no longer be forked, if so."""
    if threading.active_count() > 1:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        return f"an import started threads: {names}"
    if cuda_initialised():
        return "an import initialised CUDA"
    return None


def cuda_initialised(load: Callable[..., Any] = ctypes.CDLL) -> bool:
    """Whether anything here has called cuInit, after which no forked child can use CUDA.

    `torch.cuda.is_initialized()` does not tell: a plain `torch.cuda.is_available()` calls cuInit, and many modules do
    that when they are imported. The driver's own library, if it is loaded at all, answers without changing anything.
    """
    try:
        driver = load("libcuda.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _CUDA_ERROR_NOT_INITIALIZED)


class _Channel:
    """JSON lines over the socket to the agent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def ready(self) -> bool:
        """Whether a request has arrived."""
        if b"\n" in self._buffer:
            return True
        self.sock.settimeout(0)
        try:
            self._buffer += self.sock.recv(1 << 20) or _leave()
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(None)
        return b"\n" in self._buffer

    def read(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._buffer += self.sock.recv(1 << 20) or _leave()
        line, _, self._buffer = self._buffer.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        return request

    def write(self, answer: dict[str, Any]) -> None:
        self.sock.sendall(json.dumps(answer).encode() + b"\n")


def _leave() -> NoReturn:
    # The agent is gone, so nobody needs this process. Skip the exit handlers of whatever was imported.
    os._exit(0)


def _learn_one(name: str) -> None:
    try:
        importlib.import_module(name)
    except (Exception, SystemExit):  # noqa: BLE001 - any library's import may fail in any way; the rank will tell
        sys.modules.pop(name, None)


@dataclass(frozen=True, slots=True)
class _Standby:
    """A process that was forked ahead, and the socket on which it waits for its task."""

    pid: int
    sock: socket.socket

    def take(self, task: dict[str, Any]) -> bool:
        """Hand over a task; False when the process has died."""
        try:
            self.sock.sendall(json.dumps(task).encode())
        except OSError:
            return False
        finally:
            self.sock.close()
        return True

    def lives(self) -> bool:
        """Whether it still waits: a process that has died closed its end."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False


def serve(channel: _Channel) -> worker.Task:
    """Answer the agent until it is gone; returns only in a forked child, with what that rank shall run."""
    prefixes = library_prefixes()
    backlog: list[str] = []
    standbys: list[_Standby] = []
    learned = 0
    while True:
        # Imports give way to forks: a restart must not wait for a module that the rank may not need.
        while backlog and not channel.ready():
            name = backlog.pop(0)
            if name not in sys.modules:
                try:
                    spec = importlib.util.find_spec(name)
                except (ImportError, ValueError, AttributeError):
                    continue
                if spec is not None and importable_ahead(name, spec.origin, prefixes):
                    _learn_one(name)
                    learned += 1
                    if cuda_initialised():
                        backlog.clear()
                        channel.write({"learned": learned, "fault": f"importing {name} initialised CUDA"})
                        break
            if not backlog:
                gc.collect()
                gc.freeze()
                channel.write({"learned": learned, "fault": fault_after_import()})
        request = channel.read()
        if request["do"] == "learn":
            backlog += [name for name in request["modules"] if name not in sys.modules and name not in backlog]
            if not backlog:
                channel.write({"learned": learned, "fault": fault_after_import()})
            # Those that are waiting lack what comes now. They end when their socket closes.
            while backlog and standbys:
                standbys.pop().sock.close()
            continue
        if request["do"] == "stand_by":
            standbys = [standby for standby in standbys if standby.lives()]
            while len(standbys) < request["ranks"]:
                ours, theirs = socket.socketpair()
                pid = _fork([channel.sock, ours, *(standby.sock for standby in standbys)])
                if pid == 0:
                    return _await_task(theirs)
                theirs.close()
                standbys.append(_Standby(pid, ours))
            channel.write({"standbys": [standby.pid for standby in standbys]})
            continue
        rank = request["task"]["rank"]
        while standbys:
            standby = standbys.pop()
            if standby.take(request["task"]):
                channel.write({"rank": rank, "pid": standby.pid})
                break
        else:
            pid = _fork([channel.sock])
            if pid == 0:
                return worker.Task(**request["task"])
            channel.write({"rank": rank, "pid": pid})


def _await_task(sock: socket.socket) -> worker.Task:
    """What a standby does until it is needed."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    sock.close()
    if not parts:
        os._exit(0)
    # What Slurm sent to all processes of the job while this one waited was not meant for the rank that it becomes.
    while signal.sigtimedwait(worker.STOP_SIGNALS, 0) is not None:
        pass
    return worker.Task(**json.loads(b"".join(parts)))


def _fork(not_for_the_child: Sequence[socket.socket]) -> int:
    """Fork twice, so that the rank becomes a child of the agent (the nearest subreaper). 0 in the rank."""
    agent = os.getppid()
    read_end, write_end = os.pipe()
    # A stop may come before the rank has put its signals back to normal (`worker.become`); it must wait, not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, worker.STOP_SIGNALS)
    middle = os.fork()
    if middle:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, worker.STOP_SIGNALS)
        os.close(write_end)
        with os.fdopen(read_end) as stream:
            text = stream.read()
        os.waitpid(middle, 0)
        return int(text)
    os.close(read_end)
    child = os.fork()
    if child:
        os.write(write_end, str(child).encode())
        os._exit(0)
    os.close(write_end)
    for sock in not_for_the_child:
        sock.close()
    # The death signal is bound to the parent of the moment, so wait until that is the agent.
    deadline = time.monotonic() + 10
    while os.getppid() != agent:
        if time.monotonic() > deadline:
            os._exit(70)
        time.sleep(0.0005)
    processes.die_with_parent()
    if os.getppid() != agent:
        os._exit(70)
    return 0


def main() -> None:
    """Serve; a forked rank comes out of `serve` and runs its task in a main thread of its own."""
    # A terminal's Ctrl-C and Slurm's SIGTERM are the agent's business.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    processes.die_with_parent()
    channel = _Channel(socket.socket(fileno=int(sys.argv[1])))
    task = serve(channel)
    worker.become(task)
    worker.run(task)


if __name__ == "__main__":
    main()
