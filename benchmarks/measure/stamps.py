"""What ranks stamped while faults hit them: nothing may run twice, nothing may be missing. Pure but for `read`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """One step of one rank. A rank's stamps stand in one file, in the order in which they were written."""

    epoch_s: float
    attempt: int
    cycle: int
    step: int


def parse(lines: Iterable[str]) -> tuple[Stamp, ...]:
    """The stamps; a line that is torn is passed over.

    >>> parse(["10.5 0 1 7", "10.6 0"])
    (Stamp(epoch_s=10.5, attempt=0, cycle=1, step=7),)
    """
    found = []
    for line in lines:
        words = line.split()
        if len(words) == 4:
            found.append(Stamp(epoch_s=float(words[0]), attempt=int(words[1]), cycle=int(words[2]), step=int(words[3])))
    return tuple(found)


def read(folder: Path) -> dict[int, tuple[Stamp, ...]]:
    """The stamps of a run, by rank."""
    return {
        int(path.name.removeprefix("rank")): parse(path.read_text(errors="replace").splitlines())
        for path in folder.glob("rank*")
    }


def double_runs(stamps: Iterable[Stamp]) -> int:
    """How often a rank of an earlier cycle did a step after one of a later cycle had begun."""
    newest, count = (-1, -1), 0
    for stamp in stamps:
        now = (stamp.attempt, stamp.cycle)
        count += now < newest
        newest = max(newest, now)
    return count


def missing(stamps: Iterable[Stamp], steps: int) -> int:
    """How many of the steps 0 to `steps` - 1 were never done."""
    return len(set(range(steps)) - {stamp.step for stamp in stamps})


def new_step_s(stamps: Sequence[Stamp], *, struck_s: float) -> float | None:
    """From a fault to the first step of a later cycle that no earlier cycle had done; None when there is none.

    Ranks that wait for nobody go on for a moment after another was hit; that is no recovery.
    """
    hit = max(((stamp.attempt, stamp.cycle) for stamp in stamps if stamp.epoch_s <= struck_s), default=(-1, -1))
    before = max((stamp.step for stamp in stamps if (stamp.attempt, stamp.cycle) <= hit), default=-1)
    later = [stamp for stamp in stamps if (stamp.attempt, stamp.cycle) > hit and stamp.step > before]
    return min(stamp.epoch_s for stamp in later) - struck_s if later else None
