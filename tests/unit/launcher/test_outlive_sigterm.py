"""A rank that asks for orders outlives Slurm's SIGTERM, and nothing else does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainmaster.launcher.node.ranks import LocalRank, Ranks
from trainmaster.launcher.rank import page

BEGIN = """
import multiprocessing, os, signal, sys, time
import trainmaster
"""
READY = """
print("ready", flush=True)
while True:
    time.sleep(0.02)
"""


def start(program: str, folder: Path, *, hold_s: str = "0.3") -> tuple[subprocess.Popen[str], Path]:
    path = folder / "page"
    page.create(path)
    env = {**os.environ, "TRAINMASTER_STEP_FILE": str(path), "TRAINMASTER_HOLD_S": hold_s}
    argv = [sys.executable, "-c", BEGIN + program + READY]
    rank = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert rank.stdout is not None
    with rank.stdout as said:
        assert said.readline() == "ready\n"
    return rank, path


@pytest.mark.parametrize(
    ("program", "hold_s", "code"),
    [
        ("trainmaster.should_stop()", "0.3", 128 + signal.SIGTERM),
        ("trainmaster.should_checkpoint()", "0.3", 128 + signal.SIGTERM),
        ("trainmaster.step(1)", "0.3", -signal.SIGTERM),
        ("trainmaster.should_stop()", "", -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); trainmaster.should_stop()", "0.3", 7),
    ],
)
def test_who_outlives_it(tmp_path: Path, program: str, hold_s: str, code: int) -> None:
    rank, path = start(program, tmp_path, hold_s=hold_s)
    os.kill(rank.pid, signal.SIGTERM)
    assert rank.wait(timeout=30) == code
    assert page.read(path).holds == (code == 128 + signal.SIGTERM)


def test_a_data_loaders_worker_does_not(tmp_path: Path) -> None:
    program = """
trainmaster.should_stop()
reads, writes = os.pipe()
child = os.fork()
if child == 0:
    os.write(writes, b"x")
    time.sleep(60)
os.read(reads, 1)  # a signal before what Python does after a fork finds the rank's own handler
os.kill(child, signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
"""
    rank, _ = start(program, tmp_path)
    rank.kill()
    rank.wait()


def test_when_we_stop_it_ourselves_it_does_not_keep_us_waiting(tmp_path: Path) -> None:
    rank, path = start("trainmaster.should_stop()", tmp_path, hold_s="3600")
    names = ("out", "err", "error_file", "modules_file", "stacks_file")
    entry = LocalRank(rank=0, pid=rank.pid, step_file=path, **{name: tmp_path / name for name in names})
    Ranks(0, {0: entry}).stop(grace_s=3600.0)
    assert rank.wait(timeout=30) == -signal.SIGKILL
