"""Putting a spare in a slow node's place: at a checkpoint, or at any restart that comes before. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from trainmaster.launcher.exit_rules import EXIT_REQUEUE
from trainmaster.launcher.supervise.budget import Budget
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.symptom import Outcome

CAUSE = "straggler"


def planned(outcome: Outcome, leaving: Sequence[str], budget: Budget, *, healthy: int, wanted: int) -> Decision | None:
    """The restart that was meant: ranks were asked to save so that `leaving` can be exchanged, and they have saved.

    None when the cycle ended for any other reason. It is nobody's fault and costs no budget. Should the spares be gone
    by now, the slow nodes stay.
    """
    saved = any(entry.code == EXIT_REQUEUE and not entry.stopped for entry in outcome.exits)
    if not leaving or not saved or outcome.ending is not None or outcome.lost:
        return None
    decision = Decision(action=Action.RESTART, cause=CAUSE, budget=budget)
    return extended(decision, leaving, healthy=healthy, wanted=wanted)


def extended(decision: Decision, leaving: Sequence[str], *, healthy: int, wanted: int) -> Decision:
    """A restart that leaves slow nodes out as well, as far as there are spares: it costs nothing more.

    >>> extended(Decision(action=Action.RESTART, cause="hang"), ("n1", "n2"), healthy=4, wanted=3).exclude
    ('n1',)
    """
    if decision.action is not Action.RESTART:
        return decision
    room = healthy - len(set(decision.exclude)) - wanted
    more = [place for place in leaving if place not in decision.exclude][: max(0, room)]
    return replace(decision, exclude=(*decision.exclude, *more)) if more else decision
