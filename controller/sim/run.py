"""One job on one fleet for some weeks, as a heap of events. The controller in it is the daemon's `decide`."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from trainmaster.controller import effects
from trainmaster.controller.acts import Kind
from trainmaster.controller.decide import decide, observe
from trainmaster.controller.invariants import violations
from trainmaster.controller.memory import Evidence, Memory, Severity
from trainmaster.controller.policy import Lemons, Modes, Policy, Requeue
from trainmaster.controller.sim.fleet import JOB_ID, Fleet
from trainmaster.controller.sim.parameters import DAY_S, Care, Fault, World

T0 = 1e9
"""When the simulated time begins; a memory of 0 would mean that nobody has looked yet."""


@dataclass(slots=True)
class Result:
    """What one run came to."""

    ettr: float = 0.0
    productive_s: float = 0.0
    wall_s: float = 0.0
    failures: int = 0
    """Fresh ones; to fail again on the same bad node is not one."""
    ends: int = 0
    """Of attempts, for whatever cause."""
    lost_s: dict[str, float] = field(default_factory=dict)
    """Wall time that was not productive, by what it went into."""
    decided: int = 0
    violated: int = 0
    persons: int = 0
    """How often a person had to act."""
    lemons: frozenset[str] = frozenset()
    lemon_failures: int = 0
    condemned: set[str] = field(default_factory=set)
    """Nodes that the controller took out as lemons."""


class Run:
    """One run; `result` of `go`."""

    def __init__(self, world: World, care: Care, seed: int, *, check_rules: bool = False) -> None:
        self._world, self._care = world, care
        self._rng = random.Random(f"{seed}|{world.nodes}|{world.failures_per_1000_node_days}")
        size = world.nodes + max(2, round(world.nodes * world.spare_share))
        self._fleet = Fleet(size=size, job_size=world.nodes, delay_s=care.delay_s)
        self._policy = Policy(
            modes=Modes(default="act", keep="observe"),  # here nobody else waits for the nodes
            tick_s=care.tick_s,
            lemons=Lemons(),
            requeue=Requeue(),
            exposure_every_s=DAY_S / 2,
        )
        self._memory = Memory()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._now = T0
        self._end = T0 + world.days * DAY_S
        self._attempt = 0
        self._training_from: float | None = None
        self._starting_from: float | None = None
        self._idle_since = T0
        self._idle_why = "queue"
        self._told: dict[str, list[Evidence]] = {}
        self._tick_at: float | None = None
        self._check_rules = check_rules
        lemons = round(world.lemon_share * size)
        self._lemons = frozenset(self._rng.sample(self._fleet.names, lemons))
        self.result = Result(lemons=self._lemons)

    def _at(self, when: float, what: Callable[..., None], *about: Any) -> None:
        heapq.heappush(self._heap, (when, next(self._order), what, about))

    def go(self) -> Result:
        """Run it."""
        self._try_start()
        self._at(self._next_failure(), self._on_failure)
        while self._heap and self._heap[0][0] <= self._end:
            self._now, _, what, about = heapq.heappop(self._heap)
            what(*about)
        self._now = self._end
        if self._training_from is None and self._starting_from is None:
            self._lose(self._idle_why, self._end - self._idle_since)
        self._account_running()
        self.result.wall_s = self._end - T0
        self.result.ettr = self.result.productive_s / self.result.wall_s
        return self.result

    def _lose(self, why: str, duration_s: float) -> None:
        self.result.lost_s[why] = self.result.lost_s.get(why, 0.0) + duration_s

    # Failures.

    def _next_failure(self) -> float:
        in_place = sum(1 for name in self._lemons if name in self._fleet.placed)
        rate = self._world.failure_per_s * (self._world.nodes + in_place * (self._world.lemon_factor - 1.0))
        return self._now + self._rng.expovariate(rate)

    def _victim(self) -> str:
        lemons = sorted(name for name in self._lemons if name in self._fleet.placed)
        weight = len(lemons) * (self._world.lemon_factor - 1.0)
        if lemons and self._rng.random() * (self._world.nodes + weight) < weight:
            return self._rng.choice(lemons)
        return self._rng.choice(self._fleet.place)

    def _on_failure(self) -> None:
        self._at(self._next_failure(), self._on_failure)
        if self._starting_from is not None and not self._world.failures_in_recovery:
            return
        if self._starting_from is None and self._training_from is None:
            return  # nodes without work do not fail here: rates are of nodes under jobs
        fault = self._rng.choices(self._world.mix, [one.share for one in self._world.mix])[0]
        self.result.failures += 1
        node = self._victim()
        self.result.lemon_failures += node in self._lemons
        lasting = self._rng.random() < fault.persistent
        if lasting:
            self._fleet.bad.add(node)
            self._at(self._now + self._rng.expovariate(1.0 / self._world.repair_mean_s), self._on_repaired, node)
            if fault.name == "node_down":
                self._fleet.set(node, state="IDLE*", reason="Not responding")
            elif self._care.check_s is not None and self._rng.random() < self._care.check_finds:
                self._at(self._now + self._rng.uniform(0.0, self._care.check_s), self._on_check, node)
        self._break(fault, node)

    def _on_again(self, attempt: int, node: str) -> None:
        """The job meets a bad node that it was started on."""
        if attempt != self._attempt or node not in self._fleet.bad or node not in self._fleet.placed:
            return
        if self._training_from is None and self._starting_from is None:
            return
        crash = Fault(name="again", share=1.0, persistent=1.0)
        self._break(crash, node)

    def _break(self, fault: Fault, node: str) -> None:
        """The attempt can go no further; it is noticed after a while."""
        self._account_running()
        self._attempt += 1
        care = self._care
        span = {"node_down": care.node_down_s, "hang": care.hang_s}.get(fault.name, care.crash_s)
        self._idle_since, self._idle_why = self._now, "detection"
        self._at(self._now + self._rng.uniform(*span), self._on_noticed, fault, node, self._attempt)

    def _account_running(self) -> None:
        """Whole intervals count; what came after the last checkpoint is done again."""
        if self._starting_from is not None:
            self._lose("start", self._now - self._starting_from)
        elif self._training_from is not None:
            trained = self._now - self._training_from
            interval, block = self._world.interval_s, self._world.checkpoint_block_s
            whole = int(trained // (interval + block))
            self.result.productive_s += whole * interval
            self._lose("checkpoints", whole * block)
            self._lose("done again", trained - whole * (interval + block))
        self._starting_from = self._training_from = None

    def _on_noticed(self, fault: Fault, node: str, attempt: int) -> None:
        if attempt != self._attempt:
            return
        self.result.ends += 1
        self._lose("detection", self._now - self._idle_since)
        self._idle_since, self._idle_why = self._now, "queue"
        down = fault.name == "node_down"
        if down:
            self._fleet.set(node, state="DOWN*", reason="Not responding")
            if node not in self._fleet.bad:
                # It only rebooted, and is back by itself after a while.
                self._at(self._now + self._world.again_mean_s, self._on_repaired, node)
        if down or self._care.requeue_on_exit:
            self._fleet.end(self._now, requeued=True)
            self._at(self._now + self._care.delay_s, self._on_eligible, self._attempt)
        else:
            self._fleet.end(self._now, requeued=False)
        if self._care.controller:
            if not down and fault.name != "software" and self._rng.random() < self._care.suspects:
                piece = Evidence(
                    at=self._now,
                    kind="suspect",
                    what=fault.name,
                    severity=Severity.MEDIUM,
                    weight=1.0,
                    job_id=JOB_ID,
                )
                self._told.setdefault(node, []).append(piece)
            self._wake(self._now + self._rng.uniform(0.0, self._care.tick_s))
        elif node in self._fleet.bad or not self._care.requeue_on_exit:
            self._call_person(node)

    # Nodes.

    def _on_check(self, node: str) -> None:
        if node in self._fleet.bad:
            self._fleet.drain(node, "[HC] gpu.ecc: as simulated")
            self._changed()

    def _on_repaired(self, node: str) -> None:
        self._fleet.bad.discard(node)
        if not self._fleet.nodes[node].reason.startswith("[TM]"):
            self._fleet.set(node, state="IDLE")
        self._changed()
        self._try_start()

    def _changed(self) -> None:
        if self._care.controller:
            self._wake(self._now + self._rng.uniform(0.0, self._care.tick_s))

    # The job.

    def _on_eligible(self, attempt: int) -> None:
        if attempt == self._attempt:
            self._try_start()

    def _try_start(self) -> None:
        job = self._fleet.job
        running = self._starting_from is not None or self._training_from is not None
        if running or job.state != "PENDING" or "Held" in job.reason or (job.eligible_time or 0.0) > self._now:
            return
        if not self._fleet.start(self._now, self._rng):
            self._idle_why = "no nodes"
            return
        self._lose(self._idle_why, self._now - self._idle_since)
        self._starting_from = self._now
        self._at(self._now + self._care.init_s, self._on_trains, self._attempt)
        for node in sorted(name for name in self._fleet.bad if name in self._fleet.placed):
            self._at(
                self._now + self._rng.expovariate(1.0 / self._world.again_mean_s), self._on_again, self._attempt, node
            )
        self._changed()

    def _on_trains(self, attempt: int) -> None:
        if attempt == self._attempt and self._starting_from is not None:
            self._lose("start", self._now - self._starting_from)
            self._starting_from, self._training_from = None, self._now

    # People.

    def _call_person(self, node: str) -> None:
        self._at(self._now + self._rng.expovariate(1.0 / self._care.person_mean_s), self._on_person, node)

    def _on_person(self, node: str) -> None:
        """Somebody looks: takes the bad node out if they find it, and starts the job again if it does not by itself."""
        self.result.persons += 1
        if node in self._fleet.bad and self._rng.random() < self._care.person_finds:
            self._fleet.drain(node, "found by a person")
            self._changed()
        if self._fleet.job.state == "FAILED" or "Held" in self._fleet.job.reason:
            self._fleet.resubmit(self._now)
            self._idle_why = "person"
            self._try_start()

    # The controller.

    def _wake(self, when: float) -> None:
        if self._tick_at is None or when < self._tick_at:
            self._tick_at = when
            self._at(when, self._on_tick)

    def _on_tick(self) -> None:
        if self._tick_at != self._now:
            return
        self._tick_at = None
        look = self._fleet.look(self._now)
        told, self._told = self._told, {}
        self._memory = observe(look, self._memory, self._policy, self._now, told)
        plan = decide(look, self._memory, self._policy, self._now)
        self.result.decided += 1
        if self._check_rules:
            self.result.violated += len(violations(look, self._memory, plan, self._policy))
        for act in plan.acts:
            self._fleet.apply(act, self._now)
            self._memory = effects.done(self._memory, act, self._now)
            if act.kind is Kind.DRAIN and act.cause == "lemon":
                self.result.condemned.update(act.nodes)
            if act.kind is Kind.HOLD:
                bad = sorted(name for name in self._fleet.bad if name in self._fleet.placed)
                self._call_person(bad[0] if bad else self._fleet.place[0])
        if plan.wake_at is not None:
            self._wake(max(plan.wake_at, self._now + 0.01))
        if plan.acts:
            self._try_start()


def simulate(world: World, care: Care, *, seed: int, check_rules: bool = False) -> Result:
    """Run one fleet under one kind of care."""
    return Run(world, care, seed, check_rules=check_rules).go()
