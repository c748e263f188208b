"""Nodes that the job is asked to leave while it runs on: spares take over at a checkpoint. Standard library only.

Persons ask by `swap_request`, a maintenance train by SIGUSR2 and a reservation over the nodes. The exchange is that of
slow nodes (`exchange`): ranks save, the next cycle starts without the nodes. Then the job is shrunk, so that Slurm sees
that they are free. The record tells each step as SWAP.
"""

import logging
import os
import socket
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass

from trainmaster.launcher import record, swap_request
from trainmaster.launcher.supervise import slurm_side
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.group import Group
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.swap_request import SwapRequest

LOG = logging.getLogger("trainmaster.supervisor")
EVERY_S = 1.0
_AWAY_S = 1.0
"""How long an agent that was sent home may take before its node is given back."""
FINAL = frozenset({"swapped", "refused", "lapsed"})
"""Answers after which nothing more is done about a wish."""


def refusal(
    request: SwapRequest,
    *,
    attempt: int,
    now: float,
    used: Collection[str],
    spare: Collection[str],
    idle: Collection[str],
    home: str,
    roles: bool,
) -> str:
    """Why a wish cannot be granted; "" when it can. Pure.

    Args:
        request: The wish.
        attempt: Slurm's restart count now.
        now: Epoch seconds.
        used: Nodes that run ranks.
        spare: Nodes that could, and do not.
        idle: Nodes that must not any more, but that the job still has in Slurm.
        home: The node of the supervisor.
        roles: It is a job of several roles.
    """
    asked = set(request.nodes)
    if request.attempt != attempt:
        return f"it was about attempt {request.attempt}, and this is attempt {attempt}"
    if request.until is not None and now > request.until:
        return "it came too late"
    if roles:
        return "the parts of a job of several roles cannot be made smaller one by one"
    if strange := sorted(asked.difference(used, spare, idle)):
        return f"the job does not have {', '.join(strange)}"
    if home in asked:
        return f"{home} runs the job's batch script, which only a requeue can move"
    wanted, room = len(asked & set(used)), len(set(spare) - asked)
    if wanted > room:
        return f"{wanted} node(s) run ranks, and {room} spare(s) would be left to take over"
    return ""


@dataclass(slots=True, kw_only=True)
class _Swap:
    """A wish that was granted."""

    request: SwapRequest
    cycle: int
    """In which it was."""
    places: tuple[str, ...]
    left_at: float | None = None
    giving: subprocess.Popen[bytes] | None = None


class Swapping:
    """All wishes of one job."""

    def __init__(self, job: Supervised, chronicle: Chronicle) -> None:
        self.job = job
        self._record = chronicle
        self._reader = swap_request.Reader(job.run_dir)
        self._home = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self._open: list[_Swap] = []
        self._looked_s = float("-inf")
        events = record.read(job.run_dir) if job.epoch else ()
        # A supervisor before has answered these.
        self._answered = {
            str(event.detail.get("id"))
            for event in events
            if event.state == "SWAP" and event.detail.get("answer") in FINAL
        }

    def tick(self, now: float) -> None:
        """Hear new wishes, and bring those that were granted further."""
        if self.job.ending.cause is not None:
            return  # the job is being ended; whoever needs the nodes will have them
        self._hear_maintenance()
        if now - self._looked_s >= EVERY_S:
            self._looked_s = now
            for request in self._reader.fresh():
                if request.id not in self._answered:
                    self._answered.add(request.id)
                    self._answer(request)
        for swap in list(self._open):
            self._follow(swap, now)

    def _hear_maintenance(self) -> None:
        """A warning because of maintenance: where spares can take over, the job need not go back to the queue."""
        ending = self.job.ending
        if ending.notice != "maintenance" or not ending.reserved:
            return
        nodes, ending.reserved = tuple(sorted(ending.reserved)), frozenset()
        try:
            request = swap_request.leave(
                self.job.run_dir, nodes, attempt=self.job.attempt, cause="maintenance", reason="a reservation"
            )
        except OSError as error:
            LOG.warning("the job will be requeued for maintenance: %s", error)
            return
        self._answered.add(request.id)
        if self._answer(request):
            # What the ranks were asked for is the exchange now, and no requeue.
            ending.notice = None
            self.job.groups[0].forget_wish()

    def _answer(self, request: SwapRequest) -> bool:
        group = self.job.groups[0]
        component = self.job.component(group)
        used = set(group.cycle.places)
        why_not = refusal(
            request,
            attempt=self.job.attempt,
            now=time.time(),
            used=used,
            spare=component.spares(self.job.dead),
            idle=self.job.dead,
            home=self._home,
            roles=bool(self.job.roles),
        )
        if why_not:
            self._tell(request, "refused", why_not)
            return False
        places = tuple(place for node in request.nodes for place in component.places_on(node))
        running = tuple(place for place in places if place in used)
        swap = _Swap(request=request, cycle=group.cycle.number, places=places)
        self._open.append(swap)
        # Spares that are to go need nobody's checkpoint; between two cycles nor does any other.
        at_once = places if group.phase in ("pause", "check", "wait") else set(places) - used
        for place in at_once:
            self.job.dead[place] = request.cause
            self.job.links.dismiss(place)
        if running and group.phase in ("run", "stop"):
            group.cycle.leaving_for = request.cause
            leaving = tuple(dict.fromkeys((*group.cycle.leaving, *running)))
            if group.phase == "run" and not group.cycle.asked_to_save:
                group.ask_for_exchange(leaving)
            group.cycle.leaving = leaving
        self._tell(request, "accepted")
        return True

    def _follow(self, swap: _Swap, now: float) -> None:
        group = self.job.groups[0]
        if swap.giving is not None:
            if (code := swap.giving.poll()) is not None:
                self._end(swap, "swapped", "" if code == 0 else "Slurm did not take them back", given_back=code == 0)
            return
        if all(place in self.job.dead for place in swap.places):
            # The next cycle has to stand before anything is taken away under it.
            settled = group.phase == "run" and group.cycle.all_started
            swap.left_at = (swap.left_at or now) if settled else None
            if swap.left_at is not None and now - swap.left_at >= _AWAY_S:
                swap.giving = slurm_side.leave_shrinker(self.job.run_dir, self.job.job_id, swap.request.nodes)
            return
        if group.cycle.number > swap.cycle and group.phase == "run":
            self._end(swap, "refused", "the spares were gone by then")
            return
        until = swap.request.until
        if until is not None and time.time() > until and group.phase == "run":
            group.cycle.leaving = tuple(place for place in group.cycle.leaving if place not in swap.places)
            self._end(swap, "lapsed", "no checkpoint came in time")
        elif group.phase == "run" and group.cycle.asked_to_save and group.nobody_saves:
            self._stay(swap, group)

    def _stay(self, swap: _Swap, group: Group) -> None:
        """The program cannot be asked to save, so only a restart that comes anyway will bring the exchange."""
        group.cycle.asked_to_save = False
        self._tell(swap.request, "at_restart", "no rank asks should_stop() or handles SIGUSR2")

    def _end(self, swap: _Swap, answer: str, why_not: str, *, given_back: bool = False) -> None:
        self._open.remove(swap)
        self._tell(swap.request, answer, why_not, given_back=given_back)

    def _tell(self, request: SwapRequest, answer: str, why_not: str = "", *, given_back: bool = False) -> None:
        detail: dict[str, object] = {"id": request.id, "nodes": list(request.nodes), "answer": answer}
        detail |= {"why_not": why_not, "by": request.by, "reason": request.reason}
        detail |= {"given_back": True} if given_back else {}
        LOG.warning("leaving nodes: %s", detail)
        self._record.tell("SWAP", self.job.groups[0], cause=request.cause, detail=detail)
