"""A maintenance train through a fleet of numbers: one giant job, smaller ones beside it, failures, and the daemon's
own `decide`. Whether the promise is kept is counted here, apart from what the controller believes.
"""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from trainmaster.controller import effects, snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.decide import decide, observe
from trainmaster.controller.invariants import violations
from trainmaster.controller.maintenance import after
from trainmaster.controller.maintenance import catalogue as catalogues
from trainmaster.controller.maintenance.limits import Checks, Contract, MaintenancePolicy, Rollout
from trainmaster.controller.maintenance.orders import Order, obey
from trainmaster.controller.maintenance.state import Stage
from trainmaster.controller.memory import Memory
from trainmaster.controller.policy import Drains, Guarantee, Modes, Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job, Node

DAY_S = 86400.0
T0 = 1e9
GIANT = 1
PARTITION = "batch"
OPERATIONS = (
    *("nvidia-driver", "fabricmanager", "cuda", "ofed", "connectx-firmware", "kernel", "bmc", "bios", "nvme-firmware"),
    *("slurmd", "containers", "deep-check"),
)
"""Of the example's catalogue, those of a month in the simulation (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWorld:
    """What is assumed; "ours" marks what nobody published."""

    nodes: int = 2048
    giant_share: float = 0.84
    """Of the nodes, that one job has (ours)."""
    small_share: float = 0.125
    """That small jobs have (ours); the rest is free, for repairs and maintenance."""
    small_size_max: int = 8
    small_mean_s: float = 6 * 3600.0
    """How long a small job runs (ours)."""
    failures_per_1000_node_days: float = 3.79
    """Llama 3."""
    persistent: float = 0.5
    """Of failures, those after which the node needs repair (Llama 3's mix and the shares of `parameters.MIX`)."""
    repair_mean_s: float = DAY_S
    """Ours."""
    init_s: float = 480.0
    """From a start of the giant to its first step: TrainMover's 6.5 min at 8,192 GPUs, and waiting."""
    lost_s: float = 60.0
    """Of work that a planned interruption costs beside that: it saves first (ours)."""
    cycle_days: float = 28.0
    domain: str = "auto"
    jitter: float = 0.1
    """By how much an operation takes longer or shorter (ours)."""
    bad_operation: str = ""
    bad_share: float = 0.05
    """Of hosts, on which that operation fails."""
    tick_s: float = 10.0
    patient: bool = True
    """False: every car interrupts its jobs at once, as a rolling update does."""


@dataclass(slots=True)
class Tally:
    """What a run came to. Hours are host-hours."""

    guarantee_violations: int = 0
    rules_broken: int = 0
    visited: int = 0
    nodes: int = 0
    drains: int = 0
    domain: int = 0
    days: float = 0.0
    """Until the train was through."""
    failures: int = 0
    restarts_unplanned: int = 0
    planned_giant: int = 0
    planned_small: int = 0
    out_h: float = 0.0
    """Hosts that served nobody because of the train."""
    interruptions_h: float = 0.0
    operations_h: float = 0.0
    """The lower bound: what the operations of each host take, one after the other."""
    verified_h: float = 0.0
    hurt: int = 0
    off_boarded: tuple[str, ...] = ()
    paused: str = ""
    decided: int = 0
    tasks: int = 0
    least_available: int = 0
    whys: dict[str, int] = field(default_factory=dict)

    @property
    def loss_over_lower_bound(self) -> float:
        """All that maintenance cost, over what it had to cost."""
        return (self.out_h + self.interruptions_h) / self.operations_h if self.operations_h else 0.0


class MaintenanceRun:
    """One train through one fleet."""

    def __init__(self, world: MaintenanceWorld, seed: int, *, check_rules: bool = False) -> None:
        self._world = world
        self._rng = random.Random(f"train|{seed}|{world.nodes}|{world.failures_per_1000_node_days}")
        self._check_rules = check_rules
        self._names = [f"n{number:06}" for number in range(1, world.nodes + 1)]
        self._nodes = {
            name: Node(name=name, state="IDLE", partitions=(PARTITION,), gres="gpu:h100:8") for name in self._names
        }
        self._troubled: set[str] = set()
        self._giant_size = max(1, round(world.giant_share * world.nodes))
        self._small_room = round(world.small_share * world.nodes)
        self._promised = self._giant_size + self._small_room
        self._policy = _policy(world, self._promised)
        catalogue = self._policy.maintenance.registry
        assert catalogue is not None
        self._catalogue = catalogue
        self._versions: dict[str, dict[str, str]] = {name: {"kernel": "6.5"} for name in self._names}
        self._memory = Memory()
        self._jobs: dict[int, Job] = {}
        self._held: dict[int, frozenset[str]] = {}
        self._on: dict[str, int] = {}
        """By node, the job that has it."""
        self._number = count(100)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._now = T0
        self._end = T0 + 1.5 * world.cycle_days * DAY_S
        self._tick_at: float | None = None
        self._free = set(self._names)
        self._out: dict[str, float] = {}
        """Hosts that serve nobody because of the train, and since when."""
        self._busy_with: dict[str, Act] = {}
        self.tally = Tally(nodes=world.nodes, least_available=world.nodes)

    # The run.

    def go(self) -> Tally:
        """Run it until the train is through."""
        self._jobs[GIANT] = Job(
            job_id=GIANT, state="PENDING", partition=PARTITION, node_count=self._giant_size, comment="checkpoint=USR2"
        )
        self._start_giant()
        self._small_jobs()
        self._look_in()
        order = Order(
            verb="start" if self._world.patient else "emergency",
            train="cycle",
            operations=OPERATIONS,
            cycle_days=self._world.cycle_days,
            domain=self._world.domain,
            by="sim",
        )
        self._memory = obey(self._memory, order, self._policy, self._look(), self._now)
        self.tally.domain = self._memory.maintenance.trains["cycle"].domain
        self._wake()
        self._at(self._next_failure(), self._fail)
        while self._heap and self._heap[0][0] <= self._end:
            self._now, _, what, about = heapq.heappop(self._heap)
            what(*about)
            self._judge()
            train = self._memory.maintenance.trains["cycle"]
            if not train.active or (train.paused and not self._memory.maintenance.hosts):
                break
        for name in list(self._out):
            self._serves(name)
        train = self._memory.maintenance.trains["cycle"]
        self.tally.visited = train.visited
        self.tally.days = (self._now - T0) / DAY_S
        self.tally.off_boarded = tuple(train.off)
        self.tally.paused = train.paused
        past = self._memory.maintenance.past.values()
        self.tally.hurt = sum(1 for host in past if host.stage is Stage.FAILED)
        for host in past:
            self.tally.whys[host.stage] = self.tally.whys.get(host.stage, 0) + 1
        self.tally.drains = sum(host.drains for host in past)
        return self.tally

    def _at(self, when: float, what: Callable[..., None], *about: Any) -> None:
        heapq.heappush(self._heap, (when, next(self._order), what, about))

    def _look(self) -> Snapshot:
        return Snapshot(
            at=self._now,
            nodes=self._nodes,
            troubled=frozenset(self._troubled),
            jobs=self._jobs,
            holders=self._held,
            partition_size={PARTITION: self._world.nodes, "gpu:h100": self._world.nodes},
            expand=lambda hostlist: self._held.get(int(hostlist), frozenset()) if hostlist.isdecimal() else frozenset(),
        )

    def _judge(self) -> None:
        """What an observer sees who knows nothing of the controller: the promise, while anything is out for a train."""
        out = [node for name in self._troubled if not snapshot.in_service(node := self._nodes[name])]
        available = self._world.nodes - len(out)
        self.tally.least_available = min(self.tally.least_available, available)
        planned = any("train:" in node.reason or "MAINTENANCE" in node.state for node in out)
        if planned and available < self._promised:
            self.tally.guarantee_violations += 1

    # Nodes.

    def _set(self, name: str, *, base: str | None = None, drain: str | None = None, booked: bool | None = None) -> None:
        node = self._nodes[name]
        words = node.state.split("+")
        base = base or words[0]
        reserved = booked if booked is not None else "MAINTENANCE" in words
        reason = drain if drain is not None else node.reason
        state = "+".join([base, *(["MAINTENANCE"] if reserved else []), *(["DRAIN"] if reason else [])])
        self._nodes[name] = replace(node, state=state, reason=reason)
        if state in ("IDLE", "ALLOCATED"):
            self._troubled.discard(name)
        else:
            self._troubled.add(name)
        usable = state == "IDLE"
        (self._free.add if usable else self._free.discard)(name)
        by_train = reserved or "train:" in reason
        if by_train and base == "IDLE":
            self._out.setdefault(name, self._now)
        else:
            self._serves(name)

    def _serves(self, name: str) -> None:
        since = self._out.pop(name, None)
        if since is not None:
            self.tally.out_h += (self._now - since) / 3600.0

    def _next_failure(self) -> float:
        rate = self._world.failures_per_1000_node_days / 1000.0 / DAY_S * max(1, len(self._on))
        return self._now + self._rng.expovariate(rate)

    def _fail(self) -> None:
        """A node under a job fails: its job comes back, and the node may need repair."""
        self._at(self._next_failure(), self._fail)
        if not self._on:
            return
        name = self._rng.choice(sorted(self._on)) if len(self._on) < 64 else self._any_busy()
        self.tally.failures += 1
        job_id = self._on[name]
        if self._rng.random() < self._world.persistent and not self._nodes[name].reason:
            self._set(name, drain="[HC] gpu.ecc: as simulated")
            self._at(self._now + self._rng.expovariate(1.0 / self._world.repair_mean_s), self._repaired, name)
        if job_id == GIANT:
            self.tally.restarts_unplanned += 1
        self._job_ends(job_id, again=True)
        self._wake()

    def _any_busy(self) -> str:
        while True:
            name = self._rng.choice(self._names)
            if name in self._on:
                return name

    def _repaired(self, name: str) -> None:
        if self._nodes[name].reason.startswith("[HC]"):
            self._set(name, drain="")
            self._starts()
            self._wake()

    # Jobs.

    def _job_ends(self, job_id: int, *, again: bool) -> None:
        job = self._jobs[job_id]
        for name in self._held.pop(job_id, frozenset()):
            self._on.pop(name, None)
            self._set(name, base="IDLE")
        if again and job_id == GIANT:
            self._jobs[job_id] = replace(
                job,
                state="PENDING",
                reason="BeginTime",
                nodes="",
                restarts=job.restarts + 1,
                submit_time=self._now,
                eligible_time=self._now + 121.0,
                start_time=None,
            )
            self._at(self._now + 121.0, self._starts)
        else:
            del self._jobs[job_id]
            self._at(self._now + 1.0, self._starts)

    def _starts(self) -> None:
        self._start_giant()
        self._small_jobs()

    def _give(self, job_id: int, names: list[str]) -> None:
        for name in names:
            self._on[name] = job_id
            self._set(name, base="ALLOCATED")
        self._held[job_id] = frozenset(names)

    def _start_giant(self) -> None:
        job = self._jobs[GIANT]
        excluded = snapshot.members(job.excluded_nodes)
        if job.state != "PENDING" or (job.eligible_time or 0.0) > self._now:
            return
        free = self._free - excluded
        if len(free) < self._giant_size:
            return
        self._give(GIANT, sorted(free)[: self._giant_size])
        self._jobs[GIANT] = replace(job, state="RUNNING", reason="", nodes=str(GIANT), start_time=self._now)
        self._wake()

    def _small_jobs(self) -> None:
        """As many small ones as there is work for; the giant's nodes are left for it while it waits."""
        waits = self._jobs[GIANT].state != "RUNNING"
        used = sum(len(held) for job_id, held in self._held.items() if job_id != GIANT)
        while True:
            size = self._rng.randint(1, self._world.small_size_max)
            room = len(self._free) - (self._giant_size if waits else 0)
            if used + size > self._small_room or size > room:
                return
            job_id = next(self._number)
            lasts = self._rng.expovariate(1.0 / self._world.small_mean_s)
            self._jobs[job_id] = Job(
                job_id=job_id,
                state="RUNNING",
                partition=PARTITION,
                nodes=str(job_id),
                node_count=size,
                start_time=self._now,
                end_time=self._now + DAY_S,
            )
            self._give(job_id, self._rng.sample(sorted(self._free), size))
            used += size
            self._at(self._now + lasts, self._small_ends, job_id)

    def _small_ends(self, job_id: int) -> None:
        if job_id in self._jobs:
            drained = any(self._nodes[name].reason for name in self._held.get(job_id, ()))
            self._job_ends(job_id, again=False)
            if drained:
                self._wake()

    def _interrupt(self, job_id: int) -> None:
        """A job leaves because the train asked it to."""
        if job_id not in self._jobs or job_id not in self._held:
            return
        size = len(self._held[job_id])
        if job_id == GIANT:
            self.tally.planned_giant += 1
            self.tally.interruptions_h += size * (self._world.init_s + self._world.lost_s) / 3600.0
        else:
            self.tally.planned_small += 1
            self.tally.interruptions_h += size * self._world.lost_s / 3600.0
        self._job_ends(job_id, again=True)
        self._wake()

    # The controller.

    def _wake(self, when: float | None = None) -> None:
        """A tick, at the next beat."""
        when = self._now if when is None else when
        when = T0 + math.ceil((when - T0) / self._world.tick_s + 1e-6) * self._world.tick_s
        if self._tick_at is None or when < self._tick_at:
            self._tick_at = when
            self._at(when, self._tick)

    def _look_in(self) -> Snapshot:
        look = self._look()
        self._memory = observe(look, self._memory, self._policy, self._now)
        return look

    def _tick(self) -> None:
        if self._tick_at != self._now:
            return
        self._tick_at = None
        look = self._look_in()
        running = frozenset(f"node:{name}" for name in self._busy_with)
        self._memory = replace(self._memory, open_targets=running)
        plan = decide(look, self._memory, self._policy, self._now)
        self.tally.decided += len(plan.acts)
        if self._check_rules:
            broken = violations(look, self._memory, plan, self._policy)
            self.tally.rules_broken += len(broken)
        for act in plan.acts:
            self._do(act)
        if plan.acts:
            self._starts()
            self._wake(self._now + 0.01)
        if plan.wake_at is not None:
            self._wake(max(plan.wake_at, self._now + 0.01))

    def _do(self, act: Act) -> None:
        if act.kind in (Kind.OPERATE, Kind.REBOOT, Kind.INSPECT, Kind.CHECK):
            self._begin(act)
            return
        if act.kind is Kind.BOOK:
            for name in act.nodes:
                self._set(name, booked=True)
        elif act.kind is Kind.UNBOOK:
            for name in act.nodes:
                self._set(name, booked=False)
        elif act.kind is Kind.DRAIN:
            for name in act.nodes:
                self._set(name, drain=act.reason)
        elif act.kind is Kind.RESUME:
            for name in act.nodes:
                self._set(name, drain="")
        elif act.kind is Kind.LABEL:
            for name in act.nodes:
                self._nodes[name] = replace(self._nodes[name], features=(act.work,))
        elif act.kind is Kind.NOTIFY:
            self._at(self._now + 60.0, self._interrupt, act.job_id)
        elif act.kind is Kind.REQUEUE:
            self._interrupt(act.job_id)
        elif act.kind is Kind.RELEASE:
            job = self._jobs[act.job_id]
            excluded = job.excluded_nodes if act.exclude is None else ",".join(act.exclude)
            self._jobs[act.job_id] = replace(job, reason="", eligible_time=self._now, excluded_nodes=excluded)
        self._memory = effects.done(self._memory, act, self._now)

    def _begin(self, act: Act) -> None:
        """A command of the train starts, and takes its time."""
        self.tally.tasks += len(act.nodes)
        spread = self._rng.uniform(1.0 - self._world.jitter, 1.0 + self._world.jitter)
        if act.kind is Kind.INSPECT:
            lasts = 15.0
        elif act.kind is Kind.CHECK:
            lasts = {"quick": 30.0, "medium": 300.0, "soak": 600.0}[act.work] * spread
            self.tally.verified_h += lasts / 3600.0
        else:
            lasts = self._catalogue.operations[act.work].duration_s * spread
            self.tally.operations_h += lasts / 3600.0
        for name in act.nodes:
            self._busy_with[name] = act
        self._at(self._now + lasts, self._ends, act)

    def _ends(self, act: Act) -> None:
        ok, said = True, ""
        if act.kind is Kind.INSPECT:
            said = "\n".join(f"{name} {one} {two}" for name in act.nodes for one, two in self._versions[name].items())
        elif act.kind in (Kind.OPERATE, Kind.REBOOT):
            bad = act.work == self._world.bad_operation and self._rng.random() < self._world.bad_share
            ok, said = not bad, "as simulated" if bad else ""
            if ok:
                self._versions[act.nodes[0]].update(self._catalogue.operations[act.work].upgrades)
        for name in act.nodes:
            del self._busy_with[name]
        self._memory = after.reported(self._memory, act, self._policy.maintenance, self._now, ok=ok, said=said)
        self._wake()


def _policy(world: MaintenanceWorld, promised: int) -> Policy:
    catalogue = catalogues.load(catalogues.EXAMPLE)
    guarantee = Guarantee(nodes=promised, failure_buffer=max(1, math.ceil(world.nodes / 128)))
    rules = MaintenancePolicy(
        registry=catalogue,
        inventory=("simulated", "{nodes}"),
        inventory_max=world.nodes,
        checks=Checks(
            quick=("simulated",), medium=("simulated",), soak=("simulated",), quick_s=30.0, medium_s=300.0, soak_s=600.0
        ),
        contract=Contract(),
        rollout=Rollout(),
        cycle_days=world.cycle_days,
        interruption_s=world.init_s + world.lost_s,
    )
    return Policy(
        modes=Modes(default="act"),
        tick_s=world.tick_s,
        guarantee={PARTITION: guarantee, "gpu:h100": guarantee},
        drains=Drains(share_max=0.05),
        maintenance=rules,
        exposure_every_s=DAY_S / 2,
        acts_max=max(64, world.nodes),
    )


def simulate_maintenance(world: MaintenanceWorld, *, seed: int, check_rules: bool = False) -> Tally:
    """One train through one fleet."""
    run = MaintenanceRun(world, seed, check_rules=check_rules)
    return run.go()


def figures(world: MaintenanceWorld, runs: Sequence[Tally]) -> dict[str, object]:
    """Flat, for JSON. Of several seeds means; of what must not happen, sums.

    Beside it what two plain ways would cost with the same operations: a rolling update, whose every car interrupts the
    giant, and one window in which everything stands still.
    """

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / max(1, len(values)), 4)

    giant = max(1, round(world.giant_share * world.nodes))
    cost_h = giant * (world.init_s + world.lost_s) / 3600.0
    cars = [math.ceil(one.nodes / one.domain) for one in runs]
    planned = mean([one.planned_giant for one in runs])
    return {
        "nodes": world.nodes,
        "seeds": len(runs),
        "failures_per_1000_node_days": world.failures_per_1000_node_days,
        "domain_hosts": runs[0].domain,
        "guarantee_violations": sum(one.guarantee_violations for one in runs),
        "rules_broken": sum(one.rules_broken for one in runs),
        "visited_share": mean([one.visited / one.nodes for one in runs]),
        "drains_per_host": mean([one.drains / max(1, one.visited) for one in runs]),
        "cycle_days": mean([one.days for one in runs]),
        "loss_over_lower_bound": mean([one.loss_over_lower_bound for one in runs]),
        "verification_over_lower_bound": mean([one.verified_h / one.operations_h for one in runs]),
        "rolling_loss_over_lower_bound": mean(
            [(one.out_h + n * cost_h) / one.operations_h for one, n in zip(runs, cars, strict=True)]
        ),
        "window_loss_over_lower_bound": mean(
            [((one.operations_h + one.verified_h) * (1.0 + world.jitter) + cost_h) / one.operations_h for one in runs]
        ),
        "planned_interruptions_giant": planned,
        "rolling_interruptions_giant": mean(cars),
        "planned_over_rolling": round(planned / mean(cars), 4),
        "planned_interruptions_small": mean([one.planned_small for one in runs]),
        "unplanned_interruptions_giant": mean([one.restarts_unplanned for one in runs]),
        "host_tasks": round(mean([one.tasks for one in runs])),
        "decisions": round(mean([one.decided for one in runs])),
        "hosts_hurt": sum(one.hurt for one in runs),
        "off_boarded": ",".join(sorted({name for one in runs for name in one.off_boarded})),
        "least_available": min(one.least_available for one in runs),
        "promised": giant + round(world.small_share * world.nodes),
    }
