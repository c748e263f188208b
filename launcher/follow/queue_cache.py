"""What Slurm last said, shared by all processes of a user on a host: many who wait ask no more than one would.

A small folder in memory (`/dev/shm`), one for each cluster. Who wants to ask takes a turn first: under a lock that is
held for microseconds, and never while Slurm is being asked, so a process that dies or freezes with its question
unanswered delays the others by one turn and blocks nobody. Answers are published by rename.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainmaster.slurm.values import Job

_LOCK_PATIENCE_S = 1.0
_FORGET_S = 3600.0
"""After this, a turn or an answer about one job is of no use to anybody."""
_FORGET_CLUSTER_S = 86400.0
_JOB_FIELDS = frozenset(entry.name for entry in fields(Job))


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One answer that some process of this user got."""

    asked_s: float
    """On the monotonic clock, which all processes of a host share."""
    jobs: tuple[Job, ...] = ()
    error: str = ""
    """Why there was no answer; then `jobs` says nothing."""
    cancelled_by: str | None = None


class QueueCache:
    """The answers about one cluster. Never raises: without it every process asks for itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def usable(self) -> bool:
        """Whether answers can be shared; somebody may have cleaned the folder away."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK)

    def take_turn(self, question: str, *, now_s: float, every_s: float) -> bool:
        """Whether the caller is the one to ask now; at most one in `every_s` seconds is."""
        with self._lock() as held:
            if not held:
                return False
            told = self._read("turns.json") or {}
            turns = {key: value for key, value in told.items() if _age_s(value, now_s) < _FORGET_S}
            if _age_s(turns.get(question), now_s) < every_s:
                return False
            return self._write("turns.json", {**turns, question: now_s})

    def latest(self, question: str, *, now_s: float) -> Saved | None:
        """The newest answer to a question, however old; None when there is none."""
        values = self._read(f"{question}.json")
        if values is None:
            return None
        try:
            jobs = tuple(Job(**{key: job[key] for key in job.keys() & _JOB_FIELDS}) for job in values["jobs"])
            asked_s = float(values["asked_s"])
            by = values.get("cancelled_by")
            found = Saved(asked_s=asked_s, jobs=jobs, error=str(values["error"]), cancelled_by=by)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # of another version
        return found if _age_s(asked_s, now_s) < math.inf else None

    def save(self, question: str, answer: Saved) -> None:
        """Publish an answer, unless a newer one is there: its asker may have been frozen for a while."""
        with self._lock() as held:
            newest = self._read(f"{question}.json")
            if held and (newest is None or not _is_after(newest.get("asked_s"), answer.asked_s)):
                self._write(f"{question}.json", {**asdict(answer), "jobs": [asdict(job) for job in answer.jobs]})
                self._forget_old()

    def _forget_old(self) -> None:
        try:
            for entry in os.scandir(self.folder):
                if entry.name.startswith("job-") and time.time() - entry.stat().st_mtime > _FORGET_S:
                    Path(entry.path).unlink(missing_ok=True)
            if self.folder.parent.name != _own_name():
                return  # not made by `cache_of`: whatever lies beside it is none of ours
            for entry in os.scandir(self.folder.parent):
                # Of clusters that are gone, or were configured anew.
                if entry.is_dir(follow_symlinks=False) and time.time() - entry.stat().st_mtime > _FORGET_CLUSTER_S:
                    shutil.rmtree(entry.path, ignore_errors=True)
        except OSError:
            pass

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, name: str, values: dict[str, Any]) -> bool:
        temporary = self.folder / f".{name}.{os.getpid()}"
        try:
            temporary.write_text(json.dumps(values))
            temporary.replace(self.folder / name)
        except OSError:
            return False
        return True

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold the lock; False when it is not to be had. The kernel takes it back from a holder that dies."""
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield False
            return
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)


def _age_s(moment: object, now_s: float) -> float:
    """How long ago a moment was; infinity for what is none, or lies far ahead: of another boot.

    One a little ahead is now: it was written while the caller, who had looked at the clock, waited for the lock.
    """
    if not isinstance(moment, int | float) or moment - now_s > _FORGET_S:
        return math.inf
    return max(0.0, now_s - moment)


def _is_after(moment: object, other_s: float) -> bool:
    return isinstance(moment, int | float) and moment > other_s


def _locked(descriptor: int) -> bool:
    deadline_s = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.005)
        else:
            return True


def cache_of(slurm_conf: str, *, bases: Sequence[Path] = (Path("/dev/shm"), Path("/tmp"))) -> QueueCache | None:
    """This user's cache for the cluster that SLURM_CONF names; None where no folder can be trusted.

    The configuration file's identity is part of the key: a lab that was built anew under the same path is another one.
    """
    try:
        found = Path(slurm_conf).stat() if slurm_conf else None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    key = [slurm_conf, os.environ.get("SLURM_CLUSTERS", ""), boot]
    key += [f"{found.st_dev}:{found.st_ino}:{found.st_mtime_ns}"] if found else []
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    for base in bases:
        own = base / _own_name()
        folder = own / name
        try:
            own.mkdir(mode=0o700, exist_ok=True)
            if not _is_ours_alone(own):
                continue
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        return QueueCache(folder)
    return None


def _own_name() -> str:
    return f"trainmaster-{os.getuid()}"


def _is_ours_alone(folder: Path) -> bool:
    """Whether nobody else can have put anything there: the folder above is everybody's."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
