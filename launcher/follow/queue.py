"""What Slurm says about this user's jobs: asked at most once in 15 s for all who wait on this host, in the background.

In the background, because squeue takes half a minute to give up when slurmctld is down, and who waits for a job must
see its record's end within a fraction of a second all the same. For all on this host, by `queue_cache`.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from trainmaster.clock import Clock, SystemClock
from trainmaster.errors import SlurmError
from trainmaster.launcher import ids
from trainmaster.launcher.follow.queue_cache import QueueCache, Saved, cache_of
from trainmaster.launcher.intent import who
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.values import Job

log = logging.getLogger("trainmaster")

LOOK_EVERY_S = 15.0
"""Between two questions to slurmctld."""
_ANSWER_MAX_S = 90.0
"""Longer than squeue and scontrol may take together."""
_OTHERS_POLL_S = 0.1
_LISTING = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Slurm said about one job."""

    asked_s: float
    """When it was asked, on the monotonic clock."""
    job: Job | None
    """None: Slurm does not know the job, or no longer."""
    cancelled_by: str | None = None
    """Who cancelled it, if it was and the cluster's accounts say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Slurm does not answer."""

    since_s: float
    """The first question without an answer, on the monotonic clock."""
    why: str


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="trainmaster-queue", daemon=True).start()


class Queue:
    """One cluster's queue as it was last seen from this host, shared by all who wait in this process."""

    def __init__(
        self,
        client: SlurmClient,
        *,
        clock: Clock | None = None,
        start: Callable[[Callable[[], None]], None] = _in_thread,
        cache: QueueCache | None = None,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`start` runs a question, by default in a thread of its own; `cache` shares answers with other processes."""
        self.client = client
        self.every_s = every_s
        self.trouble: Trouble | None = None
        """Set while Slurm does not answer."""
        self._clock = clock or SystemClock()
        self._start = start
        self._cache = cache
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._asked_s = self._given_up_s = float("-inf")
        self._listing: tuple[Job, ...] = ()
        self._by_number: dict[int, Job] = {}
        self._by_task: dict[tuple[int, int], Job] = {}
        self._groups: list[Job] = []
        self._tasks: dict[int, tuple[Job, ...]] = {}
        """What was said of all tasks of an array: a thousand of them that end are not asked about one by one."""
        self._listed_s = self._list_tried_s = float("-inf")
        self._listing_told = True
        """Whether the last squeue had an answer; a job that an unanswered one did not list may be in the queue."""
        self._details: dict[str, Answer] = {}
        self._detail_tried_s: dict[str, float] = {}
        self._fresh_s: dict[str, float] = {}
        """Job -> what was asked before this moment counts no more."""

    def ask(
        self,
        job_id: int | str,
        *,
        closer: bool = False,
        max_age_s: float | None = None,
        after_s: float = float("-inf"),
        patience_s: float = 0.0,
    ) -> Answer | None:
        """What Slurm last said about a job, and a new question when that is due. None: nothing is known yet.

        Args:
            job_id: The job.
            closer: squeue's line is not enough; the caller wants all that scontrol tells.
            max_age_s: How old an answer about a job that is no longer in the queue may be.
            after_s: On the monotonic clock: such an answer from before this moment is none.
            patience_s: How long to wait for the answer to a question that is due.
        """
        one = ids.parse(job_id)
        age_s = self.every_s if max_age_s is None else max_age_s
        self._ask_if_due(one, closer, age_s, after_s)
        if patience_s > 0:
            # A question about others may be under way; then ours comes after it.
            self._idle.wait(patience_s)
            self._ask_if_due(one, closer, age_s, after_s)
            self._idle.wait(patience_s)
        with self._lock:
            return self._known(one, closer)

    def listed(self, job_id: int | str, *, patience_s: float) -> Job | None:
        """The job as squeue shows it; None when it is not in the queue, or squeue does not answer in time.

        For an answer that does not come somebody with a list of jobs waits once, not for each of them.
        """
        with self._lock:
            due = self._clock.monotonic_s() - self._list_tried_s >= self.every_s
        if due:
            self.ask(job_id)
        if self._given_up_s != self._asked_s and not self._idle.wait(patience_s):
            self._given_up_s = self._asked_s
        return self._find(ids.parse(job_id))

    def forget(self, job_id: int | str) -> None:
        """Let the next question about a job be asked at once."""
        key = _question(ids.parse(job_id))
        with self._lock:
            self._details.pop(key, None)
            self._detail_tried_s.pop(key, None)
            self._fresh_s[key] = self._clock.monotonic_s()

    def do(self, action: Callable[[SlurmClient], None]) -> None:
        """Have something done in the background. It may fail; the next answer shows what came of it."""

        def work() -> None:
            try:
                action(self.client)
            except SlurmError as error:
                log.info("Slurm refused: %s", error.message)

        self._start(work)

    def _find(self, one: ids.JobId) -> Job | None:
        if one.task is None and one.part is None:
            return self._by_number.get(one.job)
        if one.task is not None and (started := self._by_task.get((one.job, one.task))) is not None:
            return started
        return next((job for job in self._groups if one.names(job)), None)

    def _known(self, one: ids.JobId, closer: bool) -> Answer | None:
        detail = self._details.get(_question(one))
        if detail is not None and one.task is not None:
            detail = replace(detail, job=next((job for job in self._tasks[one.job] if one.names(job)), None))
        listed = self._find(one)
        if listed is not None and not closer and (detail is None or detail.asked_s < self._listed_s):
            return Answer(asked_s=self._listed_s, job=listed)
        return detail

    def _ask_if_due(self, one: ids.JobId, closer: bool, max_age_s: float, after_s: float) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            # A process forked while a question was under way has nobody who would answer it.
            if not self._idle.is_set() and now_s - self._asked_s < _ANSWER_MAX_S:
                return
            listing = now_s - self._list_tried_s >= self.every_s
            missing = self._find(one) is None and self._listing_told
            tried_s = self._detail_tried_s.get(_question(one), float("-inf"))
            detail = (closer or missing) and (now_s - tried_s >= max_age_s or tried_s < after_s)
            if not listing and not detail:
                return
            self._idle.clear()
            self._asked_s = now_s
            if listing:
                self._list_tried_s = now_s
        self._start(lambda: self._work(now_s, one, closer, listing, max_age_s, after_s))

    def _work(
        self, now_s: float, one: ids.JobId, closer: bool, listing: bool, max_age_s: float, after_s: float
    ) -> None:
        try:
            told = self._work_listing(now_s) if listing else True
            if told and (closer or self._find(one) is None):
                self._work_detail(now_s, one, max_age_s, after_s)
        finally:
            self._idle.set()

    def _work_listing(self, now_s: float) -> bool:
        """Get the queue's listing, by asking or from whoever asked; False when Slurm does not say."""
        saved = self._shared(_LISTING, now_s, self.every_s, lambda: Saved(asked_s=now_s, jobs=self._squeue()))
        self._note(saved, now_s)
        with self._lock:
            self._listing_told = not saved.error
            if not saved.error:
                self._listing, self._listed_s = saved.jobs, saved.asked_s
                self._by_number = {job.job_id: job for job in saved.jobs}
                tasks = [job for job in saved.jobs if job.array_tasks.isdecimal()]
                self._by_task = {(job.array_job_id, int(job.array_tasks)): job for job in tasks}
                # Tasks that wait share one line, and so do parts of a heterogeneous job.
                self._groups = [job for job in saved.jobs if not job.array_tasks.isdecimal()]
                # The next turn is one after that answer's, not one after this look.
                self._list_tried_s = max(saved.asked_s, now_s - self.every_s)
        return not saved.error

    def _squeue(self) -> tuple[Job, ...]:
        return self.client.jobs(user=who())

    def _work_detail(self, now_s: float, one: ids.JobId, max_age_s: float, after_s: float) -> None:
        key = _question(one)
        fresh_s = max(after_s, self._fresh_s.get(key, float("-inf")))
        self._detail_tried_s[key] = now_s

        def scontrol() -> Saved:
            if one.task is not None:
                return Saved(asked_s=now_s, jobs=self.client.tasks(one.job))
            job = self.client.job(key)
            by = self.client.cancelled_by(key) if job is not None and job.state == "CANCELLED" else None
            return Saved(asked_s=now_s, jobs=() if job is None else (job,), cancelled_by=by)

        saved = self._shared(f"job-{key}", now_s, max_age_s, scontrol, fresh_s=fresh_s)
        self._note(saved, now_s)
        if not saved.error:
            job = saved.jobs[0] if saved.jobs and one.task is None else None
            with self._lock:
                # As old as the answer is: another process may have had it long before this one asked.
                self._detail_tried_s[key] = min(saved.asked_s, now_s)
                if one.task is not None:
                    self._tasks[one.job] = saved.jobs
                self._details[key] = Answer(asked_s=saved.asked_s, job=job, cancelled_by=saved.cancelled_by)

    def _shared(
        self, question: str, now_s: float, age_s: float, ask: Callable[[], Saved], *, fresh_s: float = float("-inf")
    ) -> Saved:
        """An answer that is no older than `age_s`, and than `fresh_s`: another process's, or our own."""

        def answer() -> Saved:
            try:
                return ask()
            except SlurmError as error:
                return Saved(asked_s=now_s, error=error.message)

        if self._cache is None or not self._cache.usable():
            return answer()
        limit_s = self._clock.monotonic_s() + _ANSWER_MAX_S / 3
        while True:
            at_s = self._clock.monotonic_s()
            saved = self._cache.latest(question, now_s=at_s)
            if saved is not None and at_s - saved.asked_s < age_s and saved.asked_s >= fresh_s:
                return saved
            # Something was done to the job by this process: an answer from before that does not count.
            hurried = fresh_s > float("-inf") and (saved is None or saved.asked_s < fresh_s)
            if self._cache.take_turn(question, now_s=at_s, every_s=min(age_s, 1.0) if hurried else age_s):
                got = answer()
                self._cache.save(question, got)
                return got
            if at_s >= limit_s:
                return Saved(asked_s=now_s, error="another process of this user has asked, and had no answer yet")
            self._clock.sleep_s(_OTHERS_POLL_S)

    def _note(self, saved: Saved, now_s: float) -> None:
        if not saved.error:
            self.trouble = None
        elif self.trouble is None:
            self.trouble = Trouble(since_s=now_s, why=saved.error)
            log.warning("Slurm does not tell about jobs; their own records have to do: %s", saved.error)
        else:
            self.trouble = Trouble(since_s=self.trouble.since_s, why=saved.error)


def _question(one: ids.JobId) -> str:
    """What is asked to know more of a job; the tasks of an array are asked about together."""
    return f"{one.job}_tasks" if one.task is not None else str(one)


_queues: dict[str, Queue] = {}
_queues_lock = threading.Lock()


def queue_of(slurm_conf: str) -> Queue:
    """The process's one Queue of the cluster that SLURM_CONF names ("" for the machine's own)."""
    with _queues_lock:
        if slurm_conf not in _queues:
            env = {key: value for key, value in os.environ.items() if key != "SLURM_CONF"}
            client = Commands(env=env | ({"SLURM_CONF": slurm_conf} if slurm_conf else {}))
            _queues[slurm_conf] = Queue(client, cache=cache_of(slurm_conf))
        return _queues[slurm_conf]
