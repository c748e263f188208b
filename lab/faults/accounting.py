"""Accounting is away: slurmdbd and its database have ended, and come back with all that they had."""

import signal

from trainmaster.errors import LabError
from trainmaster.lab import accounting, daemons, files, processes
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target
from trainmaster.lab.running import Lab

# slurmdbd dies; the database ends cleanly, since a lab's does not write for a power cut.
_HOW = {"slurmdbd": signal.SIGKILL, "mariadbd": signal.SIGTERM}


def _down(lab: Lab, target: str, options: Options) -> Injected:
    running = [lab.process(role) for role in _HOW if daemons.running(lab.process(role))]
    if not running:
        raise LabError("accounting is down already", hint="accounting-up starts it")
    pids = tuple(one.pid for one in running)
    if options.dry_run:
        return Injected(fault="accounting-down", target="", summary=f"would end {pids}", pids=pids)
    for one in running:
        process = processes.look(one.pid)
        if process is not None and process.start_time == one.start_time:
            processes.send(process, _HOW[one.role])
            processes.wait_gone([process], timeout_s=60.0)
    return Injected(fault="accounting-down", target="", summary="ended slurmdbd and its database", pids=pids)


def _up(lab: Lab, target: str, options: Options) -> Injected:
    if any(daemons.running(lab.process(role)) for role in _HOW):
        raise LabError("accounting is up", hint="accounting-down ends it")
    if options.dry_run:
        return Injected(fault="accounting-up", target="", summary="would start slurmdbd and its database", pids=())
    env = daemons.environment(folder=lab.folder, conf=lab.conf, node_name=None)
    accounting.start(files.site_of(lab.state), env=env, keep=lab.keep)
    pids = tuple(lab.process(role).pid for role in _HOW)
    return Injected(fault="accounting-up", target="", summary="started slurmdbd and its database", pids=pids)


FAULTS = (
    Fault(
        name="accounting-down",
        help="slurmdbd is killed and its database ends, until accounting-up; needs --accounting",
        target=Target.NOTHING,
        inject=_down,
    ),
    Fault(
        name="accounting-up",
        help="slurmdbd and its database start again, with all that they had",
        target=Target.NOTHING,
        inject=_up,
    ),
)
