"""Simulated InfiniBand of a lab: ibsim holds the fabric, a real opensm runs each plane, the real tools look at it.

Everything lies in `<lab>/ib/`: `shape` (what was generated), `changes` (every console line since, so that a restart can
say them again), `slow` (cables whose width or speed were changed, which ibsim reads only at its start).
"""

import json
import os
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from trainmaster.errors import LabError, UsageError
from trainmaster.fabric.generate import Shape, generate, parse_shape, with_manager
from trainmaster.fabric.model import Fabric, Kind
from trainmaster.fabric.netlist import netlist
from trainmaster.lab import daemons, install
from trainmaster.lab.running import Lab

COMMANDS = ("ibsim", "opensm", "ibnetdiscover", "perfquery", "ibqueryerrors")
_PRELOADS = tuple(Path("/usr/lib").glob("*/umad2sim/libumad2sim.so"))
# HDR, the fastest that ibsim 0.10 can tell of.
_LANE_GBPS = 53.125
_READY_TIMEOUT_S = 60.0
# What else the console prints are warnings, such as of a trap that no longer finds its way to the subnet manager.
_REFUSED = re.compile(r"^(sim> )*# .*(not found|can't|cannot|invalid|bad|failed|no )", re.IGNORECASE)
_SWEEP_TIMEOUT_S = 180.0


def shape_of(text: str) -> Shape:
    """The shape that `lab up --fabric` asks for."""
    return replace(parse_shape(text), lane_gbps=_LANE_GBPS)


def exists(lab: Lab) -> bool:
    """Whether the lab has a simulated fabric."""
    return _folder(lab).is_dir()


def fabric_of(lab: Lab) -> Fabric:
    """The lab's fabric as it was built, with the cables that were slowed since; cuts and swaps are not in it."""
    if not exists(lab):
        raise LabError("this lab has no InfiniBand", hint="`trainmaster lab up --fabric rail:4x4` builds one that has")
    saved = json.loads((_folder(lab) / "shape").read_text())
    fabric = with_manager(generate(shape_of(saved["shape"]), names=saved["nodes"]))
    lanes, rates = fabric.links.lanes.copy(), fabric.links.lane_gbps.copy()
    for link, (lane_count, lane_gbps) in _slowed(lab).items():
        lanes[link], rates[link] = lane_count, lane_gbps
    return replace(fabric, links=replace(fabric.links, lanes=lanes, lane_gbps=rates))


def prepare(lab: Lab, shape: str, nodes: Sequence[str]) -> None:
    """Write down what to simulate. Raises LabError when the tools for it are missing."""
    install.require(COMMANDS)
    if not _PRELOADS:
        raise LabError("libumad2sim.so is not on this machine", hint=install.package_hint("ibsim"))
    folder = _folder(lab)
    folder.mkdir()
    (folder / "shape").write_text(json.dumps({"shape": shape, "nodes": list(nodes)}))
    (folder / "changes").touch()


def start(lab: Lab) -> None:
    """Start ibsim and an opensm for each plane, and wait until every switch is routed."""
    fabric, folder = fabric_of(lab), _folder(lab)
    (folder / "netlist").write_text(netlist(fabric, simulator=True))
    console = folder / "console"
    if not console.exists():
        os.mkfifo(console)
    env = {**daemons.environment(folder=lab.folder, conf=lab.conf, node_name=None), "IBSIM_SOCKNAME": _socket(lab)}
    nodes, switches = len(fabric.hcas) + len(fabric.switches), len(fabric.switches)
    ports = sum(switch.ports + 1 for switch in fabric.switches) + 2 * len(fabric.hcas)
    sizes = ["-N", str(nodes + 8), "-S", str(switches + 8), "-P", str(ports + 64), "-L", "49152"]
    # Open for reading and writing: the console never sees an end of file.
    descriptor = os.open(console, os.O_RDWR)
    try:
        output = folder / "ibsim.out"
        output.unlink(missing_ok=True)
        argv = ["ibsim", "-s", *sizes, str(folder / "netlist")]
        record = daemons.start(argv, role="ibsim", node=None, env=env, output=output, cwd=folder, stdin=descriptor)
        lab.keep(record)
        wanted = f"@{_socket(lab)}:ctl"
        daemons.await_ready(
            record,
            lambda: wanted in Path("/proc/net/unix").read_text(),
            output=output,
            timeout_s=_READY_TIMEOUT_S,
        )
    finally:
        os.close(descriptor)
    _say(lab, (folder / "changes").read_text().splitlines())
    for plane in range(len(fabric.planes)):
        own = _plane(lab, plane)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        log = own / "opensm.log"
        # Otherwise "SUBNET UP" stays in a buffer until 4 KiB more have been written.
        (own / "opensm.conf").write_text("force_log_flush TRUE\n")
        env = tool_environment(lab, fabric, plane)
        lab.keep(
            daemons.start(
                ["opensm", "-F", str(own / "opensm.conf"), "-f", str(log)],
                role=f"opensm{plane}",
                node=None,
                env=env,
                output=own / "opensm.out",
                cwd=own,
            )
        )
    for plane in range(len(fabric.planes)):
        log = _plane(lab, plane) / "opensm.log"
        record = lab.process(f"opensm{plane}")
        daemons.await_ready(record, partial(_is_up, log), output=log, timeout_s=_SWEEP_TIMEOUT_S)


def restart(lab: Lab) -> None:
    """Stop and start the simulation; counters begin at 0 again."""
    for record in lab.processes:
        if record.role.startswith(("opensm", "ibsim")):
            lab.stop_process(record.role)
    start(lab)


def tool_environment(lab: Lab, fabric: Fabric, plane: int) -> dict[str, str]:
    """The environment in which InfiniBand's own tools see a plane of the lab's fabric; they run beside its opensm."""
    first = next(hca.guid[2:] for hca in fabric.hcas if hca.plane == plane and hca.kind is Kind.SERVICE)
    own = _plane(lab, plane)
    return {
        **daemons.environment(folder=lab.folder, conf=lab.conf, node_name=None),
        "IBSIM_SOCKNAME": _socket(lab),
        "SIM_HOST": f"H-{first}",
        "OSM_TMP_DIR": str(own),
        "OSM_CACHE_DIR": str(own),
        "LD_PRELOAD": str(_PRELOADS[0]),
    }


def run_tool(
    lab: Lab, argv: Sequence[str], *, plane: int = 0, timeout_s: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run ibnetdiscover, perfquery or the like on a plane of the lab's fabric.

    A tool that finds errors in the fabric ends with 1, so an exit code is the caller's to judge.

    Raises:
        UsageError: no such plane or tool.
        LabError: the tool did not end in time.
    """
    fabric = fabric_of(lab)
    if not 0 <= plane < len(fabric.planes):
        raise UsageError(f"the lab's fabric has no plane {plane}", hint=f"it has 0 to {len(fabric.planes) - 1}")
    program = shutil.which(argv[0], path=install.search_path())
    if program is None:
        raise UsageError(f"there is no {argv[0]!r} on this machine", hint=install.package_hint("ibnetdiscover"))
    try:
        return subprocess.run(
            [program, *argv[1:]],
            env=tool_environment(lab, fabric, plane),
            # The preloaded library keeps files in the current folder.
            cwd=_plane(lab, plane),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{argv[0]} did not end within {timeout_s:g} s") from None


def change(lab: Lab, lines: Iterable[str]) -> None:
    """Say lines to ibsim's console and remember them for its next start."""
    said = list(lines)
    with (_folder(lab) / "changes").open("a") as stream:
        stream.writelines(f"{line}\n" for line in said)
    _say(lab, said)


def slow_down(lab: Lab, links: Iterable[int], *, lanes: int, lane_gbps: float) -> None:
    """Change the width and speed of cables, which restarts the simulation."""
    slowed = _slowed(lab) | dict.fromkeys(links, (lanes, lane_gbps))
    (_folder(lab) / "slow").write_text(json.dumps({str(link): rate for link, rate in slowed.items()}))
    restart(lab)


def renew(lab: Lab) -> None:
    """Start the simulation over with everything whole."""
    (_folder(lab) / "changes").write_text("")
    (_folder(lab) / "slow").unlink(missing_ok=True)
    restart(lab)


def _say(lab: Lab, lines: Sequence[str]) -> None:
    if not lines:
        return
    if not daemons.running(lab.process("ibsim")):
        raise LabError("ibsim of this lab has ended", hint=f"its output is in {_folder(lab) / 'ibsim.out'}")
    output = _folder(lab) / "ibsim.out"
    before = output.stat().st_size
    mark = f"nothing-{time.monotonic_ns()}"
    # A FIFO takes 4 KiB at once and whole.
    descriptor = os.open(_folder(lab) / "console", os.O_RDWR)
    try:
        # The console answers in order, so its complaint about the last line says that it has done all others.
        for line in (*lines, f'Dump "{mark}"'):
            os.write(descriptor, f"{line}\n".encode())
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while mark not in (answer := output.read_bytes()[before:].decode(errors="replace")):
            if time.monotonic() > deadline:
                raise LabError(f"ibsim did not answer within {_READY_TIMEOUT_S:g} s")
            time.sleep(0.02)
    finally:
        os.close(descriptor)
    refused = [line for line in answer.splitlines() if _REFUSED.search(line) and mark not in line]
    if refused:
        raise LabError(f"ibsim refused: {refused[0].strip()}")


def _is_up(log: Path) -> bool:
    return log.exists() and "SUBNET UP" in log.read_text(errors="replace")


def _slowed(lab: Lab) -> dict[int, tuple[int, float]]:
    path = _folder(lab) / "slow"
    if not path.exists():
        return {}
    return {int(link): (rate[0], rate[1]) for link, rate in json.loads(path.read_text()).items()}


def _folder(lab: Lab) -> Path:
    return lab.folder / "ib"


def _plane(lab: Lab, plane: int) -> Path:
    return _folder(lab) / f"plane{plane}"


def _socket(lab: Lab) -> str:
    """A name of an abstract socket, which must be short and no other lab's."""
    return f"tm{zlib.crc32(str(lab.folder).encode()):08x}"
