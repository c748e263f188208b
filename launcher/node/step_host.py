"""The agent's part when ranks are a Slurm step's: expect them, watch them, stop them. Standard library only.

The agent is not their parent. It knows them by the notes of their shells (`rank_shell`), and what they start by
/proc. What it cannot reach any more, such as a process whose parents are gone, ends with the step (`rank_step`).
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainmaster.launcher import runner
from trainmaster.launcher.node import ports, processes
from trainmaster.launcher.node.rank_host import EXIT_COULD_NOT_START, HOLD_S, RankHost, py_spy_of
from trainmaster.launcher.node.ranks import LocalRank, Ranks, tail
from trainmaster.launcher.node.warm import ForkServer
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.rank import enter, page, rank_env, rank_shell
from trainmaster.launcher.supervise.stacks import Stacks

LAUNCHER_LINGER_S = 2.0
"""How long after the end of a node's torchrun a note of its ranks may still come."""
# What torchrun tells its workers itself.
_TORCHRUNS_OWN = re.compile(r"TORCHELASTIC_|ROLE_|MASTER_|GROUP_|LOCAL_|RANK$|WORLD_SIZE$")
# Between a rank's shell and its program there may be a container's processes, which catch signals as well.
_RUNTIME = re.compile(r"apptainer|singularity|starter|appinit", re.IGNORECASE)
_MPI_ABORT = re.compile(
    r"MPI_ABORT was invoked on rank (?P<rank>\d+)\b[^\n]*\n(?:[^\n]*\n)?\s*with errorcode (?P<code>\d+)"
)


@dataclass(slots=True)
class StepRanks(Ranks):
    """The ranks of one cycle that are not our children."""

    births: dict[int, int] = field(default_factory=dict)
    """Pid of a shell, or of the node's torchrun -> its start time; together they name a process for ever."""

    def note(self, pid: int) -> None:
        """A shell has left its pid."""
        self.births[pid] = processes.start_time(pid)

    def lives(self, pid: int) -> bool:
        """Whether a process that left its pid still runs."""
        return processes.lives(pid, self.births[pid])

    def checkpoint(self, *, again: bool = False) -> int:
        """Send SIGUSR2 to the program of each rank that handles it; returns how many do. `again`: as in `Ranks`."""
        asked = 0
        for entry in self.running():
            program = program_of(entry.pid) if entry.pid else 0
            if program and processes.catches(program, signal.SIGUSR2):
                if not (again and entry.asked):
                    entry.asked = True
                    processes.send(program, signal.SIGUSR2)
                asked += 1
        return asked

    def stop(self, grace_s: float) -> None:
        """Begin to stop all ranks: SIGTERM now, SIGKILL after `grace_s`. Their shells outlive SIGTERM and tell the end.

        Slurm puts all tasks of a node into one process group, so each process is told by itself.
        """
        if self.stop_asked_at is not None:
            self._grace_s = min(self._grace_s, grace_s)
            return
        self.stop_asked_at = time.monotonic()
        self._grace_s = grace_s
        for entry in self.running():
            entry.stopped = True
        if grace_s > 0 and not self._all_done():
            for pid in self._left(frozenset()):
                processes.send(pid, signal.SIGTERM)
            for entry in self.running():
                if entry.pid and page.read(entry.step_file).holds and (program := program_of(entry.pid)):
                    # As in `Ranks.stop`: it waits for orders that will not come any more.
                    processes.send(program, signal.SIGKILL)

    def step_stop(self, spared: frozenset[int]) -> bool:
        """Carry a stop on, as `Ranks.step_stop`. After good ends torchrun may see them and leave by itself."""
        since = self.stop_asked_at
        linger = since is not None and self._all_done() and time.monotonic() - since < LAUNCHER_LINGER_S
        if linger and any(self.lives(pid) for pid in self.births):
            return False
        return Ranks.step_stop(self, spared)

    def _all_done(self) -> bool:
        return all(entry.code == 0 for entry in self.ranks.values())

    def _left(self, spared: frozenset[int]) -> set[int]:
        shells = {pid for pid in self.births if self.lives(pid)}
        return shells | processes.descendants(*shells)


def program_of(shell: int) -> int:
    """The process that a rank's shell runs, inside a container or not; 0 when there is none yet."""
    queue = processes.children(shell)
    while queue:
        pid = queue.pop(0)
        try:
            name = Path(f"/proc/{pid}/comm").read_text()
        except OSError:
            continue
        if not _RUNTIME.search(name):
            return pid
        queue += processes.children(pid)
    return 0


class StepHost(RankHost):
    """What `RankHost` is, for ranks that come with a step which the supervisor starts."""

    def __init__(self, run_dir: Path, plan: Plan, node: str, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(run_dir, plan, node, tell)
        self._here: Path | None = None
        """The notes of the current cycle."""
        self._launcher = 0
        """The pid of this node's torchrun."""
        self._launcher_gone_at = 0.0
        self._told_started = False

    def _start_server(self) -> ForkServer | None:
        return None

    def start(self, facts: rank_env.CycleFacts) -> None:
        """Expect this node's ranks: from now on their shells have leave to run them."""
        if self._ranks is not None:
            super().start(facts)  # which says what is wrong
            return
        if facts.nodes[0] == self.node and not ports.port_is_free(self.address, facts.master_port):
            self._tell({"do": "port_taken", "cycle": facts.cycle, "port": self.offer_port()})
            self._tell({"do": "stopped", "cycle": facts.cycle, "port": self.offer_port()})
            return
        self._ranks = StepRanks(facts.cycle)
        self._first_steps, self._launcher, self._launcher_gone_at, self._told_started = set(), 0, 0.0, False
        here = self._folder_of_notes(facts) / f"{facts.attempt}.{facts.cycle}"
        draft = here.with_name(f".{here.name}")
        draft.mkdir(mode=0o700)
        base = rank_env.base_environment(self.plan, os.environ)
        common: dict[str, str] = {}
        if (interface := ports.interface_of(self.address)) is not None and "GLOO_SOCKET_IFNAME" not in base:
            common["GLOO_SOCKET_IFNAME"] = interface
        for local_rank in range(facts.tasks_per_node):
            env = rank_env.rank_environment(facts, node=self.node, local_rank=local_rank, base=base)
            entry = _entry(int(env["RANK"]), facts, here, errors="out" if self.plan.stderr_to_stdout else "err")
            env |= common | {"TRAINMASTER_STEP_FILE": str(entry.step_file)}
            env |= {"TRAINMASTER_STACKS_FILE": str(entry.stacks_file)} | self.copies.env(facts.cycle)
            env["TRAINMASTER_STRAGGLERS"] = self.plan.stragglers
            env["TRAINMASTER_HOLD_S"] = str(HOLD_S)
            (draft / f"{entry.rank}.env").write_text(rank_shell.exports(_for_the_shell(env, self.plan.runner)))
            page.create(draft / entry.step_file.name)
            enter.leave_env(self._scratch, entry.rank, base | env)
            self._ranks.ranks[entry.rank] = entry
            common |= {name: env[name] for name in ("OMP_NUM_THREADS",) if name in env}
        (draft / "node.env").write_text(rank_shell.exports(common))
        draft.rename(here)
        self._here = here

    def _folder_of_notes(self, facts: rank_env.CycleFacts) -> Path:
        notes = rank_shell.notes_of(facts.uid, facts.job_id, self.node)
        notes.mkdir(mode=0o700, exist_ok=True)
        if notes.stat().st_uid != os.getuid():
            raise PermissionError(f"{notes} belongs to somebody else, so no rank can be watched through it; remove it")
        return notes

    def go(self, cycle: int) -> None:
        """Nothing: the step's tasks start when Slurm starts them."""

    def checkpoint(self, *, again: bool = False) -> int:
        """Ask the ranks for a checkpoint, also those that have only just begun; returns how many can be asked."""
        if self._here is not None:
            self._read_notes(self._here)
        return super().checkpoint(again=again)

    def ask_for_stacks(self) -> None:
        """Have every rank here say where it is. It is the program that is asked, not the shell around it."""
        if self._ranks is None or self.stopping or self.stacks is not None:
            return
        programs = [replace(entry, pid=program_of(entry.pid)) for entry in self._ranks.running() if entry.pid]
        interpreter = self._program.interpreter if self._program else self.plan.python
        self.stacks = Stacks([entry for entry in programs if entry.pid], py_spy=py_spy_of(interpreter))
        self.stacks.ask()

    def carry_on(self) -> None:
        """Read the notes, then carry a stop on."""
        if self._here is not None:
            self._read_notes(self._here)
        super().carry_on()
        if self._ranks is None:
            self._forget_notes()

    def _read_notes(self, here: Path) -> None:
        assert isinstance(self._ranks, StepRanks)
        for entry in self._ranks.running():
            if not entry.pid and (pid := _number(here / f"{entry.rank}.pid")):
                entry.pid = pid
                self._ranks.note(pid)
            if entry.pid:
                self._see_end(here, entry)
        if not self._launcher and (pid := _number(here / "node.pid")):
            self._launcher = pid
            self._ranks.note(pid)
        if not self.stopping:
            self._see_launchers_end()
            if not self._told_started and all(entry.pid for entry in self._ranks.ranks.values()):
                self._told_started = True
                self._tell_started()

    def _see_end(self, here: Path, entry: LocalRank) -> None:
        assert isinstance(self._ranks, StepRanks)
        gone = not self._ranks.lives(entry.pid)
        # In this order: what a shell notes before it ends is there when it is seen to be gone.
        code = _number(here / f"{entry.rank}.exit")
        if code is None and not gone:
            if not entry.out.with_suffix(".pid").exists() and (program := program_of(entry.pid)):
                self._note_program(entry, program)
            return
        text = ""
        if code is None:
            code, text = _without_a_note(entry)
        else:
            if 128 < code <= 128 + signal.SIGRTMAX:
                # As sh reports a program that a signal ended.
                code = 128 - code
            entry.ended_epoch_s = (here / f"{entry.rank}.exit").stat().st_mtime
        entry.code, entry.ended_epoch_s = code, entry.ended_epoch_s or time.time()
        self._report_exit(entry, text)

    def _note_program(self, entry: LocalRank, program: int) -> None:
        shell, entry.pid = entry.pid, program
        self._note_pid(entry)
        entry.pid = shell

    def _see_launchers_end(self) -> None:
        """A torchrun that ends before its ranks have begun takes them with it."""
        assert isinstance(self._ranks, StepRanks)
        missing = [entry for entry in self._ranks.running() if not entry.pid]
        if not self._launcher or not missing or self._ranks.lives(self._launcher):
            return
        now = time.monotonic()
        self._launcher_gone_at = self._launcher_gone_at or now
        if now - self._launcher_gone_at > LAUNCHER_LINGER_S:
            entry = missing[0]
            entry.code, entry.ended_epoch_s = EXIT_COULD_NOT_START, time.time()
            number = entry.rank // self.plan.tasks_per_node
            log = entry.out.with_name(f"torchrun{number}.log")
            self._report_exit(entry, f"torchrun on {self.node} ended before it started its ranks:\n{tail(log)}")

    def stop(self, grace_s: float) -> None:
        """Begin to stop all ranks. Their leave is taken first, so that none starts that is not seen here."""
        if self._ranks is not None and self._here is not None and not self.stopping:
            self._here = over = self._here.rename(self._here.with_name(f"{self._here.name}.over"))
            for entry in self._ranks.ranks.values():
                entry.step_file, entry.stacks_file = over / entry.step_file.name, over / entry.stacks_file.name
            self._read_notes(over)
            for entry in self._ranks.running():
                if not entry.pid:
                    entry.code, entry.ended_epoch_s, entry.stopped = -signal.SIGTERM, time.time(), True
        super().stop(grace_s)

    def close(self) -> None:
        """Forget the notes. The ranks must be gone."""
        super().close()
        self._forget_notes()

    def _forget_notes(self) -> None:
        if self._here is None:
            return
        shutil.rmtree(self._here, ignore_errors=True)
        try:
            self._here.parent.rmdir()
        except OSError:
            pass  # an agent of a later attempt uses it
        self._here = None


def _entry(rank: int, facts: rank_env.CycleFacts, here: Path, *, errors: str) -> LocalRank:
    folder = Path(facts.run_dir) / f"attempt{facts.attempt}.{facts.cycle}"
    return LocalRank(
        rank=rank,
        out=folder / f"rank{rank}.out",
        err=folder / f"rank{rank}.{errors}",
        error_file=folder / f"rank{rank}.error.json",
        step_file=here / f"{rank}.step",
        modules_file=here / f"{rank}.modules",
        stacks_file=here / f"{rank}.stacks",
    )


def _for_the_shell(env: dict[str, str], how: str) -> dict[str, str]:
    """What a rank's environment gains: Slurm's own variables are right already, and torchrun's under torchrun."""
    env = {name: value for name, value in env.items() if not name.startswith("SLURM_")}
    if how != runner.TORCHRUN:
        return env
    error_file = {"TORCHELASTIC_ERROR_FILE": env["TORCHELASTIC_ERROR_FILE"]}
    return {name: value for name, value in env.items() if not _TORCHRUNS_OWN.match(name)} | error_file


def _number(path: Path) -> int | None:
    """The number that a shell has written; None while it has not."""
    try:
        text = path.read_text()
        return int(text) if text.endswith("\n") else None
    except (OSError, ValueError):
        return None


def _without_a_note(entry: LocalRank) -> tuple[int, str]:
    """Exit code and words for a rank whose shell was killed: by MPI_Abort, by Slurm, or for its memory."""
    said = tail(entry.err)
    for match in _MPI_ABORT.finditer(said):
        if int(match["rank"]) == entry.rank:
            return int(match["code"]), said
    return -signal.SIGKILL, f"rank {entry.rank} and the shell around it were killed; it had written:\n{said}"
