"""One rank of a job crashes, or hangs."""

import re
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from trainmaster.errors import LabError, UsageError
from trainmaster.lab import processes
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target
from trainmaster.lab.processes import Process
from trainmaster.lab.running import Lab
from trainmaster.slurm.commands import Commands

_DEADLY = {"KILL": signal.SIGKILL, "SEGV": signal.SIGSEGV, "ABRT": signal.SIGABRT}


def parse_target(target: str) -> tuple[str, int]:
    """The job and the rank of "JOB:RANK"; rank 0 when only the job is named. A task of an array is "17_2".

    >>> parse_target("17:3"), parse_target("17_2")
    (('17', 3), ('17_2', 0))
    """
    job, colon, rank = target.partition(":")
    if not re.fullmatch(r"\d+(_\d+)?", job) or (colon and not rank.isdecimal()):
        raise UsageError(f"{target!r} is not JOB or JOB:RANK", hint="for example 17:3, rank 3 of job 17")
    return job, int(rank or "0")


def topmost(found: Iterable[Process]) -> list[Process]:
    """Those whose parent is not among them: a rank, without the data loaders that inherited its environment."""
    found = list(found)
    pids = {process.pid for process in found}
    return [process for process in found if process.parent not in pids]


def by_environment(running: Mapping[int, Process], *, conf: Path, job_id: int, rank: int) -> tuple[Process, ...]:
    """The processes that were executed as this rank of this job of this lab."""
    found = []
    for process in running.values():
        environment = processes.environ(process.pid)
        if (
            environment.get("RANK") == str(rank)
            and environment.get("SLURM_JOB_ID") == str(job_id)
            and environment.get("SLURM_CONF") == str(conf)
        ):
            found.append(process)
    return tuple(topmost(found))


def by_pid_file(running: Mapping[int, Process], *, run_dir: Path, rank: int) -> tuple[Process, ...]:
    """The process that the rank's agent wrote down; ranks forked from a server don't show their own environment.

    The agent writes "<pid> <start time> <node>" to attempt<a>.<c>/rank<r>.pid. A node in a pid namespace knows its
    processes by other numbers than we do, so the start time finds the process and its own idea of its pid confirms it.
    """
    for path in run_dir.glob(f"attempt*/rank{rank}.pid"):
        words = path.read_text(encoding="utf-8").split()
        if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
            continue
        for process in running.values():
            if process.start_time == int(words[1]) and processes.own_pid(process.pid) == int(words[0]):
                return (process,)
    return ()


def locate(lab: Lab, target: str, options: Options) -> Process:
    """The one running process that is the target's rank; LabError when there is none, or more than one."""
    name, rank = parse_target(target)
    job_id = _number(lab, name)
    running = processes.snapshot()
    found = by_environment(running, conf=lab.conf, job_id=job_id, rank=rank)
    if not found:
        run_dir = options.run_dir or _run_dir(lab, job_id)
        found = by_pid_file(running, run_dir=run_dir, rank=rank)
    if not found:
        raise LabError(
            f"no process of rank {rank} of job {job_id} was found",
            hint="a rank shows RANK and SLURM_JOB_ID in its environment, or its agent wrote rank<r>.pid",
        )
    if len(found) > 1:
        raise LabError(
            f"rank {rank} of job {job_id} could be any of the processes {[process.pid for process in found]}"
        )
    return found[0]


def _number(lab: Lab, name: str) -> int:
    """Slurm's number of a job, which its processes have in their environment: that of a task is not its array's."""
    if name.isdecimal():
        return int(name)
    job = Commands(env=lab.env).job(name)
    if job is None:
        raise UsageError(f"Slurm knows no job {name}", hint="`squeue` lists the jobs of the lab")
    return job.job_id


def _run_dir(lab: Lab, job_id: int) -> Path:
    """The folder that holds the job's batch.out, which is where the launcher keeps the run."""
    job = Commands(env=lab.env).job(job_id)
    if job is None:
        raise UsageError(f"Slurm knows no job {job_id}", hint="`squeue` lists the jobs of the lab")
    return Path(job.std_out).parent


def _crash(lab: Lab, target: str, options: Options) -> Injected:
    name = (options.signal or "KILL").removeprefix("SIG")
    if name not in _DEADLY:
        raise UsageError(f"a rank does not crash by {options.signal!r}", hint=f"signal is one of {', '.join(_DEADLY)}")
    process = locate(lab, target, options)
    if options.dry_run:
        return _injected("rank-crash", target, f"would send SIG{name} to {process.pid}", process)
    sent_epoch_s = time.time()
    processes.send(process, _DEADLY[name])
    return replace(_injected("rank-crash", target, f"sent SIG{name} to {process.pid}", process), epoch_s=sent_epoch_s)


def _hang(lab: Lab, target: str, options: Options) -> Injected:
    process = locate(lab, target, options)
    if options.dry_run:
        return _injected("rank-hang", target, f"would stop {process.pid}", process)
    processes.send(process, signal.SIGSTOP)
    return _injected("rank-hang", target, f"stopped {process.pid}", process)


def _resume(lab: Lab, target: str, options: Options) -> Injected:
    process = locate(lab, target, options)
    if process.state != "T":
        raise LabError(f"rank process {process.pid} is not stopped; its state is {process.state}")
    if options.dry_run:
        return _injected("rank-resume", target, f"would continue {process.pid}", process)
    processes.send(process, signal.SIGCONT)
    return _injected("rank-resume", target, f"continued {process.pid}", process)


def _injected(fault: str, target: str, summary: str, process: Process) -> Injected:
    return Injected(fault=fault, target=target, summary=summary, pids=(process.pid,))


CRASH = Fault(
    name="rank-crash",
    help="one rank's process dies by a signal (KILL, SEGV or ABRT); the job's other processes are left alone",
    target=Target.RANK,
    inject=_crash,
    options=("signal", "run_dir"),
)
HANG = Fault(
    name="rank-hang",
    help="one rank's process stops (SIGSTOP), as if it were stuck in a system call",
    target=Target.RANK,
    inject=_hang,
    options=("run_dir",),
)
RESUME = Fault(
    name="rank-resume",
    help="a hung rank goes on (SIGCONT)",
    target=Target.RANK,
    inject=_resume,
    options=("run_dir",),
)
