"""A lab that is up: what it consists of, how to run commands in it, and how to start and stop its daemons."""

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainmaster.errors import LabError, SlurmError
from trainmaster.lab import cleanup, daemons, netns, state
from trainmaster.lab.cleanup import Ended
from trainmaster.lab.spec import HIGH_PARTITION
from trainmaster.lab.state import AppliedFault, LabState, ProcessRecord
from trainmaster.slurm.commands import Commands, clean_environment
from trainmaster.slurm.run import Completed, run

if TYPE_CHECKING:
    from trainmaster.lab.faults import Injected

_SLURMCTLD_TIMEOUT_S = 60.0
# A slurmd that cannot run ends within a fraction of this.
_SLURMD_TIMEOUT_S = 1.0
_FAULTS_KEPT = 200


class Lab:
    """A lab that is up. Holds nothing but its folder: what changes is read from `lab.json` each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def state(self) -> LabState:
        """The lab as its folder describes it now."""
        return state.load(self.folder)

    @property
    def name(self) -> str:
        """The name under which `trainmaster lab` knows it."""
        return self.state.name

    @property
    def conf(self) -> Path:
        """slurm.conf."""
        return self.folder / "slurm.conf"

    @property
    def node_names(self) -> tuple[str, ...]:
        """All nodes."""
        return self.state.node_names

    @property
    def network(self) -> netns.Network | None:
        """The nodes' own network, if they have one."""
        return self.state.network

    @property
    def processes(self) -> tuple[ProcessRecord, ...]:
        """The daemons that were started, whether they still run or not."""
        return self.state.processes

    @property
    def slurmctld(self) -> ProcessRecord:
        """The controller's process."""
        return self.process("slurmctld")

    @property
    def env(self) -> dict[str, str]:
        """This process's environment, pointed at the lab and cleaned of what an outer Slurm job left in it."""
        env = clean_environment(os.environ)
        for other_cluster in ("SLURM_CLUSTERS", "SLURM_JWT"):
            env.pop(other_cluster, None)
        return {**env, "SLURM_CONF": str(self.conf)}

    def root(self, node: str) -> Path:
        """The fake root of a node, where health checks look: see lab/fakeroot.py."""
        return self.folder / "nodes" / node / "root"

    def run(self, argv: Sequence[str], *, timeout_s: float = 60.0, input_text: str | None = None) -> Completed:
        """Run a command in the lab's environment; SlurmError when it fails."""
        return run(argv, timeout_s=timeout_s, input_text=input_text, env=self.env)

    def process(self, role: str, node: str | None = None) -> ProcessRecord:
        """The record of one daemon. Raises LabError when it was never started."""
        for record in self.processes:
            if (record.role, record.node) == (role, node):
                return record
        raise LabError(f"the lab {self.folder} has no {role}" + (f" on {node}" if node else ""))

    def start_slurmctld(self) -> ProcessRecord:
        """Start the controller, from its saved state if there is one, and wait until it answers."""
        output = self.folder / "log" / "slurmctld.out"
        output.unlink(missing_ok=True)
        record = daemons.start(
            ["slurmctld", "-D", "-f", str(self.conf)],
            role="slurmctld",
            node=None,
            env=daemons.environment(folder=self.folder, conf=self.conf, node_name=None),
            output=output,
            cwd=self.folder / "log",
        )
        self.keep(record)
        client = Commands(env=self.env)
        daemons.await_ready(record, client.ping, output=output, timeout_s=_SLURMCTLD_TIMEOUT_S)
        return record

    def start_slurmd(self, node: str, *, booted: bool = False) -> ProcessRecord:
        """Start one node's slurmd; it registers with slurmctld by itself a moment later.

        Args:
            node: the node.
            booted: tell slurmctld that the node has just booted, so that it knows that nothing of before is left.
        """
        record = start_slurmd(self.state, node, booted=booted)
        self.keep(record)
        return record

    def stop_process(self, role: str, node: str | None = None) -> None:
        """End one daemon, and only it: politely first, so that slurmctld saves its state. Jobs and others live on."""
        daemons.stop(self.process(role, node))
        state.change(self.folder, lambda now: now.without_process(role, node))

    def keep(self, record: ProcessRecord) -> None:
        """Remember a process as the lab's, in place of an earlier one of that role and node."""
        state.change(self.folder, lambda now: now.with_process(record))

    def wait_idle(self, *, timeout_s: float = 60.0) -> None:
        """Wait until every node is idle. Raises LabError that says which are not, and why."""
        begin_s = time.monotonic()
        while waiting := self._not_idle():
            waited_s = time.monotonic() - begin_s
            if waited_s > _SLURMD_TIMEOUT_S:
                self._require_slurmds()
            if waited_s > timeout_s:
                some = ", ".join(f"{nodes} {word}" for word, nodes in list(waiting.items())[:5])
                raise LabError(
                    f"not every node is idle after {timeout_s:g} s: {some}",
                    hint=f"the logs are in {self.folder / 'log'}",
                )
            time.sleep(0.05 if len(self.node_names) < 100 else 0.3)

    def _require_slurmds(self) -> None:
        """Raise LabError with the last words of a slurmd that has ended: its node will never be idle."""
        for record in self.processes:
            if record.role == "slurmd" and not daemons.running(record):
                words = daemons.tail(self.folder / "log" / f"{record.node}.out")
                raise LabError(f"slurmd of {record.node} has ended; it said:\n{words}")

    def _not_idle(self) -> dict[str, str]:
        """Node lists by state word, for all words but "idle"."""
        try:
            lines = self.run(
                ["sinfo", "--noheader", f"--partition={HIGH_PARTITION}", "--format=%T %N"]
            ).stdout.splitlines()
        except SlurmError as error:
            return {error.message: "sinfo"}
        return {word: nodes for word, _, nodes in (line.partition(" ") for line in lines) if word != "idle"}

    def fault(self, name: str, target: str = "", **options: Any) -> "Injected":
        """Break something: see `trainmaster lab fault --list`."""
        from trainmaster.lab.faults import inject

        injected = inject(self, name, target, **options)
        if not options.get("dry_run"):
            fault = AppliedFault(name=name, target=target, time=time.time())
            state.change(self.folder, lambda now: replace(now, faults=(*now.faults, fault)[-_FAULTS_KEPT:]))
        return injected

    def down(self, *, keep_folder: bool = False) -> Ended:
        """End the lab: kill all of its processes, jobs included, and remove its folder."""
        return cleanup.end(self.state, keep_folder=keep_folder)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if (self.folder / state.STATE_FILE).exists():
            self.down()


def start_slurmd(lab: LabState, node: str, *, booted: bool = False) -> ProcessRecord:
    """Start one node's slurmd without writing it down; `Lab.start_slurmd` does both."""
    prefix = lab.network.command_prefix(node) if lab.network else ()
    return daemons.start(
        [*prefix, "slurmd", "-D", *(["-b"] if booted else []), "-N", node, "-f", str(lab.conf)],
        role="slurmd",
        node=node,
        env=daemons.environment(folder=lab.folder, conf=lab.conf, node_name=node),
        output=lab.folder / "log" / f"{node}.out",
        cwd=lab.folder / "spool" / node,
    )


def shell_lines(lab: Lab) -> tuple[str, ...]:
    """What a shell evaluates to use the lab."""
    stale = sorted(key for key in os.environ if key not in lab.env)
    unset = (f"unset {' '.join(stale)}",) if stale else ()
    return (*unset, f"export SLURM_CONF={shlex.quote(str(lab.conf))}")
