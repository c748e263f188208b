"""What cluster tests ask of a real controller: the daemon as a process, its journal, its commands."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import real_lab
from trainmaster.controller.acts import Kind
from trainmaster.controller.journal import Journal
from trainmaster.controller.memory import Memory, NodeState
from trainmaster.errors import ControllerError

POLICY = """
tick_s = 0.5
[modes]
default = "act"
[drains]
share_max = 0.5
"""
LONG = "srun sleep 600"


def argv(folder: Path, verb: str, *words: str) -> list[str]:
    journal = ["--journal", str(folder / "journal.sqlite")]
    return [sys.executable, "-m", "trainmaster", "controller", verb, *words, *journal]


def start(folder: Path, policy: str = POLICY) -> subprocess.Popen[bytes]:
    (folder / "policy.toml").write_text(policy)
    with (folder / "controller.log").open("ab") as log:
        return subprocess.Popen(argv(folder, "run", "--policy", str(folder / "policy.toml")), stderr=log, stdout=log)


@contextmanager
def controller(folder: Path, policy: str = POLICY) -> Iterator[subprocess.Popen[bytes]]:
    process = start(folder, policy)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)


def said(folder: Path, verb: str, *words: str) -> str:
    done = subprocess.run(argv(folder, verb, *words), capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def remembered(folder: Path) -> Memory:
    try:
        journal = Journal(folder / "journal.sqlite", read_only=True)
    except ControllerError:
        return Memory()  # not begun
    try:
        return journal.load() or Memory()
    finally:
        journal.close()


def state_of(folder: Path, node: str) -> NodeState | None:
    record = remembered(folder).nodes.get(node)
    return record.state if record is not None else None


def done_acts(folder: Path) -> list[Kind]:
    journal = Journal(folder / "journal.sqlite", read_only=True)
    try:
        return sorted(intent.act.kind for intent in journal.intents("done"))
    finally:
        journal.close()


def is_running(site: real_lab.Watched, job_id: int, *, restarts: int) -> bool:
    job = site.job(job_id)
    return job.state == "RUNNING" and job.restarts == restarts


def sees(folder: Path, job_id: int) -> bool:
    """Whether the controller has taken in that the job has nodes."""
    return job_id in remembered(folder).running
