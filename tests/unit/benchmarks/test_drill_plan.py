"""Which faults a drill draws, and how the use of a run's time is counted."""

from collections import Counter

import pytest
from measure.drill_plan import MIX, draw, use_of
from measure.steps import Step


def test_the_same_seed_gives_the_same_faults_in_the_published_proportions():
    strikes = draw(7, length_s=600_000, gap_s=60)
    assert strikes == draw(7, length_s=600_000, gap_s=60) != draw(8, length_s=600_000, gap_s=60)
    assert len(strikes) == pytest.approx(10_000, rel=0.05)
    assert sum(MIX.values()) == pytest.approx(1)
    for fault, count in Counter(strike.fault for strike in strikes).items():
        assert count / len(strikes) == pytest.approx(MIX[fault], abs=0.02)
    assert all(0 <= strike.victim < 1 and 0 < strike.at_s < 600_000 for strike in strikes)


def run(*stretches: tuple[float, int, int]) -> list[Step]:
    """Steps of 0.1 s: (from when, first step, how many)."""
    return [
        Step(step=first + number, epoch_s=begin_s + 0.1 * (number + 1))
        for begin_s, first, count in stretches
        for number in range(count)
    ]


def test_an_undisturbed_run_is_all_of_use():
    use = use_of(run((0, 0, 100)), begin_s=0, end_s=10)
    assert (use.new_steps, use.step_s) == (100, pytest.approx(0.1))
    assert use.effective == pytest.approx(1)


def test_waiting_and_steps_done_twice_are_lost():
    # 4 s of work, 3 s of nothing, then 1 s again and 2 s of new work.
    use = use_of(run((0, 0, 40), (7, 30, 30)), begin_s=0, end_s=10)
    assert use.new_steps == 60
    assert use.lost_s == pytest.approx(4, abs=0.3)


def test_a_run_that_never_comes_back_loses_all_that_follows():
    assert use_of(run((0, 0, 40)), begin_s=0, end_s=10).lost_s == pytest.approx(6)
    assert use_of([], begin_s=0, end_s=10).lost_s == 10


def test_a_slow_step_is_work_and_a_pause_is_not():
    steps = [*run((0, 0, 40)), *run((4.15, 40, 20)), *run((8, 60, 20))]
    use = use_of(steps, begin_s=0, end_s=10)
    assert use.new_steps == 80
    assert use.lost_s == pytest.approx(8.1 - 6.15 - 0.3)


def test_what_was_done_before_is_not_counted():
    assert use_of(run((0, 0, 100)), begin_s=5, end_s=10).new_steps == 50
