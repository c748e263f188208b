"""What Slurm tells, as frozen values. Fields that a Slurm version does not print are empty, never an error."""

from dataclasses import dataclass

# The states in which a job holds or waits for nodes (squeue(1), "JOB STATE CODES").
ACTIVE_STATES = frozenset(
    {
        "PENDING",
        "RUNNING",
        "CONFIGURING",
        "COMPLETING",
        "SUSPENDED",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "SIGNALING",
        "STAGE_OUT",
        "STOPPED",
        "SPECIAL_EXIT",
        "EXPEDITING",
        "RESV_DEL_HOLD",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as slurmctld sees it. Times are seconds since the epoch, None when not set."""

    job_id: int
    name: str = ""
    state: str = ""
    """Slurm's own word; `scontrol` may show COMPLETING for a job that is also something else."""
    reason: str = ""
    user: str = ""
    partition: str = ""
    nodes: str = ""
    """A hostlist, "" while pending."""
    node_count: int = 0
    """How many it has, or asks for at least."""
    restarts: int = 0
    requeue: bool = True
    """Whether Slurm may start it again."""
    exit_code: str = ""
    submit_time: float | None = None
    eligible_time: float | None = None
    start_time: float | None = None
    end_time: float | None = None
    preempt_time: float | None = None
    excluded_nodes: str = ""
    """Of `jobs` always "": squeue has to be asked once more for it."""
    required_nodes: str = ""
    features: str = ""
    """The constraint that it was submitted with."""
    prefer: str = ""
    """The constraint that Slurm tries first (`--prefer`)."""
    priority: int = 0
    reservation: str = ""
    batch_host: str = ""
    std_out: str = ""
    work_dir: str = ""
    comment: str = ""
    admin_comment: str = ""
    """What only administrators can write."""
    array_job_id: int = 0
    """The number that sbatch printed for the array that this is a task of; 0 for other jobs."""
    array_tasks: str = ""
    """The task's index; of tasks that wait together, a list such as `2-9,12%4`."""
    het_job_id: int = 0
    """The number that sbatch printed for the heterogeneous job that this is a part of; 0 for other jobs."""
    het_offset: int | None = None
    nice: int = 0
    command: str = ""
    """The script's path, where sbatch was given one."""

    @property
    def active(self) -> bool:
        """Whether the job is not over. A state that we do not know counts as active: not knowing is not an end."""
        return self.state not in ENDED_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One start of a job, as the accounts have it. Times are seconds since the epoch, None when not set."""

    job_id: int
    state: str = ""
    """Slurm's word, without who cancelled it; REQUEUED for a start that another followed."""
    start_time: float | None = None
    end_time: float | None = None
    nodes: str = ""
    """A hostlist."""
    exit_code: str = ""


ENDED_STATES = frozenset(
    {
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "TIMEOUT",
        "NODE_FAIL",
        "PREEMPTED",
        "OUT_OF_MEMORY",
        "BOOT_FAIL",
        "DEADLINE",
        "REVOKED",
        "LAUNCH_FAILED",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node as slurmctld sees it."""

    name: str
    state: str = ""
    """For example IDLE, MIXED, ALLOCATED+DRAIN, DOWN*; `*` means that it does not answer."""
    address: str = ""
    reason: str = ""
    features: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    gres: str = ""
    cpus: int = 0
    memory_mib: int = 0
    version: str = ""
    slurmd_start_time: float | None = None
    """When its slurmd was started; seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition."""

    name: str
    nodes: str = ""
    total_nodes: int = 0
    up: bool = True
    default: bool = False
    max_time: str = ""
    default_time: str = ""
    """The time limit of jobs that name none; "" when that is `max_time`."""
    default_memory: str = ""
    """DefMemPerNode or DefMemPerCPU, as scontrol prints it: "DefMemPerCPU=4096" (MiB)."""
    job_defaults: str = ""
    """DefCpuPerGPU and the like, as slurm.conf has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Nodes that are kept for somebody, or for maintenance. Times are seconds since the epoch."""

    name: str
    nodes: str = ""
    """A hostlist; "" when it reserves something else than nodes."""
    partition: str = ""
    start_time: float | None = None
    end_time: float | None = None
    flags: tuple[str, ...] = ()
    state: str = ""
    """ACTIVE or INACTIVE."""
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()

    @property
    def maintenance(self) -> bool:
        """Whether nobody's jobs shall run there."""
        return "MAINT" in self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """When a job would start if it were submitted now (`sbatch --test-only`)."""

    start_time: float
    nodes: str
    partition: str
