"""Why Slurm is ending the job, or warning it: signals come first, Slurm's word later. Standard library only."""

import logging
import signal
import time
from enum import StrEnum
from pathlib import Path

from trainmaster.launcher import intent
from trainmaster.launcher.supervise import slurm_side

LOG = logging.getLogger("trainmaster.supervisor")


class Reason(StrEnum):
    """Why Slurm is asked."""

    WARNING = "warning"
    """SIGUSR2 came."""
    END = "end"
    """SIGTERM came."""
    RUMOUR = "rumour"
    """Only an agent was signalled, or ranks died of SIGTERM."""


class Ending:
    """What is known of the job's end while it still runs."""

    def __init__(self, run_dir: Path, job_id: int | str, *, attempt: int, lead_s: float, taken_over: bool) -> None:
        """`lead_s`: how long before the time limit Slurm warns. `taken_over`: the batch step is dead."""
        self._run_dir = run_dir
        self._job_id = job_id
        self._attempt = attempt
        self._output_from = slurm_side.output_size(run_dir)
        self._lead_s = lead_s
        self._taken_over = taken_over
        self._inquiry: slurm_side.Inquiry | None = None
        self._reason = Reason.RUMOUR
        self.cause: str | None = None
        """Why Slurm is ending the job."""
        self.since = 0.0
        self.kindly = False
        """We were told by the person who wants it, and Slurm was not."""
        self.notice: str | None = None
        """Why ranks were asked for a checkpoint while the job goes on."""
        self.reserved: frozenset[str] = frozenset()
        """Of a notice of maintenance: those of its nodes that are in maintenance now."""

    @property
    def asking(self) -> bool:
        """Slurm has been asked and has not answered yet."""
        return self._inquiry is not None

    def heed(self, number: int) -> None:
        """A signal came."""
        if number == signal.SIGUSR2 and self.cause is None and (cause := self._by_word()) is not None:
            self.cause, self.since, self.kindly = cause, time.monotonic(), True
            LOG.warning("somebody ends this job: %s", cause)
            return
        self.inquire(Reason.WARNING if number == signal.SIGUSR2 else Reason.END)

    def _by_word(self) -> str | None:
        """What somebody has left word for before this signal: user or requeue."""
        if intent.found(self._run_dir, intent.CANCEL) is not None:
            return "user"
        return "requeue" if intent.found(self._run_dir, intent.REQUEUE, attempt=self._attempt) is not None else None

    def inquire(self, reason: Reason) -> None:
        """Ask Slurm why; `hear` takes the answer. What is certain outranks what is a rumour."""
        if self.cause is not None:
            return
        if self._inquiry is None or (reason is Reason.END and self._reason is not Reason.END):
            self._inquiry, self._reason = slurm_side.Inquiry(self._job_id), reason

    def hear(self) -> bool:
        """Take Slurm's answer, if it is there; True when the job is found to be ending just now."""
        if self._inquiry is None or not self._inquiry.done:
            return False
        job, reason, maintenance = self._inquiry.job, self._reason, self._inquiry.maintenance
        reserved = self._inquiry.reserved
        self._inquiry = None
        if reason is Reason.WARNING:
            self.notice = slurm_side.notice_of(job, lead_s=self._lead_s, now=time.time(), maintenance=maintenance)
            self.reserved = reserved
            LOG.warning("asked for a checkpoint: %s", self.notice)
            return False
        cancelled = intent.found(self._run_dir, intent.CANCEL) is not None
        calm = job is None or (job.state == "RUNNING" and job.preempt_time is None)
        if reason is Reason.RUMOUR and calm and not cancelled:
            return False
        told = slurm_side.told_by_stepd(slurm_side.output_since(self._run_dir, self._output_from))
        self.cause = slurm_side.ending_of(job, self._run_dir, attempt=self._attempt, told=told)
        if self._taken_over and self.cause == "node_failure":
            # The batch step is dead, and Slurm is now ending the job for it. Its process alone was killed.
            self.cause = "supervisor_death"
        self.since = time.monotonic()
        LOG.warning("the job is ending: %s (Slurm says %s)", self.cause, job.state if job else "nothing")
        return True
