"""Membership of a node, on made-up process tables and on real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainmaster.errors import LabError
from trainmaster.lab import processes
from trainmaster.lab.processes import Process, closure

# A node as it looks on one machine: slurmd 100 in its own session; stepd 210 was double-forked, so its parent is init
# and its session is that of a leader (209) that has gone; its task 211 forked 212.
TABLE = {
    1: (0, 1),
    50: (1, 50),  # a person's shell
    51: (50, 50),  # the command that injects the fault
    100: (1, 100),
    210: (1, 209),
    211: (210, 209),
    212: (211, 209),
}


def table(**more: tuple[int, int]) -> dict[int, Process]:
    rows = TABLE | {int(name.removeprefix("p")): row for name, row in more.items()}
    return {
        pid: Process(pid=pid, start_time=pid, parent=parent, session=session, state="S")
        for pid, (parent, session) in rows.items()
    }


def test_descendants_belong() -> None:
    assert closure(table(), {100, 210}, foreign={1, 50, 51}) == {100, 210, 211, 212}


def test_an_orphan_with_a_clean_environment_belongs_by_its_session() -> None:
    assert 300 in closure(table(p300=(1, 209)), {100, 210}, foreign={1, 50, 51})


def test_an_orphan_in_the_session_of_a_member_that_leads_it_belongs() -> None:
    assert closure(table(p300=(211, 300), p301=(1, 300)), {100, 210}, foreign={1, 50, 51}) >= {300, 301}


def test_an_orphan_in_a_session_seen_before_belongs() -> None:
    found = closure(table(p301=(1, 300)), {100, 210}, foreign={1, 50, 51})
    assert 301 not in found
    assert 301 in closure(table(p301=(1, 300)), {100, 210}, foreign={1, 50, 51}, sessions={300})


def test_a_session_that_strangers_share_proves_nothing() -> None:
    # slurmd was started from a shell without a session of its own: the shell and its other children are no members.
    assert closure(table(p400=(1, 50), p401=(50, 50)), {400}, foreign={1, 50, 51}) == {400}
    # The same when that shell has gone and another node's slurmd (402) is left in the session.
    assert closure(table(p400=(1, 399), p402=(1, 399)), {400}, foreign={1, 402}) == {400}


def test_foreign_processes_never_belong() -> None:
    # Another node's slurmd, started from inside a job, is that other node's.
    assert closure(table(p500=(212, 500), p501=(500, 500)), {210}, foreign={1, 500}) == {210, 211, 212}


@pytest.mark.parametrize(
    ("environment", "node"),
    [
        ({"TRAINMASTER_LAB_NODE": "/labs/a:n01"}, "n01"),
        ({"TRAINMASTER_LAB_NODE": "/labs/b:n01", "SLURM_CONF": "/labs/a/slurm.conf", "SLURMD_NODENAME": "n01"}, None),
        ({"SLURM_CONF": "/labs/a/slurm.conf", "SLURMD_NODENAME": "n02"}, "n02"),
        ({"SLURM_CONF": "/labs/b/slurm.conf", "SLURMD_NODENAME": "n02"}, None),
        ({"SLURM_CONF": "/labs/a/slurm.conf"}, None),
        ({}, None),
    ],
)
def test_the_environment_names_the_node(environment: dict[str, str], node: str | None) -> None:
    found = processes.marked_node(environment, folder=Path("/labs/a"), conf=Path("/labs/a/slurm.conf"))
    assert found == node


def test_own_process_is_seen() -> None:
    me = processes.snapshot()[os.getpid()]
    assert me.parent == os.getppid()
    assert me.session == os.getsid(0)
    assert processes.alive(me.pid, me.start_time)
    assert not processes.alive(me.pid, me.start_time + 1)


# A "node": a leader, a child in its own session with a clean environment, and an orphan left behind in that session.
NODE = """
import os, subprocess, sys, time
subprocess.Popen(["setsid", "env", "-i", "/bin/sh", "-c", "(sleep 1000 & exec sleep 1000) & exec sleep 1000"])
print("up", flush=True)
time.sleep(1000)
"""


class Node:
    """Node n01 of a lab in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def members(self, sessions: frozenset[int] = frozenset()) -> tuple[Process, ...]:
        return processes.members(["n01"], folder=self.folder, conf=self.folder / "slurm.conf", sessions=sessions)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    leader = subprocess.Popen(
        [sys.executable, "-c", NODE],
        env=os.environ | {processes.MARK: processes.mark(tmp_path, "n01")},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout is not None
    leader.stdout.readline()
    deadline = time.monotonic() + 10
    while len(node.members()) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield node
    for process in node.members():
        processes.send(process, signal.SIGKILL)
    leader.kill()
    leader.wait()
    leader.stdout.close()


def test_a_node_is_stopped_continued_and_killed_as_one(node: Node) -> None:
    found = node.members()
    assert len(found) == 4
    assert {process.pid for process in processes.stop_all(node.members)} == {process.pid for process in found}
    assert {process.state for process in node.members()} == {"T"}
    assert {process.pid for process in processes.kill_all(node.members)} == {process.pid for process in found}
    assert node.members() == ()


def test_a_signal_never_reaches_a_successor_of_the_pid(node: Node) -> None:
    process = node.members()[0]
    successor = Process(
        pid=process.pid, start_time=process.start_time + 1, parent=1, session=process.session, state="S"
    )
    assert not processes.send(successor, signal.SIGKILL)
    assert processes.alive(process.pid, process.start_time)


def test_a_node_cannot_be_stopped_from_inside() -> None:
    me = processes.snapshot()[os.getpid()]
    with pytest.raises(LabError, match="from inside"):
        processes.stop_all(lambda sessions: (me,))
