"""The fake root of a lab node: the `sys`, `proc`, `dev` and `nvidia-smi` that health checks look at instead of `/`.

    <root>/bin/nvidia-smi            replays an H100's answers for this node's GPUs (lab/nvidia_smi.py)
    <root>/nvidia-smi.json           what it answers differently; faults rewrite it through `write_state`
    <root>/dev/nvidia[0-7], nvidiactl, nvidia-uvm, nvidia-uvm-tools, nvidia-caps/…
    <root>/proc/driver/nvidia/version, gpus/<bus id>/information
    <root>/sys/bus/pci/devices/<bus id>/{class,current_link_speed,…}
    <root>/sys/class/net             empty, as on the recorded machine
    <root>/sys/class/infiniband/…, dev/kmsg, proc/self/mountinfo, …   simulated, not recorded: lab/fakehost.py

All about GPUs is taken from the recording in `lab/data/h100`; only what tells GPUs apart (UUID, serial number, PCI
address, minor number …) is counted on from the recorded GPU's. Device files are links to /dev/null: a character
device that an ordinary user can make, which is what Slurm's `File=` in gres.conf and a check of `dev` need.
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

from trainmaster.lab import fakehost, nvidia_smi

CAPTURES = Path(__file__).resolve().parent / "data" / "h100"

# The recorded GPU sits in PCI slot 06; its neighbours get the slots after it, of which a bus has 32.
_FIRST_SLOT = 6
GPUS_MAX = 32 - _FIRST_SLOT


def create(root: Path, *, node_name: str, gpus: int) -> None:
    """Build the fake root of a node with this many GPUs (0 to 26); an existing one is brought back to health."""
    assert 0 <= gpus <= GPUS_MAX, f"{gpus} GPUs do not fit on the recorded PCI bus, which takes {GPUS_MAX}"
    recorded = nvidia_smi.sections((CAPTURES / "captures.txt").read_text(encoding="utf-8"))
    for folder in ("bin", "dev", "proc", "sys/class/net", "sys/bus/pci/devices"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    fakehost.create(root, node_name=node_name, adapters=min(8, max(1, gpus)))
    if gpus == 0:
        return
    identities = [identity(node_name, index) for index in range(gpus)]
    write_state(root, {"captures": str(CAPTURES), "gpus": [{"values": values} for values in identities], "replies": {}})
    tool = root / "bin" / "nvidia-smi"
    tool.write_bytes(Path(nvidia_smi.__file__).read_bytes())
    tool.chmod(0o755)
    _dev(root / "dev", recorded["dev"], gpus)
    _proc(root / "proc/driver/nvidia", recorded["dev"], identities)
    _pci(root / "sys/bus/pci/devices", recorded, identities)


def identity(node_name: str, index: int) -> dict[str, str]:
    """What tells GPU `index` of a node from every other GPU, by field name of `nvidia_smi.FIELDS`.

    >>> identity("n01", 1)["pci.bus_id"]
    '00000000:00:07.0'
    """
    slot = _FIRST_SLOT + index
    # Stable from run to run, so that a node keeps its GPUs when the lab is started again.
    node_code = zlib.crc32(node_name.encode())
    return {
        "uuid": f"GPU-{node_code:08x}-0000-0000-0000-{index + 1:012x}",
        "serial": f"{1_000_000_000_000 + node_code * 100 + index}",
        "pci.bus_id": f"00000000:00:{slot:02X}.0",
        "<pdi>": f"{0x100000000000000 + node_code * 256 + index:#x}",
        "<minor_number>": str(index),
        "<board_id>": f"{slot:#x}",
        "<pci.device>": f"0x{slot:02X}",
    }


def read_state(root: Path) -> dict[str, Any]:
    """The state of the node's `nvidia-smi`, in the form that lab/nvidia_smi.py describes."""
    state: dict[str, Any] = json.loads((root / "nvidia-smi.json").read_text(encoding="utf-8"))
    return state


def write_state(root: Path, state: dict[str, Any]) -> None:
    """Replace the state of the node's `nvidia-smi` at once; a tool that runs meanwhile sees the old one or the new."""
    fresh = root / "nvidia-smi.json.new"
    fresh.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    fresh.replace(root / "nvidia-smi.json")


def _dev(dev: Path, recorded: str, gpus: int) -> None:
    """Device files as the recorded machine's /dev listing has them, with one nvidia<minor> a GPU."""
    listing, _, caps = recorded.partition("/dev/nvidia-caps:\n")
    shared = [Path(line).name for line in listing.split() if line != "/dev/nvidia0"]
    cap_files = re.findall(r"^nvidia-cap\d+$", caps, re.M)
    (dev / "nvidia-caps").mkdir(exist_ok=True)
    for name in [*shared, *(f"nvidia{index}" for index in range(gpus)), *(f"nvidia-caps/{cap}" for cap in cap_files)]:
        if not (dev / name).is_symlink():
            (dev / name).symlink_to("/dev/null")


def _proc(driver: Path, recorded: str, identities: list[dict[str, str]]) -> None:
    """/proc/driver/nvidia: the driver's version and one `information` a GPU."""
    version = re.search(r"^NVRM version:.*\nGCC version:.*\n", recorded, re.M)
    information = re.search(r"^Model:.*\n(?:[\w ]+:.*\n)+", recorded, re.M)
    assert version and information, "the recording has both"
    driver.mkdir(parents=True, exist_ok=True)
    (driver / "version").write_text(version[0], encoding="utf-8")
    for values in identities:
        address = _address(values)
        text = information[0]
        for label, value in (
            ("GPU UUID", values["uuid"]),
            ("Bus Location", address),
            ("Device Minor", values["<minor_number>"]),
        ):
            text = re.sub(rf"^({label}:\s+).*$", rf"\g<1>{value}", text, flags=re.M)
        folder = driver / "gpus" / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "information").write_text(text, encoding="utf-8")


def _pci(devices: Path, recorded: dict[str, str], identities: list[dict[str, str]]) -> None:
    """/sys/bus/pci/devices: class, link speed and width of each GPU, and the ids that its `-q` report shows."""
    pattern = r"class=(\S+) speed=(.+ PCIe)/(.+ PCIe) width=(\d+)/(\d+)"
    link = re.search(pattern, recorded["pci"])
    device_id = re.search(r"Device Id +: 0x(\w{4})(\w{4})", recorded["nvidia-smi -q"])
    assert link and device_id, "the recording has both"
    files = {
        "class": link[1],
        "current_link_speed": link[2],
        "max_link_speed": link[3],
        "current_link_width": link[4],
        "max_link_width": link[5],
        "device": f"0x{device_id[1].lower()}",
        "vendor": f"0x{device_id[2].lower()}",
    }
    for values in identities:
        folder = devices / _address(values)
        folder.mkdir(exist_ok=True)
        # What a GPU that has fallen off the bus leaves (lab/faults/health.py); a healthy one was not recorded.
        (folder / "config").unlink(missing_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text + "\n", encoding="utf-8")


def _address(values: dict[str, str]) -> str:
    """The PCI address as the kernel writes it: a domain of four digits, in lower case."""
    return values["pci.bus_id"][4:].lower()
