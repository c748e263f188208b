"""LBNL's Node Health Check as a peer: where it is, 18 of its checks that every machine passes, and its own watch of a
node with eight GPUs.

It is in no package registry that we know. Its releases are tags of github.com/mej/nhc; a source tree of one is enough.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from measure.sick_node import DIMMS, SickNode

CHECKS = (
    "check_hw_cpuinfo",
    "check_hw_physmem 64MB 100TB",
    "check_hw_mem 64MB 100TB",
    "check_hw_physmem_free 1MB",
    "check_hw_mem_free 1MB",
    "check_hw_swap 0 100TB",
    "check_fs_mount_rw -f /",
    "check_fs_used / 100%",
    "check_fs_iused / 100%",
    "check_fs_free / 1kB",
    "check_fs_ifree / 1",
    "check_file_test -r -w /dev/null /dev/zero",
    "check_file_test -d -x /tmp",
    "check_file_stat -m 0666 /dev/null",
    "check_file_contents /proc/sys/kernel/ostype '/^Linux$/'",
    "check_ps_loadavg 1000000",
    "check_ps_cpu -l 9999999%",
    "check_ps_blacklist no-such-program",
)
_TIMEOUT_S = 10


def tree(named: Path | None) -> Path | None:
    """The folder with its scripts: the one that was named, or of the `nhc` on the PATH; None where there is none."""
    if named is not None:
        if not (named / "scripts/lbnl_hw.nhc").is_file():
            raise SystemExit(f"{named} is no source tree of NHC: it has no scripts/lbnl_hw.nhc")
        return named
    found = shutil.which("nhc")
    return Path(found).parent if found is not None else None


def command(where: Path, folder: Path, checks: tuple[str, ...] = CHECKS) -> list[str]:
    """The command line that runs these checks and marks no node; its configuration is written into the folder."""
    scripts = [f"INCDIR={where}/scripts", f"HELPERDIR={where}/helpers"] if (where / "scripts").is_dir() else []
    return _command(where, _configuration(folder, checks), ["MARK_OFFLINE=0", "TIMEOUT=30", *scripts])


def _configuration(folder: Path, checks: tuple[str, ...]) -> Path:
    path = folder / "nhc.conf"
    path.write_text("".join(f"* || {check}\n" for check in checks))
    return path


def _command(where: Path, config: Path, settings: list[str]) -> list[str]:
    bash = shutil.which("bash") or "/bin/bash"
    always = ["NHC_RM=slurm", "DETACHED_MODE=0"]
    return [bash, str(where / "nhc"), "-a", "-c", str(config), "-l", "/dev/null", *always, *settings]


class Watch:
    """NHC on a sick node: does it take it offline?

    It is configured with what `nhc-genconf` writes on the healthy node, and with what its sample nhc.conf and the
    examples of its README have for such a node besides: an assertion of the mount options, the mount points as folders,
    the services through their status command, `check_nvsmi_healthmon`. Patterns that a site would have to invent
    itself (`check_cmd_dmesg`, `check_cmd_output` on any tool) are the site's own checks, and are not counted as NHC's;
    `check_hw_mcelog` needs mcelog's daemon, which current distributions have no more.
    Its scripts are read with the node's root before /proc and /sys, and are else as they were released.
    """

    name = "nhc"
    covers: Mapping[str, str] = dict.fromkeys(
        [
            *("cpu.count", "mem.total", "ib.present", "ib.state", "ib.rate", "fs.mount", "fs.alive", "svc.active"),
            *("gpu.query", "gpu.hung"),
        ],
        "",
    )
    """By the check of ours that finds a fault, in which cases NHC has one for it too (a regular expression)."""

    def __init__(self, where: Path) -> None:
        assert (where / "scripts").is_dir(), f"{where} is no source tree of NHC"
        self._where = where

    def begin(self, node: SickNode) -> None:
        """Install and configure it on a healthy node."""
        here = node.root / "nhc"
        (here / "scripts").mkdir(parents=True)
        for path in (self._where / "scripts").glob("*.nhc"):
            text = re.sub(r"(?<![\w.])/(?=proc/|sys/)", f"{node.root}/", path.read_text())
            # It counts the slashes before an adapter's name.
            text = text.replace("arr=( $PORT )", f"arr=( ${{PORT#{node.root}}} )")
            (here / "scripts" / path.name).write_text(text)
        mark = here / "node-mark-offline"
        mark.write_text(f'#!/bin/sh\necho "$2" >{here}/offline\n')
        mark.chmod(0o755)
        _configuration(here, _checks(node.root))

    def drains(self, node: SickNode) -> str:
        """Why it would take the node offline now; nothing when it would not."""
        here = node.root / "nhc"
        (here / "offline").unlink(missing_ok=True)
        node.write("proc/mounts", _mounts((node.root / "proc/self/mountinfo").read_text()))
        settings = [f"INCDIR={here}/scripts", "MARK_OFFLINE=1", f"OFFLINE_NODE={here}/node-mark-offline"]
        # With SHELL=: a mount point that is not there is not made, on the machine that runs the benchmark.
        settings += ["ONLINE_NODE=:", f"TIMEOUT={_TIMEOUT_S}", "SHELL=:"]
        settings += [f"NVIDIA_SMI_HEALTHMON={node.root}/bin/nvidia-smi"]
        subprocess.run(
            _command(self._where, here / "nhc.conf", settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=60,
        )
        return (here / "offline").read_text().strip() if (here / "offline").exists() else ""

    def close(self) -> None:
        """Nothing of it runs on."""


def _checks(root: Path) -> tuple[str, ...]:
    return (
        f'export PATH="{root}/bin:$PATH"',
        "check_hw_cpuinfo 2 112 224",
        f"check_hw_physmem {64 * DIMMS}GB {64 * DIMMS}GB 3%",
        *(f"check_hw_ib 400 mlx5_{number}:1" for number in range(8)),
        "check_fs_mount_rw -t ext4 -s /dev/nvme0n1p2 -f /",
        "check_fs_mount_rw -t lustre -s 10.0.0.1@o2ib:/fs -o '/(^|,)flock(,|$)/' -f /scratch",
        "check_fs_mount_rw -t nfs4 -s nas:/home -f /home",
        *(f"check_file_test -d -r -x {root}/{name}" for name in ("scratch", "home")),
        *(f"check_cmd_status -t 5 -r 0 systemctl is-active --quiet {n}" for n in ("munge", "nvidia-fabricmanager")),
        "check_nvsmi_healthmon",
    )


def _mounts(mountinfo: str) -> str:
    """/proc/mounts, of the mountinfo that the cases change."""
    lines = []
    for line in mountinfo.splitlines():
        own, _, rest = line.partition(" - ")
        kind, device, *_ = rest.split()
        lines.append(f"{device} {own.split()[4]} {kind} {own.split()[5]} 0 0")
    return "\n".join(lines)
