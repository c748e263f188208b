"""What happens after a cycle: the rules, and laws that hold for every outcome."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.exit_rules import Kind, Rule, Then
from trainmaster.launcher.supervise.budget import Budget, Limits, Spent
from trainmaster.launcher.supervise.decide import Action, Decision, decide
from trainmaster.launcher.supervise.hang import Hang
from trainmaster.launcher.supervise.symptom import Outcome, RankExit, cycle_is_over, failures_of

NOW = 1_000_000.0
LIMITS = Limits(restarts_max=10, no_progress_max=3, requeues_max=2, backoff_s=1.0)


def ended(rank: int, code: int, *, at: float = 0.0, text: str = "", node: str = "n1", raised: bool = False) -> RankExit:
    return RankExit(rank=rank, node=node, code=code, epoch_s=at, text=text, raised=raised)


def after(
    outcome: Outcome,
    *,
    budget: Budget | None = None,
    limits: Limits = LIMITS,
    healthy: int = 4,
    wanted: int = 2,
) -> Decision:
    return decide(outcome, budget or Budget(), limits, now=NOW, healthy=healthy, wanted=wanted)


def having(*kinds: Kind, at_s: float = NOW - 60.0, **values: object) -> Budget:
    """A budget from which these were paid."""
    spent = tuple(Spent(epoch_s=at_s, kind=kind, what=f"the {kind} before") for kind in kinds)
    return replace(Budget(spent=spent), **values)  # type: ignore[arg-type]


def crash(**more: object) -> Outcome:
    values: dict[str, object] = {"world_size": 2, "exits": (ended(0, 1),), "advanced": True, "steps_known": True}
    return Outcome(**(values | more))  # type: ignore[arg-type]


HANG = Hang(ranks=(1,), still_s=9.0, limit_s=3.0, section="")


def hung(*suspects: tuple[int, str]) -> Outcome:
    stopped = tuple(RankExit(rank=rank, node="n1", code=-9, epoch_s=0.0, stopped=True) for rank in (0, 1))
    return Outcome(world_size=2, exits=stopped, hang=HANG, suspects=suspects, advanced=True, steps_known=True)


def test_a_hang_restarts_in_place() -> None:
    decision = after(hung((1, "n2")))
    assert (decision.action, decision.cause, decision.exclude) == (Action.RESTART, "hang", ())
    assert (decision.budget.restarts, decision.budget.hung_node) == (1, "n2")


def test_a_node_that_is_alone_under_suspicion_twice_is_left_out() -> None:
    once = after(hung((1, "n2"))).budget
    assert after(hung((1, "n2")), budget=once).exclude == ("n2",)
    assert after(hung((1, "n3")), budget=once).exclude == ()
    assert after(hung((0, "n1"), (1, "n2")), budget=once).exclude == ()
    assert after(hung(), budget=once).exclude == ()
    assert after(hung((1, "n2")), budget=once, healthy=2).exclude == (), "without a spare it is still better than none"
    assert after(crash(), budget=once).budget.hung_node == "", "in between it was something else"


def test_hangs_use_up_the_restarts() -> None:
    decision = after(hung(), budget=having(*[Kind.CRASH] * LIMITS.restarts_max))
    assert (decision.action, decision.state, decision.cause) == (Action.END, "FAILED_INFRA", "restarts_exhausted")


def test_hangs_without_progress_end_the_job() -> None:
    stuck = replace(hung(), advanced=False)
    decision = after(stuck, budget=Budget(no_progress=LIMITS.no_progress_max - 1))
    assert (decision.action, decision.state) == (Action.END, "NO_PROGRESS")


def test_all_ranks_done() -> None:
    decision = after(Outcome(world_size=2, exits=(ended(0, 0), ended(1, 0))))
    assert (decision.action, decision.state) == (Action.SUCCEED, "SUCCEEDED")


def test_crash_with_progress_restarts_at_once() -> None:
    decision = after(crash())
    assert (decision.action, decision.cause, decision.delay_s) == (Action.RESTART, "rank_crash", 0.0)
    assert decision.failure is not None and decision.failure.rank == 0


def test_crash_loop_slows_down_then_stops() -> None:
    budget, delays = Budget(), []
    for _ in range(2):
        decision = after(crash(advanced=False), budget=budget)
        assert decision.action is Action.RESTART
        budget = decision.budget
        delays.append(decision.delay_s)
    decision = after(crash(advanced=False), budget=budget)
    assert delays == [0.0, 1.0]
    assert (decision.action, decision.state) == (Action.END, "NO_PROGRESS")


def test_progress_forgives_earlier_loops() -> None:
    decision = after(crash(), budget=having(*[Kind.CRASH] * 4, no_progress=2))
    assert decision.action is Action.RESTART and decision.budget.no_progress == 0


def test_restart_budget() -> None:
    decision = after(crash(), budget=having(*[Kind.CRASH] * 10))
    assert (decision.action, decision.cause) == (Action.END, "restarts_exhausted")
    assert decision.why.startswith("11 crashes and hangs in 24 hours, where 10 are allowed (restarts_max): …; ")
    assert "rank_crash: rank 0 on n1, exit code 1" in decision.why
    yesterday = having(*[Kind.CRASH] * 10, at_s=NOW - 90_000.0)
    assert after(crash(), budget=yesterday).action is Action.RESTART


def test_long_cycle_of_a_silent_program_is_progress() -> None:
    quiet = {"steps_known": False, "advanced": False}
    assert after(crash(uptime_s=61.0, **quiet)).budget.no_progress == 0
    assert after(crash(uptime_s=5.0, **quiet)).budget.no_progress == 1


def test_exception_of_a_callable_is_its_result() -> None:
    outcome = crash(exits=(ended(0, 1, raised=True),), steps_known=False, advanced=False)
    assert (after(outcome).action, after(outcome).state) == (Action.END, "FAILED_USER")


def test_lost_node_is_replaced_and_costs_no_budget() -> None:
    decision = after(Outcome(world_size=2, lost={"n2": "node_death"}), healthy=2)
    assert (decision.action, decision.cause, decision.exclude) == (Action.RESTART, "node_death", ("n2",))
    assert (decision.budget.restarts, decision.budget.no_progress) == (0, 0)
    assert [one.what for one in decision.budget.of(Kind.NODE, NOW)] == ["n2 (node_death)"]


def test_no_spare_left_requeues_without_the_dead() -> None:
    decision = after(Outcome(world_size=2, lost={"n2": "node_silent", "n1": "node_silent"}), healthy=1)
    assert (decision.action, set(decision.exclude)) == (Action.REQUEUE, {"n1", "n2"})
    spent = having(*[Kind.REQUEUE] * 2)
    last = after(Outcome(world_size=2, lost={"n2": "node_silent"}), healthy=1, budget=spent)
    assert (last.action, last.state, last.cause) == (Action.END, "FAILED_INFRA", "requeues_exhausted")
    assert "3 requeues in 24 hours, where 2 are allowed (requeues_max)" in last.why


def test_lost_node_outranks_the_crashes_it_causes() -> None:
    outcome = crash(lost={"n2": "node_death"}, exits=(ended(0, 1, text="Connection reset by peer"),))
    assert after(outcome).cause == "node_death" and after(outcome).failure is None


def test_reserved_codes() -> None:
    assert after(crash(exits=(ended(1, 75),))).action is Action.REQUEUE
    assert after(crash(exits=(ended(1, 75),), ending="timeout")).cause == "timeout"
    assert after(crash(exits=(ended(1, 75),), ending="user")).state == "CANCELLED"
    assert after(crash(exits=(ended(1, 93),))).state == "FAILED_USER"
    without = after(crash(exits=(ended(1, 85, node="n2"),)), healthy=3)
    assert (without.action, without.exclude) == (Action.RESTART, ("n2",))
    assert after(crash(exits=(ended(1, 85, node="n2"),)), healthy=2).action is Action.REQUEUE


def test_taken_port_is_retried_free_of_charge() -> None:
    decision = after(crash(exits=(ended(0, 1, text="... EADDRINUSE ..."),), advanced=False))
    assert (decision.cause, decision.budget.restarts, decision.budget.no_progress) == ("port_taken", 0, 0)


def test_first_failure_is_the_shot_not_the_echo() -> None:
    echo = ended(0, 1, at=1.0, text="RuntimeError: Connection closed by peer [127.0.0.1]:1")
    shot = ended(3, 1, at=1.1, text="ValueError: bad batch")
    assert failures_of((echo, shot)) == (shot, echo)
    told = RankExit(rank=1, node="n", code=-15, epoch_s=0.0, stopped=True)
    assert failures_of((told,)) == ()


exits = st.builds(
    RankExit,
    rank=st.integers(0, 7),
    node=st.sampled_from(["n1", "n2", "n3"]),
    code=st.sampled_from([0, 1, 75, 85, 93, -9, -15]),
    epoch_s=st.floats(0, 10),
    stopped=st.booleans(),
    raised=st.booleans(),
    text=st.sampled_from(["", "EADDRINUSE", "Connection reset by peer", "boom"]),
)
outcomes = st.builds(
    Outcome,
    world_size=st.integers(1, 8),
    exits=st.lists(exits, max_size=8, unique_by=lambda entry: entry.rank).map(tuple),
    lost=st.dictionaries(st.sampled_from(["n1", "n2"]), st.sampled_from(["node_death", "node_silent"])),
    ending=st.sampled_from([None, None, "user", "timeout", "preemption", "node_failure"]),
    advanced=st.booleans(),
    steps_known=st.booleans(),
    uptime_s=st.floats(0, 1000),
)
paid = st.builds(Spent, epoch_s=st.floats(NOW - 200_000, NOW), kind=st.sampled_from(list(Kind)), what=st.just("x"))
budgets = st.builds(
    Budget,
    spent=st.lists(paid, max_size=14).map(tuple),
    no_progress=st.integers(0, 4),
    no_checkpoint=st.integers(0, 9),
    ports_taken=st.integers(0, 6),
    hung_node=st.sampled_from(["", "n1"]),
    quick_node=st.sampled_from(["", "n1"]),
)
rules = st.builds(
    Rule,
    code=st.sampled_from([(), (1,), (3, 4)]),
    text=st.sampled_from(["", "boom"]),
    cause=st.sampled_from([(), ("rank_crash",), ("timeout", "node_death")]),
    then=st.sampled_from(list(Then)),
)


@given(outcomes, budgets, st.lists(rules, max_size=3), st.integers(0, 6), st.integers(1, 5))
def test_laws(outcome: Outcome, budget: Budget, own: list[Rule], healthy: int, wanted: int) -> None:
    limits = replace(LIMITS, rules=tuple(own))
    decision = decide(outcome, budget, limits, now=NOW, healthy=healthy, wanted=wanted)
    if decision.action in (Action.END, Action.SUCCEED):
        assert decision.state
    if decision.action is Action.SUCCEED and not decision.rule:
        assert sum(1 for entry in outcome.exits if entry.code == 0) == outcome.world_size
    if decision.action is Action.REQUEUE:
        assert outcome.ending != "user"
        requeues = len(decision.budget.of(Kind.REQUEUE, NOW))
        assert requeues <= LIMITS.requeues_max or outcome.ending in ("preemption", "timeout")
        assert not any(entry.failed and entry.code == 93 for entry in outcome.exits)
    if decision.action is Action.RESTART:
        assert outcome.ending is None
        assert 0 <= decision.delay_s <= 60
        if decision.exclude:
            assert healthy - len(set(decision.exclude) - set(outcome.lost)) >= wanted
    assert decision.budget.spent[: len(budget.spent)] == budget.spent
    if decision.action is Action.END and not decision.why:
        assert decision.budget.no_progress <= budget.no_progress + 1
    if decision.cause.endswith("_exhausted"):
        assert "allowed" in decision.why


@given(outcomes)
def test_nothing_ends_a_cycle_of_healthy_ranks(outcome: Outcome) -> None:
    if not outcome.lost and all(entry.code == 0 or entry.stopped for entry in outcome.exits):
        done = sum(1 for entry in outcome.exits if entry.code == 0)
        assert cycle_is_over(outcome) == (done == outcome.world_size)


def test_a_preemption_is_for_free_unless_the_job_must_never_be_requeued():
    preempted = Outcome(world_size=1, exits=(), ending="preemption")
    often = having(*[Kind.REQUEUE] * 99)
    assert after(preempted, budget=often).action is Action.REQUEUE
    assert after(preempted, budget=often).budget == often
    never = after(preempted, limits=replace(LIMITS, requeues_max=0))
    assert (never.action, never.state) == (Action.END, "PREEMPTED") and "requeues_max is 0" in never.why


def test_ranks_that_saved_before_a_cancel_have_not_failed() -> None:
    decision = after(crash(exits=(ended(0, 75), ended(1, 75)), ending="user"))
    assert (decision.action, decision.state, decision.failure) == (Action.END, "CANCELLED", None)
