"""Roles on a real Slurm with production time-outs: three partitions, one heterogeneous job, every way to die."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from real_lab import until
from trainmaster import JobSpec, Role, RolesJob, submit_roles
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.lab.spec import PartitionSpec
from trainmaster.launcher.node import processes
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster

REPLICA = [sys.executable, str(Path(__file__).parents[1] / "programs" / "replica.py")]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    kinds = (
        PartitionSpec(name="cpu", nodes=2),
        PartitionSpec(name="highmem", nodes=3),
        PartitionSpec(name="gpu", nodes=3, gpus=2),
    )
    # Only the backfill scheduler starts heterogeneous jobs, by default every 30 s.
    with up(LabSpec(partitions=kinds, leaf=0, settings={"SchedulerParameters": "bf_interval=1"})) as lab:
        before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = lab.env["SLURM_CONF"]
        yield lab
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


class Story:
    """What the replicas of a job tell of themselves."""

    def __init__(self, job: RolesJob) -> None:
        self.job = job

    def lines(self, *words: str) -> list[str]:
        path = self.job.run_dir / "story"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if all(word in line.split() for word in words)]

    def cycles(self, role: str) -> list[str]:
        """Every start of a role's replicas: index, attempt.cycle, generation, cause."""
        starts = [line.split() for line in self.lines(role, "starts")]
        return sorted(f"{one[1]} {one[2]} {one[3]} {one[6]}" for one in starts)

    def node(self, role: str, index: int) -> str:
        """Where a replica was started last."""
        return [line.split()[5] for line in self.lines(role, "starts") if line.split()[1] == str(index)][-1]

    def wait(self, what: str, count: int) -> None:
        """Until that many lines have all these words."""
        try:
            until(lambda: len(self.lines(*what.split())) >= count, f"{count} x {what!r}")
        except AssertionError as error:
            output = self.job.run_dir / "batch.out"
            seen = [*self.lines(), output.read_text() if output.exists() else "nothing in batch.out"]
            raise AssertionError("\n".join([str(error), *seen])) from None

    def order(self, name: str) -> None:
        (self.job.run_dir / name).touch()


def recommender(folder: Path, *, first: str, loader_spares: int = 0, embedding_spares: int = 0) -> Story:
    """Submit loaders, embedding servers and trainers; `first` leads."""
    small: dict[str, Any] = {"mem": "500M", "time": 10}
    roles = {
        "loader": Role(
            target=[*REPLICA, "--serve"],
            restart="alone",
            service=True,
            spec=JobSpec(partition="cpu", tasks_per_node=2, spares=loader_spares, **small),
        ),
        "embedding": Role(
            target=[*REPLICA, "--serve"],
            restart="rollback",
            rolls_back=("trainer",),
            service=True,
            spec=JobSpec(partition="highmem", nodes=2, spares=embedding_spares, **small),
        ),
        "trainer": Role(
            target=[*REPLICA, "--checkpoint", "--use", "embedding"],
            after=("embedding", "loader"),
            spec=JobSpec(partition="gpu", nodes=2, gpus_per_node=1, **small),
        ),
    }
    order = sorted(roles, key=lambda name: name != first)
    return Story(submit_roles({name: roles[name] for name in order}, name="recommender", folder=folder))


def causes(job: RolesJob) -> list[tuple[str, str, str | None]]:
    return [(event.role, event.state, event.cause) for event in job.events() if event.state != "PROGRESS"]


def nothing_left(job: RolesJob) -> bool:
    for path in job.run_dir.glob("*/attempt*/rank*.pid"):
        pid, started, _ = path.read_text().split()
        if processes.start_time(int(pid)) == int(started):
            return False
    return not [one for one in Commands().jobs() if one.state == "RUNNING"]


def test_each_role_restarts_as_it_was_asked_to(lab: Lab, tmp_path: Path) -> None:
    story = recommender(tmp_path, first="trainer", loader_spares=1, embedding_spares=1)
    job = story.job
    story.wait("trainer uses", 2)
    order = [line.split()[0] + " " + line.split()[4] for line in story.lines()]
    last_served = max(index for index, line in enumerate(order) if line.endswith("serves"))
    assert order.index("trainer starts") > last_served, "trainers start when all that they come after have registered"
    assert all(line.endswith("first True") for line in story.lines("trainer", "starts"))
    assert all(line.endswith("first False") for line in story.lines("loader", "starts")), "no world without a gang"

    story.order("die.loader.1")
    story.wait("loader serves", 3)
    assert story.cycles("loader") == ["0 0.0 0 first", "1 0.0 0 first", "1 0.1 0 rank_crash"]
    assert len(story.lines("trainer", "starts")) == 2 and len(story.lines("embedding", "starts")) == 2

    story.order("die.trainer.0")
    story.wait("trainer uses", 4)
    gang = ["0 0.0 0 first", "0 0.1 0 rank_crash", "1 0.0 0 first", "1 0.1 0 rank_crash"]
    assert story.cycles("trainer") == gang
    assert len(story.lines("loader", "starts")) == 3 and len(story.lines("embedding", "starts")) == 2

    story.order("die.embedding.1")
    story.wait("trainer uses", 6)
    assert story.cycles("embedding")[1::2] == ["0 0.1 1 rank_crash", "1 0.1 1 rank_crash"]
    assert story.cycles("trainer")[2::3] == ["0 0.2 1 rollback", "1 0.2 1 rollback"]
    assert len(story.lines("loader", "starts")) == 3

    loaders, stays, dies = story.node("loader", 0), story.node("embedding", 1), story.node("embedding", 0)
    lab.fault("node-death", loaders)
    story.wait("loader serves", 5)
    assert story.cycles("loader")[1::2] == ["0 0.1 1 node_death", "1 0.1 0 rank_crash"]
    assert story.cycles("loader")[-1] == "1 0.2 1 node_death" and story.node("loader", 0) != loaders
    assert len(story.lines("trainer", "starts")) == 6
    lab.fault("node-death", dies)
    try:
        story.wait("trainer uses", 8)
        assert story.node("embedding", 1) == stays, "who survives keeps its index"
        assert story.node("embedding", 0) not in (stays, dies)
        view = json.loads((job.run_dir / "registry.json").read_text())
        assert view["generation"] == 2
        assert {one["generation"] for one in view["roles"]["embedding"]["replicas"].values()} == {2}
        assert {one["generation"] for one in view["roles"]["loader"]["replicas"].values()} == {1}

        story.order("finish.trainer")
        assert job.exception() is None
    finally:
        lab.fault("node-return", f"{dies},{loaders}")
    assert ("trainer", "FINISHED", "program") in causes(job)
    assert [cause for role, state, cause in causes(job) if (role, state) == ("embedding", "RESTARTING")] == [
        "rank_crash",
        "node_death",
    ]
    until(lambda: nothing_left(job), "services and agents are gone")


def test_without_a_spare_the_whole_job_is_requeued_through_its_leader(lab: Lab, tmp_path: Path) -> None:
    story = recommender(tmp_path, first="loader")
    job = story.job
    story.wait("trainer uses", 2)
    victim = story.node("trainer", 1)
    lab.fault("node-death", victim)
    try:
        story.wait("trainer 1.0 uses", 2)
    finally:
        lab.fault("node-return", victim)
    assert "REQUEUED" in [state for _, state, _ in causes(job)]
    assert victim not in {story.node("trainer", 0), story.node("trainer", 1)}
    # All replicas with their old indices, in a new generation.
    for role in ("loader", "embedding", "trainer"):
        assert [line for line in story.cycles(role) if " 1.0 " in line] == ["0 1.0 1 first", "1 1.0 1 first"]

    # A checkpoint is asked for: those that write one speak for all, and the job comes back.
    subprocess.run(["scancel", "--batch", "--signal=USR2", str(job.job_id)], check=True)
    story.wait("trainer 2.0 uses", 2)
    job.cancel()
    end = job.wait(timeout_s=60)
    assert end is not None and (end.state, end.cause, end.role) == ("CANCELLED", "user", "")
    until(lambda: nothing_left(job), "everything is gone")


def test_the_death_of_the_supervisors_node_puts_all_roles_back(lab: Lab, tmp_path: Path) -> None:
    story = recommender(tmp_path, first="loader", loader_spares=1)
    job = story.job
    story.wait("trainer uses", 2)
    victim = story.node("loader", 0)
    lab.fault("node-death", victim)
    try:
        story.wait("trainer uses", 4)
        assert [line for line in story.cycles("loader") if " 0.1 " in line] == [
            "0 0.1 1 supervisor_death",
            "1 0.1 1 supervisor_death",
        ]
        story.order("finish.trainer")
        assert job.exception() is None
    finally:
        lab.fault("node-return", victim)


def test_results_come_by_role_and_index(lab: Lab, tmp_path: Path) -> None:
    def answer(number: int) -> tuple[int, int]:
        from trainmaster import registry

        return registry.me().index, number

    spec = JobSpec(partition="highmem", mem="500M", time=5, tasks_per_node=2)
    job = submit_roles(
        {
            "left": Role(target=answer, args=(7,), spec=spec),
            "right": Role(target=answer, args=(8,), spec=spec, restart="alone"),
        },
        folder=tmp_path,
    )
    assert job.results() == {"left": ((0, 7), (1, 7)), "right": ((0, 8), (1, 8))}


def test_a_role_that_fails_again_and_again_ends_the_job_and_says_which(lab: Lab, tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("the loader is broken")

    spec = JobSpec(partition="highmem", mem="500M", time=5, backoff_s=0.1)
    job = submit_roles(
        {
            "sleeper": Role(target=["/bin/sleep", "600"], spec=spec),
            "loader": Role(target=fail, spec=spec, restart="alone", service=True),
        },
        folder=tmp_path,
    )
    started = time.monotonic()
    failure = str(job.exception())
    assert "NO_PROGRESS" in failure and "'loader'" in failure and "the loader is broken" in failure
    assert time.monotonic() - started < 300, "the sleeper is stopped"
