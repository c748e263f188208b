"""What a lab looks like now: from Slurm where slurmctld answers, from the processes themselves in any case."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trainmaster.errors import SlurmError
from trainmaster.lab import daemons, processes
from trainmaster.lab.running import Lab
from trainmaster.lab.state import AppliedFault, ProcessRecord
from trainmaster.slurm.commands import Commands

# Long enough for a busy slurmctld, short enough to look at one that is frozen on purpose.
_ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node; `state` is Slurm's word, or empty when slurmctld does not answer."""

    name: str
    state: str
    reason: str
    partitions: tuple[str, ...]
    slurmd: str
    """running, frozen or dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A lab at one moment."""

    name: str
    folder: Path
    slurm_version: str
    daemons: dict[str, str]
    """running, frozen or dead, by role; slurmd stands with its node."""
    problem: str
    """Why Slurm could not be asked; empty when it could."""
    nodes: tuple[NodeStatus, ...]
    jobs: dict[str, int]
    """How many jobs there are in each state."""
    faults: tuple[AppliedFault, ...]


def overview(lab: Lab) -> Overview:
    """Look at a lab."""
    state = lab.state
    daemons.reap()
    slurmd = {record.node: _process_state(record) for record in state.processes if record.role == "slurmd"}
    others = {record.role: _process_state(record) for record in state.processes if record.role != "slurmd"}
    client = Commands(env=lab.env, timeout_s=_ANSWER_TIMEOUT_S)
    problem, seen, jobs = "", {}, Counter[str]()
    try:
        seen = {node.name: node for node in client.nodes()}
        jobs = Counter(job.state for job in client.jobs())
    except SlurmError as error:
        problem = error.message
    nodes = tuple(
        NodeStatus(
            name=name,
            state=seen[name].state if name in seen else "",
            reason=seen[name].reason if name in seen else "",
            partitions=seen[name].partitions if name in seen else (),
            slurmd=slurmd.get(name, "dead"),
        )
        for name in state.node_names
    )
    return Overview(
        name=state.name,
        folder=state.folder,
        slurm_version=state.slurm_version,
        daemons=others,
        problem=problem,
        nodes=nodes,
        jobs=dict(jobs),
        faults=state.faults,
    )


def text(seen: Overview) -> str:
    """An overview for people."""
    running = ", ".join(f"{role} {word}" for role, word in seen.daemons.items())
    lines = [f"lab {seen.name!r} in {seen.folder}, Slurm {seen.slurm_version}", f"daemons  {running}"]
    if seen.problem:
        lines.append(f"problem  {seen.problem}")
    jobs = ", ".join(f"{count} {state.lower()}" for state, count in sorted(seen.jobs.items()))
    lines += [f"jobs     {jobs or 'none'}", "", f"{'NODE':<12}{'STATE':<32}{'SLURMD':<10}{'PARTITIONS':<20}REASON"]
    lines += [
        f"{node.name:<12}{node.state or '?':<32}{node.slurmd:<10}{','.join(node.partitions):<20}{node.reason}".rstrip()
        for node in seen.nodes
    ]
    if seen.faults:
        lines += ["", "faults, the latest last"]
        lines += [
            f"  {datetime.fromtimestamp(fault.time, UTC):%H:%M:%S}Z  {fault.name} {fault.target}".rstrip()
            for fault in seen.faults[-20:]
        ]
    return "\n".join(lines) + "\n"


def _process_state(record: ProcessRecord) -> str:
    process = processes.look(record.pid)
    if process is None or process.start_time != record.start_time or process.state in "ZX":
        return "dead"
    return "frozen" if process.state == "T" else "running"
