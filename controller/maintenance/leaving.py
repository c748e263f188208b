"""Jobs on hosts that a train needs: left alone as long as the cycle bears it, then asked, then put back. Pure."""

import math
from dataclasses import dataclass, replace

from trainmaster.controller import requeue, snapshot
from trainmaster.controller.acts import Act, Kind, Refusal
from trainmaster.controller.maintenance import cars, contract, visit
from trainmaster.controller.maintenance.state import CAUSE, Host, Notice, Stage, Train
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job

_SETTLED_TICKS = 3
"""From one host's return to the drain of the next."""


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
    """From when on a train does not wait for its hosts any longer.

    What free hosts and restarts have given it beyond that is time in which no job is asked for anything.
    """
    if train.emergency:
        return train.started_at
    come = cars.progress(look, memory.maintenance, train)
    return train.started_at + waits_s(
        share=min(1.0, (come.visited + come.in_hand) / max(1, come.hosts)),
        cars=math.ceil(come.hosts / max(1, train.domain)),
        car_s=_car_s(policy, train),
        usable_s=train.cycle_s * (1.0 - policy.maintenance.margin),
    )


def _car_s(policy: Policy, train: Train) -> float:
    return visit.lasts_s(policy.maintenance, train.carried) + policy.maintenance.contract.grace_s


def waits_s(*, share: float, cars: int, car_s: float, usable_s: float) -> float:
    """How long into its cycle a train waits for jobs to leave hosts by themselves.

    Until only twice the time is left that the remaining hosts need, car after car, or until they are behind a steady
    pace, whichever is later. A steady pace alone would interrupt a job in a week in which it happens not to fail,
    though weeks are left.

    Args:
        share: Of the hosts, those that are visited or in hand.
        cars: That the whole train takes.
        car_s: How long one takes, from the warning of its jobs to its return.
        usable_s: Of the cycle, after its margin.

    >>> [round(waits_s(share=share, cars=40, car_s=1.0, usable_s=100.0)) for share in (0.0, 0.5, 1.0)]
    [20, 60, 100]
    >>> waits_s(share=0.25, cars=40, car_s=10.0, usable_s=100.0)
    25.0
    """
    return max(share * usable_s, usable_s - 2.0 * (1.0 - share) * cars * car_s)


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
    if known is None and (until := _gathers(memory, policy, trains, now)) is not None:
        return Leaving(due=(until,) if until > now else ())
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


def _gathers(memory: Memory, policy: Policy, trains: list[Train], now: float) -> float | None:
    """Until when a train still takes hosts out, or works on some; 0.0 for as long as it does so. None when it does not.

    One interruption then serves all of them. Otherwise the few that were drained when others came back would soon
    cost another.
    """
    late = min(train.deadline - 2.0 * _car_s(policy, train) for train in trains)
    if any(train.emergency for train in trains) or now >= late:
        return None
    names = {train.name for train in trains}
    hosts = [host for host in memory.maintenance.in_hand() if host.train in names]
    if any(host.stage is not Stage.DRAINING for host in hosts):
        return 0.0
    last = max((host.since for host in hosts), default=0.0)
    back = (host.returned_at or 0.0 for host in memory.maintenance.past.values() if names.intersection(host.visited))
    until = max(last, *back, 0.0) + _SETTLED_TICKS * policy.tick_s
    return until if now < until else None


def _has_left(notice: Notice, hosts: list[Host]) -> bool:
    """Whether a job that runs on has none of the hosts any more that it was asked to leave: spares took over."""
    return bool(notice.hosts) and not any(host.name in notice.hosts for host in hosts)
