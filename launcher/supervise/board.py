"""The supervisor's side of the registry: publishes who serves where, whenever that changes. Standard library only."""

import logging
from collections.abc import Sequence
from pathlib import Path

from trainmaster.launcher.roles import registry
from trainmaster.launcher.supervise.component import Component

LOG = logging.getLogger("trainmaster.supervisor")


class Board:
    """What is published of a job of roles; of a job without roles nothing is."""

    def __init__(self, job_dir: Path, components: Sequence[Component], *, attempt: int) -> None:
        self._job_dir = job_dir
        self._components = [component for component in components if component.role is not None]
        self._attempt = attempt
        self._told: registry.View | None = None

    def publish(self, generation: int) -> None:
        """Publish, if anything has changed. A disk that is full is tried again at the next call."""
        if not self._components:
            return
        view = self._view(generation)
        if view == self._told:
            return
        try:
            registry.publish(self._job_dir, view)
            self._told = view
        except OSError as error:
            LOG.warning("could not publish the registry: %s", error)

    def _view(self, generation: int) -> registry.View:
        roles = {}
        for component in self._components:
            assert component.role is not None
            replicas = {index: one for group in component.groups for index, one in sorted(group.registered.items())}
            roles[component.name] = registry.RoleView(size=component.role.replicas, replicas=replicas)
        return registry.View(attempt=self._attempt, generation=generation, roles=roles)
