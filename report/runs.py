"""Job runs: all attempts of a job together, out of rows that come one at a time. Pure."""

from collections.abc import Iterable, Iterator

from trainmaster.slurm.accounting import Row

Run = tuple[Row, ...]
"""The attempts of one job, in their order."""

_COMES_BACK = frozenset({"NODE_FAIL", "REQUEUED", "PREEMPTED", "RESIZING", "BOOT_FAIL", "REQUEUE_HOLD", "SPECIAL_EXIT"})
"""Ends after which the same job may have another attempt."""
WAITING_MAX = 200_000
"""Jobs that may wait for their next attempt; a month of a big site has some thousands."""


def runs(rows: Iterable[Row], *, waiting_max: int = WAITING_MAX) -> Iterator[Run]:
    """Runs from rows in which attempts of a job stand together, or later ones further down, as sacct prints them.

    Memory: the jobs whose last attempt so far ended such that another may follow. When there are more than
    `waiting_max`, those that have waited longest are given out as they are; a later attempt is then a run of its own.
    """
    waiting: dict[int, list[Row]] = {}
    current: list[Row] = []
    for row in rows:
        if current and row.job_id == current[0].job_id and _same(current[0], row):
            current.append(row)
            continue
        if current:
            if current[-1].state in _COMES_BACK:
                waiting[current[0].job_id] = current
                if len(waiting) > waiting_max:
                    yield _ordered(waiting.pop(next(iter(waiting))))
            else:
                yield _ordered(current)
        before = waiting.pop(row.job_id, None) if waiting else None
        if before is not None and not _same(before[0], row):
            yield _ordered(before)  # the number has come round again
            before = None
        current = [*before, row] if before is not None else [row]
    if current:
        waiting[current[0].job_id] = current
    for left in waiting.values():
        yield _ordered(left)


def _same(one: Row, other: Row) -> bool:
    return one.user == other.user and one.shown == other.shown


def _ordered(attempts: list[Row]) -> Run:
    if len(attempts) == 1:
        return (attempts[0],)
    # One that ran while a file was written and has ended since stands there twice: the end counts.
    latest: dict[tuple[int | None, int | None], Row] = {}
    for row in attempts:
        key = (row.submit_s, row.start_s)
        if key not in latest or latest[key].end_s is None:
            latest[key] = row
    return tuple(sorted(latest.values(), key=lambda row: (row.submit_s or 0, row.start_s or 1 << 60)))
