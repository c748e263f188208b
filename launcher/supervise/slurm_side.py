"""What the supervisor asks of Slurm, and how it reads the answers. Standard library only."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainmaster.errors import SlurmError
from trainmaster.launcher import intent
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.supervise.takeover import Post
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Job

OUTPUT = "batch.out"
CANNOT_SEE = "cannot see"
"""What an agent says on stderr when the run folder is not there on its node."""
LAUNCH_FAILED = "launch failed"
"""What srun says when slurmd would not start its tasks."""
_AGENT_GONE = re.compile(r"error: (?P<node>\S+?): tasks? \S+: (?:Exited with exit code \d+|Killed|Terminated|.*dumped)")


def own_address(node: str) -> str:
    """The address under which the other nodes reach this one: its NodeAddr, resolved here.

    When slurmctld does not answer, the node's name and then the host's name have to do.
    """
    names = [node, socket.gethostname()]
    try:
        found = Commands(timeout_s=10.0).nodes(node)
        names = [found[0].address or node, *names] if found else names
    except SlurmError:
        pass
    for name in names:
        try:
            return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
        except OSError:
            continue
    return "127.0.0.1"


def agents_command(plan: Plan, post: Post, *, job_dir: str = "", component: int | None = None) -> list[str]:
    """The srun that starts one agent a node; for a role one a rank, if its replicas restart alone.

    `job_dir`, `component`: of a role, whose plan this is, the job's folder and its number in the heterogeneous job.

    `--no-kill` and `--kill-on-bad-exit=0`: the step lives on when a node or an agent dies. `--mpi=none`: agents are no
    MPI processes. `--cpus-per-task` is said again since 22.05 no longer takes it from the batch job.
    """
    nodes = plan.nodes + plan.spares
    agents = plan.tasks_per_node if plan.agent_per_rank else 1
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes * agents}", f"--ntasks-per-node={agents}", "--no-kill"]
    command += ["--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--input=none"]
    if plan.cpus_per_task is not None:
        command.append(f"--cpus-per-task={plan.cpus_per_task * (plan.tasks_per_node // agents)}")
    if component is not None:
        command.append(f"--het-group={component}")
    command += plan.srun_args
    # -P: a json.py in the working folder is no module of ours.
    command += [plan.python, "-P", "-m", "trainmaster.launcher.node.agent", job_dir or plan.run_dir, post.host]
    command += [str(post.port), str(post.attempt), str(post.epoch)]
    return command if component is None else [*command, plan.name]


def agents_gone(text: str) -> list[str]:
    """Nodes whose agent ended, from what srun says on stderr.

    >>> agents_gone("srun: error: n03: task 2: Exited with exit code 78")
    ['n03']
    """
    return [match["node"] for match in _AGENT_GONE.finditer(text)]


def component_ids(env: Mapping[str, str]) -> tuple[int, ...]:
    """The job numbers of a heterogeneous job's components, the leader's first; none of another job.

    >>> component_ids({"SLURM_JOB_ID_HET_GROUP_0": "7", "SLURM_JOB_ID_HET_GROUP_1": "8"})
    (7, 8)
    """
    found = {}
    for key, value in env.items():
        number = key.removeprefix("SLURM_JOB_ID_HET_GROUP_")
        if number != key and number.isdecimal() and value.isdecimal():
            found[int(number)] = int(value)
    return tuple(found[number] for number in sorted(found))


# What slurmstepd writes to the batch step's output before it signals (22.05 and 24.11 after "slurmstepd-n01: error:",
# 26.05 after a date). The one place in which Slurm tells a preemption from a requeue while the job still runs.
_STEPD = re.compile(r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+(?: DUE TO (?P<why>[^*]+?))? \*\*\*")
_STEPD_WHY = {
    "TIME LIMIT": "timeout",
    "PREEMPTION": "preemption",
    "JOB REQUEUE": "requeue",
    "NODE FAILURE": "node_failure",
    "": "user",
}


def told_by_stepd(text: str) -> str | None:
    """Why Slurm ends the job by slurmstepd's own words in the batch step's output; None when it has not said.

    >>> told_by_stepd("slurmstepd-n01: error: *** JOB 19 ON n01 CANCELLED AT 2026-11-23T10:57:00 DUE TO TIME LIMIT ***")
    'timeout'
    """
    found = list(_STEPD.finditer(text))
    why = (found[-1]["why"] or "").partition(",")[0].strip() if found else None
    return None if why is None else _STEPD_WHY.get(why)


def output_since(run_dir: Path, position: int) -> str:
    """What was written to the batch step's output since it was `position` bytes long; at most the last 64 KiB."""
    try:
        with (run_dir / OUTPUT).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(position, size - (64 << 10)))
            return stream.read(64 << 10).decode(errors="replace")
    except OSError:
        return ""


def output_size(run_dir: Path) -> int:
    """How long the batch step's output is; 0 when there is none."""
    try:
        return (run_dir / OUTPUT).stat().st_size
    except OSError:
        return 0


def ending_of(job: Job | None, run_dir: Path, *, attempt: int, told: str | None = None) -> str:
    """Why Slurm is ending this job: user, requeue, timeout, preemption or node_failure.

    Whoever cancels or requeues through us has left word. For the rest slurmstepd's words are the evidence (`told`), and
    where it could say none, Slurm's own state: while the job is COMPLETING that hides every other (seen on 22.05.8).
    """
    if intent.found(run_dir, intent.CANCEL) is not None:
        return "user"
    if intent.found(run_dir, intent.REQUEUE, attempt=attempt) is not None:
        return "requeue"
    if told is not None:
        return told
    if job is None:
        return "node_failure"
    if job.state == "TIMEOUT" or job.reason == "TimeLimit":
        return "timeout"
    if job.state == "PREEMPTED" or job.preempt_time is not None:
        return "preemption"
    if job.state == "COMPLETING" and job.restarts > attempt:
        # A requeue counts the restart at once.
        return "requeue"
    # CANCELLED by scancel; or still RUNNING, when somebody signalled the batch script by hand.
    return "user" if job.state in ("CANCELLED", "RUNNING") else "node_failure"


def asked_by(run_dir: Path, cause: str, *, attempt: int) -> dict[str, str]:
    """Who wanted a job's end or requeue, and their reason, for the record."""
    match cause:
        case "user":
            asked, key = intent.found(run_dir, intent.CANCEL), "cancelled_by"
        case "requeue":
            asked, key = intent.found(run_dir, intent.REQUEUE, attempt=attempt), "requeued_by"
        case _:
            return {}
    if asked is None:
        return {key: intent.NOT_BY_US}
    return {key: asked.by} | ({"reason": asked.reason} if asked.reason else {})


def notice_of(job: Job | None, *, lead_s: float, now: float, maintenance: bool = False) -> str:
    """Why SIGUSR2 came: preemption (with send_user_signal), timeout, maintenance, or requested by somebody.

    Args:
        job: What Slurm says of the job.
        lead_s: How long before the time limit Slurm warns.
        now: Epoch seconds.
        maintenance: A maintenance reservation has some of its nodes, now or soon.

    Slurm may send the warning before a time limit up to a minute before `lead_s`.
    """
    if job is not None and job.preempt_time is not None:
        return "preemption"
    if job is None or job.end_time is None or job.end_time - now <= lead_s + 90:
        return "timeout"
    return "maintenance" if maintenance else "requested"


MAINTENANCE_NEAR_S = 86400.0


def maintenance_of(job: Job | None, client: SlurmClient, *, now: float) -> tuple[bool, frozenset[str]]:
    """Whether a maintenance reservation holds some of a job's nodes, or will within a day; and the nodes of those that
    have begun. Raises SlurmError.
    """
    if job is None or not job.nodes:
        return False, frozenset()
    near = [one for one in client.reservations() if one.maintenance and one.nodes]
    near = [one for one in near if (one.start_time or 0.0) < now + MAINTENANCE_NEAR_S and (one.end_time or now) >= now]
    held = set(client.hostnames(job.nodes)) if near else set()
    common = [(one, held & set(client.hostnames(one.nodes))) for one in near]
    begun = [names for one, names in common if (one.start_time or 0.0) <= now]
    return any(names for _, names in common), frozenset().union(*begun)


def ask_for_job(job_id: int | str) -> Job | None:
    """This job as slurmctld sees it, or None when it does not say."""
    try:
        return Commands(timeout_s=5.0).job(job_id)
    except SlurmError:
        return None


class Inquiry:
    """A question to slurmctld that is under way: it may take seconds, in which heartbeats have to go on."""

    def __init__(self, job_id: int | str) -> None:
        self.job: Job | None = None
        """What Slurm said, once `done`; None when it said nothing."""
        self.maintenance = False
        """Some of its nodes are, or will soon be, in maintenance."""
        self.reserved: frozenset[str] = frozenset()
        """Those that are now."""
        self._thread = threading.Thread(target=self._ask, args=(job_id,), daemon=True)
        self._thread.start()

    def _ask(self, job_id: int | str) -> None:
        client = Commands(timeout_s=5.0)
        try:
            self.job = client.job(job_id)
            if self.job is not None and self.job.state == "RUNNING" and self.job.preempt_time is None:
                self.maintenance, self.reserved = maintenance_of(self.job, client, now=time.time())
        except SlurmError:
            pass

    @property
    def done(self) -> bool:
        """Whether there is an answer."""
        return not self._thread.is_alive()


def leave_requeuer(
    run_dir: Path,
    job_id: int | str,
    *,
    restarts: int,
    exclude: str,
    dead: Sequence[str],
    components: Sequence[int] = (),
    clear: bool = False,
    hold: bool = False,
) -> subprocess.Popen[bytes]:
    """Start the process that requeues this job and outlives it (`requeue`). What is returned ends once Slurm was asked.

    Args:
        run_dir: The job's folder.
        job_id: The job, or the leader of a heterogeneous one.
        restarts: Slurm's restart count.
        exclude: The job's whole ExcNodeList.
        dead: Nodes that will never say that they have cleaned up.
        components: The numbers of the other components.
        clear: Slurm has an ExcNodeList of which nothing is left.
        hold: Leave the job held.
    """
    order = {
        "job_id": job_id,
        "restarts": restarts,
        "exclude": exclude,
        "clear": clear,
        "hold": hold,
        "dead": list(dead),
        "components": list(components),
    }
    with (run_dir / "batch.out").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "trainmaster.launcher.supervise.requeue", str(run_dir), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def leave_shrinker(run_dir: Path, job_id: int | str, nodes: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the process that gives nodes of this job back to Slurm (`shrink`); it ends with 0 once they are."""
    with (run_dir / OUTPUT).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "trainmaster.launcher.supervise.shrink", str(job_id), ",".join(nodes)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
