"""What a supervisor does about slow ranks: tells, keeps evidence, has a node exchanged. Agents obey at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.launcher.test_work import NoLinks

from trainmaster.launcher import record
from trainmaster.launcher.follow import slow
from trainmaster.launcher.follow.life import cycles_of
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.supervise import suspects
from trainmaster.launcher.supervise.budget import Budget
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.component import Component
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.pacing import FILE
from trainmaster.launcher.supervise.stop_and_check import is_called_for
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.symptom import RankExit
from trainmaster.launcher.supervise.work import Work


class Scene:
    """Four nodes that run a rank each, and a spare."""

    def __init__(self, folder: Path, *, stragglers: str = "swap", spares: int = 1) -> None:
        self.links = NoLinks()
        for number in range(4 + spares):
            self.links.join(f"n{number}")
        plan = Plan(
            uid="u",
            name="n",
            run_dir=str(folder),
            python="python",
            nodes=4,
            spares=spares,
            stragglers=stragglers,
            straggler_window_s=1.0,
            straggler_windows=2,
        )
        component = Component(plan, self.links)
        self.folder = folder
        self.group = component.groups[0]
        self.job = Supervised(
            run_dir=folder,
            plan=plan,
            job_id=7,
            attempt=0,
            epoch=0,
            links=self.links,
            components=(component,),
            roles={},
            ending=Ending(folder, 7, attempt=0, lead_s=60, taken_over=False),
            generation=0,
        )
        self.work = Work(self.job, Chronicle(self.job))
        self.work.start()
        self.now = 1000.0
        self.steps = 0
        self.own = dict.fromkeys(range(4), 0.0)
        self.windows({}, 1)

    def windows(self, slow_ranks: dict[int, float], count: int = 2) -> None:
        """So many windows of ten steps each, in which these ranks take so many times as long."""
        for _ in range(count):
            self.steps += 10
            ranks = {}
            for rank in self.own:
                self.own[rank] += 10 * 0.1 * slow_ranks.get(rank, 1.0)
                ranks[rank] = (self.steps, self.own[rank], self.steps * 0.5)
            for member in self.group.crew:
                rank = self.group.cycle.places.index(member.place)
                told = {"cycle": self.group.cycle.number, "ranks": {str(rank): ranks[rank]}}
                where = {"cycle": self.group.cycle.number, "ranks": {}}
                self.group.on(member, {"do": "beat", "steps": {}, "where": where, "pace": told})
            self.now += 1.5
            self.work._pacing.tick(self.group, self.now)

    @property
    def told(self) -> list[dict[str, Any]]:
        return slow.stragglers_of(record.read(self.folder))

    @property
    def evidence(self) -> list[list[str]]:
        path = self.folder / suspects.FILE
        lines = path.read_text().splitlines() if path.exists() else []
        return [[entry["node"] for entry in json.loads(line)["suspects"]] for line in lines]

    def answer(self, *, ranks: int = 0, listening: int = 0) -> None:
        for member in self.group.crew:
            self.group.on(member, {"do": "asked", "ranks": ranks, "listening": listening})

    def save_and_leave(self) -> None:
        """All ranks write their checkpoint and end with 75."""
        for rank, member in enumerate(self.group.crew):
            message = {"do": "exit", "cycle": self.group.cycle.number, "rank": rank, "code": 75, "epoch_s": 1.0}
            message |= {"stopped": False, "raised": False, "text": "", "steps": {}}
            self.group.on(member, message)
        self.tick()

    def tick(self) -> None:
        for _ in range(3):
            self.work.tick(self.now)
        # The next cycle's ranks begin to count anew.
        self.steps, self.own = 0, dict.fromkeys(range(4), 0.0)


def test_a_slow_node_is_told_kept_as_evidence_and_exchanged_once_the_ranks_have_saved(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.links.told.clear()
    scene.windows({2: 1.6})
    (told,) = scene.told
    assert [(one["rank"], one["node"]) for one in told["stragglers"]] == [(2, "n2")]
    assert told["answer"] == "swap" and scene.evidence == [["n2"]]
    assert [what for what, _ in scene.links.told] == ["checkpoint"] * 4
    assert scene.group.phase == "run", "not at once"
    scene.answer(ranks=1)
    scene.save_and_leave()
    assert scene.group.cycle.number == 1 and scene.group.phase == "run"
    assert "n2" not in scene.group.cycle.places and "n4" in scene.group.cycle.places
    events = record.read(tmp_path)
    (restart,) = [event for event in events if event.state == "RESTARTING"]
    assert restart.cause == "straggler" and restart.dead == ("n2",)
    assert scene.group.budget.restarts == 0
    assert [row.cycle for row in cycles_of(events)] == [0], "what was told of slow ranks is no cycle of its own"
    # The ranks of the new cycle were not asked for what the old ones have done.
    scene.links.told.clear()
    scene.work.tick(scene.now + 5)
    assert "checkpoint" not in [what for what, _ in scene.links.told]


def test_observing_changes_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stragglers="observe")
    scene.links.told.clear()
    scene.windows({2: 1.6}, 6)
    assert len(scene.told) == 1 and scene.told[0]["answer"] == "none"
    assert scene.evidence == [["n2"]] and scene.links.told == []


def test_off_looks_at_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stragglers="off")
    assert scene.group.pace is None
    scene.windows({2: 9.0}, 6)
    assert scene.told == [] and not (tmp_path / FILE).exists()


def test_slow_together_is_left_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.links.told.clear()
    scene.windows(dict.fromkeys(range(4), 3.0), 6)
    assert scene.told == [] and scene.evidence == [] and scene.links.told == []
    view = slow.pace_of(tmp_path)
    assert view is not None and view["stragglers"] == [] and len(view["slowest"]) == 4
    assert "outside collectives" in slow.pace_line(view)


def test_without_a_spare_it_is_only_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, spares=0)
    scene.links.told.clear()
    scene.windows({1: 2.0})
    assert scene.told[0]["why_not"] == "there is no spare" and scene.links.told == []
    assert "no spare" in slow.straggler_line(scene.told[0])


def test_a_program_that_takes_no_orders_gets_its_spare_at_the_next_restart(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.windows({1: 2.0})
    scene.answer()
    scene.windows({1: 2.0}, 3)
    assert [one["answer"] for one in scene.told] == ["swap", "at_restart"]
    assert "next restart" in slow.straggler_line(scene.told[1])
    member = scene.group.crew[3]
    message = {"do": "exit", "cycle": 0, "rank": 3, "code": 1, "epoch_s": 1.0, "stopped": False, "raised": False}
    scene.group.on(member, message | {"text": "boom", "steps": {}})
    scene.tick()
    restart = [event for event in record.read(tmp_path) if event.state == "RESTARTING"][-1]
    assert restart.cause == "rank_crash" and restart.dead == ("n1",)


def test_slowness_that_follows_the_rank_is_the_programs(tmp_path: Path) -> None:
    """Rank 0, which writes the logs, say: it is slow wherever it runs, and no second spare is spent on it."""
    scene = Scene(tmp_path, spares=2)
    scene.windows({0: 2.0})
    scene.answer(ranks=1)
    scene.save_and_leave()
    assert "n0" not in scene.group.cycle.places
    scene.windows({}, 1)
    scene.links.told.clear()
    scene.windows({0: 2.0}, 3)
    last = scene.told[-1]
    assert last["slow_everywhere"] == [0] and last["answer"] == "none"
    assert "not the node" in slow.straggler_line(last)
    assert scene.evidence == [["n0"]] and scene.links.told == []


def test_a_straggler_that_recovers_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, stragglers="observe")
    scene.windows({1: 2.0})
    scene.windows({}, 3)
    assert [len(one["stragglers"]) for one in scene.told] == [1, 0]
    assert slow.straggler_line(scene.told[1]) == "0.0: no rank is slow any more"
    lines = [json.loads(line) for line in (tmp_path / suspects.FILE).read_text().splitlines()]
    assert [entry["weight"] for entry in lines[0]["suspects"]] == [1.0]


# -- when to stop and check ------------------------------------------------------------------------------------------


def crash(text: str, *, no_progress: int = 2) -> Decision:
    failure = RankExit(rank=1, node="n1", code=1, epoch_s=1.0, text=text)
    return Decision(action=Action.RESTART, cause="rank_crash", budget=Budget(no_progress=no_progress), failure=failure)


@pytest.mark.parametrize(
    "decision",
    [
        Decision(action=Action.RESTART, cause="hang"),
        Decision(action=Action.RESTART, cause="straggler"),
        crash(""),
        crash("Traceback (most recent call last)\n  x\nRuntimeError: NCCL error: unhandled system error"),
        crash("Segmentation fault"),
    ],
)
def test_what_a_node_may_be_behind(decision: Decision) -> None:
    assert is_called_for(decision)


@pytest.mark.parametrize(
    "decision",
    [
        Decision(action=Action.REQUEUE, cause="hang"),
        Decision(action=Action.RESTART, cause="node_death"),
        crash("", no_progress=1),
        crash("Traceback (most recent call last)\n  x\nValueError: shapes do not match"),
        Decision(action=Action.RESTART, cause="out_of_memory", budget=Budget(no_progress=2)),
    ],
)
def test_what_no_node_explains(decision: Decision) -> None:
    assert not is_called_for(decision)


def test_a_diagnosis_in_words() -> None:
    found = {"attempt": 0, "cycle": 2, "took_s": 8.04, "guilty": [], "left_out": [], "notes": ["n was n"]}
    assert slow.diagnosis_line(found) == "after 0.2, 8.0 s: no node is to blame; n was n"
    found["guilty"] = [{"nodes": ["n1", "n2"], "why": "slow"}]
    assert slow.diagnosis_line(found).endswith("n1 and n2: slow; nobody is left out, for want of spares; n was n")


def test_a_program_that_ends_with_75_by_itself_is_requeued(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.windows({1: 2.0})
    scene.answer()
    scene.windows({1: 2.0}, 1)
    scene.save_and_leave()
    assert scene.work.verdict is not None and scene.work.verdict.decision.action is Action.REQUEUE


def taken_over(scene: Scene) -> Work:
    """The supervisor that comes after, with what lies in the run folder."""
    component = Component(scene.job.plan, scene.links)
    component.recall(scene.folder, record.read(scene.folder), attempt=0)
    job = Supervised(
        run_dir=scene.folder,
        plan=scene.job.plan,
        job_id=7,
        attempt=0,
        epoch=1,
        links=scene.links,
        components=(component,),
        roles={},
        ending=Ending(scene.folder, 7, attempt=0, lead_s=60, taken_over=True),
        generation=0,
    )
    work = Work(job, Chronicle(job))
    work.start()
    return work


def test_a_takeover_leaves_out_what_was_found_slow(tmp_path: Path) -> None:
    """The finding was in the memory of the supervisor that died: its successor started ranks on the slow node again."""
    scene = Scene(tmp_path)
    scene.windows({2: 1.6})
    slow = scene.group.cycle.places[2]
    assert record.read(tmp_path)[-1].detail["answer"] == "swap"
    work = taken_over(scene)
    (group,) = work.job.groups
    assert slow not in group.cycle.places and len(group.cycle.places) == 4
    assert work.job.dead == {slow: "straggler"}
    told = record.read(tmp_path)[-1]
    assert (told.state, told.dead, told.detail["answer"]) == ("STRAGGLER", (slow,), "swapped")
    assert "an earlier supervisor had found slow" in slow_lines(tmp_path)[-1]


def test_a_takeover_without_a_spare_keeps_what_is_slow(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.windows({2: 1.6})
    scene.links.members.pop("n4")
    work = taken_over(scene)
    (group,) = work.job.groups
    assert set(group.cycle.places) == {"n0", "n1", "n2", "n3"} and not work.job.dead


def test_a_rank_that_was_slow_elsewhere_is_known_to_the_next_supervisor(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.windows({2: 1.6})
    where = scene.group.cycle.places[2]
    (group,) = taken_over(scene).job.groups
    assert group.slow_at == {2: where}


def slow_lines(folder: Path) -> list[str]:
    return [slow.straggler_line(one) for one in slow.stragglers_of(record.read(folder))]
