"""Asks a running job to leave nodes, and hears what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster.errors import UsageError
from trainmaster.launcher import record, swap_request
from trainmaster.launcher.follow.watch import Watch
from trainmaster.launcher.record import Event
from trainmaster.launcher.supervise import takeover
from trainmaster.launcher.supervise.swapping import FINAL
from trainmaster.launcher.swap_request import SwapRequest

_WITH_RANKS = ("RUNNING", "PROGRESS", "RESTARTING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a job says to a wish."""

    answer: str
    """accepted, at_restart, swapped, refused or lapsed."""
    why_not: str = ""
    given_back: bool = False
    """Slurm has the nodes back."""

    @property
    def final(self) -> bool:
        """Whether nothing more comes of it."""
        return self.answer in FINAL


def ask(watch: Watch, nodes: Sequence[str], *, reason: str, until: float | None) -> SwapRequest:
    """Leave the wish in the job's folder. Raises UsageError when nobody would read it, OSError on a full disk."""
    attempt = attempt_of(watch)
    return swap_request.leave(watch.run_dir, nodes, attempt=attempt, reason=reason, until=until)


def attempt_of(watch: Watch) -> int:
    """The attempt that runs now. Raises UsageError when none does."""
    last = record.standing(watch.events())
    if last is None or last.state not in _WITH_RANKS or takeover.current(watch.run_dir) is None:
        state = watch.state()
        raise UsageError(
            f"could not ask job {watch.id.plain} to leave nodes: it is {state}",
            hint="only ranks that run can move; a job that waits or ended is not on any node",
        )
    return last.attempt


def answer_to(events: Sequence[Event], request_id: str) -> Answer | None:
    """The last that the record says of a wish; None when it was not read yet. Pure."""
    found = [event.detail for event in events if event.state == "SWAP" and event.detail.get("id") == request_id]
    if not found:
        return None
    last = found[-1]
    return Answer(answer=str(last["answer"]), why_not=str(last["why_not"]), given_back=bool(last.get("given_back")))


def words(answer: Answer | None, nodes: Sequence[str]) -> str:
    """An answer for people.

    >>> words(Answer(answer="swapped", given_back=True), ["n03"])
    'it has left n03, and Slurm has it back'
    """
    names = ", ".join(nodes)
    match answer:
        case None:
            return "its supervisor has not read that yet"
        case Answer(answer="accepted"):
            return f"it leaves {names}, at a checkpoint where ranks run there"
        case Answer(answer="at_restart"):
            return f"it leaves {names} at its next restart: {answer.why_not}"
        case Answer(answer="swapped"):
            back = "and Slurm has " + ("it" if len(nodes) == 1 else "them") + " back"
            return f"it has left {names}, {back if answer.given_back else 'but ' + answer.why_not}"
    return f"{answer.answer}: {answer.why_not}"
