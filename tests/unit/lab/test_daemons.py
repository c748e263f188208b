"""Starting daemons, and saying why one did not start."""

import os
import sys
import time
from pathlib import Path

import pytest

from trainmaster.errors import LabError
from trainmaster.lab import daemons, processes
from trainmaster.lab.state import ProcessRecord


def start(tmp_path: Path, program: str) -> ProcessRecord:
    return daemons.start(
        [sys.executable, "-c", program],
        role="program",
        node=None,
        env=dict(os.environ),
        output=tmp_path / "out",
        cwd=tmp_path,
    )


def test_a_daemon_that_ends_is_quoted(tmp_path: Path) -> None:
    record = start(tmp_path, "print('error: it is cold outside'); raise SystemExit(3)")
    with pytest.raises(LabError, match="it is cold outside"):
        daemons.await_ready(record, lambda: False, output=tmp_path / "out", timeout_s=30)


def test_a_daemon_that_hangs_is_quoted(tmp_path: Path) -> None:
    record = start(tmp_path, "import time; print('thinking', flush=True); time.sleep(60)")
    process = processes.look(record.pid)
    assert process is not None
    ready = tmp_path / "out"
    try:
        daemons.await_ready(record, lambda: ready.stat().st_size > 0, output=ready, timeout_s=30)
        with pytest.raises(LabError, match="not ready after 0 s; it said:\n  thinking"):
            daemons.await_ready(record, lambda: False, output=ready, timeout_s=0)
    finally:
        processes.send(process, processes.signal.SIGKILL)
        processes.wait_gone([process])
        daemons.reap()


def test_a_daemon_that_has_ended_is_not_left_a_zombie(tmp_path: Path) -> None:
    record = start(tmp_path, "")
    while daemons.running(record):
        time.sleep(0.01)
    daemons.reap()
    assert processes.look(record.pid) is None


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no 'slurmctld-of-another-world'") as caught:
        daemons.start(
            ["slurmctld-of-another-world"],
            role="slurmctld",
            node=None,
            env=dict(os.environ),
            output=tmp_path / "out",
            cwd=tmp_path,
        )
    assert "slurmctld" in caught.value.hint


def test_the_marks_stand_last_in_the_environment() -> None:
    env = daemons.environment(folder=Path("/lab"), conf=Path("/lab/slurm.conf"), node_name="n01")
    assert list(env)[-3:] == ["SLURM_CONF", daemons.LAB_MARK, processes.MARK]
    assert not any(key.startswith(("SBATCH_", "SLURM_")) for key in env if key != "SLURM_CONF")


def test_errors_come_first_but_not_those_of_a_first_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "slurmctld: error: Could not open node state file /x: No such file\n"
        "slurmctld: error: NOTE: Trying backup state save file.\n"
        "slurmctld: fatal: that will not do\nslurmctld: good bye\n"
    )
    assert daemons.tail(log) == "  slurmctld: fatal: that will not do"
    assert "cannot be read" in daemons.tail(tmp_path / "nothing")
