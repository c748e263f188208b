"""When a lack of steps is a hang, by what the program itself has shown."""

from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.supervise.hang import FLOOR_IN_LOOP_S, FLOOR_S, HangWatch


def walk(
    watch: HangWatch, *, rank: int = 0, steps: int, every_s: float, start_s: float = 0.0, **where: object
) -> float:
    """`steps` steps, one each `every_s`; returns when the last was heard of."""
    now = start_s
    for step in range(steps):
        now = start_s + step * every_s
        watch.hear(rank, step, "", bool(where.get("sections", False)), now)
    return now


def test_nobody_is_watched_before_the_first_step() -> None:
    assert HangWatch(floor_s=1.0).verdict(1e9) is None


def test_no_step_for_longer_than_the_users_floor() -> None:
    watch = HangWatch(floor_s=3.0)
    last = walk(watch, steps=10, every_s=0.1)
    assert watch.verdict(last + 2.9) is None
    hang = watch.verdict(last + 3.1)
    assert hang is not None and hang.ranks == (0,) and hang.section == ""
    assert "no progress for 3.1 s between steps, where 3.0 s are credible" in str(hang)


def test_slow_steps_raise_the_limit() -> None:
    watch = HangWatch(floor_s=3.0)
    last = walk(watch, steps=10, every_s=10.0)
    assert watch.verdict(last + 199) is None
    assert watch.verdict(last + 201) is not None


def test_one_long_pause_teaches_that_pauses_happen() -> None:
    watch = HangWatch(floor_s=3.0)
    last = walk(watch, steps=10, every_s=0.1)
    watch.hear(0, 10, "", False, last + 100)
    assert watch.verdict(last + 100 + 299) is None
    assert watch.verdict(last + 100 + 301) is not None


def test_what_was_learnt_survives_a_restart_and_ranks_do_not() -> None:
    watch = HangWatch(floor_s=3.0)
    last = walk(watch, steps=10, every_s=10.0)
    watch.restart()
    assert watch.verdict(last + 1e6) is None
    watch.hear(0, 3, "", False, last)
    assert watch.verdict(last + 199) is None


def test_the_ranks_that_are_behind_are_named() -> None:
    watch = HangWatch(floor_s=3.0)
    for rank in range(4):
        watch.hear(rank, 7, "", False, 0.0)
    for rank in (0, 1, 3):
        watch.hear(rank, 8, "", False, 0.1)
    hang = watch.verdict(10.0)
    assert hang is not None and hang.ranks == (2,) and hang.still_s == 10.0


def test_a_rank_that_has_ended_owes_nothing() -> None:
    watch = HangWatch(floor_s=3.0)
    watch.hear(0, 7, "", False, 0.0)
    watch.ended(0)
    assert watch.verdict(100.0) is None


def test_sections_have_a_time_of_their_own_which_is_learnt() -> None:
    watch = HangWatch()
    last = walk(watch, steps=10, every_s=0.1, sections=True)
    assert watch.limit_s("", sections=True) == FLOOR_IN_LOOP_S
    assert watch.limit_s("", sections=False) == FLOOR_S
    watch.hear(0, 9, "evaluate", True, last)
    assert watch.verdict(last + FLOOR_S - 1) is None
    hang = watch.verdict(last + FLOOR_S + 1)
    assert hang is not None and hang.section == "evaluate"
    assert "in section 'evaluate'" in str(hang)
    watch.hear(0, 9, "", True, last + 1000)
    assert watch.limit_s("evaluate", sections=True) == 3000
    assert watch.limit_s("", sections=True) == FLOOR_IN_LOOP_S, "a slow evaluation says nothing of steps"


def test_our_own_delay_is_not_theirs() -> None:
    watch = HangWatch(floor_s=3.0)
    last = walk(watch, steps=10, every_s=0.1)
    watch.forgive(50.0)
    assert watch.verdict(last + 52) is None
    assert watch.verdict(last + 54) is not None


@given(st.lists(st.floats(0.01, 100.0), min_size=2, max_size=50), st.floats(1.0, 50.0))
def test_a_program_that_keeps_its_pace_never_hangs(pauses: list[float], floor_s: float) -> None:
    watch = HangWatch(floor_s=floor_s)
    now = 0.0
    longest = 0.0
    for step, pause in enumerate(pauses):
        # Up to three times the longest pause so far, or the floor, is always credible.
        pause = min(pause, max(floor_s, 3 * longest)) if step else 0.0
        now += pause
        assert watch.verdict(now - 1e-6) is None
        watch.hear(0, step, "", False, now)
        longest = max(longest, pause)
