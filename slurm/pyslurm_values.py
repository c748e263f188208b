"""Nodes and jobs from what `pyslurm_child` printed. Pure but for user names; standard library only."""

from collections.abc import Mapping
from typing import Any

from trainmaster.slurm import parse
from trainmaster.slurm.values import Job, Node

Fields = Mapping[str, Any]
_EMPTY = {"(null)", "None", "N/A", "n/a", "Unknown", "none"}


def _text(value: Any) -> str:
    return "" if value is None or str(value) in _EMPTY else str(value)


def _time(value: Any) -> float | None:
    return float(value) if value else None


def node(fields: Fields) -> Node:
    """A node."""
    gres = fields["configured_gres"] or {}
    return Node(
        name=fields["name"],
        state=_text(fields["state"]),
        address=_text(fields["address"]),
        reason=_text(fields["reason"]),
        features=tuple(fields["available_features"] or ()),
        partitions=tuple(fields["partitions"] or ()),
        gres=",".join(f"{kind}:{count}" for kind, count in gres.items()),
        cpus=int(fields["total_cpus"] or 0),
        memory_mib=int(fields["real_memory"] or 0),
        version=_text(fields["slurm_version"]),
        slurmd_start_time=_time(fields["slurmd_start_time"]),
    )


def array_tasks(fields: Fields) -> str:
    """The index of a task, or the list of those that wait together; "" for a job that is no array's.

    pyslurm reads the index 0 as "not set", and leaves out how many may run at once.

    >>> array_tasks({"array_id": 7, "array_tasks_waiting": None, "array_task_id": None, "array_tasks_parallel": None})
    '0'
    """
    if not fields["array_id"]:
        return ""
    waiting, at_once = fields["array_tasks_waiting"], fields["array_tasks_parallel"]
    if waiting:
        return f"{waiting}%{at_once}" if at_once else str(waiting)
    return str(fields["array_task_id"] or 0)


def job(fields: Fields, *, now: float) -> Job:
    """A job; `prefer` is always "", since pyslurm does not tell it."""
    tasks = array_tasks(fields)
    het_job_id = int(fields["heterogeneous_id"] or 0)
    end = _time(fields["end_time"])
    if end is not None and fields["time_limit"] is None and end > now:
        # Without a limit slurmctld counts a year on; squeue shows no end either.
        end = None
    return Job(
        job_id=int(fields["id"]),
        name="" if fields["name"] is None else str(fields["name"]),
        state=_text(fields["state"]),
        reason=_text(fields["state_reason"]),
        user=parse.user_name(int(fields["user_id"] or 0)),
        partition=_text(fields["partition"]),
        nodes=_text(fields["allocated_nodes"]),
        node_count=int(fields["num_nodes"] or 0),
        restarts=int(fields["requeue_count"] or 0),
        requeue=bool(fields["is_requeueable"]),
        exit_code=f"{fields['exit_code'] or 0}:{fields['exit_code_signal'] or 0}",
        submit_time=_time(fields["submit_time"]),
        eligible_time=_time(fields["eligible_time"]),
        start_time=_time(fields["start_time"]),
        end_time=end,
        preempt_time=_time(fields["preempt_time"]),
        excluded_nodes=_text(fields["excluded_nodes"]),
        required_nodes=_text(fields["required_nodes"]),
        features=",".join(fields["constraints"] or ()),
        priority=int(fields["priority"] or 0),
        reservation=_text(fields["reservation"]),
        batch_host=_text(fields["batch_host"]),
        std_out=_text(fields["standard_output"]),
        work_dir=_text(fields["working_directory"]),
        comment=_text(fields["comment"]),
        admin_comment=_text(fields["admin_comment"]),
        array_job_id=int(fields["array_id"] or 0),
        array_tasks=tasks,
        het_job_id=het_job_id,
        # The first part's 0 is "not set" to pyslurm.
        het_offset=int(fields["heterogeneous_offset"] or 0) if het_job_id else None,
        nice=int(fields["nice"] or 0),
        command=_text(fields["command"]),
    )
