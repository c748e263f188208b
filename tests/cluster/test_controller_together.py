"""The controller beside all others that bring jobs back: health's own requeue, launchers, submitit. Nobody fights."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import submitit

import real_lab
from real_controller import LONG, controller, done_acts, is_running, sees
from trainmaster.cli import main
from trainmaster.controller.acts import Kind
from trainmaster.lab import jobgroups
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.submit.executor import submit

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
FATAL = "[HC] gpu.present: 0000:0f:00.0 fell off the PCI bus"
COUNTER = Path(__file__).parents[1] / "programs" / "counter.py"


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    # Not pytest's: munge and a job's user have to be let in.
    with tempfile.TemporaryDirectory(prefix="tm-together-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def lab(base: Path) -> Iterator[Lab]:
    """With health checks every two seconds that requeue by themselves."""
    folder, prefix = base / "lab", base / "opt"
    words = [f"--slurm-conf={folder}/slurm.conf", f"--root={folder}/nodes/$SLURMD_NODENAME/root"]
    assert main(["install", "hooks", f"--prefix={prefix}", *words, f"--log={folder}/health.log"]) == 0
    lines = (prefix / "slurm.conf.fragment").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    settings |= {"HealthCheckInterval": "2", "SlurmdTimeout": "15", "KillWait": "5"}
    with up(LabSpec(nodes=10, gpus=2, folder=folder, settings=settings)) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab.conf))
        for name in lab.node_names:
            root = lab.root(name)
            made = subprocess.run(
                [sys.executable, "-m", "trainmaster", "health", "genconf", f"--root={root}"],
                capture_output=True,
                text=True,
                check=True,
            )
            path = root / "etc/trainmaster/health.json"
            path.parent.mkdir(parents=True)
            path.write_text(made.stdout.replace("{", '{"requeue": true, ', 1))
        yield lab


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> real_lab.Watched:
    return real_lab.Watched(lab, tmp_path)


def counter(folder: Path, steps: int, nodes: int = 2) -> TrainmasterJob[None]:
    return submit([sys.executable, str(COUNTER), str(steps)], spec=real_lab.small(nodes=nodes), folder=folder)


def nodes_of(site: real_lab.Watched, job_id: int) -> set[str]:
    return set(site.client.hostnames(site.job(job_id).nodes)) if site.job(job_id).nodes else set()


def test_health_and_the_launcher_and_the_controller_at_once(site: real_lab.Watched, tmp_path: Path) -> None:
    plain = site.submit(LONG, "--nodes=3", "--exclusive", "--gpus-per-node=2", "--requeue")
    ours = counter(tmp_path / "runs", 1500)
    number = int(ours.job_id)
    with controller(tmp_path):
        real_lab.wait_for(ours, "PROGRESS")
        real_lab.until(lambda: sees(tmp_path, plain) and sees(tmp_path, number), "the controller sees both")
        bad = max(nodes_of(site, plain))
        site.lab.fault("gpu-lost", bad)
        real_lab.until(lambda: is_running(site, plain, restarts=1), "the plain job runs again")
        assert bad not in nodes_of(site, plain)
        assert site.node(bad).reason.startswith("[HC] gpu.present")
        # A node of the launcher's dies: it requeues itself, and nobody else does.
        victim = max(nodes_of(site, number))
        site.lab.fault("node-death", victim)
        again = real_lab.wait_for(ours, "RUNNING", count=2)
        assert again.attempt == 1 and victim not in again.nodes
        real_lab.wait_for(ours, "PROGRESS", count=2)
        assert [event.state for event in ours.events()].count("REQUEUED") == 1
        ours.cancel()
        assert site.job(plain).restarts == 1 and is_running(site, plain, restarts=1)
        real_lab.until(lambda: not site.client.reservations(), "nothing is kept any more")
        assert site.node(bad).reason.startswith("[HC] gpu.present")
    done = done_acts(tmp_path)
    assert Kind.DRAIN not in done and Kind.RESUME not in done and Kind.HOLD not in done
    assert done.count(Kind.REQUEUE) <= 1
    site.client.cancel(plain)
    site.lab.fault("node-return", victim)
    site.lab.fault("health-mend", bad)
    site.lab.wait_idle()


def saver(notes: Path) -> Any:
    """A function that counts, over as many attempts as it takes. Made here, so that the nodes need not import this."""

    class Saves:
        def __init__(self) -> None:
            self.step = 0

        def __call__(self, begun: int = 0) -> int:
            for self.step in range(begun, 600):
                time.sleep(0.5)
            return begun

        def checkpoint(self, begun: int = 0) -> submitit.helpers.DelayedSubmission:
            with notes.open("a") as out:
                out.write("saved\n")
            return submitit.helpers.DelayedSubmission(self, self.step)

    return Saves()


def test_a_submitit_job_that_knows_nothing_of_us_saves_before_it_leaves_a_bad_node(
    site: real_lab.Watched, tmp_path: Path
) -> None:
    executor = submitit.SlurmExecutor(folder=tmp_path / "submitit")
    executor.update_parameters(nodes=2, time=60, mem="300M", additional_parameters={"requeue": True})
    job = executor.submit(saver(tmp_path / "notes"))
    number = int(job.job_id)
    with controller(tmp_path):
        real_lab.until(lambda: sees(tmp_path, number), "the controller sees the job")
        real_lab.until(
            lambda: (
                "Starting" in (job.paths.stderr.read_text() + job.paths.stdout.read_text())
                if job.paths.stderr.exists() and job.paths.stdout.exists()
                else False
            ),
            "user code runs",
        )
        bad = next(name for name in sorted(nodes_of(site, number)) if name != site.job(number).batch_host)
        site.client.update_nodes(bad, State="DRAIN", Reason=FATAL)
        real_lab.until(lambda: is_running(site, number, restarts=1), "the job runs again")
        assert bad not in nodes_of(site, number)
        assert (tmp_path / "notes").read_text() == "saved\n"
    done = done_acts(tmp_path)
    assert done.count(Kind.NOTIFY) == 1 and Kind.REQUEUE not in done, "it requeued itself"
    site.client.cancel(number)
    site.client.update_nodes(bad, State="RESUME")
    site.lab.wait_idle()


@pytest.mark.skipif(jobgroups.available() is None, reason="no freezer of control groups version 1, or not root")
def test_under_control_groups_the_controller_releases_what_the_launcher_cannot(tmp_path: Path) -> None:
    spec = LabSpec(nodes=5, leaf=0, cgroups=True, settings={"SlurmdTimeout": "15", "KillWait": "5"})
    with up(spec) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab.conf))
        site = real_lab.Watched(lab, tmp_path)
        ours = counter(tmp_path / "runs", 100)
        number = int(ours.job_id)
        with controller(tmp_path):
            real_lab.wait_for(ours, "PROGRESS")
            real_lab.until(lambda: sees(tmp_path, number), "the controller sees the job")
            victim = max(nodes_of(site, number))
            lab.fault("node-death", victim)
            again = real_lab.wait_for(ours, "RUNNING", count=2)
            job = site.job(number)
            # By Slurm's clock, which a busy machine does not delay; by itself it would start after 121 s.
            assert job.start_time is not None and job.submit_time is not None
            assert job.start_time - job.submit_time < 60.0
            assert again.attempt == 1 and victim not in again.nodes and job.restarts == 1
        assert Kind.RELEASE in done_acts(tmp_path) and Kind.REQUEUE not in done_acts(tmp_path)
