"""A drill's hand on a node: `python -m … KIND PIDFILE`, started by `trainmaster jobs drill` through srun.

It signals processes of this user's own job and nothing else. Standard library only.
"""

import os
import signal
import sys
import time
from pathlib import Path

from trainmaster.launcher.node import processes


def of_this_job_here() -> list[int]:
    """All processes of this job on this node, except this one and those above it."""
    mine = {key: os.environ.get(key, "").encode() for key in ("SLURM_JOB_ID", "SLURMD_NODENAME")}
    if not all(mine.values()):
        return []
    spared, pid = set(), os.getpid()
    while pid > 1:
        spared.add(pid)
        pid = _parent(pid)
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal() or int(entry.name) in spared:
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # another user's, or gone
        if all(key.encode() + b"=" + value in environment for key, value in mine.items()):
            found.append(int(entry.name))
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def main(argv: list[str]) -> int:
    """Do it, and print when: seconds since the epoch, and how many processes were hit."""
    kind, file = argv
    if kind in ("crash", "hang"):
        pid, started = (int(word) for word in Path(file).read_text().split()[:2])
        if not processes.lives(pid, started):
            sys.stderr.write(f"trainmaster: the rank of {file} does not run here\n")
            return 1
        done_s, victims = time.time(), [pid]
        processes.send(pid, signal.SIGKILL if kind == "crash" else signal.SIGSTOP)
    else:
        done_s, victims = time.time(), of_this_job_here()
        # All stand still before the first one dies, so that nobody is left to say good-bye: a dead node would not.
        for pid in victims:
            processes.send(pid, signal.SIGSTOP)
        for pid in victims if kind == "kill-node" else ():
            processes.send(pid, signal.SIGKILL)
    sys.stdout.write(f"{done_s} {len(victims)}\n")
    return 0 if victims else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
