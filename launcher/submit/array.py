"""Many calls or programs as one array: one sbatch, and one job for each task.

Slurm takes no index from MaxArraySize on, and a site may limit how many jobs a user has in the queue. What does not fit
into one array is sent as several.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainmaster.clock import Clock
from trainmaster.errors import SubmitRefused, UsageError
from trainmaster.launcher.submit.submission import Submission

log = logging.getLogger("trainmaster")

TASKS_MAX = 1_000_000
"""The most tasks that are submitted at once: each costs the submitter memory, and Slurm a job (its MaxJobCount is 10000
by default)."""

ROOM_PAUSES_S = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Between two tries to submit the rest while a limit of the site lets no more jobs into the queue."""

# What Slurm 22.05 says.
_TOO_LARGE = "Invalid job array specification"
_QUEUE_FULL = ("SubmitJobLimit", "MaxSubmitJob", "job submit limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One array that Slurm has accepted."""

    submission: Submission
    tasks: range
    """Which of all tasks it holds."""
    indices: tuple[int, ...]
    """Their indices in the array."""


def require_count(count: int, *, or_more: bool = False) -> None:
    """Raise UsageError for more tasks than are taken; `or_more`: there may be still more of them."""
    if count > TASKS_MAX:
        asked = f"more than {TASKS_MAX:,}" if or_more else f"{count:,}"
        raise UsageError(
            f"could not make an array of {asked} tasks: at most {TASKS_MAX:,} are taken",
            hint="let each task do more, or submit them as several arrays; what Slurm itself takes is often less: "
            "`scontrol show config | grep -E 'MaxArraySize|MaxJobCount'`",
        )


def require_indices(calls: int, indices: Sequence[int] | None) -> None:
    """Raise UsageError for indices that are not as many as the calls."""
    if indices is not None and len(indices) != calls:
        raise UsageError(
            f"{calls} calls, but {len(indices)} indices",
            hint="give one index for each call, or none: then they count from 0",
        )


def parts(tasks: range, size: int) -> tuple[range, ...]:
    """Tasks in as few parts of at most `size` as possible, all about as long.

    >>> parts(range(10), 4)
    (range(0, 3), range(3, 6), range(6, 10))
    """
    number = -(-len(tasks) // size)
    ends = [tasks.start + len(tasks) * part // number for part in range(number + 1)]
    return tuple(range(first, last) for first, last in pairwise(ends))


def send_all(
    count: int,
    send: Callable[[range, tuple[int, ...]], Submission],
    *,
    indices: Sequence[int] | None = None,
    size_max: Callable[[], int],
    others: Callable[[], bool],
    clock: Clock,
) -> Iterator[Sent]:
    """Send `count` tasks as one array, or as several where Slurm wants that.

    Args:
        count: How many tasks.
        send: Submits a range of the tasks under the given indices. Raises SubmitRefused.
        indices: The indices that the tasks must have; by default they count from 0 in each array.
        size_max: From which index on this cluster takes none. Asked only after a refusal.
        others: Whether this user has jobs in the queue, whose end will make room.
        clock: The clock.

    Raises SubmitRefused; what was yielded by then is in the queue.
    """
    waiting = [range(count)]
    pauses_s = iter(ROOM_PAUSES_S)
    told = False
    while waiting:
        part = waiting.pop(0)
        wanted = tuple(range(len(part))) if indices is None else tuple(indices[task] for task in part)
        try:
            submission = send(part, wanted)
        except SubmitRefused as refused:
            if _TOO_LARGE in refused.message:
                waiting[:0] = parts(part, _size(wanted, refused, size_max(), fixed=indices is not None))
            elif not any(word in refused.message for word in _QUEUE_FULL):
                raise
            elif len(part) > 1:
                waiting[:0] = parts(part, -(-len(part) // 2))
            elif others():
                if not told:
                    told = True
                    log.warning("%d of %d tasks are in the queue, more are not let in; waiting", part.start, count)
                clock.sleep_s(next(pauses_s, ROOM_PAUSES_S[-1]))
                # All that is left as one again: by now more than a single task may fit.
                waiting = [range(part.start, count)]
            else:
                raise
            continue
        pauses_s = iter(ROOM_PAUSES_S)
        yield Sent(submission=submission, tasks=part, indices=wanted)


def _size(indices: Sequence[int], refused: SubmitRefused, size_max: int, *, fixed: bool) -> int:
    """How many tasks an array may have. Raises SubmitRefused when fewer tasks in an array would not help."""
    if fixed and max(indices) >= size_max:
        raise SubmitRefused(
            refused.message,
            hint=f"this cluster takes no index from {size_max} on (MaxArraySize); use lower ones, or none",
        )
    if len(indices) <= size_max:
        raise refused
    return size_max
