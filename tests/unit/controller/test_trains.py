"""Trains: the promise holds at every moment, every host is visited once, no rule is broken, whatever the fleet does."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.controller import effects, snapshot
from trainmaster.controller.acts import Act, Kind, Plan
from trainmaster.controller.decide import decide, observe
from trainmaster.controller.invariants import violations
from trainmaster.controller.maintenance import after, visit
from trainmaster.controller.maintenance import catalogue as catalogues
from trainmaster.controller.maintenance.catalogue import Catalogue, Executor, Operation
from trainmaster.controller.maintenance.limits import Checks, Contract, MaintenancePolicy, Rollout
from trainmaster.controller.maintenance.orders import Order, obey
from trainmaster.controller.maintenance.state import Host, Maintenance, Stage
from trainmaster.controller.memory import Memory, NodeRecord, NodeState
from trainmaster.controller.policy import Drains, Guarantee, Policy
from trainmaster.controller.sim.maintenance import simulate_maintenance
from trainmaster.controller.sim.maintenance_world import MaintenanceWorld
from trainmaster.errors import UsageError
from trainmaster.slurm.values import Job, Node

SMALL = MaintenanceWorld(nodes=64, giant_share=0.8, small_share=0.1, cycle_days=6.0, tick_s=60.0)


def test_every_host_is_visited_once_and_the_promise_holds() -> None:
    tally = simulate_maintenance(SMALL, seed=1, check_rules=True)
    assert (tally.guarantee_violations, tally.rules_broken) == (0, 0)
    assert tally.visited == tally.nodes and tally.drains == tally.nodes
    assert tally.days <= SMALL.cycle_days and tally.hurt == 0
    assert tally.operations_h > 0 and tally.out_h >= tally.operations_h


def test_the_promise_holds_when_far_more_fails_than_was_thought() -> None:
    tally = simulate_maintenance(replace(SMALL, failures_per_1000_node_days=60.0), seed=2, check_rules=True)
    assert tally.failures > 10
    assert (tally.guarantee_violations, tally.rules_broken) == (0, 0)
    assert tally.least_available < SMALL.nodes - tally.domain


def test_a_train_that_waits_for_restarts_interrupts_less_than_one_that_does_not() -> None:
    world = replace(SMALL, failures_per_1000_node_days=250.0, persistent=0.05)
    patient = simulate_maintenance(world, seed=3)
    rolling = simulate_maintenance(replace(world, patient=False), seed=3)
    # Two nodes are in repair at any time, and may be when the cycle ends.
    assert min(patient.visited, rolling.visited) >= world.nodes - 4
    assert patient.planned_giant < rolling.planned_giant / 2
    assert patient.loss_over_lower_bound < rolling.loss_over_lower_bound


def test_a_bad_operation_is_taken_off_before_it_has_hurt_many() -> None:
    tally = simulate_maintenance(replace(SMALL, nodes=128, bad_operation="bios", bad_share=0.3), seed=4)
    assert tally.off_boarded == ("bios",)
    assert 1 <= tally.hurt <= 8
    assert tally.guarantee_violations == 0
    assert tally.visited >= 126


def test_the_same_seed_gives_the_same_course() -> None:
    world = replace(SMALL, nodes=48)
    assert simulate_maintenance(world, seed=5) == simulate_maintenance(world, seed=5)


# Steps of hosts, on fleets that are drawn.

NAMES = [f"n{number:02}" for number in range(1, 17)]
LEAF_OF = {name: f"leaf{index // 4}" for index, name in enumerate(NAMES)}
RUN = Executor(kind="command", argv=("true",))
CATALOGUE = Catalogue(
    components={"driver": catalogues.Component(stack=True), "switch": catalogues.Component()},
    operations={
        "driver": Operation(executor=RUN, upgrades={"driver": "2"}, needs_reboot=True),
        "leaf": Operation(executor=RUN, scope="leaf", upgrades={"switch": "7"}),
        "wipe": Operation(executor=RUN, after=("reboot",)),
        "reboot": Operation(executor=Executor(kind="reboot")),
        "facts": Operation(executor=Executor(kind="srun", script="/facts"), disruptive=False),
    },
)
CATALOGUE = Catalogue(
    components=CATALOGUE.components, operations=CATALOGUE.operations, order=catalogues.order(CATALOGUE)
)
RULES = MaintenancePolicy(
    registry=CATALOGUE,
    inventory=("inventory", "{nodes}"),
    checks=Checks(quick=("quick",), soak=("soak",)),
    contract=Contract(grace_s=50.0, deferral_s=1000.0),
    rollout=Rollout(canary=4, shares=(), soak_s=(100.0,)),
    domain="4",
    cycle_days=1.0,
)
POLICY = Policy(
    maintenance=RULES, drains=Drains(share_max=0.5), guarantee={"batch": Guarantee(nodes=9, failure_buffer=1)}
)


class Fleet:
    """A hand-cranked cluster: acts are done at once, commands of trains when `finish` is called."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.now = 1e6
        self.nodes = {name: Node(name=name, state="IDLE", partitions=("batch",)) for name in NAMES}
        self.jobs: dict[int, Job] = {}
        self.versions = {name: {"driver": "1", "switch": "6"} for name in NAMES}
        self.memory = Memory()
        self.open: list[Act] = []
        self.log: list[Act] = []
        self.lies: set[str] = set()
        """Hosts whose operations end well and change nothing."""

    def look(self) -> snapshot.Snapshot:
        return snapshot.of(at=self.now, nodes=self.nodes.values(), jobs=self.jobs.values(), leaf_of=LEAF_OF)

    def order(self, verb: str, *operations: str, **values: object) -> None:
        order = Order(verb=verb, train="spring", operations=operations, by="alice", **values)  # type: ignore[arg-type]
        self.memory = obey(self.memory, order, self.policy, self.look(), self.now)

    def run(self, job_id: int, hosts: str, **values: object) -> None:
        fields = {"partition": "batch", "state": "RUNNING", "nodes": hosts, "start_time": self.now}
        self.jobs[job_id] = Job(job_id=job_id, **(fields | values))  # type: ignore[arg-type]
        for name in snapshot.members(hosts):
            self.state(name, base="ALLOCATED")

    def leave(self, job_id: int) -> None:
        for name in snapshot.members(self.jobs.pop(job_id).nodes):
            self.state(name, base="IDLE")

    def state(self, name: str, base: str | None = None, drain: str | None = None, booked: bool | None = None) -> None:
        node = self.nodes[name]
        words = node.state.split("+")
        reason = node.reason if drain is None else drain
        reserved = "MAINTENANCE" in words if booked is None else booked
        parts = [base or words[0], *(["MAINTENANCE"] if reserved else []), *(["DRAIN"] if reason else [])]
        self.nodes[name] = replace(node, state="+".join(parts), reason=reason)

    def tick(self, after_s: float = 10.0) -> Plan:
        self.now += after_s
        look = self.look()
        self.memory = observe(look, self.memory, self.policy, self.now)
        targets = frozenset(target for act in self.open for target in act.targets)
        self.memory = replace(self.memory, open_targets=targets)
        plan = decide(look, self.memory, self.policy, self.now)
        assert violations(look, self.memory, plan, self.policy) == ()
        for act in plan.acts:
            self.log.append(act)
            if act.kind in (Kind.OPERATE, Kind.REBOOT, Kind.INSPECT, Kind.CHECK):
                self.open.append(act)
                continue
            for name in act.nodes:
                if act.kind is Kind.BOOK:
                    self.state(name, booked=True)
                elif act.kind is Kind.UNBOOK:
                    self.state(name, booked=False)
                elif act.kind is Kind.DRAIN:
                    self.state(name, drain=act.reason)
                elif act.kind is Kind.RESUME:
                    self.state(name, drain="")
                elif act.kind is Kind.LABEL:
                    self.nodes[name] = replace(self.nodes[name], features=(act.work,))
            if act.kind is Kind.REQUEUE:
                self.leave(act.job_id)
            self.memory = effects.done(self.memory, act, self.now)
        return plan

    def finish(self, *failing: str) -> None:
        """Every command that is under way ends; those of these operations or tiers end badly."""
        for act in self.open:
            operation = act.work.partition("@")[0]
            ok, said = operation not in failing, "as the test wants it"
            if act.kind is Kind.INSPECT:
                said = "\n".join(
                    f"{name} {one} {two}" for name in act.nodes for one, two in self.versions[name].items()
                )
            elif act.kind in (Kind.OPERATE, Kind.REBOOT) and ok:
                for name in act.nodes:
                    if name not in self.lies:
                        self.versions[name].update(CATALOGUE.operations[operation].upgrades)
            self.memory = after.reported(self.memory, act, self.policy.maintenance, self.now, ok=ok, said=said)
        self.open = []

    def until_over(self, ticks: int = 400) -> None:
        for _ in range(ticks):
            self.tick()
            self.finish()
            if not self.train.active:
                return
        raise AssertionError(f"never over: {self.memory.maintenance}")

    @property
    def train(self):  # type: ignore[no-untyped-def]
        return self.memory.maintenance.trains["spring"]

    def stages(self) -> dict[str, Stage]:
        state = self.memory.maintenance
        return {name: host.stage for name, host in (*state.past.items(), *state.hosts.items())}

    def kinds(self, name: str) -> list[str]:
        return [f"{act.kind} {act.work}".strip() for act in self.log if name in act.nodes]


def test_a_host_goes_through_all_that_is_due_in_one_drain_and_in_order() -> None:
    fleet = Fleet()
    fleet.order("start", "driver", "wipe", "facts")
    fleet.until_over()
    assert set(fleet.stages().values()) == {Stage.DONE} and len(fleet.stages()) == len(NAMES)
    assert fleet.kinds("n05") == [
        # What is there decides what is due, and what is seen afterwards whether it may return.
        *(
            "book",
            "drain",
            "inspect",
            "operate driver",
            "reboot reboot",
            "operate wipe",
            "inspect",
            "check quick",
            "check soak",
        ),
        *(f"label {fleet.nodes['n05'].features[0]}", "resume", "operate facts", "unbook"),
    ]
    assert {node.state for node in fleet.nodes.values()} == {"IDLE"}
    # One reservation for each car, and all of them gone.
    assert sum(act.kind is Kind.BOOK for act in fleet.log) >= 4
    assert not fleet.memory.maintenance.reservations


def test_canaries_come_first_and_are_watched() -> None:
    fleet = Fleet(replace_rules(rollout=Rollout(canary=1, shares=(0.25,), soak_s=(1000.0,)), domain="8"))
    fleet.order("start", "driver")
    sizes = []
    for _ in range(600):
        plan = fleet.tick()
        fleet.finish()
        sizes += [(len(act.nodes), fleet.now) for act in plan.acts if act.kind is Kind.BOOK]
        if not fleet.train.active:
            break
    # 9 of 16 are promised and one is kept for failures, so no more than 6 are ever out, of the 8 that it may take.
    assert [size for size, _ in sizes] == [1, 3, 6, 6]
    assert sizes[1][1] - sizes[0][1] > 1000.0 and sizes[2][1] - sizes[1][1] > 1000.0


def replace_rules(**values: object) -> Policy:
    import msgspec

    rules = msgspec.structs.replace(RULES, **values)  # type: ignore[arg-type]
    return msgspec.structs.replace(POLICY, maintenance=rules)


def test_what_hosts_share_waits_for_all_of_them() -> None:
    fleet = Fleet()
    fleet.order("start", "driver", "leaf")
    assert (fleet.train.unit, fleet.train.domain) == ("leaf", 4)
    fleet.run(7, "n02")
    for _ in range(12):
        fleet.tick()
        fleet.finish()
    # The first unit has nothing running on it; the switch above n02 is not touched while a job is there.
    touched = {act.work: act.nodes for act in fleet.log if act.kind is Kind.OPERATE and act.work.startswith("leaf@")}
    assert touched and all(len(nodes) == 4 for nodes in touched.values())
    assert "leaf@leaf0" not in touched
    fleet.leave(7)
    fleet.until_over()
    assert all(versions == {"driver": "2", "switch": "7"} for versions in fleet.versions.values())


def test_an_operation_that_ends_well_and_changes_nothing_is_found_out() -> None:
    fleet = Fleet()
    fleet.order("start", "driver")
    fleet.lies = {"n01"}
    for _ in range(12):
        fleet.tick()
        fleet.finish()
    assert fleet.stages()["n01"] is Stage.FAILED
    assert "driver is 1 and not 2" in fleet.memory.nodes["n01"].why
    assert fleet.memory.nodes["n01"].state is NodeState.REPAIR
    assert "DRAIN" in fleet.nodes["n01"].state
    assert "driver" in fleet.train.off


def test_a_failing_canary_takes_the_operation_off_and_the_rest_goes_on() -> None:
    fleet = Fleet()
    fleet.order("start", "driver", "wipe")
    for _ in range(30):
        fleet.finish()
        fleet.tick()
        if any(act.work == "wipe" for act in fleet.open):
            break
    fleet.finish("wipe")
    assert list(fleet.train.off) == ["wipe"]
    hurt = [name for name, stage in fleet.stages().items() if stage is Stage.FAILED]
    assert 1 <= len(hurt) <= 4
    fleet.until_over()
    assert sum(act.work == "wipe" for act in fleet.log) == len(hurt)
    assert all(fleet.versions[name]["driver"] == "2" for name in NAMES)


def test_a_host_that_failed_is_worked_on_again_when_a_person_releases_it() -> None:
    fleet = Fleet()
    fleet.order("start", "driver")
    fleet.lies = {"n01"}
    for _ in range(12):
        fleet.tick()
        fleet.finish()
    fleet.order("resume")
    fleet.lies = set()
    record = fleet.memory.nodes["n01"]
    fleet.memory = replace(fleet.memory, nodes={**fleet.memory.nodes, "n01": replace(record, released=True)})
    fleet.memory = replace(
        fleet.memory,
        maintenance=replace(fleet.memory.maintenance, trains={"spring": replace(fleet.train, off={})}),
    )
    fleet.until_over()
    assert fleet.stages()["n01"] is Stage.DONE
    assert fleet.versions["n01"]["driver"] == "2" and fleet.nodes["n01"].state == "IDLE"


def test_a_job_is_left_alone_until_the_cycle_needs_its_hosts_then_asked_then_put_back() -> None:
    fleet = Fleet()
    fleet.run(7, "n[01-16]", comment="maintenance-signal=USR1 maintenance-grace=200 maintenance-deferrals=1")
    fleet.order("start", "driver")
    fleet.tick()
    fleet.tick()
    assert sum("DRAIN" in node.state for node in fleet.nodes.values()) == 4
    # A quarter of the hosts is in hand: for the others twice the time of three cars has to be left before the margin.
    usable_s, car_s = 0.95 * 86400.0, visit.lasts_s(RULES, ["driver", "reboot"]) + RULES.contract.grace_s
    wanted_s = max(0.25 * usable_s, usable_s - 2.0 * 3 * car_s)
    asked = []
    for _ in range(800):
        plan = fleet.tick(100.0)
        asked += [(act.kind, act.signal, fleet.now) for act in plan.acts if act.job_id == 7]
        if 7 not in fleet.jobs:
            break
    assert [(kind, signal) for kind, signal, _ in asked] == [(Kind.NOTIFY, "USR1"), (Kind.REQUEUE, "")]
    # And once it is put off, as it asked for.
    assert wanted_s + 1000.0 <= asked[0][2] - 1e6 <= wanted_s + 1300.0
    assert 200.0 <= asked[1][2] - asked[0][2] <= 300.0


def test_a_restart_is_taken_as_the_occasion() -> None:
    fleet = Fleet(replace_rules(contract=Contract(notice_s=80000.0)))
    fleet.run(7, "n[01-14]")
    fleet.order("start", "driver")
    for _ in range(8):
        fleet.tick()
        fleet.finish()
    drained = [name for name, node in fleet.nodes.items() if "DRAIN" in node.state]
    assert drained and not any(act.kind is Kind.REQUEUE for act in fleet.log)
    fleet.leave(7)
    fleet.run(7, ",".join(sorted(set(NAMES) - set(drained))), restarts=1)
    for _ in range(12):
        fleet.tick()
        fleet.finish()
    assert all(fleet.versions[name]["driver"] == "2" for name in drained)
    assert not any(act.kind in (Kind.REQUEUE, Kind.NOTIFY) for act in fleet.log)


def test_a_job_that_must_not_be_requeued_is_waited_for() -> None:
    fleet = Fleet()
    fleet.run(7, "n[01-16]", requeue=False)
    fleet.order("start", "driver")
    for _ in range(80):
        plan = fleet.tick(1000.0)
    assert not any(act.kind is Kind.REQUEUE for act in fleet.log)
    assert any(one.rule == "I4" and "--no-requeue" in one.why for one in plan.refused)


def test_a_job_that_left_hosts_without_a_requeue_is_warned_again_before_it_has_to_leave_others() -> None:
    """Its first notice was taken for one of these too, so it was put back without a warning."""
    fleet = Fleet()
    launcher = {"std_out": "/shared/jobs/7/batch.out"}
    fleet.run(7, "n[01-16]", **launcher)
    fleet.order("start", "driver")
    asked: list[Kind] = []
    for _ in range(2000):
        now = [act.kind for act in fleet.tick(50.0).acts if act.job_id == 7]
        asked += now
        fleet.finish()
        if now == [Kind.NOTIFY]:
            # Spares take over; the job has new ones from those that came back.
            stays = [name for name, node in fleet.nodes.items() if "DRAIN" not in node.state]
            fleet.leave(7)
            fleet.run(7, ",".join(stays), **launcher)
        if not fleet.train.active:
            break
    assert len(asked) >= 3 and set(asked) == {Kind.NOTIFY}
    assert all(fleet.versions[name]["driver"] == "2" for name in NAMES)


def test_a_node_that_was_brought_to_a_job_is_asked_back_although_nothing_requeues_it() -> None:
    fleet = Fleet()
    fleet.run(7, "n[01-16]", requeue=False, std_out="/shared/jobs/6/refill.out")
    fleet.order("start", "driver")
    for _ in range(80):
        plan = fleet.tick(1000.0)
    told = [(act.kind, act.signal, act.batch) for act in fleet.log if act.job_id == 7]
    assert told == [(Kind.NOTIFY, "USR2", True)]
    assert any(one.rule == "I4" for one in plan.refused)


def test_paused_it_gives_back_what_it_has_not_touched_and_finishes_what_it_has() -> None:
    fleet = Fleet()
    fleet.run(7, "n[03-16]")
    fleet.order("start", "driver")
    for _ in range(12):
        fleet.finish()
        fleet.tick()
        if any(act.kind is Kind.REBOOT for act in fleet.open):
            break
    fleet.finish()
    working = {name for name in fleet.stages() if fleet.memory.maintenance.hosts[name].done}
    assert working == {"n01", "n02"}
    fleet.order("pause", why="power works")
    for _ in range(12):
        fleet.tick()
        fleet.finish()
    assert {name for name, stage in fleet.stages().items() if stage is Stage.DONE} == working
    assert not any("DRAIN" in node.state for node in fleet.nodes.values())
    assert not any("MAINTENANCE" in node.state for node in fleet.nodes.values())
    fleet.leave(7)
    fleet.order("resume")
    fleet.until_over()
    assert set(fleet.stages().values()) == {Stage.DONE}


def test_failures_that_eat_the_promise_get_untouched_hosts_back_at_once() -> None:
    fleet = Fleet()
    fleet.run(7, "n[01-16]")
    fleet.order("start", "driver")
    fleet.tick()
    fleet.tick()
    out = {name for name, node in fleet.nodes.items() if "DRAIN" in node.state}
    assert len(out) == 4
    for name in sorted(set(NAMES) - out)[:4]:
        fleet.state(name, drain="[HC] gpu.ecc: 5")
    fleet.tick()
    assert not any("train:" in node.reason for node in fleet.nodes.values())
    # While that many are missing it takes nothing more.
    fleet.tick()
    assert not any(act.kind is Kind.BOOK for act in fleet.log[-3:])


def test_a_host_that_somebody_takes_over_is_theirs() -> None:
    fleet = Fleet()
    fleet.order("start", "driver")
    for _ in range(3):
        fleet.tick()
    fleet.state("n01", drain="bob: new cable")
    fleet.state("n02", drain="")
    fleet.tick()
    assert fleet.stages()["n01"] is Stage.LEFT and "bob" in fleet.memory.maintenance.past["n01"].why
    assert fleet.stages()["n02"] is Stage.LEFT
    fleet.finish()
    fleet.until_over()
    assert fleet.nodes["n01"].reason == "bob: new cable"


def test_an_emergency_goes_first_and_breaks_the_glass_only_when_told() -> None:
    tight = Policy(maintenance=RULES, drains=Drains(share_max=0.5), guarantee={"batch": Guarantee(nodes=16)})
    for break_glass in (False, True):
        fleet = Fleet(tight)
        fleet.order("emergency", "driver", break_glass=break_glass)
        plan = fleet.tick()
        booked = [act for act in plan.acts if act.kind is Kind.BOOK]
        assert bool(booked) is break_glass
        assert any(one.rule == "I1" for one in plan.refused) is not break_glass


def test_a_regression_stops_the_train_before_the_next_phase() -> None:
    fleet = Fleet()
    fleet.order("start", "driver")
    for _ in range(100):
        fleet.tick()
        fleet.finish()
        if fleet.train.full_at is not None:
            break
    came_back = [name for name, stage in fleet.stages().items() if stage is Stage.DONE]
    fleet.state(came_back[0], drain="[HC] ib.state: down")
    fleet.tick()
    assert fleet.train.paused.startswith("regression: 1 of 4")
    for _ in range(30):
        fleet.tick()
    assert fleet.train.visited == 4


def test_a_train_needs_what_verifies_it() -> None:
    for values, said in (
        ({"registry": None}, "no catalogue"),
        ({"inventory": ()}, "which versions"),
        ({"checks": Checks()}, "nothing verifies"),
    ):
        with pytest.raises(UsageError, match=said):
            Fleet(replace_rules(**values)).order("start", "driver")
    with pytest.raises(UsageError, match="no operation brake"):
        Fleet().order("start", "brake")


# The rules, each with an act that breaks it.


def in_hand(**values: object) -> tuple[snapshot.Snapshot, Memory]:
    host = Host(**({"name": "n01", "train": "t", "car": 1, "stage": Stage.RETURNING, "since": 1.0} | values))  # type: ignore[arg-type]
    look = snapshot.of(at=10.0, nodes=[Node(name="n01", state="IDLE+DRAIN", reason="[TM] train: t car 1 #1")], jobs=[])
    record = NodeRecord(name="n01", state=NodeState.MAINTENANCE, reason="[TM] train: t car 1 #1", drained_at=2.0)
    return look, Memory(at=10.0, nodes={"n01": record}, maintenance=Maintenance(hosts={"n01": host}))


@pytest.mark.parametrize(
    ("values", "broken"),
    [
        ({"worked_at": 5.0, "inspected_at": 6.0, "tier": 3}, False),
        ({"worked_at": 5.0, "inspected_at": 4.0, "tier": 3}, True),
        ({"worked_at": 5.0, "inspected_at": None, "tier": 3}, True),
        ({"worked_at": 5.0, "inspected_at": 6.0, "tier": 2}, True),
        ({"worked_at": 5.0, "inspected_at": 6.0, "tier": 3, "done": ("driver",)}, True),
        ({"stage": Stage.DRAINING}, False),
    ],
)
def test_nothing_returns_unproven(values: dict[str, object], broken: bool) -> None:
    look, memory = in_hand(**values)
    act = Act(
        kind=Kind.RESUME, cause="train", why="", nodes=("n01",), expected_reason="[TM] train: t car 1 #1", train="t"
    )
    found = violations(look, memory, Plan(at=10.0, acts=(act,)), POLICY)
    assert [one.rule for one in found] == (["I8"] if broken else [])


def test_nothing_is_done_to_a_host_on_which_something_runs_or_that_is_not_ours() -> None:
    look, memory = in_hand(stage=Stage.WORKING)
    act = Act(kind=Kind.OPERATE, cause="train", why="", nodes=("n01",), expected_reason="[TM] train: t car 1 #1")
    assert violations(look, memory, Plan(at=10.0, acts=(act,)), POLICY) == ()
    for state, reason in (("ALLOCATED+DRAIN", "[TM] train: t car 1 #1"), ("IDLE+DRAIN", "bob"), ("IDLE", "")):
        seen = snapshot.of(at=10.0, nodes=[Node(name="n01", state=state, reason=reason)], jobs=[])
        assert [one.rule for one in violations(seen, memory, Plan(at=10.0, acts=(act,)), POLICY)] == ["I7"]


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "finish", "fail", "drain", "heal", "job", "end", "pause", "resume", "down"]),
        st.sampled_from(NAMES),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(HAPPENINGS, st.sampled_from([("driver",), ("driver", "wipe", "facts"), ("driver", "leaf")]))
def test_whatever_happens_no_rule_is_broken_and_the_train_comes_through(
    happenings: list[tuple[str, str]], operations: tuple[str, ...]
) -> None:
    fleet = Fleet()
    fleet.order("start", *operations)
    number = 10
    for what, name in happenings:
        if what in ("pause", "resume") and fleet.train.active:
            fleet.order(what)
        elif what == "fail":
            fleet.finish(*operations)
        elif what == "finish":
            fleet.finish()
        elif what == "drain" and not fleet.nodes[name].reason:
            fleet.state(name, drain="bob")
        elif what == "heal":
            fleet.state(name, base="IDLE" if fleet.nodes[name].state.startswith("DOWN") else None)
            if fleet.nodes[name].reason == "bob":
                fleet.state(name, drain="")
        elif what == "down" and fleet.nodes[name].state.startswith("IDLE"):
            fleet.state(name, base="DOWN")
        elif what == "job" and fleet.nodes[name].state == "IDLE":
            number += 1
            fleet.run(number, name)
        elif what == "end":
            for job_id in [job_id for job_id, job in fleet.jobs.items() if job.nodes == name]:
                fleet.leave(job_id)
        planned = [node for node in fleet.nodes.values() if "train:" in node.reason or "MAINTENANCE" in node.state]
        fleet.tick()  # asserts that no rule is broken
        assert len(planned) <= 8
    # Then nothing more happens, everybody is let go and looked at: it comes to an end by itself, and cleans up.
    for job_id in list(fleet.jobs):
        fleet.leave(job_id)
    for name in NAMES:
        fleet.state(name, base="IDLE")
        if fleet.nodes[name].reason == "bob":
            fleet.state(name, drain="")
    if fleet.train.active:
        fleet.order("resume")
    for _ in range(400):
        if not fleet.train.active and not fleet.memory.maintenance.reservations:
            break
        fleet.tick(600.0)
        fleet.finish()
    state = fleet.memory.maintenance
    assert not fleet.train.active and not state.hosts and not state.reservations
    for name, node in fleet.nodes.items():
        host = state.past.get(name)
        if node.state != "IDLE":
            assert host is not None and host.stage in (Stage.FAILED, Stage.LEFT), (name, node, host)
        elif host is not None and host.stage is Stage.DONE and not fleet.train.off:
            assert fleet.versions[name]["driver"] == "2"
