"""The pictures, the page and the terminal's summary can be made of any story, and hold what they should."""

import doctest
import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import demo_report
import picture
import play
import pytest
import story as story_module
import timeline
from rich.console import Console
from story import Story, tell

from trainmaster.launcher.record import Event


def test_the_page_holds_both_pictures_and_all_events(story: Story) -> None:
    page = demo_report.page(story)
    assert page.count("<svg ") == 2
    assert all(event.state in page for event in story.events)
    assert "<h1>Node n03 died and rank 1 crashed. The job went on and finished.</h1>" in page
    assert "2.10 s" in page and "1.30 s" in page
    assert "rank 1 on n02, signal 9" in page


def test_the_page_needs_no_other_file_and_no_network(story: Story) -> None:
    page = demo_report.page(story)
    for loads_something in ("<script", "<link", "<img", "@import", 'src="'):
        assert loads_something not in page
    assert "url(" not in page.replace("url(#", "")


def test_text_from_outside_is_escaped(story: Story) -> None:
    page = demo_report.page(story)
    assert "return &lt;eggs&gt;" in page
    assert "demo &lt;1&gt;" in page


def test_pictures_are_well_formed(story: Story) -> None:
    for figure in (picture.overview(story), picture.close_ups(story)):
        assert figure is not None
        assert ElementTree.fromstring(picture.to_svg(figure)).tag.endswith("svg")


def test_labels_of_close_interruptions_do_not_lie_on_each_other(story: Story) -> None:
    many = tuple(
        replace(story.interruptions[0], last_s=story.start_s + 10 + n, back_s=story.start_s + 10.5 + n)
        for n in range(4)
    )
    figure = picture.overview(replace(story, interruptions=many))
    figure.draw_without_rendering()
    notes = [text for text in figure.axes[0].texts if "lost" in text.get_text()]
    boxes = [note.get_window_extent() for note in notes]
    assert len(boxes) == 4
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


@pytest.mark.parametrize("known", [0, 1, 2, 3, 5, 6, 11])
def test_a_report_of_a_run_cut_off_at_any_moment(events: tuple[Event, ...], story: Story, known: int) -> None:
    cut = tell(name="cut", events=events[:known], points=[])
    assert "<h1>" in demo_report.page(cut)
    until_s = events[known - 1].epoch_s if known else 0.0
    cut = tell(name="cut", events=events[:known], points=[point for point in story.points if point.epoch_s <= until_s])
    assert "<h1>" in demo_report.page(cut)


def test_many_nodes_and_faults_are_drawn_without_lanes(story: Story) -> None:
    nodes = tuple(f"n{number:03}" for number in range(512))
    wide = replace(story, spans=tuple(replace(span, nodes=nodes, ranks=4096) for span in story.spans))
    assert len(picture.overview(wide).axes) == 1
    busy = replace(story, interruptions=story.interruptions * 10)
    figure = picture.close_ups(busy)
    assert figure is not None and len(figure.axes) == picture.CLOSE_UPS_MAX


def test_a_run_without_faults_needs_no_close_ups(story: Story) -> None:
    assert picture.close_ups(replace(story, interruptions=())) is None


def test_the_terminal_shows_lanes_and_seconds(story: Story) -> None:
    text = io.StringIO()
    console = Console(file=text, width=120)
    for event in story.events:
        console.print(timeline.line(event, story.start_s))
    timeline.show(story, console)
    shown = text.getvalue()
    assert "rank 1 crashed on n02: all ranks start again in place" in shown
    assert "n03 died: a spare takes over" in shown
    assert "2.10 s" in shown
    lanes = {line.split()[0]: line for line in shown.splitlines() if line.startswith(" n0")}
    assert set(lanes) == {"n01", "n02", "n03", "n04", "n05"}
    assert "2" in lanes["n05"].partition("-")[2], "the spare took rank 2"


def test_every_state_has_words(events: tuple[Event, ...]) -> None:
    for state in ("NODE_LOST", "REQUEUED", "FAILED_USER", "TIMED_OUT", "LOST", "RESTARTING"):
        assert timeline.describe(replace(events[0], state=state, cause=None, dead=()))


@pytest.mark.parametrize("module", [demo_report, story_module, picture, timeline, play])
def test_examples_in_docstrings(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_as_a_command(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_folder / "new" / "page.html"
    assert demo_report.main([str(run_folder), str(run_folder / "metrics.jsonl"), str(out)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert demo_report.main([str(run_folder / "new"), "x", str(out)]) == 1
    assert "there is no record" in capsys.readouterr().err


def test_the_demo_accepts_what_it_should_show(story: Story) -> None:
    play.check(story, steps=300)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"end": None}, "did not succeed"),
        ({"sample": ""}, "wrote no text"),
        ({"points": ()}, "after step 0"),
        ({"interruptions": ()}, "the record says"),
    ],
)
def test_the_demo_fails_loudly_when_it_did_not_show_it(story: Story, change: dict[str, object], words: str) -> None:
    with pytest.raises(play.DemoFailed, match=words):
        play.check(replace(story, **change), steps=300)  # type: ignore[arg-type]


def test_the_demo_fails_when_a_fault_was_another(story: Story) -> None:
    node, rank = story.interruptions
    for wrong in ((rank, node), (node,), (node, rank, rank), (node, replace(rank, back_s=None))):
        with pytest.raises(play.DemoFailed):
            play.check(replace(story, interruptions=wrong), steps=300)
