"""What a node's health checks see: hardware that fails, in the node's fake root. Slurm itself is not touched.

Where the installed hooks run (`trainmaster install hooks`), the node drains itself for it. `health-mend` repairs all of
it at once and gives the node a new boot id, as an exchange of hardware and a reboot would.
"""

import ctypes
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trainmaster.errors import LabError
from trainmaster.lab import fakehost, fakeroot
from trainmaster.lab.faults.fault import Fault, Injected, Options, Target, nodes_of
from trainmaster.lab.running import Lab

Break = Callable[[Path], str]
_PCI = "sys/bus/pci/devices"


def _inject(name: str, harm: Break, lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    if options.dry_run:
        return Injected(fault=name, target=target, summary=f"would break the health of {', '.join(names)}")
    said = [harm(lab.root(node)) for node in names]
    return Injected(fault=name, target=target, summary=f"{', '.join(names)}: {said[0]}")


def _gpus(root: Path) -> int:
    """How many GPUs the node was built with; LabError when it has none."""
    if not (root / "nvidia-smi.json").exists():
        raise LabError("the node has no GPU that could fail", hint="aim at a node of a partition with GPUs")
    return len(fakeroot.read_state(root)["gpus"])


def _address(root: Path, index: int) -> str:
    values = fakeroot.read_state(root)["gpus"][index]["values"]
    return str(values["pci.bus_id"])[4:].lower()


def _last_gpu(root: Path, **values: str) -> str:
    index = _gpus(root) - 1
    state = fakeroot.read_state(root)
    state["gpus"][index]["values"] |= {name.replace("__", "."): value for name, value in values.items()}
    fakeroot.write_state(root, state)
    return _address(root, index)


def _xid(root: Path) -> str:
    address = _address(root, _gpus(root) - 1)
    fakehost.log(root, f"NVRM: Xid (PCI:{address[:-2]}): 95, pid=4420, name=python3, Uncontained ECC error.")
    return f"the kernel logs Xid 95 of {address}"


def _lost(root: Path) -> str:
    index = _gpus(root) - 1
    address = _address(root, index)
    state = fakeroot.read_state(root)
    state["gpus"][index]["missing"] = True
    fakeroot.write_state(root, state)
    (root / _PCI / address / "config").write_bytes(b"\xff" * 64)
    return f"{address} fell off the bus"


def _ecc(root: Path) -> str:
    return f"uncorrectable ECC errors on {_last_gpu(root, ecc__errors__uncorrected__volatile__total='3')}"


def _remap(root: Path) -> str:
    return f"a row of {_last_gpu(root, remapped_rows__failure='Yes')} could not be remapped"


def _smi_hang(root: Path) -> str:
    _gpus(root)
    tool = root / "bin/nvidia-smi"
    fresh = tool.with_name("nvidia-smi.new")
    fresh.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    fresh.chmod(0o755)
    fresh.replace(tool)
    return "nvidia-smi hangs"


def _adapter(root: Path) -> str:
    return fakehost.adapters(root)[-1]


def _ib_down(root: Path) -> str:
    fakehost.port(root, _adapter(root), state="1: DOWN", phys_state="3: Disabled")
    return f"{_adapter(root)} is down"


def _ib_flap(root: Path) -> str:
    fakehost.count(root, _adapter(root), "link_downed", 4)
    return f"the link of {_adapter(root)} went down and came back four times"


def _ib_errors(root: Path) -> str:
    fakehost.count(root, _adapter(root), "local_link_integrity_errors", 5)
    return f"local_link_integrity_errors of {_adapter(root)} rose by 5"


def _mount_stale(root: Path) -> str:
    # A stale handle cannot be had without its server; a link to itself makes every stat fail, too.
    scratch = root / "scratch"
    if not scratch.is_symlink():
        scratch.rmdir()
        scratch.symlink_to("scratch")
    return "/scratch answers with an error"


def _disk_full(root: Path) -> str:
    target = str(root / "tmp")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", target.encode(), b"tmpfs", 0, b"size=64k") != 0:
        raise LabError(f"could not mount a small tmpfs at {target}: {os.strerror(ctypes.get_errno())}")
    try:
        (root / "tmp/full").write_bytes(bytes(1 << 20))
    except OSError:
        return "/tmp is full"
    raise LabError(f"{target} did not fill up")


def _clock_skew(root: Path) -> str:
    # TIME_ERROR and STA_UNSYNC, 16 s: where the kernel stops counting (NTP_PHASE_LIMIT).
    (root / fakehost.CLOCK).write_text("5 64 16000000 16000000\n", encoding="utf-8")
    return "nobody keeps the clock right"


def _mend(lab: Lab, target: str, options: Options) -> Injected:
    names = nodes_of(lab, target)
    if options.dry_run:
        return Injected(fault="health-mend", target=target, summary=f"would repair {', '.join(names)}")
    for node in names:
        root = lab.root(node)
        gpus = _gpus(root) if (root / "nvidia-smi.json").exists() else 0
        fakeroot.create(root, node_name=node, gpus=gpus)
    return Injected(fault="health-mend", target=target, summary=f"repaired and rebooted {', '.join(names)}")


def _fault(name: str, about: str, harm: Break, *, needs_root: bool = False) -> Fault:
    assert re.fullmatch(r"[a-z-]+", name)
    return Fault(name=name, help=about, target=Target.NODES, inject=partial(_inject, name, harm), needs_root=needs_root)


FAULTS: tuple[Fault, ...] = (
    _fault("gpu-xid", "a GPU reports Xid 95, which asks for a reset", _xid),
    _fault("gpu-lost", "a GPU falls off the PCI bus", _lost),
    _fault("gpu-ecc", "uncorrectable ECC errors on a GPU", _ecc),
    _fault("row-remap", "a GPU fails to remap a row of its memory", _remap),
    _fault("nvidia-smi-hang", "nvidia-smi does not come back", _smi_hang),
    _fault("ib-down", "a port of an adapter is down", _ib_down),
    _fault("ib-flap", "a link goes down four times", _ib_flap),
    _fault("ib-errors", "a link counts integrity errors", _ib_errors),
    _fault("mount-stale", "/scratch answers with an error", _mount_stale),
    _fault("disk-full", "/tmp is full", _disk_full, needs_root=True),
    _fault("clock-skew", "the clock is no longer kept in step", _clock_skew),
    Fault(
        name="health-mend",
        help="all of a node's hardware is repaired, and the node has booted anew",
        target=Target.NODES,
        inject=_mend,
    ),
)
