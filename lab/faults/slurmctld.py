"""The controller restarts, or does not answer for a while."""

import signal
import time

from trainmaster.errors import LabError, UsageError
from trainmaster.lab import processes
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target
from trainmaster.lab.processes import Process
from trainmaster.lab.running import Lab

_STOP = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL}


def _daemon(lab: Lab) -> Process:
    process = processes.look(lab.slurmctld.pid)
    if process is None or process.start_time != lab.slurmctld.start_time or process.state in "ZX":
        raise LabError("slurmctld does not run", hint="slurmctld-restart starts it")
    return process


def _restart(lab: Lab, target: str, options: Options) -> Injected:
    name = (options.signal or "TERM").removeprefix("SIG")
    if name not in _STOP:
        raise UsageError(f"slurmctld is not restarted by {options.signal!r}", hint="signal is TERM (clean) or KILL")
    process = _daemon(lab)
    if options.dry_run:
        return _injected("slurmctld-restart", f"would end {process.pid} by SIG{name} and start it again", process)
    processes.send(process, _STOP[name])
    # It saves its state before it ends.
    processes.wait_gone([process], timeout_s=60.0)
    lab.start_slurmctld()
    return _injected("slurmctld-restart", f"ended {process.pid} by SIG{name}, started {lab.slurmctld.pid}", process)


def _freeze(lab: Lab, target: str, options: Options) -> Injected:
    process = _daemon(lab)
    if options.dry_run:
        return _injected("slurmctld-freeze", f"would stop {process.pid}", process)
    processes.send(process, signal.SIGSTOP)
    if options.seconds is None:
        return _injected("slurmctld-freeze", f"stopped {process.pid} until slurmctld-thaw", process)
    time.sleep(options.seconds)
    processes.send(process, signal.SIGCONT)
    return _injected("slurmctld-freeze", f"stopped {process.pid} for {options.seconds:g} s", process)


def _thaw(lab: Lab, target: str, options: Options) -> Injected:
    process = _daemon(lab)
    if process.state != "T":
        raise LabError(f"slurmctld is not frozen; the state of process {process.pid} is {process.state}")
    if options.dry_run:
        return _injected("slurmctld-thaw", f"would continue {process.pid}", process)
    processes.send(process, signal.SIGCONT)
    return _injected("slurmctld-thaw", f"continued {process.pid}", process)


def _injected(fault: str, summary: str, process: Process) -> Injected:
    return Injected(fault=fault, target="", summary=summary, pids=(process.pid,))


RESTART = Fault(
    name="slurmctld-restart",
    help="the controller ends (signal=KILL: crashes) and starts again from its saved state",
    target=Target.NOTHING,
    inject=_restart,
    options=("signal",),
)
FREEZE = Fault(
    name="slurmctld-freeze",
    help="the controller stops answering (SIGSTOP), for so many seconds or until slurmctld-thaw",
    target=Target.NOTHING,
    inject=_freeze,
    options=("seconds",),
)
THAW = Fault(
    name="slurmctld-thaw",
    help="a frozen controller answers again (SIGCONT)",
    target=Target.NOTHING,
    inject=_thaw,
)
