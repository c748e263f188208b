"""What a small cluster never notices and thousands of nodes do."""

from collections.abc import Iterator

from trainmaster.slurm_plugins.doctor.facts import Facts
from trainmaster.slurm_plugins.doctor.rule import Hit, Rule, Severity

LARGE = 1000
_HOPS_MAX = 3


def hops(nodes: int, width: int) -> int:
    """Over how many steps a message reaches all nodes.

    >>> hops(16, 16), hops(17, 16), hops(4368, 16), hops(4369, 16)
    (1, 2, 3, 4)
    """
    reached, level, count = 0, 1, 0
    while reached < nodes and count < 99:
        level *= max(width, 1)
        reached += level
        count += 1
    return count


def _deep(facts: Facts) -> Iterator[Hit]:
    width, nodes = facts.number("TreeWidth") or 16, facts.node_count
    if nodes and hops(nodes, width) > _HOPS_MAX:
        wide = next(one for one in range(width, 1 << 16) if hops(nodes, one) <= _HOPS_MAX)
        yield Hit(seen=f"TreeWidth={width}, {nodes} nodes: {hops(nodes, width)} hops", mend=f"TreeWidth={wide}")


def _wide(facts: Facts) -> Iterator[Hit]:
    width, nodes = facts.number("TreeWidth") or 16, facts.node_count
    if nodes >= 500 and width >= nodes:
        yield Hit(seen=f"TreeWidth={width}, {nodes} nodes", mend="TreeWidth=64")


def _impatient(facts: Facts) -> Iterator[Hit]:
    timeout_s = facts.number("MessageTimeout") or 10
    if facts.node_count >= LARGE and timeout_s < 30:
        yield Hit(seen=f"{facts.shown('MessageTimeout')}, {facts.node_count} nodes", mend="MessageTimeout=60")


def _too_patient(facts: Facts) -> Iterator[Hit]:
    timeout_s = facts.number("MessageTimeout") or 10
    if timeout_s > 100:
        yield Hit(seen=facts.shown("MessageTimeout"), mend="MessageTimeout=100")


def _connect(facts: Facts) -> Iterator[Hit]:
    timeout_s = facts.number("TCPTimeout") or 2
    if facts.node_count >= LARGE and timeout_s < 5:
        yield Hit(seen=f"{facts.shown('TCPTimeout')}, {facts.node_count} nodes", mend="TCPTimeout=10")


def _munged(facts: Facts) -> Iterator[Hit]:
    if facts.node_count >= LARGE and facts.munge_threads is not None and facts.munge_threads < 10:
        yield Hit(
            seen=f"munged with {facts.munge_threads} threads", mend='OPTIONS="--num-threads=10" in /etc/default/munge'
        )


def _array(facts: Facts) -> Iterator[Hit]:
    tasks, jobs = facts.number("MaxArraySize") or 1001, facts.number("MaxJobCount") or 10000
    if tasks > jobs:
        yield Hit(seen=f"MaxArraySize={tasks} MaxJobCount={jobs}", mend=f"MaxJobCount={4 * tasks}")


def _forgets(facts: Facts) -> Iterator[Hit]:
    age_s = facts.number("MinJobAge")
    if age_s is not None and 0 < age_s < 60:
        yield Hit(seen=facts.shown("MinJobAge"), mend="MinJobAge=300")


def _remembers_all(facts: Facts) -> Iterator[Hit]:
    if facts.number("MinJobAge") == 0:
        yield Hit(seen=facts.shown("MinJobAge"), mend="MinJobAge=300")


_LOUD = ("debug2", "debug3", "debug4", "debug5")


def _loud(facts: Facts) -> Iterator[Hit]:
    for key in ("SlurmctldDebug", "SlurmdDebug"):
        if facts.text(key).lower() in _LOUD or facts.text(key) in ("6", "7", "8", "9"):
            yield Hit(seen=facts.shown(key), mend=f"{key}=info")


def _flags(facts: Facts) -> Iterator[Hit]:
    if facts.words("DebugFlags"):
        yield Hit(seen=facts.shown("DebugFlags"), mend="take DebugFlags out, `scontrol setdebugflags -…` meanwhile")


RULES = (
    Rule(
        id="tree-deep", severity=Severity.ADVICE, setting="TreeWidth",
        why="a message to all nodes goes over four hops and more, and waits at each for those that are dead",
        source="slurm.conf(5), TreeWidth", check=_deep,
    ),
    Rule(
        id="tree-flat", severity=Severity.ADVICE, setting="TreeWidth",
        why="slurmctld speaks with each node itself: a ping of all is thousands of connections from one machine",
        source="slurm.conf(5), TreeWidth", check=_wide,
    ),
    Rule(
        id="message-timeout-short", severity=Severity.ADVICE, setting="MessageTimeout",
        why="launches over a thousand nodes and bursts of registrations take longer than 10 s, and then fail",
        source="slurm.conf(5), MessageTimeout; Slurm's big system guide", check=_impatient,
    ),
    Rule(
        id="message-timeout-long", severity=Severity.ADVICE, setting="MessageTimeout",
        why="each message to a dead node is waited for so long, and UnkillableStepTimeout has to be five times it",
        source="slurm.conf(5), MessageTimeout and UnkillableStepTimeout", check=_too_patient,
    ),
    Rule(
        id="tcp-timeout-short", severity=Severity.ADVICE, setting="TCPTimeout",
        why="when thousands of nodes speak at once a connection takes longer than 2 s, and nodes seem dead",
        source="slurm.conf(5), TCPTimeout; Slurm's big system guide", check=_connect,
    ),
    Rule(
        id="munge-threads", severity=Severity.ADVICE, setting="/etc/default/munge",
        why="munged decodes each message's credential with two threads, which a wide launch outruns",
        source="Slurm's high throughput guide; seen with 2,048 nodes on 22.05.8", check=_munged,
    ),
    Rule(
        id="array-over-jobs", severity=Severity.FAULT, setting="MaxJobCount",
        why="an array as large as is allowed does not fit into the queue, and then nobody can submit",
        source="slurm.conf(5), MaxArraySize", check=_array,
    ),
    Rule(
        id="job-age-short", severity=Severity.ADVICE, setting="MinJobAge",
        why="slurmctld forgets how a job ended before those who wait for it have asked",
        source="slurm.conf(5), MinJobAge", check=_forgets, real_nodes=True,
    ),
    Rule(
        id="job-age-endless", severity=Severity.FAULT, setting="MinJobAge",
        why="0 keeps every job in slurmctld's memory, until MaxJobCount is reached and nobody can submit",
        source="slurm.conf(5), MinJobAge", check=_remembers_all,
    ),
    Rule(
        id="debug-loud", severity=Severity.ADVICE, setting="SlurmctldDebug",
        why="slurmctld writes its log under its locks: so much of it slows down every command",
        source="slurm.conf(5), SlurmctldDebug", check=_loud,
    ),
    Rule(
        id="debug-flags", severity=Severity.ADVICE, setting="DebugFlags",
        why="what was switched on to look for something was left on, and costs time in slurmctld",
        source="slurm.conf(5), DebugFlags", check=_flags,
    ),
)  # fmt: skip
