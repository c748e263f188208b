"""The daemon's ticks: look, take in, decide, write down, act, verify. What can break here are Slurm and the disk."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from trainmaster.clock import Clock
from trainmaster.controller import acting, effects, forgotten, keeping, observe, rebuild, suspects
from trainmaster.controller.acts import Act, Kind, Plan
from trainmaster.controller.decide import decide
from trainmaster.controller.decide import observe as take_in
from trainmaster.controller.holder import alive, process_name
from trainmaster.controller.hooks import Hooks
from trainmaster.controller.invariants import violations
from trainmaster.controller.journal import ABANDONED, DONE, TRIES_MAX, Intent, Journal, Request
from trainmaster.controller.maintenance import after, orders, progress, reserving
from trainmaster.controller.maintenance.executing import Executing
from trainmaster.controller.memory import Evidence, Memory, NodeState, Severity, put_nodes
from trainmaster.controller.observe import Door
from trainmaster.controller.policy import Policy
from trainmaster.controller.snapshot import Snapshot
from trainmaster.errors import LeaseLost, SlurmError, SlurmUnreachable, UsageError

if TYPE_CHECKING:
    # Who decides without being counted need not load a web server.
    from trainmaster.controller.metrics import Metrics

LOG = logging.getLogger("trainmaster.controller")
LEASE_PATIENCE_S = 60.0
_RETRY_AFTER_S = 5.0
_AFTER_ACTS_S = 1.0
_RESERVATIONS_EVERY = 30
"""Ticks after which reservations are looked at although none of ours is known: a third question in thirty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """What a tick came to."""

    plan: Plan
    done: tuple[Act, ...] = ()
    proposed: tuple[Act, ...] = ()
    """What it would have done, had its mode allowed it."""


class Controller:
    """One controller. `before_step` is told before everything that a kill could come between; for tests."""

    def __init__(
        self,
        door: Door,
        journal: Journal,
        policy: Policy,
        clock: Clock,
        *,
        metrics: "Metrics | None" = None,
        before_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._door = door
        self._journal = journal
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._before = before_step
        self._hooks = Hooks(policy.returning)
        self._work = Executing(policy.maintenance)
        self._memory: Memory | None = None
        self._leaf_of: dict[str, str] | None = None
        self._booted = ""
        self._offsets: dict[str, int] = {}
        self._told: set[str] = set()
        self._tried_at: dict[str, float] = {}
        self._ticks = 0
        self._base = clock.now().timestamp() - clock.monotonic_s()

    def _now(self) -> float:
        """Epoch seconds that never go back or jump: no wait and no deadline hangs on whoever sets the clock."""
        return self._base + self._clock.monotonic_s()

    def _wall(self) -> float:
        return self._clock.now().timestamp()

    @property
    def memory(self) -> Memory:
        """What is remembered now."""
        return self._memory or Memory()

    def start(self) -> None:
        """Take the lease and load what was remembered. Raises ControllerError."""
        self._journal.take_lease(process_name(), now=self._wall(), patience_s=LEASE_PATIENCE_S)
        self._memory = self._journal.load()
        behind_s = (self._memory.at if self._memory is not None else 0.0) - self._now()
        if behind_s > 0:
            # The clock was set back while nobody looked; what is remembered must not lie in the future.
            LOG.warning("this machine's clock is %.0f s behind the last look; going on from that", behind_s)
            self._base += behind_s
        self._offsets = self._journal.offsets()

    def stop(self) -> None:
        """Let another one start at once."""
        self._hooks.close()
        self._journal.drop_lease()

    def tick(self) -> Ticked:
        """One round. Raises SlurmError when slurmctld does not answer, LeaseLost when another controller is at work."""
        now = self._now()
        self._journal.renew_lease(now=self._wall())
        if self._leaf_of is None:
            self._leaf_of = observe.leaf_of(self._door)
            self._policy = observe.fitted(self._policy, self._door)
            self._booted = observe.booted(self._door)
        before = self._memory
        # The first look tells what a controller before us has left.
        reserved = before is None or self._ticks % _RESERVATIONS_EVERY == 0 or bool(before.kept)
        look = observe.look(self._door, now=now, leaf_of=self._leaf_of, reservations=reserved)
        self._ticks += 1
        if before is None:
            before = rebuild.from_slurm(look, self._policy, now)
        self._journal.count({group: look.available(group) for group in look.partition_size}, now=now)
        if reserved:
            before = replace(before, kept=tuple(sorted(one.name for one in keeping.ours(look))))
        if forgotten.doubtful(look, before):
            booted = observe.booted(self._door)
            look, self._booted = replace(look, restarted=booted != self._booted), booted
        self._take_in(before, look, now)
        self._finish_hooks(now)
        for intent in self._journal.intents():
            self._carry_out(intent, look)
        memory = replace(self.memory, open_targets=self._open_targets())
        plan = decide(look, memory, self._policy, self._now())
        ticked = self._act_on(plan, look, memory)
        if self._metrics is not None:
            opened, took_s = len(self._journal.intents()), self._now() - now
            self._metrics.looked(look, plan, self.memory, self._policy, took_s=took_s, opened=opened)
        return ticked

    def _take_in(self, before: Memory, look: Snapshot, now: float) -> None:
        reported, read_to = suspects.read(look, before, self._offsets, now=now, turn=self._ticks)
        requests = self._journal.requests()
        for request in requests:
            if request.verb == "quarantine":
                piece = Evidence(
                    at=now, kind="quarantine", what=f"{request.by}: {request.why}", severity=Severity.MEDIUM
                )
                reported.setdefault(request.target, []).append(piece)
            elif request.verb == "release" and request.target in before.nodes:
                before = put_nodes(before, [replace(before.nodes[request.target], released=True)])
            elif request.verb == "train":
                before = self._order(before, request, look, now)
        memory = take_in(look, before, self._policy, now, reported)
        self._before("save memory")
        self._journal.save(memory, read=read_to)
        self._offsets |= read_to
        for request in requests:
            self._journal.took(request, now=now)
            self._journal.tell(
                [(_subject(request), request.verb, f"{request.by}: {request.why}", f"request {request.number}")],
                now=now,
            )
        self._journal.tell(_news(self._memory or Memory(), memory), now=now)
        self._memory = memory

    def _order(self, memory: Memory, request: Request, look: Snapshot, now: float) -> Memory:
        """What a person asks of a train; what cannot be done is told and changes nothing."""
        try:
            order = msgspec.json.decode(request.why, type=orders.Order)
            return orders.obey(memory, msgspec.structs.replace(order, by=request.by), self._policy, look, now)
        except (msgspec.MsgspecError, UsageError) as error:
            LOG.warning("train %s: %s", request.target, error)
            self._journal.tell(
                [(_subject(request), "refused", str(error), f"request {request.number} refused")], now=now
            )
            return memory

    def _open_targets(self) -> frozenset[str]:
        return frozenset(target for intent in self._journal.intents() for target in intent.act.targets)

    def _act_on(self, plan: Plan, look: Snapshot, memory: Memory) -> Ticked:
        broken = violations(look, memory, plan, self._policy)
        for one in broken:
            # A decision that breaks a rule is a mistake of ours; the rule wins, and somebody has to hear of it.
            LOG.error("refused by %s: %s of %s: %s", one.rule, one.act.kind, ",".join(one.act.targets), one.why)
        wrong = {one.act.id for one in broken}
        proposed, done = [], []
        for refusal in plan.refused:
            key = f"{refusal.subject}|{refusal.wanted}|{refusal.rule}"
            if key not in self._told:
                self._told.add(key)
                LOG.warning("%s: no %s, by %s: %s", refusal.subject, refusal.wanted, refusal.rule, refusal.why)
                detail = f"{refusal.rule}: {refusal.why}"
                self._journal.tell([(refusal.subject, f"{refusal.wanted} refused", detail, "")], now=plan.at)
        for act in plan.acts:
            if act.id in wrong:
                continue
            mode = self._policy.modes.of(act.kind)
            if mode == "act":
                self._before(f"open {act.kind}")
                if self._journal.open(act, now=self._now()):
                    done.append(act)
                    self._carry_out(Intent(act=act, state="open", opened=self._now(), tries=0), look)
            elif mode == "propose":
                proposed.append(act)
                if act.id not in self._told:
                    self._told.add(act.id)
                    LOG.info("would %s %s: %s", act.kind, ",".join(act.targets), act.why)
                    rows = [(target, f"{act.kind} proposed", act.why, f"{act.id}|{target}") for target in act.targets]
                    self._journal.tell(rows, now=self._now())
        return Ticked(plan=plan, done=tuple(done), proposed=tuple(proposed))

    def _carry_out(self, intent: Intent, look: Snapshot) -> None:
        """Bring an intent one step further: closed if it holds, done if it still may be, given up otherwise."""
        act, now = intent.act, self._now()
        if act.kind in acting.BY_HOOKS:
            self._start_hook(intent, look)
            return
        self._before(f"look {act.kind}")
        reserved = act.kind in acting.RESERVES
        fresh = observe.again(self._door, look, nodes=act.nodes, job_id=act.job_id, reservations=reserved)
        if acting.holds(act, fresh, now):
            self._close(act, DONE)
            return
        if act.kind is Kind.NOTIFY and intent.tries:
            # Whether it was sent before we were killed nobody knows, and twice would end a job that it should save.
            self._close(act, DONE, said="perhaps sent; not sent again")
            return
        if now - intent.opened > act.deadline_s or intent.tries >= TRIES_MAX:
            self._close(act, ABANDONED, said=f"did not come true within {act.deadline_s:g} s")
            return
        if act.kind is Kind.REQUEUE and intent.tries and now - self._tried_at.get(act.id, 0.0) < act.deadline_s / 2:
            return  # asked for; the nodes are being cleaned up
        if act.kind is Kind.REBOOT and intent.tries:
            node = fresh.nodes[act.nodes[0]]
            if not reserving.rebooted(act, node) and not reserving.unasked(act, node):
                return  # asked for; to ask twice would reboot twice
        if now - self._tried_at.get(act.id, 0.0) < _RETRY_AFTER_S:
            return
        others = frozenset(t for t in self._open_targets() if t not in act.targets)
        memory = replace(self.memory, open_targets=others)
        if broken := violations(fresh, memory, Plan(at=now, acts=(act,)), self._policy):
            if act.kind is Kind.REBOOT:
                return  # half done, or not begun: neither has failed, and the next tick sees more
            self._close(act, ABANDONED, said=f"{broken[0].rule}: {broken[0].why}")
            return
        self._journal.check_lease()
        self._journal.tried(act)
        self._tried_at[act.id] = now
        self._before(f"do {act.kind}")
        try:
            acting.do(self._door, act, fresh, memory, self._policy)
        except SlurmError as error:
            LOG.warning("%s of %s: %s", act.kind, ",".join(act.targets), error)
            if act.kind is Kind.KEEP and not isinstance(error, SlurmUnreachable):
                # A job's start is not held up for what Slurm does not want.
                self._close(act, ABANDONED, said=str(error)[:200])
            return
        if act.kind is Kind.REQUEUE:
            self._memory = effects.taken_on(self.memory, act, now)
        self._before(f"verify {act.kind}")
        LOG.info("%s %s: %s", act.kind, ",".join(act.targets), act.why)
        fresh = observe.again(self._door, look, nodes=act.nodes, job_id=act.job_id, reservations=reserved)
        if act.kind is Kind.NOTIFY or acting.holds(act, fresh, self._now()):
            self._close(act, DONE)

    def _close(self, act: Act, state: str, *, said: str = "", ok: bool = True) -> None:
        now = self._now()
        if self._metrics is not None:
            record = self.memory.jobs.get(act.job_id) if act.kind is Kind.RELEASE else None
            waited_s = now - record.tries[-1].at if record is not None and record.tries and state == DONE else None
            self._metrics.closed(act, state, waited_s=waited_s)
        if state == DONE:
            self._memory = effects.done(self.memory, act, now, ok=ok)
        else:
            self._memory = effects.given_up(self.memory, act, now)
            LOG.warning("gave up to %s %s: %s", act.kind, ",".join(act.targets), said)
        if act.kind is Kind.REBOOT:
            rules = self._policy.maintenance
            self._memory = after.reported(self.memory, act, rules, now, ok=state == DONE, said=said)
        self._before(f"close {act.kind}")
        self._journal.finish(act, state, self.memory, now=now, said=said)
        self._tried_at.pop(act.id, None)

    def _start_hook(self, intent: Intent, look: Snapshot) -> None:
        act = intent.act
        if act.kind is Kind.VERIFY:
            node, record = look.nodes.get(act.nodes[0]), self.memory.nodes.get(act.nodes[0])
            if node is None or record is None or node.reason != act.expected_reason or record.reason != node.reason:
                self._close(act, ABANDONED, said="it is no longer ours")
                return
        if act.kind in acting.BY_TRAIN:
            self._start_work(intent, look)
        elif self._hooks.start(act):
            self._journal.tried(act)
            self._memory = effects.started(self.memory, act, self._now())

    def _start_work(self, intent: Intent, look: Snapshot) -> None:
        """Start a command of a train, unless it runs: here, or left over from a controller that died."""
        act = intent.act
        if self._work.running(act) or (intent.said and alive(intent.said)):
            return
        fresh = observe.again(self._door, look, nodes=act.nodes)
        others = frozenset(target for target in self._open_targets() if target not in act.targets)
        memory = replace(self.memory, open_targets=others)
        if broken := violations(fresh, memory, Plan(at=self._now(), acts=(act,)), self._policy):
            self._close(act, ABANDONED, said=f"{broken[0].rule}: {broken[0].why}")
            return
        self._journal.check_lease()
        self._journal.tried(act)
        self._before(f"do {act.kind}")
        pid = self._work.start(act)
        if pid is not None:
            self._journal.note(act, process_name(pid))

    def _finish_hooks(self, now: float) -> None:
        for act, ok, said in self._work.finished():
            if act.id in {intent.act.id for intent in self._journal.intents()}:
                self._memory = after.reported(self.memory, act, self._policy.maintenance, now, ok=ok, said=said)
                last = (said.strip().splitlines() or [""])[-1][:160]
                self._close(act, DONE, said=f"{'well' if ok else 'failed'}{': ' + last if last else ''}")
        waiting = {intent.act.id for intent in self._journal.intents()}
        for act, ok, said in self._hooks.finished():
            if act.id not in waiting:
                continue
            if act.kind is Kind.TICKET and not ok:
                self._close(act, ABANDONED, said=said)
            else:
                self._close(act, DONE, said=said, ok=ok)

    def run(self, *, ends: Callable[[], bool], wait: Callable[[float], None]) -> None:
        """Tick until `ends`, whatever a tick runs into. Raises LeaseLost."""
        while not ends():
            try:
                ticked = self.tick()
                due_s = (ticked.plan.wake_at or 0.0) - self._now()
                pause_s = min(self._policy.tick_s, due_s) if due_s > 0 else self._policy.tick_s
                if ticked.done:
                    # What follows from them need not wait for a whole tick.
                    pause_s = min(pause_s, _AFTER_ACTS_S)
            except LeaseLost:
                raise
            except SlurmError as error:
                LOG.warning("nothing is decided: %s", error)
                self._missed("no_answer")
                pause_s = self._policy.tick_s
            except Exception:
                # Whatever it is, jobs and nodes need us in the next tick too; the trace says what to mend.
                LOG.exception("a tick failed")
                self._missed("failed")
                self._memory = self._journal.load()
                pause_s = self._policy.tick_s
            wait(pause_s)

    def _missed(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.missed(outcome)


def _subject(request: Request) -> str:
    return f"{'train' if request.verb == 'train' else 'node'}:{request.target}"


def _news(before: Memory, now: Memory) -> list[tuple[str, str, str, str]]:
    """What changed, for the chain of evidence."""
    rows = progress.news(before.maintenance, now.maintenance)
    for name, record in now.nodes.items():
        old = before.nodes.get(name)
        subject = f"node:{name}"
        for piece in record.evidence:
            if old is None or piece not in old.evidence:
                key = f"{subject}|{piece.kind}|{piece.at:.3f}|{piece.what}"
                weight = f" (weight {piece.weight:.2f})" if piece.weight else ""
                rows.append((subject, f"evidence: {piece.kind}", f"{piece.what}{weight}", key))
        was = old.state if old is not None else NodeState.OK
        if was is not record.state:
            rows.append((subject, f"{was} -> {record.state}", record.why, ""))
    for name, old in before.nodes.items():
        if name not in now.nodes:
            rows.append((f"node:{name}", f"{old.state} -> OK", "nothing speaks against it any more", ""))
    for job_id, job in now.jobs.items():
        known = before.jobs.get(job_id)
        for one in job.tries[len(known.tries) if known is not None else 0 :]:
            nodes = f" on {','.join(one.blamed)}" if one.blamed else ""
            detail = f"attempt {one.restarts - 1} ended after {one.ran_s:.0f} s{nodes}"
            rows.append(
                (f"job:{job_id}", f"came back: {one.cause}", detail, f"job {job_id} {one.restarts} {one.at:.0f}")
            )
    return rows
