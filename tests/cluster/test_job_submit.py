"""The look-up in slurmctld: what `trainmaster fabric plan` works out is what jobs on a real Slurm prefer."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real_lab import Watched, until

from trainmaster.cli import main
from trainmaster.errors import SlurmError
from trainmaster.lab.cluster import LabSpec, up

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "slurm_plugins" / "job_submit.lua"
PODS = {"tm-pod01": {"n01", "n02", "n03", "n04"}, "tm-pod02": {"n05", "n06", "n07", "n08"}}
ALL = "tm-pod01|tm-pod02"


class Planned(Watched):
    """A lab of two pods with the plug-in."""

    @property
    def placements(self) -> Path:
        return self.lab.folder / "run" / "placements"

    def plan(self, *options: str) -> None:
        assert main(["fabric", "plan", "--output", str(self.placements), *options]) == 0
        # The plug-in looks at the file once a second.
        time.sleep(1.1)

    def take(self, nodes: int, *options: str) -> int:
        """A job that keeps whole nodes until it is cancelled."""
        return self.submit("sleep 600", f"--nodes={nodes}", "--exclusive", "--mem=0", "--time=10", *options)

    def running(self, job_id: int) -> set[str]:
        """The nodes of a job that has to start."""
        until(lambda: self.job(job_id).state == "RUNNING", f"job {job_id} runs")
        return set(self.client.hostnames(self.job(job_id).nodes))

    def pending(self, job_id: int) -> str:
        """What a job that waits prefers."""
        job = self.job(job_id)
        assert job.state == "PENDING", job
        return job.prefer

    def said(self, words: str) -> int:
        return (self.lab.folder / "log" / "slurmctld.log").read_text().count(words)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planned]:
    folder = tmp_path_factory.mktemp("spank")
    subprocess.run(["make", "-s", "-C", str(ROOT), "spank", f"SPANK={folder}/trainmaster.so"], check=True)
    (folder / "plugstack.conf").write_text(f"required {folder}/trainmaster.so\n")
    settings = {"SchedulerParameters": "bf_interval=2", "PlugStackConfig": f"{folder}/plugstack.conf"}
    spec = LabSpec(fabric="pods:2x2x2,rails=1", gpus=2, job_submit=PLUGIN, settings=settings)
    with up(spec) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab.conf))
        yield Planned(lab, tmp_path_factory.mktemp("jobs"))


@pytest.fixture(autouse=True)
def empty(lab: Planned) -> Iterator[None]:
    yield
    for job in lab.client.jobs():
        lab.client.cancel(job.job_id)
    until(lambda: all(node.state == "IDLE" for node in lab.client.nodes()), "the lab is empty")
    lab.placements.unlink(missing_ok=True)
    time.sleep(1.1)


def test_jobs_go_where_the_plan_says_and_not_two_to_one_place(lab: Planned) -> None:
    assert lab.running(lab.take(4)), "without a file as ever"
    assert lab.said("jobs are not kept to pods") == 1
    lab.plan()
    first, second = lab.take(2), lab.take(2)
    assert lab.running(first) | lab.running(second) in PODS.values()
    # Running jobs show what they were started with as their constraint.
    assert lab.job(first).features in PODS
    third = lab.take(3)
    assert lab.pending(third) == "", "no pod has room for it: nothing is known that would help"


def test_a_wrong_answer_costs_nothing(lab: Planned) -> None:
    lab.plan()
    before = lab.running(lab.take(3, "--nodelist=n01,n02,n03")) | lab.running(lab.take(2, "--nodelist=n07,n08"))
    # Only three nodes are left, in two pods; the plan still promises a whole one.
    job = lab.take(3)
    assert lab.running(job) == {f"n0{number}" for number in range(1, 9)} - before


def test_waiting_jobs_are_told_and_one_that_changes_is_not_held(lab: Planned) -> None:
    blocker = lab.take(8)
    lab.running(blocker)
    job, other = lab.take(4), lab.take(2, "--dependency=afterany:999999", "--hold")
    lab.plan("--waiting")
    lab.plan("--waiting")
    assert lab.pending(job) in PODS and lab.pending(other) == ""
    lab.client.update_job(job, NumNodes="6-6")
    assert lab.pending(job) == ALL
    lab.client.cancel(blocker)
    assert len(lab.running(job)) == 6


def test_a_job_that_wants_no_place_is_kept_to_no_pods_now_and_later(lab: Planned) -> None:
    lab.plan()
    words = ("--nodes=2", "--exclusive", "--mem=0", "--time=10")
    free = lab.submit("#SBATCH --tm-placement=off\nsleep 600", *words)
    lab.running(free)
    assert lab.job(free).features == "", "running jobs show what they were started with"
    lab.running(lab.take(6))
    off = lab.submit("#SBATCH --tm-placement=off --comment=mine\nsleep 600", *words)
    auto = lab.submit("#SBATCH --tm-placement=auto\nsleep 600", *words)
    lab.plan("--waiting")
    assert lab.pending(off) == "" and lab.job(off).comment == "mine tm-placement=off"
    assert lab.pending(auto) in PODS and lab.job(auto).comment == ""


def test_a_job_whose_constraint_changes_gets_what_it_asks_for(lab: Planned) -> None:
    blocker = lab.take(8)
    lab.running(blocker)
    job = lab.take(2)
    lab.plan("--waiting")
    lab.plan()
    assert lab.pending(job) in PODS
    lab.client.update_job(job, Features="ib")
    assert lab.pending(job) == "ib"


def test_a_file_that_is_of_no_use_stops_no_job(lab: Planned) -> None:
    for text in ("", "trainmaster-placements 1 made=1 expires=2\nend 1\n", "\x00" * 4096):
        lab.placements.write_text(text)
        time.sleep(1.1)
        assert lab.running(lab.take(2))


def test_jobs_and_nodes_keep_what_the_plan_needs_when_slurmctld_starts_again(lab: Planned) -> None:
    blocker = lab.take(8)
    lab.running(blocker)
    job = lab.take(4)
    lab.plan("--waiting")
    assert lab.pending(job) in PODS
    lab.lab.stop_process("slurmctld")
    lab.lab.start_slurmctld()
    assert lab.pending(job) in PODS
    lab.client.cancel(blocker)
    assert lab.running(job) in PODS.values()


def test_pods_whose_features_are_gone_cost_nobody_a_job(lab: Planned) -> None:
    lab.plan()
    nodes = ",".join(lab.lab.node_names)
    lab.client.update_nodes(nodes, AvailableFeatures="ib", ActiveFeatures="ib")
    # The plan still names them; without ignore_prefer_validation 22.05 says "Invalid preferred feature specification".
    assert lab.running(lab.take(2))


def test_the_sites_policies_hold_and_who_is_refused_is_told_what_to_do(lab: Planned) -> None:
    site = lab.lab.folder / "run" / "job_submit.conf"
    site.write_text("cpus-per-gpu = 1\nmem-per-gpu = 20M\nrequeue = no\ntime-limit-from-nodes = 2\nmem-per-cpu = 1G\n")
    time.sleep(1.1)
    try:
        text, words = "#!/bin/sh\n", ["--hold", "--output=/dev/null", "--gpus-per-node=2"]
        plain, said = (
            lab.client.submit(text, args=words),
            lab.client.submit(text, args=[*words, "--mem=7", "--requeue"]),
        )
        shown = [lab.lab.run(["scontrol", "-o", "show", "job", str(job)]).stdout for job in (plain, said)]
        assert " Requeue=0 " in shown[0] and " MemPerTres=gres:gpu:20 " in shown[0]
        assert " Requeue=1 " in shown[1] and "MemPerTres=" not in shown[1] and " MinMemoryNode=7M " in shown[1]
        assert all(" CpusPerTres=gres:gpu:1 " in one for one in shown)
        with pytest.raises(SlurmError, match="a job of 2 nodes needs a time limit here"):
            lab.submit("true", "--nodes=2")
        assert lab.submit("true", "--nodes=2", "--time=1") > 0
        assert lab.said("mem-per-cpu is unknown") == 1
    finally:
        site.unlink()
        time.sleep(1.1)
