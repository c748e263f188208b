"""Looks at the cluster: two commands, a third while a job is on its way back. And the one door for acts."""

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import structs

from trainmaster.controller import snapshot
from trainmaster.controller.parts import merged
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job, Node, Reservation

_CGROUP_PATIENCE_S = 3.0


class Door(Protocol):
    """What the controller asks of Slurm; `slurm.commands.Commands` does it. Any may raise SlurmError."""

    def nodes(self, names: str = "") -> tuple[Node, ...]:
        """All nodes, or those of a hostlist."""

    def all_jobs(self, *, exclusions_of: Callable[[Job], bool] = ...) -> tuple[Job, ...]:
        """Every job that slurmctld knows; `excluded_nodes` at least of those that are asked for."""

    def job(self, job_id: int | str) -> Job | None:
        """One job."""

    def parts(self, job_id: int) -> tuple[Job, ...]:
        """The parts of a heterogeneous job."""

    def reservations(self) -> tuple[Reservation, ...]:
        """All reservations."""

    def create_reservation(self, name: str, **fields: str) -> None:
        """Keep nodes for somebody."""

    def delete_reservation(self, name: str) -> None:
        """Give them back."""

    def config(self) -> dict[str, str]:
        """What slurmctld runs with."""

    def leaves(self) -> dict[str, str]:
        """By hostlist, the leaf switch."""

    def update_nodes(self, names: str, **fields: str) -> None:
        """Change a hostlist of nodes in one call."""

    def update_job(self, job_id: int | str, **fields: str) -> None:
        """Change a job."""

    def requeue(self, job_id: int | str, *, incomplete: bool = True, hold: bool = False) -> None:
        """Put a job back into the queue."""

    def hold(self, job_id: int | str) -> None:
        """Keep a job in the queue."""

    def release(self, job_id: int | str) -> None:
        """Let a held job start."""

    def cancel(self, job_id: int | str, *, signal: str | None = None) -> None:
        """Only ever with a signal."""

    def signal(self, job_id: int | str, name: str) -> None:
        """To the batch step alone."""

    def update_reservation(self, name: str, **fields: str) -> None:
        """Keep others."""

    def reboot(self, names: str, *, reason: str) -> None:
        """Reboot a hostlist of nodes; they come back DOWN."""


def leaf_of(door: Door) -> dict[str, str]:
    """By node, its leaf switch. Asked once: a topology does not change under a running slurmctld."""
    return {name: leaf for hostlist, leaf in door.leaves().items() for name in snapshot.members(hostlist)}


def fitted(policy: Policy, door: Door) -> Policy:
    """The policy, with what follows from how this cluster is set up. Raises SlurmError."""
    requeue = policy.requeue
    if requeue.supervised_patience_s is None and door.config().get("ProctrackType") == "proctrack/cgroup":
        # What a launcher leaves behind to release its job dies with the job there.
        requeue = structs.replace(requeue, supervised_patience_s=_CGROUP_PATIENCE_S)
    return structs.replace(policy, requeue=requeue)


def booted(door: Door) -> str:
    """When slurmctld was started, in its own words. Raises SlurmError."""
    return door.config().get("BOOT_TIME", "")


def look(door: Door, *, now: float, leaf_of: Mapping[str, str], reservations: bool = False) -> Snapshot:
    """One look. Raises SlurmError when slurmctld does not answer; then nothing is decided."""
    # The time from before asking: a view is as old as its oldest part.
    # Jobs first: of one that has just lost its node, the node's state has to be known already.
    jobs = door.all_jobs(exclusions_of=_on_its_way_back)
    nodes = door.nodes()
    reserved = door.reservations() if reservations else ()
    return snapshot.of(at=now, nodes=nodes, jobs=jobs, reservations=reserved, leaf_of=leaf_of)


def _on_its_way_back(job: Job) -> bool:
    """Whether it may be let start again, without some nodes: of others nobody here asks what they exclude."""
    return job.restarts > 0 and job.active and job.state not in ("RUNNING", "SUSPENDED")


def again(
    door: Door, old: Snapshot, *, nodes: tuple[str, ...] = (), job_id: int = 0, reservations: bool = False
) -> Snapshot:
    """The same view with some of its nodes, one job, or the reservations looked at again, as before each act."""
    by_name = dict(old.nodes)
    jobs, holders = dict(old.jobs), dict(old.holders)
    troubled = set(old.troubled)
    if nodes:
        for node in door.nodes(snapshot.fold(nodes)):
            by_name[node.name] = node
            if node.reason or not snapshot.in_service(node):
                troubled.add(node.name)
            else:
                troubled.discard(node.name)
    parts = dict(old.parts)
    if job_id:
        asked = old.jobs.get(job_id)
        if parts.pop(job_id, ()):
            fresh, parts_now = merged(door.parts(job_id))
            job, parts = fresh.get(job_id), parts | parts_now
        else:
            job = door.job(snapshot.full_id(asked) if asked is not None else job_id)
        jobs.pop(job_id, None)
        holders.pop(job_id, None)
        if job is not None:
            jobs[job_id] = job
            if snapshot.holds_nodes(job):
                holders[job_id] = snapshot.members(job.nodes)
    return Snapshot(
        at=old.at,
        nodes=by_name,
        troubled=frozenset(troubled),
        jobs=jobs,
        holders=holders,
        partition_size=old.partition_size,
        reservations=door.reservations() if reservations else old.reservations,
        restarted=old.restarted,
        leaf_of=old.leaf_of,
        expand=old.expand,
        parts=parts,
    )
