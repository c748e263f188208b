"""For every check of the catalogue: what it must pass, what it must find, and the cases that make no sense for it.

Most are shown on a node of files (benchmarks/measure/sick_node.py), broken as benchmarks/detection.py does or as in
CHANGES. Those that such a node cannot show, as they ask the kernel itself or load hardware, are shown on VALUES.
A new check that drains needs nothing here, one that only warns a line in CHANGES or VALUES.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from measure.sick_node import SickNode


@dataclass(frozen=True, slots=True)
class Shown:
    """What a check's sources gave on a node that is well, and on one that is not."""

    good: tuple[Any, ...]
    bad: tuple[Any, ...]
    profile: dict[str, Any] = field(default_factory=dict)
    memory: Any = None


def _figures(value: dict[str, Any], name: str, expected: float, **worse: Any) -> Shown:
    return Shown((value,), ({**value, **worse},), {"deep": {"expected": {name: expected}}})


_GPU = {"index": 0, "name": "NVIDIA H100 80GB HBM3", "bus_id": "0000:00:06.0", "memory_tested_mib": 80040,
        "memory_wrong_words": 0, "memory_wrong_bits": "0x0", "memory_copy_gbps": 2798, "memory_write_gbps": 3181,
        "memory_read_gbps": 3063, "pcie_to_gpu_gbps": 55.1, "pcie_to_host_gbps": 50.6, "tensor_tflops": 648.6,
        "tensor_wrong_warps": 0, "tensor_wrong_multiprocessors": []}  # fmt: skip
_TABLE = {"jobs": [], "people": [], "left": []}
_DISK = {"/": {"used": 40.0, "inodes": 3.0}}
_LINKS = {"GPU-a": {"up": list(range(18)), "down": [], "errors": {"3 CRC": 0}}}
_DCGM = {"category": "hardware", "test": "Memory", "subject": "GPU 0", "warning": "", "severity": None}
_FOLDER = {"folder": "/scratch", "write_mbps": 900, "read_mbps": 1200, "wrong_pieces": 0}
_MEMORY = {"memory_tested_mib": 64, "memory_wrong_blocks": 0, "memory_wrong": []}


def _gpus(**change: Any) -> tuple[dict[str, Any]]:
    return ({"gpus": [{**_GPU, **change}]},)


VALUES: dict[str, Shown] = {
    "time.sync": Shown(
        ({"state": 0, "status": 0x2001, "maxerror_us": 500, "esterror_us": 0},),
        ({"state": 5, "status": 0x40, "maxerror_us": 16000000, "esterror_us": 0},),
    ),
    "fs.usage": Shown((_DISK,), ({"/": {"used": 99.0, "inodes": 3.0}},)),
    "host.stray": Shown(
        (_TABLE, {"shm": {}, "cgroups": {}}),
        ({**_TABLE, "left": [[7, 4000, "python", "D", True]]}, {"shm": {}, "cgroups": {}}),
        memory={"pid 7": 1.0},
    ),
    "gpu.inforom": Shown(
        ({"gpus": [{"index": "0", "pci.bus_id": "00000000:0F:00.0", "inforom.checksum_validation": "valid"}]},),
        ({"gpus": [{"index": "0", "pci.bus_id": "00000000:0F:00.0", "inforom.checksum_validation": "corrupted"}]},),
    ),
    "gpu.nvlink": Shown(
        (_LINKS,), ({"GPU-a": {"up": [0], "down": [1], "errors": {}}},), {"gpu": {"nvlinks": 18}}
    ),
    "deep.gpu.computes": Shown(_gpus(), _gpus(tensor_wrong_warps=3, tensor_wrong_multiprocessors=[17])),
    "deep.gpu.memory": Shown(_gpus(), _gpus(memory_wrong_words=1)),
    "deep.gpu.speed": Shown(_gpus(), _gpus(tensor_tflops=500.0)),
    "deep.gpu.pcie": Shown(
        _gpus(), _gpus(pcie_to_gpu_gbps=11.0), {"deep": {"expected": {"pcie_to_gpu_gbps": 55}}}
    ),
    "deep.gpu.peers": _figures({"peers": {"0-1": 350.0}, "refused": []}, "peer_gbps", 350, peers={"0-1": 20.0}),
    "deep.gpu.collective": Shown(
        ({"ranks": 8, "bus_gbps": 470.0, "wrong": 0},), ({"ranks": 8, "bus_gbps": 470.0, "wrong": 3},)
    ),
    "deep.gpu.dcgm": Shown(
        ({"level": 1, "results": [{**_DCGM, "status": "pass"}]},),
        ({"level": 1, "results": [{**_DCGM, "status": "fail"}]},),
    ),
    "deep.cpu.speed": _figures({"cpu_hash_mbps": 900.0}, "cpu_hash_mbps", 900, cpu_hash_mbps=300.0),
    "deep.memory.speed": _figures({"memory_copy_gbps": 300.0}, "memory_copy_gbps", 300, memory_copy_gbps=90.0),
    "deep.memory.patterns": Shown(
        (_MEMORY,), ({**_MEMORY, "memory_wrong_blocks": 1, "memory_wrong": ["1 byte, bits 0x10"]},)
    ),
    "deep.storage.data": Shown(
        ({"folders": [_FOLDER]},), ({"folders": [{"folder": "/scratch", "error": "so", "errno": 5}]},)
    ),
    "deep.storage.speed": Shown(
        ({"folders": [_FOLDER]},),
        ({"folders": [{**_FOLDER, "write_mbps": 5}]},),
        {"deep": {"expected": {"storage_write_mbps": 900}}},
    ),
}  # fmt: skip


def _gap(node: SickNode) -> None:
    node.log("a record")
    path = node.root / "dev/kmsg"
    path.write_text(path.read_text() + "4,999,999000,-;a thousand records later\n")


def _zombies(node: SickNode) -> None:
    for pid in range(2000, 2300):
        node.process(pid, "sh", "Z")


CHANGES: dict[str, Callable[[SickNode], object]] = {
    "gpu.pcie.gen": lambda node: node.gpu(pcie__link__gen__current="3", pstate="P0", utilization__gpu="97"),
    "gpu.persistence": lambda node: node.gpu(persistence_mode="Disabled"),
    "ib.fw": lambda node: node.write("sys/class/infiniband/mlx5_3/fw_ver", "28.39.1000"),
    "cpu.gov": lambda node: node.write("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave"),
    "cpu.clocksource": lambda node: node.write(
        "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"
    ),
    "proc.zombies": _zombies,
    "host.drift": lambda node: node.write("sys/class/infiniband/mlx5_3/fw_ver", "28.39.1000"),
    "node.kmsg": _gap,
}
"""Of checks that only warn, what has to happen to a healthy node."""

EVERYWHERE = {
    "gpu.dstate": "any node has processes, and none of them may hang in a driver",
    "proc.room": "any node has processes",
    "proc.zombies": "any node has processes",
    "host.stray": "any node has processes and memory",
    "deep.cpu.speed": "any node has processors",
    "deep.memory.speed": "any node has memory",
    "deep.memory.patterns": "any node has memory",
}
"""Checks that apply to every node, so that there is no "not applicable"."""

NO_TOOL = {
    **dict.fromkeys(
        ("gpu.pci", "gpu.module", "fs.drives", "ib.sysfs", "ib.slots", "ib.bus", "mem.info", "cpu.info", "host.left"),
        "it reads files of /sys, /proc or the disk: what is not there is not installed hardware",
    ),
    **dict.fromkeys(("proc.table", "fs.table", "node.kmsg", "host.image"), "it reads files that the kernel always has"),
    **dict.fromkeys(("fs.space", "time.kernel"), "it asks the kernel by a system call"),
    **dict.fromkeys(
        ("deep.cpu", "deep.memory", "deep.patterns", "deep.storage"),
        "its tool is the interpreter that runs the checks, and a program of ours",
    ),
}
"""By source, why no tool of it can be missing."""

OPTIONAL = {
    "time.tracking": "another daemon may keep the clock; whether anybody does, time.sync knows",
    "deep.dcgm": "DCGM is an addition to our own tests, and most nodes do not have it",
}
"""By source, why a missing tool means that the check does not apply."""
