"""What the controller remembers between two looks, as frozen values. Slurm stays the truth of everything Slurm knows.

States of a node (`NodeState`) and what moves it on:

    OK ── evidence ──> SUSPECT ── drained by us ──> QUARANTINING ── nothing runs there ──> QUARANTINED
    QUARANTINED ── verification starts ──> DIAGNOSING ── passed, resumed ──> PROBATION ── quiet for a day ──> OK
    DIAGNOSING ── failed ──> REPAIR ── a person releases it ──> DIAGNOSING
    any ── posterior of a lemon ──> LEMON ── a person releases it ──> DIAGNOSING
    any ── drained by somebody else ──> FOREIGN, which we look at and never touch
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from trainmaster.controller.maintenance.state import Maintenance


class NodeState(StrEnum):
    """Where a node stands with us."""

    OK = "OK"
    SUSPECT = "SUSPECT"
    QUARANTINING = "QUARANTINING"
    QUARANTINED = "QUARANTINED"
    DIAGNOSING = "DIAGNOSING"
    PROBATION = "PROBATION"
    REPAIR = "REPAIR"
    LEMON = "LEMON"
    FOREIGN = "FOREIGN"
    MAINTENANCE = "MAINTENANCE"
    """A train has it in hand; where it stands there is in `Memory.maintenance`."""


OURS = frozenset(
    {
        NodeState.MAINTENANCE,
        NodeState.QUARANTINING,
        NodeState.QUARANTINED,
        NodeState.DIAGNOSING,
        NodeState.REPAIR,
        NodeState.LEMON,
    }
)
"""States in which the node is out of service because of us."""


class Severity(StrEnum):
    """What a piece of evidence is worth."""

    FATAL = "fatal"
    """What runs there cannot go on."""
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Something seen that speaks against a node."""

    at: float
    kind: str
    """check, down, flap, node_fail, suspect, slurm, person."""
    what: str
    """In a few words; what it is told by comes first (`gpu.present: ...`)."""
    severity: Severity = Severity.LOW
    weight: float = 0.0
    """The share of one failure that it puts on this node: 1 over the number of suspects."""
    job_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """What is remembered of a node that is not simply healthy."""

    name: str
    state: NodeState = NodeState.OK
    since: float = 0.0
    why: str = ""
    reason: str = ""
    """The reason that we wrote into Slurm; "" unless the drain is ours."""
    drained_at: float | None = None
    """When our drain was seen to hold."""
    proof_at: float | None = None
    """When it last passed verification."""
    cause_at: float | None = None
    """When what it is to be drained for was first seen; None when there is nothing."""
    released: bool = False
    """A person has released it: it may be verified although it is a LEMON or in REPAIR."""
    ticketed: bool = False
    """Somebody was told that it needs hands."""
    ticket_tries: int = 0
    """How often that failed."""
    ticket_at: float = 0.0
    """When it last failed."""
    busy_s: float = 0.0
    """Time under jobs since its probation began."""
    was_down: bool = False
    falls: tuple[float, ...] = ()
    """When it was seen to go down, of the last day."""
    evidence: tuple[Evidence, ...] = ()
    """The last few pieces, newest last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One end of an attempt after which the job came back into the queue."""

    at: float
    restarts: int
    """Slurm's restart count after it."""
    cause: str
    """node_fail, check, suspect, launch, preempted, unknown."""
    ran_s: float = 0.0
    blamed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A node that a job does without for a while."""

    node: str
    until: float
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What is remembered of a job that came back, or that we are about to bring back."""

    job_id: int
    restarts: int = 0
    seen_at: float = 0.0
    tries: tuple[Try, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    ours_before: tuple[str, ...] = ()
    """Nodes that we put into its ExcNodeList; the others there are its owner's."""
    signalled_at: float | None = None
    """When it was asked to save, in this attempt."""
    requeued_at: float | None = None
    """When Slurm last said yes to a requeue of ours; None once the job was seen to come back."""
    released: int = -1
    """The restart count at which we let it start without Slurm's delay."""
    held: str = ""
    """Why we hold it; "" when we do not."""
    last_nodes: str = ""
    """A hostlist: what its last attempt had."""
    last_start: float = 0.0
    """When that began, by Slurm's clock."""
    priority: int = 0
    """What its last attempt had."""
    kept_for: int = -1
    """The last attempt whose nodes were to be kept for it, whether or not that went well."""
    blast: tuple[tuple[float, float], ...] = ()
    """When, and how many node-hours, other jobs lost to its starts after requeues."""

    @property
    def awaited(self) -> bool:
        """Whether it waits for us to let it start."""
        return bool(self.tries) and self.released < self.tries[-1].restarts and not self.held


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Failures attributed to a node, forgotten by and by."""

    weight: float = 0.0
    at: float = 0.0
    """When the weight was reckoned."""
    incident_at: float = -1e12
    incident_weight: float = 0.0
    """The last failure: a drain, a lost job and a report of it are one failure and not three."""
    incidents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A node that left service by somebody's or something's word; the breaker counts these."""

    at: float
    node: str
    cause: str
    by: str
    """us, health, slurm or other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job as it was when it last had nodes: Slurm forgets them when the attempt ends."""

    job_id: int
    restarts: int
    start_time: float
    nodes: str
    seen_at: float = 0.0
    """When it was first seen there, by our own clock."""
    priority: int = 0
    """What it had when it started: Slurm takes the age out of it at a requeue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Everything that is remembered."""

    at: float = 0.0
    """When the last look was taken in; 0 for never."""
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    jobs: Mapping[int, JobRecord] = field(default_factory=dict)
    blame: Mapping[str, Blame] = field(default_factory=dict)
    exposure_days: Mapping[str, float] = field(default_factory=dict)
    """Days under jobs, forgotten at the same rate as blame."""
    exposure_at: float = 0.0
    drains: tuple[Drain, ...] = ()
    running: Mapping[int, Running] = field(default_factory=dict)
    open_targets: frozenset[str] = frozenset()
    """What an unfinished intent is about: `node:n01`, `job:7`. Nobody plans anything else there meanwhile."""
    kept: tuple[str, ...] = ()
    """Names of reservations of ours in which a job's nodes are kept, as far as is known."""
    ended: frozenset[int] = frozenset()
    """Jobs of the last look that are over."""
    maintenance: Maintenance = field(default_factory=Maintenance)


def put_nodes(memory: Memory, records: Iterable[NodeRecord]) -> Memory:
    """With these records in place of older ones; healthy nodes of which there is nothing to tell are forgotten."""
    nodes = dict(memory.nodes)
    for record in records:
        if nodes.get(record.name) is record:
            continue
        if record.state is NodeState.OK and not record.evidence and not record.falls:
            nodes.pop(record.name, None)
        else:
            nodes[record.name] = record
    return replace(memory, nodes=nodes)


def put_job(memory: Memory, record: JobRecord) -> Memory:
    """With this record in place of an older one."""
    return replace(memory, jobs={**memory.jobs, record.job_id: record})
