"""The allocation that this process runs in, read from Slurm's variables. Pure; standard library only.

Whoever writes sbatch files says what he wants in `#SBATCH` lines, and Slurm repeats it in the environment: nodes, tasks
on each, GPUs, CPUs. So one line, `exec trainmaster run -- PROGRAM`, needs no options to run what `srun PROGRAM` would.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What Slurm has given, and to whom."""

    job_id: int
    """The job's own number, which each task of an array has too."""
    name: str
    cluster: str
    partition: str
    submit_dir: str
    attempt: int
    """Slurm's restart count."""
    nodes: int
    nodelist: str
    is_batch_step: bool
    """Whether a batch script runs here, which Slurm can start again; else a person works in an allocation."""
    batch_pid: int
    """The process of the batch script, to which `--signal=B:` goes; 0 elsewhere."""
    array: int | None = None
    """The number of the array that it is a task of."""
    task: int | None = None
    """The task's index in the array."""
    tasks_per_node: int | None = None
    """Tasks on each node, where that was asked for."""
    gpus_per_node: int = 0
    cpus_per_node: int = 0
    """CPUs on the node that has fewest."""

    @property
    def id(self) -> str:
        """What people and Slurm call it: 12, or 12_3 for a task of an array."""
        return str(self.job_id) if self.array is None else f"{self.array}_{self.task}"

    @property
    def ranks_per_node(self) -> int:
        """Ranks on each node when nothing else is said: the tasks asked for, else one for each GPU, else one.

        One task on a node with GPUs is how torchrun is started, and there too means one rank for each GPU.
        """
        if self.tasks_per_node is not None and self.tasks_per_node > 1:
            return self.tasks_per_node
        return self.gpus_per_node or 1


def allocation(env: Mapping[str, str]) -> Allocation:
    """The allocation of a process with these variables.

    Raises UsageError outside of one, in a heterogeneous job, and where nodes were given different numbers of tasks.
    """
    job_id = env.get("SLURM_JOB_ID", "")
    if not job_id.isdecimal():
        raise UsageError(
            "could not run the program: this is no Slurm job (SLURM_JOB_ID is not set)",
            hint="write `exec trainmaster run -- PROGRAM` as the last line of an sbatch script, or use "
            "`trainmaster submit`, which writes the script by itself",
        )
    if env.get("SLURM_HET_SIZE", "0") not in ("0", "1"):
        raise UsageError(
            f"could not run the program in job {job_id}: it is heterogeneous, of {env['SLURM_HET_SIZE']} components",
            hint="`trainmaster run` drives one component; `trainmaster template show roles` starts several",
        )
    is_batch_step = "SLURM_TASK_PID" in env and "SLURM_STEP_ID" not in env
    return Allocation(
        job_id=int(job_id),
        name=env.get("SLURM_JOB_NAME", "job"),
        cluster=env.get("SLURM_CLUSTER_NAME", ""),
        partition=env.get("SLURM_JOB_PARTITION", ""),
        submit_dir=env.get("SLURM_SUBMIT_DIR", ""),
        attempt=int(env.get("SLURM_RESTART_COUNT", "0")),
        nodes=int(env.get("SLURM_JOB_NUM_NODES", "1")),
        nodelist=env.get("SLURM_JOB_NODELIST", ""),
        is_batch_step=is_batch_step,
        batch_pid=int(env["SLURM_TASK_PID"]) if is_batch_step else 0,
        array=int(env["SLURM_ARRAY_JOB_ID"]) if "SLURM_ARRAY_TASK_ID" in env else None,
        task=int(env["SLURM_ARRAY_TASK_ID"]) if "SLURM_ARRAY_TASK_ID" in env else None,
        # Inside a step they are the step's, and no word on what the person wants to start now.
        tasks_per_node=_tasks_per_node(env) if "SLURM_STEP_ID" not in env else None,
        gpus_per_node=_gpus_per_node(env),
        cpus_per_node=min(counts(env.get("SLURM_JOB_CPUS_PER_NODE", "")), default=0),
    )


def _tasks_per_node(env: Mapping[str, str]) -> int | None:
    if "SLURM_NTASKS_PER_NODE" in env:
        return int(env["SLURM_NTASKS_PER_NODE"])
    if "SLURM_NTASKS" not in env:
        return None
    found = set(counts(env.get("SLURM_TASKS_PER_NODE", "")))
    if len(found) > 1:
        raise UsageError(
            f"could not lay out ranks: --ntasks={env['SLURM_NTASKS']} gave the nodes different numbers of tasks "
            f"({env['SLURM_TASKS_PER_NODE']})",
            hint="write `#SBATCH --ntasks-per-node=N` instead of --ntasks",
        )
    return found.pop() if found else None


def _gpus_per_node(env: Mapping[str, str]) -> int:
    here = int(env.get("SLURM_GPUS_ON_NODE", "0"))
    total = env.get("SLURM_GPUS", "").rpartition(":")[2]
    if total.isdecimal() and int(total) != here * int(env.get("SLURM_JOB_NUM_NODES", "1")):
        raise UsageError(
            f"could not lay out ranks: --gpus={env['SLURM_GPUS']} gave the nodes different numbers of GPUs "
            f"({here} on this one)",
            hint="write `#SBATCH --gpus-per-node=N` instead of --gpus",
        )
    return here


def counts(text: str) -> tuple[int, ...]:
    """Numbers by node, as Slurm folds them; those that repeat are given once.

    >>> counts("64(x3),32")
    (64, 32)
    """
    return tuple(int(number) for number in re.findall(r"(\d+)(?:\(x\d+\))?(?:,|$)", text))


# What sbatch's options or an outer step leave behind and srun would obey. They shape tasks, and an agent is not one of
# them: with --gpus-per-task=1, for example, the one agent of a node would be given one of its GPUs.
_SHAPES_STEPS = re.compile(
    r"SLURM_(?:STEP.*|NTASKS.*|NPROCS|TASKS_PER_NODE|CPUS_PER_TASK|GPUS_PER_TASK|GPUS_PER_SOCKET|TRES_PER_TASK|"
    r"TRES_BIND|GPU_BIND|CPU_BIND.*|MEM_BIND.*|DISTRIBUTION|ARBITRARY_NODELIST|HOSTFILE|PROCID|LOCALID|NODEID|GTIDS|"
    r"LAUNCH_NODE_IPADDR|SRUN_COMM_.*|TASK_PID|PTY_.*|OVERLAP|EXACT|WHOLE|HINT|THREADS_PER_CORE)|SRUN_.*"
)


def step_environment(env: Mapping[str, str], found: Allocation) -> dict[str, str]:
    """The environment in which the supervisor starts agents: one a node, with all that the job has there."""
    kept = {key: value for key, value in env.items() if not _SHAPES_STEPS.fullmatch(key)}
    if "SLURM_GPUS_PER_TASK" in env or "SLURM_TRES_PER_TASK" in env:
        # A step inherits this from the job as well, unless it says itself how many it wants (seen on 22.05.8).
        kept["SLURM_GPUS_PER_NODE"] = str(found.gpus_per_node)
    if not found.is_batch_step:
        # The step, or whatever else holds the allocation, has taken its CPUs.
        kept |= {"SLURM_OVERLAP": "1", "SLURM_RESTART_COUNT": str(found.attempt)}
        kept |= {"SLURM_JOB_NUM_NODES": str(found.nodes), "SLURM_NNODES": str(found.nodes)}
        kept |= {"SLURM_JOB_NODELIST": found.nodelist, "SLURM_JOB_NAME": found.name}
    return kept


def cluster_of(conf: str) -> str:
    """What a login shell of the same cluster would have as SLURM_CONF, given what a job has. "" when it is not set.

    slurmd sets it for every job, also where nobody else needs it: to the usual file, or to its own copy of the
    configuration, which other machines do not have.

    >>> [cluster_of(conf) for conf in ("/etc/slurm/slurm.conf", "/spool/conf-cache/slurm.conf", "/lab/slurm.conf")]
    ['', '', '/lab/slurm.conf']
    """
    usual = ("/etc/slurm/", "/etc/slurm-llnl/", "/run/slurm/")
    return "" if conf.startswith(usual) or "conf-cache" in Path(conf).parts else conf
