"""The lives of jobs: what the launcher wrote into their run folders, where that can be read, and their reported values.

The files are their users' own: links, pipes and endless files are not followed, and no more than a few MiB is read.
"""

import json
import math
import os
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainmaster.controller.requeue import supervised
from trainmaster.controller.snapshot import Snapshot
from trainmaster.launcher import record
from trainmaster.launcher.follow.life import CycleLife, cycles_of

_BYTES_MAX = 4 << 20
_FOLDERS_MAX = 5000
_SAMPLED_MAX = 200
"""Jobs whose values are sampled at a look."""
_POINTS_MAX = 1000


@dataclass(slots=True)
class Curve:
    """A value over steps. When it is full every second point goes, so that it stays one over the whole life."""

    points: list[tuple[int, float]] = field(default_factory=list)

    def add(self, step: int, value: float) -> None:
        """A sample; going back to a checkpoint makes the steps go back as well, which is part of the story."""
        if self.points and self.points[-1][0] == step:
            return
        self.points.append((step, value))
        if len(self.points) > _POINTS_MAX:
            self.points = self.points[::2]


class Lives:
    """Where jobs keep their records, and what was sampled of them. One thread writes; readers take copies."""

    def __init__(self) -> None:
        self._folders: dict[int, Path] = {}
        self._order: deque[int] = deque()
        self._curves: dict[int, dict[str, Curve]] = {}

    def hear(self, look: Snapshot, now: float) -> None:
        """Take in where jobs write, and sample what they report."""
        sampled = 0
        for job_id, job in look.jobs.items():
            if not supervised(job):
                continue
            if job_id not in self._folders:
                self._order.append(job_id)
                if len(self._order) > _FOLDERS_MAX:
                    gone = self._order.popleft()
                    self._folders.pop(gone, None)
                    self._curves.pop(gone, None)
            self._folders[job_id] = Path(job.std_out).parent
            if job.state == "RUNNING" and sampled < _SAMPLED_MAX:
                sampled += 1
                self._sample(job_id)

    def _sample(self, job_id: int) -> None:
        lines = text_of(self._folders[job_id] / "step", bytes_max=65536).splitlines()
        try:
            # The slowest rank's, which goes back after a restart; the first line, the job's last step, never does.
            step, values = int(lines[1].split()[1]), json.loads(lines[2])
            numbers = {str(name): float(value) for name, value in values.items()}
        except (IndexError, ValueError, AttributeError, TypeError):
            return
        if step < 0:
            return
        curves = self._curves.setdefault(job_id, {})
        for name, value in numbers.items():
            if math.isfinite(value) and (name in curves or len(curves) < 8):
                curves.setdefault(name, Curve()).add(step, value)

    def of(self, job_id: int) -> dict[str, Any]:
        """The cycles of a job, its remarks and its curves; `readable` tells whether its record could be read."""
        folder = self._folders.get(job_id)
        if folder is None:
            return {"launcher": False, "readable": False, "cycles": [], "remarks": [], "curves": {}}
        text = text_of(folder / record.FILE)
        events = record.parse(text.splitlines())
        rows = [as_values(row) for row in cycles_of(events)]
        remarks = [
            {"at": event.epoch_s, "state": event.state, "cause": event.cause, "nodes": list(event.dead or event.nodes)}
            for event in events
            if event.state in record.REMARKS
        ]
        curves = {name: list(curve.points) for name, curve in dict(self._curves.get(job_id, {})).items()}
        lost_s = sum(row["lost_s"] or 0.0 for row in rows)
        step = last_step(events, text_of(folder / "step", bytes_max=65536))
        return {
            "launcher": True,
            "readable": text != "",
            "folder": str(folder),
            "cycles": rows,
            "remarks": remarks,
            "curves": curves,
            "lost_s": lost_s,
            "step": step,
        }


def as_values(row: CycleLife) -> dict[str, Any]:
    """A cycle for JSON.

    >>> as_values(CycleLife(attempt=0, cycle=1, nodes=("n1",), cause="node_death"))["why"]
    'node_death'
    """
    names = (
        *(
            "attempt",
            "cycle",
            "role",
            "replica",
            "nodes",
            "spares",
            "ranks",
            "dead",
            "running_s",
            "first_step_s",
            "fault_s",
        ),
        *("ended_s", "state", "cause", "step", "lost_s", "lost_to", "why"),
    )
    return {name: getattr(row, name) for name in names}


def last_step(events: Sequence[record.Event], noted: str) -> int | None:
    """The last step that is known: of the record, or what was noted since.

    >>> last_step([], "625\\n0 620\\n"), last_step([], "")
    (625, None)
    """
    known = [event.step for event in events if event.step is not None]
    first = noted.split(maxsplit=1)[:1]
    known += [int(word) for word in first if word.isdecimal()]
    return max(known, default=None)


def swaps(rows: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Of each cycle, the nodes that the one before did not have.

    >>> swaps([{"nodes": ("a", "b")}, {"nodes": ("a", "c")}, {"nodes": ()}])
    [(), ('c',), ()]
    """
    found: list[tuple[str, ...]] = []
    before: tuple[str, ...] = ()
    for row in rows:
        nodes = tuple(row["nodes"])
        found.append(tuple(name for name in nodes if before and name not in before))
        before = nodes or before
    return found


def text_of(path: Path, *, bytes_max: int = _BYTES_MAX) -> str:
    """The end of a regular file, whole lines only; "" where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return ""
        begin = max(0, about.st_size - bytes_max)
        data = os.pread(descriptor, bytes_max, begin)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    if begin:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace")
