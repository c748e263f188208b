"""What a lab remembers about itself: `<folder>/lab.json`, read and written as frozen values."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainmaster.errors import LabError
from trainmaster.lab import netns

STATE_FILE = "lab.json"
LOCK_FILE = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A process, named so that a later one with the same pid is not mistaken for it."""

    role: str
    """munged, mariadbd, slurmdbd, slurmctld, slurmd, or what a fault started."""
    node: str | None
    pid: int
    start_time: int
    """Clock ticks after boot: field 22 of /proc/<pid>/stat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process whose end is the end of the lab."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedFault:
    """A fault that was injected."""

    name: str
    target: str
    time: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabState:
    """One lab as its folder describes it."""

    name: str
    folder: Path
    conf: Path
    slurm_version: str
    controller_port: int
    dbd_port: int | None
    node_ports: dict[str, int]
    processes: tuple[ProcessRecord, ...] = ()
    owner: Owner | None = None
    network: netns.Network | None = None
    """Set when the nodes have networks of their own."""
    faults: tuple[AppliedFault, ...] = ()
    ready: bool = False
    """False while it is being built."""

    @property
    def node_names(self) -> tuple[str, ...]:
        """All nodes, in the order of slurm.conf."""
        return tuple(self.node_ports)

    @property
    def ports(self) -> frozenset[int]:
        """Every port that this lab counts as its own, whether a daemon listens on it now or not."""
        others = {self.controller_port} | ({self.dbd_port} if self.dbd_port else set())
        return frozenset(others | set(self.node_ports.values()))

    def with_process(self, record: ProcessRecord) -> "LabState":
        """This state with `record` in place of an earlier process of the same role and node."""
        kept = tuple(p for p in self.processes if (p.role, p.node) != (record.role, record.node))
        return replace(self, processes=(*kept, record))

    def without_process(self, role: str, node: str | None = None) -> "LabState":
        """This state without that process."""
        return replace(self, processes=tuple(p for p in self.processes if (p.role, p.node) != (role, node)))


def encode(state: LabState) -> str:
    """The text of lab.json."""
    return json.dumps(asdict(state), indent=1, default=str) + "\n"


def decode(text: str) -> LabState:
    """Read what `encode` wrote."""
    raw: dict[str, Any] = json.loads(text)
    raw["folder"] = Path(raw["folder"])
    raw["conf"] = Path(raw["conf"])
    raw["processes"] = tuple(ProcessRecord(**record) for record in raw["processes"])
    raw["faults"] = tuple(AppliedFault(**fault) for fault in raw["faults"])
    raw["network"] = netns.from_json(raw["network"]) if raw["network"] else None
    raw["owner"] = Owner(**raw["owner"]) if raw["owner"] else None
    return LabState(**raw)


def load(folder: Path) -> LabState:
    """Read a lab's state. Raises LabError when there is no lab in `folder`, or its state cannot be read."""
    path = folder / STATE_FILE
    try:
        return decode(path.read_text())
    except FileNotFoundError:
        raise LabError(f"there is no lab in {folder}", hint="`trainmaster lab status --all` lists the labs") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"the lab state {path} cannot be read: {error}", hint="remove the folder by hand") from None


def save(state: LabState) -> None:
    """Write a lab's state so that a reader sees the old text or the new one, never half of it."""
    path = state.folder / STATE_FILE
    new = path.with_name(f".{STATE_FILE}.{os.getpid()}")
    new.write_text(encode(state))
    new.replace(path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lab in `folder` against other processes that would change it. Waits for them."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def change(folder: Path, step: Callable[[LabState], LabState]) -> LabState:
    """Apply `step` to the state on disk while no other process does; a fault and the lab's owner may both write."""
    with locked(folder):
        state = step(load(folder))
        save(state)
    return state
