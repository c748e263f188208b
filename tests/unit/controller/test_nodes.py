"""Which nodes are taken out and come back, and whose drains are nobody's to touch."""

import time
from pathlib import Path

import pytest

from fakes.control import Hands, SmallSlurm
from trainmaster.controller.journal import Journal
from trainmaster.controller.loop import Controller
from trainmaster.controller.memory import NodeState
from trainmaster.controller.policy import Drains, Guarantee, Modes, Policy, Returning


class Site:
    def __init__(self, folder: Path, count: int = 40, **policy: object) -> None:
        self.clock = Hands()
        self.slurm = SmallSlurm(count, self.clock)
        self.journal = Journal(folder / "journal.sqlite", synchronous="OFF")
        wanted = Policy(modes=Modes(default="act"), **policy)  # type: ignore[arg-type]
        self.controller = Controller(self.slurm, self.journal, wanted, self.clock)
        self.controller.start()
        self.controller.tick()

    def tick(self, after_s: float = 10.0):
        self.clock.at += after_s
        return self.controller.tick()

    def state(self, name: str) -> NodeState:
        record = self.controller.memory.nodes.get(name)
        return record.state if record is not None else NodeState.OK

    def ask(self, verb: str, name: str) -> None:
        self.journal.ask(verb, name, by="alice", why="smells of smoke")


def test_somebody_elses_drain_is_never_touched(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.slurm.set("n0001", drain="replacing DIMM, bob")
    site.tick()
    assert site.state("n0001") is NodeState.FOREIGN
    site.ask("release", "n0001")
    site.ask("quarantine", "n0001")
    for _ in range(3):
        site.tick(3600)
    assert site.slurm.changes == [] and site.slurm.all["n0001"].reason == "replacing DIMM, bob"
    site.slurm.set("n0001", drain="")
    site.tick()
    assert site.state("n0001") is NodeState.OK


def test_a_person_quarantines_and_releases_a_node(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.ask("quarantine", "n0001")
    site.tick()
    reason = site.slurm.all["n0001"].reason
    assert reason.startswith("[TM] person: alice: smells of smoke #")
    site.tick()
    assert site.state("n0001") is NodeState.QUARANTINED
    site.tick(86400)
    assert site.slurm.changes == ["DRAIN n0001"]
    site.ask("release", "n0001")
    site.tick()
    assert site.slurm.changes == ["DRAIN n0001", "UNDRAIN n0001"]
    assert site.state("n0001") is NodeState.PROBATION
    site.tick(7 * 86400)
    assert site.state("n0001") is NodeState.OK
    said = [event.what for event in site.journal.events("node:n0001")]
    assert said[0] == "quarantine" and "drain done" in said and "resume done" in said


def test_a_drain_of_ours_whose_reason_was_edited_is_no_longer_ours(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.ask("quarantine", "n0001")
    site.tick()
    site.slurm.set("n0001", drain="bob: keep, vendor is coming")
    site.tick()
    assert site.state("n0001") is NodeState.FOREIGN
    site.ask("release", "n0001")
    site.tick()
    site.tick()
    assert site.slurm.changes == ["DRAIN n0001"]


def test_who_resumes_by_hand_is_not_contradicted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.ask("quarantine", "n0001")
    site.tick()
    site.slurm.set("n0001", drain="")
    for _ in range(3):
        site.tick()
    assert site.slurm.changes == ["DRAIN n0001"] and site.state("n0001") is NodeState.OK


def test_a_node_that_flaps_is_taken_out(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for _ in range(3):
        site.slurm.up("n0005")
        site.tick(1000)
        site.slurm.die("n0005")
        site.tick()
    assert site.slurm.changes == ["DRAIN n0005"]
    assert "[TM] flap: went down 3 times in a day" in site.slurm.all["n0005"].reason


def test_the_promise_comes_before_a_drain(tmp_path: Path) -> None:
    site = Site(tmp_path, guarantee={"batch": Guarantee(nodes=38, failure_buffer=1)})
    site.slurm.die("n0040")
    site.ask("quarantine", "n0001")
    ticked = site.tick()
    assert site.slurm.changes == [] and [one.rule for one in ticked.plan.refused] == ["I1"]
    site.slurm.up("n0040")
    site.tick()
    assert site.slurm.changes == ["DRAIN n0001"]


def test_no_more_than_the_cap_is_out_because_of_us(tmp_path: Path) -> None:
    site = Site(tmp_path, drains=Drains(share_max=0.05))
    for number in range(1, 5):
        site.ask("quarantine", f"n000{number}")
    ticked = site.tick()
    out = [name for name, node in site.slurm.all.items() if "DRAIN" in node.state]
    assert len(out) == 2 and [one.rule for one in ticked.plan.refused] == ["I2", "I2"]


def test_a_check_that_condemns_many_at_once_is_wrong_and_the_way_back_stays_open(tmp_path: Path) -> None:
    site = Site(tmp_path, count=200)
    site.ask("quarantine", "n0100")
    site.tick()
    for number in range(1, 6):
        site.slurm.start(number, f"n000{number}")
    site.tick(700)
    for number in range(1, 6):
        site.slurm.set(f"n000{number}", drain="[HC] gpu.present: 7 of 8 GPUs")
    site.ask("quarantine", "n0101")
    site.ask("release", "n0100")
    ticked = site.tick()
    assert [trip.scope for trip in ticked.plan.trips] == ["all", "cause"]
    # No job is requeued on the word of that check, nothing else is drained, and what was released comes back.
    assert site.slurm.changes == ["DRAIN n0100", "UNDRAIN n0100"]
    assert {one.rule for one in ticked.plan.refused} == {"I3"}


def test_a_verified_node_comes_back_and_a_failed_one_waits_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "fit-n0001").touch()
    returning = Returning(verify=("test", "-e", f"{tmp_path}/fit-{{node}}"), verify_timeout_s=20.0)
    site = Site(tmp_path, returning=returning, drains=Drains(share_max=0.5))
    site.ask("quarantine", "n0001")
    site.ask("quarantine", "n0002")
    for _ in range(1000):
        site.tick(0.1)
        if site.state("n0001") is NodeState.PROBATION and site.state("n0002") is NodeState.REPAIR:
            break
        time.sleep(0.05)  # the commands are real processes
    assert site.slurm.all["n0001"].state == "IDLE" and "DRAIN" in site.slurm.all["n0002"].state


def test_a_lost_journal_is_found_again_in_slurm(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.ask("quarantine", "n0001")
    site.slurm.start(7, "n[0005-0008]")
    site.tick()
    site.slurm.die("n0005")
    site.tick()
    (tmp_path / "new").mkdir()
    other = Journal(tmp_path / "new" / "journal.sqlite")
    controller = Controller(site.slurm, other, Policy(modes=Modes(default="act")), site.clock)
    controller.start()
    site.clock.at += 10
    controller.tick()
    assert controller.memory.nodes["n0001"].state is NodeState.QUARANTINED
    assert controller.memory.jobs[7].tries[0].cause == "node_fail"
    assert site.slurm.changes == ["DRAIN n0001", "keep 7", "start 7"]
    other.ask("release", "n0001", by="alice", why="mended")
    site.clock.at += 10
    controller.tick()
    assert site.slurm.changes[-1] == "UNDRAIN n0001"


def test_a_rising_number_of_blamed_failures_makes_a_lemon(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for number in range(3):
        site.slurm.start(7 + number, "n[0001-0004]")
        for _ in range(24):
            site.tick(3600)
        site.slurm.die("n0003")
        site.tick()
        site.slurm.up("n0003")
        site.slurm.known.clear()
        site.tick(4000)
    assert site.state("n0003") is NodeState.LEMON
    assert site.slurm.changes.count("DRAIN n0003") == 1
    assert [one.state for one in site.controller.memory.nodes.values() if one.name != "n0003"] == []
    # Let back by a person, it starts anew.
    site.ask("release", "n0003")
    site.tick()
    for _ in range(3):
        site.tick(3600)
    assert site.slurm.changes[-1] == "UNDRAIN n0003"


def test_the_view_is_not_acted_on_when_slurmctld_is_away(tmp_path: Path) -> None:
    from trainmaster.errors import SlurmUnreachable

    site = Site(tmp_path)
    site.ask("quarantine", "n0001")
    site.slurm.refuses.append(SlurmUnreachable("no answer"))
    with pytest.raises(SlurmUnreachable):
        site.tick()
    assert site.slurm.changes == []
    site.tick()
    assert site.slurm.changes == ["DRAIN n0001"]
