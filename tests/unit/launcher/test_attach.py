"""Attaching: where to, with which command line, and what the command becomes on the node."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainmaster.errors import UsageError
from trainmaster.launcher import ids
from trainmaster.launcher.follow.attach import Target, command, target_of
from trainmaster.launcher.follow.find import Found
from trainmaster.launcher.node import processes
from trainmaster.launcher.plan import Plan, write
from trainmaster.launcher.rank import enter
from trainmaster.launcher.record import Event
from trainmaster.launcher.roles.part import events_of, of_role

RUNNING = Event(
    epoch_s=1.0, job_id=12, attempt=0, cycle=0, state="RUNNING", nodes=("n02", "n01"), spares=("n03",), ranks=4
)


def found(**values):
    plan = Plan(
        **({"uid": "u", "name": "x", "run_dir": "/r", "python": "/py", "nodes": 2, "tasks_per_node": 2} | values)
    )
    return Found(id=ids.parse(12), run_dir=Path("/r"), plan=plan, slurm_conf="")


@pytest.mark.parametrize(
    ("rank", "node", "target"),
    [
        (None, None, Target(node="n02", rank=0)),
        (3, None, Target(node="n01", rank=3)),
        (None, "n01", Target(node="n01", rank=2)),
        (None, "n03", Target(node="n03", rank=-1)),
    ],
)
def test_a_rank_is_where_the_record_put_it(rank, node, target):
    assert target_of(found(), [RUNNING], rank=rank, node=node) == target


@pytest.mark.parametrize(
    ("events", "rank", "node", "said"),
    [
        ([RUNNING], 4, None, "0 to 3"),
        ([RUNNING], None, "n09", "n03 \\(spare\\)"),
        ([], None, None, "no rank has started"),
    ],
)
def test_a_place_that_there_is_not(events, rank, node, said):
    with pytest.raises(UsageError, match=said):
        target_of(found(), events, rank=rank, node=node)


def test_a_replica_that_restarts_alone_is_on_its_own_node(tmp_path):
    plan = Plan(uid="u", name="x", run_dir=str(tmp_path), python="/py", nodes=3, roles=("loader", "trainer"))
    whole = Found(id=ids.parse(12), run_dir=tmp_path, plan=plan, slurm_conf="")
    (tmp_path / "loader").mkdir()
    loader = Plan(uid="u", name="loader", run_dir=str(tmp_path / "loader"), python="/py", nodes=2, agent_per_rank=True)
    write(tmp_path / "loader", loader)
    events = [
        Event(epoch_s=1.0, job_id=12, attempt=0, cycle=0, state="RUNNING", nodes=(f"n0{n}",), role="loader", replica=n)
        for n in (0, 1)
    ]
    events.append(Event(epoch_s=1.0, job_id=12, attempt=0, cycle=0, state="RUNNING", nodes=("n07",), role="trainer"))
    part = of_role(whole, "loader")
    assert [event.replica for event in events_of(part, events, 1)] == [1]
    assert target_of(part, events, rank=1, node=None) == Target(node="n01", rank=1)
    assert "--het-group=1" in command(part, Target(node="n01", rank=1), [], job_id=12, component=1, terminal=False)
    for wrong in (None, "nobody"):
        with pytest.raises(UsageError, match="loader, trainer"):
            of_role(whole, wrong)


def test_the_command_line():
    line = command(found(), Target(node="n01", rank=2), ["nvidia-smi", "-l"], job_id=77, terminal=True)
    assert line[:2] == ["srun", "--jobid=77"]
    assert {"--overlap", "--nodelist=n01", "--pty"} <= set(line)
    assert line[-4:] == ["/r", "2", "nvidia-smi", "-l"]
    assert "--pty" not in command(found(), Target(node="n01", rank=2), [], job_id=77, terminal=False)


class Node:
    """A node with one rank on it: this process stands for it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.run_dir = base / "run"
        self.scratch = base / "shm" / "trainmaster-x"
        self.scratch.mkdir(parents=True)
        folder = self.run_dir / "attempt0.1"
        folder.mkdir(parents=True)
        (folder / "rank3.pid").write_text(f"{os.getpid()} {processes.start_time(os.getpid())} n01\n")
        self.env = {
            "RANK": "3",
            "TRAINMASTER_RUN_DIR": str(self.run_dir),
            "TRAINMASTER_ATTEMPT": "0",
            "TRAINMASTER_CYCLE": "1",
            "PATH": os.environ["PATH"],
        }
        enter.leave_env(self.scratch, 3, self.env)


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_the_environment_and_the_folder_are_the_ranks(node):
    place = enter.find(node.run_dir, 3, bases=(node.base / "shm",))
    assert place is not None
    assert (place.env, place.pid, place.cwd) == (node.env, os.getpid(), str(Path.cwd()))
    assert enter.find(node.run_dir, 2, bases=(node.base / "shm",)) is None
    assert enter.find(node.base / "other", 3, bases=(node.base / "shm",)) is None


def test_a_pid_that_came_round_again_is_not_the_rank(node):
    (node.run_dir / "attempt0.1" / "rank3.pid").write_text(f"{os.getpid()} 1 n01\n")
    place = enter.find(node.run_dir, 3, bases=(node.base / "shm",))
    assert place is not None and place.pid == 0


def test_the_command_becomes_the_process_with_nothing_of_our_own_environment(node):
    code = (
        "import sys; from pathlib import Path; from trainmaster.launcher.rank import enter\n"
        "enter.find = lambda run_dir, rank, find=enter.find: find(run_dir, rank, bases=(Path(sys.argv[1]),))\n"
        "sys.exit(enter.main(sys.argv[2:]))"
    )
    argv = [sys.executable, "-c", code, str(node.base / "shm"), str(node.run_dir), "3"]
    env = dict(os.environ) | {"MINE_ONLY": "1", "TERM": "xterm-test"}
    done = subprocess.run([*argv, "env"], capture_output=True, text=True, env=env, timeout=60, check=True)
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert "MINE_ONLY" not in seen
    assert (seen["RANK"], seen["TERM"], seen["TRAINMASTER_RANK_PID"]) == ("3", "xterm-test", str(os.getpid()))
    wrong = subprocess.run([*argv, "no-such-command"], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 127 and "no-such-command" in wrong.stderr


def test_what_a_killed_agent_left_is_swept_and_what_a_living_one_has_is_not(node):
    enter.own(node.scratch)
    dead, foreign = node.base / "shm" / "trainmaster-dead", node.base / "shm" / "trainmaster-foreign"
    for folder, change in ((dead, {"started": 1}), (foreign, {"started": 1, "pids": "pid:[1]"})):
        folder.mkdir()
        enter.own(folder)
        mark = json.loads((folder / "owner.json").read_text())
        (folder / "owner.json").write_text(json.dumps(mark | change))
    enter.sweep(node.base / "shm")
    assert sorted(path.name for path in (node.base / "shm").iterdir()) == ["trainmaster-foreign", "trainmaster-x"]
