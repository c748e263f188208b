"""Does acts, and looks whether they hold. Each is a verb of Slurm with a condition before it and one after it."""

import json
from collections.abc import Mapping
from typing import Any

from trainmaster.controller import forgotten, keeping, snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.maintenance import reserving
from trainmaster.controller.maintenance.state import CAUSE
from trainmaster.controller.memory import Exclusion, JobRecord, Memory, Try
from trainmaster.controller.observe import Door
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job

COMMENT_MARK = "trainmaster: "
"""What our comment on a job begins with. Nobody else's is written over."""
BY_TRAIN = frozenset({Kind.OPERATE, Kind.INSPECT, Kind.CHECK})
"""Kinds that are commands of a train."""
BY_HOOKS = frozenset({Kind.VERIFY, Kind.TICKET}) | BY_TRAIN
"""Kinds that are commands of the site, and take their time."""
RESERVES = frozenset({Kind.KEEP, Kind.FREE, Kind.RELEASE, Kind.BOOK, Kind.UNBOOK})
"""Kinds for which reservations have to be looked at."""


def holds(act: Act, look: Snapshot, now: float) -> bool:
    """Whether what the act wants is so already. Pure."""
    if act.kind is Kind.DRAIN:
        nodes = [look.nodes.get(name) for name in act.nodes]
        return all(node is not None and snapshot.drained(node) and node.reason == act.reason for node in nodes)
    if act.kind is Kind.RESUME:
        nodes = [look.nodes.get(name) for name in act.nodes]
        fallen = act.cause == CAUSE and any(node is not None and snapshot.down(node) for node in nodes)
        return not fallen and all(node is not None and not snapshot.drained(node) for node in nodes)
    if act.kind in reserving.KINDS:
        return reserving.holds(act, look)
    if act.kind in BY_HOOKS or act.kind is Kind.NOTIFY:
        return False
    there = any(one.name == keeping.name_of(act) for one in look.reservations)
    if act.kind is Kind.FREE:
        return not there
    job = look.jobs.get(act.job_id)
    if job is None or job.restarts > act.restarts:
        return True
    if not job.active:
        return act.kind is not Kind.REQUEUE or act.cause != forgotten.CAUSE
    if act.kind is Kind.KEEP:
        return there and (job.state == "RUNNING" or _in(look, job, keeping.name_of(act)))
    if act.kind is Kind.REQUEUE:
        return False
    if job.state != "PENDING":
        return job.state != "COMPLETING"
    is_held = "held" in job.reason.lower()
    if act.kind is Kind.HOLD:
        return is_held
    delayed = "BeginTime" in job.reason or (job.eligible_time is not None and job.eligible_time > now + 1.0)
    excluded = act.exclude is None or frozenset(act.exclude) == snapshot.members(job.excluded_nodes)
    lowered = 0 < job.priority < act.priority
    kept = not act.reservation or not there or _in(look, job, act.reservation)
    return not (delayed or lowered or (act.unhold and is_held)) and excluded and kept


def _in(look: Snapshot, job: Job, reservation: str) -> bool:
    return all(one.reservation == reservation for one in _parts(look, job))


def _parts(look: Snapshot, job: Job) -> tuple[Job, ...]:
    return look.parts.get(job.job_id, (job,))


def do(door: Door, act: Act, look: Snapshot, memory: Memory, policy: Policy) -> None:
    """Ask Slurm for it. Raises SlurmError."""
    if act.kind is Kind.DRAIN:
        door.update_nodes(snapshot.fold(act.nodes), State="DRAIN", Reason=act.reason)
        return
    if act.kind is Kind.RESUME:
        if fell := [name for name in act.nodes if snapshot.down(look.nodes[name]) and act.cause == CAUSE]:
            # Our reboots leave nodes DOWN, which only RESUME ends.
            door.update_nodes(snapshot.fold(fell), State="RESUME")
            if len(fell) == len(act.nodes):
                return
        # Unlike RESUME it takes nothing away but the drain: not FAIL, and no reboot that is due.
        door.update_nodes(snapshot.fold(act.nodes), State="UNDRAIN")
        return
    if act.kind is Kind.FREE:
        _free(door, act, look)
        return
    if act.kind in reserving.KINDS:
        reserving.do(door, act, look)
        return
    job = look.jobs[act.job_id]
    name = snapshot.full_id(job)
    if act.kind is Kind.REQUEUE:
        # Only what was seen to have come back already may be over.
        door.requeue(name, incomplete=job.active or act.cause != forgotten.CAUSE)
    elif act.kind is Kind.KEEP:
        _keep(door, act, look, memory, policy)
    elif act.kind is Kind.NOTIFY and act.batch:
        door.signal(name, act.signal)
    elif act.kind is Kind.NOTIFY:
        door.cancel(name, signal=act.signal)
    elif act.kind is Kind.HOLD:
        door.hold(name)
        door.update_job(name, **_comment(job, memory, act, held=act.why))
    elif act.kind is Kind.RELEASE:
        if act.unhold:
            door.release(name)
        _release(door, act, look, memory)


def _release(door: Door, act: Act, look: Snapshot, memory: Memory) -> None:
    job = look.jobs[act.job_id]
    record = memory.jobs.get(act.job_id)
    before = record.ours_before if record is not None else ()
    parts = _parts(look, job)
    for part in reversed(parts):
        fields: dict[str, str] = {"ReservationName": act.reservation} if act.reservation else {}
        if act.exclude is not None:
            # Each part's owner may have left out others.
            whole = {name for name in snapshot.members(part.excluded_nodes) if name not in before}.union(act.ours)
            fields["ExcNodeList"] = snapshot.fold(whole) if whole else ""
        if part is parts[0]:
            # Of the leader, and last: what is set for it is set for all parts, and they may start.
            fields |= {"StartTime": "now"} | _comment(job, memory, act)
        if fields:
            door.update_job(snapshot.full_id(part), **fields)
    if act.priority:
        # Only now has Slurm reckoned it anew. Nice and not Priority, which would stay what it is and never age.
        for part in parts:
            now = door.job(snapshot.full_id(part))
            if now is not None and 0 < now.priority < act.priority:
                door.update_job(snapshot.full_id(part), Nice=str(now.nice - (act.priority - now.priority)))


def _keep(door: Door, act: Act, look: Snapshot, memory: Memory, policy: Policy) -> None:
    name = keeping.name_of(act)
    if all(one.name != name for one in look.reservations):
        minutes = max(1, round(policy.requeue.keep_s / 60.0))
        door.create_reservation(
            name, Nodes=act.reserve, Users=act.owner, StartTime="now", Duration=str(minutes), Flags=keeping.FLAGS
        )
    job = look.jobs[act.job_id]
    if job.state == "RUNNING":
        return
    record = memory.jobs.get(act.job_id)
    back = record is not None and record.awaited and record.tries[-1].restarts == job.restarts
    for part in reversed(_parts(look, job)):
        comment = _comment(job, memory, act) if back and part.job_id == job.job_id else {}
        door.update_job(snapshot.full_id(part), ReservationName=name, **comment)


def _free(door: Door, act: Act, look: Snapshot) -> None:
    job = look.jobs.get(act.job_id)
    # A reservation cannot be deleted while a job runs in it; a job that runs may be taken out of it.
    for part in _parts(look, job) if job is not None and job.active else ():
        if part.reservation == act.reservation:
            door.update_job(snapshot.full_id(part), ReservationName="")
    door.delete_reservation(act.reservation)


def _comment(job: Job, memory: Memory, act: Act, held: str = "") -> dict[str, str]:
    """What is to be known of a job when our own memory is lost, as its AdminComment."""
    if job.admin_comment and not job.admin_comment.startswith(COMMENT_MARK):
        return {}
    record = memory.jobs.get(job.job_id)
    tries = [
        [round(one.at), one.restarts, one.cause, round(one.ran_s)] for one in (record.tries[-12:] if record else ())
    ]
    values: dict[str, Any] = {"tries": tries, "ours": list(act.ours)}
    if act.kind is Kind.KEEP and record is not None:
        # It is not released yet: what is to be left out is still a wish.
        values |= {"ours": list(record.ours_before), "without": [one.node for one in record.exclusions][:64]}
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
        waits = "without" in values
        without = dict.fromkeys((*ours, *(str(name) for name in values.get("without", ()))))
    except (ValueError, KeyError, TypeError):
        return None
    last = tries[-1] if tries else None
    until = (last.at if last else 0.0) + policy_exclude_s
    return JobRecord(
        job_id=job.job_id,
        restarts=last.restarts if last else 0,
        tries=tries,
        ours_before=ours,
        exclusions=tuple(Exclusion(node=name, until=until, why="as its comment says") for name in without),
        released=last.restarts if last and not held and not waits else -1,
        held=held if "held" in job.reason.lower() else "",
    )
