"""Builds, finds and ends labs: real Slurm clusters whose nodes all run on this machine.

    with up(LabSpec(nodes=4)) as lab:
        lab.run(["srun", "--nodes=4", "hostname"])

A lab is a folder. Everything about it stands in `<folder>/lab.json`, so that any process can take it up.
"""

import os
import pwd
import secrets
import shlex
import signal
import socket
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trainmaster.errors import LabError, SlurmError
from trainmaster.lab import (
    accounting,
    cleanup,
    config,
    daemons,
    fakeroot,
    folders,
    install,
    munge,
    netns,
    orphans,
    ports,
    processes,
    state,
)
from trainmaster.lab.cleanup import Ended
from trainmaster.lab.config import Site
from trainmaster.lab.spec import HIGH_PARTITION, LabSpec, NodePlan, PartitionSpec, plan_nodes
from trainmaster.lab.state import AppliedFault, LabState, Owner, ProcessRecord
from trainmaster.slurm.commands import Commands, clean_environment
from trainmaster.slurm.run import Completed, run

if TYPE_CHECKING:
    from trainmaster.lab.faults import Injected

__all__ = ["Lab", "LabSpec", "PartitionSpec", "down", "find_labs", "up"]

# Measured with 22.05.8 on 512 nodes: 6.5 MB a slurmd. slurmctld, munged and MariaDB need the rest.
_SLURMD_MIB = 10
_OTHERS_MIB = 300
_SLURMCTLD_TIMEOUT_S = 60.0
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

    def start_slurmd(self, node: str) -> ProcessRecord:
        """Start one node's slurmd; it registers with slurmctld by itself a moment later."""
        record = _start_slurmd(self.state, node)
        self.keep(record)
        return record

    def stop_process(self, role: str, node: str | None = None) -> None:
        """Kill one daemon, and only it. The others of its node live on."""
        record = self.process(role, node)
        process = processes.look(record.pid)
        if process is not None and daemons.running(record):
            processes.send(process, signal.SIGKILL)
            processes.wait_gone([process])
        daemons.reap()
        state.change(self.folder, lambda now: now.without_process(role, node))

    def keep(self, record: ProcessRecord) -> None:
        """Remember a process as the lab's, in place of an earlier one of that role and node."""
        state.change(self.folder, lambda now: now.with_process(record))

    def wait_idle(self, *, timeout_s: float = 60.0) -> None:
        """Wait until every node is idle. Raises LabError that says which are not, and why."""
        deadline = time.monotonic() + timeout_s
        while waiting := self._not_idle():
            if time.monotonic() > deadline:
                some = ", ".join(f"{nodes} {word}" for word, nodes in list(waiting.items())[:5])
                raise LabError(
                    f"not every node is idle after {timeout_s:g} s: {some}",
                    hint=f"the logs are in {self.folder / 'log'}",
                )
            time.sleep(0.05 if len(self.node_names) < 100 else 0.3)

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
        return down(self.folder, keep_folder=keep_folder)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if (self.folder / state.STATE_FILE).exists():
            self.down()


def find_labs() -> tuple[Lab, ...]:
    """Every lab of this user on this machine."""
    return tuple(Lab(folder) for folder in folders.all_folders())


def down(folder: Path, *, keep_folder: bool = False) -> Ended:
    """End the lab in `folder`. Raises LabError when there is none, or when a process outlives SIGKILL."""
    return cleanup.end(state.load(folder), keep_folder=keep_folder)


def up(spec: LabSpec | None = None, *, owned: bool = True, say: Callable[[str], None] = lambda text: None) -> Lab:
    """Build a lab and wait until all of its nodes are idle.

    Args:
        spec: what to build.
        owned: the lab ends with this process: when it dies without ending the lab, the next lab command does.
        say: told in a few words what happens.

    Raises:
        LabError: it cannot be built; nothing is left behind.
    """
    spec = spec or LabSpec()
    nodes = plan_nodes(spec)
    install.require(install.COMMANDS + (install.ACCOUNTING_COMMANDS if spec.accounting else ()))
    version = install.slurm_version()
    for ended in orphans.sweep():
        say(f"ended the lab {ended.name!r}, whose owner had died ({ended.killed} processes)")
    _require_memory(len(nodes))
    name = spec.name or (spec.folder.name if spec.folder else f"lab-{secrets.token_hex(3)}")
    folder = spec.folder.absolute() if spec.folder else folders.base() / name
    folders.check_path(folder, tuple(node.name for node in nodes))
    folder = folders.claim(name, spec.folder)
    held = ports.HeldPorts()
    draft = LabState(
        name=name,
        folder=folder,
        conf=folder / "slurm.conf",
        slurm_version=version,
        controller_port=0,
        dbd_port=None,
        node_ports={},
        owner=_this_process() if owned else None,
    )
    # From here on a kill -9 leaves something that `lab down` and the next command can find.
    state.save(draft)
    try:
        planned = _with_ports(draft, spec, nodes, held)
        if spec.netns:
            names = tuple(node.name for node in nodes)
            planned = replace(planned, network=netns.create(_lab_id(folder), names, folder=folder))
        state.save(planned)
        _write_files(planned, spec, nodes)
        lab = Lab(folder)
        _start(lab, spec, nodes, held, say)
    except BaseException:
        # Also on Ctrl-C: half a lab is of no use to anybody.
        held.release_all()
        down(folder)
        raise
    state.change(folder, lambda now: replace(now, ready=True))
    return lab


def _start(
    lab: Lab, spec: LabSpec, nodes: Sequence[NodePlan], held: ports.HeldPorts, say: Callable[[str], None]
) -> None:
    planned = lab.state
    env = daemons.environment(folder=lab.folder, conf=lab.conf, node_name=None)
    threads = 10 if len(nodes) > 64 else 4
    lab.keep(munge.start(lab.folder / "munge", env=env, output=lab.folder / "log" / "munged.out", threads=threads))
    if planned.dbd_port is not None:
        say("starting MariaDB and slurmdbd")
        held.release(planned.dbd_port)
        accounting.start(_site(planned), env=env, keep=lab.keep)
    say(f"starting slurmctld and {len(nodes)} slurmd (Slurm {planned.slurm_version})")
    held.release(planned.controller_port)
    lab.start_slurmctld()
    started = []
    for node in nodes:
        held.release(planned.node_ports[node.name])
        started.append(_start_slurmd(planned, node.name))
    state.change(lab.folder, lambda now: replace(now, processes=(*now.processes, *started)))
    lab.wait_idle(timeout_s=30.0 + 0.3 * len(nodes))


def _start_slurmd(lab: LabState, node: str) -> ProcessRecord:
    prefix = lab.network.command_prefix(node) if lab.network else ()
    return daemons.start(
        [*prefix, "slurmd", "-D", "-N", node, "-f", str(lab.conf)],
        role="slurmd",
        node=node,
        env=daemons.environment(folder=lab.folder, conf=lab.conf, node_name=node),
        output=lab.folder / "log" / f"{node}.out",
        cwd=lab.folder / "spool" / node,
    )


def _with_ports(draft: LabState, spec: LabSpec, nodes: Sequence[NodePlan], held: ports.HeldPorts) -> LabState:
    """`draft` with ports, which are held until the daemons start."""
    taken = frozenset[int]().union(*(lab.state.ports for lab in find_labs() if lab.folder != draft.folder))
    count = 1 + len(nodes) + (1 if spec.accounting else 0)
    start = 10_000 + zlib.crc32(str(draft.folder).encode()) % 20_000
    found = list(ports.hold_free(count, taken=taken, start=start, held=held))
    return replace(
        draft,
        controller_port=found.pop(0),
        dbd_port=found.pop(0) if spec.accounting else None,
        node_ports={node.name: port for node, port in zip(nodes, found, strict=True)},
    )


def _site(lab: LabState) -> Site:
    network = lab.network
    host = socket.gethostname().partition(".")[0]
    loopback = _loopback_of(host)
    # In networks of their own the nodes' names resolve to nothing, and slurmctld must answer on the bridge as well.
    one_address = network is None and loopback is not None
    address = network.address if network else loopback or config.LOOPBACK
    return Site(
        name=lab.name,
        folder=lab.folder,
        host=host,
        address=address,
        one_address=one_address,
        user=_user(),
        slurm_version=install.release(lab.slurm_version),
        controller_port=lab.controller_port,
        dbd_port=lab.dbd_port,
        node_ports=lab.node_ports,
        node_addresses={name: network.cable(name).address if network else address for name in lab.node_ports},
    )


def _loopback_of(host: str) -> str | None:
    """The loopback address that this machine's name resolves to, 127.0.0.1 or Debian's 127.0.1.1; None if another."""
    try:
        address = socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
    except OSError:
        return None
    return str(address) if str(address).startswith("127.") else None


def _write_files(lab: LabState, spec: LabSpec, nodes: Sequence[NodePlan]) -> None:
    site = _site(lab)
    folder = lab.folder
    for name in ("log", "run", "state", "spool", "tmp", "nodes"):
        (folder / name).mkdir()
    munge.prepare(folder / "munge")
    for node in nodes:
        (folder / "spool" / node.name).mkdir()
        (folder / "tmp" / node.name).mkdir()
        # As /tmp is: the jobs of any user write here.
        (folder / "tmp" / node.name).chmod(0o1777)
        fakeroot.create(folder / "nodes" / node.name, node_name=node.name, gpus=node.gpus)
    files = {
        "slurm.conf": config.slurm_conf(
            site, nodes, topology=spec.leaf > 0, own_names=lab.network is not None, overrides=spec.settings
        ),
        "gres.conf": config.gres_conf(site, nodes),
        "cgroup.conf": config.cgroup_conf(site.slurm_version),
        "prolog": config.hook(site, "prolog"),
        "epilog": config.hook(site, "epilog"),
    }
    if spec.leaf > 0:
        files["topology.conf"] = config.topology_conf(nodes, spec.leaf)
    for name, text in files.items():
        (folder / name).write_text(text)
    for name in ("prolog", "epilog"):
        (folder / name).chmod(0o755)
    if lab.dbd_port is not None:
        env = daemons.environment(folder=folder, conf=site.conf, node_name=None)
        accounting.prepare(site, env=env)


def _require_memory(nodes: int) -> None:
    fields: Mapping[str, str] = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    available_mib = int(fields["MemAvailable"].split()[0]) // 1024
    needed_mib = nodes * _SLURMD_MIB + _OTHERS_MIB
    if needed_mib > available_mib:
        raise LabError(
            f"{nodes} nodes need about {needed_mib} MiB of memory and this machine has {available_mib} MiB to give",
            hint=f"take at most {max(0, (available_mib - _OTHERS_MIB) // _SLURMD_MIB)} nodes",
        )


def _this_process() -> Owner:
    seen = processes.look(os.getpid())
    assert seen is not None
    return Owner(pid=seen.pid, start_time=seen.start_time)


def _lab_id(folder: Path) -> str:
    """Six characters, different for different labs, for the names of network interfaces."""
    return f"{zlib.crc32(str(folder).encode()):08x}"[-6:]


def _user() -> str:
    """Who runs the daemons; a uid without a name will do."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def shell_lines(lab: Lab) -> tuple[str, ...]:
    """What a shell evaluates to use the lab."""
    stale = sorted(key for key in os.environ if key not in lab.env)
    unset = (f"unset {' '.join(stale)}",) if stale else ()
    return (*unset, f"export SLURM_CONF={shlex.quote(str(lab.conf))}")
