"""The batch step of a refill: a job of one node, whose agent joins a job that has lost one. Standard library only.

It may have waited long in the queue, so it looks first whether it is still wanted. When it is warned, by SIGUSR2 as a
maintenance train does, it asks the job that it has joined to leave its node.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from trainmaster.errors import SlurmError
from trainmaster.launcher import plan as plans
from trainmaster.launcher import record, swap_request
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
    """`python -m trainmaster.launcher.node.join RUN_DIR JOB_ID ATTEMPT`: runs the srun of one agent."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    run_dir, job_id, attempt = Path(argv[0]), argv[1], int(argv[2])
    post = takeover.current(run_dir)
    why = too_late(post, record.read(run_dir), _state_of(job_id), attempt=attempt)
    if post is None or why:
        LOG.info("job %s needs no further node: %s", job_id, why)
        return 0
    command = slurm_side.agents_command(replace(plans.read(run_dir), nodes=1, spares=0), post)
    os.environ[GUEST] = "1"
    return _serve(command, run_dir, attempt)


def _serve(command: Sequence[str], run_dir: Path, attempt: int) -> int:
    """Run the agent; hand on Slurm's SIGTERM, and make a wish of a warning: srun would give USR2 to the ranks."""
    # Blocked until there is somebody to hand them on to.
    signals = {signal.SIGTERM, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    srun = subprocess.Popen(
        command, process_group=0, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    )

    def warned(number: int, frame: FrameType | None) -> None:
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        try:
            swap_request.leave(run_dir, [node], attempt=attempt, cause="maintenance", reason="its node is warned")
        except OSError as error:
            LOG.warning("cannot ask the job to leave %s: %s", node, error)

    signal.signal(signal.SIGTERM, lambda number, frame: srun.send_signal(number))
    signal.signal(signal.SIGUSR2, warned)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    return srun.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
