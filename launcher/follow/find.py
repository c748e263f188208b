"""From a job id to its run folder, from any shell: by the folder it was submitted with, or by the user's own list."""

import os
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import UsageError
from trainmaster.launcher import ids, plan, record
from trainmaster.launcher.follow import index
from trainmaster.launcher.script import lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a job's files are, and on which cluster it runs."""

    id: ids.JobId
    run_dir: Path
    plan: plan.Plan
    slurm_conf: str
    tasks: str = ""
    """The indices of an array that was found as a whole; "" for one of its tasks and for every other job."""

    @property
    def job_id(self) -> str:
        """As Slurm's commands take it."""
        return str(self.id)

    @property
    def ranks(self) -> int:
        """How many ranks it has."""
        return self.plan.nodes * self.plan.tasks_per_node

    def task(self, number: int) -> "Found":
        """One task of an array."""
        one = ids.JobId(job=self.id.job, task=number)
        run_dir = self.run_dir / str(number)
        return Found(id=one, run_dir=run_dir, plan=read_plan(run_dir, one), slurm_conf=self.slurm_conf)


def find(job_id: int | str, folder: Path | str | None = None) -> Found:
    """The job of that id; of several that had it, the newest on the cluster that SLURM_CONF names.

    Args:
        job_id: Slurm's number; `1234_5` for a task of an array, `1234+1` for a part of a heterogeneous job.
        folder: The folder it was submitted with, or its run folder; not needed for what this user submitted from this
            home, but for one of several lines of a script.

    Raises UsageError when there is none, or its folder is gone.
    """
    one = ids.parse(job_id)
    run_dir, conf, tasks = _linked(one, Path(folder)) if folder is not None else _listed(one)
    if one.task is not None:
        if tasks and not ids.contains(tasks, one.task):
            raise UsageError(f"could not find job {one}: the array {one.job} has the tasks {tasks}")
        task_dir = run_dir / str(one.task)
        if (run_dir / plan.FILE).exists() and not task_dir.exists() and plan.array_of(task_dir) is None:
            raise UsageError(f"could not find job {one}: job {one.job} is not an array")
        run_dir, tasks = run_dir / str(one.task), ""
    return Found(id=one, run_dir=run_dir, plan=read_plan(run_dir, one), slurm_conf=conf, tasks=tasks)


def _linked(one: ids.JobId, folder: Path) -> tuple[Path, str, str]:
    link = folder.expanduser() / str(one.job)
    run_dir = link.resolve()
    # Of a task that sbatch started, and `trainmaster run` in it.
    own = folder.expanduser() / str(one)
    if not link.is_symlink() and not own.is_symlink() and (folder.expanduser() / plan.FILE).exists():
        return _itself(one, folder.expanduser().resolve())
    if one.task is not None and own.exists():
        run_dir = own.resolve().parent
    if not run_dir.is_dir():
        raise UsageError(
            f"could not find job {one}: there is no {link}",
            hint="a job from plain sbatch appears there at its first start; until then only squeue knows it",
        )
    return _entered(one, run_dir)


def _itself(one: ids.JobId, run_dir: Path) -> tuple[Path, str, str]:
    """What is known of a job by its run folder: of a script with several lines each has one."""
    events = record.read(run_dir)
    if events and str(events[0].job_id) not in (str(one), str(one.job)):
        raise UsageError(f"could not find job {one}: {run_dir} is the run folder of job {events[0].job_id}")
    of_task = one.task is not None and run_dir.name == str(one.task)
    return _entered(one, run_dir.parent if of_task else run_dir)


def _entered(one: ids.JobId, run_dir: Path) -> tuple[Path, str, str]:
    for entry in index.newest_first(index.path(), job=one.job):
        if entry.uid == run_dir.name:
            return run_dir, entry.slurm_conf, entry.tasks
    return run_dir, os.environ.get("SLURM_CONF", ""), ""


def _listed(one: ids.JobId) -> tuple[Path, str, str]:
    entry = index.find(one.job, index.path(), slurm_conf=os.environ.get("SLURM_CONF", ""), task=one.task)
    if entry is None:
        raise UsageError(
            f"could not find job {one}: it is not in {index.path()}",
            hint="`trainmaster jobs list` shows this user's jobs; for others give --folder. A job from plain sbatch "
            "appears at its first start; until then only squeue knows it",
        )
    return _begun_last(Path(entry.run_dir), one, entry.cluster), entry.slurm_conf, entry.tasks


def _begun_last(run_dir: Path, one: ids.JobId, cluster: str) -> Path:
    """Of a batch script with several lines, each with a run folder, that of the line that has begun last.

    Only where such a line has left its note: a link may lead to another cluster's job of that number.
    """
    linked = (run_dir.parent / str(one)).resolve()
    note = lines.read(linked)
    if note is None or note.get("job_id") != str(one) or cluster not in ("", note.get("cluster")):
        return run_dir
    return linked if one.task is None else linked.parent


def read_plan(run_dir: Path, job_id: ids.JobId | int | str) -> plan.Plan:
    """The plan of a run folder. Raises UsageError when the folder is gone or is none."""
    try:
        return plan.read(run_dir)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"could not read what job {job_id} was: {run_dir / plan.FILE}: {error}",
            hint="the run folder was moved or removed, or is on a file system that this machine does not have",
        ) from None
