"""A maintenance train through a fleet of numbers: one giant job, smaller ones beside it, failures, and the daemon's
own `decide`. Whether the promise is kept is counted here, apart from what the controller believes.
"""

import heapq
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from typing import Any

from trainmaster.controller import effects, snapshot
from trainmaster.controller.acts import Act, Kind
from trainmaster.controller.decide import decide, observe
from trainmaster.controller.invariants import violations
from trainmaster.controller.maintenance import after
from trainmaster.controller.maintenance.orders import Order, obey
from trainmaster.controller.maintenance.state import Stage
from trainmaster.controller.memory import Memory
from trainmaster.controller.sim.maintenance_figures import Tally
from trainmaster.controller.sim.maintenance_world import (
    DAY_S,
    GIANT,
    OPERATIONS,
    PARTITION,
    T0,
    MaintenanceWorld,
    policy_of,
)
from trainmaster.controller.snapshot import Snapshot
from trainmaster.slurm.values import Job, Node

_STRETCH_S = 3 * 3600.0
"""Of the course that a picture shows."""


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
        self._changed = True
        """Since the promise was judged."""
        self._plain: dict[str, dict[str, Node]] = {"IDLE": {}, "ALLOCATED": {}}
        """Nodes of which nothing is said but that, kept since a giant has thousands."""
        self._giant_size, self._promised = world.giant_size, world.promised
        self._small_room = self._promised - self._giant_size
        self._policy = policy_of(world, self._promised)
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
        if not self._changed:
            return
        self._changed = False
        out = [node for name in self._troubled if not snapshot.in_service(node := self._nodes[name])]
        available = self._world.nodes - len(out)
        self.tally.least_available = min(self.tally.least_available, available)
        planned = any("train:" in node.reason or "MAINTENANCE" in node.state for node in out)
        if planned and available < self._promised:
            self.tally.guarantee_violations += 1
        course, since = self.tally.course, (self._now - T0) // _STRETCH_S * _STRETCH_S / DAY_S
        visited = self._memory.maintenance.trains["cycle"].visited
        if course and course[-1][0] == since:
            course[-1] = since, min(available, course[-1][1]), visited
        else:
            course.append((since, available, visited))

    # Nodes.

    def _flip(self, names: Iterable[str], state: str) -> None:
        """Many nodes at once become ALLOCATED or IDLE; those that nothing else is said of without further ado."""
        before = "IDLE" if state == "ALLOCATED" else "ALLOCATED"
        plain = self._plain[state]
        move = self._free.discard if state == "ALLOCATED" else self._free.add
        for name in names:
            node = self._nodes[name]
            if node.state != before or node.reason:
                self._set(name, base=state)
                continue
            kept = plain.get(name)
            if kept is None or kept.features != node.features:
                kept = plain[name] = replace(node, state=state)
            self._nodes[name] = kept
            move(name)

    def _set(self, name: str, *, base: str | None = None, drain: str | None = None, booked: bool | None = None) -> None:
        node = self._nodes[name]
        words = node.state.split("+")
        base = base or words[0]
        reserved = booked if booked is not None else "MAINTENANCE" in words
        reason = drain if drain is not None else node.reason
        state = "+".join([base, *(["MAINTENANCE"] if reserved else []), *(["DRAIN"] if reason else [])])
        self._nodes[name] = replace(node, state=state, reason=reason)
        self._changed = True
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
        held = self._held.pop(job_id, frozenset())
        for name in held:
            self._on.pop(name, None)
        self._flip(held, "IDLE")
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
        self._on.update(dict.fromkeys(names, job_id))
        self._flip(names, "ALLOCATED")
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


def simulate_maintenance(world: MaintenanceWorld, *, seed: int, check_rules: bool = False) -> Tally:
    """One train through one fleet."""
    run = MaintenanceRun(world, seed, check_rules=check_rules)
    return run.go()


def simulate_maintenance_seed(world: MaintenanceWorld, check_rules: bool, seed: int) -> Tally:
    """The same, with its seed last, for a pool of processes."""
    return simulate_maintenance(world, seed=seed, check_rules=check_rules)
