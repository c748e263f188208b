"""Reservations of ours: their names, and which of them somebody left behind. Pure.

They carry no MAINT flag: Slurm then refuses two over one node, so two validations cannot have the same one, and it
refuses nodes that are busy. Nobody else's jobs start there meanwhile.
"""

import re
from collections.abc import Iterable

from trainmaster.slurm.values import Job, Reservation

_NAME = re.compile(r"hc-validate-(\d+)-(\d+)")
YOUNG_S = 120.0
"""A reservation without a job may be somebody's who is about to submit it, or to read what it said."""


def name(epoch_s: float, pid: int, *, keep: bool = False) -> str:
    """Of a new one, and of its jobs; one that is to be kept is not taken for one that was left behind."""
    return f"hc-{'keep' if keep else 'validate'}-{int(epoch_s)}-{pid}"


def stale(reservations: Iterable[Reservation], jobs: Iterable[Job], *, now_s: float) -> tuple[str, ...]:
    """Those that a validation has left behind: no job of theirs is left, and they are not new."""
    at_work = {job.name for job in jobs if job.active}
    found = []
    for one in reservations:
        match = _NAME.fullmatch(one.name)
        if match is not None and one.name not in at_work and now_s - int(match[1]) > YOUNG_S:
            found.append(one.name)
    return tuple(found)


def holders(reservations: Iterable[Reservation], nodes_of: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """By node, the reservation that it is in now; `nodes_of`: by reservation, its nodes."""
    return {node: one.name for one in reservations if one.state == "ACTIVE" for node in nodes_of.get(one.name, ())}
