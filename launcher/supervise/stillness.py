"""Whether ranks that report no steps still do anything: write, or use a processor. Only where somebody asked. Pure.

A rank that waits in NCCL keeps a processor busy, and one that computes may write nothing for an hour. So each has a
limit of its own, and the person who sets it knows the program.
"""

from dataclasses import dataclass, field

from trainmaster.launcher.supervise.hang import Hang

BUSY_SHARE = 0.05
"""Of one processor and rank; below it are threads that only watch."""


@dataclass(slots=True)
class _Place:
    """What is known of the ranks of one place."""

    written_bytes: int
    cpu_s: float
    heard: float
    wrote: float
    """When they were last seen to have written."""
    busy: float
    """When they were last seen to compute."""
    ranks: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class StillWatch:
    """The ranks of one group in this cycle. Time is the supervisor's own."""

    quiet_s: float | None = None
    """How long no rank may write anything; None: however long."""
    idle_s: float | None = None
    """How long no rank may use a processor; None: however long."""
    _places: dict[str, _Place] = field(default_factory=dict)

    @property
    def asked(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.quiet_s or self.idle_s)

    def restart(self) -> None:
        """A new cycle."""
        self._places = {}

    def forgive(self, gap_s: float) -> None:
        """We ourselves heard nothing for a while."""
        for place in self._places.values():
            place.wrote += gap_s
            place.busy += gap_s
            place.heard += gap_s

    def hear(self, name: str, ranks: tuple[int, ...], written_bytes: int, cpu_s: float, now: float) -> None:
        """Take in what the running ranks of a place have written and computed so far."""
        known = self._places.get(name)
        if not ranks:
            self._places.pop(name, None)
            return
        if known is None or known.ranks != ranks:
            # Those that have ended took their share along.
            began = now if known is None else known.wrote
            self._places[name] = _Place(written_bytes, cpu_s, now, began, now if known is None else known.busy, ranks)
            return
        if written_bytes != known.written_bytes:
            known.written_bytes, known.wrote = written_bytes, now
        if now > known.heard and (cpu_s - known.cpu_s) / (now - known.heard) >= BUSY_SHARE * len(ranks):
            known.busy = now
        known.cpu_s, known.heard = cpu_s, now

    def verdict(self, now: float) -> Hang | None:
        """The hang: all ranks have been still for longer than was allowed."""
        if not self._places:
            return None
        ranks = tuple(sorted(rank for place in self._places.values() for rank in place.ranks))
        for limit_s, last, how in (
            (self.quiet_s, max(place.wrote for place in self._places.values()), "no rank has written anything"),
            (self.idle_s, max(place.busy for place in self._places.values()), "no rank has used a processor"),
        ):
            if limit_s and now - last > limit_s:
                return Hang(ranks=ranks, still_s=now - last, limit_s=limit_s, section="", how=how)
        return None
