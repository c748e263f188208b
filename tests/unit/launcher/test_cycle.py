"""What a cycle knows of itself while it ends."""

import pytest

from trainmaster.launcher.exit_rules import EXIT_REQUEUE
from trainmaster.launcher.supervise.cycle import Cycle
from trainmaster.launcher.supervise.symptom import RankExit


def cycle(*codes: int, asked: bool = False, lost: bool = False) -> Cycle:
    made = Cycle(number=0, places=("n1", "n2"), world_size=3, furthest_before=-1, furthest=-1, asked_to_save=asked)
    for rank, code in enumerate(codes):
        made.end_rank(RankExit(rank=rank, node="n1", code=code, epoch_s=1.0))
    if lost:
        made.lose("n2", "node_death", 1.0)
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (cycle(EXIT_REQUEUE), True),
        (cycle(EXIT_REQUEUE, 0), True),
        (cycle(EXIT_REQUEUE, 1), False),
        (cycle(1), False),
        (cycle(EXIT_REQUEUE, lost=True), False),
        (cycle(-6, asked=True, lost=True), False),
        (cycle(EXIT_REQUEUE, EXIT_REQUEUE, EXIT_REQUEUE), False),
    ],
)
def test_who_may_be_saving(made: Cycle, expected: bool) -> None:
    assert made.may_be_saving is expected


def test_a_rank_that_torch_aborts_on_its_way_out_does_not_spoil_the_requeue() -> None:
    """All ranks had saved the same step; one was slower to end, lost its connections, and its SIGABRT came first."""
    made = cycle(-6, asked=True)
    assert made.may_be_saving, "the others are given time to say that they have saved"
    made.end_rank(RankExit(rank=1, node="n1", code=EXIT_REQUEUE, epoch_s=1.1))
    made.end_rank(RankExit(rank=2, node="n2", code=EXIT_REQUEUE, epoch_s=1.1))
    assert not made.may_be_saving, "all have ended: time to judge"


def test_the_rank_that_is_behind_is_known_and_one_that_has_ended_is_not_behind():
    cycle = Cycle(number=0, places=("n1",), world_size=3, furthest_before=-1, furthest=-1)
    cycle.note_steps({"0": [5, 1.0], "1": [5, 1.0], "2": [5, 1.0]})
    assert cycle.slowest is None
    cycle.note_steps({"0": [9, 2.0], "2": [7, 2.0]})
    assert (cycle.furthest, cycle.slowest) == (9, (1, 5))
    cycle.end_rank(RankExit(rank=1, node="n1", code=0, epoch_s=3.0))
    assert cycle.slowest == (2, 7)
