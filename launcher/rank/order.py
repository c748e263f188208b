"""An order that all ranks of a cycle follow at the same step: proposed, checked, decided. Pure.

The supervisor proposes a step that nobody should have reached when the agents have written it down. Each agent answers
where its ranks were after that. If all were before the step, every rank will find the order there, and it holds; ranks
that come to the step meanwhile wait. If not, it is taken back and a later step proposed.
"""

from dataclasses import dataclass, field

from trainmaster.launcher.rank.page import Kind

ROUND_TRIP_S = 0.3
"""What an order takes to reach all ranks; an agent looks for messages four times a second or as they come."""
_AHEAD_MAX = 10_000


@dataclass(slots=True, kw_only=True)
class Order:
    """One order on its way."""

    kind: Kind
    step: int
    ahead: int
    """How many steps ahead of the furthest rank it was proposed."""
    ranks: int
    """Ranks that have to answer."""
    at: dict[int, int] = field(default_factory=dict)
    """Where each rank was when it was written down."""
    holds: bool = False

    @property
    def answered(self) -> bool:
        """Every rank's agent has said where it was."""
        return len(self.at) >= self.ranks

    @property
    def in_time(self) -> bool:
        """No rank had reached the step."""
        return all(step < self.step for step in self.at.values())

    def later(self) -> "Order":
        """The next proposal, when this one came too late."""
        ahead = min(2 * self.ahead, _AHEAD_MAX)
        return Order(kind=self.kind, step=max(self.at.values()) + ahead, ahead=ahead, ranks=self.ranks)


def first(kind: Kind, *, furthest: int, step_s: float, ranks: int) -> Order:
    """The first proposal: as near as steps of `step_s` allow. 0 is no pace, but one that nobody knows yet.

    Too near costs another round; too far may be never.

    >>> first(Kind.STOP, furthest=7, step_s=30.0, ranks=2).step, first(Kind.STOP, furthest=7, step_s=0.1, ranks=2).step
    (9, 12)
    """
    ahead = 2 + (min(int(ROUND_TRIP_S / max(step_s, 1e-4)), _AHEAD_MAX) if step_s else 0)
    return Order(kind=kind, step=furthest + ahead, ahead=ahead, ranks=ranks)
