"""What the submitter leaves for the supervisor: one JSON file in the run folder. Standard library only."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from trainmaster.launcher import exit_rules as rules
from trainmaster.launcher import placement as placements
from trainmaster.launcher.container import Container, from_value
from trainmaster.launcher.placement import Placement

FILE = "plan.json"
REFILL = "refill.sbatch"
"""The batch script of a refill, but for its last line (`supervise/refill`)."""
TASKS = "tasks.json"
"""In the folder of an array: what each of its tasks runs (`array_layout`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the job's own processes know of its spec."""

    uid: str
    name: str
    run_dir: str
    python: str
    """The interpreter of agents, fork servers and Python ranks."""
    nodes: int
    """Nodes that run ranks; `spares` more are allocated."""
    spares: int = 0
    tasks_per_node: int = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | str | None = None
    runner: str = "agent"
    """How ranks are started (`runner`)."""
    mpi: str = "none"
    """srun's --mpi for the step of the ranks."""
    container: Container | None = None
    """What ranks run in."""
    placement: Placement | None = None
    """The mesh that ranks are ordered for."""
    link_health: str = ""
    """The site's file of bad links; "" for the usual one (`fabric/link_health`)."""
    program: tuple[str, ...] | None = None
    """The command of a rank; None when `submitted.pkl` holds a Python callable."""
    import_path: tuple[str, ...] = ()
    """Where the modules of a callable are imported from, besides the working folder: its submitting script's folder."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables that the submitter adds to every rank."""
    env_defaults: dict[str, str] = field(default_factory=dict)
    """Variables for ranks that have no value yet (`rank_env.base_environment`)."""
    cwd: str = ""
    """The ranks' working folder; "" for that of the submission."""
    code_root: str = ""
    """The working tree that the code was copied from; "" when ranks run it where it is."""
    code_dir: str = ""
    """The copy."""
    code_paths: tuple[str, ...] = ()
    """Folders in the copy that go before all others on Python's path."""
    exclude: str = ""
    """The submitter's own `--exclude`; what we exclude later is added to it."""
    warm: bool = True
    """Fork Python ranks from a process that has imported what they import."""
    memory_copies: int | None = None
    """Bytes that copies of ranks' states may take in a node's memory; None for a share of it, 0 for none."""
    heartbeat_timeout_s: float = 5.0
    hang_timeout_s: float | None = None
    """Least time without a step that counts as a hang; None for ours, 0 to look for none."""
    quiet_timeout_s: float | None = None
    """How long all ranks may write nothing; None: however long."""
    idle_timeout_s: float | None = None
    """How long all ranks may use no processor; None: however long."""
    stragglers: str = "observe"
    """What is done about ranks that are slower than the others: off, observe or swap."""
    straggler_window_s: float = 10.0
    straggler_windows: int = 5
    """Windows on end after which a slow rank is a straggler."""
    diagnose: str = "never"
    """Whether nodes are looked at between two cycles: never or on_suspicion."""
    diagnose_limit_s: float = 120.0
    restarts_max: int = 10
    """Crashes and hangs that are answered by a restart in place, in any 24 hours."""
    requeues_max: int = 10
    timeouts_max: int | None = None
    node_failures_max: int | None = None
    no_progress_max: int = 3
    """Failed cycles in a row that brought no new step; then the job stops."""
    no_checkpoint_max: int = 9
    """Failed cycles in a row that brought no new checkpoint, where the program tells of them."""
    exit_rules: tuple[rules.Rule, ...] = ()
    """The person's own rules for what follows from the end of a cycle."""
    refill: bool = False
    """Ask Slurm for another node when one is lost (`supervise/refill`)."""
    refill_wait_s: float = 60.0
    """How long a job with too few nodes keeps them and waits for such a node, before it is requeued."""
    exclude_for_s: float = 86400.0
    """How long a node is left out after it failed this job."""
    jump: dict[str, float] = field(default_factory=dict)
    """Pattern of reported values -> median absolute deviations that are a jump."""
    jump_window: int = 64
    backoff_s: float = 1.0
    """Pause before a restart that follows a cycle without progress; doubles each time."""
    stop_grace_s: float = 2.0
    """From SIGTERM to SIGKILL when ranks are stopped."""
    checkpoint_signal_s: int = 90
    """How long before the time limit Slurm sends SIGUSR2 to the supervisor."""
    array: str = ""
    """The indices of the array that this is, or is a task of: "0-9,12"."""
    srun_args: tuple[str, ...] = ()
    """Further arguments of the srun that starts the agents."""
    stderr_to_stdout: bool = False
    """Ranks write both streams into one file."""
    start_timeout_s: float = 120.0
    """How long the first agents may take to report."""
    roles: tuple[str, ...] = ()
    """Of a job of roles their names, in the order of its components; each has a plan of its own in its folder."""
    agent_per_rank: bool = False
    """Each rank has an agent of its own, so that it can be restarted alone."""


def write(run_dir: Path, plan: Plan) -> None:
    """Leave the plan in the run folder."""
    (run_dir / FILE).write_text(json.dumps(asdict(plan), indent=1) + "\n")


def read(run_dir: Path) -> Plan:
    """The plan of a run folder; a field that this version does not know is ignored.

    A task of an array that has not started has no run folder yet; its plan is known all the same.
    """
    try:
        values: dict[str, Any] = json.loads((run_dir / FILE).read_text())
    except FileNotFoundError:
        if (array_dir := array_of(run_dir)) is None:
            raise
        return of_task(array_dir, int(run_dir.name))
    known = {entry.name for entry in fields(Plan)}
    values = {key: value for key, value in values.items() if key in known}
    for key in ("program", "import_path", "srun_args", "roles", "code_paths"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    if values.get("container") is not None:
        values["container"], _ = from_value(values["container"])
    values["placement"], _ = placements.from_value(values.get("placement"))
    values["exit_rules"] = tuple(filter(None, (rules.from_value(one)[0] for one in values.get("exit_rules", ()))))
    return Plan(**values)


def array_of(run_dir: Path) -> Path | None:
    """The array's folder, when `run_dir` is or will be the run folder of one of its tasks."""
    return run_dir.parent if run_dir.name.isdecimal() and (run_dir.parent / TASKS).exists() else None


def of_task(array_dir: Path, index: int) -> Plan:
    """The plan of an array's task. Raises ValueError when the array has no such task."""
    tasks = json.loads((array_dir / TASKS).read_text())
    if str(index) not in tasks:
        raise ValueError(f"the array in {array_dir} has no task {index}")
    program = tasks[str(index)].get("program")
    whole = read(array_dir)
    return replace(
        whole,
        uid=f"{whole.uid}-{index}",
        run_dir=str(array_dir / str(index)),
        program=None if program is None else tuple(program),
    )
