"""Which ranks wait for others, by their stacks. The texts are what faulthandler and py-spy print, paths shortened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainmaster.launcher.node import processes
from trainmaster.launcher.node.rank_host import py_spy_of
from trainmaster.launcher.node.ranks import LocalRank
from trainmaster.launcher.rank.worker import STACK_SIGNAL
from trainmaster.launcher.supervise.stacks import Stacks, Where, main_frames, suspects, waits

BACKWARD = """Thread 0x00007f11 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  File "/usr/lib/python3.11/threading.py", line 1038 in _bootstrap_inner

Current thread 0x00007f22 (most recent call first):
  File "/venv/site-packages/torch/autograd/graph.py", line 841 in _engine_run_backward
  File "/venv/site-packages/torch/autograd/__init__.py", line 364 in backward
  File "/venv/site-packages/torch/_tensor.py", line 630 in backward
  File "/home/me/train.py", line 187 in train
"""
ALL_REDUCE = """Current thread 0x00007f22 (most recent call first):
  File "/venv/site-packages/torch/distributed/distributed_c10d.py", line 2501 in all_reduce
  File "/venv/site-packages/torch/distributed/c10d_logger.py", line 81 in wrapper
  File "/home/me/train.py", line 193 in train
"""
IN_A_HOOK = """Current thread 0x00007f22 (most recent call first):
  File "/home/me/hooks.py", line 12 in slow_hook
  File "/venv/site-packages/torch/autograd/graph.py", line 841 in _engine_run_backward
  File "/home/me/train.py", line 187 in train
"""
LOADING = """Thread 0x00007f22 (most recent call first):
  File "/usr/lib/python3.11/socket.py", line 706 in readinto
  File "/home/me/data.py", line 44 in fetch
"""
# A wait for an asynchronous collective has no frame of torch's own, only that of our wrapper around it.
WORK_WAIT = """Current thread 0x00007f22 (most recent call first):
  File "/venv/site-packages/trainmaster/launcher/rank/collectives.py", line 47 in waiting
  File "/home/me/train.py", line 12 in train
"""
PY_SPY = """Process 123: python train.py
Python v3.11.2 (/usr/bin/python3.11)

Thread 123 (active): "MainThread"
    c10d::gloo::wait (libtorch_cpu.so)
    all_reduce (torch/distributed/distributed_c10d.py:2501)
    train (train.py:193)

Thread 130 (idle): "Thread-1"
    wait (threading.py:324)
"""


@pytest.mark.parametrize(
    ("text", "state", "expected"),
    [
        (BACKWARD, "S", True),
        (ALL_REDUCE, "R", True),
        (PY_SPY, "S", True),
        (WORK_WAIT, "S", True),
        (IN_A_HOOK, "S", False),
        (LOADING, "S", False),
        ("", "S", False),
        (ALL_REDUCE, "T", False),
        (ALL_REDUCE, "D", False),
        (ALL_REDUCE, "?", False),
    ],
)
def test_who_waits(text: str, state: str, expected: bool) -> None:
    assert waits(Where(rank=0, state=state, text=text)) is expected


def test_the_main_thread_is_told_from_the_others() -> None:
    assert "graph.py" in main_frames(BACKWARD)[0]
    assert main_frames(PY_SPY)[0] == "c10d::gloo::wait (libtorch_cpu.so)"
    assert main_frames("") == []


def test_suspects_are_those_that_do_not_wait_while_others_do() -> None:
    waiting = [Where(rank=rank, state="S", text=ALL_REDUCE) for rank in (0, 1, 3)]
    assert suspects([*waiting, Where(rank=2, state="S", text=LOADING)]) == (2,)
    assert suspects(waiting) == (), "all wait: the fault is elsewhere"
    assert suspects([Where(rank=rank, state="S", text=LOADING) for rank in (0, 1)]) == (), "nobody waits for them"


def test_a_rank_that_stands_still_when_the_others_are_done_is_named() -> None:
    """A rank that was stopped in its last step, the others having ended, was nobody's suspect."""
    assert suspects([Where(rank=2, state="T", text="")], ended=2) == (2,)
    assert suspects([Where(rank=2, state="S", text=ALL_REDUCE)], ended=2) == (), "it waits for what will not come"


STUCK = """
import ctypes, sys
from trainmaster.launcher.rank import worker
worker.answer_for_stacks()
print("ready", flush=True)
def stuck_in_c():
    while True:
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter's lock; a signal ends the sleep
stuck_in_c()
"""


def test_a_process_that_is_stuck_in_c_shows_its_stack(tmp_path: Path) -> None:
    out = tmp_path / "stacks"
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], env=os.environ | {"TRAINMASTER_STACKS_FILE": str(out)}, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert processes.catches(process.pid, STACK_SIGNAL)
        deadline = time.monotonic() + 30
        while "in stuck_in_c" not in (text := out.read_text()):
            assert time.monotonic() < deadline, text
            processes.send(process.pid, STACK_SIGNAL)
            time.sleep(0.1)
        assert process.poll() is None, "asking does not end it"
        assert processes.state(process.pid) in "RS"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert processes.state(process.pid) == "?"


LOCKED = """
import ctypes
print("ready", flush=True)
def waits_for_ever():
    while True:
        ctypes.PyDLL(None).sleep(600)
waits_for_ever()
"""


def test_py_spy_shows_native_frames_also_of_a_rank_that_has_no_handler(tmp_path: Path) -> None:
    """Such as a program under srun that never imported trainmaster: only a look from outside tells where it is."""
    tool = py_spy_of(sys.executable)
    if tool is None:
        pytest.skip("py-spy is not installed (pip install 'trainmaster[stacks]')")
    process = subprocess.Popen([sys.executable, "-c", LOCKED], stdout=subprocess.PIPE)
    entry = LocalRank(
        rank=3,
        out=tmp_path / "rank3.out",
        err=tmp_path / "rank3.err",
        error_file=tmp_path / "error.json",
        step_file=tmp_path / "step",
        modules_file=tmp_path / "modules",
        stacks_file=tmp_path / "stacks",
        pid=process.pid,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert not processes.catches(process.pid, STACK_SIGNAL)
        round_ = Stacks([entry], py_spy=tool)
        round_.ask()
        (tracer,) = round_.tracers
        _, status = os.waitpid(tracer, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "may this user trace? (kernel.yama.ptrace_scope)"
        round_.ended(tracer, status)
        while (answer := round_.answer()) is None:
            time.sleep(0.05)
        (where,) = answer
        frames = main_frames(where.text)
        assert any("sleep" in frame and ".so" in frame for frame in frames), where.text
        assert any(frame.startswith("waits_for_ever (") for frame in frames), where.text
        assert not waits(where) and process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
