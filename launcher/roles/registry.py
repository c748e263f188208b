"""Where the replicas of a job's roles can be reached: said by each replica, read by all. Standard library only.

A replica writes what it says beside its own step counter, its agent tells the supervisor, and the supervisor alone
publishes: one small file in the job's folder, replaced by rename. An entry is there exactly as long as its replica
lives as far as the supervisor knows, so nobody can meet an entry of an earlier start. No port, daemon or service is
needed but the folder.

A program that is not Python can say the same by a command:

    python -m trainmaster.launcher.roles.registry register PORT
    python -m trainmaster.launcher.roles.registry address ROLE INDEX
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from trainmaster.errors import RegistryError, RegistryTimeout

FILE = "registry.json"
_POLL_FIRST_S, _POLL_LAST_S = 0.05, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """Who this process is."""

    role: str
    index: int
    """0 ... size-1; the same after every restart."""
    size: int
    """Replicas of the role."""
    attempt: int
    """Times that the job was requeued."""
    cycle: int
    """Restarts of this replica in this attempt."""
    generation: int
    """The job's generation when this process was started."""


class Address(NamedTuple):
    """What `socket.create_connection` takes."""

    host: str
    port: int

    def __str__(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A replica that lives and has said where it serves."""

    host: str
    port: int
    node: str
    attempt: int
    cycle: int
    generation: int

    @property
    def address(self) -> Address:
        """Where to connect."""
        return Address(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView:
    """What is published of one role."""

    size: int
    replicas: Mapping[int, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that is published."""

    attempt: int
    generation: int
    roles: Mapping[str, RoleView]


# --- what a replica asks and says --------------------------------------------------------------------------------


def me() -> Replica:
    """Who this process is. Raises RegistryError outside of a role."""
    env = os.environ
    return Replica(
        role=_own("TRAINMASTER_ROLE"),
        index=int(_own("TRAINMASTER_ROLE_INDEX")),
        size=int(_own("TRAINMASTER_ROLE_SIZE")),
        attempt=int(env.get("TRAINMASTER_ATTEMPT", "0")),
        cycle=int(env.get("TRAINMASTER_CYCLE", "0")),
        generation=int(env.get("TRAINMASTER_GENERATION", "0")),
    )


def register(port: int, host: str | None = None) -> None:
    """Tell all roles that this replica serves at `port` now; those that come `after` it may be started.

    Args:
        port: A port that something listens on already.
        host: By default this node's address towards the supervisor.

    Raises RegistryError outside of a role.
    """
    path = Path(_own("TRAINMASTER_REGISTER_FILE"))
    if not 0 < int(port) < 65536:
        raise RegistryError(f"could not register the port {port!r}: it is not between 1 and 65535")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"port": int(port), "host": host or ""}))
    temporary.replace(path)


def address(role: str, index: int, timeout_s: float = 300.0) -> Address:
    """Where replica `index` of `role` serves; waits until it lives and has registered.

    A replica that has just died may be found for the moment that it takes to notice (`heartbeat_timeout_s` for a silent
    node): whoever cannot connect asks again.

    Raises RegistryTimeout that says what was waited for and what was there; RegistryError for a role or index that the
    job does not have.
    """
    return _wait(role, (index,), timeout_s)[0]


def addresses(role: str, timeout_s: float = 300.0) -> tuple[Address, ...]:
    """Where all replicas of `role` serve, in the order of their index; waits for all of them. Raises as `address`."""
    return _wait(role, None, timeout_s)


def lookup(role: str, index: int) -> Entry | None:
    """What is known of a replica at this moment; None while it does not serve. Raises RegistryError as `address`."""
    view = _view()
    return None if view is None else _role(view, role, index).replicas.get(index)


def size(role: str) -> int:
    """How many replicas a role has. Raises RegistryError for a role that the job does not have."""
    view = _view()
    if view is None:
        raise RegistryError(f"could not read {_own('TRAINMASTER_REGISTRY')}", hint="is the job's folder still there?")
    return _role(view, role).size


def generation() -> int:
    """The job's generation now: it goes up whenever roles are rolled back, and with every requeue.

    When it is higher than `me().generation`, others were put back to the last checkpoint since this process started.
    """
    view = _view()
    return me().generation if view is None else max(view.generation, me().generation)


def _own(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise RegistryError(
            f"this process is no replica of a role: {name} is not set",
            hint="the registry is for jobs that submit_roles() or a spec with [roles.…] started",
        )
    return value


def _view() -> View | None:
    """What is published now; None when it cannot be read at this moment."""
    try:
        # Opening, unlike stat, makes a network file system fetch what is there.
        return decode(Path(_own("TRAINMASTER_REGISTRY")).read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _role(view: View, role: str, index: int | None = None) -> RoleView:
    found = view.roles.get(role)
    if found is None:
        raise RegistryError(f"this job has no role {role!r}; it has {', '.join(view.roles)}")
    if index is not None and not 0 <= index < found.size:
        raise RegistryError(f"role {role!r} has the replicas 0 to {found.size - 1}, not {index}")
    return found


def _wait(role: str, indices: tuple[int, ...] | None, timeout_s: float) -> tuple[Address, ...]:
    deadline = time.monotonic() + timeout_s
    pause_s = _POLL_FIRST_S
    while True:
        view = _view()
        there: Mapping[int, Entry] = {}
        wanted = indices or ()
        if view is not None:
            known = _role(view, role, indices[0] if indices else None)
            there = known.replicas
            wanted = indices if indices is not None else tuple(range(known.size))
            if all(index in there for index in wanted):
                return tuple(there[index].address for index in wanted)
        if time.monotonic() >= deadline:
            raise RegistryTimeout(_missing(role, wanted, there, view, timeout_s))
        time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
        pause_s = min(pause_s * 1.3, _POLL_LAST_S)


def _missing(
    role: str, wanted: tuple[int, ...], there: Mapping[int, Entry], view: View | None, timeout_s: float
) -> str:
    missing = [index for index in wanted if index not in there]
    what = f"waited {timeout_s:g} s for {role!r}"
    if view is None:
        return f"{what}: {_own('TRAINMASTER_REGISTRY')} could not be read"
    names = ", ".join(map(str, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    seen = f"{len(there)} of {view.roles[role].size} replicas of {role!r} are registered"
    return f"{what} to register replica {names}; in generation {view.generation} {seen}"


# --- the file ----------------------------------------------------------------------------------------------------


def encode(view: View) -> str:
    """The text of the file."""
    return json.dumps(asdict(view))


def decode(text: str) -> View:
    """The file's text as values. Raises ValueError, KeyError or TypeError for what is none."""
    values: dict[str, Any] = json.loads(text)
    roles = {
        name: RoleView(size=one["size"], replicas={int(index): Entry(**e) for index, e in one["replicas"].items()})
        for name, one in values["roles"].items()
    }
    return View(attempt=values["attempt"], generation=values["generation"], roles=roles)


def publish(job_dir: Path, view: View) -> None:
    """Replace the file. The supervisor's alone to call. Raises OSError."""
    temporary = job_dir / f".{FILE}.{os.getpid()}"
    temporary.write_text(encode(view))
    temporary.replace(job_dir / FILE)


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.roles.registry register PORT | address ROLE INDEX`."""
    try:
        match argv:
            case ["register", port]:
                register(int(port))
            case ["address", role, index]:
                sys.stdout.write(f"{address(role, int(index))}\n")
            case _:
                sys.stderr.write("usage: register PORT | address ROLE INDEX\n")
                return 2
    except RegistryError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
