"""Reads what launchers hold against nodes: `suspects.jsonl` in their run folders.

The files are their users' own, so what stands there is believed within bounds: nodes that the job has, and no more than
one failure a line. Links, pipes and endless files are not followed.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from trainmaster.controller import snapshot
from trainmaster.controller.memory import Evidence, Memory, Severity
from trainmaster.controller.requeue import supervised
from trainmaster.controller.snapshot import Snapshot

FILE = "suspects.jsonl"
JOBS_MAX = 500
"""Files that one tick looks at; on a larger cluster the others have their turn in the next."""
BYTES_MAX = 65536


def read(
    look: Snapshot, memory: Memory, offsets: Mapping[str, int], *, now: float, turn: int
) -> tuple[dict[str, list[Evidence]], dict[str, int]]:
    """By node, new evidence; and how far each file has been read.

    Args:
        look: The view, whose jobs are asked.
        memory: For the nodes that jobs had.
        offsets: How far files were read before.
        now: Epoch seconds.
        turn: The number of this tick, which says whose turn it is.
    """
    ours = sorted(job_id for job_id in memory.running if job_id in look.jobs and supervised(look.jobs[job_id]))
    rounds = max(1, -(-len(ours) // JOBS_MAX))
    found: dict[str, list[Evidence]] = {}
    read_to: dict[str, int] = {}
    for job_id in ours[turn % rounds :: rounds]:
        path = Path(look.jobs[job_id].std_out).parent / FILE
        before = offsets.get(str(path), 0)
        text, after = _tail(path, before)
        if after == before:
            continue
        read_to[str(path)] = after
        held = snapshot.members(memory.running[job_id].nodes)
        for line in text.splitlines():
            for node, piece in parse(line, job_id=job_id, held=held, now=now):
                found.setdefault(node, []).append(piece)
    return found, read_to


def _tail(path: Path, offset: int) -> tuple[str, int]:
    """Whole lines from an offset on, and where they end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "", offset
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "", offset
        data = os.pread(descriptor, BYTES_MAX, offset)
    except OSError:
        return "", offset
    finally:
        os.close(descriptor)
    whole, newline, _ = data.rpartition(b"\n")
    if not newline:
        # A line that is longer than anything a launcher writes is skipped.
        return "", offset + (len(data) if len(data) == BYTES_MAX else 0)
    return whole.decode(errors="replace"), offset + len(whole) + 1


def parse(line: str, *, job_id: int, held: frozenset[str], now: float) -> list[tuple[str, Evidence]]:
    """The evidence of one line; none of what cannot be read, or is about nodes that the job never had.

    >>> line = '{"symptom": "hang", "suspects": [{"node": "n1", "weight": 0.5}, {"node": "n9", "weight": 0.5}]}'
    >>> [(node, piece.weight) for node, piece in parse(line, job_id=7, held=frozenset({"n1"}), now=0.0)]
    [('n1', 0.5)]
    """
    try:
        values = json.loads(line)
        symptom = "".join(one if one.isprintable() else "?" for one in str(values["symptom"])[:60])
        named = [(str(one["node"]), float(one["weight"])) for one in values["suspects"]]
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return []
    if not all(math.isfinite(weight) for _, weight in named):
        return []
    total = sum(max(0.0, weight) for _, weight in named)
    scale = 1.0 / total if total > 1.0 else 1.0
    return [
        (
            node,
            Evidence(
                at=now,
                kind="suspect",
                what=f"job {job_id}: {symptom}",
                severity=Severity.MEDIUM,
                weight=max(0.0, weight) * scale,
                job_id=job_id,
            ),
        )
        for node, weight in named
        if node in held
    ]
