"""What jobs have in /dev/shm, and their cgroups. Whether anybody still owns them, the table of processes tells."""

from __future__ import annotations

from trainmaster.health import leftovers
from trainmaster.health.check import Place, Source
from trainmaster.health.record import Any


def read(place: Place) -> Any:
    """{"shm": {uid: bytes}, "cgroups": {folder: job}}, of all users and jobs."""
    root = place.root
    shared: dict[str, int] = {}
    for _, uid, size in leftovers.shared_memory(root):
        shared[str(uid)] = shared.get(str(uid), 0) + size
    return {"shm": shared, "cgroups": {folder[len(root) :]: job for folder, job in leftovers.cgroups(root)}}


SOURCE = Source(name="host.left", about="/dev/shm, /sys/fs/cgroup/**/job_*", read=read)
