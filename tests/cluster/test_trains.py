"""A maintenance train on a real cluster: every host visited in one drain, versions seen, and the promise kept at every
moment by the word of an observer that knows nothing of the controller.
"""

import json
import sys
from pathlib import Path

import pytest

import real_lab
from trainmaster.controller.maintenance.state import Stage
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from measure import train_figures
from measure.train_site import NEW, Site, controller, is_through, site

pytestmark = pytest.mark.cluster
PACED = Path(__file__).parents[1] / "programs" / "paced.py"


def judge(at: Site, train: str) -> None:
    """What has to hold after a train, by Slurm's word, by the hosts' and by the observer's."""
    names = list(at.lab.node_names)
    state = at.state()
    told = (at.folder / "controller.log").read_text()[-3000:]
    assert not at.faults
    assert {host.stage for host in state.past.values()} == {Stage.DONE}, told
    assert state.trains[train].missed == () and len(state.past) == len(names)
    for name in names:
        assert json.loads((at.folder / "now" / name).read_text()) == NEW
        assert state.stacks[name].versions == NEW
    log = at.log()
    for name in names:
        # Each once, in order, in one drain.
        assert [line for line in log if line.split()[1] == name] == [
            *(f"upgrade {name} later kernel=6.8", f"check {name} verify", f"upgrade {name} now driver=580.95"),
            *(f"check {name} quick", f"check {name} medium", f"check {name} soak", f"facts {name}"),
        ]
        assert state.past[name].drains == 1
    watched = real_lab.Watched(at.lab, at.folder)
    nodes = watched.client.nodes()
    assert not [node.name for node in nodes if "DRAIN" in node.state or "DOWN" in node.state or "MAINT" in node.state]
    assert len({feature for node in nodes for feature in node.features if feature.startswith("stack_")}) == 1
    assert not watched.client.reservations()
    seen = at.looks()
    least = min(train_figures.serving(one) for one in seen)
    assert len(seen) > 20 and at.promised <= least < len(names)


def test_a_train_visits_every_host_and_keeps_what_was_promised(tmp_path: Path) -> None:
    with site(tmp_path, nodes=6, promised=3, domain=3) as at:
        watched = real_lab.Watched(at.lab, tmp_path)
        job_id = watched.submit("srun sleep 900", "--nodes=2", "--requeue")
        real_lab.until(lambda: watched.job(job_id).state == "RUNNING", "the job runs")
        with controller(at):
            real_lab.until(at.is_watched, "the controller has looked")
            asked = at.said("train", "emergency", "spring", *at.policy, "--reason", "a bad driver")
            assert "asked: emergency spring" in asked
            real_lab.until(lambda: is_through(at, "spring"), "every host is through", timeout_s=280)
        judge(at, "spring")
        # The job was put back once, has nodes again, and it is nobody's failure.
        job = watched.job(job_id)
        assert (job.restarts, job.state) == (1, "RUNNING")
        assert "6 hosts visited" in at.said("train", "status")
        report = at.said("train", "report", *at.policy)
        assert "6 hosts were looked at" in report and "drift" not in report
        chain = at.said("why", "n03")
        assert "operate done" in chain and "soak verification" in chain and "unbook done" in chain
        watched.client.cancel(job_id)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_train_has_a_job_with_spares_leave_its_hosts_without_a_requeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A job can give back one node after the other only where there is accounting.
    with site(tmp_path, nodes=7, promised=5, domain=1, grace_s=240, accounting=True) as at:
        monkeypatch.setenv("SLURM_CONF", at.lab.env["SLURM_CONF"])
        spec = JobSpec(nodes=4, spares=1, time=60, mem="300M", stop_grace_s=0.5, refill=True)
        job = submit([sys.executable, str(PACED), "100000"], spec=spec, folder=tmp_path / "jobs")
        first = real_lab.wait_for(job, "RUNNING")
        real_lab.wait_for(job, "PROGRESS")
        home = real_lab.wait_for(job, "STARTING").detail["node"]
        with controller(at):
            real_lab.until(at.is_watched, "the controller has looked")
            at.said("train", "emergency", "spring", *at.policy, "--reason", "a bad driver")
            real_lab.until(lambda: is_through(at, "spring"), "every host is through", timeout_s=500)
        judge(at, "spring")
        events = job.events()
        swapped = [event.detail["nodes"] for event in events if event.detail.get("answer") == "swapped"]
        assert {name for names in swapped for name in names} >= set(first.nodes) - {home}
        # Only the host of the batch script needs a requeue.
        assert [event.cause for event in events if event.state == "REQUEUED"] == ["maintenance"]
        assert real_lab.Watched(at.lab, tmp_path).job(job.job_id).restarts == 1
        job.cancel()
