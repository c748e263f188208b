"""Becomes a command in the environment and folder of a running rank, on its node: `python -m … RUN_DIR RANK [WORDS…]`.

Standard library only. `trainmaster jobs attach` starts it with srun. A rank that was forked from a warm process shows
the fork server's environment in /proc, so its agent keeps what it gave to each rank in the node's memory.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from trainmaster.launcher.node import processes

SCRATCH_BASES = (Path("/dev/shm"), Path("/tmp"))
SCRATCH_PREFIX = "trainmaster-"
_OWNER = "owner.json"
# What belongs to the terminal of whoever attaches, not to the rank.
_OF_THE_TERMINAL = ("TERM", "COLORTERM", "COLUMNS", "LINES", "LANG", "LC_ALL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a rank was started with."""

    env: dict[str, str]
    pid: int
    """0 when the rank has ended."""
    cwd: str


def env_file(scratch: Path, rank: int) -> Path:
    """Where an agent keeps a rank's environment."""
    return scratch / f"env-{rank}.json"


def leave_env(scratch: Path, rank: int, env: dict[str, str]) -> None:
    """Keep a rank's environment for whoever attaches; the folder is the user's alone. Raises OSError."""
    env_file(scratch, rank).write_text(json.dumps(env))


def own(scratch: Path) -> None:
    """Write down whose scratch folder this is, for `sweep`. Raises OSError."""
    mark = {"pid": os.getpid(), "started": processes.start_time(os.getpid()), "pids": _pid_namespace()}
    (scratch / _OWNER).write_text(json.dumps(mark))


def sweep(base: Path) -> None:
    """Remove what agents of this user left behind here when they were killed: it tells of ranks' environments.

    Whose owner lives in another pid namespace, where this process cannot look, is left alone.
    """
    for path in base.glob(f"{SCRATCH_PREFIX}*/{_OWNER}"):
        try:
            mark = json.loads(path.read_text())
            ours = path.parent.lstat().st_uid == os.getuid() and mark["pids"] == _pid_namespace()
            if ours and processes.start_time(mark["pid"]) != mark["started"]:
                shutil.rmtree(path.parent, ignore_errors=True)
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def find(run_dir: Path, rank: int, *, bases: tuple[Path, ...] = SCRATCH_BASES) -> Place | None:
    """The newest start of a rank of this job on this node; None when there was none."""
    newest: tuple[float, dict[str, str]] | None = None
    for base in bases:
        for path in base.glob(f"{SCRATCH_PREFIX}*/{env_file(Path(), rank).name}"):
            try:
                if path.parent.lstat().st_uid != os.getuid():
                    continue
                written_s, env = path.stat().st_mtime, json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if env.get("TRAINMASTER_RUN_DIR") == str(run_dir) and (newest is None or written_s > newest[0]):
                newest = (written_s, env)
    if newest is None:
        return None
    env = newest[1]
    pid = _pid(run_dir / f"attempt{env['TRAINMASTER_ATTEMPT']}.{env['TRAINMASTER_CYCLE']}" / f"rank{rank}.pid")
    try:
        cwd = os.readlink(f"/proc/{pid}/cwd") if pid else os.getcwd()  # noqa: PTH109, PTH115 - both as they are shown
    except OSError:
        cwd = env.get("PWD", "/")
    return Place(env=env, pid=pid, cwd=cwd)


def _pid(file: Path) -> int:
    """The rank's process, if it lives; a pid alone may be another's by now."""
    try:
        pid, started = file.read_text().split()[:2]
    except (OSError, ValueError):
        return 0
    return int(pid) if processes.start_time(int(pid)) == int(started) else 0


def main(argv: list[str]) -> int:
    """Become the command; returns only when that is not possible."""
    run_dir, rank, words = Path(argv[0]), int(argv[1]), argv[2:]
    place = find(run_dir, rank) if rank >= 0 else None
    env = dict(os.environ)
    if place is not None:
        env = place.env | {key: os.environ[key] for key in _OF_THE_TERMINAL if key in os.environ}
        env["TRAINMASTER_RANK_PID"] = str(place.pid) if place.pid else ""
        os.chdir(place.cwd)
    if rank >= 0 and (place is None or not place.pid):
        _say(f"rank {rank} is not running here now")
    command = words or [env.get("SHELL") or "/bin/sh"]
    try:
        os.execvpe(command[0], command, env)
    except OSError as error:
        _say(f"could not run {command[0]!r}: {error.strerror}")
    return 127


def _say(text: str) -> None:
    sys.stderr.write(f"trainmaster: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
