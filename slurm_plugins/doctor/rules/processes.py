"""Processes of jobs: how they are tracked, bound, confined and ended."""

from collections.abc import Iterator

from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity


def _plugin(word: str, kind: str) -> str:
    """`task/cgroup` as well as `cgroup`, which newer releases allow."""
    return word.removeprefix(f"{kind}/")


def _untracked(facts: Facts) -> Iterator[Hit]:
    if facts.text("ProctrackType") and _plugin(facts.text("ProctrackType").lower(), "proctrack") != "cgroup":
        yield Hit(seen=facts.shown("ProctrackType"), mend="ProctrackType=proctrack/cgroup")


def _task_plugins(facts: Facts) -> set[str]:
    return {_plugin(word, "task") for word in facts.words("TaskPlugin")} - {"none"}


def _unconfined(facts: Facts) -> Iterator[Hit]:
    chosen = _task_plugins(facts)
    if "cgroup" not in chosen:
        mend = ",".join(f"task/{word}" for word in sorted({*chosen, "affinity", "cgroup"}))
        yield Hit(seen=facts.shown("TaskPlugin"), mend=f"TaskPlugin={mend}")


def _unbound(facts: Facts) -> Iterator[Hit]:
    chosen = _task_plugins(facts)
    if "cgroup" in chosen and "affinity" not in chosen:
        yield Hit(seen=facts.shown("TaskPlugin"), mend="TaskPlugin=task/affinity,task/cgroup")


def _constrains(facts: Facts, key: str) -> Iterator[Hit]:
    told = facts.cgroup.get(key.lower(), "no").lower()
    if "cgroup" in _task_plugins(facts) and told not in ("yes", "true", "1"):
        yield Hit(seen=f"{key}={told}", mend=f"{key}=yes in cgroup.conf")


def _devices(facts: Facts) -> Iterator[Hit]:
    if facts.gpus:
        yield from _constrains(facts, "ConstrainDevices")


def _unkillable_below(facts: Facts) -> Iterator[Hit]:
    limit_s, message_s = facts.number("UnkillableStepTimeout"), facts.number("MessageTimeout") or 10
    if limit_s is None and facts.version < (24, 5):
        limit_s = 60
    if limit_s is not None and limit_s < 5 * message_s:
        seen = f"UnkillableStepTimeout={limit_s} {facts.shown('MessageTimeout')}"
        yield Hit(seen=seen, mend=f"UnkillableStepTimeout={max(180, 5 * message_s)}")


def _unkillable_short(facts: Facts) -> Iterator[Hit]:
    limit_s, message_s = facts.number("UnkillableStepTimeout"), facts.number("MessageTimeout") or 10
    if limit_s is None:
        limit_s = max(60, 5 * message_s) if facts.version >= (24, 5) else 60
    if facts.gpus and 5 * message_s <= limit_s < 120:
        yield Hit(seen=f"UnkillableStepTimeout={limit_s}", mend="UnkillableStepTimeout=180")


def _no_time_to_die(facts: Facts) -> Iterator[Hit]:
    wait_s = facts.number("KillWait")
    if wait_s is not None and wait_s < 10:
        yield Hit(seen=facts.shown("KillWait"), mend="KillWait=30")


def _long_to_die(facts: Facts) -> Iterator[Hit]:
    wait_s = facts.number("KillWait")
    if wait_s is not None and wait_s > 300:
        yield Hit(seen=facts.shown("KillWait"), mend="KillWait=30")


def _memlock(facts: Facts) -> Iterator[Hit]:
    """Whether the soft limit of locked memory of a login node follows the job."""
    spread, spared = set(facts.words("PropagateResourceLimits")), set(facts.words("PropagateResourceLimitsExcept"))
    raw = facts.settings.get("propagateresourcelimits", "").strip().lower()
    if raw == "none" or spared & {"memlock", "all"} or (spread and not spread & {"memlock", "all"}):
        return
    key = "PropagateResourceLimits" if spread else "PropagateResourceLimitsExcept"
    yield Hit(seen=facts.shown(key), mend="PropagateResourceLimitsExcept=MEMLOCK")


def _frozen(facts: Facts) -> Iterator[Hit]:
    if 0 < (facts.number("InactiveLimit") or 0) < 600:
        yield Hit(seen=facts.shown("InactiveLimit"), mend="InactiveLimit=0")


def _first_to_end(facts: Facts) -> Iterator[Hit]:
    if facts.number("WaitTime"):
        yield Hit(seen=facts.shown("WaitTime"), mend="WaitTime=0")


def _left_waiting(facts: Facts) -> Iterator[Hit]:
    if facts.text("KillOnBadExit") in ("0", ""):
        yield Hit(seen=facts.shown("KillOnBadExit"), mend="KillOnBadExit=1")


RULES = (
    Rule(
        id="proctrack-not-cgroup", severity=Severity.FAULT, setting="ProctrackType",
        why="a process that leaves its parent or its group is not found: it outlives its job and keeps the GPU",
        source="slurm.conf(5), ProctrackType", check=_untracked, real_nodes=True,
    ),
    Rule(
        id="task-not-cgroup", severity=Severity.FAULT, setting="TaskPlugin",
        why="a job is not kept to its cores, memory and GPUs: on a shared node it takes its neighbour's",
        source="slurm.conf(5), TaskPlugin; cgroup.conf(5)", check=_unconfined, real_nodes=True,
    ),
    Rule(
        id="task-not-affinity", severity=Severity.ADVICE, setting="TaskPlugin",
        why="srun --cpu-bind does nothing, and ranks wander away from their GPU's memory",
        source="slurm.conf(5), TaskPlugin", check=_unbound, real_nodes=True,
    ),
    Rule(
        id="cgroup-devices", severity=Severity.FAULT, setting="cgroup.conf",
        why="a job sees all GPUs of its node, and takes the first whatever it was given",
        source="cgroup.conf(5), ConstrainDevices", check=_devices, real_nodes=True,
    ),
    Rule(
        id="cgroup-memory", severity=Severity.FAULT, setting="cgroup.conf",
        why="a job that takes more memory than it asked for brings the kernel to kill anything, slurmd too",
        source="cgroup.conf(5), ConstrainRAMSpace", check=lambda facts: _constrains(facts, "ConstrainRAMSpace"),
        real_nodes=True,
    ),
    Rule(
        id="cgroup-cores", severity=Severity.ADVICE, setting="cgroup.conf",
        why="jobs on a shared node run on one another's cores",
        source="cgroup.conf(5), ConstrainCores", check=lambda facts: _constrains(facts, "ConstrainCores"),
        real_nodes=True,
    ),
    Rule(
        id="unkillable-below-message", severity=Severity.FAULT, setting="UnkillableStepTimeout",
        why="below five times MessageTimeout nodes are drained, `Kill task failed`, that only answer slowly",
        source="slurm.conf(5) of 24.05, UnkillableStepTimeout", check=_unkillable_below,
    ),
    Rule(
        id="unkillable-short", severity=Severity.ADVICE, setting="UnkillableStepTimeout",
        why="a process with GPUs or on slow storage may take minutes to be torn down; its node is drained before",
        source="slurm.conf(5), UnkillableStepTimeout", check=_unkillable_short,
    ),
    Rule(
        id="kill-wait-short", severity=Severity.FAULT, setting="KillWait",
        why="between SIGTERM and SIGKILL there is no time to write what has to be written",
        source="slurm.conf(5), KillWait", check=_no_time_to_die,
    ),
    Rule(
        id="kill-wait-long", severity=Severity.ADVICE, setting="KillWait",
        why="every requeue and every time limit may keep its nodes for so long, with nothing running there",
        source="slurm.conf(5), KillWait; slurmctld's requeue ends jobs in the same way", check=_long_to_die,
    ),
    Rule(
        id="memlock", severity=Severity.FAULT, setting="PropagateResourceLimitsExcept",
        why="the login node's limit of locked memory follows the job, and InfiniBand cannot register its buffers",
        source="slurm.conf(5), PropagateResourceLimits", check=_memlock,
    ),
    Rule(
        id="inactive-limit", severity=Severity.ADVICE, setting="InactiveLimit",
        why="an srun or salloc that is stopped for a while, by a debugger or a slow node, costs its job",
        source="slurm.conf(5), InactiveLimit", check=_frozen,
    ),
    Rule(
        id="wait-time", severity=Severity.ADVICE, setting="WaitTime",
        why="so long after the first task ends srun kills all others, which may still write their checkpoint",
        source="slurm.conf(5), WaitTime", check=_first_to_end,
    ),
    Rule(
        id="kill-on-bad-exit", severity=Severity.ADVICE, setting="KillOnBadExit",
        why="when one task of a plain srun crashes the others wait for it until the time limit; "
        "`trainmaster submit` says what it wants itself",
        source="slurm.conf(5), KillOnBadExit", check=_left_waiting,
    ),
)  # fmt: skip
