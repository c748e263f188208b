"""What is installed on the node, as files tell it: kernel, distribution, drivers, firmware."""

from __future__ import annotations

from trainmaster.health import files
from trainmaster.health.check import Place, Source
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband

_RELEASE_KEYS = ("ID", "VERSION_ID", "BUILD_ID", "IMAGE_ID", "IMAGE_VERSION")


def read(place: Place) -> Any:
    """{"kernel", "system", "nvidia", "mlx5", "vbios", "ib_fw"}; what the node lacks is left out."""
    root = place.root
    release = parse_release(files.text(root + "/etc/os-release") or files.text(root + "/usr/lib/os-release") or "")
    gpus = root + "/proc/driver/nvidia/gpus"
    vbios = {_video_bios(files.text(f"{gpus}/{name}/information") or "") for name in files.names(gpus)}
    folder = root + infiniband.FOLDER
    firmware = {files.text(f"{folder}/{name}/fw_ver", 64) for name in files.names(folder)}
    found = {
        "kernel": files.text(root + "/proc/sys/kernel/osrelease", 256),
        "system": " ".join(release[key] for key in _RELEASE_KEYS if key in release),
        "nvidia": files.text(root + "/sys/module/nvidia/version", 64),
        # Only the vendor's own driver has a version; the kernel's goes with the kernel.
        "mlx5": files.text(root + "/sys/module/mlx5_core/version", 64),
        "vbios": " ".join(sorted(text for text in vbios if text)),
        "ib_fw": " ".join(sorted(text for text in firmware if text)),
    }
    return {key: value for key, value in found.items() if value}


def parse_release(text: str) -> dict[str, str]:
    """os-release(5). Pure.

    >>> parse_release('ID=debian\\nVERSION_ID="12"')
    {'ID': 'debian', 'VERSION_ID': '12'}
    """
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def _video_bios(text: str) -> str:
    for line in text.splitlines():
        if line.startswith("Video BIOS:"):
            return line.partition(":")[2].strip()
    return ""


SOURCE = Source(
    name="host.image",
    about="/proc/sys/kernel/osrelease, /etc/os-release, /sys/module/{nvidia,mlx5_core}/version, firmware",
    read=read,
)
