"""What ended jobs have left behind. The epilog ends and removes it; what this finds, it could not or did not.

A process that has been sent SIGKILL and does not die holds a GPU, a mount or memory: only a reboot ends it. All else is
a warning. What is seen once may just be ending: it has to be there in two passes, and a killed one for half a minute.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import processes, strays

SHM_GIB = 1.0
DYING_S = 30.0


def cgroups(table: Any, value: Any) -> dict[str, str]:
    """By folder, the job of each cgroup whose job has no slurmstepd here. Pure."""
    return {folder: job for folder, job in value["cgroups"].items() if job not in table["jobs"]}


def seen(table: Any, value: Any) -> list[str]:
    """Names for what is there, the same in every pass. Pure."""
    return [f"pid {left[0]}" for left in table["left"]] + [f"job {job}" for job in cgroups(table, value).values()]


def judge(context: Context, table: Any, value: Any) -> list[Finding]:
    """Processes, cgroups, files in memory."""
    before = context.memory if isinstance(context.memory, dict) else {}
    found = []
    others: dict[int, list[str]] = {}
    for pid, uid, name, state, killed in table["left"]:
        if f"pid {pid}" not in before:
            continue
        waited_s = context.now_s - before[f"pid {pid}"]
        if killed and waited_s < context.profile.threshold("host.stray", DYING_S):
            continue
        if killed:
            detail = f"{name}[{pid}] of uid {uid} survives SIGKILL ({state})"
            found.append(fail(Action.DRAIN, detail, subject=f"pid {pid}", value=state))
        else:
            others.setdefault(uid, []).append(f"{name}[{pid}]")
    for uid, names in sorted(others.items()):
        more = f" and {len(names) - 3} more" if names[3:] else ""
        found.append(warn(f"{', '.join(names[:3])}{more} of no job", subject=f"uid {uid}", value=len(names)))
    for folder, job in sorted(cgroups(table, value).items()):
        if f"job {job}" in before:
            found.append(warn("a cgroup of a job that is gone", subject=f"job {job}", value=folder))
    limit_gib = context.profile.threshold("host.stray.shm", SHM_GIB)
    for uid_text, size in sorted(value["shm"].items()):
        if int(uid_text) not in table["people"] and size > limit_gib * (1 << 30):
            detail = f"{size / (1 << 30):.1f} GiB in /dev/shm and no process"
            found.append(warn(detail, subject=f"uid {uid_text}", value=size, threshold=limit_gib))
    return found


def remember(context: Context, table: Any, value: Any) -> Any:
    """Since when each has been there."""
    before = context.memory if isinstance(context.memory, dict) else {}
    # Never later than now: the clock may have been set back.
    return {name: min(before.get(name, context.now_s), context.now_s) for name in seen(table, value)}


CHECK = Check(
    id="host.stray",
    about="processes, cgroups or shared memory that ended jobs have left behind",
    sources=(processes.SOURCE, strays.SOURCE),
    judge=judge,
    remember=remember,
)
