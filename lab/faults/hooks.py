"""A node's prolog or epilog fails, as it does when a health check in it finds something.

The lab's prolog and epilog exit 1 on a node while its folder holds the file fail-prolog or fail-epilog.
"""

from functools import partial

from trainmaster.lab.faults.fault import Fault, Injected, Options, Target, nodes_of
from trainmaster.lab.faults.service import resume_if
from trainmaster.lab.running import Lab

# The Reason that slurmctld gives a node whose hook failed (Slurm 22.05.8).
_REASON = {"prolog": "Prolog error", "epilog": "Epilog error"}


def _fail(hook: str, lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    if options.dry_run:
        return _injected(f"{hook}-fail", target, f"would have the {hook} of {', '.join(names)} exit 1")
    for name in names:
        (lab.folder / "nodes" / name / f"fail-{hook}").touch()
    return _injected(f"{hook}-fail", target, f"the {hook} of {', '.join(names)} exits 1 from now on")


def _mend(hook: str, lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    if options.dry_run:
        return _injected(f"{hook}-mend", target, f"would have the {hook} of {', '.join(names)} succeed again")
    for name in names:
        (lab.folder / "nodes" / name / f"fail-{hook}").unlink(missing_ok=True)
    # Only a drain that this very fault caused is lifted; another's stays.
    resumed = resume_if(lab, names, lambda node: node.reason.startswith(_REASON[hook]))
    how = f"; resumed {', '.join(resumed)}" if resumed else ""
    return _injected(f"{hook}-mend", target, f"the {hook} of {', '.join(names)} succeeds again{how}")


def _injected(fault: str, target: str, summary: str) -> Injected:
    return Injected(fault=fault, target=target, summary=summary)


PROLOG_FAIL = Fault(
    name="prolog-fail",
    help="the node's prolog fails: Slurm drains the node and requeues the job held",
    target=Target.NODES,
    inject=partial(_fail, "prolog"),
)
PROLOG_MEND = Fault(
    name="prolog-mend",
    help="the node's prolog succeeds again; a drain with Reason `Prolog error` is lifted",
    target=Target.NODES,
    inject=partial(_mend, "prolog"),
)
EPILOG_FAIL = Fault(
    name="epilog-fail",
    help="the node's epilog fails: Slurm drains the node after the job",
    target=Target.NODES,
    inject=partial(_fail, "epilog"),
)
EPILOG_MEND = Fault(
    name="epilog-mend",
    help="the node's epilog succeeds again; a drain with Reason `Epilog error` is lifted",
    target=Target.NODES,
    inject=partial(_mend, "epilog"),
)
