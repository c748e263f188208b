"""The supervisor: the batch step of a job. Starts agents, hands out ranks, answers every fault. Standard library only.

It is a loop around `decide`: gather agents; lay out the ranks; run a cycle; when something ends the cycle, stop what is
left, ask `decide`, act. When its own node dies an agent starts it anew with a higher epoch (`takeover`).
"""

import argparse
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainmaster.errors import SlurmError
from trainmaster.launcher import plan as plans
from trainmaster.launcher import record, slurm_side, takeover, wire
from trainmaster.launcher.decide import (
    EXIT_REQUEUE,
    Action,
    Budget,
    Decision,
    Limits,
    Outcome,
    RankExit,
    cycle_is_over,
    decide,
)
from trainmaster.launcher.members import Member, Roster
from trainmaster.launcher.placement import lay_out
from trainmaster.launcher.rank_env import CycleFacts
from trainmaster.slurm.commands import Commands

LOG = logging.getLogger("trainmaster.supervisor")
BEAT_S = 1.0
GATHER_PATIENCE_S = 3.0
"""How long to wait for the last agents once there are enough."""
CHECKPOINT_PATIENCE_S = 20.0
"""How long ranks may write a checkpoint after SIGTERM came; Slurm's KillWait is 30 s by default."""
REQUEUE_LINGER_S = 10.0
"""How long the other ranks may take once one has said that its checkpoint is written."""
TEXT_MAX = 8192


class Supervisor:
    """The state of one supervisor, and its loop."""

    def __init__(self, run_dir: Path, epoch: int) -> None:
        self.run_dir = run_dir
        self.plan = plans.read(run_dir)
        self.key = wire.read_key(run_dir)
        self.epoch = epoch
        self.job_id = int(os.environ["SLURM_JOB_ID"])
        self.attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.recorder = record.Recorder(run_dir)
        self.selector = selectors.DefaultSelector()
        self.listener: socket.socket | None = None
        self.strangers: list[wire.Connection] = []
        self.roster = Roster()
        self.srun: subprocess.Popen[bytes] | None = None
        self.srun_text = ""
        self.phase = "gather"  # gather -> run -> stop -> (pause) -> run ... -> leave
        self.phase_since = time.monotonic()
        self.enough_since: float | None = None
        self.expected = 0
        events = [event for event in record.read(run_dir) if event.job_id == self.job_id]
        ran = [event.cycle for event in events if event.attempt == self.attempt and event.state == "RUNNING"]
        self.cycle = max(ran, default=-1)
        self.furthest = max((event.step for event in events if event.step is not None), default=-1)
        self.furthest_before = self.furthest
        self.excluded = sorted({node for event in events for node in event.detail.get("excluded", ())})
        self.budget = Budget()
        self.limits = Limits(
            restarts_max=self.plan.restarts_max,
            no_progress_max=self.plan.no_progress_max,
            requeues_max=self.plan.requeues_max,
            backoff_s=self.plan.backoff_s,
        )
        self.nodes: tuple[str, ...] = ()
        self.cause = ""
        self.exits: dict[int, RankExit] = {}
        self.lost: dict[str, str] = {}
        self.fault_epoch_s: float | None = None
        self.steps_known = False
        self.first_step: tuple[int, float] | None = None
        self.cycle_started = 0.0
        self.running_recorded = False
        self.start_at = 0.0
        self.notice: str | None = None
        self.ending: str | None = None
        self.ending_since = 0.0
        self.linger_since: float | None = None
        self.asked_why = False
        self.signals: list[int] = []
        self.last_beat = 0.0
        self.exit_code: int | None = None
        self.leave_since = 0.0

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
        self._listen()
        if self.epoch == 0:
            self._event("STARTING", detail={"node": self.node, "nodelist": os.environ.get("SLURM_JOB_NODELIST", "")})
            self._start_agents()
        else:
            self._take_over()
        before = time.monotonic()
        while self.phase != "gone":
            ready = self.selector.select(0.05 if self.phase != "run" else 0.1)
            gap_s = time.monotonic() - before
            if gap_s > 2.0:
                LOG.warning("this process was held up for %.1f s", gap_s)
                self.roster.forgive(gap_s)
                # Before anything is said or written: it may be somebody else's turn now.
                self._yield_to_successor()
            before = time.monotonic()
            for key, _ in ready:
                if key.data == "wake":
                    os.read(wake_read, 4096)
                elif key.data == "listen":
                    self._accept()
                elif key.data == "srun":
                    self._hear_srun()
            self._hear_all()
            self._tick(time.monotonic())
        return self.exit_code or 0

    def _listen(self) -> None:
        host = slurm_side.own_address(self.node)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind((host, 0))
        except OSError:
            # The address is one that others reach but that no interface here has (a translated one).
            listener.bind(("", 0))
        listener.listen(4096)
        listener.setblocking(False)
        self.listener = listener
        self.selector.register(listener, selectors.EVENT_READ, "listen")
        self.predecessor = takeover.current(self.run_dir) if self.epoch else None
        self.predecessor_seen = time.time() - takeover.silent_s(self.run_dir)
        self.host, self.port = host, int(listener.getsockname()[1])
        takeover.publish(
            self.run_dir,
            takeover.Post(attempt=self.attempt, epoch=self.epoch, node=self.node, host=self.host, port=self.port),
        )

    def _start_agents(self) -> None:
        self.expected = self.plan.nodes + self.plan.spares
        command = slurm_side.agents_command(
            self.plan, host=self.host, port=self.port, attempt=self.attempt, epoch=self.epoch
        )
        self.srun = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stdout, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self.srun.stderr is not None
        os.set_blocking(self.srun.stderr.fileno(), False)
        self.selector.register(self.srun.stderr, selectors.EVENT_READ, "srun")

    def _take_over(self) -> None:
        """Begin as the successor of a supervisor that died: same attempt, next cycle, agents already there."""
        events = [e for e in record.read(self.run_dir) if e.job_id == self.job_id and e.attempt == self.attempt]
        last = next((event for event in reversed(events) if event.state == "RUNNING"), None)
        self.nodes = last.nodes if last is not None else ()
        known = {*self.nodes, *(last.spares if last is not None else ())}
        for node in {node for event in events for node in event.dead}:
            self.roster.dead[node] = "node_death"
        if self.predecessor is not None:
            self.roster.dead[self.predecessor.node] = "supervisor_death"
        self.expected = len(known | set(self.roster.dead))
        self.cause = "supervisor_death"
        LOG.warning("supervising as epoch %d from %s", self.epoch, self.node)
        dead = (self.predecessor.node,) if self.predecessor is not None else ()
        detail = {"supervisor": self.node, "epoch": self.epoch, "fault_epoch_s": self.predecessor_seen}
        self._event("RESTARTING", cause=self.cause, dead=dead, detail=detail)

    def _hear_srun(self) -> None:
        assert self.srun is not None and self.srun.stderr is not None
        data = os.read(self.srun.stderr.fileno(), 1 << 16)
        if not data:
            self.selector.unregister(self.srun.stderr)
            return
        sys.stderr.write(data.decode(errors="replace"))
        sys.stderr.flush()
        text = data.decode(errors="replace")
        self.srun_text = (self.srun_text + text)[-TEXT_MAX:]
        if self.phase == "gather":
            for node in slurm_side.agents_gone(text):
                self.roster.dead.setdefault(node, "agent_failed")

    # -- agents --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self.listener is not None
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            wire.tune(sock, silence_s=self.plan.heartbeat_timeout_s)
            self.selector.register(sock, selectors.EVENT_READ, "agent")
            try:
                self.strangers.append(wire.Connection(sock, self.key, server=True))
            except wire.PeerGone:
                self.selector.unregister(sock)
                sock.close()

    def _hear_all(self) -> None:
        for connection in list(self.strangers):
            try:
                messages = connection.receive()
            except wire.PeerGone as gone:
                LOG.info("a connection was refused: %s", gone)
                self._drop(connection)
                self.strangers.remove(connection)
                continue
            if messages:
                self.strangers.remove(connection)
                if self.phase in ("leave", "yielded"):
                    self._drop(connection)
                    continue
                self._greet(connection, messages[0])
                self._obey(messages[0]["node"], messages[1:])
        for node, member in list(self.roster.members.items()):
            try:
                if member.connection.wants_write:
                    member.connection.flush()
                messages = member.connection.receive()
            except wire.PeerGone as gone:
                self._lose(node, "node_death", str(gone))
                continue
            self._obey(node, messages)

    def _greet(self, connection: wire.Connection, hello: wire.Message) -> None:
        node = hello["node"]
        if node in self.roster.members:
            self._lose(node, "node_death", "its agent came again")
        if node in self.roster.dead and self.roster.dead[node] in ("node_death", "node_silent", "supervisor_death"):
            # It was only out of sight. Its ranks are gone, so it may serve as a spare.
            del self.roster.dead[node]
        member = Member(
            node=node,
            address=hello["address"],
            topology=hello["topology"],
            port=hello["port"],
            connection=connection,
            last_heard=time.monotonic(),
        )
        self.furthest = max(self.furthest, hello["step"])
        self.roster.members[node] = member
        self._tell(member, {"do": "welcome", "epoch": self.epoch})

    def _obey(self, node: str, messages: list[wire.Message]) -> None:
        for message in messages:
            member = self.roster.members.get(node)
            if member is None:
                return
            member.last_heard = time.monotonic()
            getattr(self, f"_on_{message['do']}")(member, message)

    def _tell(self, member: Member, message: wire.Message) -> None:
        try:
            member.connection.send(message)
        except wire.PeerGone as gone:
            self._lose(member.node, "node_death", str(gone))

    def _drop(self, connection: wire.Connection) -> None:
        try:
            self.selector.unregister(connection.sock)
        except (KeyError, ValueError):
            pass
        connection.close()

    def _lose(self, node: str, how: str, why: str) -> None:
        member = self.roster.members.pop(node, None)
        if member is None:
            return
        self._drop(member.connection)
        if self.phase in ("leave", "yielded"):
            return
        LOG.warning("lost %s (%s): %s", node, how, why)
        self.roster.dead[node] = how
        if node in self.nodes and self.phase in ("run", "stop"):
            self.lost[node] = how
            self.fault_epoch_s = self.fault_epoch_s or time.time() - (
                time.monotonic() - member.last_heard if how == "node_silent" else 0.0
            )
        else:
            self._event("NODE_LOST", cause=how, dead=(node,))

    def _on_beat(self, member: Member, message: wire.Message) -> None:
        self._note_steps(message["steps"])

    def _on_started(self, member: Member, message: wire.Message) -> None:
        if message["cycle"] != self.cycle:
            return
        member.started = True
        if not self.running_recorded and all(other.started for other in self.roster.of(self.nodes)):
            self.running_recorded = True
            self._event("RUNNING", cause=self.cause or None, detail={"warm_s": time.monotonic() - self.cycle_started})

    def _on_exit(self, member: Member, message: wire.Message) -> None:
        if message["cycle"] != self.cycle:
            return
        self._note_steps(message["steps"])
        entry = RankExit(
            rank=message["rank"],
            node=member.node,
            code=message["code"],
            epoch_s=message["epoch_s"],
            stopped=message["stopped"],
            raised=message["raised"],
            text=message["text"][-TEXT_MAX:],
        )
        self.exits[entry.rank] = entry
        if entry.failed:
            LOG.warning("rank %d on %s ended with %d", entry.rank, entry.node, entry.code)

    def _on_port_taken(self, member: Member, message: wire.Message) -> None:
        member.port = message["port"]
        text = "EADDRINUSE: the port chosen for MASTER_PORT was taken before rank 0 could have it"
        self.exits[0] = RankExit(rank=0, node=member.node, code=71, epoch_s=time.time(), text=text)

    def _on_stopped(self, member: Member, message: wire.Message) -> None:
        member.port = message["port"]
        if message.get("cycle", self.cycle) == self.cycle:
            member.stopped = True

    def _on_stuck(self, member: Member, message: wire.Message) -> None:
        self._lose(member.node, "node_stuck", "SIGKILL did not end its ranks within 10 s")

    def _on_terminated(self, member: Member, message: wire.Message) -> None:
        """Slurm has signalled an agent's step but not this batch step, as it does for a preemption with GraceTime."""
        self.signals.append(signal.SIGTERM)

    def _on_asked(self, member: Member, message: wire.Message) -> None:
        member.asked = message["ranks"]

    def _on_modules(self, member: Member, message: wire.Message) -> None:
        """A node learnt what to import ahead: the others shall too, and the next attempt."""
        for other in list(self.roster.members.values()):
            if other is not member:
                self._tell(other, {"do": "learn", "modules": message["modules"]})
        self.recorder.remember_modules(message["modules"])

    # -- cycles --------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.recorder.flush()
        if now - self.last_beat >= BEAT_S:
            self.last_beat = now
            takeover.alive_mark(self.run_dir)
            for member in list(self.roster.members.values()):
                self._tell(member, {"do": "beat"})
            self._yield_to_successor()
        for member in self.roster.silent(now, self.plan.heartbeat_timeout_s):
            self._lose(member.node, "node_silent", f"no heartbeat for {self.plan.heartbeat_timeout_s:g} s")
        self._heed_signals(now)
        getattr(self, f"_tick_{self.phase}")(now)

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.phase_since = time.monotonic()

    def _tick_gather(self, now: float) -> None:
        healthy = len(self.roster.addresses())
        if self.ending is not None:
            self._act(Decision(action=Action.END, cause=self.ending, state=_end_state(self.ending)))
            return
        if healthy >= self.plan.nodes:
            self.enough_since = self.enough_since or now
        missing = self.expected - healthy - len(self.roster.dead)
        waited = self.enough_since is not None and now - self.enough_since > GATHER_PATIENCE_S
        if healthy >= self.plan.nodes and (missing <= 0 or waited):
            self._start_cycle()
            return
        srun_gone = self.srun is not None and self.srun.poll() is not None
        # After a takeover the record may call nodes dead that only lost their supervisor; give them time to come.
        settled = self.epoch == 0 or now - self.phase_since > self.plan.heartbeat_timeout_s + GATHER_PATIENCE_S
        hopeless = settled and self.expected - len(self.roster.dead) < self.plan.nodes
        if srun_gone or hopeless or now - self.phase_since > self.plan.start_timeout_s:
            self._give_up_gathering(healthy)

    def _give_up_gathering(self, healthy: int) -> None:
        job = slurm_side.ask_for_job(self.job_id)
        if (self.run_dir / "cancel.json").exists() or (job is not None and job.state != "RUNNING"):
            # The agents did not come because the job is being ended; our own SIGTERM is still on its way.
            self._find_out_why()
            return
        said = self.srun_text.strip()
        LOG.error("only %d of %d agents reported", healthy, self.plan.nodes)
        text = f"{healthy} of {self.plan.nodes} needed nodes could be started"
        if self.roster.dead:
            text += f"; failed: {', '.join(f'{node} ({why})' for node, why in sorted(self.roster.dead.items()))}"
        text += f"\nsrun said: {said}" if said else ""
        failure = RankExit(rank=-1, node=",".join(sorted(self.roster.dead)), code=71, epoch_s=time.time(), text=text)
        unseen = "cannot see" in said
        gone = tuple(self.roster.dead)
        if unseen or self.attempt >= self.limits.requeues_max or not gone:
            # A folder that is not shared will not be shared after a requeue either.
            decision = Decision(action=Action.END, cause="start", state="FAILED_INFRA", failure=failure)
        else:
            decision = Decision(action=Action.REQUEUE, cause="start", failure=failure, exclude=gone)
        self._act(decision)

    def _start_cycle(self) -> None:
        layout = lay_out(self.roster.addresses(), self.plan.nodes, running=self.nodes)
        assert layout is not None, "decide() counts the healthy nodes before it orders a restart"
        self.cycle += 1
        self.nodes = layout.nodes
        self.exits, self.lost = {}, {}
        self.fault_epoch_s = self.first_step = self.linger_since = None
        self.running_recorded = self.asked_why = False
        self.furthest_before = self.furthest
        self.cycle_started = time.monotonic()
        master = self.roster.members[layout.nodes[0]]
        facts = CycleFacts(
            job_id=self.job_id,
            uid=self.plan.uid,
            run_dir=str(self.run_dir),
            attempt=self.attempt,
            cycle=self.cycle,
            cause=self.cause,
            nodes=layout.nodes,
            tasks_per_node=self.plan.tasks_per_node,
            master_addr=master.address,
            master_port=master.port,
            restarts_max=self.plan.restarts_max,
        )
        LOG.info("cycle %d on %s", self.cycle, ",".join(layout.nodes))
        self._enter("run")
        for member in self.roster.of(layout.nodes):
            member.started = member.stopped = False
            member.asked = None
        for member in self.roster.of(layout.nodes):
            self._tell(member, {"do": "start", "facts": asdict(facts)})

    def _outcome(self) -> Outcome:
        codes = {entry.code for entry in self.exits.values()}
        return Outcome(
            world_size=self.plan.nodes * self.plan.tasks_per_node,
            exits=tuple(self.exits.values()),
            lost=dict(self.lost),
            ending=self.ending or (self.notice if EXIT_REQUEUE in codes else None),
            advanced=self.furthest > self.furthest_before,
            steps_known=self.steps_known,
            uptime_s=time.monotonic() - self.cycle_started,
        )

    def _tick_run(self, now: float) -> None:
        outcome = self._outcome()
        if cycle_is_over(outcome):
            failed = {entry.code for entry in self.exits.values() if entry.failed}
            if failed == {EXIT_REQUEUE} and not self.lost:
                self.linger_since = self.linger_since or now
                if len(self.exits) < outcome.world_size and now - self.linger_since < REQUEUE_LINGER_S:
                    return
            self._stop_cycle(self.plan.stop_grace_s)
        elif self.ending is not None:
            answers = [member.asked for member in self.roster.of(self.nodes)]
            answered = all(answer is not None for answer in answers)
            nobody = answered and not any(answers)
            if nobody or now - self.ending_since > CHECKPOINT_PATIENCE_S:
                self._stop_cycle(self.plan.stop_grace_s)

    def _stop_cycle(self, grace_s: float) -> None:
        failures = [entry.epoch_s for entry in self.exits.values() if entry.failed]
        self.fault_epoch_s = min([*failures, *([self.fault_epoch_s] if self.fault_epoch_s else [])], default=None)
        self._enter("stop")
        for member in self.roster.of(self.nodes):
            self._tell(member, {"do": "stop", "grace_s": grace_s})

    def _tick_stop(self, now: float) -> None:
        killed = any(entry.failed and entry.code == -signal.SIGTERM for entry in self.exits.values())
        if killed and self.ending is None and not self.asked_why:
            # Where Slurm tracks processes by parent (proctrack/linuxproc) it signals the ranks before it tells us.
            self.asked_why = True
            job = slurm_side.ask_for_job(self.job_id)
            if job is not None and (job.state != "RUNNING" or job.preempt_time is not None):
                self._find_out_why()
        if all(member.stopped for member in self.roster.of(self.nodes)):
            healthy = len(self.roster.addresses())
            self._act(
                decide(
                    self._outcome(),
                    self.budget,
                    self.limits,
                    attempt=self.attempt,
                    healthy=healthy,
                    wanted=self.plan.nodes,
                )
            )

    def _tick_pause(self, now: float) -> None:
        if self.ending is not None:
            self._act(Decision(action=Action.END, cause=self.ending, state=_end_state(self.ending)))
        elif len(self.roster.addresses()) < self.plan.nodes:
            self._act(
                Decision(action=Action.REQUEUE, cause="node_death", budget=self.budget, exclude=tuple(self.roster.dead))
            )
        elif now >= self.start_at:
            self._start_cycle()

    def _act(self, decision: Decision) -> None:
        self.budget = decision.budget
        for node in decision.exclude:
            member = self.roster.members.pop(node, None)
            self.roster.dead.setdefault(node, decision.cause)
            if member is not None:
                self._tell(member, {"do": "bye"})
                self._drop(member.connection)
        detail: dict[str, Any] = {}
        if self.fault_epoch_s is not None:
            detail["fault_epoch_s"] = self.fault_epoch_s
        if decision.failure is not None:
            detail["failure"] = self._failure(decision.failure)
        dead = tuple(self.lost) + tuple(node for node in decision.exclude if node not in self.lost)
        LOG.warning("cycle %d: %s because of %s", self.cycle, decision.action, decision.cause)
        match decision.action:
            case Action.SUCCEED | Action.END:
                self._finish(decision, dead, detail)
            case Action.RESTART:
                self.cause = decision.cause
                detail |= {"delay_s": decision.delay_s, "restarts": self.budget.restarts}
                self._event("RESTARTING", cause=decision.cause, dead=dead, detail=detail)
                self.start_at = time.monotonic() + decision.delay_s
                self._enter("pause")
                self._tick_pause(time.monotonic())
            case Action.REQUEUE:
                self._requeue(decision, dead, detail)

    def _failure(self, entry: RankExit) -> dict[str, Any]:
        log = self.run_dir / f"attempt{self.attempt}.{self.cycle}" / f"rank{entry.rank}.err"
        return {
            "rank": entry.rank,
            "node": entry.node,
            "exit_code": entry.code if entry.code >= 0 else None,
            "signal": -entry.code if entry.code < 0 else None,
            "traceback": entry.text,
            "log": str(log),
        }

    def _requeue(self, decision: Decision, dead: tuple[str, ...], detail: dict[str, Any]) -> None:
        self.excluded = sorted({*self.excluded, *decision.exclude})
        detail["excluded"] = self.excluded
        self._event("REQUEUED", cause=decision.cause, dead=dead, detail=detail)
        slurm_side.leave_requeuer(
            self.run_dir,
            self.job_id,
            restarts=self.attempt,
            exclude=self.excluded,
            dead=tuple(self.roster.dead),
            plan=self.plan,
        )
        self.exit_code = EXIT_REQUEUE
        self._say_bye()

    def _finish(self, decision: Decision, dead: tuple[str, ...], detail: dict[str, Any]) -> None:
        self._event(decision.state, cause=decision.cause, dead=dead, detail=detail)
        self.exit_code = 0 if decision.state == "SUCCEEDED" else 1
        if decision.failure is not None:
            failure = decision.failure
            sys.stderr.write(
                f"trainmaster: {decision.state} ({decision.cause}); first failure: rank {failure.rank} on"
                f" {failure.node} ended with {failure.code}\n{failure.text}\n"
            )
            sys.stderr.flush()
            if 0 < failure.code < 126:
                self.exit_code = failure.code
        self._say_bye()

    def _say_bye(self) -> None:
        self._enter("leave")
        for member in list(self.roster.members.values()):
            self._tell(member, {"do": "bye"})

    def _tick_leave(self, now: float) -> None:
        waited_s = now - self.phase_since
        if self.recorder.pending and waited_s < 10.0:
            return
        if self.epoch > 0:
            # We are the child of an agent. Slurm believes that this job runs until somebody says otherwise.
            if self.exit_code != EXIT_REQUEUE:
                try:
                    Commands(timeout_s=10.0).cancel(self.job_id)
                except SlurmError as error:
                    LOG.warning("could not end the job: %s", error)
            self.phase = "gone"
            return
        srun_gone = self.srun is None or self.srun.poll() is not None
        if srun_gone or (not self.roster.members and waited_s > 0.5) or waited_s > 5.0:
            if self.srun is not None and not srun_gone:
                # It waits for agents on dead nodes, which will never answer.
                self.srun.kill()
            self.phase = "gone"
        if self.recorder.pending:
            self.exit_code = 74

    # -- signals and successors ----------------------------------------------------------------------------------

    def _heed_signals(self, now: float) -> None:
        numbers, self.signals = self.signals, []
        for number in numbers:
            if number == signal.SIGUSR2 and self.ending is None:
                self.notice = self._notice()
                LOG.warning("asked for a checkpoint: %s", self.notice)
                self._ask_for_checkpoint()
            elif number in (signal.SIGTERM, signal.SIGINT) and self.ending is None and self.phase != "leave":
                self._find_out_why()
                self._ask_for_checkpoint()

    def _find_out_why(self) -> None:
        """Learn why Slurm is ending this job."""
        job = slurm_side.ask_for_job(self.job_id)
        self.ending = slurm_side.ending_of(job, self.run_dir)
        self.ending_since = time.monotonic()
        LOG.warning("the job is ending: %s (Slurm says %s)", self.ending, job.state if job else "nothing")

    def _ask_for_checkpoint(self) -> None:
        if self.phase != "run":
            return
        for member in self.roster.of(self.nodes):
            member.asked = None
            self._tell(member, {"do": "checkpoint"})

    def _notice(self) -> str:
        """Why SIGUSR2 came: the time limit is near, a preemption (with send_user_signal), or somebody's wish."""
        job = slurm_side.ask_for_job(self.job_id)
        if job is not None and job.preempt_time is not None:
            return "preemption"
        lead_s = self.plan.checkpoint_signal_s + 90
        if job is None or job.end_time is None or job.end_time - time.time() <= lead_s:
            return "timeout"
        return "requested"

    def _yield_to_successor(self) -> None:
        """If an agent made a newer supervisor while this one was frozen, leave everything to it.

        Not by exiting: the end of the batch script would make Slurm end the job under the successor. So this process
        waits, without agents, until the record says that the job is over.
        """
        post = takeover.current(self.run_dir)
        if post is None or post.attempt != self.attempt or post.epoch <= self.epoch or self.phase == "yielded":
            return
        LOG.warning("a supervisor of epoch %d has taken over on %s", post.epoch, post.node)
        for member in list(self.roster.members.values()):
            self._drop(member.connection)
        self.roster.members.clear()
        self._enter("yielded")

    def _tick_yielded(self, now: float) -> None:
        end = record.end_of(record.read(self.run_dir))
        if self.ending is not None or end is not None:
            self.exit_code = 0 if end is not None and end.state == "SUCCEEDED" else 1
            self.phase = "gone"

    # -- the record ----------------------------------------------------------------------------------------------

    def _note_steps(self, steps: dict[str, list[float]]) -> None:
        for step, epoch_s in steps.values():
            self.steps_known = True
            if self.first_step is None and self.phase == "run":
                self.first_step = (int(step), epoch_s)
                self._event("PROGRESS", step=int(step), detail={"first_step_epoch_s": epoch_s})
            self.furthest = max(self.furthest, int(step))

    def _event(
        self,
        state: str,
        *,
        cause: str | None = None,
        dead: tuple[str, ...] = (),
        step: int | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        healthy = self.roster.addresses()
        if step is None and self.furthest >= 0:
            step = self.furthest
        self.recorder.add(
            record.Event(
                epoch_s=time.time(),
                job_id=self.job_id,
                attempt=self.attempt,
                cycle=max(self.cycle, 0),
                state=state,
                cause=cause,
                nodes=self.nodes,
                spares=tuple(node for node in healthy if node not in self.nodes),
                dead=dead,
                ranks=self.plan.nodes * self.plan.tasks_per_node,
                step=step,
                detail=detail or {},
            )
        )


def _end_state(ending: str) -> str:
    return {"user": "CANCELLED", "timeout": "TIMED_OUT", "preemption": "PREEMPTED"}.get(ending, "FAILED_INFRA")


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
