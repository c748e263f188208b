"""Which ended jobs may be cleaned away, and doing so. One that lives, or of which nobody can tell, is never touched."""

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainmaster.errors import SlurmError
from trainmaster.launcher import ids, plan, record
from trainmaster.launcher.follow import index
from trainmaster.launcher.follow.queue import queue_of
from trainmaster.launcher.intent import who
from trainmaster.slurm.conf import cluster_name
from trainmaster.slurm.values import Job

log = logging.getLogger("trainmaster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One submission, as far as it is known. Times are seconds since the epoch."""

    job_id: int
    run_dir: Path
    name: str
    submitted_s: float
    ended_s: float | None
    """By its record, all its tasks for an array; None when that has no end."""
    state: str
    queued: bool | None
    """Whether Slurm has it in its queue; None when Slurm does not say."""
    cluster: str = ""
    """Its cluster, when that is one that cannot be asked from here at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of one submission."""

    candidate: Candidate
    remove: bool
    why: str


def judge(
    candidates: Sequence[Candidate], *, older_than_s: float, keep: int, now_s: float, elsewhere: bool = False
) -> tuple[Verdict, ...]:
    """What to remove: jobs that ended long enough ago, but for the `keep` newest of all. Pure.

    A job is kept when its record has no end, when Slurm has it in its queue (somebody has requeued it), when Slurm does
    not say, and when it is LOST: nobody knows how it ended, and its files may be all that can tell.

    `elsewhere`: also jobs of clusters that cannot be asked from here; a person has to know that they live no more.
    """
    newest = {one.run_dir for one in sorted(candidates, key=lambda one: -one.submitted_s)[: max(keep, 0)]}
    verdicts = []
    for one in candidates:
        if one.run_dir in newest:
            why = f"one of the {keep} newest"
        elif one.ended_s is None:
            why = "its record has no end"
        elif one.cluster and not elsewhere:
            why = f"it belongs to the cluster {one.cluster}, which cannot be asked from here"
        elif one.queued is None and not one.cluster:
            why = "Slurm does not say whether it is in the queue"
        elif one.queued:
            why = "it is in the queue"
        elif one.state == "LOST":
            why = "nobody knows how it ended"
        elif now_s - one.ended_s < older_than_s:
            why = f"it ended {(now_s - one.ended_s) / 86400:.1f} days ago"
        else:
            verdicts.append(Verdict(candidate=one, remove=True, why=f"{one.state}, {_days(now_s - one.ended_s)} ago"))
            continue
        verdicts.append(Verdict(candidate=one, remove=False, why=why))
    return tuple(verdicts)


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days"


def candidates(entries: Iterable[index.Entry]) -> tuple[Candidate, ...]:
    """What is known of submissions whose folder is there. Asks each cluster once."""
    listings: dict[str, tuple[Job, ...] | None] = {}
    found = []
    for entry in entries:
        run_dir = Path(entry.run_dir)
        if not is_run_folder(run_dir, entry.uid):
            continue
        ended_s, state = _end(entry)
        queued: bool | None = None
        conf = _conf_to_ask(entry)
        if ended_s is not None and conf is not None:
            if conf not in listings:
                listings[conf] = _listing(conf)
            listing = listings[conf]
            queued = None if listing is None else any(_is(entry.job_id, job) for job in listing)
        found.append(
            Candidate(
                job_id=entry.job_id,
                run_dir=run_dir,
                name=entry.name,
                submitted_s=entry.time,
                ended_s=ended_s,
                state=state,
                queued=queued,
                cluster="" if conf is not None else entry.cluster or entry.slurm_conf,
            )
        )
    return tuple(found)


def _conf_to_ask(entry: index.Entry) -> str | None:
    """The SLURM_CONF with which to ask the cluster of a job; None where it is out of sight from here.

    Job ids of two clusters may be the same, so what another cluster's queue lacks says nothing.
    """
    if entry.asked_here and (not entry.slurm_conf or Path(entry.slurm_conf).exists()):
        return entry.slurm_conf
    here = os.environ.get("SLURM_CONF", "")
    return here if entry.cluster and cluster_name(here) == entry.cluster else None


def _is(job_id: int, job: Job) -> bool:
    return job_id in (job.job_id, job.array_job_id, job.het_job_id)


def _listing(slurm_conf: str) -> tuple[Job, ...] | None:
    # Not what somebody heard some seconds ago: the job may have been requeued since.
    try:
        return queue_of(slurm_conf).client.jobs(user=who())
    except SlurmError as error:
        log.warning("cannot see which jobs are in the queue: %s", error.message)
        return None


def _end(entry: index.Entry) -> tuple[float | None, str]:
    """When and how a submission ended; an array when the last of its tasks did."""
    run_dir = Path(entry.run_dir)
    if not entry.tasks:
        end = record.end_of(record.read(run_dir))
        return (None, "") if end is None else (end.epoch_s, end.state)
    ends = []
    for task in ids.indices(entry.tasks):
        end = record.end_of(record.read(run_dir / str(task)))
        if end is None:
            return None, ""
        ends.append(end)
    last = max(ends, key=lambda end: end.epoch_s)
    return last.epoch_s, "LOST" if any(end.state == "LOST" for end in ends) else last.state


def is_run_folder(folder: Path, uid: str) -> bool:
    """Whether a folder is, beyond doubt, what a submission has made: nothing else is ever removed."""
    try:
        return not folder.is_symlink() and folder.name == uid and plan.read(folder).uid == uid
    except (OSError, ValueError, TypeError):
        return False


def entries_of_folder(folder: Path, known: Iterable[index.Entry]) -> tuple[index.Entry, ...]:
    """All submissions of a folder, also those that are in nobody's list. Lists the folder once."""
    base = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - as submission makes it: links stay links
    by_dir = {entry.run_dir: entry for entry in known}
    found = []
    try:
        names = sorted(entry.name for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return ()
    for name in names:
        run_dir = base / name
        if str(run_dir) in by_dir:
            found.append(by_dir[str(run_dir)])
        elif is_run_folder(run_dir, name):
            events = record.read(run_dir)
            if events:
                told = events[0].detail
                found.append(
                    index.Entry(
                        time=events[0].epoch_s,
                        job_id=ids.parse(events[0].job_id).job,
                        uid=name,
                        run_dir=str(run_dir),
                        name=plan.read(run_dir).name,
                        slurm_conf=str(told.get("slurm_conf", "")),
                        tasks=plan.read(run_dir).array,
                        cluster=str(told.get("cluster", "")) if "slurm_conf" in told else "that nobody wrote down",
                    )
                )
    return tuple(found)


def remove(candidate: Candidate) -> int:
    """Remove a job's folder and the link to it; returns how many bytes that freed. Raises OSError.

    The folder gets another name first: half of it is not a job any more, should this be interrupted.
    """
    size = size_of(candidate.run_dir)
    for name in (str(candidate.job_id), f"{candidate.job_id}_submission.sh"):
        link = candidate.run_dir.parent / name
        try:
            if link.readlink().parts[0] == candidate.run_dir.name:
                link.unlink()
        except OSError:
            pass  # none, or it leads to a newer job of that number
    doomed = candidate.run_dir.with_name(f".gc-{candidate.run_dir.name}")
    candidate.run_dir.rename(doomed)
    shutil.rmtree(doomed)
    return size


def size_of(folder: Path) -> int:
    """The bytes that a folder's files take on the disk; links are not followed."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(base) / name).st_blocks * 512
            except OSError:
                continue
    return total


def tidy_index(file: Path) -> int:
    """Drop submissions whose folder is gone from the list; returns how many.

    Gone, not out of sight: what lies on a file system that is not mounted here stays in the list.
    """
    return index.rewrite(file, lambda entry: Path(entry.run_dir).exists() or not Path(entry.run_dir).parent.exists())
