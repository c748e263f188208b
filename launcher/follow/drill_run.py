"""Doing a drill, and watching what follows: the hands and eyes of `drill`."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from trainmaster.errors import SlurmError, SlurmMissing, UsageError
from trainmaster.launcher import drills, intent, record
from trainmaster.launcher.follow import attach
from trainmaster.launcher.follow.drill import Course, Kind, course, node_for
from trainmaster.launcher.follow.find import Found
from trainmaster.launcher.follow.watch import Watch
from trainmaster.launcher.roles.part import events_of
from trainmaster.launcher.supervise import requeue, takeover
from trainmaster.slurm.commands import clean_environment

_HAND = "trainmaster.launcher.node.rehearse"
_SRUN_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A drill that is about to be done."""

    kind: Kind
    whole: Found
    part: Found
    """The role of it that is hit; the job again when it has none."""
    watch: Watch
    rank: int
    node: str
    """Where it is done; "" for those that go through Slurm."""
    grace_s: float = 0.0
    """From Slurm's warning to the requeue."""

    @property
    def target(self) -> str:
        """What is hit, in words."""
        if not self.kind.on_node:
            return f"warning, {self.grace_s:g} s, requeue"
        return self.node if self.kind in (Kind.KILL_NODE, Kind.FREEZE_NODE) else f"rank {self.rank} on {self.node}"

    def command(self) -> list[str]:
        """The srun of a drill that is done on a node."""
        last = next(event for event in reversed(self._events()) if event.nodes)
        file = self.part.run_dir / f"attempt{last.attempt}.{last.cycle}" / f"rank{self.rank}.pid"
        words = [self.part.plan.python, "-P", "-m", _HAND, self.kind, str(file)]
        found, roles = self.whole, self.whole.plan.roles
        job = self.watch.queue.client.job(found.job_id) if found.id.task is not None else None
        return attach.command(
            self.part,
            attach.Target(node=self.node, rank=-1),
            words,
            job_id=job.job_id if job is not None else found.id.job,
            component=roles.index(self.part.run_dir.name) if roles else None,
            terminal=False,
        )

    def _events(self) -> list[record.Event]:
        return events_of(self.part, self.watch.events(), self.rank)

    def step(self) -> int | None:
        """The last step of the job so far."""
        return record.last_step(self.watch.run_dir, self.watch.events())

    def now(self, *, done_s: float, step_before: int | None, new_step_s: float | None) -> Course:
        """What has become of it so far."""
        return course(
            self.kind, self.target, self._events(), done_s=done_s, step_before=step_before, new_step_s=new_step_s
        )


def prepare(
    kind: Kind, whole: Found, part: Found, watch: Watch, *, rank: int | None, node: str | None, grace_s: float | None
) -> Drill:
    """What exactly will be done. Raises UsageError when it cannot be, or would not be a test.

    Args:
        kind: What to rehearse.
        whole: The job.
        part: The role to hit; the job again when it has none.
        watch: The watch of the job.
        rank: The rank to hit; the last one when not given.
        node: The node to hit; the last one that is not the batch host when not given.
        grace_s: From the warning to the requeue; 30 s for a preemption and the job's own lead for a time-out when not
            given.
    """
    last = record.standing(watch.events())
    if watch.end() is not None or last is None or last.state not in ("RUNNING", "PROGRESS"):
        raise UsageError(
            f"could not rehearse {kind} on job {whole.job_id}: it is {watch.state()}",
            hint="a drill needs a job whose ranks run; `trainmaster jobs show` tells how it stands",
        )
    if not kind.on_node:
        if node is not None or rank is not None:
            raise UsageError(f"a {kind} is the whole job's: it takes neither --rank nor --node")
        lead_s = 30.0 if kind is Kind.PREEMPT else float(whole.plan.checkpoint_signal_s)
        return Drill(
            kind=kind,
            whole=whole,
            part=part,
            watch=watch,
            rank=0,
            node="",
            grace_s=lead_s if grace_s is None else grace_s,
        )
    if grace_s is not None:
        raise UsageError(f"--grace is for preempt and timeout; a {kind} comes without a warning")
    if kind in (Kind.CRASH, Kind.HANG):
        wanted = part.ranks - 1 if rank is None else rank
        there = attach.target_of(part, watch.events(), rank=wanted, node=node)
        return Drill(kind=kind, whole=whole, part=part, watch=watch, rank=wanted, node=there.node)
    if rank is not None:
        raise UsageError(f"a {kind} takes --node, not --rank")
    running = next((event for event in reversed(events_of(part, watch.events(), 0)) if event.nodes), None)
    post = takeover.current(whole.run_dir)
    host = post.node if post is not None else ""
    return Drill(
        kind=kind,
        whole=whole,
        part=part,
        watch=watch,
        rank=0,
        node=node_for(running.nodes if running is not None else (), batch_host=host, wanted=node),
    )


def do(drill: Drill) -> float:
    """Do it; returns when it was done, in seconds since the epoch. Raises SlurmError when Slurm does not let us."""
    whole, by = drill.whole, intent.who()
    if not drill.kind.on_node:
        return _through_slurm(drill)
    try:
        drills.note(whole.run_dir, kind=drill.kind, node=drill.node, by=by, epoch_s=time.time())
    except OSError as error:
        raise UsageError(
            f"could not write down the drill in {whole.run_dir}: {error}",
            hint="without that line its node would be under suspicion later, so nothing was done",
        ) from None
    env = clean_environment(os.environ)
    if whole.slurm_conf:
        env["SLURM_CONF"] = whole.slurm_conf
    line = drill.command()
    try:
        done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=_SRUN_PATIENCE_S, check=False)
    except FileNotFoundError:
        raise SlurmMissing("could not run 'srun': it is not on this machine's PATH") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"could not rehearse {drill.kind}: srun did not start on {drill.node} in time") from None
    said = done.stdout.split()
    if len(said) < 2:
        raise SlurmError(
            f"could not rehearse {drill.kind} on {drill.node}: {done.stderr.strip() or 'srun said nothing'}"
        )
    return float(said[0])


def _through_slurm(drill: Drill) -> float:
    """As Slurm does it: the batch step is warned, and after a while the job is put back."""
    watch = drill.watch
    client = watch.queue.client
    if drill.grace_s > 0:
        client.signal(watch.job_id, "USR2")
        deadline_s = time.monotonic() + drill.grace_s
        while time.monotonic() < deadline_s and watch.end() is None:
            time.sleep(0.2)
    if watch.end() is not None:
        raise UsageError(f"job {watch.job_id} ended during the grace time: {watch.state()}")
    attempt = max((event.attempt for event in watch.events()), default=0)
    intent.leave(watch.run_dir, intent.REQUEUE, reason=f"drill: {drill.kind}", attempt=attempt)
    done_s = time.time()
    requeue.put_back(client, requeue.Order(job_id=watch.job_id, restarts=attempt))
    watch.hurry()
    return done_s


def follow(
    drill: Drill,
    *,
    done_s: float,
    step_before: int | None,
    timeout_s: float,
    on_change: Callable[[Course], None] = lambda told: None,
) -> Course:
    """Watch until the job has recovered, has ended, or the time is over."""
    deadline_s = time.monotonic() + timeout_s
    new_step_s: float | None = None
    told = drill.now(done_s=done_s, step_before=step_before, new_step_s=None)
    while time.monotonic() < deadline_s:
        if told.running_s is not None and new_step_s is None and told.step_before is not None:
            step = drill.step()
            if step is not None and step > told.step_before:
                new_step_s = time.time() - done_s
        now = drill.now(done_s=done_s, step_before=step_before, new_step_s=new_step_s)
        if now != told:
            told = now
            on_change(told)
        if told.recovered or drill.watch.end() is not None:
            break
        time.sleep(0.1)
    return told
