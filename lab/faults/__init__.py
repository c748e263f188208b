"""The faults that can be injected into a lab. A new one is a Fault in one file and a line in FAULTS.

>>> [fault.name for fault in FAULTS][:2]
['node-death', 'node-freeze']
"""

import os
from dataclasses import fields
from typing import Any

from trainmaster.errors import LabError, UsageError
from trainmaster.lab.faults import accounting, cable, health, hooks, ib, node, rank, slow, slurmctld
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target
from trainmaster.lab.running import Lab

__all__ = ["FAULTS", "Fault", "Injected", "Options", "Target", "find", "inject"]

FAULTS: tuple[Fault, ...] = (
    node.DEATH,
    node.FREEZE,
    node.THAW,
    node.RETURN,
    slow.SLOW,
    slow.FAST,
    cable.POWER_LOSS,
    cable.CUT,
    cable.MEND,
    rank.CRASH,
    rank.HANG,
    rank.RESUME,
    hooks.PROLOG_FAIL,
    hooks.PROLOG_MEND,
    hooks.EPILOG_FAIL,
    hooks.EPILOG_MEND,
    *health.FAULTS,
    *ib.FAULTS,
    slurmctld.RESTART,
    slurmctld.FREEZE,
    slurmctld.THAW,
    *accounting.FAULTS,
)


def find(name: str) -> Fault:
    """The fault of this name; UsageError with all names if there is none."""
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise UsageError(f"there is no fault {name!r}", hint=f"the faults are {', '.join(fault.name for fault in FAULTS)}")


def inject(lab: Lab, name: str, target: str = "", **options: Any) -> Injected:
    """Break the lab: `inject(lab, "node-death", "n03")`, `inject(lab, "rank-crash", "17:2", signal="SEGV")`.

    Args:
        lab: a lab that is up.
        name: a fault of FAULTS.
        target: what the fault's `target` says: nodes, a job's rank, or nothing.
        options: fields of Options that the fault takes, and dry_run.

    Raises:
        UsageError: no such fault, target or option.
        LabError: the fault could not be done, or was not seen to work.
    """
    fault = find(name)
    known = {field.name for field in fields(Options)}
    refused = sorted(set(options) - ({*fault.options, "dry_run"} & known))
    if refused:
        takes = ", ".join(fault.options) or "no options"
        raise UsageError(f"{name} does not take {', '.join(refused)}", hint=f"it takes {takes}")
    if bool(target) != bool(fault.target):
        expected = f"a target: {fault.target}" if fault.target else "no target"
        raise UsageError(f"{name} takes {expected}; it was given {target!r}")
    if fault.needs_root and os.geteuid() != 0:
        raise LabError(f"{name} needs root", hint="start the lab with sudo, with its nodes in network namespaces")
    return fault.inject(lab, target, Options(**options))
