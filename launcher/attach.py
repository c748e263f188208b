"""The srun that starts a command beside a running rank. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster.errors import UsageError
from trainmaster.launcher.find import Found
from trainmaster.launcher.record import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to attach."""

    node: str
    rank: int
    """-1: no rank in particular."""


def target_of(found: Found, events: Sequence[Event], *, rank: int | None, node: str | None) -> Target:
    """Where the rank runs, or the node itself. Raises UsageError when there is no such place.

    Args:
        found: The job.
        events: Its record.
        rank: The rank; 0 when neither is given.
        node: A node of the job, spares too; then the environment is that of its first rank, if it has any.
    """
    last = next((event for event in reversed(events) if event.nodes), None)
    if last is None:
        raise UsageError(
            f"could not attach to job {found.job_id}: none of its ranks has started",
            hint=f"`trainmaster jobs show {found.job_id}` tells how it stands",
        )
    per_node = found.plan.tasks_per_node
    if node is not None:
        if node not in (*last.nodes, *last.spares):
            there = ", ".join((*last.nodes, *(f"{name} (spare)" for name in last.spares)))
            raise UsageError(f"job {found.job_id} does not run on {node}", hint=f"its nodes are {there}")
        first = last.nodes.index(node) * per_node if node in last.nodes else -1
        return Target(node=node, rank=first if rank is None else rank)
    wanted = rank or 0
    if not 0 <= wanted < len(last.nodes) * per_node:
        raise UsageError(f"job {found.job_id} has the ranks 0 to {len(last.nodes) * per_node - 1}, not {wanted}")
    return Target(node=last.nodes[wanted // per_node], rank=wanted)


def command(found: Found, target: Target, words: Sequence[str], *, terminal: bool) -> list[str]:
    """The command line. `terminal`: the caller has one, so the command gets one too.

    `--overlap`: the agents' step has all that the job has, and shares it. `--mem=0`: so far as it has it.
    """
    line = ["srun", f"--jobid={found.id.job}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={target.node}"]
    line += ["--mpi=none", "--mem=0", "--quiet"]
    if terminal:
        line.append("--pty")
    line += [found.plan.python, "-P", "-m", "trainmaster.launcher.enter", str(found.run_dir), str(target.rank)]
    return [*line, *words]
