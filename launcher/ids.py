"""Job ids as people and Slurm write them: 1234, 1234_5 (a task of an array), 1234+1 (a part of a heterogeneous job)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trainmaster.errors import UsageError
from trainmaster.slurm.values import Job

_ID = re.compile(r"(?P<job>\d+)(?:_(?P<task>\d+)|\+(?P<part>\d+))?", re.ASCII)
_RANGE = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?(?::(?P<step>\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobId:
    """One job, task of an array, or part of a heterogeneous job. `str()` gives what Slurm's commands take."""

    job: int
    """The number that sbatch printed."""
    task: int | None = None
    """The index in the array."""
    part: int | None = None
    """The offset in the heterogeneous job."""

    def __str__(self) -> str:
        if self.task is not None:
            return f"{self.job}_{self.task}"
        return str(self.job) if self.part is None else f"{self.job}+{self.part}"

    @property
    def plain(self) -> int | str:
        """As JSON has it: a number where it is one, as in Slurm's own, else the text.

        >>> parse("7").plain, parse("7_3").plain
        (7, '7_3')
        """
        return self.job if str(self).isdecimal() else str(self)

    def names(self, job: Job) -> bool:
        """Whether this id means that job of the queue. The tasks of an array that wait share one entry there.

        >>> JobId(job=7, task=3).names(Job(job_id=7, array_job_id=7, array_tasks="1-4%2"))
        True
        """
        if self.task is not None:
            return job.array_job_id == self.job and contains(job.array_tasks, self.task)
        if self.part is not None:
            return job.het_job_id == self.job and job.het_offset == self.part
        return job.job_id == self.job


def parse(text: int | str) -> JobId:
    """Read an id. Raises UsageError for what is none.

    >>> parse("1234_5"), str(parse("12+1"))
    (JobId(job=1234, task=5, part=None), '12+1')
    """
    match = _ID.fullmatch(str(text).strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not a job id",
            hint="write 1234, 1234_5 for a task of an array, or 1234+1 for a part of a heterogeneous job",
        )
    task, part = match["task"], match["part"]
    return JobId(
        job=int(match["job"]), task=None if task is None else int(task), part=None if part is None else int(part)
    )


def contains(tasks: str, task: int) -> bool:
    """Whether a list of array indices holds one; without expanding it, since arrays may have a million tasks.

    >>> contains("1-3,10-90:20%4", 50), contains("1-3", 4)
    (True, False)
    """
    for piece in tasks.partition("%")[0].split(","):
        match = _RANGE.fullmatch(piece)
        if match is None:
            continue
        first = int(match["first"])
        last = first if match["last"] is None else int(match["last"])
        if first <= task <= last and (task - first) % int(match["step"] or 1) == 0:
            return True
    return False


def count(tasks: str) -> int:
    """How many indices a list of array indices holds.

    >>> count("1-3,10-90:20%4")
    8
    """
    found = 0
    for piece in tasks.partition("%")[0].split(","):
        match = _RANGE.fullmatch(piece)
        if match is not None:
            last = int(match["last"] or match["first"])
            found += (last - int(match["first"])) // int(match["step"] or 1) + 1
    return found


def expand(pattern: str, job: Job) -> str:
    r"""A file name of sbatch's as Slurm writes it for a job; a task that still waits has its own number only later.

    >>> expand("/jobs/%A/%a/batch%%.out", Job(job_id=9, array_job_id=7, array_tasks="5"))
    '/jobs/7/5/batch%.out'
    """
    values = {
        "j": str(job.job_id),
        "A": str(job.array_job_id or job.job_id),
        "a": job.array_tasks,
        "x": job.name,
        "%": "%",
    }
    return re.sub(r"%([jAax%])", lambda match: values[match[1]], pattern)


def indices(tasks: str) -> Iterator[int]:
    """The indices of such a list, in order of mention.

    >>> list(indices("1-3,10-90:40%4"))
    [1, 2, 3, 10, 50, 90]
    """
    for piece in tasks.partition("%")[0].split(","):
        match = _RANGE.fullmatch(piece)
        if match is not None:
            yield from range(int(match["first"]), int(match["last"] or match["first"]) + 1, int(match["step"] or 1))
