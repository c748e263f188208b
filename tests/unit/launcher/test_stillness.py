"""Ranks without steps, seen from outside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainmaster.launcher.node import processes
from trainmaster.launcher.node.ranks import LocalRank
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.supervise.stillness import StillWatch


def watch(**limits: float) -> StillWatch:
    made = StillWatch(**limits)
    made.hear("a", (0, 1), 100, 1.0, 0.0)
    made.hear("b", (2, 3), 100, 1.0, 0.0)
    return made


@pytest.mark.parametrize("name", ["hang_timeout_s", "quiet_timeout_s", "idle_timeout_s"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(name):
    assert any(name in fault for fault in JobSpec(**{name: "soon"}).faults())
    assert any(name in fault for fault in JobSpec(**{name: -1}).faults())
    assert not any(name in fault for fault in JobSpec(**{name: 0}).faults())
    assert not any(name in fault for fault in JobSpec().faults())


def test_nobody_asked():
    idle = watch()
    assert not idle.asked
    assert idle.verdict(1e9) is None
    assert watch(quiet_s=0).verdict(1e9) is None


def test_one_rank_that_writes_is_enough():
    quiet = watch(quiet_s=10)
    assert quiet.verdict(10.0) is None
    quiet.hear("b", (2, 3), 101, 1.0, 9.0)
    assert quiet.verdict(18.0) is None
    hang = quiet.verdict(20.0)
    assert hang is not None
    assert (hang.ranks, hang.still_s, hang.limit_s) == ((0, 1, 2, 3), 11.0, 10)
    assert str(hang) == "no rank has written anything for 11.0 s, where 10.0 s are allowed"


def test_a_file_that_somebody_empties_was_written_to():
    quiet = watch(quiet_s=10)
    quiet.hear("a", (0, 1), 0, 1.0, 9.0)
    assert quiet.verdict(15.0) is None


def test_threads_that_only_watch_do_not_compute():
    idle = watch(idle_s=10)
    for second in range(1, 16):
        idle.hear("a", (0, 1), 100, 1.0 + 0.01 * second, float(second))
        idle.hear("b", (2, 3), 100 + second, 1.0, float(second))
    hang = idle.verdict(15.0)
    assert hang is not None
    assert hang.how == "no rank has used a processor"
    idle.hear("b", (2, 3), 200, 1.2, 16.0)
    assert idle.verdict(17.0) is None


def test_ranks_that_end_take_their_processor_time_along():
    idle = watch(idle_s=10)
    idle.hear("a", (1,), 100, 0.2, 5.0)
    assert idle.verdict(9.0) is None
    assert idle.verdict(11.0) is not None
    for name in ("a", "b"):
        idle.hear(name, (), 0, 0.0, 12.0)
    assert idle.verdict(100.0) is None


def test_our_own_absence_is_forgiven_and_a_cycle_begins_anew():
    quiet = watch(quiet_s=10)
    quiet.forgive(100.0)
    assert quiet.verdict(105.0) is None
    quiet.restart()
    assert quiet.verdict(1e9) is None


def test_a_child_that_computes_counts_for_its_rank():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(8_000_000))']); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        try:
            while processes.cpu_s(process.pid) < 0.1:
                assert process.poll() is None
        finally:
            process.kill()
    assert processes.cpu_s(process.pid) == processes.cpu_s() == 0.0
    assert processes.cpu_s(os.getpid()) > 0


def test_output_and_errors_in_one_file_count_once(tmp_path: Path):
    (tmp_path / "out").write_text("12345")
    files = dict.fromkeys(("error_file", "step_file", "modules_file", "stacks_file"), tmp_path / "none")
    assert LocalRank(rank=0, out=tmp_path / "out", err=tmp_path / "out", **files).written_bytes() == 5
    assert LocalRank(rank=0, out=tmp_path / "out", err=tmp_path / "gone", **files).written_bytes() == 5
