"""Asks pyslurm one question and prints the answer as JSON: a process of its own, since pyslurm may end it by a signal.

`python -m trainmaster.slurm.pyslurm_child release|nodes|jobs [JOB]`. What goes wrong stands on stderr in Slurm's words.
"""

import importlib
import json
import sys
from typing import Any

_NODE = (
    *("name", "state", "address", "reason", "available_features", "partitions", "configured_gres", "total_cpus"),
    *("real_memory", "slurm_version", "slurmd_start_time"),
)
_JOB = (
    *("id", "name", "state", "state_reason", "user_id", "partition", "allocated_nodes", "num_nodes", "requeue_count"),
    *("is_requeueable", "exit_code", "exit_code_signal", "submit_time", "eligible_time", "start_time", "end_time"),
    *("preempt_time", "excluded_nodes", "required_nodes", "constraints", "priority", "reservation", "batch_host"),
    *("standard_output", "working_directory", "comment", "admin_comment", "array_id", "array_task_id", "nice"),
    *("array_tasks_waiting", "array_tasks_parallel", "heterogeneous_id", "heterogeneous_offset", "command"),
    "time_limit",
)


def _values(one: Any, names: tuple[str, ...]) -> dict[str, Any]:
    # A release that lacks an attribute leaves the field empty, as one that does not print it does.
    return {name: getattr(one, name, None) for name in names}


def _belongs(job: Any, number: int) -> bool:
    return number in (job.id, job.array_id, job.heterogeneous_id)


def answer(pyslurm: Any, question: str, number: int | None) -> Any:
    """What pyslurm says, as JSON knows it. `number`: of jobs only that one, its tasks and its parts."""
    if question == "release":
        return str(pyslurm.__version__)
    if question == "nodes":
        return [_values(node, _NODE) for node in pyslurm.Nodes.load().values()]
    jobs = pyslurm.Jobs.load().values()
    return [_values(job, _JOB) for job in jobs if number is None or _belongs(job, number)]


def main(question: str, job: str = "") -> None:
    """Print the answer. Whatever is raised, also by pyslurm's C parts, reaches the one who asked in one line."""
    sys.excepthook = lambda kind, error, trace: sys.stderr.write(f"{kind.__name__}: {error}\n") and None
    pyslurm = importlib.import_module("pyslurm")
    sys.stdout.write(json.dumps(answer(pyslurm, question, int(job) if job else None)))


if __name__ == "__main__":
    main(*sys.argv[1:])
