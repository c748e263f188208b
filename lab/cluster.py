"""Builds, finds and ends labs: real Slurm clusters whose nodes all run on this machine.

    with up(LabSpec(nodes=4)) as lab:
        lab.run(["srun", "--nodes=4", "hostname"])

A lab is a folder. Everything about it stands in `<folder>/lab.json`, so that any process can take it up.
"""

import os
import re
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainmaster.errors import LabError
from trainmaster.lab import (
    accounting,
    cleanup,
    daemons,
    files,
    folders,
    install,
    jobgroups,
    munge,
    netns,
    orphans,
    ports,
    state,
)
from trainmaster.lab.cleanup import Ended
from trainmaster.lab.processes import look
from trainmaster.lab.running import Lab, start_slurmd
from trainmaster.lab.spec import LabSpec, NodePlan, PartitionSpec, plan_nodes
from trainmaster.lab.state import LabState, Owner

__all__ = ["Lab", "LabSpec", "PartitionSpec", "Plan", "down", "find_labs", "plan", "up"]

# Measured with 22.05.8 on 512 nodes: 6.5 MB a slurmd. slurmctld, munged and MariaDB need the rest.
_SLURMD_MIB = 10
_OTHERS_MIB = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `up` would build."""

    name: str
    folder: Path
    slurm_version: str
    nodes: tuple[NodePlan, ...]
    files: dict[str, str]
    """The text of each configuration file. The ports in them are free now; `up` looks again."""


def find_labs() -> tuple[Lab, ...]:
    """Every lab of this user on this machine, running or not."""
    return tuple(Lab(found.folder) for found in folders.all_labs())


def down(folder: Path, *, keep_folder: bool = False) -> Ended:
    """End the lab in `folder`. Raises LabError when there is none, or when a process outlives SIGKILL."""
    return cleanup.end(state.load(folder), keep_folder=keep_folder)


def plan(spec: LabSpec) -> Plan:
    """What `up` would build, without building it. Raises LabError where `up` would."""
    nodes, draft = _draft(spec)
    held = ports.HeldPorts()
    planned = _with_ports(draft, spec, nodes, held)
    held.release_all()
    if spec.netns:
        names = tuple(node.name for node in nodes)
        network = netns.plan(_lab_id(draft.folder), names, folder=draft.folder)
        planned = replace(planned, network=network)
    return Plan(
        name=draft.name,
        folder=draft.folder,
        slurm_version=draft.slurm_version,
        nodes=nodes,
        files=files.configuration(planned, spec, nodes),
    )


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
    for ended in orphans.sweep():
        say(f"ended the lab {ended.name!r}, whose owner had died: {ended.killed} processes")
    nodes, draft = _draft(spec)
    folder = folders.claim(draft.name, spec.folder)
    # Until it stands, every lab belongs to its builder: what a kill -9 leaves half built is an orphan.
    draft = replace(draft, folder=folder, conf=folder / "slurm.conf", owner=_this_process())
    state.save(draft)
    held = ports.HeldPorts()
    try:
        planned = _with_ports(draft, spec, nodes, held)
        if spec.netns:
            names = tuple(node.name for node in nodes)
            planned = replace(planned, network=netns.create(_lab_id(folder), names, folder=folder))
        state.save(planned)
        if spec.cgroups:
            jobgroups.create(folder, draft.name)
        files.write(planned, spec, nodes)
        _start(planned, nodes, held, say, fabric=spec.fabric)
    except BaseException:
        # Also on Ctrl-C: half a lab is of no use to anybody.
        down(folder)
        raise
    finally:
        held.release_all()
    state.change(folder, lambda now: replace(now, ready=True, owner=now.owner if owned else None))
    return Lab(folder)


def _draft(spec: LabSpec) -> tuple[tuple[NodePlan, ...], LabState]:
    """The nodes and the state without ports, after everything is checked that can be without changing anything."""
    nodes = plan_nodes(spec)
    install.require(install.COMMANDS + (install.ACCOUNTING_COMMANDS if spec.accounting else ()))
    if spec.cgroups:
        jobgroups.require()
    _require_memory(len(nodes), Path("/proc/meminfo").read_text())
    name = spec.name or (spec.folder.name if spec.folder else f"lab-{secrets.token_hex(3)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise LabError(f"a lab cannot be called {name!r}", hint="use letters, digits, dots, dashes and underscores")
    folder = (spec.folder or folders.base() / name).resolve()
    folders.check_path(folder, tuple(node.name for node in nodes))
    draft = LabState(
        name=name,
        folder=folder,
        conf=folder / "slurm.conf",
        slurm_version=install.slurm_version(),
        controller_port=0,
        dbd_port=None,
        node_ports={},
    )
    return nodes, draft


def _start(
    planned: LabState, nodes: Sequence[NodePlan], held: ports.HeldPorts, say: Callable[[str], None], *, fabric: str
) -> None:
    lab = Lab(planned.folder)
    env = daemons.environment(folder=lab.folder, conf=lab.conf, node_name=None)
    threads = 10 if len(nodes) > 64 else 4
    lab.keep(munge.start(lab.folder / "munge", env=env, output=lab.folder / "log" / "munged.out", threads=threads))
    if planned.dbd_port is not None:
        say("starting MariaDB and slurmdbd")
        held.release(planned.dbd_port)
        accounting.start(files.site_of(planned), env=env, keep=lab.keep)
    say(f"starting slurmctld and {len(nodes)} slurmd (Slurm {planned.slurm_version})")
    held.release(planned.controller_port)
    lab.start_slurmctld()
    started = []
    for node in nodes:
        held.release(planned.node_ports[node.name])
        started.append(start_slurmd(planned, node.name))
    state.change(lab.folder, lambda now: replace(now, processes=(*now.processes, *started)))
    if fabric:
        from trainmaster.lab import ib

        say("starting ibsim and opensm")
        ib.prepare(lab, fabric, [node.name for node in nodes])
        ib.start(lab)
    lab.wait_idle(timeout_s=30.0 + 0.3 * len(nodes))


def _with_ports(draft: LabState, spec: LabSpec, nodes: Sequence[NodePlan], held: ports.HeldPorts) -> LabState:
    """`draft` with ports, which are held until the daemons start."""
    taken = {port for other in folders.all_labs() for port in other.ports}
    count = 1 + len(nodes) + (1 if spec.accounting else 0)
    start = 10_000 + zlib.crc32(str(draft.folder).encode()) % 20_000
    found = list(ports.hold_free(count, taken=taken, start=start, held=held))
    return replace(
        draft,
        controller_port=found.pop(0),
        dbd_port=found.pop(0) if spec.accounting else None,
        node_ports={node.name: port for node, port in zip(nodes, found, strict=True)},
    )


def _require_memory(nodes: int, meminfo: str) -> None:
    """Raise LabError when /proc/meminfo shows too little for so many slurmd."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    assert match, "/proc/meminfo has had MemAvailable since Linux 3.14"
    available_mib = int(match[1]) // 1024
    needed_mib = nodes * _SLURMD_MIB + _OTHERS_MIB
    if needed_mib > available_mib:
        raise LabError(
            f"{nodes} nodes need about {needed_mib} MiB of memory and this machine has {available_mib} MiB to give",
            hint=f"take at most {max(0, (available_mib - _OTHERS_MIB) // _SLURMD_MIB)} nodes",
        )


def _this_process() -> Owner:
    seen = look(os.getpid())
    assert seen is not None
    return Owner(pid=seen.pid, start_time=seen.start_time)


def _lab_id(folder: Path) -> str:
    """Six characters, different for different labs, for the names of network interfaces."""
    return f"{zlib.crc32(str(folder).encode()):08x}"[-6:]
