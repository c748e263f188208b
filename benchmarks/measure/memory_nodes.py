"""Nodes of one job on this machine, as far as copies in memory go: agents, keepers, the supervisor's book.

No Slurm: what is measured is the rank, the keeper and the network between keepers. Ranks are programs of their own
(`memory_rank.py`); between their starts this process plays agent and supervisor, in a thread.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainmaster.launcher.node.copies import Copies
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.supervise.copy_book import CopyBook

RANK = Path(__file__).with_name("memory_rank.py")
BUDGET_BYTES = 6 << 30


@dataclass
class Node:
    """One node, as the book knows it."""

    place: str
    topology: str
    address: str = "127.0.0.1"


class Nodes:
    """The nodes, and the thread that passes their messages on."""

    def __init__(self, folder: Path, leaves: dict[str, str], *, world_size: int) -> None:
        self.folder = folder
        (folder / "key").write_text(os.urandom(16).hex())
        self.members = {name: Node(name, f"{leaf}.{name}") for name, leaf in leaves.items()}
        self.book = CopyBook(self, world_size=world_size, tasks_per_node=1)
        self._memory = tempfile.TemporaryDirectory(prefix="trainmaster-overhead-", dir="/dev/shm")
        self._agents: dict[str, tuple[selectors.BaseSelector, Copies]] = {}
        self._lock = threading.RLock()
        self._over = False
        for name in leaves:
            self._start(name)
        self._thread = threading.Thread(target=self._pump)
        self._thread.start()

    def _start(self, name: str) -> None:
        plan = Plan(uid="u", name="n", run_dir="", python="", nodes=1, memory_copies=BUDGET_BYTES)
        agent = Copies(
            Path(self._memory.name) / name,
            plan=plan,
            key_dir=self.folder,
            log=self.folder / f"{name}.log",
            tell=lambda message: self.book.hear(self.members[name], message),
        )
        agent.address = "127.0.0.1"
        selector = selectors.DefaultSelector()
        agent.attach(selector)
        self._agents[name] = selector, agent

    def _pump(self) -> None:
        while not self._over:
            time.sleep(0.002)
            with self._lock:
                for selector, agent in list(self._agents.values()):
                    if selector.select(0):
                        agent.hear()
                    agent.flush()

    def of(self, places: Iterable[str]) -> list[Node]:
        """As `Links.of`."""
        return [self.members[place] for place in places if place in self.members]

    def tell(self, node: Node, message: dict[str, Any]) -> None:
        """As `Links.tell`."""
        self._agents[node.place][1].pass_on(message)

    def die(self, name: str) -> None:
        """A node is gone with all that it held."""
        with self._lock:
            _, agent = self._agents.pop(name)
            del self.members[name]
            self.book.forget(name)
            agent.close()

    def run(
        self, scene: str, *, cycle: int, places: list[str], memory: bool = True, **values: Any
    ) -> list[dict[str, Any]]:
        """Run a cycle's ranks to their end; returns what each of them printed last."""
        with self._lock:
            self.book.begin(cycle, places, self.members)
        rendezvous = self.folder / f"rendezvous-{cycle}-{time.monotonic_ns()}"
        ranks = []
        for rank, place in enumerate(places):
            own = {"RANK": str(rank), "WORLD_SIZE": str(len(places)), "LOCAL_WORLD_SIZE": "1"}
            own |= {"TRAINMASTER_CYCLE": str(cycle), "OMP_NUM_THREADS": "1"}
            own |= self._agents[place][1].env(cycle) if memory else {}
            asked = {"folder": str(self.folder / "checkpoints"), "rendezvous": str(rendezvous), **values}
            argv = [sys.executable, str(RANK), scene, json.dumps(asked)]
            ranks.append(subprocess.Popen(argv, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True))
        told = [rank.communicate(timeout=600)[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise RuntimeError(f"a rank of scene {scene!r} failed")
        return [json.loads(text.strip().splitlines()[-1]) for text in told]

    def close(self) -> None:
        """End all keepers."""
        self._over = True
        self._thread.join()
        for name in list(self._agents):
            self.die(name)
        self._memory.cleanup()
