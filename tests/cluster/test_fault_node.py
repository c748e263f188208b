"""What real Slurm does when nodes die, freeze and come back (Slurm 22.05.8; times are of SlurmdTimeout=5)."""

import socket
from collections.abc import Iterator

import pytest

from real_lab import Watched, until
from trainmaster.errors import LabError, UsageError
from trainmaster.lab import processes
from trainmaster.lab.cluster import LabSpec, up
from trainmaster.lab.faults.node import members
from trainmaster.lab.faults.service import is_down, resume_if

pytestmark = pytest.mark.cluster

# A shorter MessageTimeout lets slurmctld give up sooner on asking a node that does not answer.
QUICK = {"SlurmdTimeout": "5", "MessageTimeout": "5", "KillWait": "2"}

# Each task leaves a daemon behind: orphaned, in a session of its own. And it says if it was ever asked to end.
# (A daemon that kept the task's stdout open would keep slurmstepd, and so the job, for 60 s after the task.)
AGENT = """#!/bin/sh
echo "up $(hostname)"
(setsid sleep 7654 >/dev/null 2>&1 &)
trap 'echo "signalled on $SLURMD_NODENAME"' TERM CONT INT
while :; do sleep 1 & wait $!; done
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with up(LabSpec(nodes=8, gpus=0, settings=QUICK)) as lab:
        folder = tmp_path_factory.mktemp("jobs")
        agent = folder / "agent"
        agent.write_text(AGENT)
        agent.chmod(0o755)
        yield Watched(lab, folder)


class Aftermath:
    """Three jobs run, four nodes are hit, and slurmctld has noticed. One wait serves all the tests below."""

    def __init__(self, cluster: Watched) -> None:
        srun = f"srun --no-kill --kill-on-bad-exit=0 --ntasks-per-node=1 {cluster.folder}/agent"
        # The batch host is the first node of each.
        self.keeps = cluster.submit(srun, "--no-kill", "--nodelist=n01,n02,n03")
        self.headless = cluster.submit(srun, "--no-kill", "--nodelist=n04,n05")
        self.plain = cluster.submit(f"srun {cluster.folder}/agent", "--requeue", "--nodes=2", "--exclude=n0[1-5]")
        started = {self.keeps: 3, self.headless: 2, self.plain: 2}
        for job_id, tasks in started.items():
            until(lambda j=job_id, t=tasks: cluster.output(j).count("up ") == t, f"{tasks} tasks of job {job_id}")
        self.plain_nodes = cluster.client.hostnames(cluster.job(self.plain).nodes)
        (self.idle,) = set(cluster.client.hostnames("n0[6-8]")) - set(self.plain_nodes)
        self.survivors = set(members(cluster.lab, ("n01", "n02", "n05")))
        self.victims = ("n03", "n04", self.plain_nodes[1])
        self.before = members(cluster.lab, self.victims)
        self.killed = cluster.lab.fault("node-death", ",".join(self.victims))
        self.left = members(cluster.lab, self.victims)
        self.frozen = cluster.lab.fault("node-freeze", self.idle)
        hit = (*self.victims, self.idle)
        until(lambda: all("DOWN" in cluster.node(name).state for name in hit), f"{hit} are DOWN")
        until(lambda: cluster.job(self.plain).state == "PENDING", "the plain job is requeued")


@pytest.fixture(scope="module")
def aftermath(cluster: Watched) -> Aftermath:
    return Aftermath(cluster)


def test_node_death_takes_every_process_of_the_node(aftermath: Aftermath) -> None:
    assert {process.pid for process in aftermath.before} <= set(aftermath.killed.pids)
    # slurmd, slurmstepd, the agent, its sleep and the daemon that it left behind, on three nodes; a batch step on one.
    assert len(aftermath.killed.pids) >= 3 * 5 + 3
    assert aftermath.left == ()


def test_a_no_kill_job_goes_on_without_the_dead_node(cluster: Watched, aftermath: Aftermath) -> None:
    job = cluster.job(aftermath.keeps)
    assert (job.state, job.nodes, job.restarts) == ("RUNNING", "n[01-02]", 0)
    until(lambda: "Node failure on n03" in cluster.output(aftermath.keeps), "srun tells of the failure")
    assert "signalled" not in cluster.output(aftermath.keeps)


def test_a_no_kill_job_goes_on_without_its_batch_host(cluster: Watched, aftermath: Aftermath) -> None:
    job = cluster.job(aftermath.headless)
    assert (job.state, job.nodes, job.restarts) == ("RUNNING", "n05", 0)
    assert "signalled" not in cluster.output(aftermath.headless)


def test_processes_of_other_nodes_are_untouched(cluster: Watched, aftermath: Aftermath) -> None:
    # `sleep 1` comes and goes; slurmds, slurmstepds, agents and their daemons stay. (srun of n04's job died with it.)
    lasting = {p.pid for p in aftermath.survivors if processes.alive(p.pid, p.start_time)}
    assert len(lasting) >= 3 * 4


def test_a_plain_job_is_requeued_and_held_back_for_two_minutes(cluster: Watched, aftermath: Aftermath) -> None:
    job = cluster.job(aftermath.plain)
    assert (job.state, job.reason, job.restarts) == ("PENDING", "BeginTime", 1)
    assert job.submit_time is not None and job.eligible_time is not None
    assert job.eligible_time - job.submit_time == pytest.approx(121, abs=2)


def test_a_frozen_node_is_down_though_its_processes_and_sockets_live(cluster: Watched, aftermath: Aftermath) -> None:
    frozen = members(cluster.lab, (aftermath.idle,))
    assert {process.pid for process in frozen} == set(aftermath.frozen.pids)
    assert {process.state for process in frozen} == {"T"}
    assert "NOT_RESPONDING" in cluster.node(aftermath.idle).state
    ports = cluster.lab.state.node_ports
    # The kernel still answers for a frozen slurmd; for a dead one it refuses.
    socket.create_connection((cluster.node(aftermath.idle).address, ports[aftermath.idle]), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((cluster.node("n03").address, ports["n03"]), timeout=5)


def test_dead_nodes_cannot_die_again(cluster: Watched, aftermath: Aftermath) -> None:
    with pytest.raises(LabError, match="nothing runs on n03"):
        cluster.lab.fault("node-death", "n03")
    with pytest.raises(LabError, match="is frozen"):
        cluster.lab.fault("node-thaw", "n01")


def test_nodes_return(cluster: Watched, aftermath: Aftermath) -> None:
    cluster.lab.fault("node-return", ",".join(aftermath.victims))
    for name in aftermath.victims:
        assert cluster.node(name).state == "IDLE"
    done = cluster.lab.run(["srun", "--mem=10", "--nodelist=n03", "sh", "-c", "echo $SLURMD_NODENAME"])
    assert done.stdout == "n03\n"


def test_a_node_that_returns_early_is_known_to_have_rebooted(cluster: Watched, aftermath: Aftermath) -> None:
    assert cluster.job(aftermath.keeps).nodes == "n[01-02]"
    cluster.lab.fault("node-death", "n02")
    returned = cluster.lab.fault("node-return", "n02")
    # Long before SlurmdTimeout: slurmctld takes the node out of the job and DOWN, and an operator resumes it.
    assert returned.summary.endswith("resumed n02")
    assert cluster.node("n02").state == "IDLE"
    until(lambda: cluster.job(aftermath.keeps).nodes == "n01", "the job goes on without n02")
    assert cluster.job(aftermath.keeps).state == "RUNNING"


def test_a_thawed_node_goes_on_and_can_be_resumed(cluster: Watched, aftermath: Aftermath) -> None:
    cluster.lab.fault("node-thaw", aftermath.idle)
    until(lambda: all(p.state != "T" for p in members(cluster.lab, (aftermath.idle,))), "it runs")
    # Left alone it comes back when slurmctld next asks it, which may take a minute; an operator does not wait.
    resume_if(cluster.lab, [aftermath.idle], is_down)
    until(lambda: cluster.node(aftermath.idle).state == "IDLE", "it is in service")
    done = cluster.lab.run(["srun", "--mem=10", f"--nodelist={aftermath.idle}", "sh", "-c", "echo $SLURMD_NODENAME"])
    assert done.stdout == f"{aftermath.idle}\n"


def test_a_dry_run_touches_nothing(cluster: Watched) -> None:
    before = {process.pid for process in members(cluster.lab, ("n01",))}
    said = cluster.lab.fault("node-death", "n01", dry_run=True)
    assert said.summary.startswith("would kill")
    # The agent's `sleep 1` may have been replaced meanwhile.
    assert len(before - {process.pid for process in members(cluster.lab, ("n01",))}) <= 1
    assert {process.state for process in members(cluster.lab, ("n01",))} <= {"S", "R"}


def test_a_target_that_is_no_node(cluster: Watched) -> None:
    with pytest.raises(UsageError, match="no node n99"):
        cluster.lab.fault("node-death", "n01,n99")
