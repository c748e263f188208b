"""Ending a job on purpose: first the reason is written, then Slurm is told."""

from pathlib import Path

from trainmaster.launcher import intent
from trainmaster.slurm.client import SlurmClient


def cancel(run_dir: Path, job_id: int | str, client: SlurmClient, *, reason: str = "") -> None:
    """End a job, be it pending, starting, running or between two attempts. Raises SlurmError.

    The reason is there before the signal, so that the supervisor never has to guess why it is told to stop.
    """
    intent.leave(run_dir, intent.CANCEL, reason=reason)
    client.cancel(job_id)
