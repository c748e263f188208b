"""Jobs from squeue's text, parts of which users write: names, comments, folders, with line breaks if they like.

Each field is followed by a mark that nobody can know before squeue runs, so what users write ends no field and no
record. `scontrol show job` has no such marks: a name with a line break makes up another user's job there, and one with
` UserId=` another owner (22.05.8). Standard library only.
"""

import os
import re

from trainmaster.slurm import parse
from trainmaster.slurm.values import Job

FIELDS = (
    "JobID", "Name", "UserName", "State", "Reason", "Partition", "Nodelist", "NumNodes", "RestartCnt", "Requeue",
    "exit_code", "SubmitTime", "EligibleTime", "StartTime", "EndTime", "PreemptTime", "ReqNodes", "Feature", "Prefer",
    "PriorityLong", "Reservation", "BatchHost", "STDOUT", "WorkDir", "Comment", "admin_comment", "ArrayJobID",
    "ArrayTaskID", "HetJobID", "HetJobOffset", "Nice", "Command",
)  # fmt: skip
"""What squeue is asked for, by its own names (`squeue --Format`)."""
_EMPTY = {"", "(null)", "N/A", "n/a", "Unknown", "None", "none"}
_PATTERN = re.compile(r"%([Aajux])")


def new_mark() -> str:
    """A mark for one question. It begins with a letter, since digits would go to the field's width."""
    return f"x{os.urandom(8).hex()}x"


def asked(mark: str) -> str:
    """The value of `--Format`: every field as long as it is, and the mark behind it."""
    return ",".join(f"{field}:0{mark}" for field in FIELDS)


def asked_exclusions(mark: str) -> str:
    """The value of `--format`, which alone knows ExcNodeList, and little else."""
    return f"%A{mark}%x{mark}"


def jobs(text: str, mark: str) -> tuple[Job, ...]:
    """The jobs of what squeue printed. Raises ValueError when the fields do not add up to whole records."""
    return tuple(_job(values) for values in _records(text, mark, len(FIELDS)))


def exclusions(text: str, mark: str) -> dict[int, str]:
    """By job, its ExcNodeList, of those that have one. Raises ValueError as `jobs` does."""
    return {parse.integer(number.strip()): names for number, names in _records(text, mark, 2) if names not in _EMPTY}


def _records(text: str, mark: str, width: int) -> list[list[str]]:
    # What stands behind the last mark of a record is the end of its line.
    *values, rest = text.split(mark)
    if len(values) % width or rest.strip():
        raise ValueError(f"{len(values)} fields and {rest[:80]!r}, where each job has {width}")
    return [values[start : start + width] for start in range(0, len(values), width)]


def _job(fields: list[str]) -> Job:
    # A job may be called "None".
    value = {name: "" if text in _EMPTY and name != "Name" else text for name, text in zip(FIELDS, fields, strict=True)}
    job_id = parse.integer(value["JobID"].strip())
    # Of a job that is no array the master is the job itself.
    tasks = value["ArrayTaskID"]
    array_job_id = parse.integer(value["ArrayJobID"]) if tasks else 0
    patterns = {"A": str(array_job_id or job_id), "a": tasks, "j": str(job_id)}
    patterns |= {"u": value["UserName"], "x": value["Name"]}
    return Job(
        job_id=job_id,
        name=value["Name"],
        state=value["State"],
        reason=value["Reason"],
        user=value["UserName"],
        partition=value["Partition"],
        nodes=value["Nodelist"],
        node_count=parse.integer(value["NumNodes"]),
        restarts=parse.integer(value["RestartCnt"]),
        requeue=value["Requeue"] != "0",
        exit_code=exit_code(value["exit_code"]),
        submit_time=parse.epoch_s(value["SubmitTime"]),
        eligible_time=parse.epoch_s(value["EligibleTime"]),
        start_time=parse.epoch_s(value["StartTime"]),
        end_time=parse.epoch_s(value["EndTime"]),
        preempt_time=parse.epoch_s(value["PreemptTime"]),
        required_nodes=value["ReqNodes"],
        features=value["Feature"],
        prefer=value["Prefer"],
        priority=parse.integer(value["PriorityLong"]),
        reservation=value["Reservation"],
        batch_host=value["BatchHost"],
        # scontrol fills these in, squeue does not; the rest of sbatch's patterns neither does.
        std_out=_PATTERN.sub(lambda found: patterns[found[1]], value["STDOUT"]),
        work_dir=value["WorkDir"],
        comment=value["Comment"],
        admin_comment=value["admin_comment"],
        array_job_id=array_job_id,
        array_tasks=tasks,
        het_job_id=parse.integer(value["HetJobID"]),
        het_offset=parse.integer(value["HetJobOffset"]) if value["HetJobOffset"] else None,
        nice=parse.integer(value["Nice"]),
        command=value["Command"],
    )


def exit_code(text: str) -> str:
    """Exit code and signal as Slurm's other commands print them; squeue has wait(2)'s number.

    >>> exit_code("768"), exit_code("9"), exit_code("1:0")
    ('3:0', '0:9', '1:0')
    """
    return f"{int(text) >> 8 & 0xFF}:{int(text) & 0x7F}" if text.isdecimal() else text
