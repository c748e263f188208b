"""Who supervises: `supervisor.json` in the run folder, and the lock by which an agent succeeds a dead supervisor.

Standard library only. Slurm does not restart a batch script whose node died: the job stays RUNNING, shrunk, and its
agents live on (seen on 22.05.8). So one of them starts the next supervisor. Each has an epoch; files made with O_EXCL
let exactly one succeed to an epoch. A supervisor that finds a higher epoch than its own does nothing any more.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Where the supervisor of an epoch can be reached."""

    attempt: int
    epoch: int
    node: str
    host: str
    port: int


FILE = "supervisor.json"


def _file(run_dir: Path) -> Path:
    return run_dir / FILE


def publish(run_dir: Path, post: Post) -> None:
    """Tell the agents where the supervisor is."""
    temporary = run_dir / f".supervisor.json.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(post)))
    temporary.rename(_file(run_dir))


def current(run_dir: Path) -> Post | None:
    """The newest supervisor, or None when none was ever published or the file is not to be had."""
    try:
        return Post(**json.loads(_file(run_dir).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def alive_mark(run_dir: Path) -> None:
    """The supervisor's sign of life for an agent that cannot reach it: the file's time."""
    try:
        os.utime(_file(run_dir))
    except OSError:
        pass


def silent_s(run_dir: Path) -> float:
    """Seconds since the last sign of life, by the file server's clock against ours; 0 when it cannot be told."""
    try:
        return max(0.0, time.time() - _file(run_dir).stat().st_mtime)
    except OSError:
        return 0.0


def claim(run_dir: Path, *, attempt: int, epoch: int, node: str) -> bool:
    """Try to become the supervisor of `epoch`; True for exactly one caller."""
    try:
        descriptor = os.open(run_dir / f"takeover-{attempt}.{epoch}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError:
        return False
    with os.fdopen(descriptor, "w") as stream:
        stream.write(node + "\n")
    return True
