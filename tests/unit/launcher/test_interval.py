"""How often to save: the formula's known values, its bounds, and what a record says of failures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.rank.interval import CHANGE_MAX, Past, choose, daly_s, in_words, mtbf_s, past_of
from trainmaster.launcher.record import Event

costs = st.floats(1e-3, 1e4)
means = st.floats(1.0, 1e7)
pasts = st.builds(Past, failures=st.integers(0, 100), node_days=st.floats(0, 1e5))


def waste(every_s: float, cost_s: float, mtbf: float) -> float:
    """Daly's own model (2006, equation 20 without restarts): time for one second of work, less that second."""
    return mtbf * (math.exp((every_s + cost_s) / mtbf) - 1) / every_s - 1


@given(costs, means)
def test_no_other_interval_is_much_better_in_dalys_own_model(cost_s: float, mean_s: float) -> None:
    if cost_s >= 2 * mean_s:
        assert daly_s(cost_s, mean_s) == mean_s
        return
    best = daly_s(cost_s, mean_s)
    assert 0 < best <= 3 * mean_s
    if cost_s <= mean_s / 2:
        mine = waste(best, cost_s, mean_s)
        assert all(mine <= waste(best * factor, cost_s, mean_s) * 1.02 for factor in (0.25, 0.5, 0.8, 1.25, 2, 4))


def test_it_comes_to_youngs_when_the_cost_is_small() -> None:
    assert daly_s(0.1, 1e6) == pytest.approx(math.sqrt(2 * 0.1 * 1e6), rel=1e-3)


@given(pasts, st.integers(1, 5000))
def test_more_nodes_and_more_failures_come_sooner(past: Past, nodes: int) -> None:
    worse = Past(failures=past.failures + 1, node_days=past.node_days)
    assert mtbf_s(worse, nodes=nodes) < mtbf_s(past, nodes=nodes)
    assert mtbf_s(past, nodes=nodes + 1) < mtbf_s(past, nodes=nodes)


def test_the_prior_is_the_published_rate_and_the_past_outweighs_it() -> None:
    assert 86_400 / mtbf_s(Past(), nodes=1000) == pytest.approx(6.5)
    assert 86_400 / mtbf_s(Past(failures=200, node_days=1e5), nodes=1000) == pytest.approx(2.0, rel=0.02)


@given(
    st.floats(1e-3, 100),
    st.floats(0, 100),
    st.floats(0, 1000),
    pasts,
    st.integers(1, 2000),
    st.none() | st.integers(1, 10**6),
)
def test_saves_never_wait_for_each_other_and_the_interval_moves_slowly(
    step_s: float, cost_s: float, write_s: float, past: Past, nodes: int, before: int | None
) -> None:
    choice = choose(step_s=step_s, cost_s=cost_s, write_s=write_s, past=past, nodes=nodes, before=before)
    assert choice.every >= 1
    # To within a step, by which the interval is rounded.
    assert (choice.every + 1) * step_s >= write_s
    if before is not None and write_s == 0:
        assert before / CHANGE_MAX - 1 <= choice.every <= before * CHANGE_MAX + 1
    elif before is not None:
        assert choice.every <= max(before * CHANGE_MAX + 1, (write_s + cost_s) / step_s + 1)


def test_repeated_choices_settle() -> None:
    every: int | None = None
    seen = []
    for _ in range(60):
        found = choose(step_s=0.5, cost_s=2.0, write_s=20.0, past=Past(), nodes=128, before=every)
        every = found.every
        seen.append(every)
    assert len(set(seen)) == 1
    assert seen[0] == pytest.approx(daly_s(2.0, mtbf_s(Past(), nodes=128)) / 0.5, rel=0.01)
    for _ in range(60):
        every = choose(step_s=0.5, cost_s=8.0, write_s=20.0, past=Past(), nodes=128, before=every).every
    assert every == pytest.approx(daly_s(8.0, mtbf_s(Past(), nodes=128)) / 0.5, rel=0.01)


def event(state: str, at_s: float, cause: str | None = None) -> Event:
    return Event(epoch_s=at_s, job_id=1, attempt=0, cycle=0, state=state, cause=cause, nodes=("n1", "n2"))


def test_only_what_lost_work_counts_as_a_failure() -> None:
    day = 86_400.0
    events = [
        event("RUNNING", 0),
        event("RESTARTING", day, "node_death"),
        event("RUNNING", day),
        event("REQUEUED", 2 * day, "preemption"),
        event("RUNNING", 5 * day),
        event("RESTARTING", 6 * day, "rank_crash"),
        event("RUNNING", 6 * day),
    ]
    assert past_of(events, now_s=7 * day) == Past(failures=2, node_days=8.0)
    assert past_of(events, now_s=7 * day, from_memory=1) == Past(failures=1, node_days=8.0)
    assert past_of([], now_s=7 * day) == Past()


def test_in_words() -> None:
    text = in_words(choose(step_s=0.05, cost_s=0.1, write_s=3.0, past=Past(failures=1, node_days=4.0), nodes=16))
    assert "steps of 0.05 s" in text and "nodes: 16, failures so far: 1 in 4 node-days" in text
