"""Keeps the facts fresh: looks at Slurm and at the controller's journal while somebody watches, and tells them.

Two commands go to slurmctld at each look, however many browsers are open; with none open a look a minute is enough to
go on drawing curves.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trainmaster.controller import observe
from trainmaster.controller.decide import decide
from trainmaster.controller.journal import Event, Journal
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.errors import ControllerError, SlurmError
from trainmaster.page import tracks
from trainmaster.page.facts import Facts, Next, Wiring, entries, jobs_of, nodes_of, pods_of, spoken
from trainmaster.page.lives import Lives
from trainmaster.slurm import conf

LOG = logging.getLogger("trainmaster.page")
FEED_MAX = 300
IDLE_S = 60.0
"""Between two looks while nobody watches."""
HISTORY_S = 7 * 86400.0
"""How far back lines of capacity go."""
_NEXT_MAX = 40


class Watch:
    """One thread that looks, and what it saw last."""

    def __init__(
        self,
        door: observe.Door,
        journal: Path,
        policy: Policy,
        *,
        every_s: float,
        wiring: Callable[[], Wiring] = Wiring,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._door, self._journal, self._policy = door, journal, policy
        self._every_s, self._wiring, self._clock = every_s, wiring, clock
        self._leaf_of: dict[str, str] | None = None
        self._wake, self._ends = threading.Event(), threading.Event()
        self._seen: Callable[[Facts, Facts], None] = lambda old, new: None
        self._watched: Callable[[], bool] = lambda: True
        self._broke: Callable[[], None] = lambda: None
        self.broken = False
        self._idling = False
        self.facts = Facts(
            cluster=conf.cluster_name(os.environ.get("SLURM_CONF", "")) or "Slurm",
            at=0.0,
            controller_at=0.0,
            tick_s=policy.tick_s,
            every_s=every_s,
        )
        self.look: Snapshot | None = None
        self.memory = Memory()
        self.lives = Lives()

    def run(
        self,
        seen: Callable[[Facts, Facts], None],
        watched: Callable[[], bool],
        broke: Callable[[], None] = lambda: None,
    ) -> threading.Thread:
        """Begin, in a thread of its own, to tell `seen` of every change, more often while `watched`.

        `broke` is called when it cannot go on: a page that nobody refreshes must not go on looking alive.
        """
        self._seen, self._watched, self._broke = seen, watched, broke
        thread = threading.Thread(target=self._go_on, name="watch", daemon=True)
        thread.start()
        return thread

    def hurry(self) -> None:
        """Look now."""
        self._wake.set()

    def welcome(self) -> None:
        """Somebody has come: look soon, unless that was just done."""
        if self._idling or self._clock() - self.facts.at > self._every_s:
            self._wake.set()

    def stop(self) -> None:
        """End the thread after its look."""
        self._ends.set()
        self._wake.set()

    def _go_on(self) -> None:
        try:
            self._look_on()
        finally:
            if not self._ends.is_set():
                self.broken = True
                self._broke()

    def _look_on(self) -> None:
        while not self._ends.is_set():
            self._wake.clear()
            old, new = self.facts, self.again()
            self.facts = new
            if new != old:
                self._seen(old, new)
            # Told before it asks whether anybody watches, so that nobody who comes between the two waits for a minute.
            self._idling = True
            self._idling = not self._watched()
            self._wake.wait(IDLE_S if self._idling else self._every_s)

    def again(self) -> Facts:
        """The facts as of now; the old ones with the reason where Slurm or the journal does not answer."""
        now = self._clock()
        facts = self._with_slurm(now)
        return self._with_journal(facts, now)

    def _with_slurm(self, now: float) -> Facts:
        try:
            if self._leaf_of is None:
                self._leaf_of = observe.leaf_of(self._door)
            look = observe.look(self._door, now=now, leaf_of=self._leaf_of)
        except SlurmError as error:
            LOG.warning("Slurm: %s", error.message)
            return replace(self.facts, trouble=error.message.splitlines()[0][:300])
        self.look = look
        self.lives.hear(look, now)
        return replace(self.facts, at=now, trouble="")

    def _with_journal(self, facts: Facts, now: float) -> Facts:
        told: dict[str, list[tuple[float, int]]] = {}
        try:
            journal = Journal(self._journal, read_only=True)
        except ControllerError:
            self.memory = Memory()
        else:
            try:
                self.memory = journal.load() or Memory()
                facts = replace(facts, feed=entries(journal.latest(FEED_MAX)))
                told = journal.counted(now - HISTORY_S)
            finally:
                journal.close()
        look, memory = self.look, self.memory
        if look is None:
            return facts
        wiring = self._wiring()
        jobs, total = jobs_of(look, memory)
        coming, trips = self._plan(look, memory, now)
        return replace(
            facts,
            controller_at=memory.at,
            pods=pods_of(look, wiring),
            wiring=wiring.source,
            nodes=nodes_of(look, memory, wiring),
            jobs=jobs,
            jobs_total=total,
            trains=tracks.trains_of(memory.maintenance, len(look.nodes)),
            lines=tracks.lines_of(look, self._policy.guarantee, told),
            next=coming,
            trips=trips,
        )

    def _plan(self, look: Snapshot, memory: Memory, now: float) -> tuple[tuple[Next, ...], tuple[str, ...]]:
        """What the controller will find to do, by its own decision; nothing where it is not at work."""
        if not memory.at or now - memory.at > max(30.0, 6 * self._policy.tick_s):
            return (), ()
        plan = decide(look, memory, self._policy, now)
        will = [
            Next(kind=act.kind.value, targets=tuple(map(spoken, act.targets)), why=act.why, train=act.train)
            for act in plan.acts
        ]
        will += [
            Next(kind=one.wanted.value, targets=(spoken(one.subject),), why=one.why, refused=one.rule)
            for one in plan.refused
        ]
        return tuple(will[:_NEXT_MAX]), tuple(trip.why for trip in plan.trips)

    def events(self, subject: str) -> tuple[Event, ...]:
        """The chain of evidence about a node, job or train, the oldest first."""
        try:
            journal = Journal(self._journal, read_only=True)
        except ControllerError:
            return ()
        try:
            return journal.events(subject)
        finally:
            journal.close()

    def ask(self, verb: str, target: str, *, by: str, why: str) -> None:
        """Leave a request for the controller. Raises ControllerError."""
        journal = Journal(self._journal, read_only=True)
        try:
            journal.ask(verb, target, by=by, why=why)
        finally:
            journal.close()
