"""A node made of files, as /proc, /sys, /dev/kmsg and nvidia-smi show one with eight H100 and adapters, to be broken.

Every health check reads it through its own source, in the processes that it would use on a real node.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from trainmaster.health import genconf, node
from trainmaster.health.check_pass import Pass
from trainmaster.health.node import Options
from trainmaster.health.sources import gpu_query, infiniband
from trainmaster.lab import fakeroot, nvidia_smi

GPUS = 8
NDR = "400 Gb/sec (4X NDR)"
MOUNTINFO = """22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/nvme0n1p2 rw
40 27 0:40 / /scratch rw,flock - lustre 10.0.0.1@o2ib:/fs rw
41 27 0:41 / /home rw - nfs4 nas:/home rw,vers=4.2
"""
DIMMS = 32
LIMITS = "Limit                     Soft Limit           Hard Limit           Units\n"


class SickNode:
    """One node. Change it with the methods, then `look`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._records = 0
        fakeroot.create(root, node_name="n01", gpus=GPUS)
        self.write("proc/sys/kernel/random/boot_id", "boot-1")
        self.memory()
        for number in range(2):
            self.write(f"sys/devices/system/node/node{number}/meminfo", f"Node {number} MemTotal: 1073741824 kB\n")
        self.edac(ce=12, ue=0)
        self.cpus()
        self.write("sys/devices/system/cpu/present", "0-223")
        self.write("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "performance")
        self.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
        self.write("proc/self/mountinfo", MOUNTINFO)
        for path in ("scratch", "home"):
            (root / path).mkdir(exist_ok=True)
        self.process(1, "init", "S")
        self.process(900, "slurmd", "S")
        self.write(
            "proc/900/limits", LIMITS + "Max locked memory         unlimited            unlimited            bytes\n"
        )
        self.write("proc/loadavg", "1.0 1.0 1.0 1/2000 4000")
        self.write("proc/sys/fs/file-nr", "20000\t0\t9000000")
        self.write("proc/sys/kernel/pid_max", "4194304")
        self.write("proc/sys/kernel/threads-max", "16000000")
        for number in range(8):
            # Where the kernel shows an adapter a second time: below its PCI device.
            device = f"sys/bus/pci/devices/0000:4{number}:00.0"
            self.write(f"{device}/net/ib{number}/operstate", "up")
            (root / device / "infiniband").mkdir(exist_ok=True)
            (root / device / f"infiniband/mlx5_{number}").symlink_to(root / f"sys/class/infiniband/mlx5_{number}")
            self.write(f"sys/class/infiniband/mlx5_{number}/fw_ver", "28.39.1002")
            self.write(f"sys/class/infiniband/mlx5_{number}/node_guid", f"0c42:a103:0000:000{number}")
            port = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": NDR, "link_layer": "InfiniBand"}
            self.port(number, **port)
            self.counters(number, **dict.fromkeys(infiniband.COUNTERS + infiniband.HW_COUNTERS, 7))
        self.write("sys/class/infiniband_mad/abi_version", "5")
        self.log(
            "nvidia: loading out-of-tree module taints kernel.", "NVRM: loading NVIDIA UNIX Open Kernel Module 580"
        )
        self.systemctl({"munge": "active", "nvidia-fabricmanager": "active"})
        self.clock(0.0002)
        self.switches({number: f"0x00000000002000{number:02d}" for number in range(8)})
        made = genconf.from_node(str(root))
        made |= {"units": ["munge", "nvidia-fabricmanager"], "hugepages": {"total": 1024}}
        made["mounts"]["/scratch"]["options"] = ["rw", "flock"]
        self.profile = made
        self.save_profile()
        self.answer()

    # -- files -----------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + ("" if text.endswith("\n") else "\n"))

    def remove(self, name: str) -> None:
        path = self.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def save_profile(self) -> None:
        self.write("etc/trainmaster/health.json", json.dumps(self.profile))

    def log(self, *texts: str) -> None:
        path = self.root / "dev/kmsg"
        old = path.read_text() if path.exists() else ""
        for text in texts:
            old += f"4,{self._records},{self._records * 1000},-;{text}\n"
            self._records += 1
        path.write_text(old)

    def xid(self, number: int, text: str = "", *, pid: int = 4711, gpu: str = "0000:00:07") -> None:
        self.log(f"NVRM: Xid (PCI:{gpu}): {number}, {text or f'pid={pid}, name=python, channel 0x0000000a'}")

    def process(self, pid: int, name: str, state: str, wchan: str = "0") -> None:
        self.write(f"proc/{pid}/stat", f"{pid} ({name}) {state} 1 " + "0 " * 17 + f"{pid * 10} 0 0")
        self.write(f"proc/{pid}/wchan", wchan)

    def memory(self, dimms: int = DIMMS) -> None:
        """So many DIMMs of 64 GiB, for the kernel and for the BIOS."""
        self.write("proc/meminfo", f"MemTotal:       {dimms << 26} kB\nHugePages_Total:    1024\n")
        self.tool(f"for dimm in $(seq {dimms}); do printf 'Memory Device\\n\\tSize: 64 GB\\n'; done", "dmidecode")

    def cpus(self, online: int = 224) -> None:
        """The first of two sockets' 224 threads are in use."""
        self.write("sys/devices/system/cpu/online", f"0-{online - 1}")
        blocks = (
            f"processor\t: {number}\nphysical id\t: {number // 56 % 2}\nsiblings\t: {online // 2}\ncpu cores\t: 56\n"
            for number in range(online)
        )
        self.write("proc/cpuinfo", "\n".join(blocks))

    def edac(self, *, ce: int, ue: int) -> None:
        self.write("sys/devices/system/edac/mc/mc0/ce_count", str(ce))
        self.write("sys/devices/system/edac/mc/mc0/ue_count", str(ue))

    def port(self, number: int, **facts: str) -> None:
        for name, text in facts.items():
            self.write(f"sys/class/infiniband/mlx5_{number}/ports/1/{name}", text)

    def counters(self, number: int, **values: int) -> None:
        for name, value in values.items():
            folder = "hw_counters" if name in infiniband.HW_COUNTERS else "counters"
            self.write(f"sys/class/infiniband/mlx5_{number}/ports/1/{folder}/{name}", str(value))

    # -- tools -----------------------------------------------------------------------------------------------------

    def gpu(self, index: int = 1, **values: str) -> None:
        """Change what nvidia-smi says of a GPU; two underscores stand for a dot."""
        state = fakeroot.read_state(self.root)
        state["gpus"][index]["values"] |= {name.replace("__", "."): value for name, value in values.items()}
        fakeroot.write_state(self.root, state)
        self.answer()

    def hide_gpu(self, index: int = 1) -> None:
        state = fakeroot.read_state(self.root)
        state["gpus"][index]["missing"] = True
        fakeroot.write_state(self.root, state)
        self.answer()

    def answer(self) -> None:
        """What the lab's replay of nvidia-smi would print, in files: it takes a tenth of a second each time."""
        help_text = nvidia_smi.run(self.root, ["--help-query-gpu"])[0]
        query = f"--query-gpu={','.join(gpu_query.offered(help_text))}"
        self.write("bin/help.txt", help_text)
        self.write("bin/rows.txt", nvidia_smi.run(self.root, [query, "--format=csv,noheader,nounits"])[0])
        here = self.root / "bin"
        self.tool(f'case "$1" in --help*) exec cat {here}/help.txt;; *) exec cat {here}/rows.txt;; esac')

    def tool(self, script: str, name: str = "nvidia-smi") -> None:
        """Replace a tool by lines of shell."""
        path = self.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def systemctl(self, units: dict[str, str]) -> None:
        blocks = [f"Id={name}.service\nActiveState={state}\nSubState=x\n" for name, state in units.items()]
        self.write("bin/units.txt", "\n".join(blocks))
        runs = "|".join(name for name, state in units.items() if state in ("active", "reloading"))
        here = f"{self.root}/bin/units.txt"
        is_active = f"is-active) for unit; do :; done; case $unit in {runs or '-'}) exit 0;; *) exit 3;; esac"
        self.tool(f"case $1 in {is_active};; *) exec cat {here};; esac", "systemctl")

    def clock(self, offset_s: float, leap: str = "Normal") -> None:
        """What chrony says of the clock."""
        line = f"A29FC87B,192.0.2.1,3,1795455000.0,{offset_s},0.0,0.0,1.5,0.0,0.1,0.003,0.0005,64.2,{leap}"
        self.tool(f"echo '{line}'", "chronyc")

    def switches(self, guids: dict[int, str]) -> None:
        """To which switch each adapter is cabled; one that is not named does not answer."""
        lines = (
            f"mlx5_{number}) echo 'NodeType:....Switch'; echo 'Guid:....{guid}';;" for number, guid in guids.items()
        )
        self.tool("case $2 in\n" + "\n".join(lines) + "\n*) exit 1;; esac", "smpquery")

    # -- looking ---------------------------------------------------------------------------------------------------

    def look(self, skip: Sequence[str] = (), chosen: str = "fast") -> Pass:
        """One pass as a hook would run it."""
        return node.run(Options(root=str(self.root), skip=tuple(skip), set=chosen))
