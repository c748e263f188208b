"""A planned restart without a slow node, and the restarts that take the chance."""

import pytest

from trainmaster.launcher.supervise.budget import Budget
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.exchange import extended, planned
from trainmaster.launcher.supervise.symptom import Outcome, RankExit

BUDGET = Budget(no_progress=1)


def ended(*codes: int, **values: object) -> Outcome:
    exits = tuple(RankExit(rank=rank, node=f"n{rank}", code=code, epoch_s=1.0) for rank, code in enumerate(codes))
    return Outcome(world_size=3, exits=exits, **values)  # type: ignore[arg-type]


def test_ranks_that_saved_start_again_without_the_slow_node_and_at_no_cost() -> None:
    decision = planned(ended(75, 75, 75), ("n1",), BUDGET, healthy=4, wanted=3)
    assert decision is not None
    assert (decision.action, decision.cause, decision.exclude) == (Action.RESTART, "straggler", ("n1",))
    assert decision.budget == BUDGET


def test_without_a_spare_the_slow_node_stays() -> None:
    decision = planned(ended(75, 75, 75), ("n1",), BUDGET, healthy=3, wanted=3)
    assert decision is not None and decision.exclude == ()


@pytest.mark.parametrize(
    ("outcome", "leaving"),
    [
        (ended(75, 75, 75), ()),
        (ended(1, 1, 1), ("n1",)),
        (ended(75, 75, 75, ending="timeout"), ("n1",)),
        (ended(75, 75, lost={"n2": "node_death"}), ("n1",)),
    ],
)
def test_any_other_end_is_judged_as_ever(outcome: Outcome, leaving: tuple[str, ...]) -> None:
    assert planned(outcome, leaving, BUDGET, healthy=4, wanted=3) is None


def test_a_restart_for_another_reason_takes_the_slow_node_along() -> None:
    lost = Decision(action=Action.RESTART, cause="node_death", exclude=("n2",))
    assert extended(lost, ("n1",), healthy=5, wanted=3).exclude == ("n2", "n1")
    assert extended(lost, ("n1",), healthy=4, wanted=3).exclude == ("n2",)
    assert extended(lost, ("n2",), healthy=9, wanted=3).exclude == ("n2",)
    requeue = Decision(action=Action.REQUEUE, cause="node_death")
    assert extended(requeue, ("n1",), healthy=9, wanted=3) is requeue
