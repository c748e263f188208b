"""Putting a spare in a slow node's place: at a checkpoint, or at any restart that comes before. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from trainmaster.launcher.exit_rules import EXIT_REQUEUE
from trainmaster.launcher.supervise.budget import Budget
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.symptom import Outcome

CAUSE = "straggler"


def planned(
    outcome: Outcome, leaving: Sequence[str], budget: Budget, *, healthy: int, wanted: int, cause: str = CAUSE
) -> Decision | None:
    """The restart that was meant: ranks were asked to save so that `leaving` can be exchanged, and they have saved.

    None when the cycle ended for any other reason. It is nobody's fault and costs no budget. Should the spares be gone
    by now, the nodes stay. `cause`: why they are to leave.
    """
    saved = any(entry.code == EXIT_REQUEUE and not entry.stopped for entry in outcome.exits)
    if not leaving or not saved or outcome.ending is not None or outcome.lost:
        return None
    decision = Decision(action=Action.RESTART, cause=cause, budget=budget)
    return extended(decision, leaving, healthy=healthy, wanted=wanted, blame=cause == CAUSE)


def extended(decision: Decision, leaving: Sequence[str], *, healthy: int, wanted: int, blame: bool = True) -> Decision:
    """A restart that leaves slow nodes out as well, as far as there are spares: it costs nothing more.

    `blame`: something speaks against these nodes; otherwise a later attempt may have them again.

    >>> extended(Decision(action=Action.RESTART, cause="hang"), ("n1", "n2"), healthy=4, wanted=3).exclude
    ('n1',)
    """
    if decision.action is not Action.RESTART:
        return decision
    room = healthy - len(set(decision.exclude)) - wanted
    more = [place for place in leaving if place not in decision.exclude][: max(0, room)]
    if not more:
        return decision
    doubtful = decision.doubtful if blame else (*decision.doubtful, *more)
    return replace(decision, exclude=(*decision.exclude, *more), doubtful=doubtful)
