"""The supervisor: the batch step of a job. Starts agents, hands out ranks, answers every fault. Standard library only.

It is a loop: gather agents (`gathering`); run the ranks and answer what befalls them (`work`), until it is decided how
the job ends; leave. What its parts share is the job as it knows it (`supervised`). When its own node dies an agent
starts it anew with a higher epoch (`takeover`).
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
from trainmaster.launcher import array_layout, intent, record, wire
from trainmaster.launcher import plan as plans
from trainmaster.launcher.exit_rules import EXIT_NEVER_REQUEUE, EXIT_REQUEUE, Kind
from trainmaster.launcher.roles import role_plan
from trainmaster.launcher.supervise import refill, slurm_side, takeover, usual
from trainmaster.launcher.supervise.board import Board
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.component import Component
from trainmaster.launcher.supervise.decide import Action
from trainmaster.launcher.supervise.ending import Ending, Reason
from trainmaster.launcher.supervise.gathering import Gathering
from trainmaster.launcher.supervise.launch import Launch, say
from trainmaster.launcher.supervise.links import Arrival, Links, Lost, Member, Said, node_of
from trainmaster.launcher.supervise.requeuing import Requeuing
from trainmaster.launcher.supervise.supervised import Supervised
from trainmaster.launcher.supervise.work import Verdict, Work
from trainmaster.slurm.commands import Commands

LOG = logging.getLogger("trainmaster.supervisor")
BEAT_S = 1.0
RECORD_PATIENCE_S = 10.0
"""How long to try to record the end on a disk that is full."""
REFILL_PATIENCE_S = 5.0
"""How long Slurm may take to cancel the jobs of one node that brought more."""
EXIT_NOT_RECORDED = 74


class Supervisor:
    """The state of one supervisor, and its loop.

    Its phase is gather -> work -> leave -> gone; or yielded, for one that was frozen while another took its place. At
    work, each group's own phase says how its ranks stand.
    """

    def __init__(self, run_dir: Path, epoch: int) -> None:
        plan = plans.read(run_dir)
        job_id = array_layout.job_id_here(os.environ)
        attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.selector = selectors.DefaultSelector()
        links = Links(self.selector, wire.read_key(run_dir), silence_s=plan.heartbeat_timeout_s)
        events = [event for event in record.read(run_dir) if event.job_id == job_id]
        self.earlier = [event for event in events if event.attempt == attempt]
        self.requeuing: Requeuing | None = None
        roles = role_plan.read(run_dir)
        self.job = Supervised(
            run_dir=run_dir,
            plan=plan,
            job_id=job_id,
            attempt=attempt,
            epoch=epoch,
            links=links,
            components=Component.all_of(run_dir, plan, roles, links),
            roles={role.name: role for role in roles},
            ending=Ending(run_dir, job_id, attempt=attempt, lead_s=plan.checkpoint_signal_s, taken_over=bool(epoch)),
            generation=1 + max((int(event.detail.get("generation", -1)) for event in events), default=-1),
        )
        for component in self.job.components:
            component.recall(run_dir, events, attempt=attempt)
        self.chronicle = Chronicle(self.job)
        self.board = Board(run_dir, self.job.components, attempt=attempt)
        self.gathering = Gathering(self.job)
        self.work = Work(self.job, self.chronicle)
        self.work.refill.recall(self.earlier)
        self.phase = "gather"
        self.phase_since = time.monotonic()
        self.signals: list[int] = []
        self.last_beat = self.last_usual = 0.0
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
            ready = self.selector.select(0.1 if all(group.is_quiet for group in self.job.groups) else 0.02)
            gap_s = time.monotonic() - before
            if gap_s > 2.0:
                LOG.warning("this process was held up for %.1f s", gap_s)
                self.job.links.forgive(gap_s)
                for group in self.job.groups:
                    group.forgive(gap_s)
                # Before anything is said or written: it may be somebody else's turn now.
                self._yield_to_successor()
            before = time.monotonic()
            for key, _ in ready:
                if key.data == "wake":
                    os.read(wake_read, 4096)
                elif isinstance(key.data, Launch):
                    self._hear_launch(key.data)
            for news in self.job.links.hear():
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
            LOG.warning("attempt %d is over already", self.job.attempt)
            self.phase = "gone"
            return
        predecessor = takeover.current(self.job.run_dir) if self.job.epoch else None
        last_sign_epoch_s = time.time() - takeover.silent_s(self.job.run_dir)
        host = slurm_side.own_address(self.node)
        port = self.job.links.listen(host)
        self.post = takeover.Post(attempt=self.job.attempt, epoch=self.job.epoch, node=self.node, host=host, port=port)
        takeover.publish(self.job.run_dir, self.post)
        if self.job.epoch:
            self._take_over(predecessor, last_sign_epoch_s)
        else:
            if self.job.attempt:
                # Whoever requeued a job by hand after cancelling it has changed their mind.
                intent.drop(self.job.run_dir, intent.CANCEL)
            self.board.publish(self.job.generation)
            detail: dict[str, Any] = {"node": self.node, "nodelist": os.environ.get("SLURM_JOB_NODELIST", "")}
            self.chronicle.tell("STARTING", detail=detail | self.job.of_generation())
            for number, component in enumerate(self.job.components):
                command = component.command(number=number, run_dir=self.job.run_dir, post=self.post)
                component.launch = Launch(self.selector, command)
                component.launch.start()

    def _take_over(self, predecessor: takeover.Post | None, last_sign_epoch_s: float) -> None:
        """Begin as the successor of a supervisor that died: same attempt, next cycle, agents already there."""
        for component in self.job.components:
            own = [event for event in self.earlier if event.role == component.name and event.state == "RUNNING"]
            last = {event.replica: event for event in own}
            nodes = {node for event in last.values() for node in (*event.nodes, *event.spares)}
            self.gathering.known |= {place for node in nodes for place in component.places_on(node)}
            gone = {node: "node_death" for event in self.earlier for node in event.dead}
            if predecessor is not None:
                gone[predecessor.node] = "supervisor_death"
            for node, how in gone.items():
                # A node that ran another role's replicas is no place of this one.
                places = [
                    place for place in component.places_on(node) if place in self.gathering.known or not self.job.roles
                ]
                self.job.dead |= dict.fromkeys(places, how)
        for group in self.job.groups:
            group.cause = "supervisor_death"
        self.board.publish(self.job.generation)
        LOG.warning("supervising as epoch %d from %s", self.job.epoch, self.node)
        dead = (predecessor.node,) if predecessor is not None else ()
        detail: dict[str, Any] = {
            "supervisor": self.node,
            "epoch": self.job.epoch,
            "fault_epoch_s": last_sign_epoch_s,
            "budget": {"charged": [[Kind.NODE, f"{node} (supervisor_death)"] for node in dead], "keep": True},
        }
        self.chronicle.tell("RESTARTING", cause="supervisor_death", dead=dead, detail=detail | self.job.of_generation())

    def _hear_launch(self, launch: Launch) -> None:
        if self.phase == "gather":
            self.gathering.hear(launch)
        else:
            launch.hear()

    # -- agents --------------------------------------------------------------------------------------------------

    def _greet(self, member: Member, hello: wire.Message) -> None:
        if self.phase in ("leave", "yielded"):
            return
        welcome = refill.LOST if member.job is None else refill.LOST | refill.UNBLAMED
        if self.job.dead.get(member.place) in welcome:
            # It was only out of sight, or Slurm has given it to us again. It may serve as a spare.
            del self.job.dead[member.place]
        component, _ = self.job.at(member)
        if len(component.groups) == 1:
            cycle = component.groups[0].cycle
            cycle.furthest = max(cycle.furthest, hello["step"])
        if hello["copies"] is not None:
            component.copies.hear(member, hello["copies"])
        self.job.links.tell(member, {"do": "welcome", "epoch": self.job.epoch})
        self.work.refill.joined(member)

    def _lose(self, lost: Lost) -> None:
        if self.phase in ("leave", "yielded"):
            return
        LOG.warning("lost %s (%s): %s", lost.place, lost.how, lost.why)
        self.job.dead[lost.place] = lost.how
        for component in self.job.components:
            component.copies.forget(lost.place)
        silent_s = time.monotonic() - lost.last_heard if lost.how == "node_silent" else 0.0
        # Not only one can know the place: a group that pauses has run there, too.
        hit = [group.lose(lost.place, lost.how, time.time() - silent_s) for group in self.job.groups]
        if not any(hit):
            self.chronicle.tell("NODE_LOST", cause=lost.how, dead=(node_of(lost.place),))

    def _on(self, member: Member, message: wire.Message) -> None:
        component, group = self.job.at(member)
        match message["do"]:
            case "terminated" if member.job is not None:
                # Not our end, only that of the job that brought it: preempted, say, or cancelled by hand.
                self.job.links.dismiss(member.place)
                why = f"Slurm ends job {member.job}, which brought it"
                self._lose(Lost(place=member.place, how=refill.WITHDRAWN, why=why, last_heard=time.monotonic()))
                return
            case "terminated":
                # Slurm has signalled an agent's step and not this one, as for a preemption with GraceTime.
                self._inquire(Reason.RUMOUR)
                return
            case "copies":
                component.copies.hear(member, message)
                return
            case "modules":
                # A node has learnt what to import ahead: the others shall too, and the next attempt.
                for other in list(self.job.links.members.values()):
                    if other is not member and other.role == member.role:
                        self.job.links.tell(other, {"do": "learn", "modules": message["modules"]})
                self.chronicle.recorder.remember_modules(message["modules"], role=component.name)
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
                self.job.dead[member.place] = "node_stuck"
                self.job.links.dismiss(member.place)
            case _ if group is not None:
                group.on(member, message)
                self.chronicle.tell_of(group)

    # -- phases --------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.chronicle.recorder.flush()
        if now - self.last_beat >= BEAT_S and self.phase != "yielded":
            self.last_beat = now
            takeover.alive_mark(self.job.run_dir)
            furthest = max(group.cycle.furthest for group in self.job.groups)
            # Of several roles each has its own pace.
            slowest = self.job.groups[0].cycle.slowest if len(self.job.groups) == 1 else None
            values = self.job.groups[0].values.last if len(self.job.groups) == 1 else None
            self.chronicle.recorder.note_step(furthest, slowest, values)
            self.job.links.tell_all({"do": "beat"})
            self._yield_to_successor()
            if now - self.last_usual >= usual.EVERY_S:
                self.last_usual = now
                for component in self.job.components:
                    usual.write(self.job.run_dir / component.name, component.groups[0].values.usual)
        self._heed_signals()
        if self.phase in ("gather", "work") and self.job.ending.hear():
            self.job.ask_for_checkpoint()
        match self.phase:
            case "gather":
                self._tick_gather(now)
            case "work":
                self.work.tick(now)
            case "leave":
                self._tick_leave(now)
            case "yielded":
                self._tick_yielded()
        if self.phase == "work":
            self.board.publish(self.job.generation)
        if self.work.verdict is not None and self.phase in ("gather", "work"):
            self._conclude(self.work.verdict)

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.phase_since = time.monotonic()

    def _tick_gather(self, now: float) -> None:
        if self.work.closing:
            self._enter("work")
        elif self.job.ending.cause is not None:
            self.work.end_early(self.job.groups[0], self.job.ending.cause)
        elif self.gathering.is_enough(now):
            self._enter("work")
            self.work.start()
        elif self.gathering.is_hopeless(now) and (given_up := self.gathering.give_up()) is not None:
            self.work.act(*given_up)

    # -- the end of the job --------------------------------------------------------------------------------------

    def _conclude(self, verdict: Verdict) -> None:
        if verdict.decision.action is not Action.REQUEUE:
            self._finish(verdict)
            return
        self.requeuing = self.requeuing or Requeuing(self.job, verdict)
        if self.requeuing.ready:
            self._requeue(verdict, self.requeuing)

    def _requeue(self, verdict: Verdict, requeuing: Requeuing) -> None:
        detail = verdict.detail | requeuing.settle()
        self.chronicle.tell("REQUEUED", verdict.group, cause=verdict.decision.cause, dead=verdict.dead, detail=detail)
        requeuing.leave()
        self.exit_code = EXIT_REQUEUE
        self._say_bye()

    def _finish(self, verdict: Verdict) -> None:
        decision = verdict.decision
        self.chronicle.tell(
            decision.state, verdict.group, cause=decision.cause, dead=verdict.dead, detail=verdict.detail
        )
        self.exit_code = {"SUCCEEDED": 0, "NO_PROGRESS": EXIT_NEVER_REQUEUE}.get(decision.state, 1)
        if decision.failure is not None:
            failure = decision.failure
            of_role = self.job.component(verdict.group).label if verdict.group is not None else ""
            what = f"first failure: rank {failure.rank}{of_role} on {failure.node} ended with {failure.code}"
            if failure.rank < 0:
                what = f"no rank{of_role} could be started"
            say(f"trainmaster: {decision.state} ({decision.cause}); {what}\n{failure.text}\n")
            if 0 < failure.code < 126 and decision.state != "NO_PROGRESS":
                self.exit_code = failure.code
        self._say_bye()

    def _say_bye(self) -> None:
        self._enter("leave")
        self.work.refill.close()
        self.job.links.tell_all({"do": "bye"})

    def _tick_leave(self, now: float) -> None:
        waited_s = now - self.phase_since
        if self.chronicle.recorder.pending:
            if waited_s < RECORD_PATIENCE_S:
                return
            self.exit_code = EXIT_NOT_RECORDED
        if not self.work.refill.closed and waited_s < REFILL_PATIENCE_S:
            return  # no node may start for a job that is over
        if self.requeuing is not None and not self.requeuing.asked:
            return  # with control groups nothing outlives this process
        if self.job.epoch:
            # We are the child of an agent. Slurm believes that this job runs until somebody says otherwise.
            self._end_job()
            self.phase = "gone"
            return
        launches = [one.launch for one in self.job.components if one.launch is not None]
        sruns_gone = all(launch.gone for launch in launches)
        if sruns_gone or (not self.job.links.members and waited_s > 0.5) or waited_s > 5.0:
            for launch in launches:
                launch.kill()
            if self.job.ending.kindly and self.job.ending.cause == "user" and self.exit_code:
                # To Slurm too it is a cancelled job, not a failed one.
                self._end_job()
            self.phase = "gone"

    def _end_job(self) -> None:
        job = slurm_side.ask_for_job(self.job.job_id)
        if self.exit_code == EXIT_REQUEUE or job is None or job.restarts != self.job.attempt:
            # It is, or will be, another attempt's job.
            return
        try:
            Commands(timeout_s=10.0).cancel(self.job.job_id)
        except SlurmError as error:
            LOG.warning("could not end the job: %s", error)

    # -- signals and successors ----------------------------------------------------------------------------------

    def _heed_signals(self) -> None:
        numbers, self.signals = self.signals, []
        for number in numbers:
            if self.phase == "yielded":
                if number != signal.SIGUSR2:
                    self.phase = "gone"
            elif self.job.ending.cause is None and self.phase != "leave":
                self.job.ending.heed(number)
                # Whatever the cause is: there may be little time, so the ranks begin to save at once.
                self.job.ask_for_checkpoint()

    def _inquire(self, reason: Reason) -> None:
        if self.phase not in ("leave", "yielded"):
            self.job.ending.inquire(reason)

    def _yield_to_successor(self) -> None:
        """If an agent made a newer supervisor while this one was frozen, leave everything to it.

        Not by exiting: the end of the batch script would make Slurm end the job under the successor. So this process
        waits, without agents, until the record says that the job is over.
        """
        post = takeover.current(self.job.run_dir)
        if post is None or post.attempt != self.job.attempt or post.epoch <= self.job.epoch or self.phase == "yielded":
            return
        LOG.warning("a supervisor of epoch %d has taken over on %s", post.epoch, post.node)
        self.job.links.drop_all()
        self._enter("yielded")

    def _tick_yielded(self) -> None:
        end = record.end_of(record.read(self.job.run_dir))
        if end is not None:
            self.exit_code = 0 if end.state == "SUCCEEDED" else 1
            self.phase = "gone"


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.supervise.supervisor RUN_DIR [--epoch N]`."""
    parser = argparse.ArgumentParser(prog="trainmaster.launcher.supervise.supervisor")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--epoch", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    return Supervisor(args.run_dir, args.epoch).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
