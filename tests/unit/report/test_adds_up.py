"""Whatever the history: the parts of a report are its whole, to the millisecond."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invented_histories import SINCE, T0, UNTIL, attempts, clean_attempt, events, row
from trainmaster.launcher.record import Event
from trainmaster.report import ettr_report, phases, recorded
from trainmaster.report.attribution import Attribution
from trainmaster.report.curve import cumulative
from trainmaster.report.ledger import Ledger
from trainmaster.report.phases import OUTSIDE, Assumptions, Phase
from trainmaster.report.timeline import begin_ms, clipped, spans

ASSUMED = Assumptions(init_s=300, interval_s=1000, unseen_s=50)


def new_ledger(found=(), by="gpus"):
    return Ledger(SINCE * 1000, UNTIL * 1000, by, ASSUMED, Attribution(found))


def last_moment_ms(run) -> int:
    """The end of a run's life, reckoned without spans."""
    ends = [begin_ms(run, UNTIL) // 1000]
    for number, one in enumerate(run):
        if one.start_s is not None:
            ends.append(min(one.start_s, UNTIL))
        if one.end_s is not None:
            ends.append(min(one.end_s, UNTIL))
        elif one.start_s is None or number == len(run) - 1:
            ends.append(UNTIL)
        else:
            following = run[number + 1]
            known = following.submit_s if following.submit_s is not None else following.start_s
            ends.append(min(UNTIL, UNTIL if known is None else known))
    return max(ends) * 1000


@settings(max_examples=150)
@given(attempts(), events, st.sampled_from(("gpus", "nodes")))
def test_spans_follow_each_other_and_are_the_whole_life(run, found, by):
    told, causes = spans(run, Attribution(found), ASSUMED, until_s=UNTIL, by=by)
    for before, after in pairwise(told):
        assert before.end_ms == after.begin_ms
    assert all(one.end_ms > one.begin_ms for one in told)
    whole_ms = last_moment_ms(run) - begin_ms(run, UNTIL)
    assert sum(one.length_ms for one in told) == whole_ms
    assert len(causes) == sum(1 for one in run if one.start_s is not None)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 4).flatmap(attempts), max_size=4), events, st.sampled_from(("gpus", "nodes")))
def test_a_ledgers_parts_are_its_whole_by_phase_cause_and_curve(runs, found, by):
    ledger = new_ledger(found, by)
    wall = weighted = in_curve = 0
    for run in runs:
        ledger.add(run)
        told, _ = spans(run, Attribution(found), ASSUMED, until_s=UNTIL, by=by)
        life = clipped(told, SINCE * 1000, UNTIL * 1000)
        wall += sum(one.length_ms for one in life)
        weighted += sum(one.length_ms * one.weight for one in life)
        in_curve += sum(one.length_ms * one.weight for one in life if one.phase not in OUTSIDE)
    values = ettr_report.values(ledger, (), (), "test")
    assert values["parts_sum_wall_ms"] == wall == sum(one["wall_ms"] for one in values["parts"])
    assert values["parts_sum_weighted_ms"] == weighted
    assert ledger.whole.integral()[-1] == in_curve
    assert ledger.productive.integral()[-1] == ledger.parts[Phase.PRODUCTIVE]
    assert sum(one.whole for one in ledger.sizes.values()) == in_curve
    without_cause = sum(ledger.parts[one] for one in (Phase.PRODUCTIVE, Phase.QUEUE, Phase.SUSPENDED, Phase.NEVER))
    caused = sum(sum(parts.values()) for parts in ledger.lost.values())
    # What has a cause, what cannot have one, and first starts and stretches after a resize, which have none.
    assert (
        0
        <= weighted - without_cause - caused
        <= sum(ledger.parts[one] for one in (Phase.START, Phase.RESTART, Phase.WAIT))
    )
    if values["ettr"] is not None:
        assert cumulative(ledger.productive, ledger.whole)[-1][1] == pytest.approx(values["ettr"])


@settings(max_examples=80)
@given(clean_attempt(), events, st.sampled_from(("gpus", "nodes")))
def test_the_quick_sums_are_those_of_the_spans(attempt, found, by):
    quick, slow = new_ledger(found, by), new_ledger(found, by)
    quick.add((attempt,))
    told, causes = spans((attempt,), Attribution(found), ASSUMED, until_s=UNTIL, by=by)
    slow.add_spans((attempt,), told, causes)
    for name in ("parts", "wall", "ends", "sizes", "runs", "attempts", "dearest", "ettr"):
        assert getattr(quick, name) == getattr(slow, name), name
    assert nonzero(quick.lost) == nonzero(slow.lost)
    assert quick.productive.integral() == slow.productive.integral()
    assert quick.whole.integral() == slow.whole.integral()


def nonzero(lost):
    return {(cause, phase): ms for cause, parts in lost.items() for phase, ms in parts.items() if ms}


states = st.sampled_from(
    ("SUBMITTED", "STARTING", "RUNNING", "PROGRESS", "RESTARTING", "REQUEUED", "NODE_LOST", "SUCCEEDED", "CANCELLED",
     "FAILED_USER", "TIMED_OUT")
)  # fmt: skip


@st.composite
def record_events(draw):
    found = [Event(epoch_s=T0 + 1, job_id=7, attempt=0, cycle=0, state="STARTING")]
    at = T0 + 1.0
    for _ in range(draw(st.integers(0, 12))):
        at += draw(st.integers(-50, 4_000)) + draw(st.sampled_from((0.0, 0.123)))
        detail = {}
        if draw(st.booleans()):
            detail["saved"] = draw(st.integers(-1, 50))
        if draw(st.booleans()):
            detail["fault_epoch_s"] = at - draw(st.integers(-20, 100))
        if draw(st.booleans()):
            detail["hang"] = {"still_s": draw(st.integers(0, 300))}
        if draw(st.booleans()):
            detail["first_step_epoch_s"] = at - draw(st.integers(-5, 5))
        cause = draw(st.sampled_from((None, "hang", "node_death", "rank_crash", "user", "maintenance", "odd")))
        step = draw(st.none() | st.integers(-1, 60))
        found.append(
            Event(epoch_s=at, job_id=7, attempt=0, cycle=0, state=draw(states), cause=cause, step=step, detail=detail)
        )
    return tuple(found)


@settings(max_examples=150)
@given(record_events(), st.just(()) | attempts())
def test_a_record_too_is_told_without_gap_or_overlap(found, run):
    told = recorded.spans(found, run, ASSUMED, until_s=UNTIL, by="nodes", weight=2).spans
    for before, after in pairwise(told):
        assert before.end_ms == after.begin_ms
    assert all(one.end_ms > one.begin_ms for one in told)
    assert not told or told[-1].end_ms <= UNTIL * 1000
    ledger = new_ledger(by="nodes")
    ledger.add_spans(run, told, ())
    assert sum(ledger.wall.values()) == sum(one.length_ms for one in clipped(told, SINCE * 1000, UNTIL * 1000))


def test_known_losses_of_a_requeued_job_are_found_to_the_second():
    first = row(state="NODE_FAIL", end_s=T0 + 4_400)
    second = row(submit_s=T0 + 4_400, eligible_s=T0 + 4_521, start_s=T0 + 4_530, end_s=T0 + 9_000)
    ledger = new_ledger()
    ledger.add((first, second))
    seconds = {phase: value // 1000 for phase, value in ledger.wall.items() if value}
    # 4,390 s of the first attempt: 300 to the first step, 4,040 of work of which 4 checkpoints keep 4,000, 50 unseen.
    assert seconds == {
        Phase.QUEUE: 10,
        Phase.START: 300,
        Phase.PRODUCTIVE: 4_000 + 4_170,
        Phase.REDONE: 40,
        Phase.UNSEEN: 50,
        Phase.WAIT: 130,
        Phase.RESTART: 300,
    }
    assert ledger.ends == {phases.NODE: 1, phases.COMPLETED: 1}
    assert sum(ledger.lost[phases.NODE].values()) == (40 + 50 + 130 + 300) * 1000 * 16
