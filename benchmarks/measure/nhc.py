"""LBNL's Node Health Check as a peer: where it is, and 18 of its checks that every machine passes.

It is in no package registry that we know. Its releases are tags of github.com/mej/nhc; a source tree of one is enough.
"""

import shutil
from pathlib import Path

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
    config = folder / "nhc.conf"
    config.write_text("".join(f"* || {check}\n" for check in checks))
    settings = ["MARK_OFFLINE=0", "NHC_RM=slurm", "TIMEOUT=30", "DETACHED_MODE=0"]
    if (where / "scripts").is_dir():
        settings += [f"INCDIR={where}/scripts", f"HELPERDIR={where}/helpers"]
    bash = shutil.which("bash") or "/bin/bash"
    return [bash, str(where / "nhc"), "-a", "-c", str(config), "-l", "/dev/null", *settings]
