"""From a job id to its run folder, from any shell: by the folder it was submitted with, or by the user's own list."""

import os
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import UsageError
from trainmaster.launcher import index, plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a job's files are, and on which cluster it runs."""

    job_id: int
    run_dir: Path
    plan: plan.Plan
    slurm_conf: str

    @property
    def ranks(self) -> int:
        """How many ranks it has."""
        return self.plan.nodes * self.plan.tasks_per_node


def find(job_id: int | str, folder: Path | str | None = None) -> Found:
    """The job of that id; of several that had it, the newest on the cluster that SLURM_CONF names.

    Args:
        job_id: Slurm's number.
        folder: The folder it was submitted with; not needed for what this user submitted from this home.

    Raises UsageError when there is none, or its folder is gone.
    """
    text = str(job_id)
    if not text.isdecimal():
        raise UsageError(f"{job_id!r} is not a job id", hint="a job id is a number, as squeue shows it")
    number = int(text)
    conf = os.environ.get("SLURM_CONF", "")
    if folder is not None:
        link = Path(folder).expanduser() / text
        run_dir = link.resolve()
        if not run_dir.is_dir():
            raise UsageError(f"could not find job {number}: there is no {link}")
    else:
        entry = index.find(number, index.path(), slurm_conf=conf)
        if entry is None:
            raise UsageError(
                f"could not find job {number}: it is not in {index.path()}",
                hint="`trainmaster jobs list` shows this user's jobs; for others give --folder",
            )
        run_dir, conf = Path(entry.run_dir), entry.slurm_conf
    return Found(job_id=number, run_dir=run_dir, plan=read_plan(run_dir, number), slurm_conf=conf)


def read_plan(run_dir: Path, job_id: int) -> plan.Plan:
    """The plan of a run folder. Raises UsageError when the folder is gone or is none."""
    try:
        return plan.read(run_dir)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"could not read what job {job_id} was: {run_dir / plan.FILE}: {error}",
            hint="the run folder was moved or removed, or is on a file system that this machine does not have",
        ) from None
