"""The user's list of submissions, so that a job is found again from any shell: one JSON line each."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trainmaster.launcher import ids
from trainmaster.slurm.conf import cluster_name

_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One submission."""

    time: float
    """Seconds since the epoch."""
    job_id: int
    uid: str
    run_dir: str
    name: str
    slurm_conf: str = ""
    """SLURM_CONF at the time, "" when unset: job ids of two clusters may be the same."""
    tasks: str = ""
    """The indices of an array, as sbatch takes them; the run folder of task 5 is then `<run_dir>/5`."""
    cluster: str = ""
    """ClusterName at the time, "" when it was not known: SLURM_CONF may be unset on the machines of two clusters."""

    @property
    def asked_here(self) -> bool:
        """Whether Slurm's commands, with this SLURM_CONF, speak of the cluster that the job was given to."""
        return self.cluster in ("", cluster_name(self.slurm_conf))


def path(env: Mapping[str, str] = os.environ) -> Path:
    """The file: `$XDG_STATE_HOME/trainmaster/jobs.jsonl`."""
    state = env.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "trainmaster" / "jobs.jsonl"


def append(entry: Entry, file: Path) -> None:
    """Add one line with a single write, so that concurrent submitters never mix. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, fcntl.LOCK_SH)
            if not _is_at(descriptor, file):
                continue  # `rewrite` has put another file in its place meanwhile
            os.write(descriptor, (json.dumps(asdict(entry)) + "\n").encode())
            return
        finally:
            os.close(descriptor)


def newest_first(file: Path, *, job: int | None = None) -> Iterator[Entry]:
    """All submissions, the latest first. Reads from the end, so a long list costs only what is taken of it.

    `job`: only those with this id, which costs much less than reading all and choosing.
    """
    known = {entry.name for entry in fields(Entry)}
    wanted = b"" if job is None else f'"job_id": {job},'.encode()
    for line in _lines_backwards(file):
        if wanted not in line:
            continue
        try:
            values = json.loads(line)
            entry = Entry(**{key: value for key, value in values.items() if key in known})
        except (ValueError, TypeError, AttributeError):
            continue  # torn by a full disk, or written by another version
        if job is None or entry.job_id == job:
            yield entry


def find(job_id: int, file: Path, *, slurm_conf: str = "", task: int | None = None) -> Entry | None:
    """The latest submission with this id; one on the cluster of `slurm_conf` goes before one elsewhere.

    `task`: of an array the submission that brought this task, should there be several.
    """
    elsewhere = without = None
    for entry in newest_first(file, job=job_id):
        if task is not None and entry.tasks and not ids.contains(entry.tasks, task):
            without = without or entry
        elif entry.slurm_conf == slurm_conf and entry.asked_here:
            return entry
        else:
            elsewhere = elsewhere or entry
    return elsewhere or without


def rewrite(file: Path, keep: Callable[[Entry], bool]) -> int:
    """Leave out what `keep` does not want, while others may append; returns how many lines. Raises OSError."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return 0
    try:
        _lock(descriptor, fcntl.LOCK_EX)
        if not _is_at(descriptor, file):
            return 0  # somebody else has just tidied it
        kept, dropped = [], 0
        for entry in newest_first(file):
            if keep(entry):
                kept.append(json.dumps(asdict(entry)) + "\n")
            else:
                dropped += 1
        if dropped:
            temporary = file.with_name(f".{file.name}.{os.getpid()}")
            temporary.touch(0o600)
            temporary.write_text("".join(reversed(kept)))
            temporary.replace(file)
        return dropped
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind)
    except OSError:
        pass  # a file system without locks; then a line may be lost, should somebody tidy at this very moment


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _lines_backwards(file: Path) -> Iterator[bytes]:
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        return
    with stream:
        position = stream.seek(0, os.SEEK_END)
        rest = b""
        while position:
            size = min(_BLOCK, position)
            position -= size
            stream.seek(position)
            first, *lines = (stream.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest:
            yield rest
