"""Jobs that lose a node come back at once, on other nodes, a bounded number of times, and never after their end."""

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.control import DELAY_S, Hands, SmallSlurm
from trainmaster.controller.acts import Kind
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.memory import NodeState
from trainmaster.controller.policy import Modes, Policy, Requeue

ACT = Policy(modes=Modes(default="act", keep="observe"))
FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"


class Site:
    def __init__(self, folder: Path, policy: Policy = ACT, count: int = 20) -> None:
        self.clock = Hands()
        self.slurm = SmallSlurm(count, self.clock)
        self.journal = Journal(folder / "journal.sqlite", synchronous="OFF")
        self.controller = Controller(self.slurm, self.journal, policy, self.clock)
        self.controller.start()
        self.controller.tick()

    def tick(self, after_s: float = 10.0):
        self.clock.at += after_s
        return self.controller.tick()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_job_that_lost_a_node_starts_without_slurms_delay_and_without_the_node(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", excluded_nodes="n0020")
    site.tick()
    site.slurm.die("n0002")
    site.slurm.up("n0002")  # it flaps: Slurm would give it to the job again
    site.slurm.die("n0002")
    site.tick()
    job = site.slurm.known[7]
    assert job.eligible_time is not None and job.eligible_time <= site.clock.at
    assert job.excluded_nodes == "n[0002,0020]"
    assert site.controller.memory.jobs[7].tries[-1].cause == "node_fail"
    assert site.controller.memory.nodes["n0002"].state is NodeState.SUSPECT
    assert site.controller.memory.blame["n0002"].weight == pytest.approx(1.0)


def test_an_attempt_that_takes_its_time_to_end_is_one_end(site: Site) -> None:
    # Seen on 22.05.8: the restart count grows first, and the job is COMPLETING for seconds after that.
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0002")
    waits = site.slurm.known[7]
    site.slurm.known[7] = replace(waits, state="COMPLETING", nodes="n[0001,0003]")
    for _ in range(3):
        site.tick(1.0)
    assert site.slurm.changes == []
    site.slurm.known[7] = waits
    site.tick(1.0)
    assert [one.cause for one in site.controller.memory.jobs[7].tries] == ["node_fail"]
    assert site.slurm.changes == ["start 7"]


def test_nothing_is_asked_of_slurm_twice(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0002")
    for _ in range(5):
        site.tick()
    assert site.slurm.changes == ["start 7"]


def test_a_tick_asks_two_things_whatever_the_size(site: Site) -> None:
    site.slurm.calls.clear()
    site.tick()
    assert site.slurm.calls == {"nodes": 1, "all_jobs": 1}


def test_a_job_on_a_node_that_a_check_condemns_is_requeued_then_released(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    site.tick()
    assert site.slurm.changes == ["requeue 7"]
    site.tick(2.0)
    assert site.slurm.changes == ["requeue 7", "start 7"]
    assert site.controller.memory.nodes["n0003"].state is NodeState.FOREIGN
    assert site.slurm.all["n0003"].reason == FATAL


def test_a_job_that_saves_on_usr2_is_asked_first(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", comment="checkpoint=USR2")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    site.tick()
    site.tick()
    assert site.slurm.changes == ["USR2 7"]
    site.tick(ACT.requeue.grace_s)
    assert site.slurm.changes == ["USR2 7", "requeue 7"]


def test_a_job_that_its_own_launcher_watches_is_left_alone(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", std_out="/shared/jobs/abc/batch.out")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    site.tick()
    assert site.slurm.changes == []


def test_a_finished_job_is_never_run_again(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    site.slurm.known[7] = replace(site.slurm.known[7], state="COMPLETED")
    for _ in range(3):
        site.tick()
    assert site.slurm.changes == []
    assert 7 not in site.controller.memory.jobs


def test_a_job_that_ends_between_look_and_act_is_not_run_again(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    answer = site.slurm.all_jobs

    def ends_meanwhile(**values):
        told = answer(**values)
        site.slurm.known[7] = replace(site.slurm.known[7], state="COMPLETED")
        return told

    site.slurm.all_jobs = ends_meanwhile  # type: ignore[method-assign]
    site.tick()
    assert site.slurm.changes == []


def test_no_requeue_is_respected(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]", requeue=False)
    site.tick()
    site.slurm.set("n0003", drain=FATAL)
    ticked = site.tick()
    assert site.slurm.changes == [] and [one.rule for one in ticked.plan.refused] == ["I4"]


def test_a_job_that_gets_nowhere_is_held_at_the_fourth_end(site: Site) -> None:
    for number in range(4):
        site.slurm.start(7, "n[0001-0004]", restarts=number)
        site.tick()
        site.slurm.back(7)
        for _ in range(100):
            site.tick()
    assert site.slurm.changes == ["start 7", "start 7", "start 7", "hold 7"]
    assert "loop" in site.controller.memory.jobs[7].held


def test_a_node_that_fails_its_job_again_and_again_cannot_do_so_35_times(tmp_path: Path) -> None:
    # A published case: one job lost a node and came back 35 times, preempting 548 others.
    site = Site(
        tmp_path, Policy(modes=Modes(default="act", keep="observe", drain="observe"), requeue=Requeue(exclude_s=0.0))
    )
    for number in range(35):
        if site.slurm.known.get(7) and "Held" in site.slurm.known[7].reason:
            break
        site.slurm.start(7, "n[0001-0004]", restarts=number)
        site.tick()
        site.slurm.die("n0001")
        site.slurm.up("n0001")
        site.slurm.die("n0001")
        site.tick()
        site.slurm.up("n0001")
        for _ in range(100):
            site.tick()
    assert site.slurm.changes == ["start 7"] * 4 + ["hold 7"]


def test_a_giant_that_loses_another_node_each_time_goes_on(site: Site) -> None:
    for number in range(6):
        name = f"n{number + 1:04}"
        site.slurm.start(7, f"{name},n[0011-0014]", restarts=number)
        site.tick()
        site.slurm.die(name)
        site.tick()
    assert site.slurm.changes == ["start 7"] * 6


def test_waits_grow_between_starts_that_get_nowhere(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.back(7)
    site.tick()
    site.slurm.start(7, "n[0005-0008]", restarts=1)
    site.tick()
    site.slurm.back(7)
    ticked = site.tick()
    assert site.slurm.changes == ["start 7"]
    assert ticked.plan.wake_at == pytest.approx(site.clock.at + 60.0)
    site.tick(60.0)
    assert site.slurm.changes == ["start 7", "start 7"]


def test_a_preempted_job_keeps_slurms_delay(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.back(7, preempt_time=site.clock.at + 1)
    for _ in range(3):
        site.tick()
    assert site.slurm.changes == []


def test_what_a_job_costs_others_is_bounded(tmp_path: Path) -> None:
    site = Site(tmp_path, Policy(modes=Modes(default="act", keep="observe"), requeue=Requeue(blast_node_hours=10.0)))
    site.slurm.start(7, "n[0001-0010]")
    site.slurm.start(8, "n[0011-0020]")
    site.tick()
    site.clock.at += 2 * 3600
    site.tick()
    site.slurm.die("n0001")
    site.tick()
    site.slurm.back(8, preempt_time=site.clock.at)
    site.slurm.start(7, "n[0011-0020]", restarts=1)
    site.tick()
    assert site.controller.memory.jobs[7].blast[0][1] == pytest.approx(20.0, rel=0.05)
    site.slurm.die("n0011")
    site.tick(60)
    site.tick(60)
    assert "hold 7" in site.slurm.changes
    assert site.controller.memory.jobs[7].held.startswith("blast")
    # A day later it is over, and the job may start.
    site.tick(86400.0)
    site.tick(1.0)
    assert site.slurm.changes[-2:] == ["release 7", "start 7"]


def test_a_failed_prolog_does_not_wait_for_a_person(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.set("n0001", drain="Prolog error")
    site.slurm.back(7, reason="launch failed requeued held")
    site.tick(2.0)
    assert site.slurm.changes == ["release 7", "start 7"]


def test_a_job_held_by_its_owner_stays_held(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0001")
    site.slurm.known[7] = replace(site.slurm.known[7], reason="JobHeldUser")
    site.tick()
    assert site.slurm.changes == []


def test_a_begin_time_that_its_owner_chose_is_kept(site: Site) -> None:
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0001")
    site.slurm.known[7] = replace(site.slurm.known[7], eligible_time=site.clock.at + 7200)
    site.tick()
    assert site.slurm.changes == []


@pytest.mark.parametrize("mode", ["observe", "propose"])
def test_only_act_acts(tmp_path: Path, mode: str) -> None:
    site = Site(tmp_path, Policy(modes=Modes(default=mode)))  # type: ignore[arg-type]
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    site.slurm.die("n0001")
    ticked = site.tick()
    assert site.slurm.changes == []
    assert [act.kind for act in ticked.proposed] == ([Kind.RELEASE] if mode == "propose" else [])
    assert site.slurm.known[7].eligible_time == site.clock.at - 10 + DELAY_S


def test_a_clock_that_jumps_while_nobody_looks_does_not_make_a_long_run_of_a_short_one(site: Site) -> None:
    # Seen with a clock that was a day off: each end counted as progress, and the job was never held.
    site.slurm.start(7, "n[0001-0004]")
    site.tick()
    began = site.slurm.known[7].start_time
    site.clock.at += 86400
    site.slurm.back(7)
    site.slurm.known[7] = replace(site.slurm.known[7], submit_time=began + 20.0, eligible_time=began + 141.0)
    site.tick()
    assert site.controller.memory.jobs[7].tries[-1].ran_s == 20.0
