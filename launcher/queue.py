"""What Slurm says about this user's jobs: asked at most once in 15 s for all jobs of this process, in the background.

In the background, because squeue takes half a minute to give up when slurmctld is down, and who waits for a job must
see its record's end within a fraction of a second all the same.
"""

import getpass
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from trainmaster.clock import Clock, SystemClock
from trainmaster.errors import SlurmError
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Job

log = logging.getLogger("trainmaster")

LOOK_EVERY_S = 15.0
"""Between two questions to slurmctld."""
_ANSWER_MAX_S = 90.0
"""Longer than squeue and scontrol may take together."""


def who() -> str:
    """The user as Slurm's commands take it: the login name, or the number of a user who has none here."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Slurm said about one job."""

    asked_s: float
    """When it was asked, on the monotonic clock."""
    job: Job | None
    """None: Slurm does not know the job, or no longer."""


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="trainmaster-queue", daemon=True).start()


class Queue:
    """One cluster's queue as this process last saw it, shared by all who wait."""

    def __init__(
        self,
        client: SlurmClient,
        *,
        clock: Clock | None = None,
        start: Callable[[Callable[[], None]], None] = _in_thread,
    ) -> None:
        """`start` runs a question; by default in a thread of its own."""
        self.client = client
        self._clock = clock or SystemClock()
        self._start = start
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._asked_s = float("-inf")
        self._listing: dict[int, Job] = {}
        self._listed_s = self._list_tried_s = float("-inf")
        self._details: dict[int, Answer] = {}
        self._detail_tried_s: dict[int, float] = {}
        self._silent = False

    def ask(
        self, job_id: int, *, closer: bool = False, max_age_s: float = LOOK_EVERY_S, patience_s: float = 0.0
    ) -> Answer | None:
        """What Slurm last said about a job, and a new question when that is due. None: nothing is known yet.

        Args:
            job_id: The job.
            closer: squeue's line is not enough; the caller wants all that scontrol tells.
            max_age_s: How old an answer about a job that is no longer in the queue may be.
            patience_s: How long to wait for the answer to a question that is due.
        """
        self._ask_if_due(job_id, closer, max_age_s)
        if patience_s > 0:
            # A question about others may be under way; then ours comes after it.
            self._idle.wait(patience_s)
            self._ask_if_due(job_id, closer, max_age_s)
            self._idle.wait(patience_s)
        with self._lock:
            return self._known(job_id, closer)

    def listed(self, job_id: int, *, patience_s: float) -> Job | None:
        """The job as squeue shows it; None when it is not in the queue, or squeue does not answer in time."""
        with self._lock:
            due = self._clock.monotonic_s() - self._list_tried_s >= LOOK_EVERY_S
        if due:
            self.ask(job_id)
        self._idle.wait(patience_s)
        return self._listing.get(job_id)

    def forget(self, job_id: int) -> None:
        """Let the next question about a job be asked at once."""
        with self._lock:
            self._details.pop(job_id, None)
            self._detail_tried_s.pop(job_id, None)

    def do(self, action: Callable[[SlurmClient], None]) -> None:
        """Have something done in the background. It may fail; the next answer shows what came of it."""

        def work() -> None:
            try:
                action(self.client)
            except SlurmError as error:
                log.info("Slurm refused: %s", error.message)

        self._start(work)

    def _known(self, job_id: int, closer: bool) -> Answer | None:
        detail = self._details.get(job_id)
        listed = self._listing.get(job_id)
        if listed is not None and not closer and (detail is None or detail.asked_s < self._listed_s):
            return Answer(asked_s=self._listed_s, job=listed)
        return detail

    def _ask_if_due(self, job_id: int, closer: bool, max_age_s: float) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            # A process forked while a question was under way has nobody who would answer it.
            if not self._idle.is_set() and now_s - self._asked_s < _ANSWER_MAX_S:
                return
            listing = now_s - self._list_tried_s >= LOOK_EVERY_S
            # A job that an unanswered squeue did not list may well be in the queue.
            missing = job_id not in self._listing and self._listed_s == self._list_tried_s
            detail = (closer or missing) and (now_s - self._detail_tried_s.get(job_id, float("-inf")) >= max_age_s)
            if not listing and not detail:
                return
            self._idle.clear()
            self._asked_s = now_s
            if listing:
                self._list_tried_s = now_s
        self._start(lambda: self._work(now_s, job_id, closer, listing))

    def _work(self, now_s: float, job_id: int, closer: bool, listing: bool) -> None:
        try:
            if listing:
                jobs = self.client.jobs(user=who())
                with self._lock:
                    self._listing = {job.job_id: job for job in jobs}
                    self._listed_s = now_s
            if closer or job_id not in self._listing:
                self._detail_tried_s[job_id] = now_s
                job = self.client.job(job_id)
                with self._lock:
                    self._details[job_id] = Answer(asked_s=now_s, job=job)
            self._silent = False
        except SlurmError as error:
            if not self._silent:
                self._silent = True
                log.warning("Slurm does not tell about jobs; their own records have to do: %s", error.message)
        finally:
            self._idle.set()


_queues: dict[str, Queue] = {}
_queues_lock = threading.Lock()


def queue_of(slurm_conf: str) -> Queue:
    """The process's one Queue of the cluster that SLURM_CONF names ("" for the machine's own)."""
    with _queues_lock:
        if slurm_conf not in _queues:
            env = {key: value for key, value in os.environ.items() if key != "SLURM_CONF"}
            _queues[slurm_conf] = Queue(Commands(env=env | ({"SLURM_CONF": slurm_conf} if slurm_conf else {})))
        return _queues[slurm_conf]
