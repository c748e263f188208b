"""Sources that answer, fail, die, hang and cannot be killed: a pass always ends in time and says what it met."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from trainmaster.health import children, runner
from trainmaster.health.check import Absent, Completed, Missing, Place, Source, SourceFault
from trainmaster.health.runner import Reading


def reader(name: str, read: Callable[[Place], Any], **different: Any) -> Source:
    return Source(name=name, about="", read=read, **different)


def asker(name: str, *argv: str, **different: Any) -> Source:
    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        done = yield list(argv)
        return [done.out, done.err, done.code]

    return Source(name=name, about="", ask=ask, **different)


def read_all(*sources: Source, **different: Any) -> dict[str, Reading]:
    return runner.read_all(sources, lambda source: Place(), **different)


def raising(error: BaseException) -> Callable[[Place], Any]:
    def read(place: Place) -> Any:
        raise error

    return read


def stuck(place: Place) -> Any:
    time.sleep(300)


def test_values_come_back_as_they_are() -> None:
    readings = read_all(reader("a", lambda place: {"x": [1, None, "é"]}), reader("b", lambda place: place.root))
    assert {name: reading[:2] for name, reading in readings.items()} == {
        "a": ("ok", {"x": [1, None, "é"]}),
        "b": ("ok", ""),
    }


@pytest.mark.parametrize(
    ("error", "state", "detail"),
    [
        (Absent("no such thing"), "absent", "no such thing"),
        (Missing("not installed"), "missing", "not installed"),
        (SourceFault("odd"), "failed", "odd"),
        (PermissionError(13, "Permission denied"), "failed", "Permission denied"),
        (ZeroDivisionError("our own mistake"), "failed", "ZeroDivisionError: our own mistake"),
    ],
)
def test_what_a_reader_raises_is_its_reading(error: Exception, state: str, detail: str) -> None:
    readings = read_all(reader("bad", raising(error)), reader("good", lambda place: 1))
    assert readings["bad"].state == state and detail in readings["bad"].detail
    assert readings["good"].value == 1


def test_a_value_that_json_cannot_hold_costs_no_other_source() -> None:
    readings = read_all(reader("odd", lambda place: object()), reader("good", lambda place: 1))
    assert readings["odd"].state == "failed" and readings["good"].value == 1


def test_a_reader_that_hangs_is_hung_and_those_after_it_are_read() -> None:
    sources = [
        reader("before", lambda place: 1),
        reader("stuck", stuck, deadline_s=0.2),
        reader("after", lambda place: os.getpid()),
    ]
    began_s = time.monotonic()
    readings = read_all(*sources)
    assert time.monotonic() - began_s < 60
    assert [readings[name].state for name in ("before", "stuck", "after")] == ["ok", "hung", "ok"]
    assert "no answer within" in readings["stuck"].detail


def test_a_reader_that_dies_takes_nobody_with_it() -> None:
    def die(place: Place) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    readings = read_all(reader("before", lambda place: 1), reader("dies", die), reader("after", lambda place: 2))
    assert [readings[name].state for name in ("before", "dies", "after")] == ["ok", "failed", "ok"]


def test_a_command_tells_what_it_printed_and_how_it_ended() -> None:
    readings = read_all(
        asker("fine", "sh", "-c", "echo out; echo err >&2"),
        asker("fails", "sh", "-c", "exit 9"),
        asker("killed", "sh", "-c", "kill -9 $$"),
        asker("missing", "no-such-tool"),
    )
    assert readings["fine"].value == ["out\n", "err\n", 0]
    assert readings["fails"].value[2] == 9
    assert readings["killed"].value[2] == -9
    assert readings["missing"].state == "missing"


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    source = asker("stuck", "sh", "-c", f"sleep 300 & echo $! > {tmp_path}/pid; wait", deadline_s=0.5)
    assert read_all(source)["stuck"].state == "hung"
    pid = int((tmp_path / "pid").read_text())
    deadline_s = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline_s, "what the command started still runs"
        time.sleep(0.02)


def test_a_child_that_cannot_be_killed_is_abandoned() -> None:
    # As a process in uninterruptible sleep: SIGKILL does nothing for now.
    spared: list[int] = []
    sources = [reader("stuck", stuck, deadline_s=0.2), asker("sleeps", "sleep", "300", deadline_s=0.2)]
    began_s = time.monotonic()
    readings = read_all(*sources, kill=lambda pid, number: spared.append(pid))
    took_s = time.monotonic() - began_s
    assert {reading.state for reading in readings.values()} == {"hung"}
    assert took_s < 60 and len(spared) == 2
    for pid in spared:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_nobody_has_longer_than_the_pass() -> None:
    sources = [reader(f"r{number}", stuck, deadline_s=100.0) for number in range(3)]
    readings = read_all(*sources, asker("a", "sleep", "300", deadline_s=100.0), budget_s=0.5)
    assert {reading.state for reading in readings.values()} == {"late"}


def test_a_child_inherits_neither_descriptors_nor_the_session() -> None:
    keep = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(keep, True)
    try:
        code = (
            "import os; fds = os.listdir('/proc/self/fd'); print(os.getsid(0) == os.getpid(), sorted(fds), os.ttyname)"
        )
        code = code.replace("os.ttyname", "os.readlink('/proc/self/fd/0')")
        readings = read_all(asker("look", sys.executable, "-I", "-S", "-c", code))
    finally:
        os.close(keep)
    # 3 is the listing itself.
    assert readings["look"].value[0] == "True ['0', '1', '2', '3'] /dev/null\n"


def test_whoever_waits_for_the_end_of_our_output_does_not_wait_for_an_abandoned_child() -> None:
    """slurmd reads a hook's output to its end: a child that held it open would hang slurmd."""
    code = """
import time
from trainmaster.health import runner
from trainmaster.health.check import Place, Source
source = Source(name="s", about="", read=lambda place: time.sleep(20), deadline_s=0.2)
print(runner.read_all([source], lambda s: Place(), kill=lambda pid, number: None)["s"].state)
"""
    began_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "hung\n"
    assert time.monotonic() - began_s < 20


def test_a_tool_that_prints_without_end_is_cut_off() -> None:
    reading = read_all(asker("loud", "sh", "-c", "yes | head -c 30000000"))["loud"]
    assert reading.state in ("ok", "hung")
    assert reading.state == "hung" or len(reading.value[0]) <= children.OUTPUT_MAX + (1 << 16)


@pytest.mark.skipif(os.geteuid() != 0, reason="freezing a file system needs root")
def test_a_process_in_uninterruptible_sleep(tmp_path: Path) -> None:
    """The real thing: a frozen ext4 holds whoever writes to it until it is thawed, and SIGKILL waits as well."""
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    steps = (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(mount)])
    for argv in steps:
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        except FileNotFoundError:
            pytest.skip(f"there is no {argv[0]}")
        if done.returncode != 0:
            pytest.skip(f"{argv[0]}: {done.stderr.strip()}")
    try:
        if subprocess.run(["fsfreeze", "-f", str(mount)], check=False, timeout=60).returncode != 0:
            pytest.skip("the file system cannot be frozen")
        try:
            source = asker("touch", "touch", str(mount / "new"), deadline_s=1.0)
            began_s = time.monotonic()
            reading = read_all(source, reader("after", lambda place: 1))
            took_s = time.monotonic() - began_s
        finally:
            subprocess.run(["fsfreeze", "-u", str(mount)], check=True, timeout=60)
        assert reading["touch"].state == "hung" and reading["after"].value == 1
        assert took_s < 30
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False, timeout=60)


def test_the_long_line_of_a_large_value_arrives_whole() -> None:
    value = ["x" * 1000] * 1500
    assert read_all(reader("large", lambda place: value))["large"].value == value
    assert len(json.dumps(value)) > 1 << 20
