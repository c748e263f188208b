"""Reported values: what is a verdict and what is noise."""

import math
import random

import pytest

from trainmaster.launcher.supervise.values import JUMP_SAMPLES, NOT_FINITE_SAMPLES, Divergence, ValueWatch

NAN = float("nan")


def feed(watch: ValueWatch, series: list[float], *, ranks: int = 2, first: int = 0) -> Divergence | None:
    """One sample a step, the same on all ranks."""
    for step, value in enumerate(series, first):
        found = watch.hear(dict.fromkeys(range(ranks), step), {"loss": dict.fromkeys(range(ranks), value)})
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_value_that_stays_not_finite(bad: float) -> None:
    found = feed(ValueWatch(), [1.0, 0.9] + [bad] * 9)
    assert found is not None and (found.step, found.rank) == (1 + NOT_FINITE_SAMPLES, 0)
    assert f"loss is {bad} on rank 0 at step 4" in str(found)


def test_single_steps_that_are_not_finite_are_none() -> None:
    assert feed(ValueWatch(), [1.0, NAN, NAN, 1.0] * 50) is None


def test_a_step_that_is_told_again_is_no_new_sample() -> None:
    watch = ValueWatch()
    for _ in range(20):
        assert watch.hear({0: 7}, {"loss": {0: NAN}}) is None


def test_one_rank_of_many_is_enough() -> None:
    watch = ValueWatch()
    found = None
    for step in range(5):
        found = found or watch.hear(dict.fromkeys(range(8), step), {"loss": {**dict.fromkeys(range(8), 1.0), 5: NAN}})
    assert found is not None and found.rank == 5
    assert watch.last_step == found.step


def noisy(length: int, *, seed: int, level: float = 2.0, decay: float = 0.01) -> list[float]:
    source = random.Random(seed)
    return [level * math.exp(-decay * n) + source.gauss(0.0, 0.05) for n in range(length)]


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_that_falls_with_noise_and_spikes_is_no_jump(seed: int) -> None:
    series = noisy(400, seed=seed)
    for at in range(40, 400, 37):
        series[at : at + JUMP_SAMPLES - 1] = [9.0] * (JUMP_SAMPLES - 1)
    assert feed(ValueWatch(jump={"loss": 10}), series) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_jump_that_stays_is_found_within_its_samples(seed: int) -> None:
    series = [*noisy(200, seed=seed), *[9.0] * 20]
    found = feed(ValueWatch(jump={"lo*": 10}), series)
    assert found is not None and found.step == 200 + JUMP_SAMPLES - 1
    assert found.usual is not None and found.usual < 2.0 and found.mads > 10
    assert "loss jumped to 9 at step 204 and stayed there" in str(found)


def test_jumps_are_only_looked_for_where_that_was_asked_for() -> None:
    series = [*noisy(200, seed=1), *[9.0] * 50]
    assert feed(ValueWatch(), series) is None
    assert feed(ValueWatch(jump={"grad_norm": 5}), series) is None


def test_a_constant_value_may_wobble() -> None:
    assert feed(ValueWatch(jump={"loss": 30}), [1.0] * 100 + [1.1] * 50) is None
    assert feed(ValueWatch(jump={"loss": 30}), [1.0] * 100 + [2.0] * 50) is not None


def test_what_was_usual_survives_a_restart_and_what_was_wrong_does_not() -> None:
    watch = ValueWatch(jump={"loss": 10})
    assert feed(watch, [*noisy(100, seed=3), NAN, NAN]) is None
    watch.restart()
    assert feed(watch, [1.0, NAN, NAN], first=90) is None
    assert feed(watch, [9.0] * 20, first=93) is not None


def test_the_last_values_are_the_median_of_all_ranks() -> None:
    watch = ValueWatch()
    watch.hear({0: 1, 1: 1, 2: 1}, {"loss": {0: 1.0, 1: 3.0, 2: 2.0}, "lr": {0: 0.1}})
    assert watch.last == {"loss": 2.0, "lr": 0.1}
