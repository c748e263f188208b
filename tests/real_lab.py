"""What tests ask of a real lab."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trainmaster.lab.cluster import Lab
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Job, Node


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 90.0) -> None:
    """Wait for a condition that has to come true; generous, since other tests may share the machine."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def _answers(client: Commands, name: str) -> bool:
    return "NOT_RESP" not in client.nodes(name)[0].state


def clear(lab: Lab) -> None:
    """Cancel every job of a lab, wait until they are gone, and take back drains."""
    client = Commands(env=lab.env)
    for job in client.jobs():
        client.cancel(job.job_id)
    until(lambda: not client.jobs(), "the jobs of the first try are gone")
    for node in client.nodes():
        if "DRAIN" in node.state:
            client.update_nodes(node.name, State="RESUME")
            until(partial(_answers, client, node.name), f"{node.name} answers again")


def as_in_a_terminal() -> None:
    """For `preexec_fn`: a suite that runs in the background (`make test &`) has SIGINT ignored, and so its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def small(**values: Any) -> JobSpec:
    """A spec of which many fit on a lab, and that is stopped quickly."""
    return JobSpec(**({"time": 10, "mem": "300M", "stop_grace_s": 0.5} | values))


def states(job: TrainmasterJob[Any]) -> list[str]:
    """The states in a job's record."""
    return [event.state for event in job.events()]


def wait_for(job: TrainmasterJob[Any], state: str, *, count: int = 1, timeout_s: float = 120.0) -> Event:
    """The `count`-th event of this state in the job's record. Slurm is not asked, as by somebody who has gone home."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = [event for event in job.events() if event.state == state]
        if len(found) >= count:
            return found[count - 1]
        time.sleep(0.05)
    raise AssertionError(f"no {state} after {timeout_s:g} s: {[(event.state, event.cause) for event in job.events()]}")


class Watched:
    """A lab, its Slurm client, and a folder for the output of jobs."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.client = Commands(env=lab.env)

    def submit(self, script: str, *args: str, out: str = "%j.out") -> int:
        """Submit the lines of a shell script."""
        text = f"#!/bin/sh\n{script}\n"
        return self.client.submit(text, args=["--mem=10", f"--output={self.folder}/{out}", *args])

    def job(self, job_id: int) -> Job:
        """A job that Slurm has to know."""
        job = self.client.job(job_id)
        assert job is not None
        return job

    def node(self, name: str) -> Node:
        """A node as slurmctld sees it."""
        return self.client.nodes(name)[0]

    def output(self, out: int | str) -> str:
        """What a job printed so far."""
        path = self.folder / (f"{out}.out" if isinstance(out, int) else out)
        return path.read_text() if path.exists() else ""
