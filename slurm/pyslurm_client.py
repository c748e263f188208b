"""The client that asks pyslurm for nodes and jobs, in a child process, and the commands for all the rest.

A segmentation fault in pyslurm or libslurm is a SlurmError here, and the caller lives on. Standard library only.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainmaster.errors import SlurmError
from trainmaster.slurm import pyslurm_values, versions
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Job, Node

_CHILD = (sys.executable, "-m", "trainmaster.slurm.pyslurm_child")

ADAPTORS = ("commands", "pyslurm", "auto")
"""What `open_client` may be asked for."""


class PyslurmClient(Commands):
    """Nodes and jobs by pyslurm; of a job, `prefer` stays empty. `open_client` knows whether pyslurm fits."""

    def _ask(self, question: str, *args: str) -> Any:
        text = self._run(*_CHILD, question, *args).stdout
        try:
            return json.loads(text)
        except ValueError:
            raise SlurmError(f"pyslurm was asked for {question}; it printed {text[:80]!r} where JSON was due") from None

    def pyslurm_version(self) -> str:
        """Of the pyslurm that is importable here; raises SlurmError where none is."""
        return str(self._ask("release"))

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        """`pyslurm.Nodes`; a name that is not there is refused, as scontrol does."""
        found = tuple(pyslurm_values.node(fields) for fields in self._ask("nodes"))
        if not names:
            return found
        wanted = set(self.hostnames(names))
        if missing := wanted - {node.name for node in found}:
            raise SlurmError(f"could not show node {','.join(sorted(missing))}: Slurm knows of no such node")
        return tuple(node for node in found if node.name in wanted)

    def jobs(self, *, user: str | None = None) -> tuple[Job, ...]:
        """The jobs of `pyslurm.Jobs` that are not over."""
        return tuple(job for job in self._known_jobs() if job.active and user in (None, job.user))

    def _known_jobs(self, *args: str, exclusions_of: Callable[[Job], bool] = lambda job: True) -> tuple[Job, ...]:
        # pyslurm tells what jobs exclude without a further question.
        number, one, task = args[-1].partition("_") if args else ("", "", "")
        now = time.time()
        asked = self._ask("jobs", *([number.partition("+")[0]] if number else []))
        jobs = tuple(pyslurm_values.job(fields, now=now) for fields in asked)
        return tuple(job for job in jobs if job.array_tasks == task) if one else jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A client, and why it is this one."""

    client: Commands
    why: str


def open_client(adaptor: str = "commands", *, env: Mapping[str, str] | None = None, timeout_s: float = 30.0) -> Opened:
    """The client that was asked for. `auto` takes pyslurm where one of Slurm's own release is importable.

    `pyslurm` raises SlurmError, and says what was found, where it does not fit; so does a name that is none.
    """
    if adaptor not in ADAPTORS:
        raise SlurmError(f"could not open a client {adaptor!r}", hint=f"one of {', '.join(ADAPTORS)}")
    commands = Commands(env=env, timeout_s=timeout_s)
    if adaptor == "commands":
        return Opened(client=commands, why="the commands were asked for")
    client = PyslurmClient(env=env, timeout_s=timeout_s)
    why_not, found = "", ""
    try:
        found = client.pyslurm_version()
        why_not = mismatch(found, commands.version())
    except SlurmError as error:
        why_not = error.message
    if not why_not:
        return Opened(client=client, why=f"pyslurm {found} fits Slurm here")
    if adaptor == "pyslurm":
        raise SlurmError(
            f"could not use pyslurm: {why_not}",
            hint='say client = "commands", or "auto", or install the pyslurm of Slurm\'s own release for this Python',
        )
    return Opened(client=commands, why=f"the commands, since pyslurm does not serve: {why_not}")


def mismatch(pyslurm: str, slurm: str) -> str:
    """Why this pyslurm cannot speak to this Slurm; "" when it can. Both have to be of one release.

    >>> mismatch("22.5.3", "slurm-wlm 22.05.8"), mismatch("25.11.2", "slurm 24.11.5")
    ('', 'pyslurm 25.11.2 is for Slurm 25.11, and here is slurm 24.11.5')
    """
    theirs, ours = versions.release(pyslurm), versions.release(slurm)
    return "" if theirs == ours else f"pyslurm {pyslurm} is for Slurm {versions.name(theirs)}, and here is {slurm}"
