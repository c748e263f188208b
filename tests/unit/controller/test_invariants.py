"""The twelve rules: no plan breaks one, whatever the fleet does; and each catches the act that it is there for."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.controller import effects, snapshot
from trainmaster.controller.acts import Act, Kind, Plan
from trainmaster.controller.decide import decide, observe
from trainmaster.controller.invariants import violations
from trainmaster.controller.memory import Drain, Evidence, JobRecord, Memory, NodeRecord, NodeState, Severity, Try
from trainmaster.controller.policy import Drains, Guarantee, Policy, Requeue
from trainmaster.slurm.values import Job, Node

NAMES = [f"n{number:02}" for number in range(1, 25)]
LEAF_OF = {name: f"leaf{index // 8}" for index, name in enumerate(NAMES)}
FATAL, OURS = "[HC] gpu.present: gone", "[TM] flap: x #1"
REASONS = ["", "Not responding", FATAL, "[HC] disk.full: /tmp", "bob", "Kill task failed", OURS]
STATES = ["IDLE", "ALLOCATED", "MIXED", "DOWN", "IDLE*", "IDLE+DRAIN", "ALLOCATED+DRAIN", "DOWN+DRAIN"]
POLICIES = [
    Policy(),
    Policy(guarantee={"batch": Guarantee(nodes=18, failure_buffer=2)}),
    Policy(drains=Drains(share_max=0.2, falls_max=1), requeue=Requeue(loops_max=1, blast_node_hours=2.0)),
]

nodes = st.fixed_dictionaries({name: st.tuples(st.sampled_from(STATES), st.sampled_from(REASONS)) for name in NAMES})
jobs = st.lists(
    st.builds(
        Job,
        job_id=st.integers(1, 4),
        state=st.sampled_from(["RUNNING", "PENDING", "COMPLETED", "FAILED", "COMPLETING", "CANCELLED"]),
        reason=st.sampled_from(["", "BeginTime", "Resources", "JobHeldUser", "launch failed requeued held"]),
        restarts=st.integers(0, 6),
        requeue=st.booleans(),
        partition=st.just("batch"),
        node_count=st.integers(1, 20),
        start_time=st.one_of(st.none(), st.floats(0, 1e4)),
        eligible_time=st.one_of(st.none(), st.floats(0, 2e4)),
        preempt_time=st.one_of(st.none(), st.floats(0, 2e4)),
        excluded_nodes=st.sampled_from(["", "n01", "n[01-20]"]),
        comment=st.sampled_from(["", "checkpoint=USR2"]),
    ),
    max_size=4,
    unique_by=lambda job: job.job_id,
)
spans = st.sampled_from(["n[01-04]", "n[05-12]", "n[13-24]", "n24"])
reports = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.5, 1.0]), max_size=6)


def view(at: float, states: dict, known: list[Job], span: str) -> snapshot.Snapshot:
    holding = [replace(job, nodes=span if job.state in ("RUNNING", "COMPLETING") else "") for job in known]
    return snapshot.of(
        at=at,
        nodes=[
            Node(name=n, state=state, reason=reason, partitions=("batch",)) for n, (state, reason) in states.items()
        ],
        jobs=holding,
        leaf_of=LEAF_OF,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(nodes, jobs, spans, reports, st.sampled_from([5.0, 300.0, 7200.0])), min_size=1, max_size=6),
    st.sampled_from(POLICIES),
)
def test_no_plan_breaks_a_rule(looks, policy) -> None:
    memory, now = Memory(), 0.0
    for states, known, span, told, pause_s in looks:
        now += pause_s
        look = view(now, states, known, span)
        reported = {
            name: [
                Evidence(
                    at=now, kind="quarantine" if w == 1.0 else "suspect", what="x", weight=w, severity=Severity.MEDIUM
                )
            ]
            for name, w in told.items()
        }
        memory = observe(look, memory, policy, now, reported)
        plan = decide(look, memory, policy, now)
        assert violations(look, memory, plan, policy) == ()
        assert len(plan.acts) <= policy.acts_max
        assert decide(look, memory, policy, now) == plan  # the same look, the same plan, the same ids
        for act in plan.acts:
            memory = effects.done(memory, act, now, ok=bool(len(act.id) % 2))


# Each rule, and an act that breaks it.
AT = 1000.0
FLEET = dict.fromkeys(NAMES, ("IDLE", ""))
DRAIN = Act(kind=Kind.DRAIN, cause="flap", why="x", nodes=("n01",), planned=True)
RESUME = Act(kind=Kind.RESUME, cause="v", why="x", nodes=("n01",), expected_reason=OURS)
RELEASE = Act(kind=Kind.RELEASE, cause="node_fail", why="x", job_id=1, restarts=1)
WAITS = Job(job_id=1, state="PENDING", restarts=1, partition="batch", node_count=4, reason="BeginTime")
MANY = tuple(Drain(at=AT, node=name, cause=name, by="us") for name in NAMES[10:13])
LOOPING = JobRecord(job_id=1, tries=tuple(Try(at=AT, restarts=k, cause="node_fail", ran_s=1.0) for k in range(5)))
DRAINED = {**FLEET, "n01": ("IDLE+DRAIN", OURS)}
RECORD = NodeRecord(name="n01", state=NodeState.QUARANTINED, reason=OURS, drained_at=10.0)
PROVEN = replace(RECORD, proof_at=20.0)
CASES = {
    "I1": (FLEET, [], Memory(), DRAIN, Policy(guarantee={"batch": Guarantee(nodes=24)})),
    "I2": (DRAINED, [], Memory(nodes={"n01": RECORD}), replace(DRAIN, nodes=("n02",)), Policy()),
    "I3": (FLEET, [], Memory(drains=MANY), DRAIN, Policy()),
    "I4": (FLEET, [replace(WAITS, state="COMPLETED")], Memory(), replace(RELEASE, kind=Kind.REQUEUE), Policy()),
    "I5": (FLEET, [WAITS], Memory(jobs={1: LOOPING}), RELEASE, Policy()),
    "I6": (FLEET, [WAITS], Memory(jobs={1: JobRecord(job_id=1, blast=((AT, 1e5),))}), RELEASE, Policy()),
    "I7": ({**FLEET, "n01": ("IDLE+DRAIN", "bob")}, [], Memory(nodes={"n01": PROVEN}), RESUME, Policy()),
    "I8": (DRAINED, [], Memory(nodes={"n01": replace(RECORD, proof_at=9.0)}), RESUME, Policy()),
    "I9": ({**FLEET, "n03": ("IDLE", "[HC] gpu.present: gone")}, [WAITS], Memory(), RELEASE, Policy()),
    "I10": (FLEET, [WAITS], Memory(), replace(RELEASE, exclude=tuple(NAMES[:9]), ours=tuple(NAMES[:9])), Policy()),
    "I12": (FLEET, [], Memory(open_targets=frozenset({"node:n01"})), DRAIN, Policy()),
}  # fmt: skip


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_catches_the_act_that_it_is_there_for(rule: str) -> None:
    states, known, memory, act, policy = CASES[rule]
    look = view(AT, states, known, "n24")
    found = violations(look, replace(memory, at=AT), Plan(at=AT, acts=(act,)), policy)
    assert {one.rule for one in found} == {rule}


def test_nothing_is_done_on_a_stale_view() -> None:
    look = view(AT, FLEET, [], "n24")
    plan = Plan(at=AT + 21.0, acts=(DRAIN,))
    assert {one.rule for one in violations(look, Memory(at=AT), plan, Policy(tick_s=10.0))} == {"I11"}
    # A clock that was set back makes a view from the future, and that is no better.
    assert violations(look, Memory(at=AT), replace(plan, at=AT - 1.0), Policy())[0].rule == "I11"
