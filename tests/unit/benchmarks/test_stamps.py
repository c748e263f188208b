"""How the fault table tells a lost job and one that ran twice."""

import pytest
from measure.stamps import Stamp, double_runs, missing, new_step_s


def stamps(*entries: tuple[float, int, int, int]) -> list[Stamp]:
    return [Stamp(epoch_s=at_s, attempt=attempt, cycle=cycle, step=step) for at_s, attempt, cycle, step in entries]


def test_a_restart_that_repeats_steps_is_no_double_run():
    assert double_runs(stamps((1, 0, 0, 0), (2, 0, 0, 1), (5, 0, 1, 1), (9, 1, 0, 2))) == 0


def test_a_rank_of_an_old_cycle_is_one():
    assert double_runs(stamps((1, 0, 0, 0), (5, 0, 1, 0), (5.1, 0, 0, 1), (5.2, 0, 1, 1))) == 1
    assert double_runs(stamps((1, 1, 0, 0), (2, 0, 9, 1))) == 1


def test_steps_that_nobody_did_are_missed():
    assert missing(stamps((1, 0, 0, 0), (2, 0, 1, 2)), 4) == 2


def test_only_a_step_beyond_those_before_the_fault_is_new():
    done = stamps((1, 0, 0, 0), (2, 0, 0, 1), (6, 0, 1, 1), (7, 0, 1, 2))
    assert new_step_s(done, struck_s=2.5) == pytest.approx(4.5)
    assert new_step_s(done[:3], struck_s=2.5) is None
    # Rank 0 had not been told yet.
    late = stamps((1, 0, 0, 0), (3, 0, 0, 1), (6, 0, 1, 1), (7, 0, 1, 2))
    assert new_step_s(late, struck_s=2.5) == pytest.approx(4.5)
