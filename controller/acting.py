"""Does acts, and looks whether they hold. Each is a verb of Slurm with a condition before it and one after it."""

import json
from collections.abc import Mapping
from typing import Any

from trainmaster.controller import snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.memory import Exclusion, JobRecord, Memory, Try
from trainmaster.controller.observe import Door
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job

COMMENT_MARK = "trainmaster: "
"""What our comment on a job begins with. Nobody else's is written over."""
BY_HOOKS = frozenset({Kind.VERIFY, Kind.TICKET})
"""Kinds that are commands of the site, and take their time."""


def holds(act: Act, look: Snapshot, now: float) -> bool:
    """Whether what the act wants is so already. Pure."""
    if act.kind is Kind.DRAIN:
        nodes = [look.nodes.get(name) for name in act.nodes]
        return all(node is not None and snapshot.drained(node) and node.reason == act.reason for node in nodes)
    if act.kind is Kind.RESUME:
        return all(name in look.nodes and not snapshot.drained(look.nodes[name]) for name in act.nodes)
    if act.kind in BY_HOOKS or act.kind is Kind.NOTIFY:
        return False
    job = look.jobs.get(act.job_id)
    if job is None or not job.active or job.restarts > act.restarts:
        return True
    if act.kind is Kind.REQUEUE:
        return False
    if job.state != "PENDING":
        return job.state != "COMPLETING"
    is_held = "held" in job.reason.lower()
    if act.kind is Kind.HOLD:
        return is_held
    delayed = "BeginTime" in job.reason or (job.eligible_time is not None and job.eligible_time > now + 1.0)
    excluded = act.exclude is None or frozenset(act.exclude) == snapshot.members(job.excluded_nodes)
    return not delayed and excluded and not (act.unhold and is_held)


def do(door: Door, act: Act, look: Snapshot, memory: Memory) -> None:
    """Ask Slurm for it. Raises SlurmError."""
    if act.kind is Kind.DRAIN:
        door.update_nodes(snapshot.fold(act.nodes), State="DRAIN", Reason=act.reason)
        return
    if act.kind is Kind.RESUME:
        # Unlike RESUME it takes nothing away but the drain: not FAIL, and no reboot that is due.
        door.update_nodes(snapshot.fold(act.nodes), State="UNDRAIN")
        return
    job = look.jobs[act.job_id]
    name = snapshot.full_id(job)
    if act.kind is Kind.REQUEUE:
        door.requeue(name, incomplete=True)
    elif act.kind is Kind.NOTIFY:
        door.cancel(name, signal=act.signal)
    elif act.kind is Kind.HOLD:
        door.hold(name)
        door.update_job(name, **_comment(job, memory, act, held=act.why))
    elif act.kind is Kind.RELEASE:
        fields = {"StartTime": "now"}
        if act.exclude is not None:
            fields["ExcNodeList"] = snapshot.fold(act.exclude) if act.exclude else ""
        if act.unhold:
            door.release(name)
        door.update_job(name, **fields, **_comment(job, memory, act))


def _comment(job: Job, memory: Memory, act: Act, held: str = "") -> dict[str, str]:
    """What is to be known of a job when our own memory is lost, as its AdminComment."""
    if job.admin_comment and not job.admin_comment.startswith(COMMENT_MARK):
        return {}
    record = memory.jobs.get(job.job_id)
    tries = [
        [round(one.at), one.restarts, one.cause, round(one.ran_s)] for one in (record.tries[-12:] if record else ())
    ]
    values: dict[str, Any] = {"tries": tries, "ours": list(act.ours)}
    if held:
        values["held"] = held
    return {"AdminComment": COMMENT_MARK + json.dumps(values, separators=(",", ":"))}


def from_comment(job: Job, policy_exclude_s: float) -> JobRecord | None:
    """What our comment on a job says of it; None when there is none that can be read."""
    if not job.admin_comment.startswith(COMMENT_MARK):
        return None
    try:
        values: Mapping[str, Any] = json.loads(job.admin_comment.removeprefix(COMMENT_MARK))
        tries = tuple(
            Try(at=float(at), restarts=int(restarts), cause=str(cause), ran_s=float(ran))
            for at, restarts, cause, ran in values["tries"]
        )
        ours = tuple(str(name) for name in values.get("ours", ()))
        held = str(values.get("held", ""))
    except (ValueError, KeyError, TypeError):
        return None
    last = tries[-1] if tries else None
    until = (last.at if last else 0.0) + policy_exclude_s
    return JobRecord(
        job_id=job.job_id,
        restarts=last.restarts if last else 0,
        tries=tries,
        ours_before=ours,
        exclusions=tuple(Exclusion(node=name, until=until, why="as its comment says") for name in ours),
        released=last.restarts if last and not held else -1,
        held=held if "held" in job.reason.lower() else "",
    )
