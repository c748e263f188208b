"""Nodes with a network of their own: power loss is silent, death is not (root only)."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from real_lab import Watched, until
from trainmaster.lab import netns, processes
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.lab.faults.node import members
from trainmaster.slurm.commands import Commands

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces"),
]

# Rank 0 waits for the others and writes down how each connection ends; the others connect by name and stay silent.
TALK = """
import os, socket, sys, threading
PORT = 21000
first, me = sys.argv[1:]
log = open(f"{os.path.dirname(sys.argv[0])}/talk.log", "a", buffering=1)
if me == first:
    server = socket.create_server(("", PORT))
    def serve(connection):
        name = connection.recv(10).decode()
        print("up", name, file=log)
        try:
            connection.recv(1)
            print("closed", name, file=log)
        except ConnectionResetError:
            print("reset", name, file=log)
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],)).start()
while True:
    try:
        connection = socket.create_connection((first, PORT))
        break
    except ConnectionRefusedError:
        pass
connection.send(me.encode())
connection.recv(1)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=4, gpus=0, netns=True)) as lab:
        yield lab
        network = lab.network
    assert network is not None
    left = [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(network.bridge)]
    left += [path.name for path in Path("/run/netns").iterdir() if path.name.startswith(network.bridge)]
    assert left == [], "ending the lab takes its network down"


@pytest.fixture
def talk(lab: Lab, tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Three nodes that hold connections to n01; returns what n01 has noted so far."""
    program = tmp_path / "talk.py"
    program.write_text(TALK)
    client = Commands(env=lab.env)
    srun = "srun --no-kill --kill-on-bad-exit=0 --ntasks-per-node=1 sh -c"
    job_id = client.submit(
        f"#!/bin/sh\n{srun} '{sys.executable} {program} n01 $SLURMD_NODENAME'\n",
        args=["--no-kill", "--nodes=4", "--mem=10", f"--output={tmp_path}/out"],
    )

    def noted() -> list[str]:
        path = tmp_path / "talk.log"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    until(lambda: len(noted()) == 3, "all are connected")
    yield noted
    client.cancel(job_id)


UP = ["up n02", "up n03", "up n04"]


def test_nodes_have_their_own_names_and_addresses(lab: Lab) -> None:
    done = lab.run(["srun", "--nodes=4", "--mem=10", "sh", "-c", "hostname; getent hosts $(hostname) | cut -d' ' -f1"])
    network = lab.network
    assert network is not None
    names = {cable.node_name for cable in network.cables}
    addresses = {cable.address for cable in network.cables}
    assert set(done.stdout.split()) == names | addresses


def test_power_loss_is_silent_and_death_is_not(lab: Lab, talk: Callable[[], list[str]]) -> None:
    hit = lab.fault("power-loss", "n04")
    assert len(hit.pids) > 3
    assert members(lab, ("n04",)) == ()
    # What came last was sent by a node that dies loudly, after n04 had gone. n01 heard that, and nothing of n04.
    lab.fault("node-death", "n03")
    until(lambda: len(talk()) > 3, "n01 notes the death of n03")
    time.sleep(0.5)
    assert [line for line in talk() if line not in UP] in (["closed n03"], ["reset n03"])
    lab.fault("node-return", "n03,n04")
    done = lab.run(["srun", "--nodelist=n03,n04", "--overcommit", "--mem=10", "hostname"], timeout_s=60)
    assert sorted(done.stdout.split()) == ["n03", "n04"]


def test_a_cut_cable_leaves_the_node_running(lab: Lab, talk: Callable[[], list[str]]) -> None:
    before = {(p.pid, p.start_time) for p in members(lab, ("n02",))}
    lab.fault("cable-cut", "n02")
    network = lab.network
    assert network is not None
    assert (Path("/sys/class/net") / network.cable("n02").link / "operstate").read_text().strip() == "down"
    assert all(processes.alive(pid, start_time) for pid, start_time in before)
    assert talk() == UP
    lab.fault("cable-mend", "n02")
    done = lab.run(["srun", "--nodelist=n02", "--mem=10", "hostname"])
    assert done.stdout == "n02\n"
    assert talk() == UP


def test_a_rank_is_found_by_the_pid_that_its_node_knows(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "attempt0.0").mkdir()
    cluster = Watched(lab, tmp_path)
    stat = "$(cut -d' ' -f22 /proc/$$/stat)"
    job_id = cluster.submit(
        f'echo "$$ {stat} $SLURMD_NODENAME" >{tmp_path}/attempt0.0/rank5.pid; echo up; exec sleep 7000', out="batch.out"
    )
    until(lambda: "up" in cluster.output("batch.out"), "the rank runs")
    (pid,) = lab.fault("rank-hang", f"{job_id}:5").pids
    inside, _, _ = (tmp_path / "attempt0.0" / "rank5.pid").read_text().split()
    assert pid != int(inside) == processes.own_pid(pid)
    cluster.client.cancel(job_id)


def test_a_frozen_node_is_silent_and_thaws(lab: Lab, talk: Callable[[], list[str]]) -> None:
    lab.fault("node-freeze", "n02")
    assert {process.state for process in members(lab, ("n02",))} == {"T"}
    assert talk() == UP
    lab.fault("node-thaw", "n02")
    assert lab.run(["srun", "--nodelist=n02", "--mem=10", "hostname"]).stdout == "n02\n"
    assert talk() == UP


def test_a_network_is_swept_when_its_lab_has_gone(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    network = netns.create("t35t", ["a", "b"], folder=folder)
    try:
        assert (Path("/run/netns") / network.cables[1].namespace).exists()
        assert "t35t" not in netns.sweep()
        (folder / "hosts").unlink()
        folder.rmdir()
        assert "t35t" in netns.sweep()
        assert not (Path("/sys/class/net") / network.bridge).exists()
        assert not (Path("/run/netns") / network.cables[1].namespace).exists()
    finally:
        netns.destroy("t35t")
