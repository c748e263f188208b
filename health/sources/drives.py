"""What the kernel holds of its NVMe controllers and RAID arrays, whether or not anything was logged in this boot."""

from __future__ import annotations

from trainmaster.health import files
from trainmaster.health.check import Place, Source
from trainmaster.health.record import Any


def read(place: Place) -> Any:
    """{"nvme": {controller: state}, "degraded": {array: how many disks it lacks}}."""
    controllers, block = place.root + "/sys/class/nvme", place.root + "/sys/block"
    states = {name: files.text(f"{controllers}/{name}/state", 64) for name in files.names(controllers)}
    arrays = [name for name in files.names(block) if name.startswith("md")]
    return {
        "nvme": {name: state for name, state in states.items() if state},
        "degraded": {name: files.number(f"{block}/{name}/md/degraded") or 0 for name in arrays},
    }


SOURCE = Source(name="fs.drives", about="/sys/class/nvme/*/state, /sys/block/md*/md/degraded", read=read)
