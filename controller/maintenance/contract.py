"""What a job asks of maintenance, in its comment; and when it may be asked to leave. Pure.

    --comment "maintenance-signal=USR1 maintenance-grace=300 maintenance-not-before=2026-12-01T06:00Z"

Words in between are nobody's business here. What cannot be read counts as not said, and is told.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from trainmaster.controller.maintenance.limits import Contract
from trainmaster.slurm.values import Job

_WORD = re.compile(r"(?:^|[\s;,])maintenance-([a-z-]+)=([^\s;,]+)")
_SIGNAL = re.compile(r"(?:SIG)?([A-Z][A-Z0-9]{1,9}|[1-9]\d?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one job asks for, within what the site grants."""

    signal: str = ""
    """Sent when it is due; it then saves, and may requeue itself."""
    batch: bool = False
    """To the batch step alone: trainmaster's launcher runs it."""
    grace_s: float
    notice_s: float
    not_before: float | None = None
    deferrals: int
    unread: tuple[str, ...] = ()
    """Words that could not be read, or that ask for more than the site grants."""


def wish(job: Job, limits: Contract, *, supervised: bool, checkpoint: str) -> Wish:
    """A job's wish.

    Args:
        job: With its comment.
        limits: What the site grants.
        supervised: trainmaster's launcher runs it, so the batch step knows what to do with USR2.
        checkpoint: The comment by which jobs say that USR2 makes them save and requeue themselves.
    """
    found, unread = _read(job.comment)
    signal = found.get("signal", "")
    if not signal and (supervised or (checkpoint and checkpoint in job.comment)):
        signal = "USR2"

    def number(name: str, usual: float, most: float) -> float:
        nonlocal unread
        if name not in found:
            return usual
        asked = float(found[name])
        if asked > most:
            unread = (*unread, f"maintenance-{name}={found[name]}: {most:g} is granted")
        return min(asked, most)

    return Wish(
        signal=signal,
        batch=supervised,
        grace_s=number("grace", limits.grace_s, limits.grace_max_s),
        notice_s=number("notice", limits.notice_s, limits.notice_max_s),
        not_before=_time(found["not-before"]) if "not-before" in found else None,
        deferrals=int(number("deferrals", 0, limits.deferrals_max)),
        unread=unread,
    )


@lru_cache(maxsize=4096)
def _read(comment: str) -> tuple[dict[str, str], tuple[str, ...]]:
    found: dict[str, str] = {}
    unread = []
    for name, value in _WORD.findall(comment):
        if _is_good(name, value):
            found[name] = value.removeprefix("SIG") if name == "signal" else value
        else:
            unread.append(f"maintenance-{name}={value}")
    return found, tuple(unread)


def _is_good(name: str, value: str) -> bool:
    if name == "signal":
        return _SIGNAL.fullmatch(value) is not None
    if name == "not-before":
        return _time(value) is not None
    if name == "deferrals":
        return value.isdecimal()
    return name in ("grace", "notice") and _is_number(value)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}(\.\d+)?", text) is not None


def _time(text: str) -> float | None:
    """Epoch seconds; a time without a zone is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def due_at(asked: Wish, *, booked_at: float, wanted_at: float, deadline: float, deferred_s: float) -> float:
    """When the job may be asked to leave.

    Args:
        asked: The job's wish.
        booked_at: When its nodes were drained, which is when it could know.
        wanted_at: When the train wants the nodes.
        deadline: After that no wish counts: every host is visited within the cycle.
        deferred_s: What its deferrals have bought it so far.
    """
    at = max(wanted_at, booked_at + asked.notice_s) + deferred_s
    if asked.not_before is not None:
        at = max(at, asked.not_before)
    return min(at, max(deadline, booked_at + asked.notice_s))
