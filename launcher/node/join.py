"""The batch step of a refill: a job of one node, whose agent joins a job that has lost one. Standard library only.

It may have waited long in the queue, so it looks first whether it is still wanted.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainmaster.errors import SlurmError
from trainmaster.launcher import plan as plans
from trainmaster.launcher import record
from trainmaster.launcher.record import Event
from trainmaster.launcher.supervise import slurm_side, takeover
from trainmaster.slurm.commands import Commands

LOG = logging.getLogger("trainmaster.join")
GUEST = "TRAINMASTER_GUEST"
"""Set for an agent in an allocation of its own: it ends with its supervisor, and never takes its place."""


def too_late(post: takeover.Post | None, events: Sequence[Event], state: str, *, attempt: int) -> str:
    """Why nobody waits for this node any more; "" while somebody does. Pure.

    Args:
        post: Who supervises the job.
        events: The job's record.
        state: The job's state by Slurm; "" when it does not say.
        attempt: That which asked for the node.
    """
    if post is None:
        return "the job has no supervisor"
    if post.attempt != attempt:
        return f"attempt {attempt} asked for a node, and attempt {post.attempt} runs by now"
    if any(event.attempt == attempt and (event.ends or event.state == "REQUEUED") for event in events):
        return f"attempt {attempt} is over"
    return f"the job is {state}" if state not in ("RUNNING", "") else ""


def _state_of(job_id: str) -> str:
    try:
        job = Commands(timeout_s=20.0).job(job_id)
    except SlurmError:
        return ""
    return job.state if job is not None else "forgotten"


def main(argv: list[str]) -> int:
    """`python -m trainmaster.launcher.node.join RUN_DIR JOB_ID ATTEMPT`: becomes the srun of one agent."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    run_dir, job_id, attempt = Path(argv[0]), argv[1], int(argv[2])
    post = takeover.current(run_dir)
    why = too_late(post, record.read(run_dir), _state_of(job_id), attempt=attempt)
    if post is None or why:
        LOG.info("job %s needs no further node: %s", job_id, why)
        return 0
    command = slurm_side.agents_command(replace(plans.read(run_dir), nodes=1, spares=0), post)
    os.environ[GUEST] = "1"
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
