"""A job's nodes are kept for it while it is on its way back, and for nobody longer than that."""

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.control import Hands, SmallSlurm
from trainmaster.controller import keeping, parts
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.policy import Modes, Policy
from trainmaster.errors import SlurmError
from trainmaster.slurm.values import Job, Reservation

ACT = Policy(modes=Modes(default="act"))
FATAL = "[HC] gpu.present: gone"


class Site:
    def __init__(self, folder: Path) -> None:
        self.clock = Hands()
        self.slurm = SmallSlurm(20, self.clock)
        self.journal = Journal(folder / "journal.sqlite", synchronous="OFF")
        self.controller = Controller(self.slurm, self.journal, ACT, self.clock)
        self.controller.start()
        self.controller.tick()

    def tick(self, after_s: float = 10.0):
        self.clock.at += after_s
        return self.controller.tick()

    @property
    def only(self) -> Reservation:
        (one,) = self.slurm.reserved.values()
        return one


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_nodes_are_kept_before_the_requeue_and_given_back_after_the_start(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", user="alice")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    site.tick()
    assert site.only.nodes == "n[0001-0002,0004]" and site.only.users == ("alice",)
    assert not site.slurm.known[7].reservation, "not while it runs: Slurm may not let it out again"
    site.tick(1.0)
    site.tick(2.0)
    assert site.slurm.known[7].reservation == site.only.name
    assert site.slurm.changes == ["keep 7", "requeue 7", "start 7"]
    site.slurm.start(7, "n[0001-0002,0004-0005]", restarts=1)
    site.tick()
    assert site.slurm.changes[3:] == ["free 7"] and not site.slurm.known[7].reservation
    site.slurm.calls.clear()
    site.tick()
    assert site.slurm.calls == {"nodes": 1, "all_jobs": 1}


def test_a_node_that_does_not_answer_is_enough(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0002", base="ALLOCATED*")
    site.tick()
    assert site.only.nodes == "n[0001,0003-0004]"
    site.slurm.set("n0002", base="ALLOCATED")
    site.tick()
    assert site.slurm.changes == ["keep 7", "free 7"], "it answers again"
    site.slurm.set("n0002", base="ALLOCATED*")
    site.tick()
    assert site.slurm.changes == ["keep 7", "free 7"], "once an attempt"


def test_nodes_that_another_job_has_by_now_are_not_kept(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0002")
    site.slurm.start(8, "n0001")
    site.tick()
    assert site.only.nodes == "n[0003-0004]"


def test_what_slurm_does_not_want_to_keep_holds_nobody_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(name: str, **fields: str) -> None:
        raise SlurmError("Requested nodes are busy")

    monkeypatch.setattr(site.slurm, "create_reservation", refuses)
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0002")
    site.tick()
    site.tick(1.0)
    assert site.slurm.changes == ["start 7"]
    assert site.controller.memory.jobs[7].kept_for == 1


@pytest.mark.parametrize("change", [{"state": "CANCELLED"}, {"reason": "JobHeldUser"}])
def test_a_job_that_does_not_come_back_keeps_nothing(site: Site, change: dict[str, str]) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0002")
    site.tick()
    assert site.slurm.changes == ["keep 7"]
    site.slurm.known[7] = replace(site.slurm.known[7], **change)
    site.tick()
    assert site.slurm.changes == ["keep 7", "free 7"]


def test_what_a_controller_before_us_left_is_cleaned_up_and_anothers_is_not(tmp_path: Path) -> None:
    site = Site(tmp_path)
    mine = "tm-keep-99-0-0123456789"
    for name in (mine, "tm-keep-me", "alices-own"):
        site.slurm.reserved[name] = Reservation(name=name, nodes="n0001")
    site.controller.stop()
    other = Controller(site.slurm, Journal(tmp_path / "lost.sqlite", synchronous="OFF"), ACT, site.clock)
    other.start()
    other.tick()
    assert sorted(site.slurm.reserved) == ["alices-own", "tm-keep-me"]


def test_a_preempted_job_keeps_nothing(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.back(7, preempt_time=site.clock.at + 1)
    site.tick()
    assert site.slurm.changes == []


def test_a_job_in_its_owners_reservation_is_left_in_it(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", reservation="alices-own")
    site.tick()
    site.slurm.die("n0002")
    site.tick()
    assert site.slurm.changes == ["start 7"] and site.slurm.known[7].reservation == "alices-own"


def test_names_tell_what_has_to_be_known() -> None:
    act = Act(kind=Kind.KEEP, cause="", why="", job_id=7, restarts=2, attempt="x")
    kept = keeping.read(keeping.name_of(act))
    assert kept is not None and (kept.job_id, kept.restarts) == (7, 2)
    assert keeping.read("tm-keep-7-2") is None


def test_a_job_gets_the_priority_back_that_its_requeue_took(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", priority=20000)
    site.tick()
    site.slurm.die("n0002")
    update = site.slurm.update_job

    def ages_no_more(job_id: int | str, **fields: str) -> None:
        # As 22.05.8: the age is gone when the begin time is set.
        if "StartTime" in fields:
            job = site.slurm.known[int(job_id)]
            site.slurm.known[int(job_id)] = replace(job, priority=1)
        update(job_id, **fields)

    site.slurm.update_job = ages_no_more  # type: ignore[method-assign]
    site.tick()
    site.tick(1.0)
    assert site.slurm.known[7].priority >= 0.98 * 20000 and site.slurm.known[7].nice < -19000
    assert site.controller.memory.jobs[7].released == 1


def roles(state: str, **values: object) -> list[Job]:
    base = {"state": state, "partition": "batch", "het_job_id": 7, "user": "alice"}
    return [
        Job(job_id=7, het_offset=0, node_count=1, **(base | values)),  # type: ignore[arg-type]
        Job(job_id=8, het_offset=1, node_count=2, excluded_nodes="n0020", **(base | values)),  # type: ignore[arg-type]
    ]


def test_the_parts_of_a_heterogeneous_job_are_one_job() -> None:
    known, some = parts.merged([*roles("RUNNING"), Job(job_id=9)])
    assert sorted(known) == [7, 9] and known[7].node_count == 3 and len(some[7]) == 2
    waits = roles("PENDING")
    waits[0] = replace(waits[0], state="RUNNING")
    assert parts.as_one(waits).state == "RUNNING"
    assert parts.as_one(roles("CANCELLED")).state == "CANCELLED"


def test_a_heterogeneous_job_comes_back_as_a_whole_and_each_part_without_the_bad_node(site: Site) -> None:
    leader, other = roles("RUNNING", start_time=site.clock.at)
    site.slurm.known |= {7: replace(leader, nodes="n0001"), 8: replace(other, nodes="n[0002-0003]")}
    site.tick()
    site.slurm.set("n0002", base="DOWN", reason="Not responding")
    for number in (7, 8):
        site.slurm.back(number)
    for _ in range(3):
        site.tick()
    leader, other = site.slurm.known[7], site.slurm.known[8]
    assert (leader.excluded_nodes, other.excluded_nodes) == ("n0002", "n[0002,0020]")
    assert leader.reservation == other.reservation == site.only.name and site.only.nodes == "n[0001,0003]"
    assert site.slurm.changes == ["keep 7", "start 7"] and other.reason == "Resources"


def test_a_job_that_its_launcher_releases_is_put_into_its_reservation_at_once(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", std_out="/shared/jobs/abc/batch.out")
    site.tick()
    site.slurm.die("n0002")
    site.tick(1.0)
    assert site.slurm.changes == ["keep 7"] and site.slurm.known[7].reservation == site.only.name


def test_what_fails_again_and_again_is_not_asked_for_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen on 22.05.8 without accounting: a job that lost a node cannot be changed, and each try takes five seconds.
    def refuses(name: str) -> None:
        site.slurm.calls["refused"] += 1
        raise SlurmError("Job update not available right now")

    monkeypatch.setattr(site.slurm, "delete_reservation", refuses)
    site.slurm.reserved["tm-keep-99-0-0123456789"] = Reservation(name="tm-keep-99-0-0123456789", nodes="n0001")
    site.controller._memory = replace(site.controller.memory, kept=("tm-keep-99-0-0123456789",))
    for _ in range(25):
        site.tick(6.0)
    assert site.slurm.calls["refused"] == 5
    site.tick(300.0)
    assert site.slurm.calls["refused"] == 6
