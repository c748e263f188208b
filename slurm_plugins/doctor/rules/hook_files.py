"""The files that the configuration names, as this machine sees them; the nodes should see the same."""

import re
from collections.abc import Iterator
from pathlib import Path

from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity
from trainmaster.slurm_plugins.doctor.rules.hooks import HOOKS

PROGRAMS = (*HOOKS, "PrologSlurmctld", "EpilogSlurmctld", "RebootProgram")
"""The settings whose files are looked at."""

# A command of Slurm that asks slurmctld, where a command may stand in a shell script.
_ASKS = re.compile(
    r"(?:^|[;&|(`]|\b(?:if|elif|while|until|then|else|do|exec))\s*(?:/\S*/)?"
    r"(scontrol|sinfo|squeue|sacct|sacctmgr|scancel|sbatch|srun)\b",
    re.MULTILINE,
)


def _gone(facts: Facts) -> Iterator[Hit]:
    for key in PROGRAMS:
        file = facts.files.get(key.lower())
        if file is not None and not file.there:
            yield Hit(seen=f"{key}={file.path}, which is not there", mend=f"put it there, or take {key} out")


def _not_executable(facts: Facts) -> Iterator[Hit]:
    for key in PROGRAMS:
        file = facts.files.get(key.lower())
        if file is not None and file.there and not file.executable:
            yield Hit(seen=f"{key}={file.path} cannot be executed", mend=f"chmod 755 {file.path}")


def _writable(facts: Facts) -> Iterator[Hit]:
    for key in (*PROGRAMS, "slurm_conf"):
        file = facts.files.get(key.lower())
        if file is not None and file.there and file.writable:
            yield Hit(seen=f"{file.path}: {file.writable}", mend=f"chown root and chmod go-w, up to / from {file.path}")


def _foreign(facts: Facts) -> Iterator[Hit]:
    for key, name in HOOKS.items():
        file = facts.files.get(key.lower())
        if file is not None and file.there and not (Path(file.path).name == name and file.site):
            yield Hit(
                seen=f"{key}={file.path} is not our {name}",
                mend=f"call <prefix>/hooks/{name} from it, or put that in its place (`trainmaster install hooks`)",
            )


def _no_checks(facts: Facts) -> Iterator[Hit]:
    for key, name in HOOKS.items():
        file = facts.files.get(key.lower())
        if file is not None and file.there and Path(file.path).name == name and file.site and not file.checks:
            prefix = Path(file.path).parent.parent
            yield Hit(seen=f"no checks below {prefix}/lib/current", mend=f"trainmaster install hooks --prefix {prefix}")
            return


def _asks_slurm(facts: Facts) -> Iterator[Hit]:
    for key in ("Prolog", "Epilog", "TaskProlog"):
        file = facts.files.get(key.lower())
        found = _ASKS.search(re.sub(r"(?m)(^|\s)#.*", "", file.text)) if file is not None else None
        if file is not None and found is not None:
            yield Hit(
                seen=f"{key}={file.path} calls {found[1]}",
                mend="leave it to the HealthCheckProgram, or call it only when a node is to be drained",
            )


RULES = (
    Rule(
        id="hook-gone", severity=Severity.FAULT, setting="Prolog and the like",
        why="a prolog or epilog that cannot be run counts as failed, and Slurm drains every node that a job comes to",
        source="slurm.conf(5), Prolog; seen on 22.05.8", check=_gone,
    ),
    Rule(
        id="hook-not-executable", severity=Severity.FAULT, setting="Prolog and the like",
        why="a prolog or epilog that cannot be run counts as failed, and Slurm drains every node that a job comes to",
        source="slurm.conf(5), Prolog; seen on 22.05.8", check=_not_executable,
    ),
    Rule(
        id="hook-writable", severity=Severity.FAULT, setting="Prolog and the like",
        why="Slurm runs it as root: who may write it, or a folder above it, is root on every node",
        source="slurm.conf(5), Prolog", check=_writable,
    ),
    Rule(
        id="hook-foreign", severity=Severity.ADVICE, setting="Prolog and the like",
        why="another program stands where our hook would: our checks do not run there unless it calls them",
        source="docs/install-health.md", check=_foreign,
    ),
    Rule(
        id="hook-without-checks", severity=Severity.FAULT, setting="trainmaster install hooks",
        why="the hooks find no checks to start and end well without having looked",
        source="slurm_plugins/hooks", check=_no_checks,
    ),
    Rule(
        id="hook-asks-slurm", severity=Severity.ADVICE, setting="Prolog and the like",
        why="a job on thousands of nodes asks slurmctld thousands of times at once, and every prolog waits",
        source="slurm.conf(5), Prolog and Epilog Scripts", check=_asks_slurm,
    ),
)  # fmt: skip
