"""Slurm of other Debian versions: a root folder by debootstrap, and slurmctld in it, in namespaces of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = "slurmctld,slurm-client,slurm-wlm-basic-plugins"
_CONF = """
ClusterName=try
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/slurm
CredType=cred/slurm
StateSaveLocation=/run/state
SlurmctldPidFile=/run/slurmctld.pid
SelectType=select/cons_tres
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=3600
ResumeTimeout=3600
"""
# Cloud nodes are given to jobs before they are there, so no slurmd is needed.
_NODES = "NodeName={nodes} CPUs=4 RealMemory=1000 State=CLOUD\nPartitionName=all Nodes=ALL Default=YES State=UP\n"
_BEGIN = """
mount -t proc proc "$ROOT/proc" && mount -t tmpfs tmpfs "$ROOT/run" && mkdir -p "$ROOT/run/state" "$ROOT/run/slurm"
ip link set lo up
# With nothing but 127.0.0.1 the C library finds no address for localhost.
ip address add 127.0.0.2/8 dev lo
hostname localhost
exec chroot "$ROOT" /bin/sh /run-this
"""
_RUN = """
mkdir -p /run/slurmctld
(slurmctld -D >/run/log 2>&1; touch /run/ended) &
for i in $(seq 300); do
    timeout 5 scontrol ping 2>/dev/null | grep -q UP && break
    test -e /run/ended && break
    sleep 0.1
done
test -e /run/ended && echo ended || echo running
echo '@@'
{commands}
cat /run/log
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What slurmctld did with its files."""

    runs: bool
    outputs: tuple[str, ...]
    """Of each command."""
    log: str

    @property
    def complaints(self) -> list[str]:
        """What it says of the topology."""
        words = ("topo", "block", "switch", "yaml")
        lines = [line for line in self.log.splitlines() if "error" in line or "fatal" in line or "warn" in line.lower()]
        return [line for line in lines if any(word in line.lower() for word in words)]


def why_not() -> str:
    """Why no root can be made here; nothing when it can."""
    if os.geteuid() != 0:
        return "debootstrap needs root"
    missing = [tool for tool in ("debootstrap", "unshare", "ip") if shutil.which(tool) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def make_root(suite: str, folder: Path) -> str:
    """A root with Slurm in `folder`, unless it is there; why it could not be made, or nothing."""
    if (folder / "usr/sbin/slurmctld").exists() and not (folder / "debootstrap").exists():
        return ""
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    mirror = [line.split()[0] for line in sites.splitlines() if line.endswith(" Debian")][:1]
    shutil.rmtree(folder, ignore_errors=True)
    argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(folder), *mirror]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    except subprocess.TimeoutExpired:
        return "debootstrap did not end within 15 minutes"
    last = ([line for line in done.stdout.splitlines() if line.startswith(("E:", "W:"))] or [""])[-1]
    return "" if done.returncode == 0 else f"debootstrap {suite} ended with {done.returncode}: {last}"


def version(root: Path) -> tuple[int, int]:
    """Of the root's Slurm."""
    done = subprocess.run(["chroot", str(root), "slurmctld", "-V"], capture_output=True, text=True, check=True)
    major, minor, *_ = done.stdout.split()[1].split(".")
    return int(major), int(minor)


def ask(root: Path, *, nodes: str, settings: str, files: dict[str, str], commands: Sequence[str] = ()) -> Answer:
    """Start slurmctld with these files in /etc/slurm, run the commands beside it, and end all of it."""
    etc = root / "etc/slurm"
    shutil.rmtree(etc, ignore_errors=True)
    etc.mkdir(parents=True)
    (etc / "slurm.key").write_bytes(os.urandom(1024))
    (etc / "slurm.key").chmod(0o600)
    (etc / "slurm.conf").write_text(_CONF + settings + _NODES.format(nodes=nodes))
    for name, text in files.items():
        (etc / name).write_text(text)
    lines = "\n".join(f"test -e /run/ended || timeout 20 {command} 2>&1; echo '@@'" for command in commands)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "run-this").write_text(_RUN.replace("{commands}", lines))
    done = subprocess.run(
        ["unshare", "--mount", "--uts", "--pid", "--net", "--fork", "--kill-child", "/bin/sh", "-c", _BEGIN],
        env={"ROOT": str(root), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    state, *outputs, log = done.stdout.split("@@\n")
    assert state.strip() in ("running", "ended"), done.stdout + done.stderr
    return Answer(runs=state.strip() == "running", outputs=tuple(outputs), log=log)


def remove_root(folder: Path) -> None:
    """Nothing of ours is mounted there: what was, went with its namespace."""
    shutil.rmtree(folder, ignore_errors=True)


def root_of(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For a fixture: the root of a Debian version, kept in $TRAINMASTER_SLURM_ROOTS or removed at the end."""
    if why := why_not():
        pytest.skip(why)
    kept = os.environ.get("TRAINMASTER_SLURM_ROOTS")
    folder = (Path(kept) if kept else tmp_path_factory.mktemp("roots")) / suite
    if why := make_root(suite, folder):
        pytest.skip(why)
    yield folder
    if not kept:
        remove_root(folder)
