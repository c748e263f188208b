"""A controller that dies between any two steps ends where one that lives does, and does nothing twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.control import Hands, SmallSlurm
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.policy import Modes, Policy, Requeue
from trainmaster.errors import ControllerError, LeaseLost

ACT = Policy(modes=Modes(default="act"), requeue=Requeue(grace_s=30.0))


class Killed(BaseException):
    """kill -9: nothing catches it, and nothing is cleaned up."""


def story(folder: Path, *, kill_at: int, lose_journal: bool = False) -> tuple[SmallSlurm, list[str]]:
    """A day with a lost node, a condemned one and a quarantine; the controller dies before its `kill_at`-th step."""
    clock = Hands()
    slurm = SmallSlurm(40, clock)
    steps: list[str] = []

    def before_step(step: str) -> None:
        steps.append(step)
        if len(steps) == kill_at:
            raise Killed

    def fresh(watch: Callable[[str], None]) -> Controller:
        journal = Journal(folder / "journal.sqlite", synchronous="OFF")
        # The old one is dead, and its lease with it.
        journal._db.execute("UPDATE lease SET holder = ''")
        controller = Controller(slurm, journal, ACT, clock, before_step=watch)
        controller.start()
        return controller

    controller = fresh(before_step)
    slurm.start(7, "n[0001-0004]")
    slurm.start(8, "n[0005-0008]")
    slurm.start(9, "n[0009-0012]", comment="checkpoint=USR2")

    def happens(tick: int) -> None:
        if tick == 2:
            slurm.die("n0001")
            slurm.set("n0005", drain="[HC] gpu.present: gone")
            slurm.set("n0009", drain="[HC] ib.present: the port is missing")
            slurm.set("n0020", drain="bob was here")
        if tick == 3:
            Journal(folder / "journal.sqlite", synchronous="OFF").ask("quarantine", "n0030", by="alice", why="noise")
        if tick == 13:
            for job_id, nodes in ((7, "n[0002-0004,0013]"), (8, "n[0006-0008,0014]"), (9, "n[0010-0012,0015]")):
                slurm.start(job_id, nodes, restarts=slurm.known[job_id].restarts)

    for tick in range(16):
        happens(tick)
        clock.at += 10
        try:
            controller.tick()
        except Killed:
            if lose_journal:
                for file in folder.glob("journal.sqlite*"):
                    file.unlink()
            controller = fresh(lambda step: None)
    return slurm, steps


def end_state(slurm: SmallSlurm) -> dict[str, object]:
    jobs = {job.job_id: (job.state, job.restarts, job.excluded_nodes) for job in slurm.known.values()}
    return {"jobs": jobs, "nodes": {name: node.state for name, node in slurm.all.items()}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallSlurm, list[str]]:
    return story(tmp_path_factory.mktemp("undisturbed"), kill_at=-1)


def test_the_story_is_worth_telling(undisturbed: tuple[SmallSlurm, list[str]]) -> None:
    slurm, steps = undisturbed
    assert sorted(slurm.changes) == sorted(
        ["start 7", "requeue 8", "start 8", "USR2 9", "requeue 9", "start 9", "DRAIN n0030"]
        + [f"{verb} {job_id}" for verb in ("keep", "free") for job_id in (7, 8, 9)]
    )
    assert not slurm.reserved
    assert len(steps) > 20


def test_killed_before_each_step(undisturbed: tuple[SmallSlurm, list[str]], tmp_path: Path) -> None:
    whole, steps = undisturbed
    for kill_at in range(1, len(steps) + 1):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        slurm, _ = story(folder, kill_at=kill_at)
        where = f"killed before step {kill_at}, {steps[kill_at - 1]}"
        assert end_state(slurm) == end_state(whole), where
        assert not slurm.reserved, where
        assert sorted(slurm.changes) in (
            sorted(whole.changes),
            # Whether a signal was sent is not to be seen; it is rather not sent than sent twice.
            sorted(change for change in whole.changes if change != "USR2 9"),
        ), where


def test_killed_and_the_journal_lost(undisturbed: tuple[SmallSlurm, list[str]], tmp_path: Path) -> None:
    whole, steps = undisturbed
    for kill_at in range(1, len(steps) + 1, 2):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        slurm, _ = story(folder, kill_at=kill_at, lose_journal=True)
        jobs, wanted = end_state(slurm)["jobs"], end_state(whole)["jobs"]
        where = f"killed before step {kill_at}, {steps[kill_at - 1]}"
        # Which node failed a job may be forgotten, and a person's wish that nobody had taken up.
        assert {k: v[:2] for k, v in jobs.items()} == {k: v[:2] for k, v in wanted.items()}, where  # type: ignore
        assert not slurm.reserved, where
        assert slurm.changes.count("requeue 8") == 1 and slurm.changes.count("requeue 9") == 1, where
        assert all(job.eligible_time <= slurm.clock.at for job in slurm.known.values()), where  # type: ignore[operator]


def test_there_is_one_controller(tmp_path: Path) -> None:
    clock = Hands()
    slurm = SmallSlurm(8, clock)
    first = Journal(tmp_path / "journal.sqlite")
    Controller(slurm, first, ACT, clock).start()
    second = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(ControllerError, match="another controller"):
        second.take_lease("elsewhere:1:1", now=clock.at, patience_s=60)


def test_a_controller_that_wakes_up_under_a_successor_does_nothing_more(tmp_path: Path) -> None:
    clock = Hands()
    slurm = SmallSlurm(8, clock)
    sleeper = Controller(slurm, Journal(tmp_path / "journal.sqlite"), ACT, clock)
    sleeper.start()
    slurm.start(7, "n[0001-0004]")
    sleeper.tick()
    other = Journal(tmp_path / "journal.sqlite")
    other._db.execute("UPDATE lease SET holder = 'elsewhere:1:1'")
    other.take_lease("third:2:2", now=clock.at + 120, patience_s=60)
    slurm.die("n0001")
    clock.at += 10
    with pytest.raises(LeaseLost):
        sleeper.tick()
    assert slurm.changes == []
