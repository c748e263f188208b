"""What a run's record and metrics say about it."""

from dataclasses import replace
from pathlib import Path

import pytest
from story import Point, Story, find_interruptions, find_spans, read, read_points, tell

from trainmaster.launcher.record import Event


def test_the_seconds_lost_last_from_the_last_old_step_to_the_first_new_one(story: Story) -> None:
    node, rank = story.interruptions
    # Step 110 was done at 19.9 s; the next cycle began at 21.0 s with step 101 and did step 111 one second later.
    assert (node.last_step, node.repeated, node.lost_s) == (110, 10, pytest.approx(2.1))
    # Step 205 at 31.4 s; steps 201 to 205 again from 32.2 s on.
    assert (rank.last_step, rank.repeated, rank.lost_s) == (205, 5, pytest.approx(1.3))
    assert story.lost_s == pytest.approx(3.4)


def test_the_phases_add_up_to_what_was_lost(story: Story) -> None:
    for one in story.interruptions:
        assert len(one.phases) == 4
        assert sum(end_s - start_s for _, start_s, end_s in one.phases) == pytest.approx(one.lost_s)
        assert all(end_s >= start_s for _, start_s, end_s in one.phases)


def test_interruptions_say_what_happened(story: Story) -> None:
    assert [one.what for one in story.interruptions] == ["node n03 died", "rank 1 crashed"]


def test_a_cycle_ends_at_the_fault_and_not_when_it_was_noticed(story: Story, events: tuple[Event, ...]) -> None:
    at_s = [moment - story.start_s for span in story.spans for moment in (span.start_s, span.end_s)]
    assert at_s == pytest.approx([5.0, 20.0, 20.5, 31.6, 31.8, 42.5])
    assert story.spans[1].nodes == ("n01", "n02", "n05", "n04")


def test_a_run_that_still_runs_has_an_open_last_cycle(events: tuple[Event, ...], points: tuple[Point, ...]) -> None:
    running = tell(name="demo", events=events[:4], points=points[:50])
    assert running.end is None
    assert running.spans[0].end_s == points[49].epoch_s


def test_a_restart_that_is_itself_interrupted_is_one_interruption(
    events: tuple[Event, ...], points: tuple[Point, ...]
) -> None:
    # The second cycle comes no further than the first did: its crash is part of the same trouble.
    short = [point for point in points if point.cycle != 1 or point.step <= 108]
    short = [point if point.cycle != 2 else replace(point, step=point.step - 95) for point in short]
    (one,) = find_interruptions(events, short)
    assert one.causes == ("node_death", "rank_crash")
    assert one.what == "node n03 died, then rank 1 crashed"
    assert one.last_step == 110
    assert one.back_s is not None
    assert next(point.step for point in short if point.epoch_s == one.back_s) == 111


def test_a_run_that_never_came_back_lost_no_known_time(events: tuple[Event, ...], points: tuple[Point, ...]) -> None:
    (one,) = find_interruptions(events[:6], points[:110])
    assert one.lost_s is None
    assert [name for name, _, _ in one.phases] == ["notice, stop", "start ranks"]


def test_a_run_without_any_step_counts_from_its_start(events: tuple[Event, ...]) -> None:
    one = find_interruptions(events, ())[0]
    assert (one.last_step, one.last_s) == (0, events[0].epoch_s)


def test_nothing_is_needed_of_either_file(tmp_path: Path) -> None:
    story = read(tmp_path, tmp_path / "not there")
    assert (story.spans, story.interruptions, story.furthest, story.lost_s) == ((), (), 0, 0.0)
    assert find_spans((), ()) == ()


def test_files_with_torn_ends_are_read(run_folder: Path, story: Story) -> None:
    found = read(run_folder, run_folder / "metrics.jsonl")
    assert found.points == story.points
    assert found.events == story.events
    assert found.sample == story.sample


def test_lines_that_are_no_steps_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('[]\n"x"\n{"step": 1}\n{"step": 2, "loss": 3.5, "epoch_s": 4}\nnull\n{"step": "x"}\n')
    assert read_points(path) == (Point(step=2, loss=3.5, epoch_s=4.0),)
