"""A submitted job of roles, from outside."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainmaster.errors import JobFailed, UsageError
from trainmaster.launcher.follow import logs
from trainmaster.launcher.follow.cancel import cancel
from trainmaster.launcher.follow.find import find, read_plan
from trainmaster.launcher.follow.handle import Following
from trainmaster.launcher.follow.outcome import explain
from trainmaster.launcher.follow.queue import queue_of
from trainmaster.launcher.follow.watch import Watch
from trainmaster.launcher.record import Event
from trainmaster.launcher.roles import role_plan
from trainmaster.launcher.submit.submission import OUTPUT


class RolesJob(Following):
    """One heterogeneous job. `RolesJob.from_id(job_id)` finds one from any shell."""

    def __init__(self, run_dir: Path, job_id: int, *, slurm_conf: str, just_submitted: bool = False) -> None:
        self.run_dir = run_dir
        self.job_id = job_id
        """Slurm's number of the leader, which stands for the whole job."""
        self.slurm_conf = slurm_conf
        self._watch = Watch(run_dir, job_id, queue_of(slurm_conf), just_submitted=just_submitted)

    @classmethod
    def from_id(cls, job_id: int | str, folder: Path | str | None = None) -> "RolesJob":
        """A job that was submitted earlier. Raises UsageError when there is none, or it has no roles."""
        found = find(job_id, folder)
        if not found.plan.roles:
            raise UsageError(f"job {found.job_id} has no roles", hint="TrainmasterJob.from_id() is for such jobs")
        return cls(found.run_dir, found.id.job, slurm_conf=found.slurm_conf)

    @property
    def roles(self) -> tuple[role_plan.RolePlan, ...]:
        """The roles, in the order in which they were given."""
        return role_plan.read(self.run_dir)

    @property
    def state(self) -> str:
        """The job's state in one word."""
        return self._watch.state()

    def events(self) -> tuple[Event, ...]:
        """The record so far."""
        return self._watch.events()

    def done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self._watch.settle() is not None

    def wait(self, timeout_s: float | None = None) -> Event | None:
        """Wait for the end. Returns it, or None after `timeout_s`."""
        return self._watch.wait(timeout_s=float("inf") if timeout_s is None else timeout_s)

    def exception(self) -> JobFailed | None:
        """Wait for the end; returns what went wrong: state, cause, the replica that failed first and its traceback."""
        end = self.wait()
        assert end is not None, "a wait without a limit ended without an end"
        if end.state == "SUCCEEDED":
            return None
        output = self.run_dir / OUTPUT
        name = read_plan(self.run_dir, self.job_id).name
        return JobFailed(explain(end, name=name, log=output, log_end=logs.tail(output)))

    def results(self) -> Mapping[str, tuple[Any, ...]]:
        """Wait for the end; what each replica returned, by role and index.

        None for a program, and for a service that was stopped. Raises JobFailed when the job did not end well.
        """
        failure = self.exception()
        if failure is not None:
            raise failure
        ended = {(event.role, event.replica): event for event in self.events() if event.state == "FINISHED"}
        found: dict[str, tuple[Any, ...]] = {}
        for role in self.roles:
            values = []
            for index in range(role.replicas):
                event = ended.get((role.name, index if role.alone else None))
                values.append(None if event is None else self._result(event, index))
            found[role.name] = tuple(values)
        return found

    def _result(self, event: Event, index: int) -> Any:
        from trainmaster.launcher.follow import results

        folder = logs.Cycle(attempt=event.attempt, cycle=event.cycle).folder(self.run_dir / event.role)
        path = folder / f"rank{index}.result.pkl"
        return results.load(path)[1] if path.exists() else None

    def stdout(self, role: str, index: int = 0) -> str:
        """What a replica printed in its newest cycle."""
        return self._text(role, f"rank{index}.out")

    def stderr(self, role: str, index: int = 0) -> str:
        """What a replica wrote to its standard error in its newest cycle."""
        return self._text(role, f"rank{index}.err")

    def _text(self, role: str, name: str) -> str:
        own = [event for event in self.events() if event.role == role]
        for cycle in reversed(logs.cycles(self.run_dir / role, own)):
            path = cycle.folder(self.run_dir / role) / name
            if path.exists():
                return path.read_text(errors="replace")
        return ""

    def cancel(self) -> None:
        """End the job, and leave word that it was on purpose. Raises SlurmError."""
        cancel(self.run_dir, self.job_id, self._watch.queue.client)
        self._watch.hurry()

    def __repr__(self) -> str:
        """RolesJob(12, <folder>)."""
        return f"RolesJob({self.job_id}, {os.fspath(self.run_dir)!r})"
