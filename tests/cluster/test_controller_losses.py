"""The controller when daemons of Slurm die and take with them what they had not saved, and when accounting is away."""

import signal
import time
from pathlib import Path

import pytest

import real_lab
from real_controller import LONG, POLICY, done_acts, is_running, said, sees, start, state_of
from trainmaster.controller.acts import Kind
from trainmaster.controller.memory import NodeState
from trainmaster.lab.cluster import Lab, LabSpec

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
LAB = LabSpec(nodes=8, accounting=True, settings={"SlurmdTimeout": "15", "KillWait": "5"})
FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"
QUIET = f'metrics = ""\n{POLICY}'


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> real_lab.Watched:
    return real_lab.Watched(lab, tmp_path_factory.mktemp("controller"))


@pytest.fixture(autouse=True)
def clean(site: real_lab.Watched):
    yield
    real_lab.clear(site.lab)
    real_lab.until(lambda: all(node.state == "IDLE" for node in site.client.nodes()), "all is quiet")


def nodes_of(site: real_lab.Watched, job_id: int) -> set[str]:
    return set(site.client.hostnames(site.job(job_id).nodes)) if site.job(job_id).nodes else set()


def condemn(site: real_lab.Watched, job_id: int) -> str:
    bad = max(nodes_of(site, job_id))
    site.client.update_nodes(bad, State="DRAIN", Reason=FATAL)
    return bad


def saved_at(site: real_lab.Watched) -> float:
    """When slurmctld last saved its jobs. Something has to change for it to do so."""
    site.client.submit("#!/bin/sh\ntrue\n", args=["--mem=10", "--output=/dev/null", "--hold"])
    folder = Path(site.client.config()["StateSaveLocation"])
    return (folder / "job_state").stat().st_mtime


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_slurmctld_killed_with_a_requeue_that_it_had_not_saved(
    site: real_lab.Watched, tmp_path: Path, journal: str
) -> None:
    job_id = site.submit(LONG, "--nodes=3", "--exclusive", "--requeue", "--exclude=n08")
    process = start(tmp_path, QUIET)
    try:
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        # slurmctld saves what changes five seconds after it last saved something.
        said(tmp_path, "quarantine", "n08", "--reason", "noise")
        real_lab.until(lambda: "DRAIN" in site.node("n08").state, "n08 is out")
        bad = condemn(site, job_id)
        real_lab.until(lambda: Kind.REQUEUE in done_acts(tmp_path), "the controller knows that the attempt is over")
        if journal == "lost":
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
            # What neither slurmctld nor a journal has written down nobody knows.
            done_at = time.time()
            real_lab.until(lambda: saved_at(site) > done_at + 1, "slurmctld has saved it")
            for file in tmp_path.glob("journal.sqlite*"):
                file.unlink()
        site.lab.fault("slurmctld-restart", signal="KILL")
        if "DRAIN" not in site.node(bad).state:
            # Health checks look at each node again and again.
            site.client.update_nodes(bad, State="DRAIN", Reason=FATAL)
        if journal == "lost":
            process = start(tmp_path, QUIET)
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs again", timeout_s=150.0)
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
        assert bad not in nodes_of(site, job_id) and "n08" not in nodes_of(site, job_id)
        if journal == "kept":
            real_lab.until(lambda: "DRAIN" in site.node("n08").state, "n08 is out, again perhaps")
            assert site.node("n08").reason.startswith("[TM] person: ")
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_accounting_is_away_while_the_controller_works(site: real_lab.Watched, tmp_path: Path) -> None:
    job_id = site.submit(LONG, "--nodes=3", "--exclusive", "--requeue", "--exclude=n08")
    process = start(tmp_path, QUIET)
    try:
        real_lab.until(lambda: sees(tmp_path, job_id), "the controller sees the job")
        site.lab.fault("accounting-down")
        said(tmp_path, "quarantine", "n08", "--reason", "noise")
        bad = condemn(site, job_id)
        real_lab.until(lambda: site.job(job_id).state != "RUNNING", "the job leaves its nodes")
        # It is killed meanwhile, and its successor finds no accounting either.
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        process = start(tmp_path, QUIET)
        real_lab.until(lambda: is_running(site, job_id, restarts=1), "the job runs again")
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
        real_lab.until(lambda: state_of(tmp_path, "n08") is NodeState.QUARANTINED, "n08 is out")
        late = site.submit("true", "--nodes=1")
        real_lab.until(lambda: site.job(late).state == "COMPLETED", "a job that nobody could account for ends")
        assert "DRAIN" in site.node("n08").state and bad not in nodes_of(site, job_id)
        site.lab.fault("accounting-up")
        said(tmp_path, "release", "n08")
        real_lab.until(lambda: "DRAIN" not in site.node("n08").state, "n08 is back")
        assert is_running(site, job_id, restarts=1) and process.poll() is None
    finally:
        process.terminate()
        process.wait(timeout=30)
    done = done_acts(tmp_path)
    assert done.count(Kind.REQUEUE) == 1 and done.count(Kind.DRAIN) == 1 and done.count(Kind.RESUME) == 1
    site.client.cancel(job_id)

    def told() -> list[str]:
        words = ["sacct", "--duplicates", "--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
        lines = site.lab.run([*words, f"--jobs={job_id},{late}"]).stdout.splitlines()
        return sorted(line.split(" ")[0] for line in lines)

    # slurmctld kept what it could not send: both attempts and the job of meanwhile are in the books, once each.
    wanted = sorted([f"{job_id}|REQUEUED", f"{job_id}|CANCELLED", f"{late}|COMPLETED"])
    real_lab.until(lambda: told() == wanted, f"the books say {wanted}")
