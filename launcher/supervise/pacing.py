"""What is done about slow ranks: told, kept as evidence, and, if the user wants it, exchanged. Standard library only.

`pace.json` in the run folder shows the last window while the job runs. A node is exchanged by asking the ranks for a
checkpoint, as before a time limit; once they have saved and left, the next cycle starts without it (`exchange`).
"""

import json
import logging
import os
import statistics
import time
from dataclasses import asdict
from typing import Any

from trainmaster.launcher.supervise import exchange, suspects
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.decide import Action, Decision
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.links import node_of, nodes_of
from trainmaster.launcher.supervise.pace import Pace
from trainmaster.launcher.supervise.supervised import Supervised

LOG = logging.getLogger("trainmaster.supervisor")
FILE = "pace.json"
OFF, OBSERVE, SWAP = "off", "observe", "swap"
_SHOWN = 8
"""Ranks in `pace.json`: the slowest."""


class Pacing:
    """The eye that a supervisor keeps on the pace of all groups."""

    def __init__(self, job: Supervised, chronicle: Chronicle) -> None:
        self.job = job
        self._record = chronicle
        self._told: dict[Group, tuple[int, frozenset[int]]] = {}
        """The stragglers that were told last, and in which cycle."""

    def tick(self, group: Group, now: float) -> None:
        """See whether a window of a running group has ended, and act on what it showed."""
        if group.pace is None or group.phase != "run" or self.job.ending.cause is not None:
            return
        if group.cycle.leaving and group.cycle.leaving_for == exchange.CAUSE and group.nobody_saves:
            self._stay(group)
        paces = group.pace.close(now)
        if paces is None:
            return
        self._show(group, paces)
        number, told = self._told.get(group, (-1, frozenset()))
        told = told if number == group.cycle.number else frozenset()
        if told != group.pace.stragglers.keys():
            self._told[group] = (group.cycle.number, frozenset(group.pace.stragglers))
            self._tell(group, told)

    def leave_out(self, group: Group) -> None:
        """The supervisor before has found nodes slow, and ranks start anyway: spares take over, where there are any.

        Without this a takeover would forget what windows of minutes had shown, and wait for as many again.
        """
        there = self.job.component(group).open_to(group, self.job.dead)
        slow = [place for place in group.cycle.leaving if place in there]
        restart = Decision(action=Action.RESTART, cause=exchange.CAUSE)
        places = exchange.extended(restart, slow, healthy=len(there), wanted=group.wanted).exclude
        for place in places:
            self.job.dead[place] = exchange.CAUSE
            self.job.links.dismiss(place)
        if places:
            detail = {"answer": "swapped", "why_not": ""}
            self._record.tell("STRAGGLER", group, cause="straggler", dead=nodes_of(places), detail=detail)

    def _tell(self, group: Group, told: frozenset[int]) -> None:
        assert group.pace is not None
        found = list(group.pace.stragglers.values())
        wandering = [one.rank for one in found if group.slow_at.setdefault(one.rank, one.node) != one.node]
        # Evidence that was given once is not given again when another rank joins.
        blamed = dict.fromkeys(one.node for one in found if one.rank not in wandering and one.rank not in told)
        places = tuple(place for place in group.cycle.places if node_of(place) in blamed)
        answer, why_not = self._answer(group, places)
        detail: dict[str, Any] = {
            "stragglers": [
                {"rank": one.rank, "node": one.node, "own_s": one.own_s, "excess": one.excess, "z": one.z}
                for one in found[:64]
            ],
            "windows": group.pace.windows,
            "answer": answer,
            "why_not": why_not,
            "slow_everywhere": wandering[:64],
        }
        LOG.warning("%sstragglers: %s", group.label, detail)
        self._record.tell("STRAGGLER", group, cause="straggler", detail=detail)
        cycle = group.cycle.number
        suspects.add(
            self.job.run_dir, "straggler", tuple(blamed), attempt=self.job.attempt, cycle=cycle, epoch_s=time.time()
        )

    def _answer(self, group: Group, places: tuple[str, ...]) -> tuple[str, str]:
        """Begin to exchange places, if that is wished for: what is done, and why not more."""
        if group.plan.stragglers != SWAP or not places:
            return "none", ""
        if not self.job.component(group).spares(self.job.dead):
            return "none", "there is no spare"
        if group.cycle.leaving or group.cycle.asked_to_save:
            # An exchange is under way, or somebody else has asked the ranks to save.
            group.cycle.leaving = (*group.cycle.leaving, *places)
            return "at_restart", ""
        group.ask_for_exchange(places)
        return "swap", ""

    def _stay(self, group: Group) -> None:
        """The program cannot be asked to save, so only a restart that comes anyway will bring the exchange."""
        if group.cycle.asked_to_save:
            group.cycle.asked_to_save = False
            LOG.warning("%sno rank takes orders; slow nodes are exchanged at the next restart", group.label)
            detail = {"answer": "at_restart", "why_not": "no rank asks should_stop() or handles SIGUSR2"}
            self._record.tell("STRAGGLER", group, cause="straggler", detail=detail)

    def _show(self, group: Group, paces: tuple[Pace, ...]) -> None:
        assert group.pace is not None
        slowest = sorted(paces, key=lambda one: -one.own_s)[:_SHOWN]
        view = {
            "epoch_s": round(time.time(), 1),
            "cycle": group.cycle.number,
            "windows": group.pace.count,
            "ranks": len(paces),
            "step_s": statistics.median(one.step_s for one in paces),
            "own_s": statistics.median(one.own_s for one in paces),
            "slowest": [asdict(one) for one in slowest],
            "stragglers": sorted(group.pace.stragglers),
        }
        folder = self.job.run_dir / self.job.component(group).name
        temporary = folder / f".{FILE}.{os.getpid()}"
        try:
            temporary.write_text(json.dumps(view))
            temporary.rename(folder / FILE)
        except OSError:
            pass  # it is only there to be looked at
