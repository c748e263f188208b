"""Jobs on hosts that a train needs: left alone as long as the cycle bears it, then asked, then put back. Pure."""

from dataclasses import dataclass, replace

from trainmaster.controller import requeue, snapshot
from trainmaster.controller.acts import Act, Kind, Refusal
from trainmaster.controller.maintenance import cars, contract
from trainmaster.controller.maintenance.state import CAUSE, Host, Notice, Stage, Train
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """What follows for jobs."""

    acts: tuple[Act, ...] = ()
    refused: tuple[Refusal, ...] = ()
    due: tuple[float, ...] = ()
    """When to look again."""
    notices: tuple[Notice, ...] = ()
    """Jobs whose turn has come, or that were put off, to be remembered."""


def wanted_at(look: Snapshot, memory: Memory, policy: Policy, train: Train) -> float:
    """From when on a train cannot wait for its hosts any longer: its steady pace through the cycle says so.

    What free hosts and restarts have given it beyond that pace is time in which no job is asked for anything.
    """
    if train.emergency:
        return train.started_at
    come = cars.progress(look, memory.maintenance, train)
    share = min(1.0, (come.visited + come.in_hand) / max(1, come.hosts))
    return train.started_at + share * train.cycle_s * (1.0 - policy.maintenance.margin)


def decide(look: Snapshot, memory: Memory, policy: Policy, now: float) -> Leaving:
    """Acts on jobs that run on drained hosts, and when the next one falls due."""
    state = memory.maintenance
    waiting = [host for host in state.in_hand() if host.stage is Stage.DRAINING]
    if not waiting:
        return Leaving()
    by_name = {host.name: host for host in waiting}
    hosts_of: dict[int, list[Host]] = {}
    for name, job_ids in look.jobs_on(by_name).items():
        for job_id in job_ids:
            hosts_of.setdefault(job_id, []).append(by_name[name])
    acts: list[Act] = []
    refused: list[Refusal] = []
    due: list[float] = []
    notices: list[Notice] = []
    for job_id, hosts in sorted(hosts_of.items()):
        job = look.jobs[job_id]
        trains = [state.trains[host.train] for host in hosts if host.train in state.trains]
        trains = [train for train in trains if train.active and not train.paused]
        if job.state != "RUNNING" or not trains or f"job:{job_id}" in memory.open_targets:
            continue
        if job.end_time is not None and 0 <= job.end_time - now <= policy.maintenance.contract.grace_s:
            continue  # its time is over anyway
        one = _one(look, memory, policy, job, hosts, trains, now)
        acts += one.acts
        refused += one.refused
        due += one.due
        notices += one.notices
    return Leaving(acts=tuple(acts), refused=tuple(refused), due=tuple(due), notices=tuple(notices))


def _one(
    look: Snapshot, memory: Memory, policy: Policy, job: Job, hosts: list[Host], trains: list[Train], now: float
) -> Leaving:
    limits = policy.maintenance.contract
    guest = requeue.refills(job)
    supervised = guest or requeue.supervised(job)
    asked = contract.wish(job, limits, supervised=supervised, checkpoint=policy.requeue.signal_comment)
    known = memory.maintenance.notices.get(job.job_id)
    if known is not None and (known.restarts != job.restarts or _has_left(known, hosts)):
        known = None
    at = min(wanted_at(look, memory, policy, train) for train in trains)
    due_at = contract.due_at(
        asked,
        booked_at=min(host.since for host in hosts),
        wanted_at=at,
        deadline=min(train.deadline for train in trains),
        deferred_s=(known.deferred if known is not None else 0) * limits.deferral_s,
    )
    if now < due_at:
        return Leaving(due=(due_at,))
    asked_for = tuple(sorted(host.name for host in hosts))
    notice = known or Notice(job_id=job.job_id, restarts=job.restarts, asked_at=now, hosts=asked_for)
    emergency = any(train.emergency for train in trains)
    if notice.deferred < asked.deferrals and notice.signalled_at is None and not emergency:
        return Leaving(notices=(replace(notice, deferred=notice.deferred + 1),), due=(now + limits.deferral_s,))
    names = snapshot.fold(host.name for host in hosts)
    if not job.requeue and not (guest and notice.signalled_at is None):
        why = f"its owner said --no-requeue, so {names} waits for its end"
        return Leaving(refused=(Refusal(subject=f"job:{job.job_id}", wanted=Kind.REQUEUE, rule="I4", why=why),))
    why = f"maintenance of {names} ({trains[0].name} car {hosts[0].car})"
    attempt = f"train:{job.restarts}:{notice.asked_at:.0f}"
    common = {"job_id": job.job_id, "restarts": job.restarts, "cause": CAUSE, "why": why[:180]}
    if asked.signal and notice.signalled_at is None:
        act = Act(
            kind=Kind.NOTIFY,
            attempt=attempt,
            signal=asked.signal,
            batch=asked.batch,
            **common,  # type: ignore[arg-type]
        )
        return Leaving(acts=(act,), notices=(notice,))
    if asked.signal and notice.signalled_at is not None and now < notice.signalled_at + asked.grace_s:
        return Leaving(due=(notice.signalled_at + asked.grace_s,))
    act = Act(kind=Kind.REQUEUE, attempt=attempt, planned=True, **common)  # type: ignore[arg-type]
    return Leaving(acts=(act,), notices=(notice,))


def _has_left(notice: Notice, hosts: list[Host]) -> bool:
    """Whether a job that runs on has none of the hosts any more that it was asked to leave: spares took over."""
    return bool(notice.hosts) and not any(host.name in notice.hosts for host in hosts)
