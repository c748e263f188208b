"""Job ids of arrays and heterogeneous jobs, and the lists of tasks that Slurm prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.errors import UsageError
from trainmaster.launcher import ids
from trainmaster.slurm.values import Job


@pytest.mark.parametrize("text", ["1234", "1234_5", "1234+1"])
def test_an_id_is_printed_as_it_was_written(text):
    assert str(ids.parse(text)) == text


@pytest.mark.parametrize("text", ["", "x", "12_", "12+", "_5", "12_5_6", "12_[1-3]", "12.0", "-3", "12 13", "\u0661"])
def test_what_is_no_id_is_refused_with_the_forms_that_are(text):
    with pytest.raises(UsageError, match="1234_5"):
        ids.parse(text)


def test_a_waiting_task_is_found_in_the_entry_that_it_shares():
    waiting = Job(job_id=1, array_job_id=1, array_tasks="2-5%2", state="PENDING")
    running = Job(job_id=6, array_job_id=1, array_tasks="0", state="RUNNING")
    assert [ids.parse(text).names(waiting) for text in ("1_2", "1_0", "1", "6", "2_2")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert ids.parse("1_0").names(running) and ids.parse("6").names(running)


def test_a_part_of_a_heterogeneous_job_is_told_from_the_whole():
    parts = [Job(job_id=2 + offset, het_job_id=2, het_offset=offset) for offset in (0, 1)]
    assert [ids.parse("2+1").names(part) for part in parts] == [False, True]
    assert [ids.parse("2").names(part) for part in parts] == [True, False]


RANGES = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 50), st.integers(1, 7)).map(lambda t: (t[0], t[0] + t[1], t[2])),
    min_size=1,
    max_size=5,
)


@given(RANGES, st.integers(0, 600), st.sampled_from(["", "%4"]))
def test_lists_of_tasks_agree_with_sets(ranges, task, throttle):
    text = ",".join(f"{a}" if a == b else f"{a}-{b}:{step}" for a, b, step in ranges) + throttle
    expected = {number for a, b, step in ranges for number in range(a, b + 1, step)}
    assert set(ids.indices(text)) == expected
    assert ids.contains(text, task) == (task in expected)
    assert ids.count(text) == len(list(ids.indices(text)))


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        found = ids.parse(text)
    except UsageError:
        return
    assert str(found) == text.strip()
