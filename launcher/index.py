"""The user's list of submissions, so that a job is found again from any shell: one JSON line each."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

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


def path(env: Mapping[str, str] = os.environ) -> Path:
    """The file: `$XDG_STATE_HOME/trainmaster/jobs.jsonl`."""
    state = env.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "trainmaster" / "jobs.jsonl"


def append(entry: Entry, file: Path) -> None:
    """Add one line with a single write, so that concurrent submitters never mix. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (json.dumps(asdict(entry)) + "\n").encode())
    finally:
        os.close(descriptor)


def newest_first(file: Path) -> Iterator[Entry]:
    """All submissions, the latest first. Reads from the end, so a long list costs only what is taken of it."""
    known = {entry.name for entry in fields(Entry)}
    for line in _lines_backwards(file):
        try:
            values = json.loads(line)
            yield Entry(**{key: value for key, value in values.items() if key in known})
        except (ValueError, TypeError, AttributeError):
            continue  # torn by a full disk, or written by another version


def find(job_id: int, file: Path, *, slurm_conf: str = "") -> Entry | None:
    """The latest submission with this id; one on the cluster of `slurm_conf` goes before one elsewhere."""
    elsewhere = None
    for entry in newest_first(file):
        if entry.job_id != job_id:
            continue
        if entry.slurm_conf == slurm_conf:
            return entry
        elsewhere = elsewhere or entry
    return elsewhere


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
