"""Ranks that start and end together: all ranks of a job, all of a role, or one replica that restarts alone.

A group lives through cycles: wait -> run -> stop -> pause -> run … -> done. It tells the agents of its places what to
do and takes in what they say; what follows from a cycle's end is `decide`'s business, and acting on that the
supervisor's. A place is an agent, by its key in `Links`. Standard library only.
"""

import logging
import time
from dataclasses import asdict
from typing import Any

from trainmaster.launcher import wire
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank import order as orders
from trainmaster.launcher.rank.page import Kind
from trainmaster.launcher.rank.rank_env import CycleFacts
from trainmaster.launcher.roles import registry
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.supervise.budget import Budget, limits_of
from trainmaster.launcher.supervise.cycle import Cycle
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.hang import HangWatch
from trainmaster.launcher.supervise.links import Links, Member
from trainmaster.launcher.supervise.pace import RANKS_MIN, PaceWatch
from trainmaster.launcher.supervise.stacks import Where
from trainmaster.launcher.supervise.stillness import StillWatch
from trainmaster.launcher.supervise.symptom import Outcome, RankExit, cycle_is_over
from trainmaster.launcher.supervise.values import ValueWatch

LOG = logging.getLogger("trainmaster.supervisor")
CHECKPOINT_PATIENCE_S = 20.0
"""How long ranks may write a checkpoint after SIGTERM came; Slurm's KillWait is 30 s by default."""
REQUEUE_LINGER_S = 10.0
"""How long the other ranks may take once one has said that its checkpoint is written."""
ASK_AGAIN_S = 1.0
"""Between two tries to ask for a checkpoint the ranks that could not be asked yet: in their first step, say."""
STILL_MEANT_S = 90.0
"""How much longer than the warning leads the ranks of a new cycle are asked for what an earlier one did not save."""
HEAD_START_S = 0.15
"""How long rank 0 may take to open its store before the other ranks start all the same."""
TEXT_MAX = 8192
VALUES_EVERY_S = 1.0
STACKS_PATIENCE_S = 8.0
"""How long agents may take to report where hanging ranks are."""


class Group:
    """The state of one group."""

    def __init__(self, plan: Plan, links: Links, *, role: RolePlan | None = None, replica: int | None = None) -> None:
        """`replica`: the one replica of the role that this group is; None when it is all of them."""
        self.plan = plan
        self.links = links
        self.role = role
        self.replica = replica
        self.wanted = plan.nodes if replica is None else 1
        """Places that a cycle needs."""
        self.world_size = plan.nodes * plan.tasks_per_node if replica is None else 1
        self.phase = "wait"
        self.since = time.monotonic()
        self.cycle = Cycle(number=-1, places=(), world_size=self.world_size, furthest_before=-1, furthest=-1)
        self.cause = ""
        """Why the next cycle is started."""
        self.budget = Budget()
        self.limits = limits_of(plan)
        self.steps_ever = False
        # A service stands still when nobody asks it for anything, so it is watched only when that was asked for.
        unwatched = plan.hang_timeout_s is None and role is not None and role.service
        self.watched = plan.hang_timeout_s != 0 and not unwatched
        self.watch = HangWatch(floor_s=plan.hang_timeout_s)
        self.still = StillWatch(quiet_s=plan.quiet_timeout_s, idle_s=plan.idle_timeout_s)
        self.values = ValueWatch(jump=plan.jump, window=plan.jump_window)
        self._values: dict[str, dict[int, float]] = {}
        """What ranks have reported since the last look, by name."""
        self._values_s = 0.0
        self.distrusted_from: int | None = None
        """Training had diverged, and no later cycle has come to a step: what was saved from this step on is suspect."""
        self.slow_at: dict[int, str] = {}
        """Where a rank was first found slow. Slow elsewhere too, it is the rank that is, not its nodes."""
        # Replicas that restart alone have nobody to be compared with.
        paced = plan.stragglers != "off" and self.world_size >= RANKS_MIN
        self.pace = PaceWatch(window_s=plan.straggler_window_s, windows=plan.straggler_windows) if paced else None
        self.start_at = 0.0
        """When a pause ends."""
        self.put_back: str | None = None
        """Why it is stopped for another's sake: its own outcome does not matter then."""
        self.registered: dict[int, registry.Entry] = {}
        """Replicas of this cycle that have said where they serve, by index."""
        self._wanted_s = float("-inf")
        """When a checkpoint was asked for last, whether there were ranks to ask or not."""
        self.attempt = 0
        self.generation = 0
        """The job's, when this cycle was started."""

    def recall(
        self, *, number: int, places: tuple[str, ...], furthest: int, saved: int = -1, leaving: tuple[str, ...] = ()
    ) -> None:
        """Go on from the cycle that an earlier supervisor or attempt came to. `leaving`: places found slow in it."""
        self.cycle = Cycle(
            number=number,
            places=places,
            world_size=self.world_size,
            furthest_before=-1,
            furthest=furthest,
            saved=saved,
            leaving=leaving,
        )

    def enter(self, phase: str) -> None:
        """Go over to a phase."""
        self.phase = phase
        self.since = time.monotonic()

    @property
    def crew(self) -> list[Member]:
        """The agents of this cycle that are still there."""
        return self.links.of(self.cycle.places)

    # -- orders --------------------------------------------------------------------------------------------------

    def start(self, places: tuple[str, ...], facts: CycleFacts) -> None:
        """Start the next cycle on these places, in rank order. `facts.cycle` is its number."""
        self.cycle = Cycle(
            number=facts.cycle,
            places=places,
            world_size=self.world_size,
            furthest_before=self.cycle.furthest,
            furthest=self.cycle.furthest,
            saved_before=self.cycle.saved,
            saved=self.cycle.saved,
        )
        LOG.info("%scycle %d on %s", self.label, self.cycle.number, ",".join(places))
        self.registered = {}
        self.attempt = facts.attempt
        self.generation = facts.role.generation if facts.role is not None else 0
        self.put_back = None
        self.watch.restart()
        self.still.restart()
        self.values.restart()
        self._values = {}
        if self.pace is not None:
            self.pace.restart()
        self.enter("run")
        for member in self.crew:
            member.started = member.stopped = False
            member.asked = None
            self.links.tell(member, {"do": "start", "facts": asdict(facts)})
        if self.world_size == 1:
            self._let_go()

    def stop(self) -> None:
        """Have all ranks stopped."""
        self._look_at_values(time.monotonic(), last=True)
        self.registered = {}
        self.enter("stop")
        for member in self.crew:
            self.links.tell(member, {"do": "stop", "grace_s": self.plan.stop_grace_s})

    def ask_for_checkpoint(self) -> None:
        """Ask the ranks to save, and to end with 75 when they have."""
        self._wanted_s = time.monotonic()
        if self.phase == "run":
            for member in self.crew:
                member.asked, member.listening = None, 0
            self._ask(again=False)

    def forget_wish(self) -> None:
        """Ranks of the next cycle are not asked again for what was wanted of those of this one."""
        self._wanted_s = float("-inf")

    def ask_for_exchange(self, places: tuple[str, ...]) -> None:
        """Ask the ranks to save and end, so that the next cycle can run without these places."""
        self.cycle.leaving = places
        for member in self.crew:
            member.asked, member.listening = None, 0
        self._ask(again=False)

    def _ask(self, *, again: bool) -> None:
        self.cycle.asked_to_save, self.cycle.asked_s = True, time.monotonic()
        for member in self.crew:
            self.links.tell(member, {"do": "checkpoint", "again": again})

    def _ask_again(self, now: float) -> None:
        """Ask ranks that could not be asked when the warning came: before their first step, or between two cycles."""
        cycle = self.cycle
        meant = cycle.asked_to_save or now - self._wanted_s < self.plan.checkpoint_signal_s + STILL_MEANT_S
        if not meant or cycle.order is not None or now - cycle.asked_s < ASK_AGAIN_S:
            return
        if sum(member.asked or 0 for member in self.crew) < self.world_size - len(cycle.exits):
            self._ask(again=True)

    def _propose_first(self) -> None:
        """Have ranks that ask for orders stop, all at one step, once it is known that all of them do."""
        members = self.crew
        if self.cycle.order is None and None not in [member.asked for member in members]:
            running = self.world_size - len(self.cycle.exits)
            if running and sum(member.listening for member in members) == running:
                # Not `cycle.furthest`, which an earlier cycle may have reached.
                furthest, step_s = self.watch.furthest, self.watch.step_s
                self._propose(orders.first(Kind.STOP, furthest=furthest, step_s=step_s, ranks=running))

    def _propose(self, order: orders.Order) -> None:
        LOG.warning("all ranks: %s after step %d", order.kind.name.lower(), order.step)
        self.cycle.order = order
        message = {"do": "propose", "cycle": self.cycle.number, "kind": int(order.kind), "step": order.step}
        for member in self.crew:
            self.links.tell(member, message)

    def _note_proposed(self, step: int, at: dict[str, int]) -> None:
        order = self.cycle.order
        if order is None or order.step != step or order.holds:
            return
        order.at.update({int(rank): reached for rank, reached in at.items()})
        # Ranks that are done meanwhile do not answer.
        order.ranks = min(order.ranks, self.world_size - len(self.cycle.exits))
        if not order.answered:
            return
        order.holds = order.in_time
        for member in self.crew:
            self.links.tell(member, {"do": "decide", "holds": order.holds})
        if not order.holds:
            self._propose(order.later())

    def _let_go(self) -> None:
        """Have the ranks other than 0 started: the store is open, or rank 0 takes its time."""
        if not self.cycle.let_go and self.phase == "run":
            self.cycle.let_go = True
            for member in self.crew:
                self.links.tell(member, {"do": "go", "cycle": self.cycle.number})

    # -- news ----------------------------------------------------------------------------------------------------

    def on(self, member: Member, message: wire.Message) -> None:
        """Take in a message of one of this cycle's agents."""
        match message["do"]:
            case "beat":
                self._note_steps(message["steps"])
                self._note_where(message["where"])
                self._note_activity(member, message.get("activity"))
                self._note_reported(message)
                self._note_pace(member, message["pace"])
            case "stacks":
                for answer in message["ranks"]:
                    self.cycle.where[answer["rank"]] = (member.node, Where(**answer))
            case "listening":
                self._let_go()
            case "started":
                member.started = True
                self.cycle.all_started = self.cycle.all_started or all(other.started for other in self.crew)
            case "exit":
                self._note_steps(message["steps"])
                self._note_reported(message)
                self._note_exit(member, message)
            case "port_taken":
                member.port = message["port"]
                text = "EADDRINUSE: the port chosen for MASTER_PORT was taken before rank 0 could have it"
                self.cycle.end_rank(RankExit(rank=0, node=member.node, code=71, epoch_s=time.time(), text=text))
            case "asked":
                member.asked, member.listening = message["ranks"], message["listening"]
                self._propose_first()
            case "proposed":
                self._note_proposed(message["step"], message["at"])
            case "registered":
                self._note_registered(member, message)

    def lose(self, place: str, how: str, epoch_s: float) -> bool:
        """A place is gone since `epoch_s`; whether a cycle is under way there."""
        if place not in self.cycle.places or self.phase not in ("run", "stop"):
            return False
        self.cycle.lose(place, how, epoch_s)
        return True

    def _note_registered(self, member: Member, message: wire.Message) -> None:
        if self.phase != "run":
            return
        self.registered[message["rank"]] = registry.Entry(
            host=message["host"],
            port=message["port"],
            node=member.node,
            attempt=self.attempt,
            cycle=self.cycle.number,
            generation=self.generation,
        )

    def _note_exit(self, member: Member, message: wire.Message) -> None:
        entry = RankExit(
            rank=message["rank"],
            node=member.node,
            code=message["code"],
            epoch_s=message["epoch_s"],
            stopped=message["stopped"],
            # What a submitted function raises is its result; in a role, which others go on with, it is a crash.
            raised=message["raised"] and self.role is None,
            text=message["text"][-TEXT_MAX:],
            oom=message.get("oom", False),
            said=message.get("said", "")[-TEXT_MAX:],
        )
        self.cycle.end_rank(entry)
        self.registered.pop(entry.rank, None)
        self.watch.ended(entry.rank)
        if self.pace is not None:
            self.pace.ended(entry.rank)
        if entry.failed:
            LOG.warning("%srank %d on %s ended with %d", self.label, entry.rank, entry.node, entry.code)

    def _note_reported(self, message: wire.Message) -> None:
        self.cycle.saved = max(self.cycle.saved, message.get("saved", -1))
        for name, by_rank in message.get("values", {}).items():
            self._values.setdefault(name, {}).update((int(rank), value) for rank, value in by_rank.items())

    def _look_at_values(self, now: float, *, last: bool = False) -> None:
        """Once a second, and at the end, with what all ranks have told by then."""
        due = last or now - self._values_s >= VALUES_EVERY_S
        if self._values and due and self.cycle.diverged is None:
            self._values_s = now
            self.cycle.diverged = self.values.hear(self.cycle.steps, self._values)
            if self.cycle.diverged is not None:
                LOG.warning("%s%s", self.label, self.cycle.diverged)
            self._values = {}

    def _note_steps(self, steps: dict[str, list[float]]) -> None:
        self.cycle.note_steps(steps)
        if self.cycle.steps_known and self.cycle.diverged is None and self.phase == "run":
            # Its program has chosen what to go on from.
            self.distrusted_from = None
        self.steps_ever = self.steps_ever or self.cycle.steps_known

    def _note_where(self, where: dict[str, Any] | None) -> None:
        # A beat of the cycle before must not make a rank that is only starting look still.
        if where is not None and where["cycle"] == self.cycle.number:
            now = time.monotonic()
            for rank, (step, section, sections) in where["ranks"].items():
                self.watch.hear(int(rank), step, section, sections, now)

    def _note_activity(self, member: Member, told: dict[str, Any] | None) -> None:
        if told is not None and told["cycle"] == self.cycle.number:
            ranks = tuple(told["ranks"])
            self.still.hear(member.place, ranks, told["written_bytes"], told["cpu_s"], time.monotonic())

    def _note_pace(self, member: Member, told: dict[str, Any] | None) -> None:
        if self.pace is not None and told is not None and told["cycle"] == self.cycle.number:
            for rank, (steps, own_s, wall_s) in told["ranks"].items():
                self.pace.hear(int(rank), member.node, steps, own_s, wall_s)

    def forgive(self, gap_s: float) -> None:
        """We ourselves were held up, so silence says nothing for as long."""
        self.watch.forgive(gap_s)
        self.still.forgive(gap_s)
        if self.pace is not None:
            self.pace.forgive()

    def _hangs(self, now: float) -> bool:
        """Whether ranks do not move, and have been asked where they are."""
        cycle = self.cycle
        hang = (self.watch.verdict(now) if self.watched else None) or self.still.verdict(now)
        if hang is None:
            if cycle.hang is not None:
                LOG.warning("the ranks move again")
                cycle.hang = None
            return False
        if cycle.hang is None:
            LOG.warning("%s; asking the ranks for their stacks", hang)
            cycle.hang_since, cycle.where = now, {}
            for member in self.crew:
                self.links.tell(member, {"do": "stacks"})
        cycle.hang = hang
        running = self.world_size - len(cycle.exits)
        return len(cycle.where) >= running or now - cycle.hang_since > STACKS_PATIENCE_S

    # -- how a cycle stands --------------------------------------------------------------------------------------

    def outcome(self, ending: Ending) -> Outcome:
        """What `decide` judges."""
        return self.cycle.outcome(ending=ending.cause, notice=ending.notice, steps_ever=self.steps_ever)

    def is_over(self, ending: Ending, now: float) -> bool:
        """Whether the ranks that still run are to be stopped."""
        if now - self.cycle.started > HEAD_START_S:
            self._let_go()
        self._look_at_values(now)
        if cycle_is_over(self.outcome(ending)):
            if self.cycle.may_be_saving:
                self.cycle.linger_since = self.cycle.linger_since or now
                return now - self.cycle.linger_since >= REQUEUE_LINGER_S
            return True
        if ending.cause is None:
            self._ask_again(now)
            return self._hangs(now)
        return self.nobody_saves or now - ending.since > CHECKPOINT_PATIENCE_S

    @property
    def nobody_saves(self) -> bool:
        """All agents have answered that none of their ranks can be asked for a checkpoint."""
        answers = [member.asked for member in self.crew]
        return None not in answers and not any(answers) and self.cycle.order is None

    @property
    def stopped(self) -> bool:
        """Whether no rank of this cycle is left on any place that can be reached."""
        return all(member.stopped for member in self.crew)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing but news can change how it stands."""
        return self.phase in ("done", "check") or (self.phase == "run" and self.cycle.let_go)

    @property
    def is_ready(self) -> bool:
        """Whether those that come after its role may start."""
        if self.phase == "done":
            return True
        if self.role is None or self.phase != "run":
            return False
        if self.role.ready == "running":
            return self.cycle.all_started
        ended_well = sum(1 for entry in self.cycle.exits.values() if entry.code == 0)
        return len(self.registered) + ended_well == self.world_size

    @property
    def label(self) -> str:
        """For the log: "trainer: ", "loader 3: ", or nothing."""
        if self.role is None:
            return ""
        return f"{self.role.name}: " if self.replica is None else f"{self.role.name} {self.replica}: "
