"""What a job may spend on faults, and what it has spent, over all of its attempts. Pure; standard library only.

Each restart and requeue is paid from the budget of its cause (`exit_rules.CAUSES`). What was paid stands in the record,
so an attempt, or a supervisor that took over, goes on counting where the one before stopped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from trainmaster.launcher.exit_rules import CAUSES, Kind, Rule
from trainmaster.launcher.intent import NOT_BY_US
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.record import Event

DAY_S = 86400.0
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be spent; from the plan."""

    restarts_max: int
    """Crashes and hangs in any 24 hours."""
    no_progress_max: int
    """Failed cycles in a row without a new step."""
    requeues_max: int
    """Requeues in any 24 hours, those for a preemption, maintenance or a time limit aside; 0 allows none at all."""
    backoff_s: float
    timeouts_max: int | None = None
    """Time limits over the job's life; None: as many as bring new steps, and `requeues_max` others."""
    node_failures_max: int = 10
    """Nodes lost or left out in any 24 hours."""
    no_checkpoint_max: int = 9
    """Failed cycles in a row without a new checkpoint, of a program that is known to write some."""
    rules: tuple[Rule, ...] = ()
    """The person's own rules."""


def limits_of(plan: Plan) -> Limits:
    """The limits of a plan."""
    return Limits(
        restarts_max=plan.restarts_max,
        no_progress_max=plan.no_progress_max,
        requeues_max=plan.requeues_max,
        backoff_s=plan.backoff_s,
        timeouts_max=plan.timeouts_max,
        node_failures_max=node_failures_allowed(plan.node_failures_max, plan.nodes),
        no_checkpoint_max=plan.no_checkpoint_max,
        rules=plan.exit_rules,
    )


def node_failures_allowed(asked: int | None, nodes: int) -> int:
    """How many nodes a job may lose in 24 hours: what was asked for, or a tenth of its nodes, at least ten.

    Two thousand nodes lose thirteen a day where 1,000 lose 6.5 (arXiv 2410.21680, RSC-1).
    """
    return max(10, nodes // 10) if asked is None else asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One fault that was paid for."""

    epoch_s: float
    kind: str
    what: str
    """In a few words: the cause and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What has been spent so far."""

    spent: tuple[Spent, ...] = ()
    no_progress: int = 0
    """Failed cycles in a row without progress."""
    no_checkpoint: int = 0
    """Failed cycles in a row without a new checkpoint."""
    ports_taken: int = 0
    hung_node: str = ""
    """The only suspect of the last hang, if there was one."""
    quick_node: str = ""
    """Where the last start failed, if it failed before it had done anything."""

    def of(self, kind: Kind, now: float) -> tuple[Spent, ...]:
        """What was spent of one kind: time limits over the job's life, all else in the last 24 hours."""
        since = float("-inf") if kind is Kind.TIMEOUT else now - DAY_S
        return tuple(one for one in self.spent if one.kind == kind and one.epoch_s > since)

    @property
    def restarts(self) -> int:
        """Crashes and hangs, whenever they were."""
        return sum(1 for one in self.spent if one.kind == Kind.CRASH)

    def charge(self, kind: Kind, what: str, now: float) -> "Budget":
        """The budget after one more fault."""
        return replace(self, spent=(*self.spent, Spent(epoch_s=now, kind=kind, what=what)))


_LIMIT_OF = {
    Kind.CRASH: "restarts_max",
    Kind.NODE: "node_failures_max",
    Kind.TIMEOUT: "timeouts_max",
    Kind.REQUEUE: "requeues_max",
}
_PLURAL = {
    Kind.CRASH: "crashes and hangs",
    Kind.NODE: "nodes lost or left out",
    Kind.TIMEOUT: "time limits",
    Kind.REQUEUE: "requeues",
}
EXHAUSTED = {
    Kind.CRASH: "restarts_exhausted",
    Kind.NODE: "node_failures_exhausted",
    Kind.TIMEOUT: "timeouts_exhausted",
    Kind.REQUEUE: "requeues_exhausted",
}
"""The cause of an end for want of a budget."""


def overdrawn(budget: Budget, limits: Limits, kinds: Iterable[Kind], now: float) -> tuple[Kind, str] | None:
    """The first of some budgets that is overdrawn, and what was counted, in words; None when none is."""
    for kind in kinds:
        if kind is Kind.FREE:
            continue
        spent = budget.of(kind, now)
        field = _LIMIT_OF[kind]
        allowed = getattr(limits, field)
        if kind is Kind.TIMEOUT and allowed is None:
            # Only those without new steps were charged.
            field, allowed = "requeues_max, for time limits that bring no new step", limits.requeues_max
        if len(spent) > allowed:
            when = "" if kind is Kind.TIMEOUT else " in 24 hours"
            return kind, f"{len(spent)} {_PLURAL[kind]}{when}, where {allowed} are allowed ({field}): {listed(spent)}"
    return None


def listed(spent: Sequence[Spent]) -> str:
    """The last few, with their times.

    >>> listed([Spent(epoch_s=0.0, kind="crash", what="hang"), Spent(epoch_s=60.0, kind="crash", what="rank 1 on n3")])
    '01-01 00:00 hang; 01-01 00:01 rank 1 on n3'
    """
    told = [f"{datetime.fromtimestamp(one.epoch_s, UTC):%m-%d %H:%M} {one.what}" for one in spent[-_SHOWN:]]
    return "; ".join(["…", *told] if len(spent) > _SHOWN else told)


def to_detail(before: Budget, after: Budget) -> dict[str, Any]:
    """For the record: what a decision has changed. `recall` reads it."""
    charged = [[one.kind, one.what] for one in after.spent[len(before.spent) :]]
    counts = {"no_progress": after.no_progress, "no_checkpoint": after.no_checkpoint, "ports_taken": after.ports_taken}
    names = {"hung_node": after.hung_node, "quick_node": after.quick_node}
    return {"charged": charged} | {key: value for key, value in {**counts, **names}.items() if value}


def recall(events: Sequence[Event], *, role: str, replica: int | None, attempt: int) -> Budget:
    """What a group has spent by the record: its own faults, and the requeues and time limits of the whole job."""
    budget = Budget()
    whole = (Kind.REQUEUE, Kind.TIMEOUT)
    told: set[int] = set()
    started = {event.attempt: event.epoch_s for event in reversed(events) if event.state == "STARTING"}
    for event in events:
        if event.state not in ("RESTARTING", "REQUEUED"):
            continue
        own = event.role == "" or (event.role, event.replica) == (role, replica)
        found = event.detail.get("budget")
        # A supervisor of an earlier release said nothing.
        found = found if isinstance(found, Mapping) else {"charged": _by_cause(event)}
        for kind, what in found.get("charged", ()):
            if own or kind in whole:
                budget = budget.charge(Kind(kind), what, event.epoch_s)
        if own and not found.get("keep"):
            names = ("no_progress", "no_checkpoint", "ports_taken", "hung_node", "quick_node")
            budget = replace(budget, **{name: found[name] if name in found else _NOTHING[name] for name in names})
        if event.state == "REQUEUED":
            told.add(event.attempt)
            if event.detail.get("held") or event.detail.get("requeued_by", NOT_BY_US) != NOT_BY_US:
                # Somebody has looked at it, and wants more of it.
                budget = Budget()
    for earlier in range(attempt):
        if earlier not in told:
            # Slurm requeued it by itself, and nobody of ours was left to write that down.
            at_s = started.get(earlier + 1, started.get(earlier, 0.0))
            budget = budget.charge(Kind.REQUEUE, "by Slurm, without a word", at_s)
    return replace(budget, spent=tuple(sorted(budget.spent, key=lambda one: one.epoch_s)))


_NOTHING: dict[str, Any] = {"no_progress": 0, "no_checkpoint": 0, "ports_taken": 0, "hung_node": "", "quick_node": ""}


def _by_cause(event: Event) -> list[list[str]]:
    known = CAUSES.get(event.cause or "")
    if event.state == "REQUEUED" and event.cause == "requeue":
        return []
    kind = known.kind if known is not None else Kind.CRASH
    return [] if kind is Kind.FREE else [[kind, event.cause or ""]]
