"""What is not gone on from once training has diverged, and what a supervisor knows of its predecessor's findings."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.launcher.test_work import NoLinks

from trainmaster.launcher import record
from trainmaster.launcher.exit_rules import Rule
from trainmaster.launcher.follow.outcome import explain
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank import manifest
from trainmaster.launcher.rank.saves import FOLDER, LOAD, Saves
from trainmaster.launcher.supervise import distrust, usual
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.component import Component
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.values import Divergence, ValueWatch
from trainmaster.launcher.supervise.work import Work

NAN = float("nan")


def test_the_last_good_step_is_one_at_which_all_ranks_were_well() -> None:
    watch = ValueWatch()
    found = None
    for step in range(10, 20):
        found = found or watch.hear({0: step, 1: step + 1}, {"loss": {0: 1.0, 1: NAN if step >= 13 else 1.0}})
    assert found is not None and (found.rank, found.good) == (1, 12)
    watch.restart()
    for step in range(13, 20):
        found = watch.hear({0: step}, {"loss": {0: NAN}}) or found
    assert found.good == -1, "no good value was seen in this cycle"


def test_a_jump_knows_the_step_before_it() -> None:
    watch = ValueWatch(jump={"loss": 10}, window=16)
    found = None
    for step in range(60):
        found = found or watch.hear({0: step}, {"loss": {0: 1.0 + step % 2 * 0.1 if step < 40 else 50.0}})
    assert found is not None and found.good == 39


class Scene:
    """Two nodes and a spare, one rank each, whose program keeps checkpoints."""

    def __init__(self, folder: Path, **plan: Any) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.plan = Plan(
            uid="u", name="n", run_dir=str(folder), python="python", nodes=2, spares=1, backoff_s=0.0, **plan
        )
        self.take_over(epoch=0)
        self.work.start()

    def take_over(self, *, epoch: int, attempt: int = 0) -> None:
        """A supervisor that knows nothing but what lies in the run folder."""
        self.links = NoLinks()
        for place in ("n1", "n2", "n3"):
            self.links.join(place)
        component = Component(self.plan, self.links)
        component.recall(self.folder, record.read(self.folder), attempt=attempt)
        self.component, self.group = component, component.groups[0]
        self.job = Supervised(
            run_dir=self.folder,
            plan=self.plan,
            job_id=7,
            attempt=attempt,
            epoch=epoch,
            links=self.links,
            components=(component,),
            roles={},
            ending=Ending(self.folder, 7, attempt=attempt, lead_s=60, taken_over=bool(epoch)),
            generation=0,
        )
        self.chronicle = Chronicle(self.job)
        self.work = Work(self.job, self.chronicle)
        if epoch:
            self.group.cause = "supervisor_death"

    def run(self) -> None:
        """All agents have started their ranks."""
        for member in self.group.crew:
            self.group.on(member, {"do": "started", "epoch_s": 1.0})
        self.chronicle.tell_of(self.group)

    def open(self, *, load: int | None = None) -> None:
        """Rank 0 opens its checkpoints, and goes on from one."""
        env = {
            "TRAINMASTER_RUN_DIR": str(self.folder),
            "TRAINMASTER_ATTEMPT": str(self.job.attempt),
            "TRAINMASTER_CYCLE": str(self.group.cycle.number),
        }
        Saves(env).add(FOLDER, step=-1, detail={"folder": str(self.checkpoints)})
        if load is not None:
            Saves(env).add(LOAD, step=load, detail={"source": "disk"})

    def publish(self, *steps: int) -> None:
        for step in steps:
            (self.checkpoints / f"step_{step:08d}").mkdir(parents=True)

    @property
    def marked(self) -> list[int]:
        return [
            int(path.name.removeprefix("step_"))
            for path in manifest.published(self.checkpoints)
            if manifest.is_diverged(path)
        ]

    def losses(self, *values: float, first: int) -> None:
        """One sample a second, of both ranks."""
        for step, value in enumerate(values, first):
            for rank, member in enumerate(self.group.crew):
                told = {"steps": {str(rank): [step, 1.0]}, "where": None, "pace": None}
                self.group.on(member, {"do": "beat", **told, "values": {"loss": {str(rank): value}}})
            self.group._values_s = float("-inf")
            self.chronicle.tell_of(self.group)
            self.work.tick(0.0)

    def go_on(self) -> None:
        for _ in range(3):
            self.work.tick(1e9)

    def last(self) -> record.Event:
        return record.read(self.folder)[-1]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    made.run()
    return made


def test_a_job_that_has_diverged_marks_what_it_saved_since(scene: Scene) -> None:
    scene.open()
    scene.publish(50, 60, 61, 70)
    scene.losses(1.0, 1.0, NAN, NAN, NAN, first=60)
    scene.go_on()
    assert scene.marked == [61, 70], "the state after step 60 gave the good value of step 61"
    verdict = scene.work.verdict
    assert verdict is not None and (verdict.decision.cause, verdict.decision.state) == ("diverged", "NO_PROGRESS")
    assert (verdict.detail[distrust.FROM], verdict.detail["good_step"]) == (61, 61)
    assert verdict.detail["distrusted"] == ["step_00000061", "step_00000070"]
    end = record.Event(epoch_s=1, job_id=7, attempt=0, cycle=0, state="NO_PROGRESS", detail=verdict.detail)
    told = explain(end, name="n", log=scene.folder / "no", log_end="")
    assert "loss is nan" in told and "do not go on from what was saved after step 61 or later" in told


def test_what_a_cycle_went_on_from_is_suspect_when_it_was_never_well(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.run()
    scene.open(load=50)
    scene.publish(40, 50)
    scene.losses(NAN, NAN, NAN, first=51)
    scene.go_on()
    assert scene.marked == [50]


def test_a_program_that_keeps_its_own_checkpoints_is_told_what_is_known(scene: Scene) -> None:
    scene.losses(1.0, NAN, NAN, NAN, first=60)
    scene.go_on()
    verdict = scene.work.verdict
    assert verdict is not None and verdict.detail["distrusted"] == []
    assert (
        "saved after step 60 or later (marked: none of trainmaster.Checkpoints was there)" in verdict.detail["suspect"]
    )


def test_a_folder_that_cannot_be_seen_is_named(scene: Scene) -> None:
    scene.open()
    told = distrust.mark(scene.folder, since=5, good=5, why="x")
    assert told["not_marked"] == [str(scene.checkpoints)]
    assert f"{scene.checkpoints} could not be marked" in distrust.in_words(told)


def restarting(folder: Path) -> Scene:
    scene = Scene(folder, exit_rules=(Rule(cause=("diverged",), then="restart"),))
    scene.run()
    scene.open()
    scene.publish(50, 62)
    scene.losses(1.0, NAN, NAN, NAN, first=60)
    return scene


def facts_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    started: list[Any] = []
    before = type(scene.group).start
    monkeypatch.setattr(type(scene.group), "start", lambda self, p, f: (started.append(f), before(self, p, f))[1])
    return started


def test_the_next_cycle_is_told_until_one_has_come_to_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = restarting(tmp_path)
    started = facts_of(scene, monkeypatch)
    scene.go_on()
    assert (started[-1].cause, started[-1].distrusted_from) == ("diverged", 60)
    assert scene.marked == [62] and scene.component.copies._trusted_from == 1
    again = distrust.recall(record.read(tmp_path))
    assert again[0] is not None and again[1] is None, "judged, and nobody has gone on yet"
    scene.run()
    scene.losses(1.0, first=51)
    assert scene.group.distrusted_from is None
    assert distrust.recall(record.read(tmp_path)) == (None, None)


def test_a_takeover_knows_what_had_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark was in the memory of the supervisor that died: copies of the diverged state were gone on from."""
    scene = restarting(tmp_path)
    scene.go_on()
    scene.take_over(epoch=1)
    assert scene.component.copies._trusted_from == 1 and scene.group.distrusted_from == 60
    started = facts_of(scene, monkeypatch)
    scene.work.start()
    assert (started[-1].cause, started[-1].distrusted_from) == ("supervisor_death", 60)


@pytest.mark.parametrize("rule", ["restart", "fail"])
def test_a_supervisor_that_dies_before_it_judged_leaves_that_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    scene = Scene(tmp_path, exit_rules=(Rule(cause=("diverged",), then=rule),))
    scene.run()
    scene.open()
    scene.publish(50, 62)
    monkeypatch.setattr(Work, "_judge", lambda self, group: None)
    scene.losses(1.0, NAN, NAN, NAN, first=60)
    monkeypatch.undo()
    assert scene.last().state == "DIVERGED" and scene.marked == []
    scene.take_over(epoch=1)
    scene.work.start()
    scene.go_on()
    assert scene.marked == [62]
    if rule == "fail":
        assert scene.work.verdict is not None and scene.work.verdict.decision.cause == "diverged"
    else:
        assert scene.group.phase == "run" and scene.group.cause == "diverged" and scene.group.cycle.number == 1


def test_another_attempt_still_knows_what_to_pass_over(tmp_path: Path) -> None:
    scene = restarting(tmp_path)
    scene.go_on()
    scene.take_over(epoch=0, attempt=1)
    assert scene.group.distrusted_from == 60 and scene.group.cycle.diverged is None
    assert scene.component.copies._trusted_from == 0, "its copies are other ones"


def test_what_was_usual_outlives_the_supervisor(tmp_path: Path) -> None:
    watch = ValueWatch(jump={"loss": 10}, window=16)
    for step in range(30):
        assert watch.hear({0: step}, {"loss": {0: 1.0 + step % 2 * 0.1}}) is None
    usual.write(tmp_path, watch.usual)
    fresh = ValueWatch(jump={"loss": 10}, window=16)
    fresh.recall(usual.read(tmp_path))
    found = [fresh.hear({0: step}, {"loss": {0: 50.0}}) for step in range(30, 40)]
    assert any(found), "without it the jump would be learnt as usual"
    (tmp_path / usual.FILE).write_text('{"loss": [1.0, NaN]}')
    assert usual.read(tmp_path) == {}
    (tmp_path / usual.FILE).write_text("[")
    assert usual.read(tmp_path) == {}


def test_marks_stay_and_those_of_a_run_that_was_never_well_let_it_begin_anew(tmp_path: Path) -> None:
    for step in (10, 20):
        (tmp_path / f"step_{step:08d}").mkdir()
    assert manifest.mark_diverged(tmp_path, {"since": 20, "good": 20}) == ["step_00000020"]
    assert manifest.mark_diverged(tmp_path, {"since": 10, "good": -1}) == ["step_00000010", "step_00000020"]
    assert json.loads((tmp_path / "step_00000020" / manifest.DIVERGED).read_text())["good"] == 20, (
        "the first word holds"
    )
    assert not manifest.begins_anew(manifest.published(tmp_path))
    assert manifest.begins_anew([tmp_path / "step_00000010"])


def test_a_divergence_survives_the_record() -> None:
    found = Divergence(name="loss", value=NAN, step=9, rank=1, good=4)
    event = record.Event(
        epoch_s=1, job_id=1, attempt=0, cycle=0, state="DIVERGED",
        detail={"divergence": distrust.to_detail(found), distrust.FROM: 4},
    )  # fmt: skip
    (again,) = record.parse([record.to_line(event)])
    _, unjudged = distrust.recall([again])
    assert str(unjudged) == str(found) and unjudged is not None and unjudged.good == 4
