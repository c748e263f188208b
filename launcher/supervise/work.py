"""The groups of a job at work: start, judge what ended, act on it, until the job is to end. Standard library only.

A job without roles has one group. In a job of roles `interplay` says how one's fate touches the others; once a group's
end is that of the job, the others are stopped first.
"""

import logging
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from trainmaster.launcher import record
from trainmaster.launcher.exit_rules import EXIT_REQUEUE
from trainmaster.launcher.rank.rank_env import CycleFacts
from trainmaster.launcher.roles.role_env import RoleFacts
from trainmaster.launcher.roles.role_plan import RolePlan
from trainmaster.launcher.supervise import distrust, exchange, interplay, slurm_side, suspects
from trainmaster.launcher.supervise.budget import to_detail
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.decide import Action, Decision, decide, end_state
from trainmaster.launcher.supervise.ending import Reason
from trainmaster.launcher.supervise.group import CHECKPOINT_PATIENCE_S, Group
from trainmaster.launcher.supervise.links import Member, node_of, nodes_of, role_of
from trainmaster.launcher.supervise.pacing import Pacing
from trainmaster.launcher.supervise.refill import Refill
from trainmaster.launcher.supervise.stop_and_check import StopAndCheck
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.swapping import Swapping
from trainmaster.launcher.supervise.symptom import Outcome, RankExit
from trainmaster.launcher.supervise.values import Divergence

LOG = logging.getLogger("trainmaster.supervisor")
ECHO_PATIENCE_S = 0.25
"""How much later than its echo the death of a role that others depend on may be heard of."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of the job, and the group that says so; no group when all are done, or all were told to end."""

    decision: Decision
    group: Group | None
    dead: tuple[str, ...]
    """Nodes."""
    detail: dict[str, Any]


class Work:
    """All groups from the first start to the verdict."""

    def __init__(self, job: Supervised, chronicle: Chronicle) -> None:
        self.job = job
        self._record = chronicle
        self._pacing = Pacing(job, chronicle)
        self._swapping = Swapping(job, chronicle)
        self._check = StopAndCheck(job, chronicle)
        self.refill = Refill(job, chronicle)
        self._verdicts: list[Verdict] = []
        """What the end of the job is to be, by the groups that have had a say."""
        self._closing_since: float | None = None
        self.verdict: Verdict | None = None
        """The end of the job, once nothing runs any more."""

    @property
    def closing(self) -> bool:
        """Whether the end is decided, and what still runs is being stopped."""
        return self._closing_since is not None

    def start(self) -> None:
        """Start the groups that need not wait for others."""
        for group in self.job.groups:
            self._pacing.leave_out(group)
            if group.cycle.diverged is not None:
                # So the supervisor before has found, and died before it could draw the consequences.
                self._judge(group)
            else:
                self._start_or_wait(group)

    def tick(self, now: float) -> None:
        """See what has come of the groups, and do what follows."""
        if not self.closing:
            self._swapping.tick(now)
        for group in self.job.groups:
            if not self.closing:
                self._tick_group(group, now)
                self._pacing.tick(group, now)
        if not self.closing and self.job.ending.cause is None:
            self.refill.tick(now)
        if self.closing and self.verdict is None:
            self._tick_close(now)

    def end_early(self, group: Group, cause: str) -> None:
        """The job is being ended while no rank of a group runs."""
        action = Action.REQUEUE if cause == "requeue" else Action.END
        self.act(group, Decision(action=action, cause=cause, state=end_state(cause), budget=group.budget))

    def _start_or_wait(self, group: Group) -> None:
        """Start a group's next cycle, or wait for the roles that it comes after."""
        if self.job.unmet(group):
            if group.phase != "wait":
                group.enter("wait")
            return
        component = self.job.component(group)
        places = component.choose(group, self.job.dead)
        assert places is not None, "decide() counts the healthy places before it orders a restart"
        members = [self.job.links.members[place] for place in places]
        facts = CycleFacts(
            job_id=self.job.job_id,
            uid=self.job.plan.uid,
            run_dir=str(self.job.run_dir / component.name),
            attempt=self.job.attempt,
            cycle=group.cycle.number + 1,
            cause=group.cause,
            nodes=tuple(member.node for member in members),
            tasks_per_node=group.plan.tasks_per_node if group.replica is None else 1,
            master_addr=members[0].address,
            master_port=members[0].port,
            restarts_max=group.plan.restarts_max,
            role=self._role_facts(group, members[0]),
            distrusted_from=group.distrusted_from,
        )
        if group.replica is None:
            healthy = component.healthy(self.job.dead)
            component.copies.begin(facts.cycle, places, healthy)
        group.start(places, facts)

    def _role_facts(self, group: Group, member: Member) -> RoleFacts | None:
        if group.role is None:
            return None
        return RoleFacts(
            role=group.role.name,
            job_dir=str(self.job.run_dir),
            size=group.role.replicas,
            generation=self.job.generation,
            index=group.replica,
            slot=member.slot,
            slots=group.plan.tasks_per_node,
        )

    def _tick_group(self, group: Group, now: float) -> None:
        match group.phase:
            case "run":
                over = group.is_over(self.job.ending, now) and not self._is_served_by(group, now)
                self._note_divergence(group)
                if over:
                    group.stop()
            case "stop":
                if group.stopped:
                    self._judge(group)
            case "check":
                self._tick_check(group, now)
            case "pause" | "wait":
                self._tick_pause(group, now)

    def _note_divergence(self, group: Group) -> None:
        """Write down at once that a value went wrong: whoever takes over has to know what not to go on from."""
        cycle = group.cycle
        if cycle.diverged is None or cycle.diverged_told:
            return
        cycle.diverged_told = True
        folder = self.job.run_dir / self.job.component(group).name
        began = distrust.began_from(folder, attempt=self.job.attempt, cycle=cycle.number)
        group.distrusted_from = distrust.doubt_of(cycle.diverged, began=began).since
        detail = {"divergence": distrust.to_detail(cycle.diverged), distrust.FROM: group.distrusted_from}
        self._record.tell("DIVERGED", group, cause="diverged", detail=detail | {"diverged": str(cycle.diverged)})

    def _is_served_by(self, group: Group, now: float) -> bool:
        """Whether ranks of another group still save, and may need what a group has that saves nothing itself.

        Trainers that were to stop after the next step never came so far, their servers being gone already.
        """
        since = self._closing_since or (self.job.ending.since if self.job.ending.cause is not None else None)
        if since is None or now - since > CHECKPOINT_PATIENCE_S:
            return False  # nobody ends the job, or they have had their time
        if not group.nobody_saves or group.cycle.exits or group.cycle.lost:
            return False
        others = (other for other in self.job.groups if other is not group and other.phase == "run")
        return any(not other.nobody_saves for other in others)

    def _judge(self, group: Group) -> None:
        """A cycle has ended and nothing of it is left: what now?"""
        terminated = any(entry.failed and entry.code == -signal.SIGTERM for entry in group.cycle.exits.values())
        if terminated and self.job.ending.cause is None and not group.cycle.asked_why:
            # Where Slurm tracks processes by parent (proctrack/linuxproc) it signals the ranks before it tells us.
            group.cycle.asked_why = True
            self.job.ending.inquire(Reason.RUMOUR)
        if self.job.ending.asking or self._may_be_an_echo(group):
            return
        # Copies in memory, too, are what a restart goes on from.
        group.cycle.saved = max(group.cycle.saved, self.job.component(group).copies.newest)
        outcome, leaving = group.outcome(self.job.ending), group.cycle.leaving
        healthy, wanted = self.job.healthy(group), group.wanted
        # A program that was not asked, and ends with 75 by itself, wants its requeue.
        asked = leaving if group.cycle.asked_to_save else ()
        # A node that is on its way is as good as there: without it the others would be given away for a requeue.
        hoped = wanted if healthy < wanted and self.refill.is_awaited(time.monotonic()) else healthy
        cause = group.cycle.leaving_for
        decision = exchange.planned(
            outcome, asked, group.budget, healthy=healthy, wanted=wanted, cause=cause
        ) or decide(outcome, group.budget, group.limits, now=time.time(), healthy=hoped, wanted=wanted)
        decision = exchange.extended(decision, leaving, healthy=healthy, wanted=wanted, blame=cause == exchange.CAUSE)
        if (
            group.put_back is not None
            and decision.action in (Action.RESTART, Action.END)
            and self.job.ending.cause is None
        ):
            # Another role's restart stopped it, or would have a moment later: that costs it nothing.
            decision = Decision(action=Action.RESTART, cause=group.put_back, budget=group.budget)
        self.act(group, decision)

    def _may_be_an_echo(self, group: Group) -> bool:
        """Whether the group may have failed because of one whose restart puts it back: then that one is judged first.

        What a role serves breaks at its clients a little later, or, as messages travel, even a little sooner.
        """
        crashed = any(entry.failed for entry in group.cycle.exits.values())
        if group.role is None or not crashed or group.put_back is not None or self.job.ending.cause is not None:
            return False
        name = group.role.name
        masters = [one for one in self.job.components if name in interplay.put_back_with(one.name, self.job.roles)]
        falling = any(one.phase == "stop" and not one.stopped for master in masters for one in master.groups)
        return bool(masters) and (falling or time.monotonic() - group.since < ECHO_PATIENCE_S)

    def _tick_check(self, group: Group, now: float) -> None:
        if self.job.ending.cause is not None:
            if self._check.stop(group, now):
                self.end_early(group, self.job.ending.cause)
        elif self._check.over(group, now):
            group.enter("pause")

    def _tick_pause(self, group: Group, now: float) -> None:
        if self.job.ending.cause is not None:
            self.end_early(group, self.job.ending.cause)
        elif group.phase == "wait" and group.role is not None and self.job.unmet(group):
            if now - group.since > group.role.ready_timeout_s:
                self._give_up_waiting(group)
        elif self.job.healthy(group) < group.wanted:
            if self.refill.is_awaited(now):
                return
            gone = tuple(place for place in self.job.dead if role_of(place) == self.job.component(group).name)
            self.act(group, self._lost_in_a_pause(group, gone, now))
        elif now >= group.start_at:
            self._start_or_wait(group)

    def _lost_in_a_pause(self, group: Group, gone: tuple[str, ...], now: float) -> Decision:
        """What becomes of a group that has too few places left for its next cycle."""
        outcome = Outcome(
            world_size=group.world_size,
            lost=dict.fromkeys(gone, "node_death"),
            steps_known=group.steps_ever,
            advanced=group.cycle.furthest > group.cycle.furthest_before,
            uptime_s=now - group.cycle.started,
        )
        healthy = self.job.healthy(group)
        return decide(outcome, group.budget, group.limits, now=time.time(), healthy=healthy, wanted=group.wanted)

    def _give_up_waiting(self, group: Group) -> None:
        assert group.role is not None
        missing = []
        for component in self.job.components:
            if component.name in self.job.unmet(group):
                late = [one.label.rstrip(": ") for one in component.groups if not one.is_ready]
                missing.append(f"{', '.join(late)} ({component.role.ready if component.role else 'running'})")
        text = f"role {group.role.name!r} waited {group.role.ready_timeout_s:g} s for {'; '.join(missing)}"
        failure = RankExit(rank=-1, node="", code=1, epoch_s=time.time(), text=text)
        decision = Decision(action=Action.END, cause="not_ready", state="FAILED_USER", failure=failure)
        self.act(group, decision)

    # -- acting on a decision ------------------------------------------------------------------------------------

    def act(self, group: Group, decision: Decision) -> None:
        """Do what was decided about a group."""
        detail: dict[str, Any] = {"budget": to_detail(group.budget, decision.budget)}
        group.budget = decision.budget
        for place in self._places(group, decision.exclude):
            self.job.dead.setdefault(place, decision.cause)
            self.job.links.dismiss(place)
        detail |= slurm_side.asked_by(self.job.run_dir, decision.cause, attempt=self.job.attempt)
        detail |= {key: value for key in ("why", "rule") if (value := getattr(decision, key))}
        if decision.given_up:
            detail["slow_texts"] = list(decision.given_up)
            LOG.warning("looking for %s took too long; the rules count as not fitting", detail["slow_texts"])
        if decision.doubtful:
            detail["doubtful"] = list(decision.doubtful)
        if group.cycle.saved >= 0:
            detail["saved"] = group.cycle.saved
        if group.values.last:
            detail["values"] = {name: record.plain(value) for name, value in group.values.last.items()}
        if group.cycle.diverged is not None:
            self._note_divergence(group)
            detail |= self._distrust(group, group.cycle.diverged)
        if group.cycle.fault_epoch_s is not None:
            detail["fault_epoch_s"] = group.cycle.fault_epoch_s
        if decision.failure is not None:
            detail["failure"] = self._record.failure(group, decision.failure)
        if decision.cause == "hang" and group.cycle.hang is not None:
            detail["hang"] = self._record.hang(group, group.cycle.hang)
        suspects.note(
            self.job.run_dir,
            group.cycle,
            decision,
            attempt=self.job.attempt,
            epoch_s=group.cycle.fault_epoch_s or time.time(),
        )
        dead = nodes_of([*group.cycle.lost, *decision.exclude])
        level = logging.INFO if decision.action is Action.SUCCEED else logging.WARNING
        LOG.log(level, "%scycle %d: %s because of %s", group.label, group.cycle.number, decision.action, decision.cause)
        match decision.action:
            case Action.RESTART:
                if group.role is not None and group.put_back is None:
                    self._put_back_others(group.role)
                group.cause = decision.cause
                detail |= {"delay_s": decision.delay_s, "restarts": group.budget.restarts} | self.job.of_generation()
                self._record.tell("RESTARTING", group, cause=decision.cause, dead=dead, detail=detail)
                group.start_at = time.monotonic() + decision.delay_s
                group.put_back = None
                if self._check.begin(group, decision):
                    group.enter("check")
                    return
                group.enter("pause")
                self._tick_pause(group, time.monotonic())
            case Action.SUCCEED if self.job.roles:
                self._record.tell("FINISHED", group, cause=decision.cause, detail=detail)
                group.enter("done")
                if interplay.is_done(tuple(self.job.roles.values()), self._finished()):
                    self._close(Verdict(decision, None, (), {}))
            case _:
                self._close(Verdict(decision, group, dead, detail))

    def _distrust(self, group: Group, found: Divergence) -> dict[str, Any]:
        """Nothing that was saved or copied when training had diverged is gone on from. For the record."""
        component = self.job.component(group)
        # A state that has diverged was copied faithfully.
        component.copies.distrust(group.cycle.number)
        assert group.distrusted_from is not None, "it is set when a divergence is noted"
        told = distrust.mark(
            self.job.run_dir / component.name, since=group.distrusted_from, good=found.good, why=str(found)
        )
        return told | {"diverged": str(found), "suspect": distrust.in_words(told)}

    def _places(self, group: Group, names: Iterable[str]) -> list[str]:
        """The places among names of which some are nodes, as ranks tell which one to leave out."""
        known = {place for component in self.job.components for place in component.healthy({})} | set(self.job.dead)
        there = {node_of(place): place for place in group.cycle.places}
        return [name if name in known else there.get(name, name) for name in names]

    def _finished(self) -> dict[str, int]:
        """Replicas that have ended well, by role."""
        return {
            component.name: sum(group.world_size for group in component.groups if group.phase == "done")
            for component in self.job.components
        }

    def _put_back_others(self, role: RolePlan) -> None:
        """Begin a new generation, if a role's restart puts others back to the last checkpoint."""
        others = interplay.put_back_with(role.name, self.job.roles)
        if not others:
            return
        self.job.generation += 1
        LOG.warning("generation %d: %s is restarted with %s", self.job.generation, role.name, ", ".join(others))
        for component in self.job.components:
            for group in component.groups if component.name in others else ():
                if group.phase == "run":
                    group.stop()
                if group.phase == "stop":
                    group.put_back = "rollback"
                elif group.phase in ("pause", "wait"):
                    group.cause = "rollback"

    # -- the end of the job --------------------------------------------------------------------------------------

    def _close(self, verdict: Verdict) -> None:
        """A group's end is that of the job; first the others have to be stopped."""
        self._verdicts.append(verdict)
        self._closing_since = self._closing_since or time.monotonic()
        self._tick_close(time.monotonic())

    def _tick_close(self, now: float) -> None:
        saving = self.job.ending.cause is not None or self.job.ending.notice is not None
        for group in self.job.groups:
            if group.phase == "run" and (
                not saving
                or ((group.is_over(self.job.ending, now) or group.nobody_saves) and not self._is_served_by(group, now))
                or now - (self._closing_since or now) > CHECKPOINT_PATIENCE_S
            ):
                group.stop()
        if any(group.phase == "run" or (group.phase == "stop" and not group.stopped) for group in self.job.groups):
            return
        if self.job.ending.asking:
            return
        first = self._verdicts[0]
        for group in self.job.groups if saving else ():
            if group is not first.group and any(e.code == EXIT_REQUEUE for e in group.cycle.exits.values()):
                outcome = group.outcome(self.job.ending)
                decision = decide(outcome, group.budget, group.limits, now=time.time(), healthy=1, wanted=1)
                self._verdicts.append(Verdict(decision, group, (), {}))
        decision = interplay.overall([verdict.decision for verdict in self._verdicts])
        verdict = next(one for one in self._verdicts if one.decision is decision)
        if saving and self.job.roles:
            # Whichever role was the first to end: it was the whole job that was told to.
            # What one role has spent is no word on the others.
            kept = {**verdict.detail.get("budget", {}), "keep": True}
            verdict = replace(verdict, group=None, detail=verdict.detail | {"budget": kept})
        self.verdict = verdict
