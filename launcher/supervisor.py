"""The supervisor: the batch step of a job. Starts agents, hands out ranks, answers every fault. Standard library only.

It is a loop around `decide`: gather agents; lay out the ranks; run a cycle (`group`); when something ends the cycle,
stop what is left, ask `decide`, act. When its own node dies an agent starts it anew with a higher epoch (`takeover`).
"""

import argparse
import logging
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from trainmaster.errors import SlurmError
from trainmaster.launcher import intent, record, slurm_side, suspects, takeover, wire
from trainmaster.launcher import plan as plans
from trainmaster.launcher.decide import EXIT_REQUEUE, Action, Decision, RankExit, decide, end_state
from trainmaster.launcher.ending import Ending, Reason
from trainmaster.launcher.group import Group
from trainmaster.launcher.hang import Hang
from trainmaster.launcher.launch import Launch, say
from trainmaster.launcher.links import Arrival, Links, Lost, Member, Said
from trainmaster.launcher.placement import lay_out
from trainmaster.launcher.rank_env import CycleFacts
from trainmaster.slurm.commands import Commands

LOG = logging.getLogger("trainmaster.supervisor")
BEAT_S = 1.0
GATHER_PATIENCE_S = 3.0
"""How long to wait for the last agents once there are enough."""
LAUNCHES_MAX = 3
"""How often srun may try to launch the agents of one attempt."""
RECORD_PATIENCE_S = 10.0
"""How long to try to record the end on a disk that is full."""
EXIT_NOT_RECORDED = 74


class Supervisor:
    """The state of one supervisor, and its loop.

    Its phase is the name of the `_tick_…` that runs: gather -> work -> leave -> gone; or yielded, for one that was
    frozen while another took its place. At work, the group's own phase says how the ranks stand.
    """

    def __init__(self, run_dir: Path, epoch: int) -> None:
        self.run_dir = run_dir
        self.plan = plans.read(run_dir)
        self.epoch = epoch
        self.job_id = int(os.environ["SLURM_JOB_ID"])
        self.attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.recorder = record.Recorder(run_dir)
        self.selector = selectors.DefaultSelector()
        self.links = Links(self.selector, wire.read_key(run_dir), silence_s=self.plan.heartbeat_timeout_s)
        self.dead: dict[str, str] = {}
        """Place -> why it must not be used."""
        self.launch: Launch | None = None
        self.asked_why_not_gathered = False
        self.phase = "gather"
        self.phase_since = time.monotonic()
        self.enough_since: float | None = None
        self.known: set[str] = set()
        """Places of an earlier epoch, whose agents are expected."""
        events = [event for event in record.read(run_dir) if event.job_id == self.job_id]
        self.earlier = [event for event in events if event.attempt == self.attempt]
        self.excluded = sorted({node for event in events for node in event.detail.get("excluded", ())})
        self.group = Group(self.plan, self.links)
        self.group.recall(
            number=max((event.cycle for event in self.earlier if event.state == "RUNNING"), default=-1),
            places=next((event.nodes for event in reversed(self.earlier) if event.state == "RUNNING"), ()),
            furthest=-1 if (step := record.last_step(run_dir, events)) is None else step,
        )
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
            quiet = self.group.phase == "run" and self.group.cycle.let_go
            ready = self.selector.select(0.1 if quiet else 0.02)
            gap_s = time.monotonic() - before
            if gap_s > 2.0:
                LOG.warning("this process was held up for %.1f s", gap_s)
                self.links.forgive(gap_s)
                self.group.forgive(gap_s)
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
            self._event("STARTING", detail={"node": self.node, "nodelist": os.environ.get("SLURM_JOB_NODELIST", "")})
            self.launch = Launch(self.selector, slurm_side.agents_command(self.plan, self.post))
            self.launch.start()

    def _take_over(self, predecessor: takeover.Post | None, last_sign_epoch_s: float) -> None:
        """Begin as the successor of a supervisor that died: same attempt, next cycle, agents already there."""
        last = next((event for event in reversed(self.earlier) if event.state == "RUNNING"), None)
        self.known = {*last.nodes, *last.spares} if last is not None else set()
        for node in {node for event in self.earlier for node in event.dead}:
            self.dead[node] = "node_death"
        if predecessor is not None:
            self.dead[predecessor.node] = "supervisor_death"
        self.group.cause = "supervisor_death"
        LOG.warning("supervising as epoch %d from %s", self.epoch, self.node)
        dead = (predecessor.node,) if predecessor is not None else ()
        detail = {"supervisor": self.node, "epoch": self.epoch, "fault_epoch_s": last_sign_epoch_s}
        self._event("RESTARTING", cause=self.group.cause, dead=dead, detail=detail)

    def _hear_launch(self, launch: Launch) -> None:
        gone = launch.hear()
        if self.phase == "gather":
            for node in gone:
                self.dead.setdefault(node, "agent_failed")

    # -- agents --------------------------------------------------------------------------------------------------

    def _healthy(self) -> dict[str, str]:
        """Topology address by place, of all that can run ranks."""
        return {place: member.topology for place, member in self.links.members.items() if place not in self.dead}

    def _greet(self, member: Member, hello: wire.Message) -> None:
        if self.phase in ("leave", "yielded"):
            return
        if self.dead.get(member.place) in ("node_death", "node_silent", "supervisor_death"):
            # It was only out of sight. Its ranks are gone, so it may serve as a spare.
            del self.dead[member.place]
        self.group.cycle.furthest = max(self.group.cycle.furthest, hello["step"])
        self.links.tell(member, {"do": "welcome", "epoch": self.epoch})

    def _lose(self, lost: Lost) -> None:
        if self.phase in ("leave", "yielded"):
            return
        LOG.warning("lost %s (%s): %s", lost.place, lost.how, lost.why)
        self.dead[lost.place] = lost.how
        silent_s = time.monotonic() - lost.last_heard if lost.how == "node_silent" else 0.0
        if not self.group.lose(lost.place, lost.how, time.time() - silent_s):
            self._event("NODE_LOST", cause=lost.how, dead=(lost.place,))

    def _on(self, member: Member, message: wire.Message) -> None:
        group = self.group
        if message.get("cycle", group.cycle.number) != group.cycle.number:
            return
        match message["do"]:
            case "stopped":
                member.port = message["port"]
                member.stopped = True
            case "stuck":
                # Its agent lives, but SIGKILL did not end its ranks: the node is of no use, now or later.
                group.cycle.lose(member.place, "node_stuck", time.time())
                self.dead[member.place] = "node_stuck"
                self.links.dismiss(member.place)
            case "terminated":
                # Slurm has signalled an agent's step and not this one, as for a preemption with GraceTime.
                self._inquire(Reason.RUMOUR)
            case "modules":
                # A node has learnt what to import ahead: the others shall too, and the next attempt.
                for other in list(self.links.members.values()):
                    if other is not member:
                        self.links.tell(other, {"do": "learn", "modules": message["modules"]})
                self.recorder.remember_modules(message["modules"])
            case _:
                group.on(member, message)
                self._tell_of(group)

    def _tell_of(self, group: Group) -> None:
        """Record that ranks run, and their first step, in that order: rank 0 may be quick while others still begin."""
        cycle = group.cycle
        if cycle.all_started and not cycle.start_told:
            cycle.start_told = True
            took_s = time.monotonic() - cycle.started
            self._event("RUNNING", cause=group.cause or None, detail={"start_s": round(took_s, 3)})
        if cycle.all_started and cycle.steps_known and not cycle.progress_told:
            cycle.progress_told = True
            self._event("PROGRESS", detail={"first_step_epoch_s": cycle.first_step_epoch_s})

    # -- phases --------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.recorder.flush()
        if now - self.last_beat >= BEAT_S and self.phase != "yielded":
            self.last_beat = now
            takeover.alive_mark(self.run_dir)
            self.recorder.note_step(self.group.cycle.furthest)
            self.links.tell_all({"do": "beat"})
            self._yield_to_successor()
        self._heed_signals()
        if self.phase in ("gather", "work") and self.ending.hear():
            self.group.ask_for_checkpoint()
        match self.phase:
            case "gather":
                self._tick_gather(now)
            case "work":
                self._tick_group(self.group, now)
            case "leave":
                self._tick_leave(now)
            case "yielded":
                self._tick_yielded()

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.phase_since = time.monotonic()

    def _tick_gather(self, now: float) -> None:
        if self.ending.cause is not None:
            self._end_early(self.ending.cause)
            return
        healthy = len(self._healthy())
        expected = len(self.known | set(self.dead)) if self.epoch else self.plan.nodes + self.plan.spares
        if healthy >= self.plan.nodes:
            self.enough_since = self.enough_since or now
            missing = expected - healthy - len(self.dead)
            if missing <= 0 or now - self.enough_since > GATHER_PATIENCE_S:
                self._enter("work")
                self._start_cycle(self.group)
                return
        # After a takeover the record may call nodes dead that only lost their supervisor; give them time to come.
        settled = not self.epoch or now - self.phase_since > self.plan.heartbeat_timeout_s + GATHER_PATIENCE_S
        hopeless = settled and expected - len(self.dead) < self.plan.nodes
        srun_gone = self.launch is not None and self.launch.gone
        if srun_gone or hopeless or now - self.phase_since > self.plan.start_timeout_s:
            self._give_up_gathering(healthy)

    def _give_up_gathering(self, healthy: int) -> None:
        if not self.asked_why_not_gathered:
            # If the job is being ended, our own SIGTERM is still on its way.
            self.asked_why_not_gathered = True
            self._inquire(Reason.RUMOUR)
        if self.ending.asking or self.ending.cause is not None:
            return
        launch = self.launch
        said = launch.text.strip() if launch is not None else ""
        launch_failed = slurm_side.LAUNCH_FAILED in said and not self.links.members
        if launch is not None and launch_failed and launch.count < LAUNCHES_MAX:
            # slurmd may refuse a job that was requeued within the same second; the next second is another matter.
            LOG.warning("srun could not launch the agents; trying again")
            time.sleep(1.0)
            launch.start()
            self._enter("gather")
            return
        LOG.error("only %d of %d agents reported", healthy, self.plan.nodes)
        text = f"{healthy} of {self.plan.nodes} needed nodes could be started"
        if self.dead:
            text += f"; failed: {', '.join(f'{node} ({why})' for node, why in sorted(self.dead.items()))}"
        text += f"\nsrun said: {said}" if said else ""
        failure = RankExit(rank=-1, node=",".join(sorted(self.dead)), code=71, epoch_s=time.time(), text=text)
        # A folder that is not shared will not be shared after a requeue either.
        if slurm_side.CANNOT_SEE in said or self.attempt >= self.plan.requeues_max or not self.dead:
            decision = Decision(action=Action.END, cause="start", state="FAILED_INFRA", failure=failure)
        else:
            decision = Decision(action=Action.REQUEUE, cause="start", failure=failure, exclude=tuple(self.dead))
        self._act(self.group, decision)

    def _end_early(self, cause: str) -> None:
        """The job is being ended while no rank runs."""
        self._act(self.group, Decision(action=Action.END, cause=cause, state=end_state(cause)))

    def _start_cycle(self, group: Group) -> None:
        layout = lay_out(self._healthy(), group.wanted, running=group.cycle.places)
        assert layout is not None, "decide() counts the healthy places before it orders a restart"
        master = self.links.members[layout.nodes[0]]
        facts = CycleFacts(
            job_id=self.job_id,
            uid=self.plan.uid,
            run_dir=str(self.run_dir),
            attempt=self.attempt,
            cycle=group.cycle.number + 1,
            cause=group.cause,
            nodes=layout.nodes,
            tasks_per_node=self.plan.tasks_per_node,
            master_addr=master.address,
            master_port=master.port,
            restarts_max=self.plan.restarts_max,
        )
        group.start(layout.nodes, facts)

    def _tick_group(self, group: Group, now: float) -> None:
        match group.phase:
            case "run":
                if group.is_over(self.ending, now):
                    group.stop()
            case "stop":
                if group.stopped:
                    self._judge(group)
            case "pause":
                self._tick_pause(group, now)

    def _judge(self, group: Group) -> None:
        """A cycle has ended and nothing of it is left: what now?"""
        terminated = any(entry.failed and entry.code == -signal.SIGTERM for entry in group.cycle.exits.values())
        if terminated and self.ending.cause is None and not group.cycle.asked_why:
            # Where Slurm tracks processes by parent (proctrack/linuxproc) it signals the ranks before it tells us.
            group.cycle.asked_why = True
            self._inquire(Reason.RUMOUR)
        if self.ending.asking:
            return
        decision = decide(
            group.outcome(self.ending),
            group.budget,
            group.limits,
            attempt=self.attempt,
            healthy=len(self._healthy()),
            wanted=group.wanted,
        )
        self._act(group, decision)

    def _tick_pause(self, group: Group, now: float) -> None:
        if self.ending.cause is not None:
            self._end_early(self.ending.cause)
        elif len(self._healthy()) < group.wanted:
            gone = tuple(self.dead)
            decision = Decision(action=Action.REQUEUE, cause="node_death", budget=group.budget, exclude=gone)
            self._act(group, decision)
        elif now >= group.start_at:
            self._start_cycle(group)

    # -- acting on a decision ------------------------------------------------------------------------------------

    def _act(self, group: Group, decision: Decision) -> None:
        group.budget = decision.budget
        for place in decision.exclude:
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
        dead = tuple(dict.fromkeys([*group.cycle.lost, *decision.exclude]))
        LOG.warning("cycle %d: %s because of %s", group.cycle.number, decision.action, decision.cause)
        match decision.action:
            case Action.SUCCEED | Action.END:
                self._finish(decision, dead, detail)
            case Action.RESTART:
                group.cause = decision.cause
                detail |= {"delay_s": decision.delay_s, "restarts": group.budget.restarts}
                self._event("RESTARTING", cause=decision.cause, dead=dead, detail=detail)
                group.start_at = time.monotonic() + decision.delay_s
                group.enter("pause")
                self._tick_pause(group, time.monotonic())
            case Action.REQUEUE:
                self._requeue(decision, dead, detail)

    def _hang(self, group: Group, hang: Hang) -> dict[str, Any]:
        """What the record says of a hang."""
        return {
            "why": str(hang),
            "still_s": round(hang.still_s, 1),
            "section": hang.section,
            "ranks": hang.ranks[:64],
            "suspects": [{"rank": rank, "node": node} for rank, node in group.cycle.suspects],
            "stacks": str(self.run_dir / f"attempt{self.attempt}.{group.cycle.number}" / "rank*.stacks"),
        }

    def _failure(self, group: Group, entry: RankExit) -> dict[str, Any]:
        log = self.run_dir / f"attempt{self.attempt}.{group.cycle.number}" / f"rank{entry.rank}.err"
        return {
            "rank": entry.rank,
            "node": entry.node,
            "exit_code": entry.code if entry.code >= 0 else None,
            "signal": -entry.code if entry.code < 0 else None,
            "traceback": entry.text,
            "log": str(log),
        }

    def _requeue(self, decision: Decision, dead: tuple[str, ...], detail: dict[str, Any]) -> None:
        # When everything is lost at once, the nodes are the last to be blamed; and without them nothing would be left.
        blamed = decision.exclude if self.links.members else ()
        self.excluded = sorted({*self.excluded, *blamed})
        detail["excluded"] = self.excluded
        self._event("REQUEUED", cause=decision.cause, dead=dead, detail=detail)
        slurm_side.leave_requeuer(
            self.run_dir,
            self.job_id,
            restarts=self.attempt,
            exclude=self.excluded,
            dead=tuple(self.dead) if blamed else (),
            plan=self.plan,
        )
        self.exit_code = EXIT_REQUEUE
        self._say_bye()

    def _finish(self, decision: Decision, dead: tuple[str, ...], detail: dict[str, Any]) -> None:
        self._event(decision.state, cause=decision.cause, dead=dead, detail=detail)
        self.exit_code = 0 if decision.state == "SUCCEEDED" else 1
        if decision.failure is not None:
            failure = decision.failure
            say(
                f"trainmaster: {decision.state} ({decision.cause}); first failure: rank {failure.rank} on"
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
        srun_gone = self.launch is None or self.launch.gone
        if srun_gone or (not self.links.members and waited_s > 0.5) or waited_s > 5.0:
            if self.launch is not None:
                self.launch.kill()
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
                self.group.ask_for_checkpoint()

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
        self, state: str, *, cause: str | None = None, dead: tuple[str, ...] = (), detail: dict[str, Any] | None = None
    ) -> None:
        cycle = self.group.cycle
        self.recorder.add(
            record.Event(
                epoch_s=time.time(),
                job_id=self.job_id,
                attempt=self.attempt,
                cycle=max(cycle.number, 0),
                state=state,
                cause=cause,
                nodes=cycle.places,
                spares=self.group.free(self._healthy()),
                dead=dead,
                ranks=cycle.world_size,
                step=cycle.furthest if cycle.furthest >= 0 else None,
                detail=detail or {},
            )
        )


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
