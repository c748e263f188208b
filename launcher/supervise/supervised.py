"""A job as its supervisor knows it: what all parts of the supervisor share. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trainmaster.launcher.plan import Plan
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.supervise import interplay
from trainmaster.launcher.supervise.component import Component
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.links import Links, Member


@dataclass(kw_only=True)
class Supervised:
    """One attempt of a job, under one supervisor."""

    run_dir: Path
    plan: Plan
    job_id: int | str
    """Of a task of an array it is "1234_5"."""
    attempt: int
    """Slurm's restart count."""
    epoch: int
    """How many supervisors this attempt has had before."""
    links: Links
    components: tuple[Component, ...]
    roles: Mapping[str, RolePlan]
    """By name, in their order; none in a job without roles."""
    ending: Ending
    generation: int
    """How often roles were put back to a checkpoint; a new attempt, or supervisor, begins a new one."""
    dead: dict[str, str] = field(default_factory=dict)
    """Place -> why it must not be used."""

    @cached_property
    def _home(self) -> dict[Group, Component]:
        return {group: component for component in self.components for group in component.groups}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All groups of all components."""
        return tuple(self._home)

    def component(self, group: Group) -> Component:
        """The component of a group."""
        return self._home[group]

    def at(self, member: Member) -> tuple[Component, Group | None]:
        """The component of a member, and the group that runs there."""
        component = next(one for one in self.components if one.name == member.role)
        return component, component.group_at(member.place)

    def healthy(self, group: Group) -> int:
        """How many places a group could run on."""
        return len(self.component(group).open_to(group, self.dead))

    def unmet(self, group: Group) -> tuple[str, ...]:
        """The roles that a group still has to wait for."""
        if group.role is None:
            return ()
        return interplay.unmet(group.role, {one.name for one in self.components if one.is_ready})

    def of_generation(self) -> dict[str, Any]:
        """For the record: the generation, where there are any."""
        return {"generation": self.generation} if self.roles else {}

    def ask_for_checkpoint(self) -> None:
        """Ask all ranks to save."""
        for group in self.groups:
            group.ask_for_checkpoint()
