"""How roles act on one another at work, without any process: the agents' side is a list of what they were told."""

import time
from pathlib import Path
from typing import Any

import pytest

from trainmaster.launcher.plan import Plan
from trainmaster.launcher.roles import registry
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.supervise import links
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.component import Component
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.group import CHECKPOINT_PATIENCE_S
from trainmaster.launcher.supervise.links import Member
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.work import ECHO_PATIENCE_S, Work


class NoLinks(links.Links):
    """Members that obey at once; what they were told is kept."""

    def __init__(self) -> None:
        self.members = {}
        self.told: list[tuple[str, str]] = []

    def join(self, place: str) -> None:
        self.members[place] = Member(
            place=place,
            node=links.node_of(place),
            role=links.role_of(place),
            slot=0,
            address="10.0.0.1",
            topology=place,
            port=10000,
            connection=None,  # type: ignore[arg-type]
            last_heard=0.0,
        )

    def tell(self, member: Member, message: dict[str, Any]) -> None:
        self.told.append((message["do"], member.place))
        if message["do"] == "stop":
            member.stopped = True

    def dismiss(self, place: str) -> None:
        self.members.pop(place, None)


class Scene:
    """Two embedding servers that put two trainers back, and a loader that restarts alone."""

    def __init__(self, folder: Path) -> None:
        self.links = NoLinks()
        roles = (
            RolePlan(name="ps", replicas=2, restart="rollback", rolls_back=("trainer",), service=True),
            RolePlan(name="loader", replicas=1, restart="alone", service=True, ready="running"),
            RolePlan(name="trainer", replicas=2, after=("ps",)),
        )
        components = []
        for role in roles:
            plan = Plan(
                uid="u",
                name=role.name,
                run_dir=str(folder / role.name),
                python="python",
                nodes=role.replicas,
                agent_per_rank=role.alone,
                backoff_s=0.0,
            )
            components.append(Component(plan, self.links, role))
        self.job = Supervised(
            run_dir=folder,
            plan=components[0].plan,
            job_id=7,
            attempt=0,
            epoch=0,
            links=self.links,
            components=tuple(components),
            roles={role.name: role for role in roles},
            ending=Ending(folder, 7, attempt=0, lead_s=90, taken_over=False),
            generation=0,
        )
        for place in ("ps/m1", "ps/m2", "loader/c1/0", "trainer/g1", "trainer/g2"):
            self.links.join(place)
        self.work = Work(self.job, Chronicle(self.job))
        self.ps, self.loader, self.trainer = self.job.groups

    def register(self) -> None:
        """Both servers say where they serve."""
        for index, node in enumerate(("m1", "m2")):
            self.ps.on(
                self.links.members[f"ps/{node}"], {"do": "registered", "rank": index, "host": "h", "port": 7000 + index}
            )

    def dies(self, group: Any, rank: int, code: int = -9) -> None:
        """A rank has ended by itself."""
        place = group.cycle.places[rank] if len(group.cycle.places) > 1 else group.cycle.places[0]
        message = {"rank": rank, "code": code, "epoch_s": time.time(), "stopped": False, "raised": False, "text": ""}
        group.on(self.links.members[place], {"do": "exit", "steps": {}, **message})

    def started(self) -> list[str]:
        """Who was told to start, since the last time that this was asked."""
        told, self.links.told = self.links.told, []
        return [place for order, place in told if order == "start"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    scene.work.start()
    return scene


def test_a_role_starts_when_all_that_it_comes_after_have_registered(scene: Scene) -> None:
    assert scene.started() == ["ps/m1", "ps/m2", "loader/c1/0"]
    scene.work.tick(time.monotonic())
    assert scene.trainer.phase == "wait" and scene.started() == []
    scene.register()
    scene.work.tick(time.monotonic())
    assert scene.started() == ["trainer/g1", "trainer/g2"]


def test_the_death_of_one_that_restarts_alone_touches_nobody(scene: Scene) -> None:
    scene.register()
    scene.work.tick(time.monotonic())
    scene.started()
    scene.dies(scene.loader, 0)
    scene.work.tick(time.monotonic())
    scene.work.tick(time.monotonic())
    assert scene.started() == ["loader/c1/0"] and scene.job.generation == 0
    assert (scene.ps.cycle.number, scene.trainer.cycle.number, scene.loader.cycle.number) == (0, 0, 1)


def test_a_trainer_that_echoes_the_death_of_a_server_pays_nothing(scene: Scene) -> None:
    scene.register()
    scene.work.tick(time.monotonic())
    scene.started()
    # The trainer's end is heard of first; its judgement waits for that of the server.
    scene.dies(scene.trainer, 1, code=1)
    scene.work.tick(time.monotonic())
    scene.work.tick(time.monotonic())
    assert scene.trainer.phase == "stop"
    scene.dies(scene.ps, 0)
    for _ in range(3):
        scene.work.tick(time.monotonic())
    assert scene.started() == ["ps/m1", "ps/m2"] and scene.job.generation == 1
    assert (scene.trainer.phase, scene.trainer.cause, scene.trainer.budget.restarts) == ("wait", "rollback", 0)
    scene.register()
    scene.work.tick(time.monotonic())
    assert scene.started() == ["trainer/g1", "trainer/g2"]
    assert (scene.trainer.generation, scene.ps.budget.restarts) == (1, 1)


def test_a_trainer_that_dies_by_itself_restarts_as_a_gang(scene: Scene) -> None:
    scene.register()
    scene.work.tick(time.monotonic())
    scene.started()
    scene.dies(scene.trainer, 0)
    scene.work.tick(time.monotonic())
    scene.trainer.since -= ECHO_PATIENCE_S
    scene.work.tick(time.monotonic())
    assert scene.started() == ["trainer/g1", "trainer/g2"]
    assert scene.job.generation == 0 and scene.trainer.budget.restarts == 1


def test_the_registry_forgets_a_replica_when_its_group_stops(scene: Scene) -> None:
    scene.register()
    assert scene.ps.registered[1] == registry.Entry(host="h", port=7001, node="m2", attempt=0, cycle=0, generation=0)
    scene.dies(scene.ps, 0)
    assert list(scene.ps.registered) == [1]
    scene.work.tick(time.monotonic())
    assert scene.ps.registered == {}


def test_the_job_is_over_when_all_but_the_services_are_done(scene: Scene) -> None:
    scene.register()
    scene.work.tick(time.monotonic())
    for rank in (0, 1):
        scene.dies(scene.trainer, rank, code=0)
    for _ in range(3):
        scene.work.tick(time.monotonic())
    assert scene.work.verdict is not None and scene.work.verdict.decision.state == "SUCCEEDED"
    assert ("stop", "ps/m1") in scene.links.told and ("stop", "loader/c1/0") in scene.links.told


def test_servers_serve_until_those_that_save_have_saved(scene: Scene) -> None:
    """`jobs requeue` stopped them first, and the trainers never came to the step after which they were to save."""
    scene.register()
    scene.work.tick(time.monotonic())
    for member in scene.links.members.values():
        member.asked = member.role == "trainer"
    ending = scene.job.ending
    ending.cause, ending.since, ending.kindly = "requeue", time.monotonic(), True
    for _ in range(3):
        scene.work.tick(time.monotonic())
    assert not [place for order, place in scene.links.told if order == "stop"]
    for rank in (0, 1):
        scene.dies(scene.trainer, rank, code=75)
    for _ in range(4):
        scene.work.tick(time.monotonic())
    assert ("stop", "ps/m1") in scene.links.told and ("stop", "loader/c1/0") in scene.links.told
    assert scene.work.verdict is not None and scene.work.verdict.decision.cause == "requeue"


def test_a_lost_node_stops_its_group_whoever_else_runs(scene: Scene) -> None:
    scene.register()
    scene.work.tick(time.monotonic())
    for place in ("ps/m1", "loader/c1/0"):
        scene.links.members.pop(place)
        scene.job.dead[place] = "node_death"
        for group in scene.job.groups:
            group.lose(place, "node_death", time.time())
    scene.work.tick(time.monotonic())
    assert scene.ps.phase == "stop" and scene.loader.phase in ("stop", "pause")


def test_servers_do_not_wait_for_ever_for_those_that_save(scene: Scene) -> None:
    scene.register()
    scene.work.tick(time.monotonic())
    for member in scene.links.members.values():
        member.asked = member.role == "trainer"
    ending = scene.job.ending
    ending.cause, ending.since, ending.kindly = "user", time.monotonic() - CHECKPOINT_PATIENCE_S - 1, True
    for _ in range(4):
        scene.work.tick(time.monotonic())
    assert scene.work.verdict is not None and scene.work.verdict.decision.state == "CANCELLED"


def test_a_role_that_nobody_makes_ready_ends_the_job_and_says_who_is_late(scene: Scene) -> None:
    scene.trainer.since -= 601
    for _ in range(3):
        scene.work.tick(time.monotonic())
    assert scene.work.verdict is not None
    decision = scene.work.verdict.decision
    assert (decision.state, decision.cause) == ("FAILED_USER", "not_ready") and decision.failure is not None
    assert decision.failure.text == "role 'trainer' waited 600 s for ps (registered)"


def test_a_server_that_has_ended_well_keeps_nobody_waiting(scene: Scene) -> None:
    scene.register()
    assert scene.ps.is_ready
    scene.dies(scene.ps, 0, code=0)
    assert scene.ps.is_ready
    scene.dies(scene.ps, 1, code=1)
    assert not scene.ps.is_ready
