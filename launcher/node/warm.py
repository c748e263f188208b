"""The agent's end of its fork server: start it, teach it, have it fork ranks. Standard library only."""

import ast
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trainmaster.launcher.rank.worker import Task

# Makes `trainmaster` importable in the ranks' interpreter, wherever it is installed, without adding its neighbours; and
# takes out the working folder, which `python -c` adds and a script would not have (-P is unknown before 3.11).
_BOOT = (
    "import sys; sys.path = [folder for folder in sys.path if folder]; sys.path.append({root!r}); "
    "import trainmaster.launcher.rank.forkserver as server; sys.path.remove({root!r}); server.main()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonProgram:
    """A command line that a forked Python process can take over."""

    interpreter: str
    kind: str
    argv: tuple[str, ...]
    unbuffered: bool = False


def as_python_program(program: Sequence[str], *, path: str | None = None) -> PythonProgram | None:
    """`python [-u] script args` or `python [-u] -m module args`, or None for all that has to start cold.

    >>> as_python_program(["torchrun", "train.py"]) is None
    True
    """
    words = list(program)
    if not words or not re.fullmatch(r"python(\d+(\.\d+)?)?", Path(words[0]).name):
        return None
    interpreter = shutil.which(words.pop(0), path=path)
    unbuffered = False
    while words and words[0] == "-u":
        unbuffered = True
        words.pop(0)
    if interpreter is None or not words:
        return None
    if words[0] == "-m" and len(words) > 1:
        return PythonProgram(interpreter=interpreter, kind="module", argv=tuple(words[1:]), unbuffered=unbuffered)
    if words[0].startswith("-"):
        return None
    return PythonProgram(interpreter=interpreter, kind="script", argv=tuple(words), unbuffered=unbuffered)


def imports_of(source: str) -> list[str]:
    """The modules that a script imports, so that the fork server can begin with them; [] when it does not parse.

    >>> imports_of("import torch.nn as nn\nfrom numpy import array")
    ['torch.nn', 'numpy']
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return list(dict.fromkeys(names))


def sets_environment(source: str) -> bool:
    """Whether a script changes `os.environ` outside of functions, as many do above `import torch`.

    >>> sets_environment("import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch")
    True
    >>> sets_environment("import os\ndef f(): os.environ['A'] = '1'")
    False
    """
    try:
        queue: list[ast.AST] = list(ast.parse(source).body)
    except (SyntaxError, ValueError):
        return False
    while queue:
        node = queue.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Subscript) and _is_environ(target.value) for target in targets):
                return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("update", "setdefault", "pop") and _is_environ(node.func.value):
                return True
            if node.func.attr == "putenv":
                return True
        queue += ast.iter_child_nodes(node)
    return False


def _is_environ(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


class ForkServer:
    """One fork server process. Its socket is `fileno()`; call `receive` when it is readable."""

    def __init__(self, interpreter: str, *, env: Mapping[str, str], cwd: str, log: Path) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(sys.modules["trainmaster"].__file__ or "").parents[1])
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [interpreter, "-c", _BOOT.format(root=root), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        theirs.close()
        ours.setblocking(False)
        self._sock = ours
        self._outbox = bytearray()
        self._buffer = b""
        self.pid = self._process.pid
        self.fault: str | None = None
        """Why it must not be used; ranks then start cold."""
        self.learning = False
        self.standbys: frozenset[int] = frozenset()
        """Pids of processes that it has forked ahead."""
        self.awaits_standbys = False

    def fileno(self) -> int:
        """For a selector."""
        return self._sock.fileno()

    def _send(self, request: dict[str, object]) -> None:
        self._outbox += json.dumps(request).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes now. The server reads nothing while it imports, and nobody may wait for that."""
        try:
            while self._outbox:
                del self._outbox[: self._sock.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError as error:
            self.fault = f"the fork server is gone: {error}"

    def learn(self, modules: Iterable[str]) -> None:
        """Have it import what it lacks, in its own time."""
        self.learning = True
        self._send({"do": "learn", "modules": sorted(modules)})

    def stand_by(self, ranks: int) -> None:
        """Have so many processes forked ahead; `standbys` tells when."""
        self.awaits_standbys = True
        self._send({"do": "stand_by", "ranks": ranks})

    def fork(self, task: Task) -> None:
        """Ask for a rank; its pid comes back through `receive`."""
        self._send({"do": "fork", "task": asdict(task)})

    def receive(self) -> dict[int, int]:
        """Pids of forked ranks, by rank, that have been reported. Sets `fault` when the server is gone or unfit."""
        pids: dict[int, int] = {}
        try:
            data = self._sock.recv(1 << 20)
        except BlockingIOError:
            return pids
        except OSError as error:
            self.fault = f"the fork server is gone: {error}"
            return pids
        if not data:
            self.fault = self.fault or "the fork server ended by itself; see its log"
            return pids
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "pid" in answer:
                pids[answer["rank"]] = answer["pid"]
                self.standbys -= {answer["pid"]}
            elif "standbys" in answer:
                self.standbys = frozenset(answer["standbys"])
                self.awaits_standbys = False
            else:
                self.learning = False
                self.fault = answer["fault"]
        return pids

    def ended(self, pid: int) -> None:
        """A child of the agent has ended; if it was a standby, it is none any more."""
        self.standbys -= {pid}

    def close(self) -> None:
        """End the server; its forked ranks are the agent's children and stay."""
        self._sock.close()
        self._process.kill()
        self._process.wait()
        # Their sockets closed with the server, so they are leaving by themselves.
        self.standbys = frozenset()
