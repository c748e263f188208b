"""Two nodes and an all-reduce between them, by torch.distributed or by MPI, imported late: a node may have neither.

Each pair has a group of its own, so a node that does not answer holds up only those that have to meet it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

ELEMENTS = 1 << 20
"""32-bit floats of an all-reduce between CPUs: 4 MiB."""
GPU_ELEMENTS = 1 << 26
"""And between GPUs: 256 MiB, beyond which the bandwidth of a link grows no more."""
_COUNT_MAX = 1000
_STORE = "store.json"


class Meeting(Protocol):
    """This node and its partner."""

    def reduce(self) -> None:
        """One all-reduce of the whole size, to its end."""

    def agree(self, value: float) -> float:
        """The mean of all sides' values, the same on all."""


class Means(Protocol):
    """How this node meets others."""

    name: str

    def gather(self, *, patience_s: float, rounds: Any) -> dict[str, Any] | None:
        """Who takes part and in how many rounds; None when this node came too late. `rounds(nodes)` chooses them."""

    def meet(self, partner: str, *, patience_s: float) -> Meeting:
        """Come together with a partner. Raises RuntimeError or OSError when it does not come."""

    def together(self, *, patience_s: float) -> Meeting:
        """Come together with all who took part. Raises RuntimeError or OSError when somebody does not come."""

    def close(self) -> None:
        """All rounds are over here."""


def time_pair(meeting: Meeting, *, pair_s: float) -> float:
    """Seconds that one all-reduce takes, the mean over about `pair_s`."""
    meeting.agree(0.0)
    began_s = time.perf_counter()
    meeting.reduce()
    wanted = meeting.agree(pair_s / max(time.perf_counter() - began_s, 1e-6))
    count = min(_COUNT_MAX, max(1, round(wanted)))
    began_s = time.perf_counter()
    for _ in range(count):
        meeting.reduce()
    return (time.perf_counter() - began_s) / count


class TorchMeans:
    """Pairs over gloo, or over NCCL where there are GPUs. The first node holds the store where all find each other."""

    def __init__(self, folder: Path, node: str, addresses: Mapping[str, str]) -> None:
        import torch
        import torch.distributed

        dist: Any = torch.distributed
        self._torch, self._dist = torch, dist
        self._folder, self._node, self._addresses = folder, node, addresses
        self._gpu = torch.cuda.is_available() and dist.is_nccl_available()
        self.name = "torch nccl" if self._gpu else "torch gloo"
        self._store: Any = None
        self._who: list[str] = []

    def gather(self, *, patience_s: float, rounds: Any) -> dict[str, Any] | None:
        """As `Means` has it."""
        deadline = time.monotonic() + patience_s
        nodes = list(self._addresses)
        if nodes[0] == self._node:
            self._open_store(patience_s)
            self._store.set(f"ready/{self._node}", "1")
            while time.monotonic() < deadline and not self._store.check([f"ready/{node}" for node in nodes]):
                time.sleep(0.02)
            there = [node for node in nodes if self._store.check([f"ready/{node}"])]
            found = {"nodes": there, "rounds": rounds(there)}
            self._store.set("who", json.dumps(found))
        else:
            self._find_store(deadline)
            self._store.set(f"ready/{self._node}", "1")
            self._store.wait(["who"], timedelta(seconds=max(1.0, deadline - time.monotonic()) + patience_s))
            found = json.loads(self._store.get("who"))
        self._who = found["nodes"]
        return found if self._node in found["nodes"] else None

    def _open_store(self, patience_s: float) -> None:
        self._store = self._dist.TCPStore(
            self._addresses[self._node],
            0,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=patience_s),
        )
        temporary = self._folder / f".{_STORE}"
        temporary.write_text(json.dumps({"host": self._addresses[self._node], "port": self._store.port}))
        temporary.rename(self._folder / _STORE)

    def _find_store(self, deadline: float) -> None:
        while not (self._folder / _STORE).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{next(iter(self._addresses))} did not open the store")
            time.sleep(0.05)
        at = json.loads((self._folder / _STORE).read_text())
        left_s = max(1.0, deadline - time.monotonic())
        self._store = self._dist.TCPStore(
            at["host"], at["port"], is_master=False, wait_for_workers=False, timeout=timedelta(seconds=left_s)
        )

    def meet(self, partner: str, *, patience_s: float) -> TorchMeeting:
        """As `Means` has it."""
        return self._group_of(sorted((self._node, partner)), patience_s)

    def together(self, *, patience_s: float) -> TorchMeeting:
        """As `Means` has it."""
        return self._group_of(self._who, patience_s)

    def _group_of(self, nodes: list[str], patience_s: float) -> TorchMeeting:
        # A group of all has another name than one of two, also where there are only two.
        store = self._dist.PrefixStore("all" if nodes is self._who else "-".join(nodes), self._store)
        rank, size, patience = nodes.index(self._node), len(nodes), timedelta(seconds=patience_s)
        if self._gpu:
            options = self._dist.ProcessGroupNCCL.Options()
            options._timeout = patience
            group = self._dist.ProcessGroupNCCL(store, rank, size, options)
            return TorchMeeting(self._torch, group, size, device="cuda")
        return TorchMeeting(self._torch, self._dist.ProcessGroupGloo(store, rank, size, patience), size, device="cpu")

    def close(self) -> None:
        """The store stays until all have done with it."""
        self._store.set(f"done/{self._node}", "1")
        if next(iter(self._addresses)) == self._node:
            while not self._store.check([f"done/{node}" for node in self._who]):
                time.sleep(0.05)


class TorchMeeting:
    """A process group of two, or of all."""

    def __init__(self, torch: Any, group: Any, size: int, *, device: str) -> None:
        self._torch, self._group, self._size, self._device = torch, group, size, device
        self._values = torch.ones(GPU_ELEMENTS if device == "cuda" else ELEMENTS, device=device)

    def reduce(self) -> None:
        """As `Meeting` has it."""
        self._group.allreduce([self._values]).wait()
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        self._values.fill_(1.0)

    def agree(self, value: float) -> float:
        """As `Meeting` has it."""
        told = self._torch.tensor([value], dtype=self._torch.float64, device=self._device)
        self._group.allreduce([told]).wait()
        return float(told[0]) / self._size


class MpiMeans:
    """Pairs of an MPI world with one rank a node. Who does not answer holds its partner up until the whole ends."""

    name = "mpi"

    def __init__(self, node: str) -> None:
        from mpi4py import MPI

        self._mpi, self._node = MPI, node
        self._ranks: dict[str, int] = {}
        self._size = MPI.COMM_WORLD.Get_size()

    def gather(self, *, patience_s: float, rounds: Any) -> dict[str, Any] | None:
        """As `Means` has it; MPI itself waits for everybody."""
        world = self._mpi.COMM_WORLD
        nodes = world.allgather(self._node)
        self._ranks = {node: rank for rank, node in enumerate(nodes)}
        found: dict[str, Any] = world.bcast({"nodes": nodes, "rounds": rounds(nodes)}, root=0)
        return found

    def meet(self, partner: str, *, patience_s: float) -> MpiMeeting:
        """As `Means` has it."""
        two = sorted((self._ranks[self._node], self._ranks[partner]))
        world = self._mpi.COMM_WORLD
        return MpiMeeting(self._mpi, world.Create_group(world.Get_group().Incl(two), tag=two[0]))

    def together(self, *, patience_s: float) -> MpiMeeting:
        """As `Means` has it."""
        return MpiMeeting(self._mpi, self._mpi.COMM_WORLD)

    def close(self) -> None:
        """Nothing: MPI's own end waits for the others."""


class MpiMeeting:
    """A communicator of two, or of all."""

    def __init__(self, mpi: Any, comm: Any) -> None:
        from array import array

        self._mpi, self._comm = mpi, comm
        self._values = array("f", bytes(4 * ELEMENTS))
        self._sum = array("f", bytes(4 * ELEMENTS))

    def reduce(self) -> None:
        """As `Meeting` has it."""
        self._comm.Allreduce([self._values, self._mpi.FLOAT], [self._sum, self._mpi.FLOAT])

    def agree(self, value: float) -> float:
        """As `Meeting` has it."""
        return float(self._comm.allreduce(value)) / float(self._comm.Get_size())


def means_of(kind: str, *, folder: Path, node: str, addresses: Mapping[str, str]) -> Means | None:
    """What a node can meet others by: "mpi", "torch", or "none". Raises ImportError."""
    if kind == "mpi":
        return MpiMeans(node)
    if kind == "torch":
        return TorchMeans(folder, node, addresses)
    return None
