"""A submitted job as submitit's `Job`. Right across attempts, because only the end in the job's record counts."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from submitit.core import utils
from submitit.slurm.slurm import SlurmJob

from trainmaster.errors import SlurmError, UsageError
from trainmaster.launcher import array_layout, plan
from trainmaster.launcher.follow import logs, results
from trainmaster.launcher.follow.cancel import cancel
from trainmaster.launcher.follow.find import find, read_plan
from trainmaster.launcher.follow.handle import Following
from trainmaster.launcher.follow.outcome import explain
from trainmaster.launcher.follow.queue import queue_of
from trainmaster.launcher.follow.watch import PATIENCE_S, Watch
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.submission import OUTPUT, PICKLE, SCRIPT, Submission

log = logging.getLogger("trainmaster")

R = TypeVar("R", covariant=True)


class RunPaths(utils.JobPaths):
    """submitit's names for a job's files, pointing into the run folder; logs are those of the newest cycle."""

    def __init__(self, run_dir: Path, job_id: str, task_id: int | None = None) -> None:
        super().__init__(run_dir, job_id=job_id, task_id=task_id)
        self.run_dir = run_dir

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run_dir

    @property
    def submission_file(self) -> Path:
        """What was given to sbatch; the tasks of an array share it."""
        return (plan.array_of(self.run_dir) or self.run_dir) / SCRIPT

    @property
    def submitted_pickle(self) -> Path:
        """The call, as it stands after the last checkpoint."""
        array_dir = plan.array_of(self.run_dir)
        if array_dir is not None:
            # It lies with those of the other tasks until the task starts.
            array_layout.unpack_call(array_dir, int(self.run_dir.name))
        return self.run_dir / PICKLE

    @property
    def stdout(self) -> Path:
        """What the rank printed in the newest cycle."""
        return self.cycle_folder() / f"rank{self.task_id}.out"

    @property
    def stderr(self) -> Path:
        """What the rank wrote to its standard error in the newest cycle."""
        return self.cycle_folder() / f"rank{self.task_id}.err"

    @property
    def result_pickle(self) -> Path:
        """The rank's result in the newest cycle. `Job.results()` reads the one that the record names."""
        return self.cycle_folder() / f"rank{self.task_id}.result.pkl"

    def cycle_folder(self, end: Event | None = None) -> Path:
        """The folder of the cycle in which the job ended, or of the newest."""
        if end is not None:
            return logs.Cycle(attempt=end.attempt, cycle=end.cycle).folder(self.run_dir)
        known = logs.cycles(self.run_dir)
        return (known[-1] if known else logs.Cycle(attempt=0, cycle=0)).folder(self.run_dir)


# SlurmJob first: submitit turns the job of a batch into one of this class, which Python allows only then.
class TrainmasterJob(SlurmJob[R], Following):
    """One job. `task(i)` is the view of rank i; `TrainmasterJob.from_id(job_id)` finds a job from any shell."""

    def __init__(
        self,
        folder: Path | str,
        job_id: str,
        tasks: Sequence[int] = (0,),
        *,
        run_dir: Path | None = None,
        slurm_conf: str | None = None,
        just_submitted: bool = False,
    ) -> None:
        """Without `run_dir` it is what the link `folder/job_id` points at, which is the newest job of that id."""
        # submitit's constructor would make tasks that each look for the run folder, and register with sacct.
        base = utils.JobPaths.get_first_id_independent_folder(folder)
        self.run_dir = Path(run_dir) if run_dir is not None else (base / str(job_id)).resolve()
        self.slurm_conf = os.environ.get("SLURM_CONF", "") if slurm_conf is None else slurm_conf
        self._job_id = str(job_id)
        self._tasks = tuple(tasks)
        self._cancel_at_deletion = False
        self._start_time = self._last_status_check = time.time()
        self._paths = RunPaths(self.run_dir, self._job_id, self.task_id)
        self._watch = Watch(self.run_dir, self._job_id, queue_of(self.slurm_conf), just_submitted=just_submitted)
        self._plan: plan.Plan | None = None
        self._sub_jobs = [self._part(task) for task in self._tasks] if len(self._tasks) > 1 else []

    def _part(self, task: int) -> "TrainmasterJob[R]":
        """The same job seen as one of its tasks; it shares the watch, so that many tasks cost no more than one."""
        part: TrainmasterJob[R] = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part._tasks = (task,)
        part._sub_jobs = []
        part._paths = RunPaths(self.run_dir, self._job_id, task)
        return part

    @classmethod
    def of(cls, submission: Submission, *, slurm_conf: str) -> "TrainmasterJob[R]":
        """The job of a submission."""
        return cls(
            submission.run_dir.parent,
            str(submission.job_id),
            range(submission.ranks),
            run_dir=submission.run_dir,
            slurm_conf=slurm_conf,
            just_submitted=True,
        )

    @classmethod
    def of_array(cls, submission: Submission, indices: Sequence[int], *, slurm_conf: str) -> list["TrainmasterJob[R]"]:
        """The jobs of an array's tasks."""
        ranks = range(submission.ranks)
        return [
            cls(
                submission.run_dir.parent,
                f"{submission.job_id}_{index}",
                ranks,
                run_dir=submission.run_dir / str(index),
                slurm_conf=slurm_conf,
                just_submitted=True,
            )
            for index in indices
        ]

    @classmethod
    def from_id(cls, job_id: int | str, folder: Path | str | None = None) -> "TrainmasterJob[R]":
        """A job that was submitted earlier, from any process of the same user.

        Args:
            job_id: Slurm's number.
            folder: The folder it was submitted with; not needed for jobs that this user submitted from this home.

        Raises UsageError when there is no such job.
        """
        found = find(job_id, folder)
        return cls(
            found.run_dir.parent,
            str(found.id),
            range(found.ranks),
            run_dir=found.run_dir,
            slurm_conf=found.slurm_conf,
        )

    # --- how it stands ---------------------------------------------------------------------------------------------

    def events(self) -> tuple[Event, ...]:
        """The job's life so far."""
        return self._watch.events()

    @property
    def state(self) -> str:
        """PENDING, STARTING, RUNNING, RESTARTING, REQUEUED, or how it ended (`record.END_STATES`)."""
        return self._watch.state()

    def get_info(self, mode: str = "force") -> dict[str, str]:
        """The job's state and nodes under the names that sacct gives them."""
        events = self.events()
        return {
            "JobID": self._job_id,
            "State": self.state,
            "NodeList": ",".join(events[-1].nodes) if events else "",
        }

    def done(self, force_check: bool = False) -> bool:
        """Whether the job has ended, in whatever way. A result of an earlier attempt does not count."""
        return self._watch.settle(patience_s=PATIENCE_S if force_check else 0.0) is not None

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the end; returns within a fraction of a second of it.

        While Slurm does not answer, a warning says at intervals what cannot be seen. Raises TimeoutError after
        `timeout_s`, with what is known of the job by then.
        """
        if self._watch.wait(timeout_s=float("inf") if timeout_s is None else timeout_s) is None:
            blind = self._watch.blind()
            raise TimeoutError(
                f"job {self._job_id} has not ended within {timeout_s:g} s; it is "
                + (f"{self._watch.state(patience_s=0.0)}" if blind is None else f"out of sight: {blind}")
            )

    def _ended(self) -> Event:
        end = self._watch.wait()
        assert end is not None, "a wait without a limit ended without an end"
        return end

    def _register_in_watcher(self) -> None:
        """submitit would register with sacct here; the record needs no registration."""

    # --- what came out ---------------------------------------------------------------------------------------------

    @property
    def _is_program(self) -> bool:
        if self._plan is None:
            self._plan = read_plan(self.run_dir, self._job_id)
        return self._plan.program is not None

    def result(self) -> R:
        """Wait for the result of a job of one task; of a program it is None.

        Raises submitit's FailedJobError or UncompletedJobError when the job did not end well.
        """
        if self._is_program:
            return self.results()[0]
        return super().result()

    def results(self) -> list[R]:
        """Wait for the results of all tasks, in the order of their ranks; of a program they are None."""
        end = self._ended()
        failure = self._failure(end)
        if failure is not None:
            raise failure
        if self._is_program:
            nothing: Any = None
            return [nothing for _ in self._tasks]
        folder = self._paths_of_run.cycle_folder(end)
        found = []
        for task in self._tasks:
            outcome, value = self._load(folder / f"rank{task}.result.pkl")
            if outcome != "success":
                raise utils.FailedJobError(f"job {self.job_id}, rank {task}, failed with:\n{value}")
            found.append(value)
        return found

    def exception(self) -> utils.UncompletedJobError | None:
        """Wait for the end; returns what went wrong: state, cause, the rank that failed first and its traceback."""
        return self._failure(self._ended())

    def _failure(self, end: Event) -> utils.UncompletedJobError | None:
        if end.state == "SUCCEEDED":
            return None
        output = self.run_dir / OUTPUT
        text = explain(end, name=self._name, log=output, log_end=logs.tail(output))
        # submitit's two kinds: the user's code failed, or the job never got so far.
        kind = utils.FailedJobError if end.state in ("FAILED_USER", "NO_PROGRESS") else utils.UncompletedJobError
        return kind(text)

    def _get_outcome_and_result(self) -> tuple[str, Any]:
        """submitit's inner door to the result, for those who subclass or call it. It is not meant to wait for the job,
        only for a slow file system."""
        end = self._watch.wait(timeout_s=self._results_timeout_s)
        if end is None:
            raise utils.UncompletedJobError(self._no_output())
        failure = self._failure(end)
        if isinstance(failure, utils.FailedJobError):
            return "error", str(failure)
        if failure is not None:
            raise failure
        if self._is_program:
            return "success", None
        return self._load(self._paths_of_run.cycle_folder(end) / f"rank{self._tasks[0]}.result.pkl")

    def _no_output(self) -> str:
        lines = [f"job {self.job_id} has not produced any output (state: {self.state})"]
        for stream, path in (("Error", self._paths.stderr), ("Output", self._paths.stdout)):
            if text := logs.tail(path).rstrip():
                return "\n".join([*lines, f"{stream} stream produced:", "-" * 40, text])
        return "\n".join([*lines, f"No output/error stream produced ! Check: {self._paths.stdout}"])

    @property
    def _name(self) -> str:
        try:
            return read_plan(self.run_dir, self._job_id).name
        except UsageError:
            return self.run_dir.name

    @property
    def _paths_of_run(self) -> RunPaths:
        assert isinstance(self._paths, RunPaths)
        return self._paths

    def _load(self, path: Path) -> tuple[str, Any]:
        # The end is in the record, so the result was written; a slow file system may show it a little later.
        limit_s = time.monotonic() + self._results_timeout_s
        while not path.exists():
            if time.monotonic() > limit_s:
                raise utils.UncompletedJobError(
                    f"job {self.job_id} succeeded, but its result {path} is not there; was the folder cleaned?"
                )
            time.sleep(0.1)
        return results.load(path)

    # --- what to do with it ----------------------------------------------------------------------------------------

    def cancel(self, check: bool = True) -> None:
        """End the job, and leave word that it was on purpose. Raises SlurmError unless `check` is false."""
        try:
            cancel(self.run_dir, self._job_id, self._watch.queue.client)
            self._watch.hurry()
        except SlurmError as error:
            if check:
                raise
            log.warning("could not cancel job %s: %s", self.job_id, error)

    def _interrupt(self, timeout: bool = False) -> None:
        """Ask for a checkpoint and a requeue, as Slurm does before a time limit or a preemption; for tests. Which of
        the two it is, nobody has to guess here, so `timeout` changes nothing."""
        self._watch.queue.client.signal(self._job_id, "USR2")

    def __del__(self) -> None:
        """Cancel when that was asked for and the job still lives."""
        if getattr(self, "_cancel_at_deletion", False) and self._watch.end() is None:
            self.cancel(check=False)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the watch and the tasks, which are made again."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_watch", "_sub_jobs", "_plan")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Attach to the job again."""
        self.__dict__.update(state)
        self._watch = Watch(self.run_dir, self._job_id, queue_of(self.slurm_conf))
        self._plan = None
        self._sub_jobs = [self._part(task) for task in self._tasks] if len(self._tasks) > 1 else []
