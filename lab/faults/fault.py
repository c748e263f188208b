"""What a fault is: a name, what it may be aimed at, and the function that does it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from trainmaster.errors import UsageError
from trainmaster.lab.running import Lab


class Target(StrEnum):
    """What the word after a fault's name means."""

    NODES = "NODE[,NODE...]"
    RANK = "JOB[:RANK]"
    CABLES = "NODE[:RAIL]|SWITCH:PORT"
    NOTHING = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a fault may be told besides its target; each fault lists those that it takes."""

    signal: str = ""
    """The signal that kills, by its short name; empty for the fault's usual one."""
    seconds: float | None = None
    """End the fault by itself after so long; the call waits for that."""
    share: float | None = None
    """Of one CPU, what a slow node still gets."""
    run_dir: Path | None = None
    """The run folder of the job, where its rank<r>.pid files are; found from the job's StdOut if not given."""
    dry_run: bool = False
    """Only say what would be hit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """What a fault did, or with dry_run would do."""

    fault: str
    target: str
    summary: str
    pids: tuple[int, ...] = ()
    """The processes that were hit, in the order in which they were found."""
    epoch_s: float | None = None
    """When it was done, where that is one moment; finding the processes took its time before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to break a lab, or to mend it again."""

    name: str
    help: str
    target: Target
    inject: Callable[[Lab, str, Options], Injected]
    options: tuple[str, ...] = ()
    """Fields of Options that it takes besides dry_run."""
    needs_root: bool = False


def nodes_of(lab: Lab, target: str) -> tuple[str, ...]:
    """The nodes that a target such as "n01", "n01,n03" or "n[01-03]" names; UsageError if the lab lacks one."""
    from ClusterShell.NodeSet import NodeSet, NodeSetParseError

    try:
        names = tuple(NodeSet(target))
    except NodeSetParseError as error:
        raise UsageError(f"{target!r} is no list of nodes: {error}") from None
    strange = [name for name in names if name not in lab.node_names]
    if strange or not names:
        raise UsageError(
            f"the lab in {lab.folder} has no node {', '.join(strange) or repr(target)}",
            hint=f"its nodes are {NodeSet.fromlist(lab.node_names)}",
        )
    return names
