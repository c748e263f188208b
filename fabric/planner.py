"""One pass of planning ahead: asks Slurm, works out the places, writes the look-up file, tells waiting jobs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainmaster.errors import FabricError, SlurmError
from trainmaster.fabric import lookup
from trainmaster.fabric.foresight import Foresight, foresee, labels
from trainmaster.fabric.queue_view import view_of
from trainmaster.fabric.replace import replace
from trainmaster.fabric.tree import Tree
from trainmaster.slurm.values import Job, Node

LENIENT = "ignore_prefer_validation"
"""What SchedulerParameters must have, lest a preference that cannot be met costs anybody a job (slurm.conf(5))."""
UPDATES_MAX = 50
"""Waiting jobs that are told in one pass, the next ones first: each is a request to slurmctld."""


class Slurm(Protocol):
    """What of the Slurm client is used (`slurm/commands.py`)."""

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        """All nodes."""

    def config(self) -> dict[str, str]:
        """What slurmctld runs with."""

    def all_jobs(self) -> tuple[Job, ...]:
        """All jobs, with what they ask for."""

    def update_job(self, job_id: int | str, **fields: str) -> None:
        """Change a job."""

    def release(self, job_id: int | str) -> None:
        """Let a held job start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A waiting job and the preference that it gets; "" takes it away."""

    job_id: int
    prefer: str
    release: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pass found."""

    foresight: Foresight
    labels: tuple[str, ...]
    told: tuple[Told, ...]
    text: str
    remarks: tuple[str, ...]


def plan(tree: Tree, nodes: Sequence[Node], jobs: Sequence[Job], *, now: float, valid_s: float, tell: bool) -> Plan:
    """Work it out. Pure.

    Args:
        tree: the fabric.
        nodes: of Slurm.
        jobs: of Slurm, all.
        now: when Slurm was asked, seconds since the epoch.
        valid_s: how long the file may be relied on.
        tell: whether waiting jobs will be told.
    """
    names = labels(tree, {node.name: frozenset(node.features) for node in nodes})
    view = view_of(nodes, jobs, names)
    seen = foresee(tree, view.parts, view.waiting, view.busy)
    wanted = {place.job_id: lookup.preference(place.pods, names) if place.pods else "" for place in seen.places}
    told = [Told(job_id=job_id, prefer="", release=held) for job_id, held in view.spoilt.items()]
    told += [
        Told(job_id=job_id, prefer=prefer)
        for job_id, prefer in wanted.items()
        if job_id in view.prefer and prefer != view.prefer[job_id]
    ]
    remarks = list(view.remarks)
    if bare := [pod for pod, name in zip(tree.pods, names, strict=True) if not name]:
        remarks.append(
            f"no feature stands for {', '.join(bare[:4])}{' and others' if len(bare) > 4 else ''}: "
            "jobs cannot be told to prefer them (`trainmaster fabric plan --labels`)"
        )
    ours = view.ours | ({one.job_id for one in told} if tell else set())
    text = lookup.text(seen, names, made=now, expires=now + valid_s, ours=ours)
    return Plan(foresight=seen, labels=names, told=tuple(told[:UPDATES_MAX]), text=text, remarks=tuple(remarks))


def one_pass(tree: Tree, client: Slurm, *, valid_s: float, output: Path | None, tell: bool) -> Plan:
    """Ask, plan, write and, if wanted, tell. Raises FabricError or SlurmError; single jobs that cannot be told are
    skipped, since they may have started meanwhile.

    Args:
        tree: the fabric.
        client: Slurm.
        valid_s: how long the file may be relied on.
        output: where the file goes; None: nowhere.
        tell: whether waiting jobs are given their preference.
    """
    if output is not None and LENIENT not in client.config().get("SchedulerParameters", "").split(","):
        raise FabricError(
            "slurmctld would refuse a job whose preference it does not know, and features go when slurm.conf changes",
            hint=f"add {LENIENT} to SchedulerParameters in slurm.conf, then `scontrol reconfigure`",
        )
    now = time.time()
    found = plan(tree, client.nodes(), client.all_jobs(), now=now, valid_s=valid_s, tell=tell)
    if output is not None:
        try:
            # /run is empty after a reboot.
            output.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise FabricError(f"{output.parent} cannot be made: {error.strerror}") from None
        replace(output, found.text)
    for told in found.told if tell else ():
        try:
            client.update_job(told.job_id, Prefer=told.prefer)
            if told.release:
                client.release(told.job_id)
        except SlurmError:
            continue
    return found
