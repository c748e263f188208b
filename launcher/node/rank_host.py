"""All that runs ranks on one node: the fork server, the ranks of the current cycle, what they report.

Standard library only. The agent owns it, calls it from its loop, and passes on what it has to `tell` the supervisor.
"""

import json
import logging
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainmaster.launcher import record
from trainmaster.launcher.exit_rules import TEXT_SEARCHED_BYTES
from trainmaster.launcher.node import ports, processes
from trainmaster.launcher.node.announce import Announcements
from trainmaster.launcher.node.copies import Copies
from trainmaster.launcher.node.oom import MemoryKills
from trainmaster.launcher.node.ranks import TAIL_BYTES, LocalRank, Ranks, start_cold, tail
from trainmaster.launcher.node.warm import ForkServer, PythonProgram, as_python_program, imports_of, sets_environment
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank import enter, page, rank_env, worker
from trainmaster.launcher.supervise.stacks import Stacks

LOG = logging.getLogger("trainmaster.agent")
FORK_PATIENCE_S = 120.0
"""How long a fork server may take to fork. It may first have to import what it was asked for, from slow storage."""
HOLD_S = 25.0
"""How long a rank that asks for orders outlives a SIGTERM of Slurm's, whose KillWait is 30 s by default."""
STUCK_S = 10.0
"""A process that SIGKILL has not ended by then sits in the kernel; its node is of no use."""
CALM_S = 20.0
"""After so long a cycle without any report of a step counts as under way."""
EXIT_COULD_NOT_START = 71
_KILLED = re.compile(r"worker \(pid (?P<pid>\d+)\) is killed by signal: Killed")
"""What torch's data loader says of a worker that died of SIGKILL; the rank itself then ends with an exception."""
EXIT_FORK_SERVER_GONE = 70


class RankHost:
    """Ranks and fork server of this node."""

    def __init__(self, run_dir: Path, plan: Plan, node: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self.run_dir = run_dir
        self.plan = plan
        self.node = node
        self.address = ""
        """This node's address towards the supervisor; the agent sets it on connecting."""
        self.furthest = -1
        """The last step that any rank here reported, over all cycles."""
        self._tell = tell
        self._allowed_ports = ports.allowed_ports()
        prefix = f"{enter.SCRATCH_PREFIX}{os.environ.get('SLURM_JOB_ID', 'x')}-"
        self._scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=_scratch_folder()))
        enter.own(self._scratch)
        enter.sweep(self._scratch.parent)
        self.copies = Copies(
            self._scratch / "copies",
            plan=plan,
            # A role's own folder lies in the job's.
            key_dir=run_dir if (run_dir / "key").exists() else run_dir.parent,
            log=run_dir / f"agent-{node}.log",
            tell=tell,
        )
        self._base_env = rank_env.base_environment(plan, os.environ)
        if plan.tasks_per_node > 1:
            # Read by OpenMP when it is loaded, that is in the fork server, so it must be set there already.
            self._base_env.setdefault("OMP_NUM_THREADS", "1")
        self._program = as_python_program(plan.program) if plan.program else None
        self._ranks: Ranks | None = None
        self._kills = MemoryKills(os.environ.get("SLURM_JOB_ID", ""))
        self._awaited_forks: set[int] = set()
        self._forks_asked_at = 0.0
        self._early_exits: dict[int, int] = {}
        self._first_steps: set[int] = set()
        self._held: list[tuple[LocalRank, dict[str, str]]] = []
        """Ranks that wait for `go`: rank 0 has a head start, to open its store."""
        self._store_port = 0
        """The port that rank 0, here, is expected to listen on; 0 when that is known or no longer matters."""
        self._known_modules: set[str] = set()
        self._announced = Announcements(self._scratch)
        self.stacks: Stacks | None = None
        """A round of asking the ranks for their stacks, while it lasts."""
        self.successor_pid = 0
        """The supervisor that this agent started, if it did."""
        self.server: ForkServer | None = self._start_server()

    # -- what the agent asks -------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """No rank, and nothing that a rank started, is left here."""
        return self._ranks is None

    @property
    def stopping(self) -> bool:
        """A stop is under way."""
        return self._ranks is not None and self._ranks.stop_asked_at is not None

    @property
    def awaits_store(self) -> bool:
        """Rank 0 runs here and the other ranks wait for its store: worth a closer look."""
        return self._store_port != 0

    @property
    def awaits_first_steps(self) -> bool:
        """Some rank has not reported a step yet: the moment by which a recovery is measured."""
        return self._ranks is not None and len(self._first_steps) < len(self._ranks.ranks)

    def offer_port(self) -> int:
        """A port for the store, should rank 0 come here; 0 when none was found."""
        try:
            return ports.free_port(self.address, self._allowed_ports)
        except OSError:
            return 0

    def checkpoint(self, *, again: bool = False) -> int:
        """Ask the ranks for a checkpoint by signal; returns how many can be asked. `again`: none a second time."""
        return self._ranks.checkpoint(again=again) if self._ranks is not None else 0

    def listening(self) -> int:
        """How many ranks ask for orders after their steps."""
        running = self._ranks.running() if self._ranks is not None else []
        return sum(page.read(entry.step_file).asks for entry in running)

    def propose(self, kind: page.Kind, step: int) -> dict[str, int]:
        """Order something of all ranks here for a step to come; returns where each is after that was written."""
        running = self._ranks.running() if self._ranks is not None else []
        for entry in running:
            page.Page(entry.step_file).propose(kind, step)
        # A rank writes its step and then reads the order, we the other way round. Both could miss the other's write
        # while it sits in a CPU's store buffer, which takes nanoseconds to drain.
        time.sleep(0.001)
        reports = {str(entry.rank): page.read(entry.step_file).step for entry in running}
        return {rank: -1 if step is None else step for rank, step in reports.items()}

    def decide(self, *, holds: bool) -> None:
        """Confirm what was proposed, or take it back."""
        for entry in self._ranks.running() if self._ranks is not None else ():
            page.Page(entry.step_file).decide(holds=holds)

    def learn(self, modules: list[str]) -> None:
        """Have the fork server import what ranks elsewhere were seen to import."""
        if self.server is not None:
            self._known_modules.update(modules)
            self.server.learn(modules)

    def steps(self) -> dict[str, list[float]]:
        """Last step and its time (epoch seconds), by rank."""
        found: dict[str, list[float]] = {}
        for entry in self._ranks.ranks.values() if self._ranks is not None else ():
            report = page.read(entry.step_file)
            if report.step is not None:
                found[str(entry.rank)] = [report.step, report.step_epoch_s]
                self.furthest = max(self.furthest, report.step)
        return found

    def reported(self) -> dict[str, Any]:
        """For the supervisor: what ranks report with their steps, by name and rank, and their newest checkpoint."""
        values: dict[str, dict[str, float]] = {}
        saved = []
        for entry in self._ranks.ranks.values() if self._ranks is not None else ():
            report = page.read(entry.step_file)
            for name, value in report.values.items():
                values.setdefault(name, {})[str(entry.rank)] = value
            if report.saved is not None:
                saved.append(report.saved)
        told: dict[str, Any] = {"values": values} if values else {}
        return told | ({"saved": max(saved)} if saved else {})

    def whereabouts(self) -> dict[str, Any] | None:
        """Where each running rank is: its last step (-1 before the first), its section, whether it names sections."""
        if self._ranks is None:
            return None
        found: dict[str, tuple[int, str, bool]] = {}
        for entry in self._ranks.running():
            report = page.read(entry.step_file)
            if report.step is not None or report.section:
                found[str(entry.rank)] = (-1 if report.step is None else report.step, report.section, report.sections)
        return {"cycle": self._ranks.cycle, "ranks": found}

    def paces(self) -> dict[str, Any] | None:
        """How many steps of each running rank were timed, and what they took together; None where nobody asks."""
        if self._ranks is None or self.plan.stragglers == "off":
            return None
        found: dict[str, tuple[int, float, float]] = {}
        for entry in self._ranks.running():
            report = page.read(entry.step_file)
            if report.timed:
                found[str(entry.rank)] = (report.timed, report.own_s, report.wall_s)
        return {"cycle": self._ranks.cycle, "ranks": found}

    def activity(self) -> dict[str, Any] | None:
        """What the running ranks have written and computed so far, in bytes and seconds; None where nobody asks."""
        if self._ranks is None or not (self.plan.quiet_timeout_s or self.plan.idle_timeout_s):
            return None
        running = [entry for entry in self._ranks.running() if entry.pid]
        return {
            "cycle": self._ranks.cycle,
            "ranks": sorted(entry.rank for entry in running),
            "written_bytes": sum(entry.written_bytes() for entry in running),
            "cpu_s": processes.cpu_s(*(entry.pid for entry in running)),
        }

    def ask_for_stacks(self) -> None:
        """Have every rank here say where it is; `carry_on` passes the answers on."""
        if self._ranks is not None and not self.stopping and self.stacks is None:
            ranks = [entry for entry in self._ranks.running() if entry.pid]
            interpreter = self._program.interpreter if self._program else self.plan.python
            self.stacks = Stacks(ranks, py_spy=py_spy_of(interpreter))
            self.stacks.ask()

    def new_first_steps(self) -> bool:
        """Whether a rank has reported its first step of this cycle since the last call."""
        if self._ranks is None or not self.awaits_first_steps:
            return False
        waiting = [entry for entry in self._ranks.ranks.values() if entry.rank not in self._first_steps]
        fresh = {entry.rank for entry in waiting if page.read(entry.step_file).step is not None}
        self._first_steps |= fresh
        return bool(fresh)

    # -- starting ------------------------------------------------------------------------------------------------

    def start(self, facts: rank_env.CycleFacts) -> None:
        """Start rank 0, if it belongs here, and prepare the others for `go`.

        A client of torch's store that comes before rank 0 listens tries again half a second later or more, which is as
        long as everything else in a warm restart together. What fails is told as the end of that rank.
        """
        if self._ranks is not None:
            LOG.error("told to start cycle %d while ranks of cycle %d are left", facts.cycle, self._ranks.cycle)
            return
        if facts.nodes[0] == self.node and not ports.port_is_free(self.address, facts.master_port):
            self._tell({"do": "port_taken", "cycle": facts.cycle, "port": self.offer_port()})
            self._tell({"do": "stopped", "cycle": facts.cycle, "port": self.offer_port()})
            return
        self._ranks = Ranks(facts.cycle)
        self._kills.begin()
        self._first_steps, self._awaited_forks, self._early_exits = set(), set(), {}
        self._held, self._store_port = [], 0
        self._forks_asked_at = time.monotonic()
        folder = Path(facts.run_dir) / f"attempt{facts.attempt}.{facts.cycle}"
        interface = ports.interface_of(self.address)
        for local_rank in range(facts.tasks_per_node):
            env = self._base_env | rank_env.rank_environment(
                facts, node=self.node, local_rank=local_rank, base=self._base_env
            )
            if interface is not None:
                # Gloo would resolve the host's name, which on many clusters is another network or no address at all.
                env.setdefault("GLOO_SOCKET_IFNAME", interface)
            rank = int(env["RANK"])
            entry = LocalRank(
                rank=rank,
                out=folder / f"rank{rank}.out",
                err=folder / f"rank{rank}.{'out' if self.plan.stderr_to_stdout else 'err'}",
                error_file=folder / f"rank{rank}.error.json",
                step_file=self._scratch / f"step-{facts.cycle}.{rank}",
                modules_file=self._scratch / f"modules-{facts.cycle}.{rank}.json",
                stacks_file=self._scratch / f"stacks-{facts.cycle}.{rank}",
            )
            env["TRAINMASTER_STEP_FILE"] = str(entry.step_file)
            env["TRAINMASTER_HOLD_S"] = str(HOLD_S)
            env["TRAINMASTER_STRAGGLERS"] = self.plan.stragglers
            if facts.role is not None:
                env["TRAINMASTER_REGISTER_FILE"] = str(self._announced.file(facts.cycle, rank))
            env["TRAINMASTER_STACKS_FILE"] = str(entry.stacks_file)
            env |= self.copies.env(facts.cycle)
            self._ranks.ranks[rank] = entry
            if rank == 0:
                self._store_port = facts.master_port
                self._try_to_start(entry, env)
            else:
                self._held.append((entry, env))

    def tell_registered(self) -> None:
        """Tell where replicas of a role say that they serve."""
        if self._ranks is None or self._ranks.stop_asked_at is not None:
            return
        cycle = self._ranks.cycle
        for rank, host, port in self._announced.fresh(cycle, self._ranks.ranks):
            host = host or self.address
            self._tell({"do": "registered", "cycle": cycle, "rank": rank, "host": host, "port": port})

    def check_store(self) -> None:
        """Tell when rank 0 has opened its store."""
        if self._store_port and self._ranks is not None and ports.is_listening(self._store_port):
            self._store_port = 0
            self._tell({"do": "listening", "cycle": self._ranks.cycle})

    def go(self, cycle: int) -> None:
        """Start the ranks that were held back."""
        if self._ranks is None or self._ranks.cycle != cycle or self._ranks.stop_asked_at is not None:
            return
        self._store_port = 0
        held, self._held = self._held, []
        for entry, env in held:
            self._try_to_start(entry, env)
        if not self._awaited_forks:
            self._tell_started()

    def _try_to_start(self, entry: LocalRank, env: dict[str, str]) -> None:
        try:
            entry.out.parent.mkdir(parents=True, exist_ok=True)
            page.create(entry.step_file)
            enter.leave_env(self._scratch, entry.rank, env)
            self._start_rank(entry, env)
        except OSError as error:
            entry.code, entry.ended_epoch_s = EXIT_COULD_NOT_START, time.time()
            self._report_exit(entry, f"could not start rank {entry.rank} on {self.node}: {error}")

    def _start_rank(self, entry: LocalRank, env: dict[str, str]) -> None:
        program = self._program
        callable_argv = [self.plan.python, "-P", "-m", "trainmaster.launcher.rank.worker", str(self.run_dir)]
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
        if self.server is not None:
            # Make the log here: a folder that cannot be written must show now, not inside the fork.
            entry.out.touch()
            self._awaited_forks.add(entry.rank)
            self._forks_asked_at = time.monotonic()
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
        assert self._ranks is not None
        self._tell({"do": "started", "cycle": self._ranks.cycle, "epoch_s": time.time()})

    # -- ending --------------------------------------------------------------------------------------------------

    def child_ended(self, pid: int, status: int) -> None:
        """A child of the agent has ended: a rank, the fork server, or something that a rank left behind."""
        if self.copies.ended(pid):
            return
        if self.server is not None and pid == self.server.pid:
            self._give_up_server(f"the fork server ended with status {os.waitstatus_to_exitcode(status)}")
            return
        if self.server is not None:
            self.server.ended(pid)
        if self.stacks is not None:
            self.stacks.ended(pid, status)
        entry = self._ranks.ended(pid, status) if self._ranks is not None else None
        if entry is not None:
            self._report_exit(entry, "")
        elif self._awaited_forks:
            # A forked rank can end before the fork server has told us its pid.
            self._early_exits[pid] = status

    def _report_exit(self, entry: LocalRank, text: str) -> None:
        assert self._ranks is not None and entry.code is not None
        raised, oom = False, False
        if entry.code == 0 and self.plan.program is None and not entry.out.with_suffix(".result.pkl").exists():
            # os._exit(0), or a library that does it: the submitter waits for a result that will never be.
            entry.code, raised = 1, True
            text = "the function ended its process with exit code 0 and left no result"
        elif entry.code != 0 and not text:
            text, raised = _explanation(entry)
            helper = _KILLED.search(text)
            if not entry.stopped and (entry.code == -signal.SIGKILL or helper is not None):
                known = self._kills.evidence({int(helper["pid"]) if helper is not None else entry.pid})
                oom, text = known.ours, f"{known.text}\n{text}" if known.text else text
            if not text and _is_full(self.run_dir):
                # It could not even write its traceback.
                text = f"No space left on device: the file system of {self.run_dir} is full"
        self._tell(
            {
                "do": "exit",
                "cycle": self._ranks.cycle,
                "rank": entry.rank,
                "code": entry.code,
                "epoch_s": entry.ended_epoch_s,
                "stopped": entry.stopped,
                "raised": raised and self.plan.program is None,
                "text": text,
                "oom": oom,
                **self._last_words(entry),
                "steps": self.steps(),
                **self.reported(),
            }
        )

    def _last_words(self, entry: LocalRank) -> dict[str, str]:
        """The end of what a rank wrote to stdout, where a rule looks for words; stderr's is told anyway."""
        wanted = entry.code != 0 and not entry.stopped and any(rule.text for rule in self.plan.exit_rules)
        return {"said": tail(entry.out, TEXT_SEARCHED_BYTES)} if wanted else {}

    def stop(self, grace_s: float) -> None:
        """Begin to stop all ranks; `carry_on` ends it, and tells when none is left."""
        if self._ranks is None:
            self._tell({"do": "stopped", "port": self.offer_port()})
            return
        for entry, _ in self._held:
            entry.code, entry.ended_epoch_s, entry.stopped = -signal.SIGTERM, time.time(), True
        self._held, self._store_port = [], 0
        self._ranks.stop(grace_s)
        self.carry_on()

    def carry_on(self) -> None:
        """Carry a stop, or a round of asking for stacks, on."""
        self._kills.look()
        if self.stacks is not None and self._ranks is not None and (answer := self.stacks.answer()) is not None:
            self.stacks = None
            self._tell({"do": "stacks", "cycle": self._ranks.cycle, "ranks": [asdict(where) for where in answer]})
        # A process that is being forked is below us, but which it is we know only when the server has told.
        awaits_server = bool(self._awaited_forks) or (self.server is not None and self.server.awaits_standbys)
        if self._ranks is not None and (self._awaited_forks or (awaits_server and self.stopping)):
            patience_s = FORK_PATIENCE_S if self._ranks.stop_asked_at is None else STUCK_S
            since = self._ranks.stop_asked_at or self._forks_asked_at
            if time.monotonic() - since > patience_s:
                self._give_up_server("the fork server does not answer")
        if self._ranks is None or self._ranks.stop_asked_at is None or awaits_server:
            return
        if self._ranks.step_stop(self._spared()):
            cycle = self._ranks.cycle
            for entry in self._ranks.ranks.values():
                entry.step_file.unlink(missing_ok=True)
                entry.stacks_file.unlink(missing_ok=True)
            self._ranks = self.stacks = None
            self._tell({"do": "stopped", "cycle": cycle, "port": self.offer_port()})
        elif self._ranks.stuck_s() > STUCK_S:
            self._tell({"do": "stuck", "cycle": self._ranks.cycle})

    def _spared(self) -> frozenset[int]:
        """Children of the agent that are no ranks."""
        pids = {self.successor_pid, self.copies.pid} - {0}
        if self.server is not None:
            pids |= {self.server.pid, *self.server.standbys}
        return frozenset(pids)

    def close(self) -> None:
        """Forget the fork server and the scratch files. The ranks must be gone."""
        if self.server is not None:
            self.server.close()
        self.copies.close()
        self._kills.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    # -- the fork server -----------------------------------------------------------------------------------------

    def _start_server(self) -> ForkServer | None:
        if not self.plan.warm or (self.plan.program is not None and self._program is None):
            return None
        if self._program is not None and _sets_environment_first(self._program):
            # Libraries read the environment when they are loaded, and a fork server would have loaded them before.
            LOG.warning("ranks start cold: the script sets environment variables at its top level")
            return None
        interpreter = self._program.interpreter if self._program else self.plan.python
        log = self.run_dir / f"agent-{self.node}.log"
        # Modules that ask torch.cuda.is_available() on import would initialise CUDA there, and no fork could use it.
        env = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"} | self._base_env
        try:
            server = ForkServer(interpreter, env=env, cwd=str(Path.cwd()), log=log)
        except OSError as error:
            LOG.warning("ranks start cold: %s", error)
            return None
        self._known_modules = set(_first_modules(self._program)) | set(_read_names(self.run_dir / "modules.json"))
        server.learn(self._known_modules)
        return server

    def feed_server(self) -> None:
        """Hand the fork server what its socket takes of our requests; while it imports it reads none."""
        if self.server is not None:
            self.server.flush()

    def stand_by(self) -> None:
        """Have the processes of the next start forked ahead, in a moment when nothing else is going on."""
        server = self.server
        if server is None or server.learning or server.awaits_standbys or self._awaited_forks or self.stopping:
            return
        if self.awaits_first_steps and time.monotonic() - self._forks_asked_at < CALM_S:
            return
        if len(server.standbys) < self.plan.tasks_per_node:
            server.stand_by(self.plan.tasks_per_node)

    def hear_server(self) -> None:
        """Take in what the fork server has to say."""
        assert self.server is not None
        for rank, pid in self.server.receive().items():
            self._awaited_forks.discard(rank)
            entry = self._ranks.ranks.get(rank) if self._ranks is not None else None
            if entry is None or self._ranks is None:
                processes.send(pid, signal.SIGKILL)
                continue
            entry.pid = pid
            self._note_pid(entry)
            if self._ranks.stop_asked_at is not None:
                processes.send_group(pid, signal.SIGTERM)
            if pid in self._early_exits:
                self._ranks.ended(pid, self._early_exits.pop(pid))
                self._report_exit(entry, "")
            if not self._awaited_forks and not self._held:
                self._tell_started()
        if self.server.fault is not None:
            self._give_up_server(self.server.fault)

    def _give_up_server(self, fault: str) -> None:
        """Go on without a fork server. Ranks that it still owed us have failed; the restart will be cold."""
        LOG.warning("no more warm starts: %s", fault)
        assert self.server is not None
        self.server.close()
        self.server = None
        owed, self._awaited_forks = sorted(self._awaited_forks), set()
        for rank in owed:
            entry = self._ranks.ranks[rank] if self._ranks is not None else None
            if entry is not None and entry.code is None:
                entry.code, entry.ended_epoch_s = EXIT_FORK_SERVER_GONE, time.time()
                self._report_exit(entry, "the fork server ended before it could fork this rank")

    def collect_modules(self) -> None:
        """Pass on what the ranks have imported: to our fork server, and through the supervisor to the spares'."""
        if self.server is None or self._ranks is None or self.server.learning:
            return
        for entry in self._ranks.ranks.values():
            if not entry.modules_file.exists():
                continue
            names = set(_read_names(entry.modules_file)) - self._known_modules
            entry.modules_file.unlink(missing_ok=True)
            if names:
                self.learn(sorted(names))
                self._tell({"do": "modules", "modules": sorted(names)})


def _is_full(folder: Path) -> bool:
    """Whether a file system has no room for anything that matters."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < record.Recorder.RESERVE_BYTES * 2


def py_spy_of(interpreter: str) -> str | None:
    """py-spy, where it is installed: with the ranks' interpreter, or on the agent's PATH."""
    beside = Path(interpreter).with_name("py-spy")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _scratch_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _read_names(path: Path) -> list[str]:
    try:
        names: list[str] = json.loads(path.read_text())
        return names
    except (OSError, ValueError):
        return []


def _sets_environment_first(program: PythonProgram) -> bool:
    try:
        return program.kind == "script" and sets_environment(Path(program.argv[0]).read_text(errors="replace"))
    except OSError:
        return False


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
    """Why a rank failed, and whether it raised: torch's @record or our worker wrote it down, or else stderr's end."""
    try:
        message = json.loads(entry.error_file.read_text())["message"]
        if isinstance(message, dict):
            message = message.get("extraInfo", {}).get("py_callstack") or message.get("message")
        # An exception can carry megabytes, and this travels in one message.
        return str(message)[-TAIL_BYTES:], True
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return tail(entry.err), False
