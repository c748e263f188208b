"""Following a job from outside: its record first, Slurm only where the record is silent, and rarely.

The record says how a job ended. Slurm is asked, at most once in 15 s for all jobs of this process together, whether a
job without an end in its record is still there; one that is gone without a word is given the end that Slurm's evidence
supports, or LOST, never "finished".
"""

import getpass
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from trainmaster.clock import Clock, SystemClock
from trainmaster.errors import SlurmError, SlurmMissing, SlurmUnreachable
from trainmaster.launcher import record
from trainmaster.launcher.outcome import end_by_evidence, state_of
from trainmaster.launcher.record import Event
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.values import Job

log = logging.getLogger("trainmaster")

LOOK_EVERY_S = 15.0
"""Between two questions to slurmctld."""
GRACE_S = 5.0
"""How long the end may take to appear in the record after Slurm has let the job go."""
_POLL_FIRST_S, _POLL_LAST_S = 0.05, 0.15
"""Between two looks at the record: one `open` and one `fstat`."""


# --- Slurm, rarely ----------------------------------------------------------------------------------------------------


class Queue:
    """One cluster's queue as this process last saw it; shared by all who wait, so that many cost no more than one."""

    def __init__(self, client: SlurmClient, *, clock: Clock | None = None, every_s: float = LOOK_EVERY_S) -> None:
        self.client = client
        self._clock = clock or SystemClock()
        self._every_s = every_s
        self._jobs: dict[int, Job] = {}
        self._looked_s = float("-inf")
        self._tried_s = float("-inf")
        self._silent = False
        self._lock = threading.Lock()

    def look(self) -> float:
        """Ask squeue unless that was done in the last 15 s. Returns when it last answered, on the monotonic clock."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._tried_s < self._every_s:
                return self._looked_s
            self._tried_s = now_s
            try:
                jobs = self.client.jobs(user=getpass.getuser())
            except SlurmError as error:
                self._say(error)
                return self._looked_s
            self._silent = False
            self._jobs = {job.job_id: job for job in jobs}
            self._looked_s = now_s
            return now_s

    def get(self, job_id: int) -> Job | None:
        """The job as it was in the queue when last looked at."""
        return self._jobs.get(job_id)

    def evidence(self, job_id: int) -> tuple[bool, Job | None]:
        """Ask for one job. Returns whether Slurm answered, and what it knows."""
        try:
            return True, self.client.job(job_id)
        except SlurmError as error:
            self._say(error)
            return False, None

    def _say(self, error: SlurmError) -> None:
        if self._silent:
            return
        self._silent = True
        if isinstance(error, SlurmUnreachable | SlurmMissing):
            log.warning("cannot ask Slurm about jobs; waiting goes on with their records alone: %s", error.message)
        else:
            log.warning("Slurm could not tell about jobs; waiting goes on with their records alone: %s", error.message)


_queues: dict[str, Queue] = {}
_queues_lock = threading.Lock()


def queue_of(slurm_conf: str) -> Queue:
    """The process's one Queue of the cluster that SLURM_CONF names ("" for the machine's own)."""
    from trainmaster.slurm.commands import Commands

    with _queues_lock:
        if slurm_conf not in _queues:
            env = {key: value for key, value in os.environ.items() if key != "SLURM_CONF"}
            _queues[slurm_conf] = Queue(Commands(env=env | ({"SLURM_CONF": slurm_conf} if slurm_conf else {})))
        return _queues[slurm_conf]


# --- one job ----------------------------------------------------------------------------------------------------------


class Watch:
    """Follows one job. `end()` costs a file look; `settle()` may also ask Slurm; `wait()` does both until the end."""

    def __init__(
        self, run_dir: Path, job_id: int, queue: Queue, *, clock: Clock | None = None, just_submitted: bool = False
    ) -> None:
        """`just_submitted`: Slurm accepted the job this moment, so it need not be asked about it for a while."""
        self.run_dir = run_dir
        self.job_id = job_id
        self.queue = queue
        self._clock = clock or SystemClock()
        self._events: tuple[Event, ...] = ()
        self._seen: tuple[int, ...] = ()
        self._alive_s = self._clock.monotonic_s() if just_submitted else float("-inf")
        self._gone_s: float | None = None
        self._known_ours = just_submitted

    def events(self) -> tuple[Event, ...]:
        """The record, read again only when it has changed."""
        try:
            # Opening makes a network file system fetch fresh attributes; stat alone may be answered from its cache.
            with (self.run_dir / record.FILE).open("rb") as stream:
                status = os.fstat(stream.fileno())
                seen = (status.st_ino, status.st_size, status.st_mtime_ns)
                if seen != self._seen:
                    text = stream.read().decode("utf-8", errors="replace")
                    self._events = record.parse(text.splitlines())
                    self._seen = seen
        except OSError:
            pass  # not there yet, or the file system is away for a moment; what was known stays known
        return self._events

    def end(self) -> Event | None:
        """How the job ended, by its record alone."""
        return record.end_of(self.events())

    @property
    def state(self) -> str:
        """The job's state in one word."""
        events = self.events()
        if record.end_of(events) is None:
            self.queue.look()
        return state_of(events, self.queue.get(self.job_id))

    def settle(self) -> Event | None:
        """How the job ended, by its record or, failing that, by Slurm; None while it lives or Slurm does not answer."""
        end = self.end()
        if end is not None:
            return end
        now_s = self._clock.monotonic_s()
        if self._gone_s is None:
            if now_s - self._alive_s < LOOK_EVERY_S:
                return None
            looked_s = self.queue.look()
            if looked_s <= self._alive_s:
                return None
            if self._known_ours and self.queue.get(self.job_id) is not None:
                self._alive_s = looked_s
                return None
        return self._conclude(now_s)

    def _conclude(self, now_s: float) -> Event | None:
        """The queue does not hold the job, or perhaps another of its number. Look closer; if it is over, say how."""
        if self._gone_s is not None and now_s - self._gone_s < GRACE_S:
            return None
        answered, job = self.queue.evidence(self.job_id)
        if not answered:
            self._alive_s = now_s  # ask again in a while
            return None
        job = job if job is not None and self._is_ours(job) else None
        if job is not None and job.active:
            self._alive_s, self._gone_s, self._known_ours = now_s, None, True
            return None
        if self._gone_s is None and not self._long_over(job):
            self._gone_s = now_s
            return None
        end = self.end()
        if end is None:
            end = end_by_evidence(
                self._events,
                job,
                job_id=self.job_id,
                asked_to_cancel=(self.run_dir / "cancel.json").exists(),
                now_s=self._clock.now().timestamp(),
            )
            try:
                record.append(self.run_dir, end)
            except OSError as error:
                log.warning("could not add the end of job %s to its record: %s", self.job_id, error)
                self._events = (*self._events, end)
        return end

    def _is_ours(self, job: Job) -> bool:
        """Job ids come round again; the output file is in the run folder, whose name does not."""
        return not job.std_out or Path(job.std_out).parent.name == self.run_dir.name

    def _long_over(self, job: Job | None) -> bool:
        now_s = self._clock.now().timestamp()
        if job is not None:
            return job.end_time is not None and now_s - job.end_time > GRACE_S
        # Slurm forgets a job MinJobAge (300 s by default) after its end.
        try:
            return now_s - (self.run_dir / record.FILE).stat().st_mtime > 60.0
        except OSError:
            return True

    def wait(self, *, timeout_s: float = float("inf"), on_change: Callable[[], None] | None = None) -> Event | None:
        """Wait for the end. Returns it, or None after `timeout_s`.

        `on_change` is called after every look at the record that found something new, and about twice a second.
        """
        started_s = told_s = self._clock.monotonic_s()
        pause_s = _POLL_FIRST_S
        seen: tuple[Event, ...] = ()
        while True:
            end = self.settle()
            now_s = self._clock.monotonic_s()
            if on_change is not None and (self._events is not seen or now_s - told_s >= 0.5):
                seen, told_s = self._events, now_s
                on_change()
            if end is not None:
                return end
            left_s = timeout_s - (now_s - started_s)
            if left_s <= 0:
                return None
            self._clock.sleep_s(min(pause_s, left_s))
            pause_s = min(pause_s * 1.02, _POLL_LAST_S)
