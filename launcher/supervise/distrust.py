"""When training has diverged: from which step on what was saved must not be gone on from. Standard library only.

A value is seen once a second, and a bad one a few times before that is believed. Meanwhile checkpoints are published,
and retention counts them. What was saved after the last step that was seen to be good is under suspicion; where nothing
good was seen, so is what the cycle itself went on from. `trainmaster.Checkpoints` finds the marks that are left here.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainmaster.launcher import record
from trainmaster.launcher.rank import manifest, saves
from trainmaster.launcher.supervise.values import Divergence

FROM = "distrusted_from"
"""In the record: the first step whose checkpoints are not trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What is not trusted."""

    since: int
    """The first step whose state may be bad."""
    good: int
    """The last step at which the value was seen to be good in this cycle; -1 for none."""
    began: int | None
    """The step of the checkpoint that the cycle went on from, if it told us."""


def doubt_of(found: Divergence, *, began: int | None) -> Doubt:
    """What a divergence throws doubt upon. Pure.

    A good value at step g shows the state before g's update, that is the one saved after step g - 1.

    >>> doubt_of(Divergence(name="loss", value=float("nan"), step=62, good=60), began=50).since
    60
    >>> doubt_of(Divergence(name="loss", value=float("nan"), step=53), began=50).since
    50
    """
    since = found.good if found.good >= 0 else max(began or 0, 0)
    return Doubt(since=since, good=found.good, began=began)


def began_from(run_dir: Path, *, attempt: int, cycle: int) -> int | None:
    """The step of the checkpoint that a cycle loaded, as far as `trainmaster.Checkpoints` wrote it down."""
    loads = [
        line
        for line in saves.read(run_dir)
        if line.kind == saves.LOAD and (line.attempt, line.cycle) == (attempt, cycle)
    ]
    return loads[-1].step if loads else None


def mark(run_dir: Path, *, since: int, good: int, why: str) -> dict[str, Any]:
    """Mark all published checkpoints of a job, or role, from a step on. Its ranks must be gone. Again does no harm.

    Returns, for the record, which are marked, and the folders that could not be looked into.
    """
    folders = dict.fromkeys(str(line.detail["folder"]) for line in saves.read(run_dir) if line.kind == saves.FOLDER)
    note = {"since": since, "good": good, "why": why, "epoch_s": round(time.time(), 1)}
    marked: list[str] = []
    missed: list[str] = []
    for folder in map(Path, folders):
        try:
            if not folder.is_dir():
                raise FileNotFoundError(folder)
            marked += manifest.mark_diverged(folder, note)
        except OSError:
            # In a container it may have another name. The next cycle's ranks are told, too.
            missed.append(str(folder))
    told: dict[str, Any] = {FROM: since, "good_step": good, "distrusted": marked[-32:]}
    return told | ({"not_marked": missed} if missed else {})


def to_detail(found: Divergence) -> dict[str, Any]:
    """A divergence for the record."""
    return {**asdict(found), "value": record.plain(found.value)}


def recall(events: Sequence[record.Event]) -> tuple[record.Event | None, Divergence | None]:
    """By one group's record: the divergence after which no cycle has come to a step yet; and what it was, if unjudged.

    It is unjudged when the supervisor that noted it died before it said what follows.
    """
    last: record.Event | None = None
    judged = False
    for event in events:
        if event.state == "DIVERGED":
            last, judged = event, False
        elif event.state == "PROGRESS":
            last = None
        elif "diverged" in event.detail:
            judged = True
    if last is None or judged:
        return last, None
    try:
        told = last.detail["divergence"]
        return last, Divergence(**{**told, "value": float(told["value"])})
    except (LookupError, TypeError, ValueError):
        return last, None


def in_words(detail: dict[str, Any]) -> str:
    """For people: what is known of what was saved."""
    since, good = detail[FROM], detail.get("good_step", -1)
    seen = f"the last good value was seen at step {good}" if good >= 0 else "no good value was seen in this cycle"
    marked = ", ".join(detail.get("distrusted", ())) or "none of trainmaster.Checkpoints was there"
    text = f"{seen}: do not go on from what was saved after step {since} or later (marked: {marked})"
    return text + "".join(f"; {folder} could not be marked" for folder in detail.get("not_marked", ()))
