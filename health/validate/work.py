"""The reservation, the jobs and the lifted drains of a validation: how they begin, and how they are taken back.

Whatever ends it, its jobs are cancelled, drains that were lifted stand again, and its reservation is gone; what SIGKILL
leaves behind, the jobs put back themselves and a later validation removes.
"""

import logging
import math
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import SlurmError, SlurmUnreachable
from trainmaster.health.deep import job as deep_job
from trainmaster.health.deep import task as tasks
from trainmaster.health.deep.task import Task
from trainmaster.health.validate.choose import Choice, Kind
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Node

LOG = logging.getLogger("trainmaster.validate")
HELD_BACK_S = 60
"""A job that waits for drains to be lifted starts by itself after so long, should nobody tell it to."""
POLL_S = 0.5
SILENT_S = 90.0
"""Longer than network file systems keep what they know of a file (60 s)."""
_CANCEL_S = 45.0


class CannotValidate(SlurmError):
    """Nothing could be looked at. Exit code 3: nothing is known of the nodes."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller may choose."""

    folder: Path
    """All nodes see it."""
    python: str
    """On the nodes."""
    user: str
    """Whose jobs may run in the reservation."""
    partition: str = ""
    within: str = ""
    """A reservation of somebody else's to be used; none is made then."""
    keep_reservation: bool = False
    means: Callable[[Kind], tuple[str, ...]] = lambda kind: ()
    set: str = "deep"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    root: str = ""
    profile: str = ""
    limit_s: float = 600.0
    wait_s: float = 300.0
    """How long a job may wait for its start."""
    pair_s: float = 0.5
    act: bool = True
    drains_max: int | None = None


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is going to be done."""

    choice: Choice
    groups: tuple[Kind, ...]


@dataclass(slots=True, kw_only=True)
class Group:
    """One kind's job."""

    kind: Kind
    folder: Path
    job_id: int = 0
    started: bool = False
    over: bool = False
    beat: tuple[str, float] = ("", 0.0)
    """What the file that changes said last, and since when (monotonic)."""
    silent: bool = False
    """Its first node is gone: Slurm lets a job run on without its batch step, for ever."""


class Work:
    """What has to be taken back in the end."""

    def __init__(self, client: Commands, found: Plan, options: Options, name: str, groups: Sequence[Group]) -> None:
        self._client, self._found, self._options = client, found, options
        self._name, self._groups = name, groups
        self._reserved = False
        self._lifted: dict[str, str] = {}

    @property
    def _minutes(self) -> int:
        """Of a job: each part twice, and what starting them takes."""
        parts = 1 + max(len(self._options.means(group.kind)) for group in self._groups)
        return math.ceil((2 * parts * (self._options.limit_s + 30) + 60) / 60)

    def begin(self) -> None:
        """Reserve, submit, and only then lift the drains: the jobs put them back, whatever becomes of us."""
        names = [name for group in self._groups for name in group.kind.names]
        if not self._options.within:
            minutes = self._minutes + math.ceil(self._options.wait_s / 60) + 5
            try:
                self._client.create_reservation(
                    self._name,
                    StartTime="now",
                    Duration=str(minutes),
                    Nodes=",".join(names),
                    Users=self._options.user,
                )
            except SlurmUnreachable:
                raise
            except SlurmError as error:
                hint = "validate is for admins: root, SlurmUser or an operator"
                if "busy" in error.message or "overlaps" in error.message:
                    hint = "somebody took one of the nodes just now, or another validation has it; try again"
                raise CannotValidate(f"could not reserve {','.join(names)}: {error.message}", hint=hint) from None
            self._reserved = True
        for group in self._groups:
            self._submit(group)
        for node, reason in self._found.choice.lifts.items():
            now = self._client.nodes(node)[0]
            if "DRAIN" in now.state and now.reason == reason:
                self._lifted[node] = reason
                self._client.update_nodes(node, State="RESUME")
        for group in self._groups:
            if set(group.kind.names) & set(self._lifted):
                self._try_update(group.job_id, StartTime="now")

    def _try_update(self, job_id: int, **fields: str) -> None:
        try:
            self._client.update_job(job_id, **fields)
        except SlurmError as error:
            LOG.info("job %d waits a little longer: %s", job_id, error.message)

    def _submit(self, group: Group) -> None:
        kind, options = group.kind, self._options
        lifted = {name: self._found.choice.lifts[name] for name in kind.names if name in self._found.choice.lifts}
        group.folder.mkdir(parents=True)
        tasks.write(
            str(group.folder),
            Task(
                nodes=kind.names,
                addresses={node.name: _address(node) for node in kind.nodes},
                means=options.means(kind),
                set=options.set,
                only=options.only,
                skip=options.skip,
                root=options.root,
                profile=options.profile,
                limit_s=options.limit_s,
                pair_s=options.pair_s,
                python=options.python,
                gpus=kind.gpus,
                lifted=lifted,
            ),
        )
        script = f"#!/bin/sh\nexec '{options.python}' '{deep_job.__file__}' '{group.folder}'\n"
        count = len(kind.names)
        args = [f"--job-name={self._name}", f"--partition={kind.partition}", f"--nodelist={','.join(kind.names)}"]
        args += [f"--nodes={count}", "--ntasks-per-node=1", "--exclusive", "--mem=0", "--no-requeue", "--no-kill"]
        args += [f"--time={self._minutes}", f"--output={group.folder}/job.out", f"--chdir={group.folder}"]
        args += [f"--reservation={options.within or self._name}"]
        args += [f"--gres=gpu:{kind.gpus}"] if kind.gpus else []
        args += [f"--begin=now+{HELD_BACK_S}"] if lifted else []
        group.job_id = self._client.submit(script, args=args)

    def wait(self) -> None:
        """Until all jobs are over, or have had their time."""
        end_s = time.monotonic() + self._options.wait_s
        while waiting := [group for group in self._groups if not group.over]:
            for group in waiting:
                self._look(group, late=time.monotonic() > end_s)
            time.sleep(POLL_S)

    def _look(self, group: Group, *, late: bool) -> None:
        if (group.folder / tasks.ENDED).exists():
            group.over = True
            return
        try:
            job = self._client.job(group.job_id)
        except SlurmUnreachable as error:
            LOG.warning("slurmctld does not answer, the nodes go on: %s", error.message)
            return
        if job is None or not job.active:
            # What was written last may take a moment to be seen here.
            time.sleep(POLL_S)
            group.started = group.started or (group.folder / "job.out").exists()
            group.over = True
        elif job.state == "RUNNING" and not group.started:
            group.started = True
            self.put_back(group.kind.names)
        elif group.started and self._silent(group):
            LOG.warning("job %d: its first node %s says nothing any more", group.job_id, group.kind.names[0])
            group.over = group.silent = True
        elif late and not group.started:
            LOG.warning("job %d did not start in %.0f s (%s)", group.job_id, self._options.wait_s, job.reason)
            self._client.cancel(group.job_id)
            group.over = True

    def _silent(self, group: Group) -> bool:
        try:
            said = (group.folder / tasks.ALIVE).read_text()
        except OSError:
            said = ""
        now = time.monotonic()
        if not group.beat[1] or said != group.beat[0]:
            group.beat = (said, now)
        return now - group.beat[1] > SILENT_S

    def put_back(self, names: Sequence[str] | None = None) -> None:
        """Drain again what was lifted and is not drained, with the reason that it had."""
        for node in [node for node in self._lifted if names is None or node in names]:
            try:
                if "DRAIN" not in self._client.nodes(node)[0].state:
                    self._client.update_nodes(node, State="DRAIN", Reason=self._lifted[node])
                del self._lifted[node]
            except SlurmError as error:
                LOG.warning("could not drain %s again: %s", node, error.message)

    def end(self) -> None:
        """Cancel, put back, give back."""
        end_s = time.monotonic() + _CANCEL_S
        for group in self._groups:
            self._finish(group, end_s)
        self.put_back()
        while self._reserved and not self._options.keep_reservation:
            try:
                self._client.delete_reservation(self._name)
                self._reserved = False
            except SlurmError as error:
                if time.monotonic() > end_s:
                    LOG.warning("the reservation %s stays until the next validation: %s", self._name, error.message)
                    break
                time.sleep(POLL_S)
        for group in self._groups:
            shutil.rmtree(group.folder, ignore_errors=True)

    def _finish(self, group: Group, end_s: float) -> None:
        while group.job_id:
            try:
                job = self._client.job(group.job_id)
                if job is None or not job.active:
                    return
                if job.state != "COMPLETING":
                    self._client.cancel(group.job_id)
            except SlurmError as error:
                LOG.info("job %d: %s", group.job_id, error.message)
            if time.monotonic() > end_s:
                return
            time.sleep(POLL_S)


def _address(node: Node) -> str:
    name = node.address or node.name
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return name
