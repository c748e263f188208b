"""What a researcher asks for: `JobSpec` and its faults. Pure."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from trainmaster.errors import SpecError
from trainmaster.launcher import exit_rules as rules
from trainmaster.launcher import placement as placements
from trainmaster.launcher import runner as runners
from trainmaster.launcher.container import Container
from trainmaster.launcher.exit_rules import Rule
from trainmaster.launcher.placement import Placement
from trainmaster.launcher.submit.interpreter import is_container
from trainmaster.launcher.submit.origin import Traced
from trainmaster.launcher.submit.spec_env import ENV_NAME, environment_faults
from trainmaster.launcher.submit.timelimit import Duration, seconds_of

DEFAULT_SIGNAL_S = 90
"""Slurm's signal comes up to 60 s early (sbatch(1), `--signal`), so 90 s leave at least that much for a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec(Traced):
    """What a job needs and how much trouble it may survive. `validate()` names every fault at once.

    >>> JobSpec(nodes=16, gpus_per_node=8, time="2d", spares=1).allocated_nodes
    17
    """

    name: str | None = None
    """The job's name in Slurm; by default that of the function or program."""
    nodes: int = 1
    """Nodes that run ranks at any one time."""
    spares: int = 0
    """Nodes allocated on top, that take over when one dies."""
    refill: bool = False
    """Ask Slurm for another node whenever one is lost, by a job of one node that joins this one."""
    refill_wait_s: float = 60.0
    """How long a job that has too few nodes left keeps them and waits for such a node, before it is requeued."""
    tasks_per_node: int | None = None
    """Ranks on each node; by default one for each GPU, or one."""
    gpus_per_node: int | str | None = None
    """A number, or Slurm's "type:number"."""
    cpus_per_task: int | None = None
    """CPUs of one rank."""
    mem: int | str | None = None
    """Memory of one node: "64G", or a number of MiB. "0" is all of it."""
    time: Duration | None = None
    """Time limit; by default the partition's."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    """Node features, in Slurm's syntax: "h100&ib"."""
    exclude: str | None = None
    """Nodes never to use, as a hostlist; nodes that fail are added to it when the job is requeued."""
    exclusive: bool | str = False
    """Whole nodes only; or Slurm's "user", "mcs" or "topo"."""
    placement: Placement | None = None
    """Pods and leaves of the fabric to keep to, and the mesh that ranks are ordered for (docs/fabric-placement.md)."""
    runner: str | None = None
    """How ranks are started: "agent", "torchrun", "srun" or "mpi"; by default agent, or what the next two need."""
    mpi: str | None = None
    """Slurm's MPI plug-in for the ranks: "pmix". It makes the runner mpi."""
    container: Container | None = None
    """What ranks run in; the supervisor stays outside."""
    restarts_max: int = 10
    """Crashes and hangs that a restart may answer, in any 24 hours."""
    requeues_max: int = 10
    """Times in any 24 hours that the job may go back to the queue; preemptions, maintenance and time limits do not
    count. 0 forbids it whatever the cause."""
    timeouts_max: int | None = None
    """Time limits that the job may run into, all in all; by default as many as bring new steps, and ten others."""
    node_failures_max: int | None = None
    """Nodes that the job may lose in any 24 hours; by default a tenth of its nodes, at least ten."""
    no_progress_max: int = 3
    """Failed cycles in a row without a new step, after which the job stops."""
    no_checkpoint_max: int = 9
    """Failed cycles in a row without a new checkpoint, after which a job stops that uses trainmaster.Checkpoints."""
    exit_rules: tuple[Rule | str, ...] = ()
    """What follows from the end of ranks, before our own rules: (Rule(code=(3,), then="hold"),), or as text."""
    exclude_for_s: float = 86400.0
    """How long a node that failed this job is left out when it is requeued."""
    jump: Mapping[str, float] = field(default_factory=dict)
    """Names of reported values, as patterns, and how many median absolute deviations above their median are a jump
    that stops the job: {"loss": 30}."""
    jump_window: int = 64
    """Samples, one a second at most, from which a jump's median is taken."""
    backoff_s: float = 1.0
    """Pause before the restart that follows a cycle without progress; it doubles each time."""
    heartbeat_timeout_s: float = 5.0
    """Silence after which a node counts as dead."""
    hang_timeout_s: float | None = None
    """Least time without a step that counts as a hang, for programs that report steps: by default half an hour, or ten
    minutes outside of sections for a program that names them. 0 looks for none."""
    quiet_timeout_s: float | None = None
    """For programs that report no steps: how long all ranks together may write nothing to their output before that
    counts as a hang; by default however long."""
    idle_timeout_s: float | None = None
    """The same for using no processor (a rank that waits in NCCL does use one)."""
    memory_copies: str | int | None = None
    """What copies of ranks' states may take in a node's memory (`Checkpoints(memory_every=…)`): bytes, or a size such
    as "64G"; by default a quarter of the job's memory there. 0 for none."""
    stragglers: str = "observe"
    """Ranks that take longer outside of collectives than the others: "observe" tells, "swap" also puts a spare in their
    node's place at a checkpoint, "off" does not look."""
    straggler_window_s: float = 10.0
    """How long ranks are compared at a time."""
    straggler_windows: int = 5
    """In how many windows on end a rank must be slow to count as a straggler."""
    diagnose: str = "never"
    """"on_suspicion": after a hang, a straggler or a crash that comes again, all nodes are checked and meet in pairs
    before the ranks go on, and whoever is to blame is left out as far as there are spares."""
    diagnose_limit_s: float = 120.0
    """How long that may take."""
    stop_grace_s: float = 2.0
    """From SIGTERM to SIGKILL when ranks are stopped."""
    checkpoint_signal_s: int | None = None
    """How long before the time limit ranks are asked for a checkpoint; by default 90 s, or a quarter of a shorter
    limit. 0 asks for none."""
    warm: bool = True
    """Start Python ranks from a process that has already imported what they import."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for the ranks."""
    env_defaults: Mapping[str, str] = field(default_factory=dict)
    """Variables for the ranks that have no value yet: not from the shell that submits, not from setup lines."""
    export: tuple[str, ...] | None = None
    """Names of variables that the job takes along of the shell that submits it, as patterns: ("DATA_*", "!DEBUG");
    besides an allow-list of what programs need and read (docs/cluster-profile.md). ("*",) is everything."""
    secrets: Mapping[str, str] | tuple[str, ...] = field(default=(), repr=False)
    """Variables for the ranks that travel in a file of mode 0600: values, or names of variables set here."""
    snapshot: str | None = None
    """"git": run a copy of the tracked files as they are at submission, also after a requeue."""
    snapshot_dirty: str = "include"
    """What a snapshot does with tracked files that differ from the commit: "include" or "refuse"."""
    profile: str | None = None
    """The cluster profile to take defaults from; by default that of the partition."""
    setup: tuple[str, ...] = ()
    """Shell lines that run on the first node before anything else; what they export reaches every rank."""
    teardown: tuple[str, ...] = ()
    """Shell lines that run on the first node after everything else, however it ended; not when that node died."""
    srun_args: tuple[str, ...] = ()
    """Further arguments of the srun that starts one agent a node: ("--cpu-bind=none",)."""
    stderr_to_stdout: bool = False
    """One log file a rank instead of one for each of its streams."""
    array_parallelism: int = 256
    """Tasks of an array that may run at the same time."""
    sbatch: Mapping[str, Any] = field(default_factory=dict)
    """Further options of sbatch by their long name: {"licenses": "matlab:1", "contiguous": True}."""
    python: str | None = None
    """The interpreter on the nodes, or a command of several words that stands for it ("nice -n 5 python3"); by default
    the one that submits."""

    @property
    def ranks_per_node(self) -> int:
        """Ranks on each node."""
        return self.tasks_per_node or gpu_count(self.gpus_per_node) or 1

    @property
    def allocated_nodes(self) -> int:
        """Nodes to ask Slurm for: those that run and the spares."""
        return self.nodes + self.spares

    @property
    def chosen_runner(self) -> str:
        """The runner, also when none was named."""
        return runners.choose(self.runner, self.mpi, self.container)

    @property
    def time_limit_s(self) -> float | None:
        """The time limit in seconds; infinity for none at all, None when the partition decides."""
        return None if self.time is None else seconds_of(self.time)

    @property
    def signal_lead_s(self) -> int:
        """Seconds before the time limit at which a checkpoint is asked for."""
        if self.checkpoint_signal_s is not None:
            return self.checkpoint_signal_s
        limit_s = self.time_limit_s
        return DEFAULT_SIGNAL_S if limit_s is None or math.isinf(limit_s) else min(DEFAULT_SIGNAL_S, int(limit_s) // 4)

    def faults(self) -> tuple[str, ...]:
        """Everything that is wrong with this spec, one sentence each; nothing when it can be submitted."""
        return tuple(_faults(self))

    def validate(self) -> None:
        """Raise SpecError with all faults."""
        if faults := self.faults():
            raise SpecError(faults)


# --- faults -----------------------------------------------------------------------------------------------------------

_ONE_LINE = ("name", "partition", "account", "qos", "reservation", "constraint", "exclude", "python", "profile")
# field: (least value, may be None)
_WHOLE = {
    "nodes": (1, False),
    "spares": (0, False),
    "tasks_per_node": (1, True),
    "cpus_per_task": (1, True),
    "restarts_max": (0, False),
    "requeues_max": (0, False),
    "timeouts_max": (0, True),
    "node_failures_max": (0, True),
    "no_progress_max": (1, False),
    "no_checkpoint_max": (1, False),
    "jump_window": (16, False),
    "straggler_windows": (1, False),
    "checkpoint_signal_s": (0, True),
    "array_parallelism": (1, False),
}
# Agents report each second, so less than two seconds of silence says nothing.
_SECONDS = {
    "backoff_s": 0.0,
    "heartbeat_timeout_s": 2.0,
    "stop_grace_s": 0.0,
    "exclude_for_s": 0.0,
    "refill_wait_s": 0.0,
    "straggler_window_s": 1.0,
    "diagnose_limit_s": 15.0,
    **dict.fromkeys(("hang_timeout_s", "quiet_timeout_s", "idle_timeout_s"), 0.0),
}
# Those that may be left open.
_SECONDS_OR_NONE = ("hang_timeout_s", "quiet_timeout_s", "idle_timeout_s")

# What the launcher itself tells every rank. MASTER_ADDR and the like would break the rendezvous.
RANK_ENV = {
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("SUBMITIT_EXECUTOR", "SUBMITIT_FOLDER"),
}
RANK_ENV_PREFIXES = ("TORCHELASTIC_", "TRAINMASTER_", "SLURM_")

_OPTION = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# Options of sbatch that have a field of their own here.
FIELD_OF_OPTION = {
    "job-name": "name",
    "nodes": "nodes",
    "ntasks": "tasks_per_node",
    "ntasks-per-node": "tasks_per_node",
    "gpus-per-node": "gpus_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem",
    "time": "time",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "reservation": "reservation",
    "constraint": "constraint",
    "exclude": "exclude",
    "exclusive": "exclusive",
    "signal": "checkpoint_signal_s",
    "mpi": "mpi",
    "container-image": "container",
    "container-mounts": "container",
}
# Arguments of srun on which the agents depend.
_OUR_SRUN_ARGS = {
    *("-N", "--nodes", "-n", "--ntasks", "--ntasks-per-node", "-k", "--no-kill", "-K", "--kill-on-bad-exit"),
    *("-W", "--wait", "-i", "--input", "-w", "--nodelist", "-m", "--distribution", "--mpi"),
}
# Options on which restarts, logs or the job's own script depend.
_OUR_OPTIONS = {
    *("array", "error", "export", "export-file", "help", "input", "no-kill", "no-requeue", "open-mode", "output"),
    *("parsable", "requeue", "test-only", "usage", "version", "wait", "wrap"),
}


def gpu_count(gpus: int | str | None) -> int:
    """How many GPUs `gpus_per_node` means; 0 for none, or a text that is a fault."""
    if isinstance(gpus, str):
        number = gpus.rpartition(":")[2]
        return int(number) if number.isdecimal() else 0
    return gpus or 0


def bytes_of(size: object) -> int | None:
    """Bytes of a size; None stays. Raises ValueError.

    >>> bytes_of("64G"), bytes_of(4096), bytes_of(None)
    (68719476736, 4096, None)
    """
    if size is None or (_is_whole(size) and isinstance(size, int) and size >= 0):
        return size
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", size, re.IGNORECASE) if isinstance(size, str) else None
    if found is None:
        raise ValueError(f'must be a number of bytes or a size such as "64G", it is {size!r}')
    return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _faults(spec: JobSpec) -> Iterator[str]:
    yield from _number_faults(spec)
    yield from _word_faults(spec)
    yield from runners.faults(spec)
    yield from rules.faults(spec.exit_rules)
    yield from placements.faults(spec.placement, nodes=spec.nodes, ranks_per_node=spec.ranks_per_node)
    yield from _jump_faults(spec.jump)
    yield from _time_faults(spec)
    yield from _env_faults("env", spec.env)
    yield from _env_faults("env_defaults", spec.env_defaults)
    yield from environment_faults(export=spec.export, secrets=spec.secrets, is_free=_is_free)
    yield from _lines_faults("setup", spec.setup)
    yield from _lines_faults("teardown", spec.teardown)
    yield from _srun_faults(spec.srun_args)
    yield from _sbatch_faults(spec.sbatch)
    yield from _refill_faults(spec)


def _number_faults(spec: JobSpec) -> Iterator[str]:
    for name, (least, optional) in _WHOLE.items():
        value = getattr(spec, name)
        if value is None and optional:
            continue
        if not _is_whole(value):
            yield f"{name} must be a whole number, it is {value!r}"
        elif value < least:
            yield f"{name} must be at least {least}, it is {value}"
    for name, least_s in _SECONDS.items():
        value = getattr(spec, name)
        if value is None and name in _SECONDS_OR_NONE:
            continue
        if not _is_number(value) or not math.isfinite(value):
            yield f"{name} must be a number of seconds, it is {value!r}"
        elif value < least_s:
            yield f"{name} must be at least {least_s:g} s, it is {value:g}"
    gpus = spec.gpus_per_node
    if isinstance(gpus, str) and not re.fullmatch(r"[A-Za-z][\w.-]*:[0-9]+", gpus):
        yield f'gpus_per_node must be a number or "type:number" such as "h100:8", it is {gpus!r}'
    elif gpus is not None and not isinstance(gpus, str) and (not _is_whole(gpus) or gpus < 0):
        yield f"gpus_per_node must be a whole number, not negative, it is {gpus!r}"


def _word_faults(spec: JobSpec) -> Iterator[str]:
    for name in _ONE_LINE:
        value = getattr(spec, name)
        if value is not None:
            yield from _one_line_faults(name, value)
    if isinstance(spec.python, str) and is_container(spec.python):
        yield (
            f"python must not start a container, it is {spec.python!r}: the supervisor needs Slurm's commands, so it "
            "stays outside; give a program, and `container`"
        )
    mem = spec.mem
    if isinstance(mem, str):
        if not re.fullmatch(r"\d+(?:[KMGT]B?)?", mem, re.IGNORECASE):
            yield f'mem must be a number of MiB or a size such as "64G", it is {mem!r}'
    elif mem is not None and (not _is_whole(mem) or mem < 0):
        yield f'mem must be a number of MiB or a size such as "64G", it is {mem!r}'
    try:
        bytes_of(spec.memory_copies)
    except ValueError as error:
        yield f"memory_copies {error}"
    if not isinstance(spec.exclusive, bool) and spec.exclusive not in ("user", "mcs", "topo"):
        yield f'exclusive must be true, false, "user", "mcs" or "topo", it is {spec.exclusive!r}'
    if spec.snapshot not in (None, "git"):
        yield f'snapshot must be "git" or none, it is {spec.snapshot!r}'
    if spec.snapshot_dirty not in ("include", "refuse"):
        yield f'snapshot_dirty must be "include" or "refuse", it is {spec.snapshot_dirty!r}'
    if spec.stragglers not in ("off", "observe", "swap"):
        yield f'stragglers must be "off", "observe" or "swap", it is {spec.stragglers!r}'
    if spec.diagnose not in ("never", "on_suspicion"):
        yield f'diagnose must be "never" or "on_suspicion", it is {spec.diagnose!r}'
    for name in ("warm", "stderr_to_stdout", "refill"):
        if not isinstance(value := getattr(spec, name), bool):
            yield f"{name} must be true or false, it is {value!r}"


def _one_line_faults(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} must be text, it is {value!r}"
    elif not value.strip():
        yield f"{name} must not be empty"
    elif any(ord(character) < 32 or ord(character) == 127 for character in value):
        yield f"{name} must be one line without control characters, it is {value!r}"


def _time_faults(spec: JobSpec) -> Iterator[str]:
    if spec.time is None:
        return
    if not isinstance(spec.time, str | int | float | timedelta):
        yield f"time must be text, minutes or a timedelta, it is {spec.time!r}"
        return
    try:
        limit_s = seconds_of(spec.time)
    except ValueError as error:
        yield f"time: {error}"
        return
    lead_s = spec.checkpoint_signal_s
    if _is_whole(lead_s) and lead_s is not None and lead_s >= limit_s:
        yield (
            f"checkpoint_signal_s ({lead_s}) must be less than the time limit ({limit_s:g} s), "
            "else ranks are asked to stop as soon as they start"
        )


def _refill_faults(spec: JobSpec) -> Iterator[str]:
    if spec.refill is not True:
        return
    if spec.chosen_runner != runners.AGENT:
        yield (
            f"refill must be false with the runner {spec.chosen_runner!r}: its ranks are one Slurm step, which cannot "
            "take in a node of another job"
        )
    for given in spec.sbatch:
        if option_name(given) in ("nodelist", "nodefile"):
            yield f"refill must be false with the option {given!r}: another node than those would join"


def _jump_faults(jump: object) -> Iterator[str]:
    if not isinstance(jump, Mapping):
        yield f'jump must map names of reported values to numbers, such as {{"loss": 30}}, it is {jump!r}'
        return
    for name, limit in jump.items():
        if not isinstance(name, str) or not name:
            yield f"jump: {name!r} is no name of a reported value"
        if not _is_number(limit) or not math.isfinite(limit) or limit < 3:
            yield f"jump: {name} must be a number of median absolute deviations, at least 3, it is {limit!r}"


def _is_free(name: str) -> bool:
    """Whether a variable is the user's to give."""
    return not (name in RANK_ENV or name.startswith(RANK_ENV_PREFIXES))


def _env_faults(field_name: str, env: object) -> Iterator[str]:
    if not isinstance(env, Mapping):
        yield f"{field_name} must map names to values, it is {env!r}"
        return
    for name, value in env.items():
        if not isinstance(name, str) or not ENV_NAME.fullmatch(name):
            yield f"{field_name}: {name!r} is not a name of a variable (letters, digits and _, not first a digit)"
        elif not _is_free(name):
            yield f"{field_name}: {name} is set by trainmaster or Slurm for each rank and cannot be given"
        if not isinstance(value, str):
            yield f"{field_name}: the value of {name} must be text, it is {value!r}"
        elif "\0" in value:
            yield f"{field_name}: the value of {name} holds a NUL byte"


def _lines_faults(name: str, lines: object) -> Iterator[str]:
    if isinstance(lines, str) or not isinstance(lines, tuple | list):
        yield f"{name} must be a list of shell lines, it is {lines!r}"
        return
    for line in lines:
        if not isinstance(line, str):
            yield f"{name}: each line must be text, one is {line!r}"
        elif "\n" in line or "\0" in line:
            yield f"{name}: give each line on its own, {line!r} holds a line break or a NUL byte"
        elif re.match(r"\s*#\s*SBATCH\b", line):
            yield f"{name}: {line!r} is an option of sbatch; it belongs in `sbatch`"


def _srun_faults(arguments: object) -> Iterator[str]:
    if isinstance(arguments, str) or not isinstance(arguments, tuple | list):
        yield f"srun_args must be a list of arguments, it is {arguments!r}"
        return
    for argument in arguments:
        if not isinstance(argument, str) or "\0" in argument:
            yield f"srun_args: each argument must be text, one is {argument!r}"
        elif argument.partition("=")[0] in _OUR_SRUN_ARGS:
            yield f"srun_args: {argument!r} is set by trainmaster, which starts one agent a node with it"


def _sbatch_faults(options: object) -> Iterator[str]:
    if not isinstance(options, Mapping):
        yield f"sbatch must map options to values, it is {options!r}"
        return
    for given, value in options.items():
        name = option_name(given) if isinstance(given, str) else ""
        if not _OPTION.fullmatch(name) or len(name) < 2:
            yield f"sbatch: {given!r} is not a long option of sbatch"
        elif name in FIELD_OF_OPTION:
            yield f"sbatch: --{name} is the field `{FIELD_OF_OPTION[name]}` of the spec; give it there"
        elif name in _OUR_OPTIONS:
            yield f"sbatch: --{name} is set by trainmaster; restarts, logs and results depend on it"
        if value is not True and not isinstance(value, str) and not _is_number(value):
            yield f"sbatch: the value of {given} must be text, a number or true, it is {value!r}"
        elif isinstance(value, str):
            yield from _one_line_faults(f"sbatch: the value of {given}", value)


def option_name(given: str) -> str:
    """The long name of an option of sbatch, however it was written.

    >>> option_name("mail_type"), option_name("--mail-type")
    ('mail-type', 'mail-type')
    """
    return given.removeprefix("--").replace("_", "-")
