"""What a job's time is divided into, and what each word means. Times are whole milliseconds, so that sums are exact."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Phase(StrEnum):
    """What a stretch of a job's life went into."""

    PRODUCTIVE = "productive"
    QUEUE = "queue"
    START = "start"
    UNSEEN = "until found"
    REDONE = "done again"
    WAIT = "queue again"
    RESTART = "restart"
    SUSPENDED = "suspended"
    MAINTENANCE = "maintenance"
    USER = "user"
    NEVER = "never started"


DEFINITIONS = {
    Phase.PRODUCTIVE: "running, and what was done then was kept",
    Phase.QUEUE: "from eligible to the first start",
    Phase.START: "from the first start to the first step, and from the last step to the end",
    Phase.UNSEEN: "an interruption had happened, and nobody had noticed: hangs, dead nodes",
    Phase.REDONE: "work since the last checkpoint, lost by an interruption that is not its owner's doing",
    Phase.WAIT: "after an interruption until the next start: Slurm's delay after a requeue, and the queue",
    Phase.RESTART: "from an interruption that was found, or a later start, to the next first step",
    Phase.SUSPENDED: "suspended by Slurm",
    Phase.MAINTENANCE: "all that interruptions by maintenance cost",
    Phase.USER: "work since the last checkpoint, lost to its owner's error or wish, and what came of that",
    Phase.NEVER: "jobs that wait, or were cancelled before they started; not part of ETTR",
}
OUTSIDE = frozenset({Phase.USER, Phase.NEVER})
"""Not part of W in ETTR = R/W, as published: failures of the user's own code are left out."""

COMPLETED, RUNNING, RESIZED = "completed", "still running", "resized"
NODE, CHECK, PREEMPTED, REQUEUED = "node failure", "health check", "preemption", "requeue"
MAINTAINED, TIME_LIMIT, FAILED = "maintenance", "time limit", "own failure"
MEMORY, CANCELLED, HANG, CRASH, UNKNOWN = "out of memory", "cancelled", "hang", "crash", "unknown end"
OWN = frozenset({FAILED, MEMORY, CANCELLED})
"""Ends that are the user's own doing."""
INFRASTRUCTURE = frozenset({NODE, CHECK, HANG, CRASH})
"""Ends that count as failures in MTTF."""
GOES_ON = frozenset({COMPLETED, RUNNING, RESIZED})
"""Ends that lose nothing."""


class Span(NamedTuple):
    """A stretch of one job's life. The spans of a job follow each other without gap or overlap. Milliseconds, epoch."""

    begin_ms: int
    end_ms: int
    phase: Phase
    cause: str
    """Of the interruption that it belongs to; "" where there is none."""
    weight: int
    """GPUs, or nodes."""

    @property
    def length_ms(self) -> int:
        """How long it is."""
        return self.end_ms - self.begin_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What accounting cannot tell. Where a job has a record of its own, that is used instead."""

    init_s: float = 300.0
    """From a start to the first step: 5 to 20 min on RSC (Kokolis et al.)."""
    interval_s: float = 3600.0
    """Between two checkpoints; hourly is what Kokolis et al. assume."""
    block_s: float = 0.0
    """How long training stands still for a checkpoint; only the expected value uses it."""
    unseen_s: float = 350.0
    """From a node's death to the end of its job: SlurmdTimeout to 4/3 of it, 300 to 400 s by default."""

    def told(self) -> tuple[str, ...]:
        """For people."""
        return (
            f"first step {self.init_s:g} s after a start",
            f"a checkpoint every {self.interval_s:g} s from then on, during which it stands still {self.block_s:g} s",
            f"a dead node is noticed {self.unseen_s:g} s after its death",
        )
