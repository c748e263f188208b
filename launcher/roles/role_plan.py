"""What the supervisor knows of a job's roles besides their plans: one JSON file. Standard library only."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "roles.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlan:
    """How one role lives beside the others. Its plan and its files lie in the job's folder under its name."""

    name: str
    replicas: int
    after: tuple[str, ...] = ()
    restart: str = "gang"
    """gang, alone or rollback."""
    rolls_back: tuple[str, ...] = ()
    service: bool = False
    ready: str = "registered"
    """registered or running."""
    ready_timeout_s: float = 600.0

    @property
    def alone(self) -> bool:
        """Its replicas restart one by one, so each has an agent of its own."""
        return self.restart == "alone"


def write(job_dir: Path, roles: tuple[RolePlan, ...]) -> None:
    """Leave the roles in the job's folder, in their order: it is that of the job's components."""
    (job_dir / FILE).write_text(json.dumps([asdict(role) for role in roles], indent=1) + "\n")


def read(job_dir: Path) -> tuple[RolePlan, ...]:
    """The roles of a job; none of a job that has no roles."""
    try:
        values: list[dict[str, Any]] = json.loads((job_dir / FILE).read_text())
    except FileNotFoundError:
        return ()
    return tuple(
        RolePlan(**{**value, "after": tuple(value["after"]), "rolls_back": tuple(value["rolls_back"])})
        for value in values
    )
