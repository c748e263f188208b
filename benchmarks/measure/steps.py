"""From the stamps that a training program writes to how long a fault cost it. Pure but for `read`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One finished training step, as rank 0 stamped it."""

    step: int
    epoch_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a fault did to a run."""

    fault_epoch_s: float
    last_step: int
    """The furthest step that was done before the fault."""
    recovered_s: float | None
    """From the fault to the first step beyond `last_step`; None when there is none yet."""
    first_again_s: float | None
    """From the fault to the first step of any number: what is left of `recovered_s` is work done twice."""
    lost_steps: int | None
    """Steps that were done twice."""


def parse(lines: Iterable[str]) -> tuple[Step, ...]:
    """The steps in the order in which they were written; a line that is torn or not ours is passed over.

    >>> parse(['{"step": 3, "epoch_s": 1.5, "loss": 2}', '{"step": 4, "ep'])
    (Step(step=3, epoch_s=1.5),)
    """
    steps = []
    for line in lines:
        try:
            entry = json.loads(line)
            steps.append(Step(step=int(entry["step"]), epoch_s=float(entry["epoch_s"])))
        except (ValueError, LookupError, TypeError):
            continue
    return tuple(steps)


def read(path: Path) -> tuple[Step, ...]:
    """The steps of a metrics file; none when there is no file yet."""
    try:
        return parse(path.read_text(errors="replace").splitlines())
    except OSError:
        return ()


def recovery(steps: Sequence[Step], *, before_s: float, after_s: float) -> Recovery:
    """What a fault cost, that was injected between `before_s` and `after_s` (epoch seconds).

    An injection may take a moment, in which the run goes on. The fault came after the last step of the old run, so the
    clock starts at that step's stamp, or at `before_s` if that is later: at most one step too early, never too late.
    """
    done = [place for place, entry in enumerate(steps) if entry.epoch_s <= after_s]
    end = done[-1] + 1 if done else 0
    for place in range(1, end):
        # The run may be back before the injection has returned; then the steps go back to the last checkpoint's.
        if steps[place].epoch_s > before_s and steps[place].step <= steps[place - 1].step:
            end = place
            break
    last = max((entry.step for entry in steps[:end]), default=0)
    fault_s = max([before_s, *(entry.epoch_s for entry in steps[:end])])
    later = steps[end:]
    first_new = next((entry for entry in later if entry.step > last), None)
    return Recovery(
        fault_epoch_s=fault_s,
        last_step=last,
        recovered_s=first_new.epoch_s - fault_s if first_new else None,
        first_again_s=later[0].epoch_s - fault_s if later else None,
        lost_steps=max(0, last - later[0].step + 1) if later else None,
    )
