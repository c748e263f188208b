"""What a fault cost, told from the stamps of the steps."""

from pathlib import Path

from measure.steps import Step, parse, read, recovery


def run(first: int, last: int, *, begin_s: float) -> list[Step]:
    """Ten steps a second; the first one is done at `begin_s`."""
    return [Step(step=step, epoch_s=begin_s + (step - first) * 0.1) for step in range(first, last + 1)]


def test_lost_work_counts():
    before = run(1, 25, begin_s=100.0)  # the last one at 102.4
    after = run(21, 40, begin_s=110.0)  # step 26 at 110.5
    found = recovery([*before, *after], before_s=102.45, after_s=102.6)
    assert found.fault_epoch_s == 102.45
    assert found.last_step == 25
    assert found.lost_steps == 5
    assert round(found.first_again_s or 0, 6) == 7.55
    assert round(found.recovered_s or 0, 6) == 8.05


def test_the_clock_starts_at_the_last_step_that_was_done_while_the_fault_was_injected():
    before = run(1, 25, begin_s=100.0)
    found = recovery([*before, *run(21, 30, begin_s=110.0)], before_s=102.0, after_s=103.0)
    assert (found.last_step, found.fault_epoch_s) == (25, before[-1].epoch_s)


def test_a_run_that_is_back_before_the_injection_returned_is_not_taken_for_the_old_one():
    before = run(1, 25, begin_s=100.0)
    found = recovery([*before, *run(21, 40, begin_s=102.8)], before_s=102.41, after_s=104.0)
    assert found.last_step == 25 and found.lost_steps == 5
    assert round(found.recovered_s or 0, 6) == round(103.3 - 102.41, 6)


def test_no_new_step_is_no_recovery():
    before = run(1, 25, begin_s=100.0)
    assert recovery(before, before_s=102.45, after_s=102.6).recovered_s is None
    only_old = recovery([*before, *run(21, 25, begin_s=110.0)], before_s=102.45, after_s=102.6)
    assert only_old.recovered_s is None and only_old.lost_steps == 5
    assert recovery([], before_s=1.0, after_s=2.0).recovered_s is None


def test_a_checkpoint_of_the_very_last_step_loses_nothing():
    found = recovery([*run(1, 20, begin_s=100.0), *run(21, 22, begin_s=105.0)], before_s=101.95, after_s=102.0)
    assert found.lost_steps == 0
    assert found.recovered_s == found.first_again_s


def test_a_torn_line_and_a_missing_file(tmp_path: Path):
    assert parse(['{"step": 1, "epoch_s": 2.0}', "", "null", '{"step": 2}', '{"st']) == (Step(step=1, epoch_s=2.0),)
    assert read(tmp_path / "none.jsonl") == ()
