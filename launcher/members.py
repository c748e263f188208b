"""The supervisor's view of its agents: who is there, where they can be reached, how long they have been silent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainmaster.launcher import wire


@dataclass(slots=True, kw_only=True)
class Member:
    """One agent that has said hello."""

    node: str
    address: str
    topology: str
    port: int
    """A port that was free on its node when it last said so; 0 when it found none."""
    connection: wire.Connection
    last_heard: float
    started: bool = False
    """Its ranks of this cycle run."""
    stopped: bool = True
    """No rank is left on its node."""
    asked: int | None = None
    """How many of its ranks were asked for a checkpoint, once it has answered."""


@dataclass(slots=True)
class Roster:
    """All agents of the job by node name, and the nodes that are gone for good."""

    members: dict[str, Member] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    """Node -> why it must not be used again."""

    def addresses(self) -> dict[str, str]:
        """Topology address by node, of all that can run ranks."""
        return {node: member.topology for node, member in self.members.items() if node not in self.dead}

    def of(self, nodes: Iterable[str]) -> list[Member]:
        """The members among `nodes` that are still there."""
        return [self.members[node] for node in nodes if node in self.members]

    def silent(self, now: float, timeout_s: float) -> list[Member]:
        """Members that have not been heard for too long."""
        return [member for member in self.members.values() if now - member.last_heard > timeout_s]

    def forgive(self, delay_s: float) -> None:
        """The supervisor itself was held up for `delay_s`; nobody else shall pay for that."""
        for member in self.members.values():
            member.last_heard += delay_s


def furthest(steps: Mapping[str, tuple[float, float]]) -> int | None:
    """The highest step that any rank reported."""
    return max((int(step) for step, _ in steps.values()), default=None)
