"""A job from any shell: `trainmaster.job("1234_5")`, and what one can do with a job besides waiting for its result."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster.errors import UsageError
from trainmaster.launcher.follow import life, logs
from trainmaster.launcher.follow.again import Requeued, again
from trainmaster.launcher.follow.watch import Watch

if TYPE_CHECKING:
    from trainmaster.launcher.follow.job import TrainmasterJob
    from trainmaster.launcher.roles.roles_job import RolesJob
    from trainmaster.launcher.submit.explanation import Explanation


class Following:
    """What `trainmaster jobs` does, as methods. For a job that has a run folder and a watch."""

    run_dir: Path
    _watch: Watch

    def life(self) -> tuple[life.CycleLife, ...]:
        """Every cycle of every attempt so far: why it ended, on which nodes, what that cost, how far it came."""
        return life.cycles_of(self._watch.events())

    def explain(self) -> "Explanation | None":
        """Where each value of the submission came from, and what was remarked on; None when that was not kept."""
        from trainmaster.launcher.submit.belongings import read

        return read(self.run_dir)[1]

    def logs(
        self,
        rank: int = 0,
        *,
        attempt: int | None = None,
        cycle: int | None = None,
        err: bool = False,
        grep: str | None = None,
        follow: bool = False,
    ) -> Iterator[str]:
        """The lines that a rank wrote, with their ends.

        Args:
            rank: Which rank.
            attempt: Which attempt; the newest when neither is given.
            cycle: Which cycle of it; the newest when not given.
            err: Standard error instead of standard output.
            grep: Only lines in which this regular expression is found.
            follow: Go on as the file grows, and into the cycles that follow, until the job ends.
        """
        name = f"rank{rank}.{'err' if err else 'out'}"
        known = logs.cycles(self.run_dir, self._watch.events())
        chosen = [one for one in known if attempt in (None, one.attempt) and cycle in (None, one.cycle)]
        given = attempt is not None or cycle is not None
        if given and not chosen:
            there = ", ".join(f"{one.attempt}.{one.cycle}" for one in known) or "none"
            raise UsageError(f"the job has no such cycle; there are (attempt.cycle): {there}")
        start = chosen[-1] if chosen else None
        if follow:
            pieces = logs.follow(
                self.run_dir,
                name,
                over=lambda: self._watch.settle() is not None,
                events=self._watch.events,
                start=start if given else None,
            )
        else:
            path = start.folder(self.run_dir) / name if start is not None else None
            pieces = logs.content(path) if path is not None and path.exists() else iter(())
        wanted = None if grep is None else re.compile(grep)
        cutter = logs.Lines()
        for piece in pieces:
            for line in cutter.cut(piece):
                text = line.decode(errors="replace")
                if wanted is None or wanted.search(text):
                    yield text
        text = cutter.rest().decode(errors="replace")
        if text and (wanted is None or wanted.search(text)):
            yield text

    def requeue(self, reason: str = "") -> Requeued:
        """Put the job back into the queue under its id: a running one, which may save first, or one that has ended.

        Raises UsageError for a job that waits already or that Slurm has forgotten, SlurmError when Slurm refuses.
        """
        return again(self._watch, reason=reason)

    def wait_for(self, *states: str, timeout_s: float = float("inf")) -> str:
        """Wait until the job is in one of these states, or has ended; returns the state.

        Raises TimeoutError after `timeout_s`.
        """
        began_s = time.monotonic()
        while True:
            ended = self._watch.settle()
            state = ended.state if ended is not None else self._watch.state(patience_s=0.0)
            if ended is not None or state in states:
                return state
            if time.monotonic() - began_s > timeout_s:
                raise TimeoutError(
                    f"job {self._watch.job_id} is {state} after {timeout_s:g} s, not {' or '.join(states)}"
                )
            time.sleep(0.1)


def job(job_id: int | str, folder: Path | str | None = None) -> "TrainmasterJob[Any] | RolesJob":
    """The job of that id, from any process of the same user; no pickle of it is needed.

    Args:
        job_id: 1234; "1234_5" for a task of an array; "1234+1" for a part of a heterogeneous job.
        folder: The folder it was submitted with; not needed for what this user submitted from this home.

    Raises UsageError when there is no such job.
    """
    from trainmaster.launcher.follow.find import find

    found = find(job_id, folder)
    if found.plan.roles:
        from trainmaster.launcher.roles.roles_job import RolesJob

        return RolesJob.from_id(job_id, folder)
    from trainmaster.launcher.follow.job import TrainmasterJob

    return TrainmasterJob.from_id(job_id, folder)
