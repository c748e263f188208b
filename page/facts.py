"""What is shown, as frozen values made of one look at Slurm and the controller's memory. Pure.

Every node is in exactly one `Look`, the one that an admin would name first: of a dead node that is drained, that it is
dead; of a node that a train has rebooted, that the train has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from trainmaster.controller import snapshot
from trainmaster.controller.memory import OURS, Memory, NodeRecord, NodeState
from trainmaster.controller.snapshot import Snapshot
from trainmaster.fabric.model import natural
from trainmaster.page.tracks import Line, TrainFact
from trainmaster.slurm.values import Job, Node

JOBS_MAX = 2000
"""Jobs that are listed; how many there are is told with them."""


class Look(StrEnum):
    """How a node is shown."""

    BUSY = "busy"
    FREE = "free"
    WATCHED = "watched"
    TRAIN = "train"
    OURS = "ours"
    OTHERS = "others"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFact:
    """One node."""

    name: str
    look: Look
    slurm: str
    """Slurm's own word, as IDLE or DOWN*."""
    state: str = NodeState.OK.value
    """Where it stands with the controller."""
    why: str = ""
    since: float = 0.0
    jobs: tuple[int, ...] = ()
    stage: str = ""
    """Where it stands in a maintenance train; "" in none."""
    links: float = 1.0
    """1 where all its links are sound, 0 without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """The nodes under one leaf switch, and how sound its rails are."""

    name: str
    nodes: tuple[str, ...]
    rails: tuple[int, ...] = ()
    """By rail, how many of its links are not sound; () where no fabric was read."""
    uplinks: int = 0
    """Links upwards that are not sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Leaves that the next tier joins; "" where only leaves are known."""

    name: str
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a fabric adds to Slurm's own word."""

    pods: tuple[Pod, ...] = ()
    links: Mapping[str, float] = field(default_factory=dict)
    """By node, how sound its links are; those that are not listed are sound."""
    source: str = ""
    at: float = 0.0
    """When it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFact:
    """One job in the list."""

    job_id: int
    name: str
    user: str
    partition: str
    state: str
    nodes: int
    start: float | None
    restarts: int
    note: str = ""
    """What the controller has to say: held, waits, came back how often and why last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the feed: something that was decided or seen, and why."""

    number: int
    at: float
    kind: str
    """node, job, train or reservation."""
    name: str
    what: str
    why: str
    tone: str
    """good, bad, held (proposed, refused) or plain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What follows from this look by the site's own policy, if the controller acts on it."""

    kind: str
    targets: tuple[str, ...]
    """Nodes by their names; what is no node as "job 12"."""
    why: str
    train: str = ""
    """On whose account."""
    refused: str = ""
    """The rule that stands in the way; "" when it will be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything on the page but the lives of single nodes and jobs."""

    cluster: str
    at: float
    """When Slurm answered; 0 for never."""
    controller_at: float
    """When the controller last looked; 0 when there is no journal, or nothing in it."""
    tick_s: float
    """How often the controller means to look."""
    every_s: float = 2.0
    """How often the page does."""
    trouble: str = ""
    """Why this look is not newer: what Slurm said instead."""
    pods: tuple[Pod, ...] = ()
    wiring: str = ""
    """Where rails and links come from; "" when only Slurm's topology is known."""
    nodes: Mapping[str, NodeFact] = field(default_factory=dict)
    jobs: tuple[JobFact, ...] = ()
    jobs_total: int = 0
    feed: tuple[Entry, ...] = ()
    """The newest first."""
    trains: tuple[TrainFact, ...] = ()
    lines: tuple[Line, ...] = ()
    next: tuple[Next, ...] = ()
    trips: tuple[str, ...] = ()
    """Why the breaker stops drains."""


def spoken(target: str) -> str:
    """A target of an act as it is shown.

    >>> spoken("node:n02"), spoken("job:12")
    ('n02', 'job 12')
    """
    kind, _, name = target.partition(":")
    return name if kind == "node" else f"{kind} {name}"


def counts(facts: Facts) -> dict[str, int]:
    """Nodes by how they are shown, all kinds named."""
    found = dict.fromkeys((look.value for look in Look), 0)
    for node in facts.nodes.values():
        found[node.look.value] += 1
    return found


def nodes_of(look: Snapshot, memory: Memory, wiring: Wiring) -> dict[str, NodeFact]:
    """Every node of a look, in natural order."""
    jobs: dict[str, list[int]] = {}
    for job_id in sorted(look.holders):
        for name in look.holders[job_id]:
            jobs.setdefault(name, []).append(job_id)
    return {
        name: node_of(look.nodes[name], memory, tuple(jobs.get(name, ())), wiring.links.get(name, 1.0))
        for name in sorted(look.nodes, key=lambda name: (natural(name), name))
    }


def node_of(node: Node, memory: Memory, jobs: tuple[int, ...], links: float = 1.0) -> NodeFact:
    """One node.

    >>> node_of(Node(name="n1", state="ALLOCATED"), Memory(), (7,)).look.value
    'busy'
    >>> node_of(Node(name="n1", state="DOWN*+DRAIN", reason="Not responding"), Memory(), ()).look.value
    'down'
    """
    record = memory.nodes.get(node.name)
    host = memory.maintenance.hosts.get(node.name)
    return NodeFact(
        name=node.name,
        look=_look(node, record, in_train=host is not None, busy=bool(jobs)),
        slurm=node.state,
        state=record.state.value if record is not None else NodeState.OK.value,
        why=_why(node, record) if host is None else f"train {host.train}, {host.stage.value.lower()}",
        since=host.since if host is not None else record.since if record is not None else 0.0,
        jobs=jobs,
        stage=host.stage.value if host is not None else "",
        links=round(links, 3),
    )


def _look(node: Node, record: NodeRecord | None, *, in_train: bool, busy: bool) -> Look:
    if in_train:
        return Look.TRAIN
    if snapshot.silent(node):
        return Look.DOWN
    if not snapshot.in_service(node):
        return Look.OURS if record is not None and record.state in OURS else Look.OTHERS
    if record is not None and record.state in (NodeState.SUSPECT, NodeState.PROBATION):
        return Look.WATCHED
    return Look.BUSY if busy or not snapshot.at_rest(node) else Look.FREE


def _why(node: Node, record: NodeRecord | None) -> str:
    """The controller's own words where it has some to say about how the node stands; else Slurm's reason."""
    if record is not None and record.state is not NodeState.OK and record.why:
        return record.why
    return node.reason


def pods_of(look: Snapshot, wiring: Wiring) -> tuple[Pod, ...]:
    """Where nodes stand: by the fabric if it knows any, or by Slurm's leaf switches; what it does not know is last."""
    known = {name for pod in wiring.pods for leaf in pod.leaves for name in leaf.nodes}
    if known & look.nodes.keys():
        pods = [_present(pod, look) for pod in wiring.pods]
        left = sorted(look.nodes.keys() - known, key=natural)
        pods += [Pod(name="not in the fabric", leaves=(Leaf(name="", nodes=tuple(left)),))] if left else []
        return tuple(pod for pod in pods if pod.leaves)
    leaves: dict[str, list[str]] = {}
    for name in sorted(look.nodes, key=lambda name: (natural(name), name)):
        leaves.setdefault(look.leaf_of.get(name, ""), []).append(name)
    order = sorted(leaves, key=lambda leaf: (leaf == "", natural(leaves[leaf][0])))
    return (Pod(name="", leaves=tuple(Leaf(name=leaf, nodes=tuple(leaves[leaf])) for leaf in order)),)


def _present(pod: Pod, look: Snapshot) -> Pod:
    """A pod with the nodes that Slurm has."""
    found = []
    for leaf in pod.leaves:
        nodes = tuple(name for name in leaf.nodes if name in look.nodes)
        if nodes:
            found.append(Leaf(name=leaf.name, nodes=nodes, rails=leaf.rails, uplinks=leaf.uplinks))
    return Pod(name=pod.name, leaves=tuple(found))


_ORDER = {"RUNNING": 0, "COMPLETING": 1, "CONFIGURING": 1, "PENDING": 2}


def jobs_of(look: Snapshot, memory: Memory) -> tuple[tuple[JobFact, ...], int]:
    """Those that run first, by size, then those that wait; and how many there are in all."""
    every = sorted(look.jobs.values(), key=lambda job: (_ORDER.get(job.state, 3), -job.node_count, job.job_id))
    return tuple(_job(job, memory, look) for job in every[:JOBS_MAX]), len(every)


def _job(job: Job, memory: Memory, look: Snapshot) -> JobFact:
    return JobFact(
        job_id=job.job_id,
        name=job.name,
        user=job.user,
        partition=job.partition,
        state=job.state,
        nodes=len(look.holders.get(job.job_id, ())) or job.node_count,
        start=job.start_time,
        restarts=job.restarts,
        note=note_of(job, memory),
    )


def note_of(job: Job, memory: Memory) -> str:
    """What the controller has to say of a job, in a few words."""
    record = memory.jobs.get(job.job_id)
    if record is None or not record.tries:
        return job.reason if job.state == "PENDING" and job.reason not in ("", "None") else ""
    times = f"back {len(record.tries)} time{'s' if len(record.tries) > 1 else ''}, last: {record.tries[-1].cause}"
    if record.held:
        return f"held: {record.held}"
    return f"{times}; waits for its start" if record.awaited else times


def tone_of(what: str) -> str:
    """How a line of the feed is coloured.

    >>> [tone_of(what) for what in ("drain done", "resume done", "requeue proposed", "OK -> PROBATION")]
    ['bad', 'good', 'held', 'plain']
    """
    if what.endswith((" proposed", " refused")) or what == "refused" or what == "paused":
        return "held"
    if what.endswith(" abandoned") or what.startswith(("evidence: ", "came back", "drain ", "hold ", "quarantine")):
        return "bad"
    target = what.rpartition(" -> ")[2]
    if target in ("FOREIGN", "LEMON", "REPAIR", "QUARANTINING", "SUSPECT", "FAILED"):
        return "bad"
    good = ("resume", "release", "verify done", "through", "resumed")
    return "good" if what.startswith(good) or target in ("OK", "DONE") else "plain"


def entries(rows: Sequence[tuple[int, float, str, str, str]]) -> tuple[Entry, ...]:
    """Lines of the feed, of rows of the journal: number, when, subject, what, detail."""
    found = []
    for number, at, subject, what, detail in rows:
        kind, _, name = subject.partition(":")
        found.append(Entry(number=number, at=at, kind=kind, name=name, what=what, why=detail, tone=tone_of(what)))
    return tuple(found)
