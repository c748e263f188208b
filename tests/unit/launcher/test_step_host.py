"""The agent's watch over ranks that are not its children, with real shells in the place of Slurm's tasks."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainmaster.launcher.node import step_host
from trainmaster.launcher.node.step_host import StepHost
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank import rank_shell, worker
from trainmaster.launcher.rank.rank_env import CycleFacts


class Node:
    """A node with its agent's StepHost, and the tasks that Slurm would start there."""

    def __init__(self, tmp_path: Path, runner: str) -> None:
        self.run_dir = tmp_path
        self.uid = f"test-{os.getpid()}-{tmp_path.name}"
        self.told: list[dict] = []
        self.tasks: list[subprocess.Popen[bytes]] = []
        self.plan = Plan(
            uid=self.uid,
            name="x",
            run_dir=str(tmp_path),
            python="/py",
            nodes=1,
            tasks_per_node=2,
            runner=runner,
            program=("./a",),
        )
        self.host = StepHost(tmp_path, self.plan, "n1", self.told.append)
        self.host.address = "127.0.0.1"

    def start(self, cycle: int = 0) -> None:
        (self.run_dir / f"attempt0.{cycle}").mkdir(exist_ok=True)
        port = self.host.offer_port()
        facts = CycleFacts(
            job_id=7,
            uid=self.uid,
            run_dir=str(self.run_dir),
            attempt=0,
            cycle=cycle,
            cause="why",
            nodes=("n1",),
            tasks_per_node=2,
            master_addr="127.0.0.1",
            master_port=port,
            restarts_max=10,
        )
        self.host.start(facts)

    def task(self, rank: int, script: str, cycle: int = 0) -> subprocess.Popen[bytes]:
        """What slurmstepd would start."""
        torchrun = self.plan.runner == "torchrun"
        env = {
            "PATH": os.environ["PATH"],
            ("RANK" if torchrun else "SLURM_PROCID"): str(rank),
            "SLURMD_NODENAME": "n1",
            "TRAINMASTER_NOTES": rank_shell.notes_stem(self.uid, 7),
            "TRAINMASTER_STDERR": "err",
            "TRAINMASTER_LOGS": str(self.run_dir / f"attempt0.{cycle}"),
            "TRAINMASTER_ATTEMPT": "0",
            "TRAINMASTER_CYCLE": str(cycle),
        }
        words = rank_shell.rank_words("torchrun" if torchrun else "slurm")
        task = subprocess.Popen([*words, "bash", "-c", script], env=env, start_new_session=True)
        self.tasks.append(task)
        return task

    def until(self, do: str, *, rank: int | None = None) -> dict:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.host.carry_on()
            for message in self.told:
                if message["do"] == do and rank in (None, message.get("rank")):
                    return message
            for task in self.tasks:
                task.poll()
            time.sleep(0.02)
        raise AssertionError(f"never told {do}: {self.told}")

    def out(self, rank: int, ending: str = "out", cycle: int = 0) -> str:
        return (self.run_dir / f"attempt0.{cycle}" / f"rank{rank}.{ending}").read_text()

    def end(self) -> None:
        for task in self.tasks:
            if task.poll() is None:
                os.killpg(task.pid, signal.SIGKILL)
                task.wait()
        self.host.close()


@pytest.fixture
def node(tmp_path) -> Iterator[Node]:
    made = Node(tmp_path, "srun")
    yield made
    made.end()


def test_ranks_run_with_our_environment_and_tell_how_they_end(node):
    node.start()
    node.task(0, 'echo "$RANK $LOCAL_RANK $WORLD_SIZE $GROUP_RANK $TRAINMASTER_CAUSE $MASTER_ADDR"; exit 75')
    node.task(1, 'echo "it goes wrong" >&2; kill -SEGV $$')
    assert node.until("exit", rank=0)["code"] == 75
    failed = node.until("exit", rank=1)
    assert failed["code"] == -signal.SIGSEGV and "it goes wrong" in failed["text"]
    assert node.until("started")
    assert node.out(0) == "0 0 2 0 why 127.0.0.1\n"
    node.host.stop(1.0)
    assert node.until("stopped")["cycle"] == 0
    assert node.host.idle


def test_a_shell_that_comes_before_its_agent_expects_it_waits(node):
    """The log folder too may not be seen yet, on storage that is shared."""
    task = node.task(0, "echo here")
    time.sleep(0.3)
    assert task.poll() is None
    node.start()
    node.task(1, "exit 0")
    assert node.until("exit", rank=0)["code"] == 0
    assert node.out(0) == "here\n"


def test_a_shell_that_comes_after_the_stop_never_starts_its_rank(node):
    node.start()
    node.task(0, "exec sleep 60")
    deadline = time.monotonic() + 30
    while not node.host._ranks.births and time.monotonic() < deadline:
        node.host.carry_on()
    node.host.stop(0.0)
    node.until("stopped")
    late = node.task(1, "echo too late")
    time.sleep(0.5)
    assert late.poll() is None and node.out(1) == "", "it waits for a leave that never comes again"


def test_a_stop_reaches_what_a_rank_started_and_what_ignores_sigterm(node):
    node.start()
    node.task(0, "trap '' TERM; sleep 300 & echo $!; wait; while :; do sleep 1; done")
    node.task(1, "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    node.until("started")
    deadline = time.monotonic() + 30
    while not (node.out(0) and node.out(1)) and time.monotonic() < deadline:
        time.sleep(0.02)
    node.host.stop(1.0)
    node.until("stopped")
    assert "asked" in node.out(1)
    helper = int(node.out(0).split()[0])
    # It may be a zombie of whoever adopts orphans here.
    state = Path(f"/proc/{helper}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert all(message["stopped"] for message in node.told if message["do"] == "exit")


def test_a_checkpoint_is_asked_of_programs_that_handle_it_not_of_the_shells(node):
    node.start()
    node.task(0, "trap 'exit 75' USR2; echo up; while :; do sleep 0.1; done")
    node.task(1, "echo up; exec sleep 60")
    logs = [node.run_dir / f"attempt0.0/rank{rank}.out" for rank in (0, 1)]
    deadline = time.monotonic() + 30
    while not all(log.exists() and log.read_text() for log in logs) and time.monotonic() < deadline:
        time.sleep(0.02)
    # Nobody has looked at their notes before.
    assert node.host.checkpoint() == 1
    assert node.until("exit", rank=0)["code"] == 75
    assert node.tasks[1].poll() is None
    pid, started, name = node.out(0, "pid").split()
    assert name == "n1" and int(pid) != node.tasks[0].pid and int(started) > 0


def test_a_killed_shell_is_a_killed_rank(node):
    node.start()
    task = node.task(0, "exec sleep 60")
    node.task(1, "exec sleep 60")
    node.until("started")
    task.kill()
    failed = node.until("exit", rank=0)
    assert failed["code"] == -signal.SIGKILL and "were killed" in failed["text"]


def test_the_rank_that_called_mpi_abort_is_found_by_its_words(node):
    node.start()
    said = r"MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\nwith errorcode 93.\n"
    tasks = [node.task(rank, f"printf '{said}' >&2; echo said; exec sleep 60") for rank in (0, 1)]
    node.until("started")
    deadline = time.monotonic() + 30
    while not (node.out(0) and node.out(1)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for task in tasks:
        task.kill()
    assert node.until("exit", rank=1)["code"] == 93
    assert node.until("exit", rank=0)["code"] == -signal.SIGKILL


def test_steps_are_seen(node, monkeypatch):
    node.start()
    node.task(0, 'test -s "$TRAINMASTER_STEP_FILE" && echo "$TRAINMASTER_STEP_FILE"; exec sleep 60')
    node.task(1, "exec sleep 60")
    node.until("started")
    deadline = time.monotonic() + 30
    while not node.out(0) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert node.host.steps() == {}
    monkeypatch.setattr(worker, "_page_known", False)
    monkeypatch.setenv("TRAINMASTER_STEP_FILE", node.out(0).strip())
    worker.step(5)
    assert node.host.steps()["0"][0] == 5 and node.host.furthest == 5


def test_the_next_cycle_has_notes_of_its_own(node):
    node.start()
    node.host.stop(0.0)
    node.until("stopped")
    node.told.clear()
    node.start(cycle=1)
    node.task(0, "exit 0", cycle=1)
    node.task(1, "exit 3", cycle=1)
    assert [node.until("exit", rank=rank)["code"] for rank in (0, 1)] == [0, 3]


def test_a_taken_port_is_told_before_any_rank_is_expected(node, monkeypatch):
    monkeypatch.setattr(step_host.ports, "port_is_free", lambda address, port: False)
    monkeypatch.setattr(node.host, "offer_port", lambda: 12345)
    node.start()
    assert [message["do"] for message in node.told] == ["port_taken", "stopped"]
    assert node.host.idle


def test_torchrun_keeps_its_own_variables_and_its_early_end_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(step_host, "LAUNCHER_LINGER_S", 0.1)
    node = Node(tmp_path, "torchrun")
    try:
        node.start()
        text = (node.host._here / "1.env").read_text()
        names = {line.split("=")[0].removeprefix("export ") for line in text.splitlines()}
        assert {"TRAINMASTER_CYCLE", "TRAINMASTER_STEP_FILE", "TORCHELASTIC_ERROR_FILE"} <= names
        assert not names & {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"}
        env = {
            **os.environ,
            "SLURM_PROCID": "0",
            "SLURMD_NODENAME": "n1",
            "TRAINMASTER_NOTES": rank_shell.notes_stem(node.uid, 7),
            "TRAINMASTER_LOGS": str(tmp_path / "attempt0.0"),
            "TRAINMASTER_ATTEMPT": "0",
            "TRAINMASTER_CYCLE": "0",
        }
        words = [*rank_shell.node_words(), "sh", "-c", "echo No module named torch; echo $PET_NODE_RANK; sleep 0.3"]
        node.tasks.append(subprocess.Popen(words, env=env, start_new_session=True))
        failed = node.until("exit", rank=0)
        assert failed["code"] == 71 and "No module named torch\n0\n" in failed["text"]
    finally:
        node.end()
