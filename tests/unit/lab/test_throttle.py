"""Slowing processes down: by the kernel's control groups as root, by stopping them again and again as anybody."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainmaster.lab import processes, throttle
from trainmaster.lab.duty_cycle import spans
from trainmaster.lab.processes import Process

SPIN = "while True: pass"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def seen(pid: int) -> Process:
    found = processes.look(pid)
    assert found is not None
    return found


def test_where_the_cpu_controller_is() -> None:
    first = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0"
    found = throttle.controller(first)
    assert found is not None and (found.root, found.version) == (Path("/sys/fs/cgroup/cpu"), 1)
    assert throttle.controller("cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\nproc /proc proc rw 0 0") is None


def test_version_two_must_have_the_controller_on(tmp_path: Path) -> None:
    line = f"cgroup2 {tmp_path} cgroup2 rw,nsdelegate 0 0"
    assert throttle.controller(line) is None
    (tmp_path / "cgroup.subtree_control").write_text("io memory\n")
    assert throttle.controller(line) is None
    (tmp_path / "cgroup.subtree_control").write_text("cpu io memory\n")
    assert throttle.controller(line) == throttle.Controller(root=tmp_path, version=2)


@pytest.fixture
def spinning(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that would take a whole CPU, on "node" n07 of a lab in this folder."""
    env = {"SLURM_CONF": f"{tmp_path}/slurm.conf", "SLURMD_NODENAME": "n07"}
    child = subprocess.Popen([sys.executable, "-I", "-c", SPIN], env=env)
    yield child
    child.kill()
    child.wait()


@pytest.mark.skipif(throttle.available() is None, reason="needs root and a CPU controller")
def test_a_control_group_throttles_and_heals(spinning: subprocess.Popen[bytes]) -> None:
    found = throttle.available()
    assert found is not None
    name = throttle.name_of(f"test{spinning.pid}", "n07")
    throttle.slow(found, name, [seen(spinning.pid)], share=0.1)
    try:
        group = found.root / name
        until(lambda: "nr_throttled 0" not in (group / "cpu.stat").read_text(), "the kernel holds it back")
        assert throttle.is_slow(found, name)
    finally:
        throttle.heal(found, name)
    assert not throttle.is_slow(found, name)
    assert str(spinning.pid) in (found.root / "cgroup.procs").read_text().split()


def test_standing_still_again_and_again(tmp_path: Path, spinning: subprocess.Popen[bytes]) -> None:
    argv = [sys.executable, "-m", "trainmaster.lab.duty_cycle", str(tmp_path), "n07", "0.3"]
    cycle = subprocess.Popen(argv)
    try:
        for _ in range(3):
            until(lambda: seen(spinning.pid).state == "T", "it stands still")
            until(lambda: seen(spinning.pid).state == "R", "it runs")
    finally:
        cycle.send_signal(signal.SIGTERM)
        assert cycle.wait(timeout=60) == 0
    assert seen(spinning.pid).state == "R"
    assert sum(spans(0.01)) == pytest.approx(0.1) and spans(2.0)[1] > 0
