"""What to do after a cycle has ended: succeed, restart in place, requeue, or stop. Pure."""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from trainmaster.launcher.supervise.hang import Hang

EXIT_REQUEUE = 75
"""The rank wrote its checkpoint and asks for a requeue (sysexits' EX_TEMPFAIL)."""
EXIT_EXCLUDE_NODE = 85
"""The rank asks for a restart without its node."""
EXIT_NEVER_REQUEUE = 93
"""The rank asks never to be run again (as nvidia-resiliency-ext has it)."""

MIN_UPTIME_S = 60.0
"""A cycle of a program that reports no steps counts as progress when it lived this long."""

# How the peers of a dead rank fail. Such a traceback is the echo, not the shot.
_ECHO = re.compile(
    r"Connection reset by peer|Connection closed by peer|Connection refused|Broken pipe|"
    r"NCCL (remote|communicator|operation)|ncclRemoteError|ncclSystemError|DistStoreError|"
    r"wait timeout after|Timed out waiting|recvValue failed|Socket Timeout|Software caused connection abort"
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_PORT_TAKEN = re.compile(r"EADDRINUSE|Address already in use|address already in use")


class Action(StrEnum):
    """What the supervisor does next."""

    SUCCEED = "succeed"
    RESTART = "restart"
    REQUEUE = "requeue"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExit:
    """How one rank ended."""

    rank: int
    node: str
    code: int
    """Exit code; -N after signal N, as subprocess has it."""
    epoch_s: float
    stopped: bool = False
    """We had told it to stop, so its way of ending says nothing."""
    raised: bool = False
    """A submitted callable raised an exception."""
    oom: bool = False
    """The kernel killed it, or a helper of it, for want of memory; its counters say so."""
    text: str = ""
    """Its traceback, or the end of what it wrote to stderr."""

    @property
    def failed(self) -> bool:
        """It ended badly by itself."""
        return self.code != 0 and not self.stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a cycle ended."""

    world_size: int
    exits: tuple[RankExit, ...] = ()
    lost: dict[str, str] = field(default_factory=dict)
    """Nodes lost in this cycle -> node_death or node_silent."""
    ending: str | None = None
    """Why the whole job is ending (user, requeue, timeout, preemption, node_failure), when somebody asked for that."""
    advanced: bool = False
    """A step was reported that no earlier cycle had reached."""
    steps_known: bool = False
    """The program reports steps at all."""
    uptime_s: float = 0.0
    hang: Hang | None = None
    """Ranks stopped moving; nothing else was wrong."""
    suspects: tuple[tuple[int, str], ...] = ()
    """Rank and node of those that held the others up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What has been spent so far."""

    restarts: int = 0
    no_progress: int = 0
    """Failed cycles in a row without progress."""
    ports_taken: int = 0
    hung_node: str = ""
    """The only suspect of the last hang, if there was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be spent; from the plan."""

    restarts_max: int
    no_progress_max: int
    requeues_max: int
    backoff_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, why, and what it costs."""

    action: Action
    cause: str
    state: str = ""
    """The end state, when the action is END or SUCCEED."""
    exclude: tuple[str, ...] = ()
    """Nodes that must not be used again."""
    delay_s: float = 0.0
    budget: Budget = field(default_factory=Budget)
    failure: RankExit | None = None
    """The rank that failed first."""


def first_failure(exits: tuple[RankExit, ...]) -> RankExit | None:
    """The rank whose end made the others end: the earliest, echoes of a broken connection last."""
    failures = [entry for entry in exits if entry.failed]
    return min(failures, key=lambda entry: (bool(_ECHO.search(entry.text)), entry.epoch_s), default=None)


def cycle_is_over(outcome: Outcome) -> bool:
    """Whether anything happened that the other ranks cannot survive, or all ranks are done."""
    failed = any(entry.failed for entry in outcome.exits)
    return bool(outcome.lost) or failed or _all_done(outcome)


def _all_done(outcome: Outcome) -> bool:
    return sum(1 for entry in outcome.exits if entry.code == 0) == outcome.world_size


def end_state(cause: str) -> str:
    """The end state of a job that somebody ended."""
    return {"user": "CANCELLED", "timeout": "TIMED_OUT", "preemption": "PREEMPTED"}.get(cause, "FAILED_INFRA")


def decide(outcome: Outcome, budget: Budget, limits: Limits, *, attempt: int, healthy: int, wanted: int) -> Decision:
    """What to do after `outcome`, with `healthy` nodes left of which `wanted` are needed.

    `attempt` is how many requeues were spent (`record.requeues_spent`).
    """
    failure = first_failure(outcome.exits)
    codes = {entry.code for entry in outcome.exits if entry.failed}
    if _all_done(outcome):
        return Decision(action=Action.SUCCEED, cause="program", state="SUCCEEDED", budget=budget)
    if outcome.ending == "requeue":
        # Whoever asked for it is obeyed; it is no fault, and costs no budget.
        return Decision(action=Action.REQUEUE, cause="requeue", budget=budget)
    # After a preemption or a node failure Slurm itself means to run the job again, checkpoint or not.
    if (EXIT_REQUEUE in codes and outcome.ending != "user") or outcome.ending in ("preemption", "node_failure"):
        cause = outcome.ending or "requested"
        state = "TIMED_OUT" if cause == "requested" else end_state(cause)
        return _requeue(cause, state, budget, limits, attempt=attempt, failure=None)
    if outcome.ending is not None:
        state = end_state(outcome.ending)
        if failure is not None and failure.code == EXIT_REQUEUE:
            failure = None  # it did what it was asked for
        return Decision(action=Action.END, cause=outcome.ending, state=state, budget=budget, failure=failure)
    if EXIT_NEVER_REQUEUE in codes:
        return Decision(action=Action.END, cause="never_requeue", state="FAILED_USER", budget=budget, failure=failure)
    excluded = tuple(entry.node for entry in outcome.exits if entry.failed and entry.code == EXIT_EXCLUDE_NODE)
    if outcome.lost or excluded:
        return _without_nodes(outcome, excluded, budget, limits, attempt=attempt, healthy=healthy, wanted=wanted)
    if failure is None and outcome.hang is not None:
        return _after_hang(outcome, budget, limits, enough=healthy > wanted)
    if failure is None:
        # Every rank was stopped, by nobody who told us why.
        return Decision(action=Action.END, cause="node_failure", state="FAILED_INFRA", budget=budget)
    return _after_crash(outcome, failure, budget, limits)


def _requeue(
    cause: str,
    state: str,
    budget: Budget,
    limits: Limits,
    *,
    attempt: int,
    failure: RankExit | None,
    exclude: tuple[str, ...] = (),
) -> Decision:
    # A preemption is nobody's fault and says nothing of the job, so it is for free.
    free = cause == "preemption" and limits.requeues_max > 0
    if attempt >= limits.requeues_max and not free:
        return Decision(
            action=Action.END, cause="requeues_exhausted", state=state, budget=budget, failure=failure, exclude=exclude
        )
    return Decision(action=Action.REQUEUE, cause=cause, budget=budget, failure=failure, exclude=exclude)


def _without_nodes(
    outcome: Outcome,
    excluded: tuple[str, ...],
    budget: Budget,
    limits: Limits,
    *,
    attempt: int,
    healthy: int,
    wanted: int,
) -> Decision:
    """Nodes are gone, or asked to be left out. A lost node costs no crash budget: it is not the program's fault."""
    cause = next(iter(outcome.lost.values()), "exclude_node")
    gone = (*outcome.lost, *excluded)
    failure = None if outcome.lost else first_failure(outcome.exits)
    if healthy - len(set(excluded) - set(outcome.lost)) < wanted:
        return _requeue(cause, "FAILED_INFRA", budget, limits, attempt=attempt, failure=failure, exclude=gone)
    return Decision(action=Action.RESTART, cause=cause, exclude=gone, budget=budget, failure=failure)


def _after_crash(outcome: Outcome, failure: RankExit, budget: Budget, limits: Limits) -> Decision:
    if _DISK_FULL.search(failure.text):
        # The next cycle would only fill what is left.
        return Decision(action=Action.END, cause="disk_full", state="FAILED_INFRA", budget=budget, failure=failure)
    if _PORT_TAKEN.search(failure.text) and budget.ports_taken < 5:
        spent = replace(budget, ports_taken=budget.ports_taken + 1)
        return Decision(action=Action.RESTART, cause="port_taken", budget=spent)
    spent = _spend(outcome, budget)
    if failure.raised and not outcome.steps_known:
        # A submitted callable is a future: what it raises is its result, as with submitit.
        state = "OUT_OF_MEMORY" if failure.oom else "FAILED_USER"
        return Decision(action=Action.END, cause="program", state=state, budget=spent, failure=failure)
    if not failure.oom:
        return _restart("rank_crash", spent, limits, failure=failure)
    decision = _restart("out_of_memory", spent, limits, failure=failure)
    return decision if decision.action is Action.RESTART else replace(decision, state="OUT_OF_MEMORY")


def _after_hang(outcome: Outcome, budget: Budget, limits: Limits, *, enough: bool) -> Decision:
    """Ranks had to be killed because they did not move. One node that is alone under suspicion twice is left out."""
    nodes = {node for _, node in outcome.suspects}
    only = nodes.pop() if len(nodes) == 1 else ""
    spent = replace(_spend(outcome, budget), hung_node=only)
    again = bool(only) and only == budget.hung_node and enough
    return _restart("hang", spent, limits, exclude=(only,) if again else ())


def _spend(outcome: Outcome, budget: Budget) -> Budget:
    """One restart more, and whether it brought the job further."""
    progressed = outcome.advanced if outcome.steps_known else outcome.uptime_s >= MIN_UPTIME_S
    no_progress = 0 if progressed else budget.no_progress + 1
    return replace(budget, restarts=budget.restarts + 1, no_progress=no_progress, hung_node="")


def _restart(
    cause: str, spent: Budget, limits: Limits, *, failure: RankExit | None = None, exclude: tuple[str, ...] = ()
) -> Decision:
    if spent.restarts > limits.restarts_max:
        # A hang may have either kind of cause, and nobody's exception says which.
        state = "FAILED_USER" if failure is not None else "FAILED_INFRA"
        return Decision(action=Action.END, cause="restarts_exhausted", state=state, budget=spent, failure=failure)
    if spent.no_progress >= limits.no_progress_max and failure is not None and failure.rank < 0:
        # No rank ever ran: that is not the program's fault.
        return Decision(action=Action.END, cause="start", state="FAILED_INFRA", budget=spent, failure=failure)
    if spent.no_progress >= limits.no_progress_max:
        return Decision(action=Action.END, cause="no_progress", state="NO_PROGRESS", budget=spent, failure=failure)
    # The first restart is free; only a loop has to slow down.
    delay_s = limits.backoff_s * 2 ** (spent.no_progress - 2) if spent.no_progress > 1 else 0.0
    return Decision(
        action=Action.RESTART,
        cause=cause,
        budget=spent,
        failure=failure,
        exclude=exclude,
        delay_s=min(delay_s, 60.0),
    )
