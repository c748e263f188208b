"""Queues, time limits, memory and preemption."""

from collections.abc import Iterator

from trainmaster.slurm import versions
from trainmaster.slurm_plugins.doctor.facts import UNSET, Facts, minutes, number
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity

_WINDOW_MIN = 1440
_WINDOW_MOST_MIN = 43200


def _no_backfill(facts: Facts) -> Iterator[Hit]:
    if facts.text("SchedulerType").lower().removeprefix("sched/") != "backfill":
        yield Hit(seen=facts.shown("SchedulerType"), mend="SchedulerType=sched/backfill")


def _window(facts: Facts) -> int:
    told = facts.option("SchedulerParameters", "bf_window") or ""
    return int(told) if told.isdecimal() else _WINDOW_MIN


def _blind(facts: Facts) -> Iterator[Hit]:
    window = _window(facts)
    longest = max((limit for _, limit in facts.time_limits if limit is not None), default=0)
    if min(longest, _WINDOW_MOST_MIN) > window:
        mend = facts.with_word("SchedulerParameters", f"bf_window={min(longest, _WINDOW_MOST_MIN)}")
        yield Hit(seen=f"bf_window={window} min, MaxTime={longest} min", mend=mend)


def _fine(facts: Facts) -> Iterator[Hit]:
    told = facts.option("SchedulerParameters", "bf_resolution") or "60"
    if _window(facts) > 2 * _WINDOW_MIN and told.isdecimal() and int(told) <= 60:
        mend = facts.with_word("SchedulerParameters", "bf_resolution=300")
        yield Hit(seen=f"bf_window={_window(facts)} bf_resolution={told}", mend=mend)


def _from_the_top(facts: Facts) -> Iterator[Hit]:
    if facts.option("SchedulerParameters", "bf_continue") is None:
        yield Hit(seen=facts.shown("SchedulerParameters"), mend=facts.with_word("SchedulerParameters", "bf_continue"))


def _endless(facts: Facts) -> Iterator[Hit]:
    open_ended = [name for name, limit in facts.time_limits if limit is None]
    if open_ended:
        yield Hit(
            seen=f"partition {open_ended[0]} without MaxTime", mend=f"PartitionName={open_ended[0]} … MaxTime=7-0"
        )


def _longest_by_default(facts: Facts) -> Iterator[Hit]:
    for one in facts.partitions:
        most = minutes(one.get("maxtime", ""))
        if most is not None and most > 1440 and one.get("defaulttime", "NONE").lower() in UNSET:
            name = one.get("partitionname", "")
            yield Hit(seen=f"partition {name} without DefaultTime", mend=f"PartitionName={name} … DefaultTime=1:00:00")
            return


def _waits_for_ever(facts: Facts) -> Iterator[Hit]:
    if facts.text("EnforcePartLimits").upper() in ("NO", ""):
        yield Hit(seen=facts.shown("EnforcePartLimits"), mend="EnforcePartLimits=ALL")


def _memory_counts(facts: Facts) -> bool:
    told = facts.words("SelectTypeParameters")
    newer = facts.text("SelectType").lower().endswith("cons_tres") and not told
    return newer or any("memory" in word for word in told)


def _no_memory(facts: Facts) -> Iterator[Hit]:
    if not _memory_counts(facts) and not facts.text("SelectType").lower().endswith("linear"):
        yield Hit(seen=facts.shown("SelectTypeParameters"), mend="SelectTypeParameters=CR_Core_Memory")


def _all_memory(facts: Facts) -> Iterator[Hit]:
    keys = ("DefMemPerNode", "DefMemPerCPU", "DefMemPerGPU")
    if not _memory_counts(facts) or any(facts.number(key) for key in keys):
        return
    for one in facts.partitions:
        named = any(number(one.get(key.lower(), "")) for key in keys)
        if not named and "defmemper" not in one.get("jobdefaults", "").lower():
            name = one.get("partitionname", "")
            yield Hit(seen=f"partition {name} without DefMemPerCPU", mend="DefMemPerCPU=… or DefMemPerGPU=… for all")
            return


def _no_notice(facts: Facts) -> Iterator[Hit]:
    old = "preempt_send_user_signal" in facts.words("SlurmctldParameters")
    new = "send_user_signal" in facts.words("PreemptParameters")
    if facts.preempts and not (old or new):
        if versions.has(facts.version, "preempt_parameters"):
            yield Hit(
                seen=facts.shown("PreemptParameters"), mend=facts.with_word("PreemptParameters", "send_user_signal")
            )
        else:
            mend = facts.with_word("SlurmctldParameters", "preempt_send_user_signal")
            yield Hit(seen=facts.shown("SlurmctldParameters"), mend=mend)


def _preempted_partitions(facts: Facts) -> list[dict[str, str]]:
    """Those whose jobs another partition's may preempt."""
    tiers = [number(one.get("prioritytier", one.get("priority", ""))) or 1 for one in facts.partitions]
    found = []
    for one, tier in zip(facts.partitions, tiers, strict=True):
        mode = one.get("preemptmode", facts.text("PreemptMode")).lower()
        if tier < max(tiers, default=1) and mode not in ("off", ""):
            found.append(dict(one))
    return found


def _no_grace(facts: Facts) -> Iterator[Hit]:
    if not facts.text("PreemptType").lower().endswith("partition_prio"):
        return
    for one in _preempted_partitions(facts):
        if one.get("gracetime", "0") in ("0", ""):
            name = one.get("partitionname", "")
            yield Hit(seen=f"partition {name}: GraceTime=0", mend=f"PartitionName={name} … GraceTime=120")
            return


def _cancelled(facts: Facts) -> Iterator[Hit]:
    modes = {"PreemptMode": facts.text("PreemptMode")} | {
        f"partition {one.get('partitionname', '')}: PreemptMode": one.get("preemptmode", "") for one in facts.partitions
    }
    for where, mode in modes.items():
        if facts.preempts and mode.lower() == "cancel":
            yield Hit(seen=f"{where}={mode}", mend="PreemptMode=REQUEUE")
            return


def _preempt_off(facts: Facts) -> Iterator[Hit]:
    if facts.preempts and facts.text("PreemptMode").lower() in ("off", ""):
        yield Hit(seen=f"{facts.shown('PreemptType')} {facts.shown('PreemptMode')}", mend="PreemptMode=REQUEUE")


def _idle_between(facts: Facts) -> Iterator[Hit]:
    wait_s, kill_s = facts.number("CompleteWait") or 0, facts.number("KillWait") or 30
    if wait_s > kill_s + 2:
        yield Hit(seen=facts.shown("CompleteWait"), mend="CompleteWait=0")


def _past_the_limit(facts: Facts) -> Iterator[Hit]:
    told = facts.settings.get("overtimelimit", "").strip().upper()
    if told in ("UNLIMITED", "INFINITE") or told.startswith(("65533", "65535")):
        yield Hit(seen=f"OverTimeLimit={told}", mend="OverTimeLimit=0")


RULES = (
    Rule(
        id="no-backfill", severity=Severity.FAULT, setting="SchedulerType",
        why="nothing starts past a large job that waits, and the nodes that it gathers stand idle",
        source="slurm.conf(5), SchedulerType", check=_no_backfill,
    ),
    Rule(
        id="backfill-window", severity=Severity.ADVICE, setting="SchedulerParameters",
        why="backfill does not see past its window: long jobs that wait for many nodes are overtaken for ever",
        source="slurm.conf(5), bf_window", check=_blind,
    ),
    Rule(
        id="backfill-resolution", severity=Severity.ADVICE, setting="SchedulerParameters",
        why="a long window in steps of a minute makes each round of backfill slow",
        source="slurm.conf(5), bf_window and bf_resolution", check=_fine,
    ),
    Rule(
        id="backfill-restarts", severity=Severity.ADVICE, setting="SchedulerParameters",
        why="whenever a job or node changes meanwhile backfill begins again at the top, and never gets to the end",
        source="slurm.conf(5), bf_continue", check=_from_the_top,
    ),
    Rule(
        id="partition-endless", severity=Severity.ADVICE, setting="PartitionName",
        why="a job without end fits before no reservation: maintenance waits for its author",
        source="slurm.conf(5), MaxTime; reservations.html", check=_endless,
    ),
    Rule(
        id="partition-default-time", severity=Severity.ADVICE, setting="PartitionName",
        why="who names no time gets the longest: such a job fits into no gap, and waits before each reservation",
        source="slurm.conf(5), DefaultTime", check=_longest_by_default,
    ),
    Rule(
        id="partition-limits-late", severity=Severity.ADVICE, setting="EnforcePartLimits",
        why="a job that its partition can never run is taken, and waits for ever",
        source="slurm.conf(5), EnforcePartLimits", check=_waits_for_ever,
    ),
    Rule(
        id="memory-not-counted", severity=Severity.FAULT, setting="SelectTypeParameters",
        why="jobs on a node are given more memory together than it has",
        source="slurm.conf(5), SelectTypeParameters", check=_no_memory,
    ),
    Rule(
        id="memory-default", severity=Severity.ADVICE, setting="DefMemPerCPU",
        why="a job that names no memory gets all of its node, and nobody else fits beside it",
        source="slurm.conf(5), DefMemPerNode", check=_all_memory,
    ),
    Rule(
        id="preempt-no-notice", severity=Severity.FAULT, setting="PreemptParameters",
        why="a preempted job gets SIGTERM only, not the signal that it asked for with --signal: no checkpoint",
        source="slurm.conf(5), send_user_signal; sbatch(1), --signal", check=_no_notice,
    ),
    Rule(
        id="preempt-no-grace", severity=Severity.ADVICE, setting="PartitionName",
        why="a preempted job has KillWait alone for its checkpoint",
        source="slurm.conf(5), GraceTime", check=_no_grace,
    ),
    Rule(
        id="preempt-cancel", severity=Severity.FAULT, setting="PreemptMode",
        why="a preempted job is lost instead of requeued",
        source="slurm.conf(5), PreemptMode", check=_cancelled,
    ),
    Rule(
        id="preempt-off", severity=Severity.FAULT, setting="PreemptMode",
        why="PreemptType asks for preemption and PreemptMode forbids it: slurmctld does not start",
        source="slurm.conf(5), PreemptMode", check=_preempt_off,
    ),
    Rule(
        id="complete-wait", severity=Severity.ADVICE, setting="CompleteWait",
        why="while any job completes nothing is scheduled in the whole cluster for so long",
        source="slurm.conf(5), CompleteWait", check=_idle_between,
    ),
    Rule(
        id="over-time-limit", severity=Severity.ADVICE, setting="OverTimeLimit",
        why="jobs run past their time limit, and what backfill and reservations expect does not come true",
        source="slurm.conf(5), OverTimeLimit", check=_past_the_limit,
    ),
)  # fmt: skip
