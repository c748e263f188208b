"""What ended jobs have left, as a pass sees it: processes, /dev/shm, cgroups, and which jobs are alive."""

from __future__ import annotations

from typing import Any

from trainmaster.health import leftovers
from trainmaster.health.check import Place, Source

SHOWN_MAX = 50


def read(place: Place) -> Any:
    """{"left": [[pid, uid, name, state, killed]], "shm": {uid: bytes}, "cgroups": {folder: job}}, of no living job.

    Who has a login session is at work here, and no stray.
    """
    root = place.root
    left = [one for one in leftovers.processes(root) if not _logged_in(root, one.pid)]
    shared = list(leftovers.shared_memory(root))
    groups = dict(leftovers.cgroups(root))
    if not left and not shared and not groups:
        return {"left": [], "shm": {}, "cgroups": {}}
    jobs, users = leftovers.live_jobs(root)
    busy = users | {one.uid for one in left}
    return {
        # A process that has been killed and does not die is told whosever it is.
        "left": [leftovers.as_json(one) for one in left if one.killed or one.uid not in users][:SHOWN_MAX],
        "shm": {str(uid): size for uid, size in leftovers.without_owner(busy, iter(shared)).items()},
        "cgroups": {folder[len(root) :]: job for folder, job in groups.items() if job not in jobs},
    }


def _logged_in(root: str, pid: int) -> bool:
    return "/user.slice/" in leftovers.cgroup_of(root, pid)


SOURCE = Source(name="host.left", about="/proc/*, /dev/shm, /sys/fs/cgroup/**/job_*", read=read)
