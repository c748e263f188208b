"""slurmctld crashes before it has saved what was done: nothing of it is lost, and nothing that is over runs again."""

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.control import Hands, SmallSlurm
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.memory import NodeState
from trainmaster.controller.policy import Modes, Policy

FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"


class Site:
    """A small Slurm that can forget, and its controller."""

    def __init__(self, folder: Path) -> None:
        self.clock = Hands()
        self.slurm = SmallSlurm(40, self.clock)
        self.slurm.settings["BOOT_TIME"] = "2026-11-24T00:00:00"
        policy = Policy(modes=Modes(default="act", keep="observe"))
        self.journal = Journal(folder / "journal.sqlite", synchronous="OFF")
        self.controller = Controller(self.slurm, self.journal, policy, self.clock)
        self.controller.start()
        self.controller.tick()

    def tick(self, after_s: float = 5.0):
        self.clock.at += after_s
        return self.controller.tick()

    def saved(self):
        """What slurmctld has on disk now."""
        return dict(self.slurm.known), dict(self.slurm.all)

    def crash(self, saved, *, state: str = "RUNNING") -> None:
        """slurmctld starts again from that; `state`: what has become of the jobs that it takes for running."""
        self.slurm.known = {
            number: replace(job, state=state) if job.state == "RUNNING" else job for number, job in saved[0].items()
        }
        self.slurm.all = dict(saved[1])
        self.slurm.settings["BOOT_TIME"] = "2026-11-24T01:00:00"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("state", ["RUNNING", "FAILED", "NODE_FAIL"])
@pytest.mark.parametrize("seen", [False, True], ids=["not seen to come back", "seen to come back"])
def test_a_requeue_that_slurmctld_forgot_in_a_crash_is_made_again(site: Site, state: str, seen: bool) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    saved = site.saved()
    site.tick()
    if seen:
        site.tick()
        assert site.slurm.changes == ["requeue 7", "start 7"]
    before = len(site.slurm.changes)
    site.crash(saved, state=state)
    for _ in range(4):
        site.tick()
    assert site.slurm.changes[before:] == ["requeue 7", "start 7"]
    job = site.slurm.known[7]
    assert job.restarts == 1 and job.eligible_time is not None and job.eligible_time <= site.clock.at
    site.slurm.start(7, "n[0005-0008]", restarts=1)
    for _ in range(4):
        site.tick()
    assert site.slurm.changes[before:] == ["requeue 7", "start 7"]
    assert [one.restarts for one in site.controller.memory.jobs[7].tries] == [1], "one end, however often it is told"


def test_a_requeue_of_slurms_own_that_it_forgot_is_made_again(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    saved = site.saved()
    site.slurm.die("n0002")
    site.tick()
    assert site.slurm.changes == ["start 7"]
    site.crash(saved)
    for _ in range(4):
        site.tick()
    assert site.slurm.changes == ["start 7", "requeue 7", "start 7"]


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "TIMEOUT"])
def test_what_is_over_otherwise_stays_over(site: Site, state: str) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    saved = site.saved()
    site.tick()
    site.tick()
    site.crash(saved, state=state)
    for _ in range(4):
        site.tick()
    assert site.slurm.changes.count("requeue 7") == 1


def test_the_next_attempt_may_fail(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    site.tick()
    site.tick()
    site.clock.at += 1
    site.slurm.start(7, "n[0005-0008]", restarts=1)
    site.tick()
    site.slurm.known[7] = replace(site.slurm.known[7], state="FAILED")
    for _ in range(4):
        site.tick()
    assert site.slurm.changes == ["requeue 7", "start 7"]


def test_no_requeue_holds_here_too(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", requeue=False)
    site.tick()
    saved = site.saved()
    site.slurm.die("n0002")
    site.tick()
    site.crash(saved)
    for _ in range(4):
        site.tick()
    assert "requeue 7" not in site.slurm.changes


def test_a_drain_that_slurmctld_forgot_in_a_crash_is_made_again(site: Site) -> None:
    saved = site.saved()
    site.journal.ask("quarantine", "n0001", by="alice", why="smells of smoke")
    site.tick()
    site.crash(saved)
    for _ in range(3):
        site.tick()
    assert site.slurm.changes == ["DRAIN n0001", "DRAIN n0001"]
    assert site.slurm.all["n0001"].reason.startswith("[TM] person: alice: smells of smoke #")
    assert site.controller.memory.nodes["n0001"].state is NodeState.QUARANTINED


@pytest.mark.parametrize(("after_s", "crashed"), [(5.0, False), (3600.0, True)], ids=["no crash", "saved long ago"])
def test_a_drain_that_somebody_takes_away_is_not(site: Site, after_s: float, crashed: bool) -> None:
    site.journal.ask("quarantine", "n0001", by="alice", why="smells of smoke")
    site.tick()
    site.tick(after_s)
    if crashed:
        site.crash(site.saved())
    site.slurm.set("n0001", drain="")
    for _ in range(3):
        site.tick()
    assert site.slurm.changes == ["DRAIN n0001"]
