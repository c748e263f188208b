"""The supervisor: the batch step of a job. Starts agents, hands out ranks, answers every fault. Standard library only.

It is a loop around `decide`: gather agents; lay out the ranks; run a cycle (`group`); when something ends the cycle,
stop what is left, ask `decide`, act. When its own node dies an agent starts it anew with a higher epoch (`takeover`).
A job of roles has a component for each and several groups; `interplay` says how one's fate touches the others.
"""

import argparse
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainmaster.errors import SlurmError
from trainmaster.launcher import (
    array_layout,
    intent,
    interplay,
    record,
    role_plan,
    slurm_side,
    suspects,
    takeover,
    wire,
)
from trainmaster.launcher import plan as plans
from trainmaster.launcher.board import Board
from trainmaster.launcher.component import Component
from trainmaster.launcher.container import MISSING
from trainmaster.launcher.decide import EXIT_REQUEUE, Action, Decision, RankExit, decide, end_state
from trainmaster.launcher.ending import Ending, Reason
from trainmaster.launcher.group import CHECKPOINT_PATIENCE_S, Group
from trainmaster.launcher.hang import Hang
from trainmaster.launcher.launch import Launch, say
from trainmaster.launcher.links import Arrival, Links, Lost, Member, Said, node_of, nodes_of, role_of
from trainmaster.launcher.rank_env import CycleFacts
from trainmaster.launcher.role_env import RoleFacts
from trainmaster.launcher.role_plan import RolePlan
from trainmaster.slurm.commands import Commands

LOG = logging.getLogger("trainmaster.supervisor")
BEAT_S = 1.0
GATHER_PATIENCE_S = 3.0
"""How long to wait for the last agents once there are enough."""
ECHO_PATIENCE_S = 0.25
"""How much later than its echo the death of a role that others depend on may be heard of."""
LAUNCHES_MAX = 3
"""How often srun may try to launch the agents of one attempt."""
RECORD_PATIENCE_S = 10.0
"""How long to try to record the end on a disk that is full."""
EXIT_NOT_RECORDED = 74


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of the job, and the group that says so; no group when all are done."""

    decision: Decision
    group: Group | None
    dead: tuple[str, ...]
    """Nodes."""
    detail: dict[str, Any]


class Supervisor:
    """The state of one supervisor, and its loop.

    Its phase is the name of the `_tick_…` that runs: gather -> work -> close -> leave -> gone; or yielded, for one that
    was frozen while another took its place. At work, each group's own phase says how its ranks stand; close is for the
    other groups of a job of roles, once one group's end is that of the job.
    """

    def __init__(self, run_dir: Path, epoch: int) -> None:
        self.run_dir = run_dir
        self.plan = plans.read(run_dir)
        self.epoch = epoch
        self.job_id = array_layout.job_id_here(os.environ)
        self.attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.recorder = record.Recorder(run_dir)
        self.selector = selectors.DefaultSelector()
        self.links = Links(self.selector, wire.read_key(run_dir), silence_s=self.plan.heartbeat_timeout_s)
        self.dead: dict[str, str] = {}
        """Place -> why it must not be used."""
        self.asked_why_not_gathered = False
        self.phase = "gather"
        self.phase_since = time.monotonic()
        self.enough_since: float | None = None
        self.known: set[str] = set()
        """Places of an earlier epoch, whose agents are expected."""
        events = [event for event in record.read(run_dir) if event.job_id == self.job_id]
        self.earlier = [event for event in events if event.attempt == self.attempt]
        self.spent = record.requeues_spent(events, self.attempt)
        self.excluded = sorted({node for event in events for node in event.detail.get("excluded", ())})
        roles = role_plan.read(run_dir)
        self.roles = {role.name: role for role in roles}
        self.components = Component.all_of(run_dir, self.plan, roles, self.links)
        self._home = {group: component for component in self.components for group in component.groups}
        self.groups = tuple(self._home)
        for group, component in self._home.items():
            self._recall(component, group, events)
        self.generation = 1 + max((int(event.detail.get("generation", -1)) for event in events), default=-1)
        """How often roles were put back to a checkpoint; a new attempt, or supervisor, begins a new one."""
        self.board = Board(run_dir, self.components, attempt=self.attempt)
        self.verdicts: list[Verdict] = []
        """What the end of the job is to be, by the groups that have had a say."""
        self.ending = Ending(
            run_dir,
            self.job_id,
            attempt=self.attempt,
            lead_s=self.plan.checkpoint_signal_s,
            taken_over=bool(epoch),
        )
        self.signals: list[int] = []
        self.last_beat = 0.0
        self.exit_code = 0

    def _recall(self, component: Component, group: Group, events: list[record.Event]) -> None:
        """Let a group go on where its part of the record ends."""
        own = [event for event in events if (event.role, event.replica) == (component.name, group.replica)]
        ran = [event for event in own if event.attempt == self.attempt and event.state == "RUNNING"]
        furthest = record.last_step(self.run_dir, own) if group.role is None else last_step_of(own)
        group.recall(
            number=max((event.cycle for event in ran), default=-1),
            # Which place of a node a replica had is of no use to whoever takes over: all restart.
            places=tuple(place for node in ran[-1].nodes for place in component.places_on(node))
            if ran and group.replica is None
            else (),
            furthest=-1 if furthest is None else furthest,
        )

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Supervise until the job is over; returns the batch script's exit code."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, lambda got, frame: self.signals.append(got))
        self.selector.register(wake_read, selectors.EVENT_READ, "wake")
        self._begin()
        before = time.monotonic()
        while self.phase != "gone":
            ready = self.selector.select(0.1 if all(group.is_quiet for group in self.groups) else 0.02)
            gap_s = time.monotonic() - before
            if gap_s > 2.0:
                LOG.warning("this process was held up for %.1f s", gap_s)
                self.links.forgive(gap_s)
                for group in self.groups:
                    group.forgive(gap_s)
                # Before anything is said or written: it may be somebody else's turn now.
                self._yield_to_successor()
            before = time.monotonic()
            for key, _ in ready:
                if key.data == "wake":
                    os.read(wake_read, 4096)
                elif isinstance(key.data, Launch):
                    self._hear_launch(key.data)
            for news in self.links.hear():
                match news:
                    case Arrival():
                        self._greet(news.member, news.hello)
                    case Said():
                        self._on(news.member, news.message)
                    case Lost():
                        self._lose(news)
            self._tick(time.monotonic())
        return self.exit_code

    def _begin(self) -> None:
        if any(event.ends or event.state == "REQUEUED" for event in self.earlier):
            # The attempt ended before its supervisor died: there is nothing to take over.
            LOG.warning("attempt %d is over already", self.attempt)
            self.phase = "gone"
            return
        predecessor = takeover.current(self.run_dir) if self.epoch else None
        last_sign_epoch_s = time.time() - takeover.silent_s(self.run_dir)
        host = slurm_side.own_address(self.node)
        port = self.links.listen(host)
        self.post = takeover.Post(attempt=self.attempt, epoch=self.epoch, node=self.node, host=host, port=port)
        takeover.publish(self.run_dir, self.post)
        if self.epoch:
            self._take_over(predecessor, last_sign_epoch_s)
        else:
            if self.attempt:
                # Whoever requeued a job by hand after cancelling it has changed their mind.
                intent.drop(self.run_dir, intent.CANCEL)
            self.board.publish(self.generation)
            detail: dict[str, Any] = {"node": self.node, "nodelist": os.environ.get("SLURM_JOB_NODELIST", "")}
            self._event("STARTING", detail=detail | self._of_generation())
            for number, component in enumerate(self.components):
                command = component.command(number=number, run_dir=self.run_dir, post=self.post)
                component.launch = Launch(self.selector, command)
                component.launch.start()

    def _take_over(self, predecessor: takeover.Post | None, last_sign_epoch_s: float) -> None:
        """Begin as the successor of a supervisor that died: same attempt, next cycle, agents already there."""
        for component in self.components:
            own = [event for event in self.earlier if event.role == component.name and event.state == "RUNNING"]
            last = {event.replica: event for event in own}
            nodes = {node for event in last.values() for node in (*event.nodes, *event.spares)}
            self.known |= {place for node in nodes for place in component.places_on(node)}
            gone = {node: "node_death" for event in self.earlier for node in event.dead}
            if predecessor is not None:
                gone[predecessor.node] = "supervisor_death"
            for node, how in gone.items():
                # A node that ran another role's replicas is no place of this one.
                places = [place for place in component.places_on(node) if place in self.known or not self.roles]
                self.dead |= dict.fromkeys(places, how)
        for group in self.groups:
            group.cause = "supervisor_death"
        self.board.publish(self.generation)
        LOG.warning("supervising as epoch %d from %s", self.epoch, self.node)
        dead = (predecessor.node,) if predecessor is not None else ()
        detail = {"supervisor": self.node, "epoch": self.epoch, "fault_epoch_s": last_sign_epoch_s}
        self._event("RESTARTING", cause="supervisor_death", dead=dead, detail=detail | self._of_generation())

    def _hear_launch(self, launch: Launch) -> None:
        gone = launch.hear()
        component = next(one for one in self.components if one.launch is launch)
        if self.phase == "gather":
            for node in gone:
                self.dead |= {place: "agent_failed" for place in component.places_on(node) if place not in self.dead}

    # -- agents --------------------------------------------------------------------------------------------------

    def _component(self, group: Group) -> Component:
        return self._home[group]

    def _healthy(self, group: Group) -> int:
        """How many places a group could run on."""
        return len(self._component(group).open_to(group, self.dead))

    def _of_generation(self) -> dict[str, Any]:
        return {"generation": self.generation} if self.roles else {}

    def _at(self, member: Member) -> tuple[Component, Group | None]:
        """The component of a member, and the group that runs there."""
        component = next(one for one in self.components if one.name == member.role)
        return component, component.group_at(member.place)

    def _greet(self, member: Member, hello: wire.Message) -> None:
        if self.phase in ("leave", "yielded"):
            return
        if self.dead.get(member.place) in ("node_death", "node_silent", "supervisor_death"):
            # It was only out of sight. Its ranks are gone, so it may serve as a spare.
            del self.dead[member.place]
        component, _ = self._at(member)
        if len(component.groups) == 1:
            cycle = component.groups[0].cycle
            cycle.furthest = max(cycle.furthest, hello["step"])
        self.links.tell(member, {"do": "welcome", "epoch": self.epoch})

    def _lose(self, lost: Lost) -> None:
        if self.phase in ("leave", "yielded"):
            return
        LOG.warning("lost %s (%s): %s", lost.place, lost.how, lost.why)
        self.dead[lost.place] = lost.how
        silent_s = time.monotonic() - lost.last_heard if lost.how == "node_silent" else 0.0
        # Not only one can know the place: a group that pauses has run there, too.
        hit = [group.lose(lost.place, lost.how, time.time() - silent_s) for group in self.groups]
        if not any(hit):
            self._event("NODE_LOST", cause=lost.how, dead=(node_of(lost.place),))

    def _on(self, member: Member, message: wire.Message) -> None:
        component, group = self._at(member)
        match message["do"]:
            case "terminated":
                # Slurm has signalled an agent's step and not this one, as for a preemption with GraceTime.
                self._inquire(Reason.RUMOUR)
                return
            case "modules":
                # A node has learnt what to import ahead: the others shall too, and the next attempt.
                for other in list(self.links.members.values()):
                    if other is not member and other.role == member.role:
                        self.links.tell(other, {"do": "learn", "modules": message["modules"]})
                self.recorder.remember_modules(message["modules"], role=component.name)
                return
        if group is not None and message.get("cycle", group.cycle.number) != group.cycle.number:
            return
        match message["do"]:
            case "stopped":
                member.port = message["port"]
                member.stopped = True
            case "stuck":
                # Its agent lives, but SIGKILL did not end its ranks: the node is of no use, now or later.
                if group is not None:
                    group.cycle.lose(member.place, "node_stuck", time.time())
                self.dead[member.place] = "node_stuck"
                self.links.dismiss(member.place)
            case _ if group is not None:
                group.on(member, message)
                self._tell_of(group)

    def _tell_of(self, group: Group) -> None:
        """Record that ranks run, and their first step, in that order: rank 0 may be quick while others still begin."""
        cycle = group.cycle
        if cycle.all_started and not cycle.start_told:
            cycle.start_told = True
            took_s = time.monotonic() - cycle.started
            detail = {"start_s": round(took_s, 3)} | self._of_generation()
            self._event("RUNNING", group, cause=group.cause or None, detail=detail)
        if cycle.all_started and cycle.steps_known and not cycle.progress_told:
            cycle.progress_told = True
            self._event("PROGRESS", group, detail={"first_step_epoch_s": cycle.first_step_epoch_s})

    # -- phases --------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.recorder.flush()
        if now - self.last_beat >= BEAT_S and self.phase != "yielded":
            self.last_beat = now
            takeover.alive_mark(self.run_dir)
            self.recorder.note_step(max(group.cycle.furthest for group in self.groups))
            self.links.tell_all({"do": "beat"})
            self._yield_to_successor()
        self._heed_signals()
        if self.phase in ("gather", "work", "close") and self.ending.hear():
            self._ask_for_checkpoint()
        match self.phase:
            case "gather":
                self._tick_gather(now)
            case "work":
                for group in self.groups:
                    if self.phase == "work":
                        self._tick_group(group, now)
            case "close":
                self._tick_close(now)
            case "leave":
                self._tick_leave(now)
            case "yielded":
                self._tick_yielded()
        if self.roles and self.phase in ("work", "close"):
            self.board.publish(self.generation)

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.phase_since = time.monotonic()

    def _tick_gather(self, now: float) -> None:
        if self.ending.cause is not None:
            self._end_early(self.groups[0], self.ending.cause)
            return
        there = {component: len(component.healthy(self.dead)) for component in self.components}
        expected = {component: component.expected for component in self.components}
        if self.epoch:
            awaited = self.known | set(self.dead)
            expected = {one: sum(role_of(place) == one.name for place in awaited) for one in self.components}
        lost = {one: sum(role_of(place) == one.name for place in self.dead) for one in self.components}
        if all(there[component] >= component.wanted for component in self.components):
            self.enough_since = self.enough_since or now
            missing = sum(expected.values()) - sum(there.values()) - len(self.dead)
            if missing <= 0 or now - self.enough_since > GATHER_PATIENCE_S:
                self._enter("work")
                for group in self.groups:
                    self._start_or_wait(group)
                return
        # After a takeover the record may call nodes dead that only lost their supervisor; give them time to come.
        settled = not self.epoch or now - self.phase_since > self.plan.heartbeat_timeout_s + GATHER_PATIENCE_S
        hopeless = settled and any(expected[one] - lost[one] < one.wanted for one in self.components)
        srun_gone = any(one.launch is not None and one.launch.gone for one in self.components)
        if srun_gone or hopeless or now - self.phase_since > self.plan.start_timeout_s:
            self._give_up_gathering()

    def _give_up_gathering(self) -> None:
        if not self.asked_why_not_gathered:
            # If the job is being ended, our own SIGTERM is still on its way.
            self.asked_why_not_gathered = True
            self._inquire(Reason.RUMOUR)
        if self.ending.asking or self.ending.cause is not None or self._launched_again():
            return
        short = [one for one in self.components if len(one.healthy(self.dead)) < one.wanted] or list(self.components)
        said = "\n".join(one.launch.text.strip() for one in short if one.launch is not None)
        text = "; ".join(one.short_of(self.dead) for one in short)
        LOG.error("agents are missing: %s", text)
        if self.dead:
            text += f"; failed: {', '.join(f'{place} ({why})' for place, why in sorted(self.dead.items()))}"
        text += f"\nsrun said: {said}" if said.strip() else ""
        gone = ",".join(sorted(nodes_of(self.dead)))
        failure = RankExit(rank=-1, node=gone, code=71, epoch_s=time.time(), text=text)
        # A folder that is not shared will not be shared after a requeue either.
        hopeless = slurm_side.CANNOT_SEE in said or (MISSING in said and not self.links.members)
        if hopeless or self.spent >= self.plan.requeues_max or not self.dead:
            decision = Decision(action=Action.END, cause="start", state="FAILED_INFRA", failure=failure)
        else:
            decision = Decision(action=Action.REQUEUE, cause="start", failure=failure, exclude=tuple(self.dead))
        self._act(short[0].groups[0], decision)

    def _launched_again(self) -> bool:
        """Start those sruns again that slurmd would not serve; whether there were any."""
        failed = [
            component.launch
            for component in self.components
            if component.launch is not None
            and slurm_side.LAUNCH_FAILED in component.launch.text
            and not component.healthy({})
            and component.launch.count < LAUNCHES_MAX
        ]
        if not failed:
            return False
        # slurmd may refuse a job that was requeued within the same second; the next second is another matter.
        LOG.warning("srun could not launch the agents; trying again")
        time.sleep(1.0)
        for launch in failed:
            launch.start()
        self._enter("gather")
        return True

    def _end_early(self, group: Group, cause: str) -> None:
        """The job is being ended while no rank of a group runs."""
        action = Action.REQUEUE if cause == "requeue" else Action.END
        self._act(group, Decision(action=action, cause=cause, state=end_state(cause), budget=group.budget))

    def _start_or_wait(self, group: Group) -> None:
        """Start a group's next cycle, or wait for the roles that it comes after."""
        if self._unmet(group):
            if group.phase != "wait":
                group.enter("wait")
            return
        component = self._component(group)
        places = component.choose(group, self.dead)
        assert places is not None, "decide() counts the healthy places before it orders a restart"
        members = [self.links.members[place] for place in places]
        facts = CycleFacts(
            job_id=self.job_id,
            uid=self.plan.uid,
            run_dir=str(self.run_dir / component.name),
            attempt=self.attempt,
            cycle=group.cycle.number + 1,
            cause=group.cause,
            nodes=tuple(member.node for member in members),
            tasks_per_node=group.plan.tasks_per_node if group.replica is None else 1,
            master_addr=members[0].address,
            master_port=members[0].port,
            restarts_max=group.plan.restarts_max,
            role=self._role_facts(group, members[0]),
        )
        group.start(places, facts)

    def _role_facts(self, group: Group, member: Member) -> RoleFacts | None:
        if group.role is None:
            return None
        return RoleFacts(
            role=group.role.name,
            job_dir=str(self.run_dir),
            size=group.role.replicas,
            generation=self.generation,
            index=group.replica,
            slot=member.slot,
            slots=group.plan.tasks_per_node,
        )

    def _unmet(self, group: Group) -> tuple[str, ...]:
        if group.role is None:
            return ()
        return interplay.unmet(group.role, {one.name for one in self.components if one.is_ready})

    def _tick_group(self, group: Group, now: float) -> None:
        match group.phase:
            case "run":
                if group.is_over(self.ending, now):
                    group.stop()
            case "stop":
                if group.stopped:
                    self._judge(group)
            case "pause" | "wait":
                self._tick_pause(group, now)

    def _judge(self, group: Group) -> None:
        """A cycle has ended and nothing of it is left: what now?"""
        terminated = any(entry.failed and entry.code == -signal.SIGTERM for entry in group.cycle.exits.values())
        if terminated and self.ending.cause is None and not group.cycle.asked_why:
            # Where Slurm tracks processes by parent (proctrack/linuxproc) it signals the ranks before it tells us.
            group.cycle.asked_why = True
            self._inquire(Reason.RUMOUR)
        if self.ending.asking or self._may_be_an_echo(group):
            return
        decision = decide(
            group.outcome(self.ending),
            group.budget,
            group.limits,
            attempt=self.spent,
            healthy=self._healthy(group),
            wanted=group.wanted,
        )
        if group.put_back is not None and decision.action in (Action.RESTART, Action.END) and self.ending.cause is None:
            # Another role's restart stopped it, or would have a moment later: that costs it nothing.
            decision = Decision(action=Action.RESTART, cause=group.put_back, budget=group.budget)
        self._act(group, decision)

    def _may_be_an_echo(self, group: Group) -> bool:
        """Whether the group may have failed because of one whose restart puts it back: then that one is judged first.

        What a role serves breaks at its clients a little later, or, as messages travel, even a little sooner.
        """
        if group.role is None or group.put_back is not None or self.ending.cause is not None:
            return False
        name = group.role.name
        masters = [one for one in self.components if name in interplay.put_back_with(one.name, self.roles)]
        falling = any(one.phase == "stop" and not one.stopped for master in masters for one in master.groups)
        return bool(masters) and (falling or time.monotonic() - group.since < ECHO_PATIENCE_S)

    def _tick_pause(self, group: Group, now: float) -> None:
        if self.ending.cause is not None:
            self._end_early(group, self.ending.cause)
        elif group.phase == "wait" and group.role is not None and self._unmet(group):
            if now - group.since > group.role.ready_timeout_s:
                self._give_up_waiting(group)
        elif self._healthy(group) < group.wanted:
            gone = tuple(place for place in self.dead if role_of(place) == self._component(group).name)
            decision = Decision(action=Action.REQUEUE, cause="node_death", budget=group.budget, exclude=gone)
            self._act(group, decision)
        elif now >= group.start_at:
            self._start_or_wait(group)

    def _give_up_waiting(self, group: Group) -> None:
        assert group.role is not None
        missing = []
        for component in self.components:
            if component.name in self._unmet(group):
                late = [one.label.rstrip(": ") for one in component.groups if not one.is_ready]
                missing.append(f"{', '.join(late)} ({component.role.ready if component.role else 'running'})")
        text = f"role {group.role.name!r} waited {group.role.ready_timeout_s:g} s for {'; '.join(missing)}"
        failure = RankExit(rank=-1, node="", code=1, epoch_s=time.time(), text=text)
        decision = Decision(action=Action.END, cause="not_ready", state="FAILED_USER", failure=failure)
        self._act(group, decision)

    # -- acting on a decision ------------------------------------------------------------------------------------

    def _act(self, group: Group, decision: Decision) -> None:
        group.budget = decision.budget
        for place in self._places(group, decision.exclude):
            self.dead.setdefault(place, decision.cause)
            self.links.dismiss(place)
        detail: dict[str, Any] = dict(slurm_side.asked_by(self.run_dir, decision.cause, attempt=self.attempt))
        if group.cycle.fault_epoch_s is not None:
            detail["fault_epoch_s"] = group.cycle.fault_epoch_s
        if decision.failure is not None:
            detail["failure"] = self._failure(group, decision.failure)
        if decision.cause == "hang" and group.cycle.hang is not None:
            detail["hang"] = self._hang(group, group.cycle.hang)
        suspects.note(
            self.run_dir, group.cycle, decision, attempt=self.attempt, epoch_s=group.cycle.fault_epoch_s or time.time()
        )
        dead = nodes_of([*group.cycle.lost, *decision.exclude])
        LOG.warning("%scycle %d: %s because of %s", group.label, group.cycle.number, decision.action, decision.cause)
        match decision.action:
            case Action.RESTART:
                if group.role is not None and group.put_back is None:
                    self._put_back_others(group.role)
                group.cause = decision.cause
                detail |= {"delay_s": decision.delay_s, "restarts": group.budget.restarts} | self._of_generation()
                self._event("RESTARTING", group, cause=decision.cause, dead=dead, detail=detail)
                group.start_at = time.monotonic() + decision.delay_s
                group.put_back = None
                group.enter("pause")
                self._tick_pause(group, time.monotonic())
            case Action.SUCCEED if self.roles:
                self._event("FINISHED", group, cause=decision.cause, detail=detail)
                group.enter("done")
                if interplay.is_done(tuple(self.roles.values()), self._finished()):
                    self._close(Verdict(decision, None, (), {}))
            case _:
                self._close(Verdict(decision, group, dead, detail))

    def _places(self, group: Group, names: Iterable[str]) -> list[str]:
        """The places among names of which some are nodes, as ranks tell which one to leave out."""
        known = {place for component in self.components for place in component.healthy({})} | set(self.dead)
        there = {node_of(place): place for place in group.cycle.places}
        return [name if name in known else there.get(name, name) for name in names]

    def _finished(self) -> dict[str, int]:
        """Replicas that have ended well, by role."""
        return {
            component.name: sum(group.world_size for group in component.groups if group.phase == "done")
            for component in self.components
        }

    def _put_back_others(self, role: RolePlan) -> None:
        """Begin a new generation, if a role's restart puts others back to the last checkpoint."""
        others = interplay.put_back_with(role.name, self.roles)
        if not others:
            return
        self.generation += 1
        LOG.warning("generation %d: %s is restarted with %s", self.generation, role.name, ", ".join(others))
        for component in self.components:
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
        self.verdicts.append(verdict)
        if self.phase != "close":
            self._enter("close")
        self._tick_close(time.monotonic())

    def _tick_close(self, now: float) -> None:
        saving = self.ending.cause is not None or self.ending.notice is not None
        for group in self.groups:
            if group.phase == "run" and (
                not saving
                or group.is_over(self.ending, now)
                or group.nobody_saves
                or now - self.phase_since > CHECKPOINT_PATIENCE_S
            ):
                group.stop()
        if any(group.phase == "run" or (group.phase == "stop" and not group.stopped) for group in self.groups):
            return
        if self.ending.asking:
            return
        first = self.verdicts[0]
        for group in self.groups if saving else ():
            if group is not first.group and any(e.code == EXIT_REQUEUE for e in group.cycle.exits.values()):
                outcome = group.outcome(self.ending)
                decision = decide(outcome, group.budget, group.limits, attempt=self.spent, healthy=1, wanted=1)
                self.verdicts.append(Verdict(decision, group, (), {}))
        decision = interplay.overall([verdict.decision for verdict in self.verdicts])
        verdict = next(one for one in self.verdicts if one.decision is decision)
        if saving and self.roles:
            # Whichever role was the first to end: it was the whole job that was told to.
            verdict = replace(verdict, group=None)
        if decision.action is Action.REQUEUE:
            self._requeue(verdict)
        else:
            self._finish(verdict)

    def _hang(self, group: Group, hang: Hang) -> dict[str, Any]:
        """What the record says of a hang."""
        return {
            "why": str(hang),
            "still_s": round(hang.still_s, 1),
            "section": hang.section,
            "ranks": hang.ranks[:64],
            "suspects": [{"rank": rank, "node": node} for rank, node in group.cycle.suspects],
            "stacks": str(self._folder(group) / "rank*.stacks"),
        }

    def _folder(self, group: Group) -> Path:
        """Where the logs of a group's cycle lie."""
        return self.run_dir / self._component(group).name / f"attempt{self.attempt}.{group.cycle.number}"

    def _failure(self, group: Group, entry: RankExit) -> dict[str, Any]:
        stream = "out" if self.plan.stderr_to_stdout else "err"
        log = self._folder(group) / f"rank{entry.rank}.{stream}" if entry.rank >= 0 else self.run_dir / "batch.out"
        return {
            "rank": entry.rank,
            "node": entry.node,
            "exit_code": entry.code if entry.code >= 0 else None,
            "signal": -entry.code if entry.code < 0 else None,
            "traceback": entry.text,
            "log": str(log),
        }

    def _requeue(self, verdict: Verdict) -> None:
        decision = verdict.decision
        # When everything is lost at once, the nodes are the last to be blamed; and without them nothing would be left.
        blamed = nodes_of(decision.exclude) if self.links.members else ()
        self.excluded = sorted({*self.excluded, *blamed})
        detail = verdict.detail | {"excluded": self.excluded}
        self._event("REQUEUED", verdict.group, cause=decision.cause, dead=verdict.dead, detail=detail)
        slurm_side.leave_requeuer(
            self.run_dir,
            self.job_id,
            restarts=self.attempt,
            exclude=[*(component.plan.exclude for component in self.components), *self.excluded],
            dead=nodes_of(self.dead) if blamed else (),
            components=slurm_side.component_ids(os.environ)[1:],
        )
        self.exit_code = EXIT_REQUEUE
        self._say_bye()

    def _finish(self, verdict: Verdict) -> None:
        decision = verdict.decision
        self._event(decision.state, verdict.group, cause=decision.cause, dead=verdict.dead, detail=verdict.detail)
        self.exit_code = 0 if decision.state == "SUCCEEDED" else 1
        if decision.failure is not None:
            failure = decision.failure
            of_role = self._component(verdict.group).label if verdict.group is not None else ""
            say(
                f"trainmaster: {decision.state} ({decision.cause}); first failure: rank {failure.rank}{of_role} on"
                f" {failure.node} ended with {failure.code}\n{failure.text}\n"
            )
            if 0 < failure.code < 126:
                self.exit_code = failure.code
        self._say_bye()

    def _say_bye(self) -> None:
        self._enter("leave")
        self.links.tell_all({"do": "bye"})

    def _tick_leave(self, now: float) -> None:
        waited_s = now - self.phase_since
        if self.recorder.pending:
            if waited_s < RECORD_PATIENCE_S:
                return
            self.exit_code = EXIT_NOT_RECORDED
        if self.epoch:
            # We are the child of an agent. Slurm believes that this job runs until somebody says otherwise.
            self._end_job()
            self.phase = "gone"
            return
        launches = [one.launch for one in self.components if one.launch is not None]
        sruns_gone = all(launch.gone for launch in launches)
        if sruns_gone or (not self.links.members and waited_s > 0.5) or waited_s > 5.0:
            for launch in launches:
                launch.kill()
            self.phase = "gone"

    def _end_job(self) -> None:
        job = slurm_side.ask_for_job(self.job_id)
        if self.exit_code == EXIT_REQUEUE or job is None or job.restarts != self.attempt:
            # It is, or will be, another attempt's job.
            return
        try:
            Commands(timeout_s=10.0).cancel(self.job_id)
        except SlurmError as error:
            LOG.warning("could not end the job: %s", error)

    # -- signals and successors ----------------------------------------------------------------------------------

    def _heed_signals(self) -> None:
        numbers, self.signals = self.signals, []
        for number in numbers:
            if self.phase == "yielded":
                if number != signal.SIGUSR2:
                    self.phase = "gone"
            elif self.ending.cause is None and self.phase != "leave":
                self.ending.heed(number)
                # Whatever the cause is: there may be little time, so the ranks begin to save at once.
                self._ask_for_checkpoint()

    def _ask_for_checkpoint(self) -> None:
        for group in self.groups:
            group.ask_for_checkpoint()

    def _inquire(self, reason: Reason) -> None:
        if self.phase not in ("leave", "yielded"):
            self.ending.inquire(reason)

    def _yield_to_successor(self) -> None:
        """If an agent made a newer supervisor while this one was frozen, leave everything to it.

        Not by exiting: the end of the batch script would make Slurm end the job under the successor. So this process
        waits, without agents, until the record says that the job is over.
        """
        post = takeover.current(self.run_dir)
        if post is None or post.attempt != self.attempt or post.epoch <= self.epoch or self.phase == "yielded":
            return
        LOG.warning("a supervisor of epoch %d has taken over on %s", post.epoch, post.node)
        self.links.drop_all()
        self._enter("yielded")

    def _tick_yielded(self) -> None:
        end = record.end_of(record.read(self.run_dir))
        if end is not None:
            self.exit_code = 0 if end.state == "SUCCEEDED" else 1
            self.phase = "gone"

    # -- the record ----------------------------------------------------------------------------------------------

    def _event(
        self,
        state: str,
        group: Group | None = None,
        *,
        cause: str | None = None,
        dead: tuple[str, ...] = (),
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Record a change of state, of a group or of the whole job; where there is one group that is the same."""
        if group is None and not self.roles:
            group = self.groups[0]
        cycle = group.cycle if group is not None else None
        component = self._component(group) if group is not None else None
        steps = [one.cycle.furthest for one in ([group] if group is not None else self.groups)]
        self.recorder.add(
            record.Event(
                epoch_s=time.time(),
                job_id=self.job_id,
                attempt=self.attempt,
                cycle=max(cycle.number, 0) if cycle is not None else 0,
                state=state,
                cause=cause,
                nodes=nodes_of(cycle.places) if cycle is not None else (),
                spares=nodes_of(component.spares(self.dead)) if component is not None else (),
                dead=dead,
                ranks=cycle.world_size if cycle is not None else sum(one.world_size for one in self.groups),
                step=max(steps) if max(steps) >= 0 else None,
                role=component.name if component is not None else "",
                replica=group.replica if group is not None else None,
                detail=detail or {},
            )
        )


def last_step_of(events: Iterable[record.Event]) -> int | None:
    """The last step in some events; None when they tell of none."""
    return max((event.step for event in events if event.step is not None), default=None)


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.supervisor RUN_DIR [--epoch N]`."""
    parser = argparse.ArgumentParser(prog="trainmaster.launcher.supervisor")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--epoch", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    return Supervisor(args.run_dir, args.epoch).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
