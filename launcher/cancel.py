"""Ending a job on purpose: first the reason is written, then Slurm is told."""

import json
import logging
import os
import time
from pathlib import Path

from trainmaster.launcher.queue import who
from trainmaster.slurm.client import SlurmClient

log = logging.getLogger("trainmaster")

FILE = "cancel.json"


def cancel(run_dir: Path, job_id: int, client: SlurmClient) -> None:
    """End a job, be it pending, starting, running or between two attempts. Raises SlurmError.

    The reason is there before the signal, so that the supervisor never has to guess why it is told to stop.
    """
    reason = {"cause": "user", "by": who(), "time": time.time()}
    temporary = run_dir / f".{FILE}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(reason) + "\n")
        temporary.replace(run_dir / FILE)
    except OSError as error:
        # A full disk must not keep anybody from ending the job that filled it.
        log.warning("could not write why job %s is cancelled: %s", job_id, error)
    client.cancel(job_id)
