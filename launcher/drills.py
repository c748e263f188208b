"""Which faults of a job were drills: `drills.jsonl` in its run folder. Standard library only.

Somebody who rehearses a fault writes it down before doing it, so that nobody takes it for evidence against a node.
"""

import json
import os
from pathlib import Path

FILE = "drills.jsonl"
COUNTS_FOR_S = 1800.0
"""How long after a drill what happens on its node is put down to it: a hang may take minutes to be found."""
_BEFORE_S = 600.0
"""A hang is dated to the last step, which was done before the drill."""


def note(run_dir: Path, *, kind: str, node: str, by: str, epoch_s: float) -> None:
    """Write down what is about to be done. Raises OSError: a drill that nobody knows of is not done."""
    line = json.dumps({"epoch_s": epoch_s, "kind": kind, "node": node, "by": by}) + "\n"
    descriptor = os.open(run_dir / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def nodes_of(run_dir: Path, *, epoch_s: float) -> frozenset[str]:
    """The nodes whose faults at that time are put down to a drill."""
    found = set()
    try:
        lines = (run_dir / FILE).read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        try:
            entry = json.loads(line)
            if -_BEFORE_S <= epoch_s - entry["epoch_s"] <= COUNTS_FOR_S:
                found.add(entry["node"])
        except (ValueError, KeyError, TypeError):
            continue
    return frozenset(found)
