"""One node's part of a tournament: it meets the others pair by pair and times an all-reduce with each.

Stop and check plays it between two cycles of a job, `trainmaster health validate` in a job of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trainmaster.health.deep import pairs, schedule

WRITE_EVERY_S = 5.0
"""Thousands of nodes tell in step, on storage that others use as well."""


class Played(NamedTuple):
    """What came of it here."""

    rounds: int
    """0 when the tournament had begun without this node."""
    nodes: tuple[str, ...] = ()
    """Who took part."""
    note: str = ""
    """What went wrong last, if anything did."""


def play(
    node: str,
    means: pairs.Means,
    times: dict[str, float | None],
    *,
    pair_s: float,
    limit_s: float,
    began_s: float,
    tell: Callable[[int], None],
) -> Played:
    """Play the rounds that fit, writing into `times` what an all-reduce took with each partner; None: not through.

    Args:
        node: this one.
        means: how nodes meet; still open afterwards.
        times: by partner, filled while it goes on.
        pair_s: how long each pair is measured.
        limit_s: of the whole check, which began at `began_s` (monotonic).
        tell: leaves what is known so far for whoever asked; told the number of rounds to come.
    """
    round_s = 2 * pair_s + 0.3

    def rounds(nodes: Sequence[str]) -> int:
        left_s = 0.8 * limit_s - (time.monotonic() - began_s)
        return schedule.fitting(schedule.count(len(nodes)), round_s=round_s, left_s=left_s)

    patience_s = limit_s / 3
    found = means.gather(patience_s=patience_s, rounds=rounds)
    if found is None:
        return Played(rounds=0, note="it came when the tournament had begun without it")
    note = ""
    wrote_s = time.monotonic()
    for meetings in schedule.rounds(found["nodes"], found["rounds"]):
        partner = schedule.partner_of(node, meetings)
        if partner is None:
            continue
        try:
            meeting = means.meet(partner, patience_s=patience_s / 2)
            times[partner] = pairs.time_pair(meeting, pair_s=pair_s)
        except (RuntimeError, OSError) as error:
            times[partner] = None
            note = f"with {partner}: {str(error).splitlines()[0][:200]}"
        if time.monotonic() - wrote_s > WRITE_EVERY_S:
            wrote_s = time.monotonic()
            tell(found["rounds"])
    return Played(rounds=found["rounds"], nodes=tuple(found["nodes"]), note=note)
