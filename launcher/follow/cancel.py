"""Ending a job on purpose: first the reason is written, then the ranks may save, then Slurm is told."""

from pathlib import Path

from trainmaster.errors import SlurmError
from trainmaster.launcher import intent, record
from trainmaster.launcher.follow.watch import PATIENCE_S, Watch
from trainmaster.launcher.supervise import takeover
from trainmaster.slurm.client import SlurmClient

SAVE_PATIENCE_S = 30.0
"""How long a job that was asked kindly may take to end; its ranks have 20 s of that for a checkpoint."""
_WITH_RANKS = ("RUNNING", "PROGRESS", "RESTARTING")


def cancel(run_dir: Path, job_id: int | str, client: SlurmClient, *, reason: str = "") -> None:
    """End a job now, be it pending, starting, running or between two attempts. Raises SlurmError.

    The reason is there before the signal, so that the supervisor never has to guess why it is told to stop. Slurm's
    signal reaches the ranks as well; one that does not handle SIGTERM saves nothing.
    """
    before = intent.found(run_dir, intent.CANCEL)
    intent.leave(run_dir, intent.CANCEL, reason=reason)
    try:
        client.cancel(job_id)
    except SlurmError:
        if before is None:
            # Nothing came of it: whatever ends the job later must not be put down to this.
            intent.drop(run_dir, intent.CANCEL)
        raise


def lives_again(watch: Watch) -> bool:
    """Whether a job whose record has an end is in the queue all the same: `scontrol requeue` leaves no word there."""
    answer = watch.ask_closely(patience_s=PATIENCE_S)
    return answer is not None and answer.job is not None and answer.job.state in ("PENDING", "CONFIGURING", "RUNNING")


def may_save(watch: Watch) -> bool:
    """Whether the job has ranks that its supervisor could ask for a checkpoint, and a batch step to hear of it."""
    last = record.standing(watch.events())
    post = takeover.current(watch.run_dir)
    return last is not None and last.state in _WITH_RANKS and post is not None and post.epoch == 0


def ask_to_end(watch: Watch, *, reason: str = "") -> bool:
    """Tell the supervisor of a running job that somebody cancels it, which lets the ranks save first.

    False when it has none to tell; `cancel` is then all that is left.
    """
    if not may_save(watch):
        return False
    intent.leave(watch.run_dir, intent.CANCEL, reason=reason)
    try:
        watch.queue.client.signal(watch.job_id, "USR2")
    except SlurmError:
        return False
    return True
