"""gcm (gpucm on PyPI) as a peer, in a virtual environment of its own below build/peers."""

import json
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from measure.sick_node import NDR, SickNode
from trainmaster.health.sources import gpu_query

VERSION = "0.0.2"
HOME = Path(__file__).resolve().parents[2] / "build/peers/gcm"
DISK_USAGE = (
    *("check-storage", "disk-usage", "--volume", "/", "--usage-critical-threshold", "100"),
    *("--usage-warning-threshold", "100", "--sink", "do_nothing", "--log-folder", "/tmp/gcm-log", "here", "nagios"),
)


def program() -> Path | None:
    """`health_checks`, installed if it is not there yet; None, and why on stderr, where it cannot be had."""
    found = HOME / "bin/health_checks"
    if not found.exists():
        print(f"installing gpucm {VERSION} into {HOME}", file=sys.stderr)
        venv.create(HOME, with_pip=True, clear=True)
        words = [str(HOME / "bin/python"), "-m", "pip", "install", "--quiet", f"gpucm=={VERSION}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not found.exists():
            print(f"gcm is missing: {' '.join(done.stderr.split())[-300:]}", file=sys.stderr)
            return None
    return found


class Watch:
    """gcm on a sick node: is one of its checks critical? It drains nobody itself; a site drains for that.

    Its checks run as its command runs them, in its own Python (measure/gcm_worker.py), over the node's files, the tools
    that the node has on its PATH (dmesg, mount, systemctl, dmidecode), and an NVML that says what its nvidia-smi says.
    Not run: what has to look at live processes (dstate, zombies), DCGM, IPMI, smartctl, NCCL, and anything that
    only warns. Its search for I/O errors knows NVMe drives, and the suite's drive is none.
    """

    name = "gcm"
    covers: Mapping[str, str] = {
        **dict.fromkeys(["gpu.ecc.uncorr", "gpu.remap.failure", "gpu.remap.pending", "gpu.pages", "gpu.temp"], ""),
        **dict.fromkeys(["gpu.vbios", "gpu.xid", "gpu.hung", "gpu.leftover", "gpu.pcie.width", "mem.total"], ""),
        **dict.fromkeys(["ib.present", "ib.state", "ib.rate", "fs.alive", "svc.active"], ""),
        "gpu.present": "gone from the bus",
        # It asks NVML, and never the tool.
        "gpu.query": "^(?!nvidia-smi is gone|a table of another width)",
        "fs.mount": "gone",
    }
    """By the check of ours that finds a fault, in which cases gcm has one for it too (a regular expression)."""

    def __init__(self, program: Path) -> None:
        worker = Path(__file__).with_name("gcm_worker.py")
        self._worker = subprocess.Popen(
            [str(program.parent / "python"), "-I", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def begin(self, node: SickNode) -> None:
        """Give a healthy node what gcm wants to find: a manifest of its PCI devices, and the tools that it starts."""
        devices = {}
        for number in range(8):
            address, adapter = f"0000:00:{6 + number:02x}.0", f"0000:4{number}:00.0"
            folder = node.root / "sys/bus/pci/devices" / address
            link = {"link_width": int((folder / "current_link_width").read_text())}
            link["link_speed"] = [(folder / "current_link_speed").read_text().strip()]
            devices[address] = {
                "type": "gpu",
                "dev": f"/dev/nvidia{number}",
                "zone": "0",
                "slot": f"GPU{number}",
                **link,
            }
            (node.root / "sys/bus/pci/devices" / adapter / "current_link_width").write_text("16\n")
            (node.root / "sys/bus/pci/devices" / adapter / "current_link_speed").write_text("32.0 GT/s PCIe\n")
            link = {"link_width": 16, "link_speed": ["32.0 GT/s PCIe"]}
            place = {"dev": f"/sys/class/net/ib{number}", "zone": "0", "slot": f"IB{number}"}
            devices[adapter] = {"type": "ib", **place, **link}
        interfaces = {f"ib{number}": {"mlx": f"mlx5_{number}", "desc": f"n01 mlx5_{number}"} for number in range(8)}
        ib = {"link_rate": NDR, "firmware_version": ["28.39.1002"], "interfaces": interfaces}
        node.write("etc/manifest.json", json.dumps({"pci": devices, "ib": ib}))
        node.tool('exec "$@"', "sudo")
        node.tool(f"exec sed -n 's/^[^;]*;/[    1.000000] /p' {node.root}/dev/kmsg", "dmesg")
        fields = (
            """{ for (i = 1; i <= NF; i++) if ($i == "-") n = i; print $(n + 2), "on", $5, "type", $(n + 1), $6 }"""
        )
        node.tool(f"exec awk '{fields}' {node.root}/proc/self/mountinfo", "mount")

    def drains(self, node: SickNode) -> str:
        """Which of its checks are critical now; nothing when none is."""
        fields = gpu_query.offered((node.root / "bin/help.txt").read_text())
        assert self._worker.stdin is not None and self._worker.stdout is not None
        self._worker.stdin.write(json.dumps({"root": str(node.root), "fields": list(fields)}) + "\n")
        self._worker.stdin.flush()
        answer = self._worker.stdout.readline()
        if not answer:
            raise SystemExit("gcm's worker ended: run benchmarks/measure/gcm_worker.py by hand to see why")
        return "; ".join(json.loads(answer))

    def close(self) -> None:
        """Its process ends with its input."""
        assert self._worker.stdin is not None
        self._worker.stdin.close()
        self._worker.wait()
