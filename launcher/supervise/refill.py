"""New nodes for a job that has lost some, without a requeue: each from a small job whose agent joins this one's.

Such a refill asks for what the job asked for, on one node, and waits in the queue like any other job. Its agent is a
guest: it may run ranks and serve as a spare, but never takes the supervisor's place, and ends with it.
Standard library only.
"""

import logging
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainmaster.launcher import plan as plans
from trainmaster.launcher.record import Event
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.links import Member, nodes_of
from trainmaster.launcher.supervise.refill_ask import Answer, Asking, Order
from trainmaster.launcher.supervise.supervised import Supervised

LOG = logging.getLogger("trainmaster.supervisor")
ASKED, JOINED = "REFILL", "JOINED"
"""States of the record: a node was asked for; an agent joined."""
LOST = frozenset({"node_death", "node_silent", "supervisor_death"})
"""How a node may be lost that is as good as any once it is back."""
WITHDRAWN = "node_withdrawn"
UNBLAMED = frozenset({WITHDRAWN, "maintenance"})
"""Why the job may have left a node that is as good as any, as soon as Slurm gives it away again."""
SETTLE_S = 3.0
"""How long fewer nodes than asked for are left alone: an agent may only be late."""
LOOK_S = 10.0
RETRY_S, RETRY_MAX_S = 30.0, 600.0
"""Until the next try when Slurm refuses a refill or one ends without its agent; doubles each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many refills to submit, and how many of those that wait to cancel."""

    submit: int = 0
    cancel: int = 0


def need_of(*, wanted: int, spares: int, healthy: int, waiting: int, missing_s: float) -> Need:
    """What is to be asked for. Pure.

    Args:
        wanted: Nodes that ranks need.
        spares: Nodes on top.
        healthy: Nodes that are there and can run ranks.
        waiting: Refills that may still come.
        missing_s: For how long nodes have been missing.
    """
    missing = wanted + spares - healthy
    if missing < waiting:
        return Need(cancel=waiting - max(missing, 0))
    if missing == waiting or (healthy >= wanted and missing_s < SETTLE_S):
        return Need()
    return Need(submit=missing - waiting)


class Refill:
    """The refills of one attempt."""

    def __init__(self, job: Supervised, chronicle: Chronicle) -> None:
        self.job = job
        self._record = chronicle
        self._on = job.plan.refill and not job.roles
        self._waiting: list[int] = []
        self._joined: dict[int, str] = {}
        """Refill -> the place that it brought."""
        self._lost: dict[str, float] = {}
        """Nodes that were lost -> when, in epoch seconds; it tells later whether their slurmd was started since."""
        self._given_back: set[str] = set()
        """Those of them that the job does not hold any more."""
        self._cancel: list[int] = []
        self._asking: Asking | None = None
        self._closing = False
        self._missing_since: float | None = None
        self._short_since: float | None = None
        self._look_at = 0.0
        self._ask_at = 0.0
        self._retry_s = RETRY_S
        self._refused = ""
        """Slurm's last words against a refill, until it takes one."""

    def recall(self, events: Iterable[Event]) -> None:
        """Take over what an earlier supervisor of this attempt has asked for."""
        for event in events:
            if event.state == ASKED:
                self._waiting += event.detail.get("jobs", ())
            elif event.state == JOINED:
                number = int(event.detail["job"])
                self._joined[number] = str(event.detail["node"])
                self._waiting = [one for one in self._waiting if one != number]

    def joined(self, member: Member) -> None:
        """An agent has come out of an allocation of its own."""
        if member.job is None or member.job in self._joined:
            return
        if member.job in self._waiting:
            self._waiting.remove(member.job)
        self._joined[member.job] = member.place
        self._lost.pop(member.node, None)
        self._given_back.discard(member.node)
        self._retry_s = RETRY_S
        LOG.info("%s joins from job %d", member.node, member.job)
        self._record.tell(JOINED, detail={"node": member.node, "job": member.job})

    def is_awaited(self, now: float) -> bool:
        """Whether a job with too few nodes should keep those that it has and wait for more."""
        if not self._on or self._refused or self._closing:
            return False
        self._short_since = self._short_since or now
        return now - self._short_since < self.job.plan.refill_wait_s

    def tick(self, now: float) -> None:
        """See what is missing, and ask for it."""
        if not self._on or self._closing:
            return
        if self._asking is not None:
            if not self._asking.done:
                return
            self._take(self._asking.answer, now)
            self._asking = None
        self._note_losses()
        need = self._need(now)
        urgent = need.submit > 0 and now >= self._ask_at
        if not (urgent or need.cancel or self._cancel or now >= self._look_at):
            return
        self._look_at = now + LOOK_S
        if not (urgent or need.cancel or self._cancel or self._waiting or self._lost.keys() - self._given_back):
            return
        for _ in range(need.cancel):
            self._cancel.append(self._waiting.pop())
        self._asking = Asking(self._order(need.submit if urgent else 0))
        self._cancel = []

    def close(self) -> None:
        """The attempt is over: no refill shall start, or stay, for it."""
        if self._closing or not self._on:
            return
        self._closing = True
        numbers = (*self._waiting, *self._joined, *self._cancel)
        if self._asking is not None and not self._asking.done:
            return  # what it submits finds the attempt over and ends by itself
        if numbers:
            self._asking = Asking(Order(job_id=self.job.job_id, cancel=numbers))

    @property
    def closed(self) -> bool:
        """Whether nothing is under way any more."""
        return self._asking is None or self._asking.done

    def _note_losses(self) -> None:
        members = self.job.links.members
        for place, why in self.job.dead.items():
            if why in LOST and place not in self._lost and place not in members:
                self._lost[place] = time.time()
        for place in [place for place in self._lost if place in members]:
            del self._lost[place]  # it was only out of sight
        for number, place in list(self._joined.items()):
            if place not in members:
                # Its node must not be kept for an agent that is gone.
                self._cancel.append(number)
                del self._joined[number]

    def _need(self, now: float) -> Need:
        (component,) = self.job.components
        plan, healthy = self.job.plan, len(component.healthy(self.job.dead))
        if healthy >= plan.nodes:
            self._short_since = None
        if healthy >= plan.nodes + plan.spares:
            self._missing_since = None
            self._dismiss(healthy - plan.nodes - plan.spares)
        else:
            self._missing_since = self._missing_since or now
        missing_s = now - (self._missing_since or now)
        return need_of(
            wanted=plan.nodes, spares=plan.spares, healthy=healthy, waiting=len(self._waiting), missing_s=missing_s
        )

    def _dismiss(self, count: int) -> None:
        """Send guests home that nobody needs: nodes came back by themselves."""
        (component,) = self.job.components
        idle = [place for place in component.spares(self.job.dead) if place in self._joined.values()]
        for place in idle[:count]:
            self.job.links.dismiss(place)

    def _order(self, submit: int) -> Order:
        plan, members = self.job.plan, self.job.links.members
        words = [plan.python, "-P", "-m", "trainmaster.launcher.node.join", plan.run_dir, str(self.job.job_id)]
        last_line = f"exec {shlex.join([*words, str(self.job.attempt)])}\n"
        blamed = [place for place, why in self.job.dead.items() if why not in LOST | UNBLAMED]
        return Order(
            job_id=self.job.job_id,
            submit=submit,
            script=_script(self.job.run_dir) + last_line,
            waiting=tuple(self._waiting),
            cancel=tuple(self._cancel),
            present=nodes_of(members),
            lost=dict(self._lost),
            blamed=nodes_of(blamed),
            exclude=plan.exclude,
        )

    def _take(self, answer: Answer, now: float) -> None:
        self._waiting = [one for one in self._waiting if one not in answer.ended] + list(answer.submitted)
        for node in answer.given_back:
            LOG.info("gave %s back to Slurm", node)
            if node in self._lost:  # else a refill has brought it back meanwhile
                self._given_back.add(node)
        if answer.submitted:
            self._refused = ""
            self._record.tell(ASKED, detail={"jobs": list(answer.submitted)})
        if answer.refused and answer.refused != self._refused:
            self._refused = answer.refused
            LOG.warning("Slurm takes no refill: %s", answer.refused)
            self._record.tell(ASKED, detail={"jobs": [], "refused": answer.refused})
        if answer.back and not answer.submitted:
            self._ask_at = now  # Slurm refuses a job that excludes all nodes there are; now there is one more
        elif answer.refused or answer.ended:
            self._ask_at = now + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)


def _script(run_dir: Path) -> str:
    return (run_dir / plans.REFILL).read_text()
