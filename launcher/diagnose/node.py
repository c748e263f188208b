"""One node's part of stop and check: `python -m trainmaster.launcher.diagnose.node FOLDER`, one process a node.

Looks at the node's health, does a fixed piece of work, and meets the other nodes pair by pair. What it knows is written
to `<node>.json` in the folder after every part, so that a node that gets stuck has told what it did before.
Standard library only, but for torch or mpi4py where they are used.
"""

import hashlib
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainmaster.health.deep import pairs, tournament
from trainmaster.launcher.node import ports

TASK = "task.json"
HEALTH_BUDGET_S = 20.0
SOLO_S = 0.4
"""How long the fixed work is repeated."""
_BLOCK = bytes(1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all nodes are told."""

    addresses: dict[str, str]
    """Of every node, by name; the first holds the store."""
    means: str
    """torch, mpi or none."""
    limit_s: float
    """After which every process ends, however stuck it is."""
    pair_s: float = 0.5
    """How long each pair is measured."""
    health: bool = True


@dataclass(slots=True, kw_only=True)
class Told:
    """What this node has found out so far."""

    node: str
    ready: bool = False
    checks: list[str] = field(default_factory=list)
    solo_s: float | None = None
    solo: str = ""
    """What the fixed work was."""
    pairs: dict[str, float | None] = field(default_factory=dict)
    means: str = ""
    rounds: int = 0
    note: str = ""
    done: bool = False

    def write(self, folder: Path) -> None:
        """Leave it for whoever asked."""
        temporary = folder / f".{self.node}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self)))
        temporary.rename(folder / f"{self.node}.json")


def failed_checks() -> list[str]:
    """The health checks of the fast set that speak for taking this node out of service."""
    from trainmaster.health import node
    from trainmaster.health.finding import DRAINS, Verdict

    result = node.run(node.Options(budget_s=HEALTH_BUDGET_S, forget=True))
    return [
        f"{finding.check}: {' '.join(filter(None, (finding.subject, finding.detail)))}"
        for finding in result.decision.findings
        if finding.action in DRAINS and finding.verdict in (Verdict.FAIL, Verdict.HUNG)
    ]


def solo_on_cpu() -> float:
    """Seconds for one MiB through SHA-256: one core, no memory to speak of, no network."""
    count, began_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - began_s) < SOLO_S:
        hashlib.sha256(_BLOCK).digest()
        count += 1
    return passed_s / count


def solo_on_gpus(torch: Any) -> float:
    """Seconds for one product of two 8192 x 8192 bfloat16 matrices, on the slowest of this node's GPUs."""
    slowest_s = 0.0
    for index in range(torch.cuda.device_count()):
        factor = torch.ones(8192, 8192, dtype=torch.bfloat16, device=f"cuda:{index}")
        for repeats in (3, 200):
            torch.cuda.synchronize(index)
            began_s = time.perf_counter()
            for _ in range(repeats):
                torch.mm(factor, factor)
            torch.cuda.synchronize(index)
            passed_s = (time.perf_counter() - began_s) / repeats
        slowest_s = max(slowest_s, passed_s)
    return slowest_s


def work(task: Task, told: Told, folder: Path) -> None:
    """Do all parts, and tell after each."""
    began_s = time.monotonic()
    told.write(folder)
    if task.health:
        told.checks = failed_checks()
        told.write(folder)
    torch = _torch() if task.means == "torch" else None
    on_gpus = torch is not None and torch.cuda.is_available()
    told.solo_s, told.solo = (solo_on_gpus(torch), "gpu") if on_gpus else (solo_on_cpu(), "cpu")
    told.write(folder)
    # Gloo would otherwise go by the host's name, which may mean another network.
    if (name := ports.interface_of(task.addresses[told.node])) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    try:
        means = pairs.means_of(task.means, folder=folder, node=told.node, addresses=task.addresses)
    except ImportError as error:
        told.note, means = f"no tournament: {error}", None
    told.ready = True
    told.write(folder)
    if means is not None:
        told.means = means.name
        _play(task, told, folder, means, began_s)
    told.done = True
    told.write(folder)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _play(task: Task, told: Told, folder: Path, means: pairs.Means, began_s: float) -> None:
    """The rounds of the tournament."""

    def tell(rounds: int) -> None:
        told.rounds = rounds
        told.write(folder)

    played = tournament.play(
        told.node, means, told.pairs, pair_s=task.pair_s, limit_s=task.limit_s, began_s=began_s, tell=tell
    )
    told.rounds, told.note = played.rounds, played.note
    if not played.nodes:
        told.ready = False
        return
    means.close()


def main(argv: list[str]) -> int:
    """Read the task from the folder, and work."""
    folder = Path(argv[0])
    task = Task(**json.loads((folder / TASK).read_text()))
    # The signal's default action ends this process wherever it is stuck: nothing of it may meet the next cycle.
    signal.setitimer(signal.ITIMER_REAL, task.limit_s)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    told = Told(node=node)
    try:
        work(task, told, folder)
    except (RuntimeError, OSError) as error:
        told.note = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        told.write(folder)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
