"""What to do after a cycle has ended: find the rule that fits, see whether its budget allows it. Pure.

Four things stand above all rules: ranks that are all done, somebody who cancels or requeues the job, and 93.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from trainmaster.launcher.exit_rules import CAUSES, EXIT_REQUEUE, Kind, Rule, Then, in_order
from trainmaster.launcher.search import Search
from trainmaster.launcher.supervise.budget import EXHAUSTED, Budget, Limits, overdrawn
from trainmaster.launcher.supervise.symptom import Outcome, RankExit, Symptom, all_done, fits, symptom_of

MIN_UPTIME_S = 60.0
"""A cycle of a program that reports no steps counts as progress when it lived this long."""
BACKOFF_MAX_S = 60.0
DEAD_S = 900.0
"""For so long the death of a node is one death, however often it is told."""


class Action(StrEnum):
    """What the supervisor does next."""

    SUCCEED = "succeed"
    RESTART = "restart"
    REQUEUE = "requeue"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, why, and what it costs."""

    action: Action
    cause: str
    state: str = ""
    """The end state, when the action is END or SUCCEED."""
    exclude: tuple[str, ...] = ()
    """Nodes that must not be used again."""
    doubtful: tuple[str, ...] = ()
    """Those of them that are only left out to see whether it helps: no later attempt has to do without them."""
    delay_s: float = 0.0
    budget: Budget = field(default_factory=Budget)
    failure: RankExit | None = None
    """The rank that failed first."""
    hold: bool = False
    """Requeue the job, but held until somebody releases it."""
    rule: str = ""
    """The person's own rule that was followed."""
    why: str = ""
    """What was counted, when a budget is spent; else empty."""
    given_up: tuple[str, ...] = ()
    """Expressions of the person's rules that took too long to look for, and so count as not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """All that a decision is made of."""

    outcome: Outcome
    symptom: Symptom
    budget: Budget
    limits: Limits
    now: float
    healthy: int
    wanted: int
    rule: Rule
    culprit: RankExit | None
    """The rank for which the rule fits."""

    @property
    def own_rule(self) -> str:
        return str(self.rule) if self.rule in self.limits.rules else ""

    @property
    def kind(self) -> Kind:
        """The budget that pays. A person's rule that leaves a node out calls that node's failure."""
        without = self.rule.then in (Then.RESTART_WITHOUT_NODE, Then.REQUEUE_WITHOUT_NODES)
        kind = CAUSES[self.symptom.cause].kind if self.symptom.cause in CAUSES else Kind.CRASH
        return Kind.NODE if without and kind is Kind.CRASH else kind

    @property
    def progressed(self) -> bool:
        """The cycle brought the job further."""
        if self.outcome.steps_known:
            return self.outcome.advanced
        saved = any(entry.code == EXIT_REQUEUE for entry in self.outcome.exits)
        return saved or self.outcome.uptime_s >= MIN_UPTIME_S


def end_state(cause: str) -> str:
    """The end state of a job that somebody ended."""
    return {"user": "CANCELLED", "timeout": "TIMED_OUT", "preemption": "PREEMPTED"}.get(cause, "FAILED_INFRA")


def decide(
    outcome: Outcome, budget: Budget, limits: Limits, *, now: float, healthy: int = 0, wanted: int = 0
) -> Decision:
    """What to do after `outcome`, with `healthy` nodes left of which `wanted` are needed. `now`: epoch seconds."""
    if all_done(outcome):
        return Decision(action=Action.SUCCEED, cause="program", state="SUCCEEDED", budget=budget)
    if outcome.ending == "requeue":
        # Whoever asked for it is obeyed; it is no fault, and costs no budget.
        return Decision(action=Action.REQUEUE, cause="requeue", budget=budget)
    symptom = symptom_of(outcome, ports_taken=budget.ports_taken)
    if symptom.cause == "node_failure" and outcome.ending is None:
        # Every rank was stopped, by nobody who told us why.
        return Decision(action=Action.END, cause="node_failure", state="FAILED_INFRA", budget=budget)
    if outcome.ending == "user":
        return Decision(action=Action.END, cause="user", state="CANCELLED", budget=budget, failure=symptom.failure)
    return answer(symptom, outcome, budget, limits, now=now, healthy=healthy, wanted=wanted)


def answer(
    symptom: Symptom, outcome: Outcome, budget: Budget, limits: Limits, *, now: float, healthy: int, wanted: int
) -> Decision:
    """What the rules say to a symptom, as far as the budgets allow it. Arguments as for `decide`."""
    search = Search()
    rule, culprit = first_rule(in_order(limits.rules), symptom, search)
    case = _Case(
        outcome=outcome,
        symptom=symptom,
        budget=budget,
        limits=limits,
        now=now,
        healthy=healthy,
        wanted=wanted,
        rule=rule,
        culprit=culprit or symptom.failure,
    )
    return replace(_obey(case), given_up=tuple(search.given_up))


def _obey(case: _Case) -> Decision:
    cause = case.symptom.cause
    match case.rule.then:
        case Then.SUCCEED:
            return Decision(
                action=Action.SUCCEED, cause=cause, state="SUCCEEDED", budget=case.budget, rule=case.own_rule
            )
        case Then.REQUEUE | Then.REQUEUE_WITHOUT_NODES | Then.HOLD:
            return _requeue(case)
        case Then.RESTART | Then.RESTART_WITHOUT_NODE:
            # What is being ended cannot go on in place.
            return _requeue(case) if case.outcome.ending is not None else _restart(case)
    return _end(case, cause, _spend(case), state=_state_of(case))


def first_rule(rules: Sequence[Rule], symptom: Symptom, search: Search | None = None) -> tuple[Rule, RankExit | None]:
    """The first rule that fits, and the rank for which it does. `search`: looks for texts, for a limited time."""
    search = search or Search()
    for rule in rules:
        holds, culprit = fits(rule, symptom, search)
        if holds:
            return rule, culprit
    return Rule(then=Then.FAIL), None


# --- going on ---------------------------------------------------------------------------------------------------------


def _restart(case: _Case) -> Decision:
    nodes = _left_out(case)
    if case.healthy - len(set(nodes) - set(case.outcome.lost)) < case.wanted and nodes:
        return _requeue(case)
    spent = _spend(case, nodes)
    if (end := _overdrawn(case, spent, (case.kind,))) is not None:
        return end
    nodes, doubtful = (nodes, ()) if nodes else _to_swap(case, spent)
    # The first restart is free; only a loop has to slow down.
    delay_s = case.limits.backoff_s * 2 ** (spent.no_progress - 2) if spent.no_progress > 1 else 0.0
    if case.outcome.lost:
        delay_s = 0.0
    return Decision(
        action=Action.RESTART,
        cause=case.symptom.cause,
        exclude=nodes,
        doubtful=doubtful,
        budget=spent,
        failure=case.symptom.failure,
        delay_s=min(delay_s, BACKOFF_MAX_S),
        rule=case.own_rule,
    )


def _to_swap(case: _Case, spent: Budget) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A node that a spare shall replace though nothing proves it guilty, and whether later attempts may use it again.

    One that is alone under suspicion of two hangs in a row, or on which two starts in a row failed at once: a node that
    breaks whatever starts on it is always free first, and would eat every retry.
    """
    if case.healthy <= case.wanted:
        return (), ()
    if spent.hung_node and spent.hung_node == case.budget.hung_node:
        return (spent.hung_node,), ()
    if spent.quick_node and spent.quick_node == case.budget.quick_node:
        guilty = case.culprit is not None and not case.culprit.is_exception
        return (spent.quick_node,), () if guilty else (spent.quick_node,)
    return (), ()


def _requeue(case: _Case) -> Decision:
    cause = case.symptom.cause
    nodes = _left_out(case)
    spent = _spend(case, nodes)
    if spent.quick_node and spent.quick_node == case.budget.quick_node and not _is_exception(case):
        nodes = tuple(dict.fromkeys((*nodes, spent.quick_node)))
    kinds = [case.kind]
    if case.kind not in (Kind.FREE, Kind.TIMEOUT, Kind.REQUEUE):
        spent = spent.charge(Kind.REQUEUE, cause, case.now)
        kinds.append(Kind.REQUEUE)
    if not case.limits.requeues_max:
        # Not even after a preemption, which otherwise costs nothing.
        why = "the job may never be requeued (requeues_max is 0)"
        return _end(case, EXHAUSTED[Kind.REQUEUE], spent, state=_state_of(case), why=why, exclude=nodes)
    if (end := _overdrawn(case, spent, kinds)) is not None:
        return replace(end, exclude=nodes)
    return Decision(
        action=Action.REQUEUE,
        cause=cause,
        exclude=nodes,
        budget=spent,
        failure=case.symptom.failure,
        hold=case.rule.then == Then.HOLD,
        rule=case.own_rule,
    )


def _is_exception(case: _Case) -> bool:
    return case.culprit is not None and case.culprit.is_exception


def _left_out(case: _Case) -> tuple[str, ...]:
    """Nodes that a rule leaves out, or that are gone, or that their own ranks asked to leave out."""
    nodes = case.symptom.nodes if case.symptom.cause == "exclude_node" else tuple(case.outcome.lost)
    if case.rule.then in (Then.RESTART_WITHOUT_NODE, Then.REQUEUE_WITHOUT_NODES):
        culprit = case.culprit
        more = (culprit.node,) if culprit is not None and culprit.node and culprit.rank >= 0 else ()
        nodes = (*nodes, *case.symptom.nodes, *(more if not case.outcome.lost else ()))
    return tuple(dict.fromkeys(nodes))


# --- what it costs ----------------------------------------------------------------------------------------------------


def _spend(case: _Case, nodes: Sequence[str] = ()) -> Budget:
    """The budget after this cycle: what its cause costs, and whether it brought the job further."""
    outcome, cause, kind = case.outcome, case.symptom.cause, case.kind
    budget = case.budget
    if cause == "port_taken":
        return replace(budget, ports_taken=budget.ports_taken + 1)
    if kind is Kind.NODE:
        for node in nodes or case.symptom.nodes:
            if not _is_paid(budget, node, case.now):
                budget = budget.charge(kind, f"{node} ({cause})", case.now)
    elif kind is Kind.TIMEOUT:
        smart = case.limits.timeouts_max is None
        if not (smart and outcome.steps_known and outcome.advanced):
            budget = budget.charge(kind, cause, case.now)
    elif kind is not Kind.FREE:
        what = f"{cause}: {case.culprit}" if case.culprit is not None else cause
        budget = budget.charge(kind, what, case.now)
    if kind is Kind.FREE or cause == "start" or (outcome.lost and case.healthy >= case.wanted):
        # Neither a preemption nor nodes that could not start nor a spare that stepped in says anything of the program.
        return replace(budget, hung_node="", quick_node="")
    no_checkpoint = budget.no_checkpoint + 1 if outcome.saves_known and not outcome.saved else 0
    quick = not case.progressed and outcome.uptime_s < MIN_UPTIME_S and not outcome.lost
    suspects = {node for _, node in outcome.suspects}
    return replace(
        budget,
        no_progress=0 if case.progressed else budget.no_progress + 1,
        no_checkpoint=no_checkpoint,
        hung_node=suspects.pop() if cause == "hang" and len(suspects) == 1 else "",
        quick_node=case.culprit.node if quick and case.culprit is not None and case.culprit.rank >= 0 else "",
    )


def _is_paid(budget: Budget, node: str, now: float) -> bool:
    """Whether a node's failure was counted a moment ago: that of a spare may be told again with that of its group."""
    return any(one.what.startswith(f"{node} (") and now - one.epoch_s < DEAD_S for one in budget.of(Kind.NODE, now))


def _overdrawn(case: _Case, spent: Budget, kinds: Sequence[Kind]) -> Decision | None:
    """The end of a job that has spent what it may; None when it may go on."""
    limits, culprit = case.limits, case.culprit
    if (found := overdrawn(spent, limits, kinds, case.now)) is not None:
        kind, why = found
        return _end(case, EXHAUSTED[kind], spent, state=_state_of(case), why=why)
    counted = spent.no_progress > case.budget.no_progress
    if counted and spent.no_progress >= limits.no_progress_max:
        why = f"{spent.no_progress} failed cycles in a row without a new step (no_progress_max)"
        if culprit is not None and culprit.rank < 0:
            # No rank ever ran: that is not the program's fault.
            return _end(case, "start", spent, state="FAILED_INFRA", why=why)
        state = "OUT_OF_MEMORY" if case.symptom.cause == "out_of_memory" else "NO_PROGRESS"
        return _end(case, "no_progress", spent, state=state, why=why)
    if spent.no_checkpoint > case.budget.no_checkpoint and spent.no_checkpoint >= limits.no_checkpoint_max:
        why = f"{spent.no_checkpoint} failed cycles in a row without a new checkpoint (no_checkpoint_max)"
        return _end(case, "no_progress", spent, state="NO_PROGRESS", why=why)
    return None


def _end(
    case: _Case, cause: str, spent: Budget, *, state: str, why: str = "", exclude: tuple[str, ...] = ()
) -> Decision:
    if not why and case.outcome.diverged is not None and cause == "diverged":
        why = str(case.outcome.diverged)
    return Decision(
        action=Action.END,
        cause=cause,
        state=state,
        budget=spent,
        failure=case.symptom.failure,
        exclude=exclude,
        rule=case.own_rule,
        why=why,
    )


def _state_of(case: _Case) -> str:
    """What a job is called that ends because of this symptom."""
    cause = case.symptom.cause
    if case.outcome.ending is not None:
        return end_state(cause)
    match cause:
        case "requested":
            return "TIMED_OUT"
        case "diverged":
            return "NO_PROGRESS"
        case "out_of_memory":
            return "OUT_OF_MEMORY"
        case "program" if case.symptom.failure is not None and case.symptom.failure.oom:
            return "OUT_OF_MEMORY"
        case "hang" | "disk_full" | "port_taken" | "start" | "supervisor_death":
            # A hang may have either kind of cause, and nobody's exception says which.
            return "FAILED_INFRA"
    return "FAILED_INFRA" if CAUSES[cause].kind is Kind.NODE else "FAILED_USER"
