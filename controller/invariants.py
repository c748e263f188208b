"""Twelve rules that no act may break, whoever decided on it. Pure; checked before each act and as properties in tests.

They are written apart from the decisions that obey them, so that a mistake there is caught here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from trainmaster.controller import breaker, budgets, capacity, exclusions, forgotten, keeping, returning, snapshot
from trainmaster.controller.acts import MARK, TAKES_OUT, Act, Kind, Plan
from trainmaster.controller.maintenance import rules
from trainmaster.controller.maintenance.state import CAUSE
from trainmaster.controller.memory import JobRecord, Memory
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """An act that must not be done."""

    rule: str
    act: Act
    why: str


def _drains(plan: Plan) -> list[tuple[Act, str]]:
    return [(act, name) for act in plan.acts if act.kind in TAKES_OUT for name in act.nodes]


def _serving(look: Snapshot, name: str) -> bool:
    return name in look.nodes and snapshot.in_service(look.nodes[name])


def i1_guarantee(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """Planned acts leave every partition what it is promised, and its buffer for failures."""
    found = []
    for partition, promised in policy.guarantee.items():
        left = look.available(partition)
        for act, name in _drains(plan):
            if not (_serving(look, name) and partition in snapshot.groups(look.nodes[name])):
                continue
            left -= 1
            if act.planned and left < promised.nodes + promised.failure_buffer:
                found.append(Violation(rule="I1", act=act, why=f"{partition} would have {left} nodes"))
    return found


def i2_cap(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """Never more than the cap is out because of us."""
    out = len(capacity.out_because_of_us(look, memory))
    found = []
    for act, name in _drains(plan):
        out += _serving(look, name)
        if _serving(look, name) and out > capacity.cap(look, policy):
            found.append(Violation(rule="I2", act=act, why=f"{out} nodes would be out because of us"))
    return found


def i3_breaker(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """A tripped breaker lets nothing be drained; and no plan drains more than a window bears."""
    tripped = breaker.trips(
        memory.drains, fleet=len(look.nodes), leaf_of=look.leaf_of, policy=policy.drains, now=plan.at
    )
    count = len(breaker.automatic(memory.drains, policy.drains, plan.at))
    found = []
    for act, name in _drains(plan):
        if act.cause == CAUSE:
            continue  # a person has started it: it says nothing of the fleet's health
        count += 1
        trip = breaker.stops(tripped, node=name, cause=act.cause, leaf_of=look.leaf_of)
        if trip is not None:
            found.append(Violation(rule="I3", act=act, why=trip.why))
        elif count > breaker.allowance(len(look.nodes), policy.drains):
            found.append(Violation(rule="I3", act=act, why=f"the {count}th drain of this window"))
    return found


def i4_attempts(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """What is over is never run again, and each attempt is requeued once."""
    needed: dict[Kind, tuple[str, ...]] = {
        **{Kind.REQUEUE: ("RUNNING",), Kind.NOTIFY: ("RUNNING",)},
        **{Kind.RELEASE: ("PENDING",), Kind.HOLD: ("PENDING",), Kind.KEEP: ("RUNNING", "COMPLETING", "PENDING")},
    }
    found = []
    for act in plan.acts:
        if act.kind not in needed:
            continue
        job = look.jobs.get(act.job_id)
        if (
            act.kind is Kind.REQUEUE
            and job is not None
            and forgotten.requeue(job, memory.jobs.get(act.job_id), plan.at)
        ):
            over = job.restarts != act.restarts or not job.requeue
            found += (
                [Violation(rule="I4", act=act, why="not that attempt, or its owner does not want it")] if over else []
            )
        elif job is None or not job.active:
            found.append(Violation(rule="I4", act=act, why="the job is over"))
        elif job.restarts != act.restarts or job.state not in needed[act.kind]:
            found.append(Violation(rule="I4", act=act, why=f"attempt {job.restarts} is {job.state}"))
        elif act.kind is Kind.REQUEUE and not job.requeue:
            found.append(Violation(rule="I4", act=act, why="its owner said --no-requeue"))
    return found


def _budget(look: Snapshot, memory: Memory, plan: Plan, policy: Policy, *, blast: bool) -> list[Violation]:
    found = []
    for act in plan.acts:
        if act.kind in (Kind.REQUEUE, Kind.RELEASE):
            record = memory.jobs.get(act.job_id) or JobRecord(job_id=act.job_id)
            size = look.jobs[act.job_id].node_count if act.job_id in look.jobs else 0
            stand = budgets.standing(record, policy.requeue, plan.at, node_count=size)
            if stand.exhausted and stand.exhausted.startswith("blast") is blast:
                found.append(Violation(rule="I6" if blast else "I5", act=act, why=stand.exhausted))
    return found


def i5_loops(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """No job is started again and again without getting further."""
    return _budget(look, memory, plan, policy, blast=False)


def i6_blast(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """What one job's restarts cost others is bounded."""
    return _budget(look, memory, plan, policy, blast=True)


def i7_ownership(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """Nobody else's drain is cleared or written over, and nobody else's reservation deleted."""
    found = [Violation(rule="I7", act=act, why=why) for act, why in rules.ownership(look, memory, plan)]
    for act in plan.acts:
        if act.kind is Kind.FREE and keeping.read(act.reservation) is None:
            found.append(Violation(rule="I7", act=act, why=f"the reservation {act.reservation!r} is not ours"))
        for name in act.nodes:
            node, record = look.nodes.get(name), memory.nodes.get(name)
            if node is None:
                found.append(Violation(rule="I7", act=act, why=f"there is no node {name}"))
            elif act.kind is Kind.DRAIN and snapshot.drained(node):
                found.append(Violation(rule="I7", act=act, why=f"{name} is drained already: {node.reason}"))
            elif act.kind in (Kind.RESUME, Kind.VERIFY):
                ours = node.reason == act.expected_reason and node.reason.startswith(MARK)
                if not ours or record is None or record.reason != node.reason:
                    found.append(Violation(rule="I7", act=act, why=f"{name} has the reason {node.reason!r}"))
    return found


def i8_proof(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """A node comes back only with a proof that is newer than its drain."""
    found = [Violation(rule="I8", act=act, why=why) for act, why in rules.proof(memory, plan, policy)]
    return found + [
        Violation(rule="I8", act=act, why=f"{name} has not passed since it was drained")
        for act in plan.acts
        if act.kind is Kind.RESUME and act.cause != CAUSE
        for name in act.nodes
        if name not in memory.nodes or not returning.proven(memory.nodes[name], policy)
    ]


def i9_no_bad_node_again(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """No job is let start where a check says that nothing can run."""
    certain = exclusions.certain(look, policy)
    found = []
    for act in plan.acts:
        if act.kind is Kind.RELEASE and act.job_id in look.jobs:
            current = snapshot.members(look.jobs[act.job_id].excluded_nodes)
            excluded = frozenset(act.exclude) if act.exclude is not None else current
            if left := [name for name in certain if name not in excluded]:
                found.append(Violation(rule="I9", act=act, why=f"it could start on {left[0]}"))
    return found


def i10_exclusions(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """Exclusions are few, and the job can still be placed."""
    found = []
    for act in plan.acts:
        if act.exclude is None or act.job_id not in look.jobs:
            continue
        job = look.jobs[act.job_id]
        usable = exclusions.eligible(look, job)
        ours = sum(1 for name in act.ours if _serving(look, name))
        if ours > max(1, int(policy.requeue.exclude_share * usable)):
            found.append(Violation(rule="I10", act=act, why=f"{ours} of {usable} nodes would be excluded"))
        lost = sum(1 for name in act.exclude if _serving(look, name))
        if ours and usable - lost < max(1, job.node_count):
            found.append(Violation(rule="I10", act=act, why=f"{usable - lost} of {job.node_count} nodes would be left"))
    return found


def i11_fresh(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """Nothing is done on a view that is older than two ticks, or that was never taken in."""
    age_s = plan.at - look.at
    if 0 <= age_s <= 2 * policy.tick_s and memory.at == look.at:
        return []
    return [Violation(rule="I11", act=act, why=f"the view is {age_s:.0f} s old") for act in plan.acts]


def i12_one_holder(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> list[Violation]:
    """One act at a time on a host or job; locks are taken in sorted order."""
    taken = set(memory.open_targets)
    found = []
    for act in plan.acts:
        if clash := taken.intersection(act.targets):
            found.append(Violation(rule="I12", act=act, why=f"{min(clash)} is another's"))
        if list(act.nodes) != sorted(set(act.nodes)):
            found.append(Violation(rule="I12", act=act, why="its nodes are not in order"))
        taken.update(act.targets)
    return found


RULES: tuple[Callable[[Snapshot, Memory, Plan, Policy], list[Violation]], ...] = (
    i1_guarantee,
    i2_cap,
    i3_breaker,
    i4_attempts,
    i5_loops,
    i6_blast,
    i7_ownership,
    i8_proof,
    i9_no_bad_node_again,
    i10_exclusions,
    i11_fresh,
    i12_one_holder,
)


def violations(look: Snapshot, memory: Memory, plan: Plan, policy: Policy) -> tuple[Violation, ...]:
    """Every rule that an act of the plan breaks, with the acts before it done."""
    return tuple(found for rule in RULES for found in rule(look, memory, plan, policy))
