"""The launcher's rows of the fault table: what is done to a job, and what has to come of it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from trainmaster import Role, map_array, submit_roles
from trainmaster.lab.cluster import Lab
from trainmaster.launcher.record import Event
from trainmaster.launcher.roles.roles_job import RolesJob
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

NODES = 6
STEPS = 60
RANK = Path(__file__).parent / "stamping_rank.py"


class Job(Protocol):
    """What is hit and judged by itself: a job, a task of an array, a role of a job."""

    @property
    def job_id(self) -> int | str: ...
    @property
    def run_dir(self) -> Path: ...
    @property
    def state(self) -> str: ...
    def done(self) -> bool: ...
    def events(self) -> tuple[Event, ...]: ...
    def cancel(self) -> None: ...


class OneRole:
    """A role, as if it were a job."""

    def __init__(self, job: RolesJob, name: str) -> None:
        self._job = job
        self._name = name
        self.job_id = job.job_id
        self.run_dir = job.run_dir / name
        self.cancel = job.cancel
        self.done = job.done

    @property
    def state(self) -> str:
        return self._job.state

    def events(self) -> tuple[Event, ...]:
        return tuple(event for event in self._job.events() if event.role in (self._name, ""))


def one_job(case: "Case", spec: JobSpec, folder: Path) -> list[Job]:
    """The usual: one job of three ranks."""
    return [submit([sys.executable, str(RANK), str(STEPS), *case.words], spec=spec, folder=folder)]


def an_array(case: "Case", spec: JobSpec, folder: Path) -> list[Job]:
    """Two tasks of two ranks; the second is hit."""
    first, second = map_array([sys.executable, str(RANK)], [str(STEPS)] * 2, spec=replace(spec, nodes=2), folder=folder)
    return [second, first]


def two_roles(case: "Case", spec: JobSpec, folder: Path) -> list[Job]:
    """Two roles of two ranks in a heterogeneous job; the second is hit, so not the one that leads."""
    program = [sys.executable, str(RANK), str(STEPS)]
    own = replace(spec, nodes=2)
    roles = {"first": Role(target=program, spec=replace(own, spares=0)), "second": Role(target=program, spec=own)}
    job = submit_roles(roles, folder=folder)
    return [OneRole(job, "second"), OneRole(job, "first")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row."""

    name: str
    title: str
    strike: Callable[[Lab, Job], None]
    wanted: str = "SUCCEEDED"
    """How the job has to end."""
    follows: tuple[str, ...] = ()
    """What the record has to say in between, and nothing else: RESTARTING node_death."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    """For the rank."""
    start: Callable[["Case", JobSpec, Path], Sequence[Job]] = one_job
    """What is started: first what is hit, then what must not notice anything."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of slurm.conf."""

    @property
    def timed(self) -> bool:
        """Whether it is known when the fault happened, and something has to come back."""
        return bool(self.follows) and self.strike is not _nothing


def nodes(job: Job) -> tuple[str, ...]:
    """Where the ranks run now."""
    return next(event.nodes for event in reversed(job.events()) if event.state == "RUNNING")


def batch_host(job: Job) -> str:
    """Where the batch script and the first supervisor run."""
    return str(next(event.detail["node"] for event in job.events() if event.state == "STARTING"))


def others(job: Job) -> list[str]:
    """Nodes with ranks, without the batch host."""
    return [node for node in nodes(job) if node != batch_host(job)]


def _kill_rank(lab: Lab, job: Job) -> None:
    lab.fault("rank-crash", f"{job.job_id}:1", run_dir=job.run_dir)


def _hang_rank(lab: Lab, job: Job) -> None:
    lab.fault("rank-hang", f"{job.job_id}:1", run_dir=job.run_dir)


def _nothing(lab: Lab, job: Job) -> None:
    """The rank does it by itself."""


def _kill_slurmd(lab: Lab, job: Job) -> None:
    os.kill(lab.process("slurmd", others(job)[0]).pid, signal.SIGKILL)


def _kill_node(lab: Lab, job: Job) -> None:
    lab.fault("node-death", others(job)[0])


def _kill_last_node(lab: Lab, job: Job) -> None:
    """Not the first of a role's nodes: Slurm takes that for a batch host, and lets nobody take it out of the job."""
    lab.fault("node-death", max(nodes(job)))


def _kill_two(lab: Lab, job: Job) -> None:
    lab.fault("node-death", ",".join(others(job)[:2]))


def _freeze_node(lab: Lab, job: Job) -> None:
    lab.fault("node-freeze", others(job)[0])


def _kill_batch_host(lab: Lab, job: Job) -> None:
    lab.fault("node-death", batch_host(job))


def _restart_slurmctld(lab: Lab, job: Job) -> None:
    # What slurmctld has not saved yet it forgets when it is killed; it saves every five seconds.
    lab.fault("slurmctld-restart", signal="TERM")


def _kill_node_while_slurmctld_is_away(lab: Lab, job: Job) -> None:
    lab.fault("slurmctld-freeze")
    lab.fault("node-death", others(job)[0])
    time.sleep(8.0)
    lab.fault("slurmctld-thaw")


def _requeue_twice_at_once(lab: Lab, job: Job) -> None:
    """Somebody by `jobs requeue`, an admin by Slurm's own command, in the same moment."""
    ours = [sys.executable, "-m", "trainmaster", "jobs", "requeue", str(job.job_id)]
    first = threading.Thread(target=subprocess.run, args=(ours,), kwargs={"capture_output": True, "check": False})
    first.start()
    subprocess.run(["scontrol", "requeue", "Incomplete", str(job.job_id)], capture_output=True, check=False)
    first.join()


def _preempt(lab: Lab, job: Job) -> None:
    spec = JobSpec(name="urgent", nodes=NODES, time=10, mem="1000G", partition="high", exclusive=True)
    urgent = submit([sys.executable, "-c", "import time; time.sleep(1)"], spec=spec, folder=job.run_dir / "urgent")
    urgent.wait()


# Only the backfill scheduler starts heterogeneous jobs, by default every 30 s.
_HET = {"SchedulerParameters": "bf_interval=1"}

CASES = (
    Case(name="rank_killed", title="a rank is killed", strike=_kill_rank, follows=("RESTARTING rank_crash",)),
    Case(
        name="rank_exits",
        title="a rank ends with 1, once",
        strike=_nothing,
        words=("--exit-once", "1"),
        follows=("RESTARTING rank_crash",),
    ),
    Case(
        name="python_error",
        title="a Python error in every cycle",
        strike=_nothing,
        words=("--raise-at", "20"),
        wanted="NO_PROGRESS",
        follows=("RESTARTING rank_crash",) * 3,
    ),
    Case(
        name="hang",
        title="a rank stands still",
        strike=_hang_rank,
        spec={"hang_timeout_s": 2.0},
        follows=("RESTARTING hang",),
    ),
    Case(name="slurmd_killed", title="slurmd is killed, the job's processes live", strike=_kill_slurmd),
    Case(name="node_dies", title="a node dies, one spare", strike=_kill_node, follows=("RESTARTING node_death",)),
    Case(
        name="two_nodes_die",
        title="two nodes die, two spares",
        strike=_kill_two,
        spec={"spares": 2},
        follows=("RESTARTING node_death",),
    ),
    Case(
        name="node_freezes",
        title="a node falls silent, one spare",
        strike=_freeze_node,
        follows=("RESTARTING node_silent",),
    ),
    Case(
        name="node_dies_no_spare",
        title="a node dies, no spare",
        strike=_kill_node,
        spec={"spares": 0},
        follows=("REQUEUED node_death",),
    ),
    Case(
        name="batch_host_dies",
        title="the supervisor's node dies, one spare",
        strike=_kill_batch_host,
        follows=("RESTARTING supervisor_death",),
    ),
    Case(name="slurmctld_restarts", title="slurmctld restarts", strike=_restart_slurmctld),
    Case(
        name="node_dies_without_slurmctld",
        title="a node dies while slurmctld hangs",
        strike=_kill_node_while_slurmctld_is_away,
        follows=("RESTARTING node_death",),
    ),
    Case(
        name="requeued_twice",
        title="two people requeue it at once",
        strike=_requeue_twice_at_once,
        follows=("REQUEUED requeue",),
    ),
    Case(name="preempted", title="preempted, with a warning", strike=_preempt, follows=("REQUEUED preemption",)),
    Case(
        name="array_rank_killed",
        title="a rank of one task of an array is killed",
        strike=_kill_rank,
        start=an_array,
        spec={"spares": 0},
        follows=("RESTARTING rank_crash",),
    ),
    Case(
        name="array_node_dies",
        title="a node of one task of an array dies, no spare",
        strike=_kill_node,
        start=an_array,
        spec={"spares": 0},
        follows=("REQUEUED node_death",),
    ),
    Case(
        name="role_rank_killed",
        title="a rank of one role is killed",
        strike=_kill_rank,
        start=two_roles,
        settings=_HET,
        follows=("RESTARTING rank_crash",),
    ),
    Case(
        name="role_node_dies",
        title="a node of one role dies, one spare",
        strike=_kill_node,
        start=two_roles,
        settings=_HET,
        follows=("RESTARTING node_death",),
    ),
    Case(
        name="role_node_dies_no_spare",
        title="a node of one role dies, no spare",
        strike=_kill_last_node,
        start=two_roles,
        settings=_HET,
        spec={"spares": 0},
        follows=("REQUEUED node_death",),
    ),
)
