"""The host's part of a node's fake root: InfiniBand, the kernel's log, mounts, the clock, the boot.

    <root>/sys/class/infiniband/mlx5_<n>/{fw_ver,node_guid,node_desc,device,ports/1/{state,rate,counters/…}}
    <root>/dev/kmsg                                a file of records as /dev/kmsg gives them
    <root>/proc/self/mountinfo, <root>/scratch     an NFS mount, which is a folder
    <root>/proc/sys/kernel/random/boot_id          another one after each `health-mend`
    <root>/proc/sys/kernel/adjtimex                what adjtimex(2) would answer

Nothing of this was recorded; names and forms are those of the kernel and of mlx5, the values are simulated.
"""

import ctypes
import shutil
import uuid
import zlib
from pathlib import Path

IB = "sys/class/infiniband"
KMSG = "dev/kmsg"
CLOCK = "proc/sys/kernel/adjtimex"
BOOT_ID = "proc/sys/kernel/random/boot_id"
CLOCK_RIGHT = "0 8193 4000 20"
"""State, status (STA_PLL and STA_NANO), maxerror and esterror in microseconds."""
_COUNTERS = (
    "excessive_buffer_overrun_errors", "link_downed", "link_error_recovery", "local_link_integrity_errors",
    "port_rcv_errors", "port_xmit_discards", "symbol_error",
)  # fmt: skip
_HW_COUNTERS = ("local_ack_timeout_err", "rnr_nak_retry_err")
_MOUNTINFO = """22 27 0:21 / /proc rw,nosuid - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/nvme0n1p2 rw
28 27 254:1 / /tmp rw,relatime - ext4 /dev/nvme0n1p3 rw
40 27 0:40 / /scratch rw,relatime - nfs4 nas:/scratch rw,vers=4.2
"""
# Network adapters stand on the bus after the GPUs of lab/fakeroot.py.
_BUS = "0000:{bus:02x}:00.0"
_MNT_DETACH = 2


def create(root: Path, *, node_name: str, adapters: int) -> None:
    """Build it, or bring an existing one back to health, as a reboot would."""
    unmount_below(root)
    shutil.rmtree(root / IB, ignore_errors=True)
    for number in range(adapters):
        _adapter(root, node_name, number)
    _write(root / KMSG, "5,0,0,-;Linux version 6.1.0 (simulated by the lab)\n")
    _write(root / "proc/self/mountinfo", _MOUNTINFO)
    _write(root / BOOT_ID, f"{uuid.uuid4()}\n")
    _write(root / CLOCK, CLOCK_RIGHT + "\n")
    for name in ("tmp", "scratch"):
        path = root / name
        if path.is_symlink():
            path.unlink()
        path.mkdir(exist_ok=True)


def log(root: Path, text: str) -> None:
    """Add a record to the kernel's log, at the emergency level of driver errors."""
    path = root / KMSG
    number = path.read_text(encoding="utf-8").count("\n")
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"4,{number},{number * 1000000},-;{text}\n")


def port(root: Path, adapter: str, **facts: str) -> None:
    """Change files of an adapter's port, such as state="1: DOWN"."""
    for name, text in facts.items():
        _write(root / IB / adapter / "ports/1" / name, text + "\n")


def count(root: Path, adapter: str, name: str, added: int) -> None:
    """Raise a counter of an adapter's port."""
    path = root / IB / adapter / "ports/1/counters" / name
    _write(path, f"{int(path.read_text()) + added}\n")


def adapters(root: Path) -> tuple[str, ...]:
    """Their names."""
    return tuple(sorted(path.name for path in (root / IB).iterdir()))


def unmount_below(folder: Path) -> None:
    """Take away what was mounted below a folder (`disk-full`), or it could not be removed."""
    mounted = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    points = [line.split(" ")[4] for line in mounted]
    libc = ctypes.CDLL(None, use_errno=True)
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), key=len, reverse=True):
        libc.umount2(point.encode(), _MNT_DETACH)


def _adapter(root: Path, node_name: str, number: int) -> None:
    code = zlib.crc32(node_name.encode())
    folder = root / IB / f"mlx5_{number}"
    guid = f"0c42:a1{code >> 24:02x}:{code & 0xFFFF:04x}:{number:04x}"
    for name, text in {"fw_ver": "28.39.1002", "node_guid": guid, "node_desc": f"{node_name} mlx5_{number}"}.items():
        _write(folder / name, text + "\n")
    device = root / "sys/bus/pci/devices" / _BUS.format(bus=0x40 + number)
    for name, text in {"vendor": "0x15b3", "device": "0x1021", "class": "0x020700", "numa_node": "0"}.items():
        _write(device / name, text + "\n")
    (folder / "device").symlink_to(Path("../../../bus/pci/devices") / device.name)
    facts = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)", "link_layer": "InfiniBand"}
    port(root, folder.name, **facts)
    for name in _COUNTERS:
        _write(folder / "ports/1/counters" / name, "0\n")
    for name in _HW_COUNTERS:
        _write(folder / "ports/1/hw_counters" / name, "0\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
