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
from trainmaster.launcher.cycle import Cycle
from trainmaster.launcher.decide import (
    EXIT_REQUEUE,
    Action,
    Budget,
    Decision,
    Limits,
    RankExit,
    cycle_is_over,
    decide,
    end_state,
)
from trainmaster.launcher.links import Arrival, Links, Lost, Member, Said
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
HEAD_START_S = 0.15
"""How long rank 0 may take to open its store before the other ranks start all the same."""
LAUNCHES_MAX = 3
"""How often srun may try to launch the agents of one attempt."""
RECORD_PATIENCE_S = 10.0
"""How long to try to record the end on a disk that is full."""
TEXT_MAX = 8192
EXIT_NOT_RECORDED = 74


class Supervisor:
    """The state of one supervisor, and its loop.

    Its phase is the name of the `_tick_…` that runs: gather -> run -> stop -> pause -> run … -> leave -> gone;
    or yielded, for one that was frozen while another took its place.
    """

    def __init__(self, run_dir: Path, epoch: int) -> None:
        self.run_dir = run_dir
        self.plan = plans.read(run_dir)
        self.epoch = epoch
        self.job_id = int(os.environ["SLURM_JOB_ID"])
        self.attempt = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.world_size = self.plan.nodes * self.plan.tasks_per_node
        self.recorder = record.Recorder(run_dir)
        self.selector = selectors.DefaultSelector()
        silence_s = self.plan.heartbeat_timeout_s
        self.links = Links(self.selector, wire.read_key(run_dir), silence_s=silence_s)
        self.dead: dict[str, str] = {}
        """Node -> why it must not be used."""
        self.srun: subprocess.Popen[bytes] | None = None
        self.srun_text = ""
        self.launches = 0
        self.asked_why_not_gathered = False
        self.phase = "gather"
        self.phase_since = time.monotonic()
        self.enough_since: float | None = None
        self.known: set[str] = set()
        """Nodes of an earlier epoch, whose agents are expected."""
        events = [event for event in record.read(run_dir) if event.job_id == self.job_id]
        self.earlier = [event for event in events if event.attempt == self.attempt]
        self.excluded = sorted({node for event in events for node in event.detail.get("excluded", ())})
        self.cycle = Cycle(
            number=max((event.cycle for event in self.earlier if event.state == "RUNNING"), default=-1),
            nodes=next((event.nodes for event in reversed(self.earlier) if event.state == "RUNNING"), ()),
            world_size=self.world_size,
            furthest_before=-1,
            furthest=-1 if (step := record.last_step(run_dir, events)) is None else step,
        )
        self.cause = ""
        """Why the next cycle is started."""
        self.budget = Budget()
        self.limits = Limits(
            restarts_max=self.plan.restarts_max,
            no_progress_max=self.plan.no_progress_max,
            requeues_max=self.plan.requeues_max,
            backoff_s=self.plan.backoff_s,
        )
        self.steps_ever = False
        self.start_at = 0.0
        self.notice: str | None = None
        """Why ranks were asked for a checkpoint while the job goes on."""
        self.ending: str | None = None
        """Why Slurm is ending the job."""
        self.ending_since = 0.0
        self.inquiry: slurm_side.Inquiry | None = None
        """A question to Slurm whose answer tells why we were signalled."""
        self.inquiry_for = ""
        """warning (SIGUSR2), end (SIGTERM), or rumour: only an agent was signalled, or ranks died of SIGTERM."""
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
            quiet = self.phase == "run" and self.cycle.let_go
            ready = self.selector.select(0.1 if quiet else 0.02)
            gap_s = time.monotonic() - before
            if gap_s > 2.0:
                LOG.warning("this process was held up for %.1f s", gap_s)
                self.links.forgive(gap_s)
                # Before anything is said or written: it may be somebody else's turn now.
                self._yield_to_successor()
            before = time.monotonic()
            for key, _ in ready:
                if key.data == "wake":
                    os.read(wake_read, 4096)
                elif key.data == "srun":
                    self._hear_srun()
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
                (self.run_dir / "cancel.json").unlink(missing_ok=True)
            self._event("STARTING", detail={"node": self.node, "nodelist": os.environ.get("SLURM_JOB_NODELIST", "")})
            self._start_agents()

    def _start_agents(self) -> None:
        self.launches += 1
        self.srun_text = ""
        if self.srun is not None and self.srun.stderr is not None:
            self._forget_srun_output()
        command = slurm_side.agents_command(self.plan, self.post)
        self.srun = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stdout, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self.srun.stderr is not None
        os.set_blocking(self.srun.stderr.fileno(), False)
        self.selector.register(self.srun.stderr, selectors.EVENT_READ, "srun")

    def _take_over(self, predecessor: takeover.Post | None, last_sign_epoch_s: float) -> None:
        """Begin as the successor of a supervisor that died: same attempt, next cycle, agents already there."""
        last = next((event for event in reversed(self.earlier) if event.state == "RUNNING"), None)
        self.known = {*last.nodes, *last.spares} if last is not None else set()
        for node in {node for event in self.earlier for node in event.dead}:
            self.dead[node] = "node_death"
        if predecessor is not None:
            self.dead[predecessor.node] = "supervisor_death"
        self.cause = "supervisor_death"
        LOG.warning("supervising as epoch %d from %s", self.epoch, self.node)
        dead = (predecessor.node,) if predecessor is not None else ()
        detail = {"supervisor": self.node, "epoch": self.epoch, "fault_epoch_s": last_sign_epoch_s}
        self._event("RESTARTING", cause=self.cause, dead=dead, detail=detail)

    def _hear_srun(self) -> None:
        assert self.srun is not None and self.srun.stderr is not None
        try:
            data = os.read(self.srun.stderr.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._forget_srun_output()
            return
        text = data.decode(errors="replace")
        _say(text)
        self.srun_text = (self.srun_text + text)[-TEXT_MAX:]
        if self.phase == "gather":
            for node in slurm_side.agents_gone(text):
                self.dead.setdefault(node, "agent_failed")

    def _forget_srun_output(self) -> None:
        assert self.srun is not None and self.srun.stderr is not None
        try:
            self.selector.unregister(self.srun.stderr)
        except (KeyError, ValueError):
            pass

    # -- agents --------------------------------------------------------------------------------------------------

    def _healthy(self) -> dict[str, str]:
        """Topology address by node, of all that can run ranks."""
        return {node: member.topology for node, member in self.links.members.items() if node not in self.dead}

    def _greet(self, member: Member, hello: wire.Message) -> None:
        if self.phase in ("leave", "yielded"):
            return
        if self.dead.get(member.node) in ("node_death", "node_silent", "supervisor_death"):
            # It was only out of sight. Its ranks are gone, so it may serve as a spare.
            del self.dead[member.node]
        self.cycle.furthest = max(self.cycle.furthest, hello["step"])
        self.links.tell(member, {"do": "welcome", "epoch": self.epoch})

    def _lose(self, lost: Lost) -> None:
        if self.phase in ("leave", "yielded"):
            return
        LOG.warning("lost %s (%s): %s", lost.node, lost.how, lost.why)
        self.dead[lost.node] = lost.how
        if lost.node in self.cycle.nodes and self.phase in ("run", "stop"):
            silent_s = time.monotonic() - lost.last_heard if lost.how == "node_silent" else 0.0
            self.cycle.lose(lost.node, lost.how, time.time() - silent_s)
        else:
            self._event("NODE_LOST", cause=lost.how, dead=(lost.node,))

    def _on(self, member: Member, message: wire.Message) -> None:
        if message.get("cycle", self.cycle.number) != self.cycle.number:
            return
        match message["do"]:
            case "beat":
                self._note_steps(message["steps"])
            case "listening":
                self._let_go()
            case "started":
                member.started = True
                self._note_started()
            case "exit":
                self._note_steps(message["steps"])
                self._note_exit(member, message)
            case "stopped":
                member.port = message["port"]
                member.stopped = True
            case "port_taken":
                member.port = message["port"]
                text = "EADDRINUSE: the port chosen for MASTER_PORT was taken before rank 0 could have it"
                self.cycle.end_rank(RankExit(rank=0, node=member.node, code=71, epoch_s=time.time(), text=text))
            case "stuck":
                # Its agent lives, but SIGKILL did not end its ranks: the node is of no use, now or later.
                self.cycle.lose(member.node, "node_stuck", time.time())
                self.dead[member.node] = "node_stuck"
                self.links.dismiss(member.node)
            case "asked":
                member.asked = message["ranks"]
            case "terminated":
                # Slurm has signalled an agent's step and not this one, as for a preemption with GraceTime.
                self._inquire("rumour")
            case "modules":
                # A node has learnt what to import ahead: the others shall too, and the next attempt.
                for other in list(self.links.members.values()):
                    if other is not member:
                        self.links.tell(other, {"do": "learn", "modules": message["modules"]})
                self.recorder.remember_modules(message["modules"])

    def _let_go(self) -> None:
        """Have the ranks other than 0 started: the store is open, or rank 0 takes its time."""
        if not self.cycle.let_go and self.phase == "run":
            self.cycle.let_go = True
            for member in self.links.of(self.cycle.nodes):
                self.links.tell(member, {"do": "go", "cycle": self.cycle.number})

    def _note_started(self) -> None:
        if not self.cycle.all_started and all(other.started for other in self.links.of(self.cycle.nodes)):
            self.cycle.all_started = True
            took_s = time.monotonic() - self.cycle.started
            self._event("RUNNING", cause=self.cause or None, detail={"start_s": round(took_s, 3)})
            self._note_progress()

    def _note_progress(self) -> None:
        """Record the first step, but never before the start: rank 0 may be quick while others still begin."""
        if self.cycle.all_started and self.cycle.steps_known and not self.cycle.progress_told:
            self.cycle.progress_told = True
            self._event("PROGRESS", detail={"first_step_epoch_s": self.cycle.first_step_epoch_s})

    def _note_exit(self, member: Member, message: wire.Message) -> None:
        entry = RankExit(
            rank=message["rank"],
            node=member.node,
            code=message["code"],
            epoch_s=message["epoch_s"],
            stopped=message["stopped"],
            raised=message["raised"],
            text=message["text"][-TEXT_MAX:],
        )
        self.cycle.end_rank(entry)
        if entry.failed:
            LOG.warning("rank %d on %s ended with %d", entry.rank, entry.node, entry.code)

    def _note_steps(self, steps: dict[str, list[float]]) -> None:
        self.cycle.note_steps(steps)
        self.steps_ever = self.steps_ever or self.cycle.steps_known
        self._note_progress()

    # -- phases --------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self.recorder.flush()
        if now - self.last_beat >= BEAT_S and self.phase != "yielded":
            self.last_beat = now
            takeover.alive_mark(self.run_dir)
            self.recorder.note_step(self.cycle.furthest)
            self.links.tell_all({"do": "beat"})
            self._yield_to_successor()
        self._heed_signals()
        self._hear_slurm()
        match self.phase:
            case "gather":
                self._tick_gather(now)
            case "run":
                self._tick_run(now)
            case "stop":
                self._tick_stop()
            case "pause":
                self._tick_pause(now)
            case "leave":
                self._tick_leave(now)
            case "yielded":
                self._tick_yielded()

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.phase_since = time.monotonic()

    def _tick_gather(self, now: float) -> None:
        if self.ending is not None:
            self._act(Decision(action=Action.END, cause=self.ending, state=end_state(self.ending)))
            return
        healthy = len(self._healthy())
        expected = len(self.known | set(self.dead)) if self.epoch else self.plan.nodes + self.plan.spares
        if healthy >= self.plan.nodes:
            self.enough_since = self.enough_since or now
            missing = expected - healthy - len(self.dead)
            if missing <= 0 or now - self.enough_since > GATHER_PATIENCE_S:
                self._start_cycle()
                return
        # After a takeover the record may call nodes dead that only lost their supervisor; give them time to come.
        settled = not self.epoch or now - self.phase_since > self.plan.heartbeat_timeout_s + GATHER_PATIENCE_S
        hopeless = settled and expected - len(self.dead) < self.plan.nodes
        srun_gone = self.srun is not None and self.srun.poll() is not None
        if srun_gone or hopeless or now - self.phase_since > self.plan.start_timeout_s:
            self._give_up_gathering(healthy)

    def _give_up_gathering(self, healthy: int) -> None:
        if not self.asked_why_not_gathered:
            # If the job is being ended, our own SIGTERM is still on its way.
            self.asked_why_not_gathered = True
            self._inquire("rumour")
        if self.inquiry is not None or self.ending is not None:
            return
        said = self.srun_text.strip()
        if slurm_side.LAUNCH_FAILED in said and self.launches < LAUNCHES_MAX and not self.links.members:
            # slurmd may refuse a job that was requeued within the same second; the next second is another matter.
            LOG.warning("srun could not launch the agents; trying again")
            time.sleep(1.0)
            self._start_agents()
            self._enter("gather")
            return
        LOG.error("only %d of %d agents reported", healthy, self.plan.nodes)
        text = f"{healthy} of {self.plan.nodes} needed nodes could be started"
        if self.dead:
            text += f"; failed: {', '.join(f'{node} ({why})' for node, why in sorted(self.dead.items()))}"
        text += f"\nsrun said: {said}" if said else ""
        failure = RankExit(rank=-1, node=",".join(sorted(self.dead)), code=71, epoch_s=time.time(), text=text)
        # A folder that is not shared will not be shared after a requeue either.
        if slurm_side.CANNOT_SEE in said or self.attempt >= self.limits.requeues_max or not self.dead:
            self._act(Decision(action=Action.END, cause="start", state="FAILED_INFRA", failure=failure))
        else:
            self._act(Decision(action=Action.REQUEUE, cause="start", failure=failure, exclude=tuple(self.dead)))

    def _start_cycle(self) -> None:
        layout = lay_out(self._healthy(), self.plan.nodes, running=self.cycle.nodes)
        assert layout is not None, "decide() counts the healthy nodes before it orders a restart"
        self.cycle = Cycle(
            number=self.cycle.number + 1,
            nodes=layout.nodes,
            world_size=self.world_size,
            furthest_before=self.cycle.furthest,
            furthest=self.cycle.furthest,
        )
        master = self.links.members[layout.nodes[0]]
        facts = CycleFacts(
            job_id=self.job_id,
            uid=self.plan.uid,
            run_dir=str(self.run_dir),
            attempt=self.attempt,
            cycle=self.cycle.number,
            cause=self.cause,
            nodes=layout.nodes,
            tasks_per_node=self.plan.tasks_per_node,
            master_addr=master.address,
            master_port=master.port,
            restarts_max=self.plan.restarts_max,
        )
        LOG.info("cycle %d on %s", self.cycle.number, ",".join(layout.nodes))
        self._enter("run")
        for member in self.links.of(layout.nodes):
            member.started = member.stopped = False
            member.asked = None
            self.links.tell(member, {"do": "start", "facts": asdict(facts)})
        if self.world_size == 1:
            self._let_go()

    def _tick_run(self, now: float) -> None:
        if now - self.cycle.started > HEAD_START_S:
            self._let_go()
        outcome = self.cycle.outcome(ending=self.ending, notice=self.notice, steps_ever=self.steps_ever)
        if cycle_is_over(outcome):
            if self.cycle.only_asks_for_a_requeue and len(self.cycle.exits) < self.world_size:
                self.cycle.linger_since = self.cycle.linger_since or now
                if now - self.cycle.linger_since < REQUEUE_LINGER_S:
                    return
            self._stop_cycle()
        elif self.ending is not None:
            answers = [member.asked for member in self.links.of(self.cycle.nodes)]
            nobody = None not in answers and not any(answers)
            if nobody or now - self.ending_since > CHECKPOINT_PATIENCE_S:
                self._stop_cycle()

    def _stop_cycle(self) -> None:
        self._enter("stop")
        for member in self.links.of(self.cycle.nodes):
            self.links.tell(member, {"do": "stop", "grace_s": self.plan.stop_grace_s})

    def _tick_stop(self) -> None:
        if not all(member.stopped for member in self.links.of(self.cycle.nodes)):
            return
        terminated = any(entry.failed and entry.code == -signal.SIGTERM for entry in self.cycle.exits.values())
        if terminated and self.ending is None and not self.cycle.asked_why:
            # Where Slurm tracks processes by parent (proctrack/linuxproc) it signals the ranks before it tells us.
            self.cycle.asked_why = True
            self._inquire("rumour")
        if self.inquiry is not None:
            return
        self._act(
            decide(
                self.cycle.outcome(ending=self.ending, notice=self.notice, steps_ever=self.steps_ever),
                self.budget,
                self.limits,
                attempt=self.attempt,
                healthy=len(self._healthy()),
                wanted=self.plan.nodes,
            )
        )

    def _tick_pause(self, now: float) -> None:
        if self.ending is not None:
            self._act(Decision(action=Action.END, cause=self.ending, state=end_state(self.ending)))
        elif len(self._healthy()) < self.plan.nodes:
            gone = tuple(self.dead)
            self._act(Decision(action=Action.REQUEUE, cause="node_death", budget=self.budget, exclude=gone))
        elif now >= self.start_at:
            self._start_cycle()

    # -- acting on a decision ------------------------------------------------------------------------------------

    def _act(self, decision: Decision) -> None:
        self.budget = decision.budget
        for node in decision.exclude:
            self.dead.setdefault(node, decision.cause)
            self.links.dismiss(node)
        detail: dict[str, Any] = {}
        if self.cycle.fault_epoch_s is not None:
            detail["fault_epoch_s"] = self.cycle.fault_epoch_s
        if decision.failure is not None:
            detail["failure"] = self._failure(decision.failure)
        dead = tuple(dict.fromkeys([*self.cycle.lost, *decision.exclude]))
        LOG.warning("cycle %d: %s because of %s", self.cycle.number, decision.action, decision.cause)
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
        log = self.run_dir / f"attempt{self.attempt}.{self.cycle.number}" / f"rank{entry.rank}.err"
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
            _say(
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
        srun_gone = self.srun is None or self.srun.poll() is not None
        if srun_gone or (not self.links.members and waited_s > 0.5) or waited_s > 5.0:
            if self.srun is not None and not srun_gone:
                # It waits for agents on dead nodes, which will never answer.
                self.srun.kill()
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
            elif self.ending is None and self.phase != "leave":
                self._inquire("warning" if number == signal.SIGUSR2 else "end")
                # Whatever the cause is: there may be little time, so the ranks begin to save at once.
                self._ask_for_checkpoint()

    def _inquire(self, reason: str) -> None:
        """Ask Slurm why; `_hear_slurm` takes the answer. What is certain outranks what is a rumour."""
        if self.ending is not None or self.phase in ("leave", "yielded"):
            return
        if self.inquiry is None or (reason == "end" and self.inquiry_for != "end"):
            self.inquiry, self.inquiry_for = slurm_side.Inquiry(self.job_id), reason

    def _hear_slurm(self) -> None:
        if self.inquiry is None or not self.inquiry.done:
            return
        job, reason = self.inquiry.job, self.inquiry_for
        self.inquiry = None
        if reason == "warning":
            self.notice = slurm_side.notice_of(job, lead_s=self.plan.checkpoint_signal_s, now=time.time())
            LOG.warning("asked for a checkpoint: %s", self.notice)
            return
        cancelled = (self.run_dir / "cancel.json").exists()
        calm = job is None or (job.state == "RUNNING" and job.preempt_time is None)
        if reason == "rumour" and calm and not cancelled:
            return
        self.ending = slurm_side.ending_of(job, self.run_dir)
        if self.epoch and self.ending == "node_failure":
            # The batch step is dead, and Slurm is now ending the job for it. Its process alone was killed.
            self.ending = "supervisor_death"
        self.ending_since = time.monotonic()
        LOG.warning("the job is ending: %s (Slurm says %s)", self.ending, job.state if job else "nothing")
        self._ask_for_checkpoint()

    def _ask_for_checkpoint(self) -> None:
        if self.phase != "run":
            return
        for member in self.links.of(self.cycle.nodes):
            member.asked = None
            self.links.tell(member, {"do": "checkpoint"})

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
        nodes = self.cycle.nodes
        self.recorder.add(
            record.Event(
                epoch_s=time.time(),
                job_id=self.job_id,
                attempt=self.attempt,
                cycle=max(self.cycle.number, 0),
                state=state,
                cause=cause,
                nodes=nodes,
                spares=tuple(node for node in self._healthy() if node not in nodes),
                dead=dead,
                ranks=self.world_size,
                step=self.cycle.furthest if self.cycle.furthest >= 0 else None,
                detail=detail or {},
            )
        )


def _say(text: str) -> None:
    """Write to the batch step's output, if the disk takes it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass


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
