"""A job that has lost nodes takes in others while it runs, on a real Slurm with accounting."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from real_lab import wait_for
from trainmaster.errors import TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster

COUNTER = Path(__file__).parents[1] / "programs" / "counter.py"
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # With accounting a job may give back a node that it has lost.
    with up(LabSpec(nodes=6, accounting=True)) as lab:
        yield lab


@pytest.fixture(autouse=True)
def at_the_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    yield
    client = Commands(env=lab.env)
    for one in client.jobs():
        client.cancel(one.job_id)
    for node in client.nodes():
        with contextlib.suppress(TrainmasterError):  # it is up
            lab.fault("node-return", node.name)
    until(lambda: not client.jobs(), "the end of all jobs")
    until(lambda: all(node.state.startswith("IDLE") and "*" not in node.state for node in client.nodes()), "idle nodes")


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


def counter(folder: Path, *, steps: int = 2000, **spec: Any) -> TrainmasterJob[None]:
    values: dict[str, Any] = {"nodes": 3, "spares": 1, "time": 30, "mem": "1G", "refill": True} | spec
    return submit([sys.executable, str(COUNTER), str(steps)], spec=JobSpec(**values), folder=folder)


def own_jobs(lab: Lab) -> dict[int, str]:
    return {job.job_id: job.state for job in Commands(env=lab.env).jobs() if job.name.endswith(".refill")}


def test_a_used_spare_is_refilled_and_the_new_node_takes_over_in_turn(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path)
    first = wait_for(job, "PROGRESS")
    lab.fault("node-death", first.nodes[2])
    joined = wait_for(job, "JOINED")
    guest = joined.detail["node"]
    assert guest not in (*first.nodes, *first.spares) and guest in joined.spares
    second = wait_for(job, "RUNNING", count=2)
    lab.fault("node-death", second.nodes[2])
    third = wait_for(job, "RUNNING", count=3)
    assert guest in third.nodes, "the guest runs ranks"
    wait_for(job, "PROGRESS", count=3)
    job.cancel()
    until(lambda: not own_jobs(lab), "the end of the jobs that brought nodes")
    assert "REQUEUED" not in [event.state for event in job.events()]


def test_a_job_with_too_few_nodes_waits_for_one_instead_of_a_requeue(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, spares=0)
    first = wait_for(job, "PROGRESS")
    lab.fault("node-death", first.nodes[1])
    again = wait_for(job, "RUNNING", count=2)
    assert (again.attempt, again.cause) == (0, "node_death")
    wait_for(job, "PROGRESS", count=2)
    job.cancel()
    until(lambda: not own_jobs(lab), "the end of the job that brought the node")


def test_a_guest_that_slurm_takes_back_is_no_end_of_the_job(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, spares=0)
    lab.fault("node-death", wait_for(job, "PROGRESS").nodes[1])
    joined = wait_for(job, "JOINED")
    wait_for(job, "PROGRESS", count=2)
    Commands(env=lab.env).cancel(joined.detail["job"])
    again = wait_for(job, "RUNNING", count=3)
    assert (again.attempt, again.cause) == (0, "node_withdrawn")
    assert wait_for(job, "JOINED", count=2).detail["job"] != joined.detail["job"]
    job.cancel()
    until(lambda: not own_jobs(lab), "the end of the jobs that brought nodes")


@pytest.mark.slow
def test_a_lost_node_that_is_back_is_given_back_to_slurm_and_may_be_taken_again(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, nodes=5, spares=1)
    first = wait_for(job, "PROGRESS")
    lab.fault("node-death", first.nodes[1])
    assert "refused" in wait_for(job, "REFILL").detail, "there is no other node, and the dead one is left out"
    wait_for(job, "PROGRESS", count=2)
    lab.fault("node-return", first.nodes[1])
    assert wait_for(job, "JOINED").detail["node"] == first.nodes[1]
    held = Commands(env=lab.env).job(job.job_id)
    assert held is not None and first.nodes[1] not in Commands(env=lab.env).hostnames(held.nodes)
    job.cancel()
    until(lambda: not own_jobs(lab), "the end of the job that brought the node")


@pytest.mark.slow
def test_a_guest_that_is_warned_has_its_node_left_and_another_asked_for(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, nodes=2)
    lab.fault("node-death", wait_for(job, "PROGRESS").nodes[1])
    guest = wait_for(job, "JOINED").detail
    wait_for(job, "PROGRESS", count=2)
    # As a maintenance train does.
    Commands(env=lab.env).signal(str(guest["job"]), "USR2")
    until(lambda: any(one.detail.get("answer") == "swapped" for one in job.events()), "the node is left")
    swaps = [(one.cause, one.detail["nodes"], one.detail["answer"]) for one in job.events() if one.state == "SWAP"]
    assert swaps == [("maintenance", [guest["node"]], answer) for answer in ("accepted", "swapped")]
    until(lambda: guest["job"] not in own_jobs(lab), "the end of the job that brought it")
    assert wait_for(job, "JOINED", count=2).detail["job"] != guest["job"]
    assert [one.cycle for one in job.events() if one.state == "RUNNING"] == [0, 1], "it ran no rank"
    job.cancel()
    until(lambda: not own_jobs(lab), "the end of the jobs that brought nodes")


@pytest.mark.slow
def test_what_waits_in_the_queue_goes_with_its_job(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path, exclusive=True)
    first = wait_for(job, "PROGRESS")
    others = [node.name for node in Commands(env=lab.env).nodes() if node.name not in (*first.nodes, *first.spares)]
    other = submit(["sleep", "600"], spec=JobSpec(nodes=len(others), exclusive=True, mem="1G"), folder=tmp_path)
    wait_for(other, "RUNNING")
    lab.fault("node-death", first.nodes[1])
    (asked,) = wait_for(job, "REFILL").detail["jobs"]
    wait_for(job, "PROGRESS", count=2)
    assert own_jobs(lab) == {asked: "PENDING"}, "all nodes are taken"
    job.cancel()
    until(lambda: not own_jobs(lab), "the end of what waits")
    other.cancel()


def test_the_supervisors_node_dies_while_a_guest_runs_ranks(lab: Lab, tmp_path: Path) -> None:
    job = counter(tmp_path)
    first = wait_for(job, "PROGRESS")
    supervisor = wait_for(job, "STARTING").detail["node"]
    lab.fault("node-death", next(node for node in first.nodes if node != supervisor))
    guest = wait_for(job, "JOINED").detail
    wait_for(job, "PROGRESS", count=2)
    lab.fault("node-death", supervisor)
    wait_for(job, "PROGRESS", count=3)
    last = [event for event in job.events() if event.state == "RUNNING"][-1]
    assert guest["node"] in last.nodes and supervisor not in last.nodes and last.attempt == 0
    job.cancel()
    until(lambda: not own_jobs(lab), "the end of the jobs that brought nodes")
