"""A real fork server: ranks come from processes that were forked ahead, whatever happened to those meanwhile."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainmaster.launcher.node import processes
from trainmaster.launcher.node.warm import ForkServer
from trainmaster.launcher.rank.worker import Task

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def _parent_of_orphans() -> Iterator[None]:
    """Ranks are forked twice, and become children of whoever adopts orphans: the agent, or here this process."""
    processes.adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForkServer]:
    made = ForkServer(sys.executable, env=dict(os.environ), cwd=str(tmp_path), log=tmp_path / "server.log")
    yield made
    standbys = made.standbys
    made.close()
    for pid in standbys:
        os.waitpid(pid, 0)


def hear(server: ForkServer, until: Callable[[], bool]) -> dict[int, int]:
    """What the server reports until the condition holds: pids by rank."""
    pids: dict[int, int] = {}
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline and server.fault is None, server.fault
        pids |= server.receive()
        time.sleep(0.005)
    return pids


def stand_by(server: ForkServer, count: int) -> frozenset[int]:
    server.stand_by(count)
    hear(server, lambda: not server.awaits_standbys)
    return server.standbys


def start(server: ForkServer, folder: Path, rank: int = 0) -> int:
    """Start a rank that prints its own pid and number, and return the pid that the server told."""
    script = folder / "rank.py"
    script.write_text("import os\nprint(os.getpid(), os.environ['RANK'])\n")
    task = Task(
        rank=rank,
        env=os.environ | {"RANK": str(rank)},
        cwd=str(folder),
        out=str(folder / f"rank{rank}.out"),
        err=str(folder / f"rank{rank}.err"),
        argv=[str(script)],
        kind="script",
    )
    server.fork(task)
    pids: dict[int, int] = {}

    def told() -> bool:
        pids.update(server.receive())
        return rank in pids

    hear(server, told)
    _, status = os.waitpid(pids[rank], 0)
    server.ended(pids[rank])
    assert os.waitstatus_to_exitcode(status) == 0, (folder / f"rank{rank}.err").read_text()
    assert (folder / f"rank{rank}.out").read_text() == f"{pids[rank]} {rank}\n"
    return pids[rank]


def test_a_rank_comes_from_a_standby_and_more_are_forked_as_needed(server: ForkServer, tmp_path: Path) -> None:
    ready = stand_by(server, 2)
    assert len(ready) == 2
    used = {start(server, tmp_path, rank) for rank in (0, 1)}
    assert used == ready
    assert server.standbys == frozenset()
    assert start(server, tmp_path, 2) not in ready
    assert len(stand_by(server, 2)) == 2


def test_standbys_that_lack_new_modules_leave(server: ForkServer, tmp_path: Path) -> None:
    (stale,) = stand_by(server, 1)
    server.learn(["colorsys"])
    hear(server, lambda: not server.learning)
    assert os.waitpid(stale, 0)[0] == stale
    server.ended(stale)
    (fresh,) = stand_by(server, 1)
    assert start(server, tmp_path) == fresh


def test_a_dead_standby_is_neither_used_nor_counted(server: ForkServer, tmp_path: Path) -> None:
    ready = stand_by(server, 2)
    dead = min(ready)
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
    server.ended(dead)
    assert len(stand_by(server, 2)) == 2
    for pid in list(server.standbys):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        server.ended(pid)
    assert start(server, tmp_path) not in ready


def test_a_signal_to_a_standby_does_not_end_the_rank_that_it_becomes(server: ForkServer, tmp_path: Path) -> None:
    (ready,) = stand_by(server, 1)
    os.kill(ready, signal.SIGTERM)
    assert start(server, tmp_path) == ready


def test_standbys_leave_with_their_server(server: ForkServer) -> None:
    (ready,) = stand_by(server, 1)
    os.kill(server.pid, signal.SIGKILL)
    assert os.waitpid(ready, 0)[0] == ready
    server.ended(ready)
