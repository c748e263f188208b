"""What the record and the run folder say of slow ranks, in words. Standard library only."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainmaster.launcher.record import Event
from trainmaster.launcher.supervise import pacing

_SHOWN = 4


def pace_of(run_dir: Path) -> dict[str, Any] | None:
    """The last window of a running job; None before the first."""
    try:
        view: dict[str, Any] = json.loads((run_dir / pacing.FILE).read_text())
    except (OSError, ValueError):
        return None
    return view


def stragglers_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Every finding of slow ranks, and what was done about it, as the record has it."""
    return [
        {"epoch_s": event.epoch_s, "attempt": event.attempt, "cycle": event.cycle, "role": event.role, **event.detail}
        for event in events
        if event.state == "STRAGGLER"
    ]


def pace_line(view: dict[str, Any]) -> str:
    """The last window in one line.

    >>> slow = {"rank": 3, "node": "n02", "own_s": 0.4, "excess": 0.333}
    >>> pace_line({"step_s": 0.5, "own_s": 0.3, "slowest": [slow]})
    'a step takes 500 ms, 300 ms of it outside collectives (the median rank); rank 3 on n02 400 ms'
    """
    text = f"a step takes {_ms(view['step_s'])}, {_ms(view['own_s'])} of it outside collectives (the median rank)"
    slowest = view["slowest"][:1]
    return text + "".join(f"; rank {one['rank']} on {one['node']} {_ms(one['own_s'])}" for one in slowest)


def straggler_line(found: dict[str, Any]) -> str:
    """One finding in one line."""
    where = f"{found['attempt']}.{found['cycle']}"
    ranks = found.get("stragglers")
    if found.get("answer") == "swapped":
        return f"{where}: spares took over from what an earlier supervisor had found slow"
    if ranks is None:
        return f"{where}: {found.get('why_not', '')}; a spare will take over at the next restart"
    if not ranks:
        return f"{where}: no rank is slow any more"
    named = [f"rank {one['rank']} on {one['node']} takes {one['excess']:.0%} longer" for one in ranks[:_SHOWN]]
    named += [f"{len(ranks) - _SHOWN} more"] if len(ranks) > _SHOWN else []
    text = f"{where}: {', '.join(named)} outside collectives than the median rank"
    if found.get("slow_everywhere"):
        text += "; it was slow on another node too, so it is the program's part there that is slow, not the node"
    answers = {"swap": "a spare takes over at a checkpoint", "at_restart": "a spare takes over at the next restart"}
    answer = answers.get(found.get("answer", ""), "")
    return "; ".join(filter(None, (text, answer, found.get("why_not", ""))))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def diagnoses_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Every round of stop and check, as the record has it."""
    return [
        {"epoch_s": event.epoch_s, "attempt": event.attempt, "cycle": event.cycle, **event.detail}
        for event in events
        if event.state == "DIAGNOSED"
    ]


def diagnosis_line(found: dict[str, Any]) -> str:
    """One round in one line.

    >>> guilty = [{"nodes": ["n02"], "why": "it did not answer"}]
    >>> diagnosis_line({"attempt": 0, "cycle": 1, "guilty": guilty, "left_out": ["n02"], "took_s": 7.31})
    'after 0.1, 7.3 s: n02: it did not answer; left out: n02'
    """
    named = [f"{' and '.join(one['nodes'])}: {one['why']}" for one in found.get("guilty", ())]
    text = "; ".join(named) if named else "no node is to blame"
    left = ", ".join(found.get("left_out", ()))
    if named:
        text += f"; left out: {left}" if left else "; nobody is left out, for want of spares"
    after = f"after {found['attempt']}.{found['cycle']}, {found['took_s']:.1f} s"
    return "; ".join([f"{after}: {text}", *found.get("notes", ())])
