"""The controller on a real cluster: a node dies, a check condemns one, somebody drains one, and it is killed."""

import os
import signal
import time
from pathlib import Path

import pytest

import real_lab
from real_controller import LONG, controller, done_acts, is_running, said, sees, start, state_of
from trainmaster.controller.acts import Kind
from trainmaster.controller.memory import NodeState
from trainmaster.lab.cluster import Lab, LabSpec

pytestmark = pytest.mark.cluster
# A node is called DOWN 15 to 30 s after its death; the delay of 121 s after a requeue is left as it is.
LAB = LabSpec(nodes=8, settings={"SlurmdTimeout": "15", "KillWait": "5"})
DELAY_S = 121.0


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> real_lab.Watched:
    return real_lab.Watched(lab, tmp_path_factory.mktemp("controller"))


def test_a_dead_node_costs_its_job_no_delay_and_a_persons_drain_is_left(site: real_lab.Watched, tmp_path: Path) -> None:
    site.client.update_nodes("n08", State="DRAIN", Reason="bob: new cable")
    job_id = site.submit(LONG, "--nodes=3", "--requeue")
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        victim = next(
            node for node in site.client.hostnames(site.job(job_id).nodes) if node != site.job(job_id).batch_host
        )
        site.lab.fault("node-death", victim)
        real_lab.until(lambda: site.job(job_id).restarts == 1, "Slurm gives the node up")
        back_at = time.time()
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs again")
        job = site.job(job_id)
        # By Slurm's clock, not by ours, which a busy machine delays.
        assert job.start_time is not None and job.start_time - back_at < DELAY_S / 2
        assert victim in site.client.hostnames(job.excluded_nodes)
        assert state_of(tmp_path, victim) is NodeState.SUSPECT
        assert state_of(tmp_path, "n08") is NodeState.FOREIGN
        assert site.node("n08").reason == "bob: new cable"
        chain = said(tmp_path, "why", str(job_id))
        assert "came back: node_fail" in chain and "release done" in chain
        assert "evidence: node_fail" in said(tmp_path, "why", victim)
        assert "lost it" in said(tmp_path, "why", victim)
    site.client.cancel(job_id)
    site.lab.fault("node-return", victim)
    site.client.update_nodes("n08", State="RESUME")
    site.lab.wait_idle()


def test_a_condemned_node_loses_its_job_and_a_quarantined_one_comes_back(
    site: real_lab.Watched, tmp_path: Path
) -> None:
    job_id = site.submit(LONG, "--nodes=2", "--requeue")
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        bad = site.client.hostnames(site.job(job_id).nodes)[-1]
        site.client.update_nodes(bad, State="DRAIN", Reason="[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus")
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs elsewhere")
        assert bad not in site.client.hostnames(site.job(job_id).nodes)
        said(tmp_path, "quarantine", "n07", "--reason", "smells of smoke")
        real_lab.until(
            lambda: state_of(tmp_path, "n07") is not None and "DRAIN" in site.node("n07").state, "n07 is out"
        )
        reason = site.node("n07").reason
        assert reason.startswith("[TM] person: ") and "smells of smoke" in reason
        said(tmp_path, "release", "n07")
        real_lab.until(lambda: "DRAIN" not in site.node("n07").state, "n07 is back")
        assert "[HC]" in site.node(bad).reason
    assert done_acts(tmp_path).count(Kind.REQUEUE) == 1
    site.client.cancel(job_id)
    site.client.update_nodes(bad, State="RESUME")
    site.lab.wait_idle()


def test_killed_at_work_it_goes_on_where_it_was(site: real_lab.Watched, tmp_path: Path) -> None:
    job_id = site.submit(LONG, "--nodes=2", "--requeue")
    process = start(tmp_path)
    try:
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        bad = site.client.hostnames(site.job(job_id).nodes)[-1]
        site.client.update_nodes(bad, State="DRAIN", Reason="[HC] gpu.present: gone")
        # Killed between its requeue and the release: the job is out of its nodes, or just leaving them.
        real_lab.until(lambda: site.job(job_id).state != "RUNNING", "the job leaves its nodes")
        os.kill(process.pid, signal.SIGKILL)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)
    with controller(tmp_path):
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs elsewhere")
        real_lab.until(lambda: done_acts(tmp_path) == [Kind.RELEASE, Kind.REQUEUE], "both intents are closed")
    assert site.job(job_id).restarts == 1
    site.client.cancel(job_id)
    site.client.update_nodes(bad, State="RESUME")
