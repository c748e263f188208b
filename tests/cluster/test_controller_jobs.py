"""What the controller does for each kind of job on a real Slurm, and what it leaves alone."""

from pathlib import Path

import pytest

import real_lab
from real_controller import LONG, controller, done_acts, is_running, said, sees
from trainmaster.controller.acts import Kind
from trainmaster.lab.cluster import Lab, LabSpec

pytestmark = pytest.mark.cluster
# Heterogeneous jobs are started by backfill alone.
LAB = LabSpec(nodes=8, settings={"SlurmdTimeout": "15", "KillWait": "5", "SchedulerParameters": "bf_interval=1"})
FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> real_lab.Watched:
    return real_lab.Watched(lab, tmp_path_factory.mktemp("controller"))


@pytest.fixture(autouse=True)
def clean(site: real_lab.Watched):
    yield
    for job in site.client.jobs():
        site.client.cancel(job.job_id)
    for node in site.client.nodes():
        if "DRAIN" in node.state:
            site.client.update_nodes(node.name, State="RESUME")
    real_lab.until(lambda: all(node.state == "IDLE" for node in site.client.nodes()), "all is quiet")


def nodes_of(site: real_lab.Watched, job_id: int) -> set[str]:
    return set(site.client.hostnames(site.job(job_id).nodes)) if site.job(job_id).nodes else set()


def test_a_requeued_job_finds_its_nodes_although_others_wait_for_them(site: real_lab.Watched, tmp_path: Path) -> None:
    job_id = site.submit(LONG, "--nodes=3", "--exclusive", "--requeue")
    others = site.submit("sleep 600", "--nodes=4", "--exclusive")
    real_lab.until(lambda: site.job(others).state == "RUNNING", "one node is left")
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        before = nodes_of(site, job_id)
        bad = max(before)
        # Two nodes would do for it, and two are what the job leaves behind.
        waits = site.submit("sleep 600", "--nodes=2", "--exclusive")
        site.client.update_nodes(bad, State="DRAIN", Reason=FATAL)
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs again")
        assert before - {bad} < nodes_of(site, job_id)
        assert site.job(waits).state == "PENDING"
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
        real_lab.until(lambda: Kind.FREE in done_acts(tmp_path), "that is noted")
        assert site.job(job_id).state == "RUNNING" and not site.job(job_id).reservation
    assert done_acts(tmp_path) == sorted([Kind.KEEP, Kind.REQUEUE, Kind.RELEASE, Kind.FREE])


def test_a_task_of_an_array_and_the_parts_of_a_heterogeneous_job_come_back(
    site: real_lab.Watched, tmp_path: Path
) -> None:
    array = site.submit(LONG, "--array=1-3", "--nodes=1", "--exclusive", "--requeue", out="%A_%a.out")
    roles = site.submit(
        "srun --het-group=0,1 sleep 600", "--nodes=1", "--exclusive", "--requeue", ":", "--nodes=2", "--exclusive"
    )
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, roles), "the controller sees the heterogeneous job")
        real_lab.until(lambda: all(sees(tmp_path, job.job_id) for job in site.client.tasks(array)), "and the tasks")
        tasks = {job.array_tasks: job for job in site.client.tasks(array)}
        part = next(one for one in site.client.parts(roles) if one.het_offset == 1)
        bad = (tasks["3"].nodes, site.client.hostnames(part.nodes)[-1])
        for name in bad:
            site.client.update_nodes(name, State="DRAIN", Reason=FATAL)
        real_lab.until(lambda: is_running(site, tasks["3"].job_id, restarts=1), "the task runs again")
        real_lab.until(
            lambda: all(one.state == "RUNNING" and one.restarts == 1 for one in site.client.parts(roles)),
            "both parts run again",
        )
        held = {name for one in site.client.parts(roles) for name in site.client.hostnames(one.nodes)}
        assert not held.intersection(bad)
        assert {job.array_tasks: job.restarts for job in site.client.tasks(array)} == {"1": 0, "2": 0, "3": 1}
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
    assert done_acts(tmp_path).count(Kind.REQUEUE) == 2


def test_a_job_that_is_not_to_be_requeued_is_not(site: real_lab.Watched, tmp_path: Path) -> None:
    job_id = site.submit(LONG, "--nodes=2", "--no-requeue")
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        site.client.update_nodes(max(nodes_of(site, job_id)), State="DRAIN", Reason=FATAL)

        def told() -> bool:
            return "--no-requeue" in (tmp_path / "controller.log").read_text()

        real_lab.until(told, "the controller says that it may not")
        assert is_running(site, job_id, restarts=0)
        assert "requeue refused" in said(tmp_path, "why", str(job_id))
    assert done_acts(tmp_path) == []
