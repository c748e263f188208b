"""What slurmdbd remembers: attempts of jobs (`sacct -D`) and what befell nodes (`sacctmgr show event`).

Rows are read as they come, so that millions of them need no memory. Standard library only.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from trainmaster.slurm.run import stream

FIELDS = (
    "JobIDRaw", "JobID", "User", "Partition", "State", "Submit", "Eligible", "Start", "End", "Suspended", "NNodes",
    "AllocTRES", "ReqTRES", "NodeList",
)  # fmt: skip
"""What is asked of sacct, in this order, separated by `|`; none of these can hold one."""
_EVENT_FIELDS = ("Cluster", "NodeName", "Start", "End", "State", "User", "TRES", "ClusterNodes", "Reason")
_DAY_S = 86400
# Seconds since the epoch: local times repeat an hour each autumn, and cost more to read than all the rest.
_TIME_FORMAT = {"SLURM_TIME_FORMAT": "%s"}
_GPUS = re.compile(r"(?:^|,)gres/gpu=(\d+)")
_NO_NODES = {"", "None assigned"}


class Row(NamedTuple):
    """One attempt of a job. A tuple and no dataclass: a month has a million of them. Times are epoch seconds."""

    job_id: int
    """The raw number; tasks of arrays and parts of heterogeneous jobs have their own."""
    shown: str
    """12, 12_3 or 12+1."""
    user: str
    partition: str
    state: str
    """Slurm's word, without who cancelled it."""
    submit_s: int | None
    """When it was submitted, or requeued: a requeue sets it anew."""
    eligible_s: int | None
    start_s: int | None
    end_s: int | None
    """None while it runs or waits, and for ever where slurmctld lost it."""
    suspended_s: int
    nodes: int
    gpus: int
    node_list: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent:
    """A time in which a node was not to be had, or in which the cluster had the size it had. Epoch seconds."""

    node: str
    """"" for an entry about the whole cluster."""
    start_s: int
    end_s: int | None
    """None when it lasts."""
    state: str = ""
    """DOWN*, DRAIN ...; "" for the cluster."""
    reason: str = ""
    user: str = ""
    node_count: int = 1
    gpus: int = 0
    nodes: str = ""
    """Of the cluster: its nodes, as a hostlist."""


def rows(lines: Iterable[str]) -> Iterator[Row]:
    """Attempts from lines of `sacct -D -X -P -n -o FIELDS`; steps, headings and what cannot be read are passed over."""
    width = len(FIELDS)
    for line in lines:
        parts = line.rstrip("\n").split("|")
        if len(parts) != width or not parts[0].isdecimal():
            continue
        number, shown, user, partition, state, submit, eligible, start, end, suspended, nodes, alloc, asked, names = (
            parts
        )
        try:
            times: tuple[int | None, ...] = (int(submit), int(eligible), int(start), int(end))
        except ValueError:  # Unknown, None
            times = tuple(int(text) if text.isdecimal() else None for text in (submit, eligible, start, end))
        submit_s, eligible_s, start_s, end_s = times
        nodes_n, gpus = _size(nodes, alloc or asked)
        yield Row(
            int(number),
            shown,
            user,
            partition,
            state if state.isalpha() else state.partition(" ")[0],
            submit_s,
            eligible_s,
            start_s,
            end_s,
            0 if suspended == "00:00:00" else duration_s(suspended),
            nodes_n,
            gpus,
            "" if names in _NO_NODES else names,
        )


@lru_cache(maxsize=65536)
def _size(nodes: str, tres: str) -> tuple[int, int]:
    found = _GPUS.search(tres)
    # 1.5K: sacct shortens large numbers of nodes.
    count = int(float(nodes[:-1]) * 1000) if nodes[-1:] == "K" else int(nodes) if nodes.isdecimal() else 0
    return count, int(found[1]) if found else 0


def duration_s(text: str) -> int:
    """Slurm's `[days-]hours:minutes:seconds`; 0 when it is none.

    >>> duration_s("1-02:03:04"), duration_s("00:05.123"), duration_s("INVALID")
    (93784, 5, 0)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?", text)
    if match is None:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * _DAY_S + hours * 3600 + minutes * 60 + seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which attempts are asked for. Epoch seconds; an empty tuple means all."""

    since_s: int
    until_s: int
    users: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    def wants(self, row: Row) -> bool:
        """Whether a row of a file, where sacct has not chosen, is one of those."""
        if (self.users and row.user not in self.users) or (self.partitions and row.partition not in self.partitions):
            return False
        if self.jobs and row.shown not in self.jobs and row.shown.partition("_")[0].partition("+")[0] not in self.jobs:
            return False
        begun_s = row.eligible_s or row.submit_s or 0
        return begun_s < self.until_s and (row.end_s is None or row.end_s >= self.since_s)


def attempts(question: Question, *, env: Mapping[str, str] | None = None, window_s: int = _DAY_S) -> Iterator[Row]:
    """Attempts out of slurmdbd, asked for a window at a time: sacct and slurmdbd hold a whole answer in memory.

    Each window brings the attempts that ended in it, the last one also those that have not; within a window they come
    by number, so those of one job, in different windows, are in the order of their ends.

    Raises SlurmError with sacct's words, where there are no accounts for one.
    """
    if question.jobs:
        # Of single jobs all is wanted; they are few.
        yield from rows(_sacct(question, None, None, env))
        return
    begin_s = question.since_s
    while begin_s < question.until_s:
        end_s = min(begin_s + window_s, question.until_s)
        last = end_s >= question.until_s
        for row in rows(_sacct(question, begin_s, end_s, env)):
            # Whoever ended before the first window touches it not; what ends after a window belongs to a later one.
            if last if row.end_s is None or row.end_s >= question.until_s else begin_s <= row.end_s < end_s:
                yield row
        begin_s = end_s


def _sacct(question: Question, begin_s: int | None, end_s: int | None, env: Mapping[str, str] | None) -> Iterator[str]:
    argv = ["sacct", "-D", "-X", "-P", "-n", "-o", ",".join(FIELDS)]
    if question.jobs:
        argv += ["-j", ",".join(question.jobs)]
    elif question.users:
        argv += ["-u", ",".join(question.users)]
    else:
        argv.append("--allusers")
    if question.partitions:
        argv += ["-r", ",".join(question.partitions)]
    if begin_s is not None and end_s is not None:
        argv += ["-S", _moment(begin_s), "-E", _moment(end_s)]
    return _asked(argv, env)


def _moment(epoch_s: int) -> str:
    # sacct takes seconds since the epoch as uts<seconds> (slurm_strftime's own form), whatever the time zone.
    return f"uts{epoch_s}"


def _asked(argv: Sequence[str], env: Mapping[str, str] | None) -> Iterator[str]:
    return stream(argv, env={**(os.environ if env is None else env), **_TIME_FORMAT})


def node_events(since_s: int, until_s: int, *, env: Mapping[str, str] | None = None) -> tuple[NodeEvent, ...]:
    """When which nodes were not to be had, and the cluster's size, the oldest first."""
    argv = ["sacctmgr", "-P", "-n", "show", "event", f"start={_moment(since_s)}", f"end={_moment(until_s)}"]
    return parse_events(_asked([*argv, f"format={','.join(_EVENT_FIELDS)}"], env))


def parse_events(lines: Iterable[str]) -> tuple[NodeEvent, ...]:
    """Events from lines of `sacctmgr -P -n show event`, in the order of their starts."""
    found = []
    for line in lines:
        parts = line.rstrip("\n").split("|", len(_EVENT_FIELDS) - 1)
        if len(parts) != len(_EVENT_FIELDS) or not parts[2].isdecimal():
            continue
        _, node, start, end, state, user, tres, nodes, reason = parts
        count = re.search(r"(?:^|,)node=(\d+)", tres)
        gpus = _GPUS.search(tres)
        found.append(
            NodeEvent(
                node=node,
                start_s=int(start),
                end_s=int(end) if end.isdecimal() else None,
                state=state,
                reason=reason,
                user=user.partition("(")[0],
                node_count=1 if node else int(count[1]) if count else 0,
                gpus=int(gpus[1]) if gpus else 0,
                nodes=nodes,
            )
        )
    return tuple(sorted(found, key=lambda event: (event.start_s, event.node)))
