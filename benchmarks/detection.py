"""Does every fault drain its node, and does nothing else? A labelled suite of faults and of what only looks like them.

    python benchmarks/detection.py                  every case: about a minute
    python benchmarks/detection.py --quick          every third case
    python benchmarks/detection.py --nhc FOLDER     with LBNL's Node Health Check, whose source tree that is
    python benchmarks/detection.py --gcm            with gpucm, installed from PyPI; each of the two takes minutes more

Each case has a node of its own (measure/sick_node.py): a first pass on a healthy node, then the case happens, then up
to three more passes. A fault is detected when the right check would drain the node; a look-alike is a false drain when
any would. Misses are listed on stderr; the last line on stdout is one flat JSON object.

A peer sees the same nodes, when the case has happened and whenever more happens. For it every drain counts as a
detection, whatever it names. How it is configured and what of the suite it has a check for stands in measure/nhc.py and
measure/gcm.py; a fault that it has no check for is not covered, and counts in its rate all the same (`…_of_covered`
leaves it out).
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from measure import gcm, nhc
from measure.sick_node import MOUNTINFO, SickNode

from trainmaster.health import xids
from trainmaster.health.finding import DRAINS

Change = Callable[[SickNode], object]
PASSES = 3
UNCORR = "ecc__errors__uncorrected__volatile__total"
SRAM = "ecc__errors__uncorrected__aggregate__sram__thresholdExceeded"
IB_STATE = "ib.state"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that happens to a node. `check` should drain it; empty: nothing should."""

    name: str
    check: str
    change: Change
    between: Change | None = None
    """What else happens before each further pass."""
    hourly: bool = False
    """It is looked for once an hour: each pass of the case is such a one."""
    ours: bool = False
    """It is about a switch that only we have: peers are not asked."""


class Peer(Protocol):
    """Another program that takes bad nodes out of service."""

    name: str
    covers: Mapping[str, str]

    def begin(self, node: SickNode) -> None:
        """Configure it on a healthy node."""

    def drains(self, node: SickNode) -> str:
        """Why it would drain the node now; empty when it would not."""

    def close(self) -> None:
        """End what it left running."""


def gpu(**values: str) -> Change:
    return lambda node: node.gpu(**values)


def pages(*, pending: str = "No", double: str = "0") -> Change:
    """A GPU of the years before rows were remapped."""
    single = {"retired_pages__single_bit_ecc__count": "0"}
    return gpu(retired_pages__pending=pending, retired_pages__double_bit__count=double, **single)


def log(*texts: str) -> Change:
    return lambda node: node.log(*texts)


def xid(number: int, text: str = "") -> Change:
    return lambda node: node.xid(number, text)


def tool(script: str) -> Change:
    return lambda node: node.tool(script)


def write(name: str, text: str) -> Change:
    return lambda node: node.write(name, text)


def port(**facts: str) -> Change:
    return lambda node: node.port(3, **facts)


def counters(**values: int) -> Change:
    return lambda node: node.counters(3, **values)


def rows(edit: Callable[[str], str]) -> Change:
    """Change nvidia-smi's table as text."""

    def change(node: SickNode) -> None:
        path = node.root / "bin/rows.txt"
        path.write_text(edit(path.read_text()))

    return change


def lanes(width: str) -> Change:
    def change(node: SickNode) -> None:
        node.gpu(pcie__link__width__current=width)
        node.write("sys/bus/pci/devices/0000:00:07.0/current_link_width", width)

    return change


def hang(node: SickNode) -> None:
    node.profile["deadlines_s"] = {"gpu.query": 0.3}
    node.save_profile()
    node.tool("exec sleep 60")


def programs(number: int, *pids: int) -> Change:
    def change(node: SickNode) -> None:
        for pid in pids:
            node.xid(number, pid=pid)

    return change


def add(node: SickNode, name: str, amount: int) -> None:
    """Raise a counter of the third adapter."""
    for folder in ("counters", "hw_counters"):
        path = node.root / f"sys/class/infiniband/mlx5_3/ports/1/{folder}/{name}"
        if path.exists():
            node.counters(3, **{name: int(path.read_text()) + amount})


def job(node: SickNode) -> None:
    node.process(901, "slurmstepd", "S")
    node.gpu(memory__used="70000")


def cables(third: int, fourth: int) -> Change:
    """The third and the fourth adapter lead to the switches of these numbers."""
    places = {**{number: number for number in range(8)}, 3: third, 4: fourth}
    return lambda node: node.switches({number: f"0x2000{place:02d}" for number, place in places.items()})


def mounts(old: str, new: str) -> Change:
    assert old in MOUNTINFO
    return write("proc/self/mountinfo", MOUNTINFO.replace(old, new))


RECOVERY = "GPU recovery action changed from 0x0 (None) to "
LOWEST = "Limit                     Soft Limit           Hard Limit           Units\n"

FAULTS = [
    *[Case(f"uncorrectable ECC: {n}", "gpu.ecc.uncorr", gpu(**{UNCORR: n})) for n in ("1", "4000")],
    *[Case(f"SRAM threshold: {yes}", "gpu.ecc.sram_threshold", gpu(**{SRAM: yes})) for yes in ("Yes", "1")],
    *[Case(f"remap failure: {yes}", "gpu.remap.failure", gpu(remapped_rows__failure=yes)) for yes in ("Yes", "1")],
    *[Case(f"remap pending: {yes}", "gpu.remap.pending", gpu(remapped_rows__pending=yes)) for yes in ("Yes", "1")],
    Case("513 rows remapped", "gpu.remap.uncorr", gpu(remapped_rows__uncorrectable="513")),
    *[Case(f"page retirement pending: {yes}", "gpu.pages", pages(pending=yes)) for yes in ("Yes", "1")],
    Case("63 pages retired", "gpu.pages", pages(double="63")),
    *[
        Case(f"recovery action {a}", "gpu.recovery", gpu(gpu_recovery_action=a))
        for a in ("Reset", "Reboot", "Drain and Reset")
    ],
    *[Case(f"PCIe x{n}", "gpu.pcie.width", lanes(n)) for n in ("8", "4", "1")],
    *[
        Case(f"throttled {m}", "gpu.throttle", gpu(clocks_event_reasons__active=m))
        for m in ("0x48", "0x88", "0x40", "0x80")
    ],
    Case("at its temperature limit", "gpu.temp", gpu(temperature__gpu__tlimit="-1")),
    Case("another VBIOS", "gpu.vbios", gpu(vbios_version="96.00.00.00.01")),
    Case("fabric in progress", "gpu.fabric", gpu(fabric__state="In Progress")),
    Case("fabric failed", "gpu.fabric", gpu(fabric__state="Completed", fabric__status="Invalid State")),
    Case("driver not loaded", "gpu.query", tool("echo 'NVIDIA-SMI has failed'; exit 9")),
    Case("a GPU fell off the bus, says the tool", "gpu.query", tool("exit 15")),
    Case("NVML is missing", "gpu.query", tool("exit 12")),
    Case("exit status 0 and no device", "gpu.query", tool("echo 'No devices were found'")),
    Case("exit status 0 and no handle", "gpu.query", tool("echo 'Unable to determine the device handle for GPU1'")),
    Case("ERR! in a field", "gpu.query", rows(lambda text: text.replace(", 31, ", ", ERR!, ", 1))),
    Case("Unknown Error in a field", "gpu.query", rows(lambda text: text.replace(", 31, ", ", [Unknown Error], ", 1))),
    Case("a row is missing", "gpu.query", lambda node: node.hide_gpu()),
    Case("a table of another width", "gpu.query", rows(lambda text: text.replace(", ", "; "))),
    Case("nvidia-smi hangs", "gpu.hung", hang),
    Case("nvidia-smi is gone", "gpu.query", lambda node: node.remove("bin/nvidia-smi")),
    Case(
        "a GPU reads as ones",
        "gpu.present",
        lambda n: (n.root / "sys/bus/pci/devices/0000:00:07.0/config").write_bytes(b"\xff" * 64),
    ),
    Case(
        "a GPU is gone from the bus",
        "gpu.present",
        lambda node: (node.hide_gpu(), node.remove("sys/bus/pci/devices/0000:00:07.0")),
    ),
    Case("another kernel module", "gpu.driver", write("sys/module/nvidia/version", "575.57.08")),
    Case(
        "an empty library",
        "gpu.driver",
        lambda n: (n.write("usr/lib64/x", ""), (n.root / "usr/lib64/libnvidia-ml.so.1").touch()),
    ),
    *[Case(f"Xid {number}", "gpu.xid", xid(number)) for number in sorted(xids.RESET | set(xids.REPLACE))],
    *[
        Case(f"Xid 154: {a}", "gpu.xid", xid(154, f"{RECOVERY}0x1 ({a})"))
        for a in ("GPU Reset Required", "Node Reboot Required")
    ],
    Case("Xid 94 in two programs", "gpu.xid", programs(94, 1, 2)),
    Case("Xid 48 in two programs", "gpu.xid", programs(48, 1, 2)),
    Case(
        "Xid 79 in a storm of 31",
        "gpu.xid",
        lambda n: (programs(31, *range(500))(n), n.xid(79), programs(31, *range(500))(n)),
    ),
    Case(
        "fatal SXid", "gpu.sxid", log("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up")
    ),
    Case(
        "a process hangs in the driver", "gpu.dstate", lambda node: node.process(77, "python", "D", "nv_wait_on_lock")
    ),
    Case("an adapter is gone", "ib.present", lambda node: node.remove("sys/class/infiniband/mlx5_3")),
    Case("an adapter changed its place", "ib.rail", write("sys/bus/pci/devices/0000:43:00.0/numa_node", "1")),
    Case("memory of a GPU is not given back", "gpu.leftover", gpu(memory__used="4000")),
    Case("a port is gone", "ib.present", lambda node: node.remove("sys/class/infiniband/mlx5_3/ports/1")),
    Case("a port is down", IB_STATE, port(state="1: DOWN", phys_state="3: Disabled")),
    Case("a port looks for its peer", IB_STATE, port(state="1: DOWN", phys_state="2: Polling")),
    Case("a port lost lanes", "ib.rate", port(rate="200 Gb/sec (2X NDR)")),
    Case("a port is slow", "ib.rate", port(rate="100 Gb/sec (4X EDR)")),
    Case("a port became Ethernet", "ib.rate", port(link_layer="Ethernet")),
    Case("symbol errors", "ib.counters", lambda node: add(node, "symbol_error", 200)),
    Case("a link went down four times", "ib.counters", lambda node: add(node, "link_downed", 4)),
    *[
        Case(f"{name} +1", "ib.counters", lambda node, name=name: add(node, name, 1))
        for name in ("local_link_integrity_errors", "excessive_buffer_overrun_errors", "rnr_nak_retry_err")
    ],
    Case(
        "mlx5 lost a command",
        "ib.kmsg",
        log("mlx5_core 0000:1a:00.0: cmd_work: timeout. Will cause a leak of a command resource"),
    ),
    Case(
        "mlx5 health",
        "ib.kmsg",
        log("mlx5_core 0000:1a:00.0: poll_health: device's health compromised - reached miss count"),
    ),
    Case("mlx5 hardware", "ib.kmsg", log("mlx5_core 0000:1a:00.0: unrecoverable hardware error")),
    Case("a mount is gone", "fs.mount", mounts("40 27 0:40 / /scratch rw,flock - lustre 10.0.0.1@o2ib:/fs rw\n", "")),
    Case("a mount is read-only", "fs.mount", mounts("/home rw - nfs4", "/home ro - nfs4")),
    Case("a mount of another type", "fs.mount", mounts("lustre", "nfs4")),
    Case("a mount without its option", "fs.mount", mounts("rw,flock", "rw")),
    Case("a mount point that is gone", "fs.alive", lambda node: node.remove("scratch")),
    Case("remounted read-only", "fs.errors", log("EXT4-fs (nvme0n1p2): Remounting filesystem read-only")),
    Case("ext4 error", "fs.errors", log("EXT4-fs error (device nvme0n1p2): ext4_find_entry:1455: inode #2")),
    Case("XFS corruption", "fs.errors", log("XFS (dm-0): Metadata corruption detected at xfs_agf_read_verify")),
    Case("I/O error", "fs.errors", log("blk_update_request: I/O error, dev sdb, sector 4096")),
    Case("NVMe is down", "fs.errors", log("nvme nvme0: controller is down; will reset: CSTS=0xffffffff")),
    Case("NVMe was removed", "fs.errors", log("nvme nvme0: Removing after probe failure status: -19")),
    Case("NVMe is dead", "fs.errors", write("sys/class/nvme/nvme0/state", "dead")),
    Case("RAID lacks a disk", "fs.errors", write("sys/block/md0/md/degraded", "1")),
    Case("RAID lost a disk", "fs.errors", log("md/raid1:md0: Disk failure on sdb1, disabling device.")),
    Case("a DIMM is missing", "mem.total", lambda node: node.memory(31)),
    Case("uncorrectable memory error", "mem.edac", lambda node: node.edac(ce=12, ue=1)),
    Case("machine check", "mem.mce", log("mce: [Hardware Error]: Machine check: Processor context corrupt")),
    Case("fatal APEI event", "mem.mce", log("{1}[Hardware Error]: event severity: fatal")),
    Case("CPUs are missing", "cpu.count", lambda node: node.cpus(222)),
    Case(
        "slurmd may lock little",
        "limits.memlock",
        write("proc/900/limits", LOWEST + "Max locked memory         65536                65536                bytes"),
    ),
    Case(
        "huge pages are missing",
        "limits.hugepages",
        write("proc/meminfo", "MemTotal: 2147483648 kB\nHugePages_Total: 12"),
    ),
    Case("process ids run out", "proc.room", write("proc/loadavg", "1.0 1.0 1.0 1/4100000 4000")),
    Case("open files run out", "proc.room", write("proc/sys/fs/file-nr", "8900000\t0\t9000000")),
    *[
        Case(f"the clock is off by {n} s", "time.offset", lambda node, n=n: node.clock(n), hourly=True)
        for n in (-61.0, 300.0)
    ],
    Case("two cables have changed places", "ib.leaf", cables(4, 3), hourly=True),
    Case("a cable leads to a spine", "ib.leaf", cables(77, 4), hourly=True),
    Case(
        "a service failed",
        "svc.active",
        lambda node: node.systemctl({"munge": "failed", "nvidia-fabricmanager": "active"}),
    ),
]

HEALTHY = [
    Case("nothing happens", "", lambda node: None),
    *[
        Case(f"driver 580 says {no}", "", gpu(remapped_rows__failure=no, remapped_rows__pending=no, **{SRAM: no}))
        for no in ("No", "0", "[N/A]", "N/A")
    ],
    Case(
        "errors of earlier lives",
        "",
        gpu(ecc__errors__uncorrected__aggregate__total="7", ecc__errors__corrected__volatile__total="90000"),
    ),
    Case("rows remapped long ago", "", gpu(remapped_rows__correctable="300", remapped_rows__uncorrectable="3")),
    Case("12 pages retired", "", pages(double="12")),
    *[
        Case(f"software holds the clock: {m}", "", gpu(clocks_event_reasons__active=m))
        for m in ("0x1", "0x2", "0x4", "0x10", "0x20", "0x100", "0x124")
    ],
    Case("idle, PCIe slowed down", "", gpu(pcie__link__gen__current="1", pstate="P8")),
    Case("idle in P0, PCIe slowed down", "", gpu(pcie__link__gen__current="1")),
    Case("busy on a slower PCIe", "", gpu(pcie__link__gen__current="4", utilization__gpu="99")),
    Case("hot for one pass", "", gpu(temperature__gpu__tlimit="0"), gpu(temperature__gpu__tlimit="20")),
    Case(
        "throttled for one pass", "", gpu(clocks_event_reasons__active="0x48"), gpu(clocks_event_reasons__active="0x4")
    ),
    Case("persistence mode off", "", gpu(persistence_mode="Disabled")),
    Case("drain P2P", "", gpu(gpu_recovery_action="Drain P2P")),
    Case(
        "fabric is well",
        "",
        gpu(fabric__state="Completed", fabric__status="Success", fabric__health__summary="Healthy"),
    ),
    Case("memory in use by a job", "", job),
    *[Case(f"Xid {n} of a program, 50 times", "", programs(n, *range(50))) for n in sorted(xids.USER)],
    *[Case(f"Xid {n}, which is to be ignored", "", xid(n)) for n in sorted(xids.IGNORE | xids.IGNORE_590)],
    *[Case(f"Xid {n} of a link", "", xid(n)) for n in (74, 145, 149)],
    Case("Xid 94 once", "", xid(94)),
    Case("Xid 94 twice in one program", "", programs(94, 1, 1)),
    Case("an Xid that nobody knows", "", xid(999)),
    Case("Xid 154: None", "", xid(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)")),
    Case(
        "Xid 95, and the driver was loaded anew",
        "",
        lambda n: (n.xid(95), n.log("NVRM: loading NVIDIA UNIX Open Kernel Module")),
    ),
    Case(
        "somebody writes of an Xid",
        "",
        log("systemd[1]: the job said: NVRM: Xid (PCI:0000:00:07): 79, fallen off the bus"),
    ),
    Case(
        "SXid that is not fatal", "", log("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 12021, Non-fatal, Link 48 egress")
    ),
    Case(
        "two passes stuck in the driver",
        "",
        lambda n: n.process(77, "python", "D", "nv_wait"),
        lambda n: n.process(77, "python", "S"),
    ),
    Case("a process waits for NFS", "", lambda node: node.process(77, "cp", "D", "rpc_wait_bit_killable")),
    Case("link went down once", "", lambda node: add(node, "link_downed", 1)),
    Case("one symbol error", "", lambda node: add(node, "symbol_error", 1)),
    Case("symbol errors of a quarter of an hour, in a minute", "", lambda node: add(node, "symbol_error", 30)),
    Case("discards", "", lambda node: add(node, "port_xmit_discards", 10_000)),
    Case(
        "counters were cleared",
        "",
        counters(link_downed=0, symbol_error=0, rnr_nak_retry_err=0, local_link_integrity_errors=0),
    ),
    Case(
        "an adapter was exchanged",
        "",
        lambda n: (
            n.write("sys/class/infiniband/mlx5_3/node_guid", "new"),
            n.counters(3, link_downed=90, rnr_nak_retry_err=9),
        ),
    ),
    Case(
        "a counter that says N/A",
        "",
        write("sys/class/infiniband/mlx5_3/ports/1/counters/symbol_error", "N/A (no PMA)"),
    ),
    Case("a port waits for the subnet manager", "", port(state="2: INIT")),
    Case("another firmware", "", write("sys/class/infiniband/mlx5_3/fw_ver", "28.40.1000")),
    Case(
        "one more adapter, without a cable",
        "",
        lambda n: (
            n.write("sys/class/infiniband/mlx5_9/node_guid", "x"),
            n.write("sys/class/infiniband/mlx5_9/ports/1/state", "1: DOWN"),
        ),
    ),
    Case("a cable was plugged in", "", log("mlx5_core 0000:1a:00.0: Port module event: module 0, Cable plugged")),
    Case("an adapter is warm", "", log("mlx5_core 0000:1a:00.0: Port module event[error]: High Temperature")),
    Case("a corrected machine check", "", log("{2}[Hardware Error]: event severity: corrected")),
    Case("machine checks were logged", "", log("mce: [Hardware Error]: Machine check events logged")),
    Case("corrected memory errors", "", lambda node: node.edac(ce=400, ue=0)),
    Case("a little less memory", "", write("proc/meminfo", "MemTotal: 2126000000 kB\nHugePages_Total: 1024")),
    Case("an empty drive", "", log("Buffer I/O error on device sr0, logical block 0")),
    Case("an NVMe command timed out", "", log("nvme nvme0: I/O 22 QID 3 timeout, reset controller")),
    Case("an NVMe drive is being reset", "", write("sys/class/nvme/nvme0/state", "resetting")),
    Case("a file system was mounted", "", log("EXT4-fs (nvme0n1p2): mounted filesystem r/w with ordered data mode")),
    Case(
        "another mount",
        "",
        write("proc/self/mountinfo", MOUNTINFO + "50 27 0:50 / /mnt/usb ro - iso9660 /dev/sr0 ro\n"),
    ),
    Case("a few zombies", "", lambda n: [n.process(pid, "sh", "Z") for pid in range(100, 130)]),
    Case(
        "a service reloads", "", lambda node: node.systemctl({"munge": "active", "nvidia-fabricmanager": "reloading"})
    ),
    Case("the clock is off by 2 s", "", lambda node: node.clock(-2.0), hourly=True),
    Case("chrony has no source yet", "", lambda node: node.clock(0.0, "Not synchronised"), hourly=True),
    Case(
        "chronyd does not run", "", lambda n: n.tool("echo '506 Cannot talk to daemon'; exit 1", "chronyc"), hourly=True
    ),
    Case("a neighbour does not answer", "", lambda n: n.switches({}), hourly=True),
    Case("another governor", "", write("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave")),
    Case("another clock", "", write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")),
    Case("the state is damaged", "", write("var/lib/trainmaster/health/state.json", "{]")),
    Case("the state is gone", "", lambda node: node.remove("var/lib/trainmaster/health")),
    Case("the node has booted", "", write("proc/sys/kernel/random/boot_id", "boot-2")),
    Case("the profile cannot be read", "", write("etc/trainmaster/health.json", "{]")),
    Case("the profile has a word too many", "", lambda n: (n.profile.update(gpuz=9), n.save_profile())),
    Case("the kernel's log was overrun", "", lambda n: (setattr(n, "_records", 10_000), n.log("usb 1-1: new device"))),
    Case(
        "the check is switched off",
        "",
        lambda n: (n.gpu(remapped_rows__failure="Yes"), n.write("etc/trainmaster/health.d/off/gpu.remap", "")),
        ours=True,
    ),
]


SLOW_TOOLS = ("gpu.inforom", "gpu.nvlink")
"""The replay of nvidia-smi in these cases knows one table."""


def drains(case: Case, root: Path, peers: Sequence[Peer] = ()) -> tuple[set[str], dict[str, str]]:
    """The checks that would drain the node, over all passes after the case has happened; the same of each peer."""
    node = SickNode(root)
    for peer in peers:
        peer.begin(node)
    before = node.look()
    assert not [f for f in before.decision.findings if f.bad], [f for f in before.decision.findings if f.bad]
    case.change(node)
    found: set[str] = set()
    theirs: dict[str, str] = {}
    for number in range(PASSES):
        if number and case.between is not None:
            case.between(node)
        if (number == 0 or case.between is not None) and not case.ours:
            for peer in peers:
                theirs[peer.name] = theirs.get(peer.name) or peer.drains(node)
        result = node.look(skip=SLOW_TOOLS, chosen="full") if case.hourly else node.look()
        found |= {finding.check for finding in result.decision.findings if finding.action in DRAINS}
        if case.check in found:
            break
    return found, theirs


def covered(peer: Peer, case: Case) -> bool:
    """Whether the peer has a check for this fault."""
    pattern = peer.covers.get(case.check)
    return pattern is not None and re.search(pattern, case.name) is not None


def figures_of(peer: Peer, chosen: Sequence[Case], told: Mapping[str, str]) -> dict[str, float | int | None]:
    """A peer's score, from what it said in each case."""
    counts: Counter[str] = Counter()
    for case in chosen:
        if not case.check:
            counts["false"] += bool(told[case.name])
            continue
        counts["faults"] += 1
        counts["found"] += bool(told[case.name])
        if covered(peer, case):
            counts["covered"] += 1
            counts["found_of_covered"] += bool(told[case.name])
    return {
        f"{peer.name}_covered": counts["covered"],
        f"{peer.name}_detected": counts["found"],
        f"{peer.name}_detection_rate": round(counts["found"] / counts["faults"], 4) if counts["faults"] else None,
        f"{peer.name}_detection_rate_of_covered": (
            round(counts["found_of_covered"] / counts["covered"], 4) if counts["covered"] else None
        ),
        f"{peer.name}_false_drains": counts["false"],
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every third case")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--nhc", type=Path, metavar="FOLDER", help="NHC's source tree, to see the same nodes")
    parser.add_argument("--gcm", action="store_true", help="gcm, to see the same nodes")
    args = parser.parse_args(argv)
    chosen = [case for case in [*FAULTS, *HEALTHY] if args.only in case.name][:: 3 if args.quick else 1]
    peers: list[Peer] = []
    if args.nhc is not None and (tree := nhc.tree(args.nhc)) is not None:
        peers.append(nhc.Watch(tree))
    if args.gcm and (program := gcm.program()) is not None:
        peers.append(gcm.Watch(program))
    missed, false = [], []
    told: dict[str, dict[str, str]] = {peer.name: {} for peer in peers}
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            found, theirs = drains(case, Path(folder), peers)
        if case.check and case.check not in found:
            missed.append(case.name)
            print(f"MISSED: {case.name}: {sorted(found)}", file=sys.stderr)
        if not case.check and found:
            false.append(case.name)
            print(f"FALSE: {case.name}: {sorted(found)}", file=sys.stderr)
        for peer in peers:
            told[peer.name][case.name] = said = theirs.get(peer.name, "")
            if said and not case.check:
                print(f"{peer.name}: FALSE: {case.name}: {said}", file=sys.stderr)
            elif bool(said) is not covered(peer, case):
                print(f"{peer.name}: {'not expected' if said else 'MISSED'}: {case.name}: {said}", file=sys.stderr)
    for peer in peers:
        peer.close()
    faults = sum(bool(case.check) for case in chosen)
    figures: dict[str, float | int | None] = {
        "ours_faults": faults,
        "ours_look_alikes": len(chosen) - faults,
        "ours_detection_rate": round(1 - len(missed) / faults, 4) if faults else None,
        "ours_false_drains": len(false),
    }
    for peer in peers:
        figures |= figures_of(peer, chosen, told[peer.name])
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
