"""A cluster that exists in numbers: its nodes and one job, seen and changed through Slurm's own values and rules."""

import random
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from trainmaster.controller import snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job, Node

JOB_ID = 1
PARTITION = "batch"
_IDLE: dict[str, Node] = {}


@dataclass(slots=True)
class Fleet:
    """Nodes by name, which of them are bad, and the job's place."""

    size: int
    job_size: int
    delay_s: float
    nodes: dict[str, Node] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    troubled: set[str] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)
    """Nodes on which the job fails again, whoever knows it."""
    place: list[str] = field(default_factory=list)
    """The job's nodes, of this attempt or the last."""
    placed: dict[str, int] = field(default_factory=dict)
    spares: set[str] = field(default_factory=set)
    held: frozenset[str] = frozenset()
    job: Job = field(default_factory=lambda: Job(job_id=JOB_ID, state="PENDING", partition=PARTITION))

    def __post_init__(self) -> None:
        self.names = [f"n{number:06}" for number in range(1, self.size + 1)]
        self.nodes = {name: Node(name=name, state="IDLE", partitions=(PARTITION,)) for name in self.names}
        self.place = self.names[: self.job_size]
        self.placed = {name: index for index, name in enumerate(self.place)}
        self.spares = set(self.names[self.job_size :])
        self.job = replace(self.job, node_count=self.job_size)

    def look(self, now: float) -> Snapshot:
        """What the controller would be shown."""
        running = self.job.state == "RUNNING"
        return Snapshot(
            at=now,
            nodes=self.nodes,
            troubled=frozenset(self.troubled),
            jobs={JOB_ID: self.job},
            holders={JOB_ID: self.held} if running else {},
            partition_size={PARTITION: self.size},
            expand=self.expand,
        )

    def expand(self, hostlist: str) -> Collection[str]:
        """The job's place has a name of its own: to fold and unfold thousands of names would be all that is done."""
        return self.held if hostlist.startswith("attempt") else snapshot.members(hostlist)

    # What happens to nodes.

    def set(self, name: str, *, state: str, reason: str = "") -> None:
        """A node's state in Slurm."""
        self.nodes[name] = replace(self.nodes[name], state=state, reason=reason)
        if state == "IDLE" and not reason:
            self.troubled.discard(name)
        else:
            self.troubled.add(name)

    def drain(self, name: str, reason: str) -> None:
        """Somebody drains a node that nobody has drained."""
        if not snapshot.drained(self.nodes[name]):
            base = "DOWN" if snapshot.down(self.nodes[name]) else "IDLE"
            self.set(name, state=f"{base}+DRAIN", reason=reason)

    def usable(self, name: str) -> bool:
        """Whether Slurm may give it to the job."""
        return name not in self.troubled or snapshot.in_service(self.nodes[name])

    # What happens to the job.

    def end(self, now: float, *, requeued: bool) -> None:
        """The attempt is over."""
        if requeued:
            self.job = replace(
                self.job,
                state="PENDING",
                reason="BeginTime",
                nodes="",
                restarts=self.job.restarts + 1,
                submit_time=now,
                eligible_time=now + self.delay_s,
                start_time=None,
            )
        else:
            self.job = replace(self.job, state="FAILED", reason="NonZeroExitCode", nodes="", start_time=None)

    def resubmit(self, now: float) -> None:
        """A person lets it start again."""
        self.job = replace(self.job, state="PENDING", reason="", submit_time=now, eligible_time=now)

    def start(self, now: float, rng: random.Random) -> bool:
        """Give the job its nodes, those of before where they are to be had; False when there are too few."""
        excluded = snapshot.members(self.job.excluded_nodes)
        unfit = [name for name in self.troubled | excluded if name in self.placed]
        unfit = sorted(name for name in unfit if name in excluded or not self.usable(name))
        if unfit:
            free = sorted(name for name in self.spares if self.usable(name) and name not in excluded)
            if len(free) < len(unfit):
                return False
            for name, new in zip(unfit, rng.sample(free, len(unfit)), strict=True):
                index = self.placed.pop(name)
                self.place[index] = new
                self.placed[new] = index
                self.spares.discard(new)
                self.spares.add(name)
        if unfit or not self.held:
            self.held = frozenset(self.place)
        self.job = replace(self.job, state="RUNNING", reason="", nodes=f"attempt{self.job.restarts}", start_time=now)
        return True

    def bad_in_place(self) -> int:
        """How many of the job's nodes are bad."""
        return sum(1 for name in self.bad if name in self.placed)

    def apply(self, act: Act, now: float) -> None:
        """An act of the controller, as Slurm would do it."""
        if act.kind is Kind.DRAIN:
            for name in act.nodes:
                self.drain(name, act.reason)
        elif act.kind is Kind.RESUME:
            for name in act.nodes:
                self.set(name, state="IDLE")
        elif act.kind is Kind.RELEASE:
            excluded = self.job.excluded_nodes if act.exclude is None else ",".join(act.exclude)
            self.job = replace(self.job, reason="", eligible_time=now, excluded_nodes=excluded)
        elif act.kind is Kind.HOLD:
            self.job = replace(self.job, reason="JobHeldUser")
        elif act.kind is Kind.REQUEUE:
            self.end(now, requeued=True)
