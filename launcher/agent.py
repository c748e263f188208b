"""The agent: one process a node, started by the supervisor's srun. Runs ranks on orders. Standard library only.

It needs no Slurm command. When it loses the supervisor it stops its ranks first, so that no rank of an old cycle goes
on, and then looks for the next supervisor or becomes its parent (`takeover`).
"""

import errno
import fcntl
import json
import logging
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainmaster.launcher import plan as plans
from trainmaster.launcher import processes, rank_env, record, takeover, wire, worker
from trainmaster.launcher.ranks import LocalRank, Ranks, start_cold, tail
from trainmaster.launcher.warm import ForkServer, PythonProgram, as_python_program, imports_of

LOG = logging.getLogger("trainmaster.agent")
BEAT_S = 1.0
_SIOCGIFADDR = 0x8915
_RECONNECT_S = 0.5


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def free_port(address: str, allowed: range) -> int:
    """A port of `allowed` that nothing listens on now. Raises OSError when a thousand are taken."""
    for port in rank_env.candidate_ports(allowed, count=1000):
        if port_is_free(address, port):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port in {allowed.start}-{allowed.stop - 1} on {address}")


def port_is_free(address: str, port: int) -> bool:
    """Whether a listener could take it. torch's store binds to every address, so that is what is tested."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def _allowed_ports() -> range:
    try:
        lowest, highest = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return rank_env.port_range(int(lowest), int(highest))
    except (OSError, ValueError):
        return rank_env.port_range(32768, 60999)


class Agent:
    """The state of one agent, and its loop."""

    def __init__(self, run_dir: Path, host: str, port: int, attempt: int, epoch: int) -> None:
        self.run_dir = run_dir
        self.plan = plans.read(run_dir)
        self.key = wire.read_key(run_dir)
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.post = takeover.Post(attempt=attempt, epoch=epoch, node="", host=host, port=port)
        self.selector = selectors.DefaultSelector()
        self.connection: wire.Connection | None = None
        self.welcome = False
        self.welcomed_ever = False
        self.address = ""
        self.ports = _allowed_ports()
        self.scratch = Path(tempfile.mkdtemp(prefix="trainmaster-", dir=_scratch_folder()))
        self.ranks: Ranks | None = None
        self.reported_stop = True
        self.awaited_forks: set[int] = set()
        self.early_exits: dict[int, int] = {}
        self.server: ForkServer | None = None
        self.program = as_python_program(self.plan.program) if self.plan.program else None
        self.base_env = dict(os.environ) | self.plan.env
        if self.plan.tasks_per_node > 1:
            self.base_env.setdefault("OMP_NUM_THREADS", "1")
        self.known_modules: set[str] = set()
        self.last_heard = time.monotonic()
        self.last_beat = 0.0
        self.terminated_at: float | None = None
        self.terminated_told = True
        self.successor: subprocess.Popen[bytes] | None = None
        self.orphan_since: float | None = None
        self.first_steps_told: set[int] = set()
        self.furthest = -1
        self.done = False
        self.exit_code = 0

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
        self._start_server()
        self._connect()
        while not self.done:
            for key, _ in self.selector.select(self._patience_s()):
                if key.data == "wake":
                    try:
                        os.read(wake_read, 4096)
                    except BlockingIOError:
                        pass
                elif key.data == "server":
                    self._hear_server()
            # Reading first and judging silence after means that our own delay is never taken for the peer's.
            self._hear_supervisor()
            self._reap()
            self._step_stop()
            self._tick()
        self._leave()
        return self.exit_code

    def _patience_s(self) -> float:
        if self.ranks is not None and self.ranks.stop_asked_at is not None and not self.reported_stop:
            return 0.02
        if self.connection is None:
            return 0.1
        # Until each rank's first step is reported, look often: it is what recovery is measured by.
        waiting = self.ranks is not None and len(self.first_steps_told) < len(self.ranks.ranks)
        return 0.1 if waiting else 0.25

    def _on_signal(self, number: int, frame: Any) -> None:
        if number == signal.SIGTERM and self.terminated_at is None:
            self.terminated_at = time.monotonic()
            self.terminated_told = False

    def _tick(self) -> None:
        now = time.monotonic()
        if self.connection is not None:
            if not self.terminated_told:
                self.terminated_told = True
                self._tell({"do": "terminated"})
            if now - self.last_beat >= BEAT_S or self._new_first_steps():
                self.last_beat = now
                self._tell({"do": "beat", "steps": self._steps()})
            if now - self.last_heard > self.plan.heartbeat_timeout_s:
                self._lose_supervisor("silent")
        elif self.reported_stop or self.ranks is None:
            self._look_for_supervisor()
        if self.terminated_at is not None and now - self.terminated_at > 3.0 and self.ranks is not None:
            # Slurm is ending the job and nobody told us what to do; stop by ourselves while there is time.
            if self.connection is None and self.ranks.stop_asked_at is None:
                self._stop(self.plan.stop_grace_s)
            if self.connection is None and self.reported_stop:
                self.done = True
        self._collect_modules()

    # -- the supervisor ------------------------------------------------------------------------------------------

    def _connect(self) -> bool:
        try:
            sock = socket.create_connection((self.post.host, self.post.port), timeout=3.0)
        except OSError as error:
            LOG.info("cannot reach the supervisor at %s:%d: %s", self.post.host, self.post.port, error)
            return False
        wire.tune(sock, silence_s=self.plan.heartbeat_timeout_s)
        self.address = sock.getsockname()[0]
        self.connection = wire.Connection(sock, self.key, server=False)
        self.selector.register(sock, selectors.EVENT_READ, "supervisor")
        self.welcome = False
        self.last_heard = time.monotonic()
        self._tell(
            {
                "do": "hello",
                "node": self.node,
                "address": self.address,
                "topology": os.environ.get("SLURM_TOPOLOGY_ADDR", self.node),
                "port": self._offer(),
                "step": self.furthest,
            }
        )
        return self.connection is not None

    def _offer(self) -> int:
        """A port for the store, should rank 0 come here; 0 when none was found, which the supervisor then reports."""
        try:
            return free_port(self.address, self.ports)
        except OSError:
            return 0

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
            getattr(self, f"_do_{message['do']}")(message)

    def _do_beat(self, message: wire.Message) -> None:
        pass

    def _do_welcome(self, message: wire.Message) -> None:
        self.welcome = self.welcomed_ever = True
        self.orphan_since = None
        # A supervisor that took over knows nothing of what runs here, and nothing may run on from before.
        if self.ranks is not None and self.ranks.stop_asked_at is None:
            self._stop(0.0)

    def _do_start(self, message: wire.Message) -> None:
        facts = message["facts"]
        facts["nodes"] = tuple(facts["nodes"])
        self._start_ranks(rank_env.CycleFacts(**facts))

    def _do_checkpoint(self, message: wire.Message) -> None:
        asked = self.ranks.checkpoint() if self.ranks is not None else 0
        self._tell({"do": "asked", "ranks": asked})

    def _do_stop(self, message: wire.Message) -> None:
        self._stop(float(message["grace_s"]))

    def _do_learn(self, message: wire.Message) -> None:
        if self.server is not None and self.server.fault is None:
            self.known_modules.update(message["modules"])
            self.server.learn(message["modules"])

    def _do_bye(self, message: wire.Message) -> None:
        self.done = True

    def _lose_supervisor(self, why: str) -> None:
        if self.connection is None:
            return
        LOG.warning("lost the supervisor at %s:%d: %s", self.post.host, self.post.port, why)
        self.selector.unregister(self.connection.sock)
        self.connection.close()
        self.connection = None
        self.orphan_since = time.monotonic()
        if self.ranks is not None:
            self._stop(0.0)

    def _look_for_supervisor(self) -> None:
        """Without a supervisor and without ranks: find the next one, or see to it that there is one."""
        now = time.monotonic()
        self.orphan_since = self.orphan_since or now
        if now - self.orphan_since > self.plan.start_timeout_s:
            LOG.error("no supervisor for %.0f s; leaving", self.plan.start_timeout_s)
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
        refused = not self._answers()
        silent_s = takeover.silent_s(self.run_dir)
        if not refused and silent_s < 2 * BEAT_S:
            # It lives, and only our connection broke.
            self._connect()
        elif self.welcomed_ever and (refused or silent_s > self.plan.heartbeat_timeout_s):
            # A port that refuses has no process behind it. Any other silence may be the network's, or a frozen
            # process's, so its sign of life in the run folder has to stop as well before anybody takes its place.
            self._succeed(now)
        elif not self.welcomed_ever:
            # We were never told that there is a supervisor; the address may be wrong, and a second one would do harm.
            self._connect()

    def _is_over(self) -> bool:
        """Whether this attempt has ended while we were out of touch."""
        events = record.read(self.run_dir)
        return any(e.attempt == self.post.attempt and (e.ends or e.state == "REQUEUED") for e in events)

    def _answers(self) -> bool:
        """False only when the supervisor's port is refused, that is when its process is surely gone."""
        try:
            socket.create_connection((self.post.host, self.post.port), timeout=_RECONNECT_S).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True

    def _succeed(self, now: float) -> None:
        assert self.orphan_since is not None
        # If whoever claimed an epoch died before it published itself, the next epoch is open after a while.
        epoch = self.post.epoch + 1 + int((now - self.orphan_since) / 20.0)
        if not takeover.claim(self.run_dir, attempt=self.post.attempt, epoch=epoch, node=self.node):
            return
        LOG.warning("starting the supervisor of epoch %d on this node", epoch)
        log = (self.run_dir / "batch.out").open("ab")
        self.successor = subprocess.Popen(
            [sys.executable, "-m", "trainmaster.launcher.supervisor", str(self.run_dir), "--epoch", str(epoch)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    # -- ranks ---------------------------------------------------------------------------------------------------

    def _start_ranks(self, facts: rank_env.CycleFacts) -> None:
        if self.ranks is not None and not self.reported_stop:
            LOG.error("told to start cycle %d while ranks of cycle %d are left", facts.cycle, self.ranks.cycle)
            return
        master_here = facts.nodes[0] == self.node
        if master_here and not port_is_free(self.address, facts.master_port):
            self._tell({"do": "port_taken", "cycle": facts.cycle, "port": self._offer()})
            return
        self.ranks = Ranks(facts.cycle)
        self.reported_stop = False
        self.first_steps_told = set()
        self.awaited_forks = set()
        self.early_exits = {}
        folder = Path(facts.run_dir) / f"attempt{facts.attempt}.{facts.cycle}"
        warm = self._may_fork()
        for local_rank in range(facts.tasks_per_node):
            env = self.base_env | rank_env.rank_environment(
                facts, node=self.node, local_rank=local_rank, base=self.base_env
            )
            interface = interface_of(self.address)
            if interface is not None:
                # Gloo would resolve the host's name, which on many clusters is another network or no address at all.
                env.setdefault("GLOO_SOCKET_IFNAME", interface)
            rank = int(env["RANK"])
            entry = LocalRank(
                rank=rank,
                out=folder / f"rank{rank}.out",
                err=folder / f"rank{rank}.err",
                error_file=folder / f"rank{rank}.error.json",
                step_file=self.scratch / f"step-{facts.cycle}.{rank}",
                modules_file=self.scratch / f"modules-{facts.cycle}.{rank}.json",
            )
            env["TRAINMASTER_STEP_FILE"] = str(entry.step_file)
            self.ranks.ranks[rank] = entry
            try:
                folder.mkdir(parents=True, exist_ok=True)
                worker.new_step_file(entry.step_file)
                self._start_rank(entry, env, warm=warm)
            except OSError as error:
                entry.code, entry.ended_epoch_s = 71, time.time()
                self._report_exit(entry, f"could not start rank {rank} on {self.node}: {error}")
        if not self.awaited_forks:
            self._tell_started()

    def _may_fork(self) -> bool:
        if not self.plan.warm or self.server is None:
            return False
        if self.server.fault is not None:
            LOG.warning("ranks start cold: %s", self.server.fault)
            return False
        return True

    def _start_rank(self, entry: LocalRank, env: dict[str, str], *, warm: bool) -> None:
        program = self.program
        callable_argv = [self.plan.python, "-m", "trainmaster.launcher.worker", str(self.run_dir)]
        task = worker.Task(
            rank=entry.rank,
            env=env,
            cwd=str(Path.cwd()),
            out=str(entry.out),
            err=str(entry.err),
            argv=list(program.argv) if program else callable_argv,
            kind=program.kind if program else "callable",
            unbuffered=program.unbuffered if program else True,
            modules_file=str(entry.modules_file),
        )
        if warm and self.server is not None and (program or self.plan.program is None):
            # Open the logs here as well: a folder that cannot be written must show now, not inside the fork.
            entry.out.touch()
            self.awaited_forks.add(entry.rank)
            self.server.fork(task)
            return
        entry.pid = start_cold(self.plan.program or callable_argv, task)
        self._note_pid(entry)

    def _note_pid(self, entry: LocalRank) -> None:
        """Leave `rank<r>.pid` beside the logs: "<pid> <start time> <node>", which names the process for ever."""
        try:
            entry.out.with_suffix(".pid").write_text(f"{entry.pid} {processes.start_time(entry.pid)} {self.node}\n")
        except OSError as error:
            LOG.warning("could not write the pid of rank %d: %s", entry.rank, error)

    def _tell_started(self) -> None:
        assert self.ranks is not None
        self._tell({"do": "started", "cycle": self.ranks.cycle, "epoch_s": time.time()})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.server is not None and pid == self.server.pid:
                self.server.fault = f"the fork server ended with status {os.waitstatus_to_exitcode(status)}"
                self._fail_awaited_forks()
                continue
            if self.successor is not None and pid == self.successor.pid:
                self.successor.returncode = os.waitstatus_to_exitcode(status)
                continue
            entry = self.ranks.ended(pid, status) if self.ranks is not None else None
            if entry is not None:
                self._report_exit(entry, "")
            elif self.awaited_forks:
                # A forked rank can end before the fork server has told us its pid.
                self.early_exits[pid] = status

    def _report_exit(self, entry: LocalRank, text: str) -> None:
        assert self.ranks is not None and entry.code is not None
        raised = False
        if entry.code != 0 and not text:
            text, raised = _explanation(entry)
            if not text and _is_full(self.run_dir):
                # It could not even write its traceback.
                text = f"No space left on device: the file system of {self.run_dir} is full"
        self._tell(
            {
                "do": "exit",
                "cycle": self.ranks.cycle,
                "rank": entry.rank,
                "code": entry.code,
                "epoch_s": entry.ended_epoch_s,
                "stopped": entry.stopped,
                "raised": raised and self.plan.program is None,
                "text": text,
                "steps": self._steps(),
            }
        )

    def _stop(self, grace_s: float) -> None:
        if self.ranks is None:
            self._tell({"do": "stopped", "port": self._offer()})
            return
        if self.reported_stop:
            self._tell({"do": "stopped", "cycle": self.ranks.cycle, "port": self._offer()})
            return
        self.ranks.stop(grace_s)
        self._step_stop()

    def _step_stop(self) -> None:
        if self.ranks is None or self.reported_stop or self.ranks.stop_asked_at is None or self.awaited_forks:
            return
        if self.ranks.step_stop(self._not_ranks()):
            self.reported_stop = True
            for entry in self.ranks.ranks.values():
                entry.step_file.unlink(missing_ok=True)
            self._tell({"do": "stopped", "cycle": self.ranks.cycle, "port": self._offer()})
        elif self.ranks.stuck_s() > 10.0:
            self._tell({"do": "stuck", "cycle": self.ranks.cycle})

    def _not_ranks(self) -> frozenset[int]:
        """Our children that a stop must spare: the fork server, and a supervisor that we started."""
        return frozenset(process.pid for process in (self.server, self.successor) if process is not None)

    def _steps(self) -> dict[str, list[float]]:
        """Last step and its time, by rank."""
        found: dict[str, list[float]] = {}
        for entry in self.ranks.ranks.values() if self.ranks is not None else ():
            step = worker.read_step(entry.step_file)
            if step is not None:
                found[str(entry.rank)] = list(step)
                self.furthest = max(self.furthest, step[0])
        return found

    def _new_first_steps(self) -> bool:
        if self.ranks is None or len(self.first_steps_told) == len(self.ranks.ranks):
            return False
        fresh = {
            entry.rank
            for entry in self.ranks.ranks.values()
            if entry.rank not in self.first_steps_told and worker.read_step(entry.step_file) is not None
        }
        self.first_steps_told |= fresh
        return bool(fresh)

    # -- the fork server -----------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        if not self.plan.warm or (self.plan.program is not None and self.program is None):
            return
        interpreter = self.program.interpreter if self.program else self.plan.python
        try:
            self.server = ForkServer(
                interpreter, env=self.base_env, cwd=str(Path.cwd()), log=self.run_dir / f"agent-{self.node}.log"
            )
        except OSError as error:
            LOG.warning("ranks start cold: %s", error)
            return
        self.selector.register(self.server, selectors.EVENT_READ, "server")
        first = set(_first_modules(self.program)) | set(_read_names(self.run_dir / "modules.json"))
        self.known_modules = first
        self.server.learn(first)

    def _hear_server(self) -> None:
        assert self.server is not None
        for rank, pid in self.server.receive().items():
            self.awaited_forks.discard(rank)
            entry = self.ranks.ranks.get(rank) if self.ranks is not None else None
            if entry is None or self.ranks is None:
                processes.send(pid, signal.SIGKILL)
                continue
            entry.pid = pid
            self._note_pid(entry)
            if self.ranks.stop_asked_at is not None:
                processes.send_group(pid, signal.SIGTERM)
            if pid in self.early_exits:
                self.ranks.ended(pid, self.early_exits.pop(pid))
                self._report_exit(entry, "")
            if not self.awaited_forks:
                self._tell_started()
        if self.server.fault is not None:
            self.selector.unregister(self.server)
            LOG.warning("no more warm starts: %s", self.server.fault)
            self._fail_awaited_forks()
            self.server.close()
            self.server = None

    def _fail_awaited_forks(self) -> None:
        """The fork server went away with requests open: those ranks have failed, and the restart will be cold."""
        for rank in sorted(self.awaited_forks):
            entry = self.ranks.ranks[rank] if self.ranks is not None else None
            if entry is not None and entry.code is None:
                entry.code, entry.ended_epoch_s = 70, time.time()
                self._report_exit(entry, "the fork server ended before it could fork this rank")
        self.awaited_forks = set()

    def _collect_modules(self) -> None:
        """Pass on what the ranks have imported, to our fork server and through the supervisor to the spares'."""
        if self.server is None or self.ranks is None or self.server.learning:
            return
        for entry in self.ranks.ranks.values():
            if not entry.modules_file.exists():
                continue
            names = set(_read_names(entry.modules_file)) - self.known_modules
            entry.modules_file.unlink(missing_ok=True)
            if names:
                self.known_modules |= names
                self.server.learn(names)
                self._tell({"do": "modules", "modules": sorted(names)})

    def _leave(self) -> None:
        if self.server is not None:
            self.server.close()
        if self.ranks is not None:
            self.ranks.stop(0.0)
            deadline = time.monotonic() + 5.0
            while time.monotonic() < deadline and not self.ranks.step_stop(self._not_ranks()):
                self._reap()
                time.sleep(0.02)
        if self.successor is not None and self.successor.returncode is None:
            # This agent is the parent of the supervisor that took over; it must outlive it.
            self.exit_code = self.successor.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.connection is not None:
            self.connection.close()


def _is_full(folder: Path) -> bool:
    """Whether a file system has no room for anything that matters."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < record.Recorder.RESERVE_BYTES * 2


def _scratch_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _read_names(path: Path) -> list[str]:
    try:
        names: list[str] = json.loads(path.read_text())
        return names
    except (OSError, ValueError):
        return []


def _first_modules(program: PythonProgram | None) -> list[str]:
    """What is worth importing before any rank has told."""
    if program is None:
        return ["submitit.core.utils", "cloudpickle", "numpy"]
    if program.kind != "script":
        return []
    try:
        return imports_of(Path(program.argv[0]).read_text(errors="replace"))
    except OSError:
        return []


def _explanation(entry: LocalRank) -> tuple[str, bool]:
    """Why a rank failed, and whether it raised: what torch's @record or our worker wrote, else the end of its stderr."""
    try:
        message = json.loads(entry.error_file.read_text())["message"]
        if isinstance(message, dict):
            return str(message.get("extraInfo", {}).get("py_callstack") or message.get("message")), True
        return str(message), True
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return tail(entry.err), False


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.agent RUN_DIR HOST PORT ATTEMPT EPOCH`."""
    run_dir, host, port, attempt, epoch = Path(argv[0]), argv[1], int(argv[2]), int(argv[3]), int(argv[4])
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    if not (run_dir / plans.FILE).exists():
        # stderr of srun is the only place that the supervisor can read this from.
        sys.stderr.write(
            f"trainmaster: {node} cannot see {run_dir}: the job's folder must be on storage that all nodes share\n"
        )
        return 78
    logging.basicConfig(
        filename=run_dir / f"agent-{node}.log", format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO
    )
    return Agent(run_dir, host, port, attempt, epoch).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
