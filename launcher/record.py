"""The life of a job: `attempts.jsonl`, one line per change of state. Standard library only.

The supervisor writes it; the submitter, `jobs show` and the reports read it. It is the truth about how a job ended:
when the batch host dies, Slurm's own state can only say CANCELLED (facts in docs/architecture.md).
"""

import errno
import json
import math
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from trainmaster.launcher.plan import array_of

FILE = "attempts.jsonl"

END_STATES = frozenset(
    {
        "SUCCEEDED",
        "FAILED_USER",
        "FAILED_INFRA",
        "TIMED_OUT",
        "CANCELLED",
        "PREEMPTED",
        "OUT_OF_MEMORY",
        "NO_PROGRESS",
        "LOST",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of state."""

    epoch_s: float
    job_id: int | str
    """12, or 12_3 for a task of an array."""
    attempt: int
    """Slurm's restart count."""
    cycle: int
    """Restarts inside this allocation."""
    state: str
    cause: str | None = None
    nodes: tuple[str, ...] = ()
    """Node names in rank order."""
    spares: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    ranks: int = 0
    step: int | None = None
    """The last step that any rank reported."""
    role: str = ""
    """Whose event it is, in a job of roles; "" when it is the whole job's."""
    replica: int | None = None
    """Of a role whose replicas restart alone: which one."""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def time(self) -> str:
        """The moment as ISO 8601, UTC, with milliseconds."""
        moment = datetime.fromtimestamp(self.epoch_s, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def ends(self) -> bool:
        """Nothing comes after this."""
        return self.state in END_STATES


def to_line(event: Event) -> str:
    """One line of JSON, newline included."""
    return json.dumps({"time": event.time, **asdict(event)}) + "\n"


def parse(lines: Iterable[str]) -> tuple[Event, ...]:
    """Events from lines; a torn or foreign line is passed over, since a writer may have died half-way."""
    known = {entry.name for entry in fields(Event)}
    events = []
    for line in lines:
        try:
            values = json.loads(line)
            values = {key: value for key, value in values.items() if key in known}
            for key in ("nodes", "spares", "dead"):
                values[key] = tuple(values.get(key, ()))
            events.append(Event(**values))
        except (ValueError, TypeError, AttributeError):
            continue
    return tuple(events)


def append(run_dir: Path, event: Event) -> None:
    """Add one line with a single write, so that two writers never mix.

    Raises OSError when the disk is full; the caller keeps the event and tries again.
    """
    descriptor = os.open(run_dir / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        line = to_line(event).encode()
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
        except OSError:
            written = 0
            raise
        finally:
            if 0 < written < len(line):
                # A full disk can take half a line; cut it off again so that the next one starts clean.
                os.ftruncate(descriptor, size)
        if written < len(line):
            raise OSError(28, f"could not write the whole line to {run_dir / FILE}")
    finally:
        os.close(descriptor)


def opened(run_dir: Path) -> BinaryIO:
    """The record, for reading. Raises OSError; also when somebody has put a pipe there, which would not end."""
    descriptor = os.open(run_dir / FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no plain file", str(run_dir / FILE))
    return os.fdopen(descriptor, "rb")


def read(run_dir: Path) -> tuple[Event, ...]:
    """All events so far; none when nothing was recorded.

    A task of an array that has not started has no record of its own: it was submitted, and perhaps cancelled, with all.
    """
    try:
        with opened(run_dir) as stream:
            return parse(line.decode(errors="replace") for line in stream)
    except FileNotFoundError:
        array_dir = array_of(run_dir)
        if array_dir is None:
            return ()
    shared = [event for event in read(array_dir) if event.state in ("SUBMITTED", "CANCELLED")]
    return tuple(replace(event, job_id=f"{event.job_id}_{run_dir.name}") for event in shared)


REMARKS = frozenset({"NODE_LOST", "STRAGGLER", "SWAP", "DIAGNOSED", "DIVERGED", "REFILL", "JOINED"})
"""Events that tell of something and leave the job as it stands."""


def standing(events: Iterable[Event]) -> Event | None:
    """The last event that says how the job stands; None when there is none."""
    last = None
    for event in events:
        last = last if event.state in REMARKS else event
    return last


def end_of(events: Iterable[Event]) -> Event | None:
    """The event that ended the job, if it ended. A requeue after an end (by hand) makes the job live again."""
    end = None
    for event in events:
        if event.ends:
            end = event
        elif event.state in ("STARTING", "REQUEUED"):
            end = None
    return end


def last_step(run_dir: Path, events: Iterable[Event] = ()) -> int | None:
    """The last step that any rank is known to have done, at most a second or so ago; None when none was reported."""
    known = [event.step for event in events if event.step is not None]
    try:
        known.append(int((run_dir / "step").read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        pass
    return max(known, default=None)


def slowest(run_dir: Path) -> tuple[int, int] | None:
    """The rank that was behind all others a second or so ago, and its step; None when none was."""
    try:
        rank, step = (run_dir / "step").read_text().splitlines()[1].split()
        return int(rank), int(step)
    except (OSError, ValueError, IndexError):
        return None


def last_values(run_dir: Path, events: Sequence[Event] = ()) -> dict[str, float | str]:
    """What ranks reported last, the median of all of them, by name; NaN and infinities as words.

    At the end of a cycle its event tells it, in between the file that is written each second.
    """
    if events and (events[-1].ends or events[-1].state in ("RESTARTING", "REQUEUED")):
        told = events[-1].detail.get("values")
        if isinstance(told, dict):
            return told
    try:
        values = json.loads((run_dir / "step").read_text().splitlines()[2])
        return {str(name): value for name, value in values.items()}
    except (OSError, ValueError, IndexError, AttributeError):
        return {}


def plain(value: float) -> float | str:
    """A number as every reader of JSON takes it.

    >>> plain(0.5), plain(float("nan")), plain(float("-inf"))
    (0.5, 'nan', '-inf')
    """
    return value if math.isfinite(value) else str(value)


class Recorder:
    """The writing end: keeps events that the disk does not take, and a reserve for the moment when it is full."""

    RESERVE_BYTES = 64 << 10

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.pending: list[Event] = []
        self._step = ""
        self._reserve = run_dir / ".reserve"
        try:
            self._reserve.write_bytes(b"\0" * self.RESERVE_BYTES)
        except OSError:
            pass

    def add(self, event: Event) -> None:
        """Record an event now, or as soon as the disk takes it."""
        self.pending.append(event)
        self.flush()

    def flush(self) -> None:
        """Try to write what could not be written before."""
        while self.pending:
            try:
                append(self._run_dir, self.pending[0])
            except OSError:
                if not self._reserve.exists():
                    return
                # The ranks have filled the disk. How the job ended must still be told.
                self._reserve.unlink(missing_ok=True)
                continue
            self.pending.pop(0)

    def note_step(
        self, step: int, slowest: tuple[int, int] | None = None, values: Mapping[str, float] | None = None
    ) -> None:
        """Keep where whoever waits sees it between two events: the last step, the slowest rank's, reported values."""
        text = f"{step}\n" if slowest is None else f"{step}\n{slowest[0]} {slowest[1]}\n"
        if values:
            told = json.dumps({name: plain(value) for name, value in values.items()})
            text += told + "\n" if slowest is not None else f"\n{told}\n"
        if step < 0 or text == self._step:
            return
        temporary = self._run_dir / f".step.{os.getpid()}"
        try:
            temporary.write_text(text)
            temporary.rename(self._run_dir / "step")
            self._step = text
        except OSError:
            pass

    def remember_modules(self, modules: Iterable[str], *, role: str = "") -> None:
        """Keep what ranks were seen to import, so that the next attempt's fork servers begin with it."""
        path = self._run_dir / role / "modules.json"
        try:
            known = set(json.loads(path.read_text())) if path.exists() else set()
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(sorted(known | set(modules))))
            temporary.rename(path)
        except (OSError, ValueError):
            pass
