"""`trainmaster top` without a terminal: what is shown, in how much room, and that nobody's name moves the cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trainmaster.page import terminal
from trainmaster.page.facts import Entry, Facts, JobFact, Leaf, Look, NodeFact, Pod
from trainmaster.page.tracks import Line


def fleet(size: int, *, leaf: int = 16, name: str = "train", **values: object) -> Facts:
    nodes = {f"n{at:04}": NodeFact(name=f"n{at:04}", look=Look.BUSY, slurm="ALLOCATED") for at in range(size)}
    bad = f"n{size - 1:04}"
    nodes[bad] = NodeFact(name=bad, look=Look.DOWN, slurm="DOWN*", why="Not responding")
    names = list(nodes)
    leaves = [Leaf(name=f"leaf{at // leaf + 1}", nodes=tuple(names[at : at + leaf])) for at in range(0, size, leaf)]
    jobs = tuple(
        JobFact(job_id=at, name=name, user="ann", partition="batch", state="RUNNING", nodes=2, start=1.0, restarts=0)
        for at in range(100)
    )
    entry = Entry(number=1, at=1.0, kind="node", name=bad, what="OK -> SUSPECT", why=name, tone="bad")
    line = Line(group="batch", size=size, promised=5, buffer=1, now=size - 1, points=((1.0, size), (2.0, size - 1)))
    known: dict[str, object] = {"at": 99.0, "controller_at": 99.0, "jobs": jobs, "jobs_total": 100, "lines": (line,)}
    known |= {"feed": (entry,) * 50, "pods": (Pod(name="", leaves=tuple(leaves)),), "nodes": nodes}
    return Facts(cluster="lab", tick_s=5.0, **(known | values))  # type: ignore[arg-type]


def drawn(facts: Facts, *, width: int = 100, height: int = 40, colours: bool = False) -> str:
    console = Console(width=width, force_terminal=colours, color_system="standard" if colours else None)
    with console.capture() as found:
        console.print(terminal.screen(facts, 100.0, width=width, height=height))
    return found.get()


@pytest.mark.parametrize("size", [1, 8, 2048])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (40, 24)])
def test_it_fits_and_shows_who_is_in_trouble(size: int, width: int, height: int) -> None:
    lines = drawn(fleet(size), width=width, height=height).splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    assert any("x" in line.partition("leaf")[2] for line in lines if "leaf" in line)


def test_it_says_how_much_is_left_of_the_guarantee() -> None:
    text = drawn(fleet(8), width=160)
    assert "7 of 8 nodes in service, 5 guaranteed, 2 above it (1 kept for failures), lowest 7" in text
    assert "1 down" in text and "leaf1 ■■■■■■■x" in text and "100 running jobs" in text and "ok" not in text


@given(name=st.text(min_size=1))
def test_what_users_name_themselves_moves_no_cursor(name: str) -> None:
    text = drawn(fleet(8, name=f"{name}\x1b[2J\x9b2J\r"))
    assert "\x1b" not in text and "\x9b" not in text and "\r" not in text
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"at": 0.0}, "Slurm has not answered yet"),
        ({"at": 40.0, "trouble": "slurmctld did not answer"}, "nodes and jobs are 60 s old: slurmctld did not answer"),
        ({"controller_at": 0.0}, "no controller is at work"),
        ({"controller_at": 10.0}, "the controller has not looked for 90 s"),
    ],
)
def test_it_does_not_look_alive_when_it_is_old(values: dict[str, object], said: str) -> None:
    text = drawn(fleet(8, **values))
    assert said in text and "not live" in text
    assert "not live" not in drawn(fleet(8))
