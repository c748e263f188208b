"""The agent: one process a node, started by the supervisor's srun. Runs ranks on orders. Standard library only.

It needs no Slurm command. When it loses the supervisor it stops its ranks first, so that no rank of an old cycle goes
on, and then looks for the next supervisor or becomes its parent (`takeover`).
"""

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from trainmaster.launcher import plan as plans
from trainmaster.launcher import record, runner, wire
from trainmaster.launcher.container import missing_on_node
from trainmaster.launcher.node import processes
from trainmaster.launcher.node.join import GUEST
from trainmaster.launcher.node.rank_host import RankHost
from trainmaster.launcher.rank import rank_env
from trainmaster.launcher.rank.page import Kind
from trainmaster.launcher.supervise import takeover

LOG = logging.getLogger("trainmaster.agent")
BEAT_S = 1.0
ORDERS_PATIENCE_S = 3.0
"""After Slurm's SIGTERM, how long to wait for the supervisor's orders before stopping by ourselves."""
RECONNECT_S = 0.5
CLAIM_PATIENCE_S = 20.0
"""If whoever claimed an epoch died before it published itself, the next epoch is open after this."""
GUEST_PATIENCE_S = 60.0
"""How long the agent of a refill looks for the next supervisor: an agent of the job itself makes one in seconds."""
EXIT_UNFIT_NODE = 78


class Agent:
    """The state of one agent, and its loop."""

    def __init__(
        self, run_dir: Path, post: takeover.Post, node: str, *, role: str = "", guest_job: int | None = None
    ) -> None:
        """`role`: of a job of roles the one whose replicas run here. `guest_job`: of a refill its own job number."""
        self.guest_job = guest_job
        self.run_dir = run_dir
        self.role = role
        self.plan = runner.for_agents(plans.read(run_dir / role), cwd=str(Path.cwd()))
        self.key = wire.read_key(run_dir)
        self.node = node
        self.post = post
        self.selector = selectors.DefaultSelector()
        self.connection: wire.Connection | None = None
        self.welcomed_ever = False
        self.last_heard = time.monotonic()
        self.last_beat = 0.0
        self.orphan_since: float | None = None
        self.terminated_at: float | None = None
        self.terminated_told = False
        self.successor: subprocess.Popen[bytes] | None = None
        self.done = False
        self.exit_code = 0
        self.host = self._host(node)

    def _host(self, node: str) -> RankHost:
        if self.plan.runner == runner.AGENT:
            return RankHost(self.run_dir / self.role, self.plan, node, self._tell)
        from trainmaster.launcher.node.step_host import StepHost

        return StepHost(self.run_dir, self.plan, node, self._tell)

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the supervisor says good-bye; returns the exit code."""
        processes.adopt_orphans()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self.selector.register(wake_read, selectors.EVENT_READ, "wake")
        server = self.host.server
        if server is not None:
            self.selector.register(server, selectors.EVENT_READ, "server")
        self.host.copies.attach(self.selector)
        self._connect()
        before = time.monotonic()
        while not self.done:
            ready = self.selector.select(self._patience_s())
            if (gap_s := time.monotonic() - before) > 2.0:
                # We were suspended or frozen. The supervisor may have been too, and then owes us no heartbeat.
                self.last_heard += gap_s
            before = time.monotonic()
            for key, _ in ready:
                if key.data == "wake":
                    try:
                        os.read(wake_read, 4096)
                    except BlockingIOError:
                        pass
                elif key.data == "server" and self.host.server is server:
                    self.host.hear_server()
                elif key.data == "copies":
                    self.host.copies.hear()
            if server is not None and self.host.server is None:
                self.selector.unregister(server)
                server = None
            # Reading first and judging silence after means that our own delay is never taken for the peer's.
            self._hear_supervisor()
            self._reap()
            self.host.feed_server()
            self.host.copies.flush()
            self.host.carry_on()
            self.host.check_store()
            if self.role:
                self.host.tell_registered()
            self._tick(time.monotonic())
        self._leave()
        return self.exit_code

    def _patience_s(self) -> float:
        if self.host.stopping or self.host.stacks is not None:
            return 0.02
        if self.host.awaits_store:
            return 0.005
        return 0.1 if self.connection is None or self.host.awaits_first_steps else 0.25

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and self.terminated_at is None:
            self.terminated_at = time.monotonic()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.successor is not None and pid == self.successor.pid:
                self.successor.returncode = os.waitstatus_to_exitcode(status)
            else:
                self.host.child_ended(pid, status)

    def _tick(self, now: float) -> None:
        if self.connection is not None:
            if self.terminated_at is not None and not self.terminated_told:
                self.terminated_told = True
                self._tell({"do": "terminated"})
            if now - self.last_beat >= BEAT_S or self.host.new_first_steps():
                self.last_beat = now
                where = {"steps": self.host.steps(), "where": self.host.whereabouts(), "pace": self.host.paces()}
                where |= {"activity": self.host.activity()}
                self._tell({"do": "beat", **where, **self.host.reported()})
            if now - self.last_heard > self.plan.heartbeat_timeout_s:
                self._lose_supervisor("silent")
        elif self.host.idle:
            self._look_for_supervisor(now)
        if self.terminated_at is not None and now - self.terminated_at > ORDERS_PATIENCE_S and self.connection is None:
            # Slurm is ending the job and nobody told us what to do; stop by ourselves while there is time.
            if self.host.idle:
                self.done = True
            elif not self.host.stopping:
                self.host.stop(self.plan.stop_grace_s)
        self.host.collect_modules()
        self.host.stand_by()

    def _leave(self) -> None:
        self.host.stop(0.0)
        deadline = time.monotonic() + 5.0
        while not self.host.idle and time.monotonic() < deadline:
            self.host.carry_on()
            self._reap()
            time.sleep(0.02)
        self.host.close()
        if self.successor is not None and self.successor.returncode is None:
            # This agent is the parent of the supervisor that took over; it must outlive it.
            self.exit_code = self.successor.wait()
        if self.connection is not None:
            self.connection.close()

    # -- the supervisor ------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            sock = socket.create_connection((self.post.host, self.post.port), timeout=3.0)
        except OSError as error:
            LOG.info("cannot reach the supervisor at %s:%d: %s", self.post.host, self.post.port, error)
            return
        wire.tune(sock, silence_s=self.plan.heartbeat_timeout_s)
        self.host.address = self.host.copies.address = sock.getsockname()[0]
        self.connection = wire.Connection(sock, self.key, server=False)
        self.selector.register(sock, selectors.EVENT_READ, "supervisor")
        self.last_heard = time.monotonic()
        self._tell(
            {
                "do": "hello",
                "node": self.node,
                "role": self.role,
                "slot": slot_of(self.plan),
                "address": self.host.address,
                "topology": os.environ.get("SLURM_TOPOLOGY_ADDR", self.node),
                "port": self.host.offer_port(),
                "step": self.host.furthest,
                "copies": self.host.copies.have,
                "job": self.guest_job,
            }
        )

    def _tell(self, message: wire.Message) -> None:
        if self.connection is None:
            return
        try:
            self.connection.send(message)
        except wire.PeerGone as gone:
            self._lose_supervisor(str(gone))

    def _hear_supervisor(self) -> None:
        if self.connection is None:
            return
        try:
            if self.connection.wants_write:
                self.connection.flush()
            messages = self.connection.receive()
        except wire.PeerGone as gone:
            self._lose_supervisor(str(gone))
            return
        for message in messages:
            self.last_heard = time.monotonic()
            self._obey(message)

    def _obey(self, message: wire.Message) -> None:
        match message["do"]:
            case "welcome":
                self.welcomed_ever = True
                self.orphan_since = None
                if not self.host.idle and not self.host.stopping:
                    # A supervisor that took over knows nothing of what runs here, and nothing may run on from before.
                    self.host.stop(0.0)
            case "start":
                self.host.start(rank_env.CycleFacts.from_message(message["facts"]))
            case "go":
                self.host.go(message["cycle"])
            case "checkpoint":
                asked = self.host.checkpoint(again=message["again"])
                self._tell({"do": "asked", "ranks": asked, "listening": self.host.listening()})
            case "propose":
                at = self.host.propose(Kind(message["kind"]), message["step"])
                self._tell({"do": "proposed", "cycle": message["cycle"], "step": message["step"], "at": at})
            case "decide":
                self.host.decide(holds=message["holds"])
            case "copies":
                self.host.copies.pass_on(message)
            case "stacks":
                self.host.ask_for_stacks()
            case "stop":
                self.host.stop(float(message["grace_s"]))
            case "learn":
                self.host.learn(message["modules"])
            case "bye":
                self.done = True
            case "beat":
                pass

    def _lose_supervisor(self, why: str) -> None:
        if self.connection is None:
            return
        LOG.warning("lost the supervisor at %s:%d: %s", self.post.host, self.post.port, why)
        self.selector.unregister(self.connection.sock)
        self.connection.close()
        self.connection = None
        self.orphan_since = time.monotonic()
        if not self.host.idle:
            self.host.stop(0.0)

    def _look_for_supervisor(self, now: float) -> None:
        """Without a supervisor and without ranks: find the next one, or see to it that there is one."""
        self.orphan_since = self.orphan_since or now
        patience_s = self.plan.start_timeout_s if self.guest_job is None else GUEST_PATIENCE_S
        if now - self.orphan_since > patience_s:
            LOG.error("no supervisor for %.0f s; leaving", patience_s)
            self.done, self.exit_code = True, 1
            return
        post = takeover.current(self.run_dir)
        if post is not None and post.attempt == self.post.attempt and post.epoch > self.post.epoch:
            self.post = post
            self._connect()
            return
        if self._is_over():
            self.done = True
            return
        # In this order: a successor that publishes itself while we knock must not make the old one look alive.
        silent_s = takeover.silent_s(self.run_dir)
        refused = not self._answers()
        if not self.welcomed_ever or (not refused and silent_s < 2 * BEAT_S):
            # Only our connection broke; or we never had one: the address may be wrong, and a second supervisor harms.
            self._connect()
        elif self.guest_job is None and (refused or silent_s > self.plan.heartbeat_timeout_s):
            # A port that refuses has no process behind it. Any other silence may be the network's, or a frozen
            # process's, so its sign of life in the run folder has to stop as well before anybody takes its place.
            self._succeed(now - self.orphan_since)

    def _is_over(self) -> bool:
        """Whether this attempt has ended while we were out of touch."""
        events = record.read(self.run_dir)
        return any(e.attempt == self.post.attempt and (e.ends or e.state == "REQUEUED") for e in events)

    def _answers(self) -> bool:
        """False only when the supervisor's port is refused, that is when its process is surely gone."""
        try:
            socket.create_connection((self.post.host, self.post.port), timeout=RECONNECT_S).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True

    def _succeed(self, orphan_s: float) -> None:
        epoch = self.post.epoch + 1 + int(orphan_s / CLAIM_PATIENCE_S)
        if not takeover.claim(self.run_dir, attempt=self.post.attempt, epoch=epoch, node=self.node):
            return
        LOG.warning("starting the supervisor of epoch %d on this node", epoch)
        with (self.run_dir / "batch.out").open("ab") as log:
            self.successor = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "trainmaster.launcher.supervise.supervisor",
                    self.run_dir,
                    "--epoch",
                    str(epoch),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.host.successor_pid = self.successor.pid


def slot_of(plan: plans.Plan) -> int | None:
    """Which of its node's agents this is, where each rank has one of its own."""
    return int(os.environ.get("SLURM_LOCALID", "0")) if plan.agent_per_rank else None


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.node.agent RUN_DIR HOST PORT ATTEMPT EPOCH [ROLE]`."""
    run_dir = Path(argv[0])
    role = argv[5] if len(argv) > 5 else ""
    post = takeover.Post(attempt=int(argv[3]), epoch=int(argv[4]), node="", host=argv[1], port=int(argv[2]))
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    if not (run_dir / plans.FILE).exists():
        # stderr of srun is the only place that the supervisor can read this from.
        sys.stderr.write(
            f"trainmaster: {node} cannot see {run_dir}: the job's folder must be on storage that all nodes share\n"
        )
        return EXIT_UNFIT_NODE
    if missing := missing_on_node(plans.read(run_dir / role).container, node):
        sys.stderr.write(f"{missing}\n")
        return EXIT_UNFIT_NODE
    if cwd := plans.read(run_dir).cwd:
        os.chdir(cwd)
    logging.basicConfig(
        filename=run_dir / role / f"agent-{node}.log",
        format="%(asctime)s %(levelname)s %(message)s",
        level=logging.INFO,
    )
    # Not for the ranks to see.
    guest = os.environ.pop(GUEST, "")
    guest_job = int(os.environ["SLURM_JOB_ID"]) if guest else None
    return Agent(run_dir, post, node, role=role, guest_job=guest_job).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
