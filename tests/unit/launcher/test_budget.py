"""Budgets: what counts, for how long, over requeues and takeovers; and what is said when one is spent."""

from dataclasses import replace
from typing import Any

import pytest

from trainmaster.launcher.exit_rules import Kind, Rule
from trainmaster.launcher.intent import NOT_BY_US
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.record import Event
from trainmaster.launcher.supervise.budget import (
    Budget,
    Limits,
    Spent,
    limits_of,
    node_failures_allowed,
    overdrawn,
    recall,
    to_detail,
)
from trainmaster.launcher.supervise.decide import Action, Decision, decide
from trainmaster.launcher.supervise.symptom import Outcome, RankExit
from trainmaster.launcher.supervise.values import Divergence

NOW = 1_000_000.0
LIMITS = Limits(restarts_max=10, no_progress_max=3, requeues_max=3, backoff_s=1.0)


def event(state: str, *, attempt: int = 0, at: float = NOW, cause: str = "", **values: Any) -> Event:
    return Event(epoch_s=at, job_id=7, attempt=attempt, cycle=0, state=state, cause=cause, **values)


def told(before: Budget, decision: Decision, **values: Any) -> Event:
    """The line that a decision leaves in the record."""
    state = "REQUEUED" if decision.action is Action.REQUEUE else "RESTARTING"
    detail = {"budget": to_detail(before, decision.budget)}
    return event(state, cause=decision.cause, detail=detail, **values)


def crash(node: str = "n1", **values: Any) -> Outcome:
    exits = (RankExit(rank=0, node=node, code=-9, epoch_s=NOW),)
    return Outcome(world_size=2, **{"exits": exits, "steps_known": True, "uptime_s": 5.0, **values})


def after(outcome: Outcome, budget: Budget, limits: Limits = LIMITS, healthy: int = 2) -> Decision:
    return decide(outcome, budget, limits, now=NOW, healthy=healthy, wanted=2)


def test_a_later_attempt_counts_on_where_the_one_before_stopped() -> None:
    rules = (Rule(signal=("SIGKILL",), then="requeue"),)
    limits = replace(LIMITS, rules=rules, no_progress_max=99)
    events: list[Event] = []
    for attempt in range(3):
        budget = recall(events, role="", replica=None, attempt=attempt)
        decision = after(crash(), budget, limits)
        assert decision.action is Action.REQUEUE
        events.append(told(budget, decision, attempt=attempt))
    budget = recall(events, role="", replica=None, attempt=3)
    assert (budget.restarts, budget.no_progress, len(budget.of(Kind.REQUEUE, NOW))) == (3, 3, 3)
    end = after(crash(), budget, limits)
    assert (end.action, end.cause, end.state) == (Action.END, "requeues_exhausted", "FAILED_USER")
    assert end.why.startswith("4 requeues in 24 hours, where 3 are allowed (requeues_max): ")


def test_no_progress_counts_across_requeues() -> None:
    limits = replace(LIMITS, rules=(Rule(signal=("SIGKILL",), then="requeue"),))
    budget = Budget()
    first = after(crash(), budget, limits)
    second = after(crash(), recall([told(budget, first)], role="", replica=None, attempt=1), limits)
    third = after(crash(), second.budget, limits)
    assert (third.action, third.state, third.cause) == (Action.END, "NO_PROGRESS", "no_progress")
    assert third.why == "3 failed cycles in a row without a new step (no_progress_max)"


def test_preemptions_and_requests_of_people_are_for_free() -> None:
    events = [event("REQUEUED", attempt=n, cause=cause) for n, cause in enumerate(["preemption", "requeue"] * 9)]
    assert recall(events, role="", replica=None, attempt=18).spent == ()


@pytest.mark.parametrize("detail", [{"requeued_by": "ann"}, {"held": True}])
def test_who_has_looked_at_a_job_and_wants_more_of_it_fills_its_budgets(detail: dict[str, Any]) -> None:
    before = Budget()
    crashed = told(before, after(crash(), before))
    again = event("REQUEUED", cause="requeue", detail=detail)
    assert recall([crashed, again], role="", replica=None, attempt=1) == Budget()
    by_slurm = event("REQUEUED", cause="requeue", detail={"requeued_by": NOT_BY_US})
    assert recall([crashed, by_slurm], role="", replica=None, attempt=1).restarts == 1


def test_a_requeue_of_slurms_own_of_which_the_record_knows_nothing_counts() -> None:
    events = [event("STARTING", attempt=n, at=NOW + n) for n in range(3)]
    budget = recall(events, role="", replica=None, attempt=2)
    assert [(one.kind, one.epoch_s) for one in budget.spent] == [(Kind.REQUEUE, NOW + 1), (Kind.REQUEUE, NOW + 2)]


def test_a_takeover_costs_a_node_and_forgets_nothing() -> None:
    before = Budget()
    decision = after(crash(advanced=False), before)
    takeover = {"budget": {"charged": [[Kind.NODE, "n9 (supervisor_death)"]], "keep": True}}
    events = [told(before, decision), event("RESTARTING", cause="supervisor_death", detail=takeover)]
    budget = recall(events, role="", replica=None, attempt=0)
    assert (budget.restarts, budget.no_progress, len(budget.of(Kind.NODE, NOW))) == (1, 1, 1)


def test_roles_have_budgets_of_their_own_but_share_those_of_requeues() -> None:
    before = Budget()
    own = told(before, after(crash(), before), role="trainer")
    back = event("REQUEUED", role="loader", detail={"budget": {"charged": [[Kind.REQUEUE, "x"], [Kind.NODE, "n1"]]}})
    trainer = recall([own, back], role="trainer", replica=None, attempt=1)
    assert (trainer.restarts, len(trainer.of(Kind.REQUEUE, NOW)), len(trainer.of(Kind.NODE, NOW))) == (1, 1, 0)
    loader = recall([own, back], role="loader", replica=None, attempt=1)
    assert (loader.restarts, len(loader.of(Kind.NODE, NOW))) == (0, 1)


def test_time_limits() -> None:
    saved = Outcome(
        world_size=1, exits=(RankExit(rank=0, node="n1", code=75, epoch_s=NOW),), ending="timeout", steps_known=True
    )
    forward = replace(saved, advanced=True)
    budget = Budget()
    for _ in range(20):
        decision = after(forward, budget)
        assert decision.action is Action.REQUEUE
        budget = decision.budget
    assert budget.spent == (), "time limits that bring new steps cost nothing"
    strict = replace(LIMITS, timeouts_max=2)
    for _ in range(2):
        budget = after(forward, budget, strict).budget
    end = after(forward, budget, strict)
    assert (end.cause, end.state) == ("timeouts_exhausted", "TIMED_OUT")
    assert end.why.startswith("3 time limits, where 2 are allowed (timeouts_max): ")
    old = Budget(spent=(Spent(epoch_s=NOW - 9e6, kind=Kind.TIMEOUT, what="timeout"),) * 2)
    assert after(forward, old, strict).action is Action.END, "they count over the job's whole life"


def test_nodes_lost_in_a_day() -> None:
    assert [node_failures_allowed(None, nodes) for nodes in (4, 2048)] == [10, 204]
    assert node_failures_allowed(0, 2048) == 0
    limits = replace(LIMITS, node_failures_max=1)
    lost = Outcome(world_size=2, lost={"n1": "node_death"})
    once = after(lost, Budget(), limits)
    assert once.action is Action.RESTART
    twice = after(replace(lost, lost={"n2": "node_silent"}), once.budget, limits)
    assert (twice.action, twice.cause, twice.state) == (Action.END, "node_failures_exhausted", "FAILED_INFRA")
    assert "2 nodes lost or left out in 24 hours, where 1 are allowed (node_failures_max): " in twice.why
    assert twice.why.endswith("n1 (node_death); 01-12 13:46 n2 (node_silent)")


def test_checkpoints_that_do_not_come() -> None:
    stuck = crash(advanced=True, saves_known=True, saved=False)
    budget = Budget(no_checkpoint=8)
    end = after(stuck, budget)
    assert (end.state, end.why) == (
        "NO_PROGRESS",
        "9 failed cycles in a row without a new checkpoint (no_checkpoint_max)",
    )
    assert after(replace(stuck, saved=True), budget).budget.no_checkpoint == 0
    assert after(replace(stuck, saves_known=False), budget).action is Action.RESTART


def test_a_value_that_went_wrong_ends_the_job() -> None:
    told_so = Divergence(name="loss", value=float("nan"), step=12, rank=3)
    outcome = Outcome(world_size=1, exits=(), diverged=told_so, advanced=True, steps_known=True)
    decision = after(outcome, Budget())
    assert (decision.action, decision.state, decision.cause) == (Action.END, "NO_PROGRESS", "diverged")
    assert decision.why == "loss is nan on rank 3 at step 12, and was so before"
    mild = replace(LIMITS, rules=(Rule(cause=("diverged",), then="restart"),))
    assert after(outcome, Budget(), mild).action is Action.RESTART


def test_a_node_on_which_two_starts_fail_at_once_is_left_out() -> None:
    first = after(crash("n1", advanced=False), Budget(), healthy=3)
    assert (first.exclude, first.budget.quick_node) == ((), "n1")
    second = after(crash("n1", advanced=False), first.budget, healthy=3)
    assert (second.action, second.exclude, second.doubtful) == (Action.RESTART, ("n1",), ())
    assert after(crash("n2", advanced=False), first.budget, healthy=3).exclude == ()
    assert after(crash("n1", advanced=False), first.budget, healthy=2).exclude == (), "there is no spare to take it"
    assert after(crash("n1", advanced=False, uptime_s=90.0), first.budget, healthy=3).exclude == ()
    raised = RankExit(rank=0, node="n1", code=1, epoch_s=NOW, text="Traceback (most recent call last):\nValueError")
    swap = after(crash(advanced=False, exits=(raised,)), first.budget, healthy=3)
    assert (swap.exclude, swap.doubtful) == (("n1",), ("n1",)), "a spare is tried, but no later attempt has to do so"
    requeue = replace(LIMITS, rules=(Rule(signal=("SIGKILL",), then="requeue"),))
    assert after(crash("n1", advanced=False), first.budget, requeue).exclude == ("n1",)


def test_limits_of_a_plan() -> None:
    made = Plan(uid="u", name="n", run_dir="/r", python="p", nodes=500, timeouts_max=4, exit_rules=(Rule(code=(3,)),))
    limits = limits_of(made)
    assert (limits.node_failures_max, limits.timeouts_max, limits.rules) == (50, 4, (Rule(code=(3,)),))


def test_what_is_overdrawn_is_listed() -> None:
    spent = tuple(Spent(epoch_s=NOW + n, kind=Kind.CRASH, what=f"crash {n}") for n in range(11))
    kind, why = overdrawn(Budget(spent=spent), LIMITS, (Kind.FREE, Kind.CRASH), NOW + 20) or ("", "")
    assert kind is Kind.CRASH and why.count("crash ") == 5 and why.endswith("crash 10")
