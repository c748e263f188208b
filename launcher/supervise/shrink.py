"""Gives nodes of a running job back to Slurm; in a process of its own, as it may take long. Standard library only.

The owner of a running job may shrink it: `scontrol update NodeList=` with the nodes that stay. Steps go on there, and a
requeue later asks for the whole number again (seen on 22.05.8). The batch host cannot be taken out.
"""

import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from trainmaster.errors import SlurmError, SlurmUnreachable
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands

LOG = logging.getLogger("trainmaster.shrink")
PATIENCE_S = 60.0


def give_back(client: SlurmClient, job_id: str, nodes: frozenset[str]) -> bool:
    """Take nodes out of a running job; True when it has none of them any more. Raises SlurmError."""
    job = client.job(job_id)
    if job is None or job.state != "RUNNING":
        return False
    held = client.hostnames(job.nodes)
    kept = [name for name in held if name not in nodes]
    if kept and len(kept) < len(held):
        client.update_job(job_id, NodeList=",".join(kept))
    return bool(kept)


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.supervise.shrink JOB NODES`; NODES separated by commas."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    # scontrol leaves scripts for the new size in its working folder.
    folder = Path(tempfile.mkdtemp(prefix="trainmaster-shrink-"))
    os.chdir(folder)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while True:
            try:
                return 0 if give_back(Commands(timeout_s=20.0), argv[0], frozenset(argv[1].split(","))) else 1
            except SlurmError as error:
                LOG.warning("job %s keeps %s: %s", argv[0], argv[1], error)
                if not isinstance(error, SlurmUnreachable) or time.monotonic() > deadline:
                    return 1
            time.sleep(2.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
