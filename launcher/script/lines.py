"""The `trainmaster run` lines of one batch script: each has a run folder, and finds it again after a requeue.

A script may have several such lines, or one in a loop, and Slurm starts it again from its beginning. Each line that
begins points the job's link at its own run folder, and leaves a note there of all run folders that lines have made so
far, and of those that this execution of the script has begun. The next line reads it by that link.
"""

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainmaster.launcher import plan, record
from trainmaster.launcher.script.allocation import Allocation

NOTE = "allocation.json"
"""Only in run folders that were made inside an allocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What a line that begins knows of the others."""

    found: Allocation
    folder: Path
    """Where jobs are kept."""
    script: str
    """Which execution of the batch script this is."""
    runs: tuple[str, ...] = ()
    """Run folders of this job, in the order in which lines made them; relative to `folder`."""
    begun: tuple[str, ...] = ()
    """Those whose line has begun in this execution."""

    def earlier(self, program: Sequence[str]) -> Path | None:
        """The run folder that this line had in earlier attempts; None when it never ran.

        The first that has not begun of those with the same words; else of those that begin alike, since options may
        differ each time (`--resume $LATEST`). By the words and not by the place: some lines may be conditional.
        """
        left = [self.folder / name for name in self.runs if name not in self.begun]
        programs = {run_dir: plan.read(run_dir).program or () for run_dir in left if self._waits(run_dir)}
        same = [run_dir for run_dir, words in programs.items() if words == tuple(program)]
        alike = [run_dir for run_dir, words in programs.items() if beginning(words) == beginning(program)]
        return next(iter(same or alike), None)

    def begin(self, run_dir: Path) -> None:
        """Leave the note for the lines that follow. Raises OSError."""
        name = run_dir.relative_to(self.folder).as_posix()
        runs = self.runs if name in self.runs else (*self.runs, name)
        begun = [*self.begun, name]
        note = {**identity(self.found), "script": self.script, "runs": runs, "begun": begun}
        temporary = run_dir / f".{NOTE}"
        temporary.write_text(json.dumps(note) + "\n")
        temporary.replace(run_dir / NOTE)

    def _waits(self, run_dir: Path) -> bool:
        """Whether a run folder is whole and has not come as far as this attempt: job ids come round again."""
        try:
            plan.read(run_dir)
        except (OSError, ValueError, TypeError):
            return False
        attempts = [event.attempt for event in record.read(run_dir) if event.state != "SUBMITTED"]
        return max(attempts, default=-1) < self.found.attempt


def lines_of(folder: Path, found: Allocation) -> Lines:
    """What the job's link leads to, if that was made by a job of the same name, cluster and origin.

    Job ids come round again, and a requeue changes the submit time. So nothing is found again at the first start.
    """
    mine = Lines(found=found, folder=folder, script=_execution(found))
    if not found.is_batch_step:
        return mine  # a person starts what he likes, again and again
    note = read(folder / found.id)
    if note is None or any(note.get(key) != value for key, value in identity(found).items()):
        return mine
    runs, begun = tuple(note.get("runs", ())), tuple(note.get("begun", ()))
    if note.get("script") == mine.script:
        return replace(mine, runs=runs, begun=begun)
    return replace(mine, runs=runs) if found.attempt else mine


def read(run_dir: Path) -> dict[str, Any] | None:
    """The note in a run folder; None when there is none."""
    try:
        note = json.loads((run_dir / NOTE).read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def identity(found: Allocation) -> dict[str, str | int]:
    """What tells this job from another that had its number."""
    return {
        "job_id": found.id,
        "name": found.name,
        "cluster": found.cluster,
        "submit_dir": found.submit_dir,
        "user_id": os.getuid(),
    }


def beginning(program: Sequence[str]) -> tuple[str, ...]:
    """What a command is about: the program, or the interpreter and its script.

    >>> beginning(["python", "-u", "train.py", "--lr", "1"]), beginning(["./solver", "--in", "x"])
    (('python', 'train.py'), ('./solver',))
    """
    words = [word for word in program if word not in ("-m", "-u")]
    first_option = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    return tuple(words[: min(first_option, 2)])


def _execution(found: Allocation) -> str:
    """The batch script's process, which all of its lines have in common and no later one is."""
    try:
        # proc(5): after the name in parentheses, which may hold anything, the start time is the 20th word.
        started = Path(f"/proc/{found.batch_pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "?"
    return f"{found.attempt} {socket.gethostname()} {found.batch_pid} {started}"
