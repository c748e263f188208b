"""The lab's own munged: its key, its socket, nothing shared with the machine's."""

import os
import secrets
import socket
from pathlib import Path

from trainmaster.lab import daemons
from trainmaster.lab.state import ProcessRecord

_START_TIMEOUT_S = 10.0


def prepare(folder: Path) -> None:
    """Make the folder and the key. munged refuses a key that others can read, or a folder that others can write."""
    folder.mkdir(mode=0o755)
    key = os.open(folder / "key", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(key, "wb") as stream:
        stream.write(secrets.token_bytes(128))


def start(folder: Path, *, env: dict[str, str], output: Path, threads: int) -> ProcessRecord:
    """Start munged and wait until it answers on `<folder>/socket`."""
    paths = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    argv = ["munged", "--foreground", f"--num-threads={threads}"]
    argv += [f"--{option}={folder / name}" for option, name in paths.items()]
    record = daemons.start(argv, role="munged", node=None, env=env, output=output, cwd=folder)
    daemons.await_ready(record, lambda: _answers(folder / "socket"), output=output, timeout_s=_START_TIMEOUT_S)
    return record


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
