"""Following a job from outside: its record first, Slurm only where the record is silent.

The record says how a job ended. About a job without an end in its record Slurm is asked now and then (`queue`); one
that is gone without a word gets the end that Slurm's evidence supports, or LOST, never "finished".
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from trainmaster.clock import Clock, SystemClock
from trainmaster.launcher import ids, intent, plan, record
from trainmaster.launcher.follow.find import Found
from trainmaster.launcher.follow.outcome import UNLISTED_MAX_S, end_by_evidence, state_of, state_unlisted
from trainmaster.launcher.follow.queue import Answer, Queue, queue_of
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.submission import OUTPUT
from trainmaster.launcher.supervise import requeue, takeover
from trainmaster.slurm.values import Job

log = logging.getLogger("trainmaster")

GRACE_S = 5.0
"""How long the end may take to appear in the record after Slurm has let the job go."""
REQUEUE_PATIENCE_S = 10.0
"""How long the requeuing process is left to do its work."""
PATIENCE_S = 5.0
"""How long a question that somebody waits for may take; with slurmctld down, squeue takes half a minute to say so."""
_POLL_FIRST_S, _POLL_LAST_S = 0.05, 0.15
"""Between two looks at the record: one `open` and one `fstat`."""
BLIND_FIRST_S, BLIND_LAST_S = 60.0, 900.0
"""From the first question that Slurm did not answer to the first word about it, and the longest pause between two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """What somebody who waits cannot see: the record has no end, and Slurm does not answer."""

    job_id: str
    silent_s: float
    """How long Slurm has not answered."""
    why: str
    state: str
    """By the record's last word."""
    sign_s: float | None
    """How long ago the job's own processes gave the last sign of life in the run folder; None: they gave none."""

    def __str__(self) -> str:
        sign = "gave no sign of life" if self.sign_s is None else f"gave its last sign of life {_ago(self.sign_s)} ago"
        alive = "; so it runs" if self.sign_s is not None and self.sign_s < BLIND_FIRST_S / 2 else ""
        silent = f"has not answered for {_ago(self.silent_s)}" if self.silent_s >= 1 else "does not answer"
        return (
            f"cannot see how job {self.job_id} stands: Slurm {silent} ({self.why}); "
            f"its record ends with {self.state} and it {sign}{alive}. It is waited for still"
        )


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Watch:
    """Follows one job. `end()` costs a file look; `settle()` may also ask Slurm; `wait()` does both until the end."""

    def __init__(
        self,
        run_dir: Path,
        job_id: int | str,
        queue: Queue,
        *,
        clock: Clock | None = None,
        just_submitted: bool = False,
    ) -> None:
        """`just_submitted`: Slurm accepted the job this moment, so it need not be asked about it for a while."""
        self.run_dir = run_dir
        self.id = ids.parse(job_id)
        self.job_id = str(self.id)
        self.queue = queue
        self.clock = clock or SystemClock()
        self._events: tuple[Event, ...] = ()
        self._seen: tuple[int, ...] = ()
        self._changed_s = float("-inf")
        """When this process first saw the record as it is now."""
        self._alive_s = self.clock.monotonic_s() if just_submitted else float("-inf")
        self._gone_s: float | None = None
        self._known_ours = just_submitted

    @classmethod
    def of(cls, found: Found) -> "Watch":
        """The watch of a job that was found."""
        return cls(found.run_dir, found.job_id, queue_of(found.slurm_conf))

    def events(self) -> tuple[Event, ...]:
        """The record, read again only when it has changed."""
        try:
            # Opening makes a network file system fetch fresh attributes; stat alone may be answered from its cache.
            with record.opened(self.run_dir) as stream:
                status = os.fstat(stream.fileno())
                seen = (status.st_ino, status.st_size, status.st_mtime_ns)
                if seen != self._seen:
                    text = stream.read().decode("utf-8", errors="replace")
                    self._events = record.parse(text.splitlines())
                    self._seen = seen
                    self._changed_s = self.clock.monotonic_s()
        except OSError:
            # Not there yet, or the file system is away for a moment; what was known stays known.
            if self.id.task is not None and not self._seen:
                self._events = record.read(self.run_dir)
        return self._events

    def end(self) -> Event | None:
        """How the job ended, by its record alone."""
        return record.end_of(self.events())

    def state(self, *, patience_s: float = PATIENCE_S) -> str:
        """The job's state in one word. Waits at most `patience_s` for Slurm's part of it."""
        queued = self.queued(patience_s=patience_s)
        events = self.events()
        if queued is not None and queued.state == "RUNNING" and self._listed_before_requeue():
            queued = None
        # Of a job without any record, that Slurm does not show either, nothing is known.
        if not events and queued is None:
            return "UNKNOWN"
        return state_of(events, queued, cancelled=intent.found(self.run_dir, intent.CANCEL))

    def state_seen(self, queued: Job | None) -> str:
        """As `state`, for who looks once. By its record alone a job may seem to run for ever, its cluster long gone.

        `queued`: what the queue has of it, if anything.
        """
        if self.end() is not None or queued is not None:
            return self.state(patience_s=0.0)
        if self.queue.trouble is not None:
            return "UNKNOWN"
        cancelled = intent.found(self.run_dir, intent.CANCEL)
        return state_unlisted(self.events(), cancelled=cancelled, now_s=self.clock.now().timestamp())

    def _listed_before_requeue(self) -> bool:
        """Whether what Slurm said last is of the attempt that ended with the requeue in the record."""
        last = self._events[-1] if self._events else None
        if last is None or last.state != "REQUEUED":
            return False
        answer = self.queue.ask(self.job_id)
        return answer is None or answer.asked_s < self._changed_s

    def queued(self, *, patience_s: float = PATIENCE_S) -> Job | None:
        """The job as Slurm has it in its queue; None when it is not there, has ended, or Slurm does not say in time."""
        if self.end() is not None:
            return None
        answer = self.queue.ask(self.job_id, closer=not self._known_ours, patience_s=patience_s)
        job = self._ours(answer)
        return job if job is not None and job.active else None

    def ask_closely(self, *, patience_s: float) -> Answer | None:
        """All that Slurm tells of the job now; None when it does not say in time. A `job` of None: it knows none."""
        self.hurry()
        answer = self.queue.ask(self.job_id, closer=True, patience_s=patience_s)
        return None if answer is None else replace(answer, job=self._ours(answer))

    def settle(self, *, patience_s: float = 0.0) -> Event | None:
        """How the job ended, by its record or, failing that, by Slurm; None while it lives or Slurm does not say.

        `patience_s`: how long to wait for Slurm's answer; without patience a later call gets it.
        """
        end = self.end()
        now_s = self.clock.monotonic_s()
        if end is not None or (self._gone_s is None and now_s - self._alive_s < self.queue.every_s):
            return end
        age_s = self.queue.every_s if self._gone_s is None else GRACE_S
        closer = not self._known_ours
        answer = self.queue.ask(self.job_id, closer=closer, max_age_s=age_s, patience_s=patience_s)
        if answer is None or answer.asked_s <= self._alive_s:
            return None
        job = self._ours(answer)
        if answer.asked_s < self._changed_s and (job is None or not job.active):
            # Somebody asked before the record said what it says now, and heard of another end: that before a requeue.
            answer = self.queue.ask(
                self.job_id, closer=True, max_age_s=age_s, after_s=self._changed_s, patience_s=patience_s
            )
            if answer is None or answer.asked_s < self._changed_s:
                return None
            job = self._ours(answer)
        if job is not None and job.active:
            self._alive_s, self._gone_s, self._known_ours = answer.asked_s, None, True
            self._help(job)
            return None
        if job is not None and self._is_between_attempts(job):
            self._alive_s, self._gone_s = answer.asked_s, None
            return None
        # A job that held no nodes when it ended had no process that could write.
        silent = job is not None and not job.nodes
        if self._gone_s is None and not silent and not self._long_over(job):
            self._gone_s = answer.asked_s
        if self._gone_s is not None and answer.asked_s - self._gone_s < GRACE_S:
            return None
        return self.end() or self._conclude(job, answer.cancelled_by)

    def _is_between_attempts(self, job: Job) -> bool:
        """Whether a job that Slurm calls ended is about to be requeued: its batch step ended with that in mind.

        Where the requeuing process did not live to do it, this one does.
        """
        last = self._events[-1] if self._events else None
        if last is None or last.state != "REQUEUED" or job.state == "CANCELLED":
            return False
        # An attempt that slurmd refused has left no line in the record.
        if job.restarts > last.attempt + requeue.LAUNCHES_MAX:
            return False
        since_s = self.clock.now().timestamp() - last.epoch_s
        if since_s > REQUEUE_PATIENCE_S:
            held = bool(last.detail.get("held"))
            self.queue.do(lambda client: client.requeue(self.job_id, incomplete=False, hold=held))
        return since_s < UNLISTED_MAX_S

    def _help(self, job: Job) -> None:
        """Release a requeued job from Slurm's hold of 121 s, where the process that should do it did not live to."""
        last = self._events[-1] if self._events else None
        if last is None or last.state != "REQUEUED" or job.state != "PENDING" or "BeginTime" not in job.reason:
            return
        if self.clock.now().timestamp() - last.epoch_s < REQUEUE_PATIENCE_S:
            return
        try:
            own = plan.read(self.run_dir).exclude
        except (OSError, ValueError, TypeError):
            return
        exclude = last.detail.get("exc_node_list")
        if exclude is None:
            exclude = ",".join(filter(None, (own, *last.detail.get("excluded", ()))))
        order = requeue.Order(job_id=self.job_id, restarts=last.attempt, exclude=exclude)
        self.queue.do(lambda client: requeue.release(client, order))

    def hurry(self) -> None:
        """Ask Slurm at the next look: something was done to the job just now."""
        self._alive_s, self._known_ours = float("-inf"), False
        self.queue.forget(self.job_id)

    def _conclude(self, job: Job | None, cancelled_by: str | None) -> Event:
        """Write down, for whoever asks later, the end that the job could not write itself."""
        end = end_by_evidence(
            self._events,
            job,
            job_id=self.id.job if self.id.task is None else self.job_id,
            cancelled=intent.found(self.run_dir, intent.CANCEL),
            cancelled_by=cancelled_by,
            now_s=self.clock.now().timestamp(),
        )
        try:
            if self.id.task is not None:
                self.run_dir.mkdir(exist_ok=True)  # it never started
            record.append(self.run_dir, end)
        except OSError as error:
            log.warning("could not add the end of job %s to its record: %s", self.job_id, error)
            self._events = (*self._events, end)
        return end

    def _ours(self, answer: Answer | None) -> Job | None:
        """The job of an answer, unless it is another with the same number: job ids come round again.

        The output file lies in the run folder, whose name does not; or, of a job that began as somebody's own sbatch
        script, a link there leads to it.
        """
        job = answer.job if answer is not None else None
        # Where Slurm cannot write to the folder, the output says nothing.
        if job is not None and job.std_out not in ("", "/dev/null"):
            uid = self.run_dir.name if self.id.task is None else self.run_dir.parent.name
            if uid not in Path(job.std_out).parts and not self._links_to(job.std_out):
                return None
        return job

    def _links_to(self, output: str) -> bool:
        try:
            return str((self.run_dir / OUTPUT).readlink()) == output
        except OSError:
            return False

    def _long_over(self, job: Job | None) -> bool:
        now_s = self.clock.now().timestamp()
        if job is not None:
            return job.end_time is not None and now_s - job.end_time > GRACE_S
        # Slurm forgets a job MinJobAge (300 s by default) after its end.
        try:
            return now_s - (self.run_dir / record.FILE).stat().st_mtime > 60.0
        except OSError:
            return True

    def blind(self) -> Blind | None:
        """What cannot be seen while Slurm does not answer; None when it does, or the record says how it ended."""
        trouble = self.queue.trouble
        if trouble is None or self.end() is not None:
            return None
        return Blind(
            job_id=self.job_id,
            silent_s=self.clock.monotonic_s() - trouble.since_s,
            why=trouble.why,
            state=state_of(self._events),
            sign_s=self.silent_s(),
        )

    def silent_s(self) -> float | None:
        """Seconds since the job's own processes last wrote to its folder; while it runs they do every second."""
        times = []
        for name in (record.FILE, "step", takeover.FILE):
            try:
                times.append((self.run_dir / name).stat().st_mtime)
            except OSError:
                continue
        started = any(event.state != "SUBMITTED" for event in self.events())
        return max(0.0, self.clock.now().timestamp() - max(times)) if times and started else None

    def wait(
        self,
        *,
        timeout_s: float = float("inf"),
        on_change: Callable[[], None] | None = None,
        on_blind: Callable[[Blind], None] = lambda blind: log.warning("%s", blind),
    ) -> Event | None:
        """Wait for the end. Returns it, or None after `timeout_s`.

        `on_change` is called after every look at the record that found something new, and about twice a second.
        `on_blind` is called after a minute without an answer from Slurm, and ever more rarely as that goes on: the end
        of a job whose whole cluster is gone would never be seen.
        """
        started_s = told_s = self.clock.monotonic_s()
        pause_s = _POLL_FIRST_S
        spells = Spells(self)
        seen: tuple[Event, ...] = ()
        while True:
            end = self.settle()
            now_s = self.clock.monotonic_s()
            if on_change is not None and (self._events is not seen or now_s - told_s >= 0.5):
                seen, told_s = self._events, now_s
                on_change()
            if end is not None:
                return end
            if (blind := spells.due()) is not None:
                on_blind(blind)
            left_s = timeout_s - (now_s - started_s)
            if left_s <= 0:
                return None
            self.clock.sleep_s(min(pause_s, left_s))
            pause_s = min(pause_s * 1.02, _POLL_LAST_S)


class Spells:
    """When to tell somebody who waits that they cannot see: after a minute, and ever more rarely as that goes on."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._began_s = watch.clock.monotonic_s()
        self._after_s = BLIND_FIRST_S

    def due(self) -> Blind | None:
        """What cannot be seen, if this is a moment to say so."""
        trouble = self._watch.queue.trouble
        if trouble is None:
            self._after_s = BLIND_FIRST_S
        elif self._watch.clock.monotonic_s() - max(trouble.since_s, self._began_s) >= self._after_s:
            self._after_s += min(2 * self._after_s, BLIND_LAST_S)
            return self._watch.blind()
        return None
