"""The srun that starts a command beside a running rank. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster.errors import UsageError
from trainmaster.launcher.follow.find import Found
from trainmaster.launcher.record import Event
from trainmaster.launcher.roles.part import events_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to attach."""

    node: str
    rank: int
    """-1: no rank in particular."""


def target_of(part: Found, events: Sequence[Event], *, rank: int | None, node: str | None) -> Target:
    """Where the rank runs, or the node itself. Raises UsageError when there is no such place.

    Args:
        part: The job, or one role of it.
        events: The job's record.
        rank: The rank; 0 when neither is given.
        node: A node of the job, spares too; then the environment is that of its first rank, if it has any.
    """
    wanted = rank or 0
    if not 0 <= wanted < part.ranks:
        raise UsageError(f"there are the ranks 0 to {part.ranks - 1}, not {wanted}")
    last = next((event for event in reversed(events_of(part, events, wanted)) if event.nodes), None)
    if last is None:
        raise UsageError(
            "could not attach: no rank has started", hint="`trainmaster jobs show` tells how the job stands"
        )
    per_node = part.plan.tasks_per_node
    if node is not None:
        if node not in (*last.nodes, *last.spares):
            there = ", ".join((*last.nodes, *(f"{name} (spare)" for name in last.spares)))
            raise UsageError(f"the job does not run on {node}", hint=f"its nodes are {there}")
        first = last.nodes.index(node) * per_node if node in last.nodes else -1
        return Target(node=node, rank=first if rank is None else rank)
    # A replica that restarts alone has events of its own, with the one node that it runs on.
    return Target(node=last.nodes[0 if last.replica is not None else wanted // per_node], rank=wanted)


def command(
    part: Found, target: Target, words: Sequence[str], *, job_id: int, component: int | None = None, terminal: bool
) -> list[str]:
    """The command line.

    `--overlap`: the agents' step has all that the job has, and shares it. `--mem=0`: so far as it has it.

    Args:
        part: The job, or one role of it.
        target: Where to.
        words: What to run there; nothing for a shell.
        job_id: Slurm's own number of the job: of an array's task not that of the array.
        component: Which part of a heterogeneous job, if it is one.
        terminal: The caller has one, so the command gets one too.
    """
    line = ["srun", f"--jobid={job_id}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={target.node}"]
    if component is not None:
        line.append(f"--het-group={component}")
    line += ["--mpi=none", "--mem=0", "--quiet"]
    if terminal:
        line.append("--pty")
    line += [part.plan.python, "-P", "-m", "trainmaster.launcher.rank.enter", str(part.run_dir), str(target.rank)]
    return [*line, *words]
