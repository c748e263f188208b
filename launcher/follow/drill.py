"""Drills: what can be rehearsed on a job of one's own, what has to follow, and what followed. Pure.

A drill is a true fault for the job, and no evidence against a node (`drills`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainmaster.errors import UsageError
from trainmaster.launcher.record import Event


class Kind(StrEnum):
    """What is rehearsed."""

    CRASH = "crash"
    HANG = "hang"
    KILL_NODE = "kill-node"
    FREEZE_NODE = "freeze-node"
    PREEMPT = "preempt"
    TIMEOUT = "timeout"

    @property
    def on_node(self) -> bool:
        """Done by a process on a node of the job; the others through Slurm."""
        return self not in (Kind.PREEMPT, Kind.TIMEOUT)


WHAT = {
    Kind.CRASH: "SIGKILL to one rank",
    Kind.HANG: "SIGSTOP to one rank: it is there, and does nothing any more",
    Kind.KILL_NODE: "SIGKILL to all processes of the job on one node: from outside, a node that resets looks so",
    Kind.FREEZE_NODE: "SIGSTOP to all of them: from outside, a node without power or network looks so",
    Kind.PREEMPT: "Slurm's warning, the grace time, then a requeue",
    Kind.TIMEOUT: "Slurm's warning, the time by which it leads the time limit, then a requeue",
}

CAUSES: dict[Kind, frozenset[str]] = {
    Kind.CRASH: frozenset({"rank_crash"}),
    Kind.HANG: frozenset({"hang"}),
    Kind.KILL_NODE: frozenset({"node_death"}),
    Kind.FREEZE_NODE: frozenset({"node_silent"}),
    Kind.PREEMPT: frozenset({"requeue"}),
    Kind.TIMEOUT: frozenset({"requeue"}),
}
"""What the record may call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What became of a drill. Seconds count from the drill; None for what did not happen."""

    kind: Kind
    target: str
    step_before: int | None
    """The last step that was done before the job was hit, as far as is known; None when it reports none."""
    found_s: float | None = None
    """Until the job's record says that something happened."""
    found: str = ""
    """What it says: RESTARTING, REQUEUED, or an end."""
    cause: str | None = None
    running_s: float | None = None
    """Until all ranks were started again."""
    first_step_s: float | None = None
    """Until any step was done again."""
    new_step_s: float | None = None
    """Until a step was done that had not been done before."""
    nodes_before: tuple[str, ...] = ()
    nodes_after: tuple[str, ...] = ()

    @property
    def right_cause(self) -> bool:
        """Whether the job has recognised what was done to it."""
        return self.cause in CAUSES[self.kind]

    @property
    def recovered(self) -> bool:
        """Whether it runs again: with a new step, where it reports steps."""
        if self.step_before is None:
            return self.running_s is not None
        return self.new_step_s is not None and self.first_step_s is not None


def course(
    kind: Kind,
    target: str,
    events: Sequence[Event],
    *,
    done_s: float,
    step_before: int | None,
    new_step_s: float | None,
) -> Course:
    """What the record says of a drill done at `done_s` (seconds since the epoch).

    Args:
        kind: What was rehearsed.
        target: On what, in words.
        events: The job's record, of one role if it has roles.
        done_s: When it was done.
        step_before: The last step by then; None when the job reports none.
        new_step_s: Seconds until a later step than that was seen; None when none was yet.
    """
    before = next((event.nodes for event in reversed(events) if event.epoch_s < done_s and event.nodes), ())
    later = [event for event in events if event.epoch_s >= done_s]
    found = next((e for e in later if e.state in ("RESTARTING", "REQUEUED") or e.ends), None)
    told = Course(kind=kind, target=target, step_before=step_before, nodes_before=before)
    if found is None:
        return told
    if step_before is not None and found.step is not None:
        step_before = max(step_before, found.step)  # ranks went on between the look at them and the fault
    after = [event for event in later if (event.attempt, event.cycle) > (found.attempt, found.cycle)]
    running = next((event for event in after if event.state == "RUNNING"), None)
    progress = next((event for event in after if event.state == "PROGRESS"), None)
    first_s = None if progress is None else float(progress.detail.get("first_step_epoch_s") or progress.epoch_s)
    return Course(
        kind=kind,
        target=target,
        step_before=step_before,
        found_s=found.epoch_s - done_s,
        found=found.state,
        cause=found.cause,
        running_s=None if running is None else running.epoch_s - done_s,
        first_step_s=None if first_s is None else first_s - done_s,
        new_step_s=new_step_s,
        nodes_before=before,
        nodes_after=() if running is None else running.nodes,
    )


def in_words(told: Course) -> list[str]:
    """The report: one line for each thing that happened."""
    lines = [f"drill {told.kind}: {told.target}, after step {told.step_before}"]
    if told.step_before is None:
        lines = [f"drill {told.kind}: {told.target}"]
    if told.found_s is None:
        return [*lines, "  the job has not noticed anything"]
    lines.append(f"  {told.found_s:8.2f} s  {told.found}, {told.cause}")
    if not told.right_cause:
        lines.append(f"{'':13}(expected: {' or '.join(sorted(CAUSES[told.kind]))})")
    if told.running_s is not None:
        lines.append(f"  {told.running_s:8.2f} s  all ranks were started again")
    if gone := [node for node in told.nodes_before if told.nodes_after and node not in told.nodes_after]:
        came = [node for node in told.nodes_after if node not in told.nodes_before]
        lines.append(f"{'':13}{', '.join(gone)} left, {', '.join(came) or 'nobody'} came")
    if told.first_step_s is not None:
        lines.append(f"  {told.first_step_s:8.2f} s  a step was done again")
    if told.new_step_s is not None:
        lines.append(f"  {told.new_step_s:8.2f} s  a step was done that was new")
    return [*lines, "  recovered" if told.recovered else "  the job has not recovered"]


def node_for(nodes: Sequence[str], *, batch_host: str, wanted: str | None) -> str:
    """The node to kill or freeze. Raises UsageError when it would end the job instead of testing it.

    >>> node_for(("n1", "n2", "n3"), batch_host="n1", wanted=None)
    'n3'
    """
    if wanted is None:
        others = [node for node in nodes if node != batch_host]
        if not others:
            raise UsageError(
                f"could not rehearse the loss of a node: the job runs on {batch_host} alone, where its batch script is",
                hint="`trainmaster jobs drill crash` and `hang` work on one node too",
            )
        return others[-1]
    if wanted not in nodes:
        raise UsageError(f"the job has no rank on {wanted}", hint=f"its ranks are on {', '.join(nodes)}")
    if wanted == batch_host:
        raise UsageError(
            f"could not rehearse the loss of {wanted}: the job's batch script runs there",
            hint="a user can only kill its process, and Slurm would take that for the end of the job; "
            "when the node itself dies Slurm requeues the job. Take another node",
        )
    return wanted
