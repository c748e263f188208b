"""What outlives the daemon: intents, memory, events, requests of people, and the lease, in one SQLite file.

An intent is written before its act. Whoever starts after a kill finds the open ones, looks whether what they wanted
holds, and goes on from there. The file may be deleted: what matters then is found in Slurm again (`rebuild`).
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from trainmaster.controller.acts import Act
from trainmaster.controller.holder import alive
from trainmaster.controller.maintenance.state import Booking, Host, Maintenance, Notice, Stack, Train
from trainmaster.controller.memory import Blame, Drain, JobRecord, Memory, NodeRecord, Running
from trainmaster.errors import ControllerError, LeaseLost

_TABLES = """
BEGIN;
CREATE TABLE IF NOT EXISTS intents(
  id TEXT PRIMARY KEY, act TEXT NOT NULL, state TEXT NOT NULL, opened REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
  closed REAL, said TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS intents_open ON intents(state);
CREATE TABLE IF NOT EXISTS memory(kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(kind, key));
CREATE TABLE IF NOT EXISTS events(
  at REAL NOT NULL, subject TEXT NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL, key TEXT UNIQUE);
CREATE INDEX IF NOT EXISTS events_subject ON events(subject, at);
CREATE TABLE IF NOT EXISTS requests(
  number INTEGER PRIMARY KEY, at REAL NOT NULL, verb TEXT NOT NULL, target TEXT NOT NULL, by TEXT NOT NULL,
  why TEXT NOT NULL, done REAL);
CREATE TABLE IF NOT EXISTS capacity(at REAL NOT NULL, grouped TEXT NOT NULL, nodes INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS capacity_at ON capacity(at);
CREATE TABLE IF NOT EXISTS lease(only INTEGER PRIMARY KEY CHECK(only = 1), epoch INTEGER, holder TEXT, renewed REAL);
COMMIT;
"""
OPEN, DONE, ABANDONED = "open", "done", "abandoned"
TRIES_MAX = 5
_AGAIN_AFTER_S = 300.0
"""What failed so often is not tried again sooner: each try may cost slurmctld seconds."""
_EVENTS_KEPT_S = 90 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An act that was decided on."""

    act: Act
    state: str
    opened: float
    tries: int
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asked of the daemon."""

    number: int
    at: float
    verb: str
    """quarantine, release or train."""
    target: str
    by: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, for `why`."""

    at: float
    subject: str
    what: str
    detail: str


class Journal:
    """The file. One daemon writes; commands read, and leave requests."""

    def __init__(self, path: Path, *, read_only: bool = False, synchronous: str = "FULL") -> None:
        self.path = path
        try:
            if read_only and not path.exists():
                raise ControllerError(
                    f"could not read the controller's journal {path}: it is not there",
                    hint="start `trainmaster controller run`, or name its file with --journal",
                )
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                # FULL: an intent that a power cut takes back would be an act that nobody remembers.
                self._db.execute(f"PRAGMA synchronous={synchronous}")
                self._db.executescript(_TABLES)
            # All tables are made at once; a reader that comes before that fails here.
            self._db.execute("SELECT epoch FROM lease").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise ControllerError(
                f"could not open the controller's journal {path}: {error}",
                hint="look at its permissions and disk; it may be deleted, Slurm has what matters",
            ) from None
        self._written: dict[tuple[str, str], str] = {}
        self._counted: dict[str, int] = {}
        self._epoch = 0

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # The lease: one writer.

    def take_lease(self, holder: str, *, now: float, patience_s: float) -> int:
        """Become the one controller and return the epoch; ControllerError while another one is at work."""
        with self._transaction():
            row = self._db.execute("SELECT epoch, holder, renewed FROM lease").fetchone()
            epoch, other, renewed = row if row is not None else (0, "", 0.0)
            running = alive(other) if other else False
            # A clock that was set back must not keep a dead one's lease for ever.
            fresh = abs(now - renewed) < patience_s
            if other != holder and (running or (running is None and fresh)):
                raise ControllerError(
                    f"another controller is at work on {self.path}: {other}, epoch {epoch}",
                    hint="end that one first; on another machine its lease ends by itself after it has died",
                )
            self._epoch = epoch + 1
            self._db.execute("INSERT OR REPLACE INTO lease VALUES(1, ?, ?, ?)", (self._epoch, holder, now))
        return self._epoch

    def check_lease(self) -> None:
        """LeaseLost unless we are still the one controller. Asked before each act."""
        row = self._db.execute("SELECT epoch FROM lease").fetchone()
        if row is None or row[0] != self._epoch:
            raise LeaseLost(
                f"the lease of {self.path} was ours with epoch {self._epoch} and is now of {row and row[0]}",
                hint="another controller has taken over; this one does nothing more",
            )

    def renew_lease(self, *, now: float) -> None:
        """Say that we are still here."""
        self.check_lease()
        self._db.execute("UPDATE lease SET renewed = ? WHERE epoch = ?", (now, self._epoch))

    def drop_lease(self) -> None:
        """Let the next controller start at once."""
        self._db.execute("UPDATE lease SET renewed = 0, holder = '' WHERE epoch = ?", (self._epoch,))

    # Intents.

    def open(self, act: Act, *, now: float) -> bool:
        """Write an intent down; False when the same one is open or done already, or has failed too often just now."""
        with self._transaction():
            self.check_lease()
            row = self._db.execute("SELECT state, tries, closed FROM intents WHERE id = ?", (act.id,)).fetchone()
            if row is not None and row[0] != ABANDONED:
                return False
            if row is not None and row[1] >= TRIES_MAX and abs(now - row[2]) < _AGAIN_AFTER_S:
                return False
            values = (act.id, msgspec.json.encode(act).decode(), OPEN, now)
            self._db.execute("INSERT OR REPLACE INTO intents(id, act, state, opened) VALUES(?, ?, ?, ?)", values)
        return True

    def tried(self, act: Act) -> None:
        """Count a try, before it is made."""
        self._db.execute("UPDATE intents SET tries = tries + 1 WHERE id = ?", (act.id,))

    def note(self, act: Act, said: str) -> None:
        """Write to an open intent what its successor has to know."""
        self._db.execute("UPDATE intents SET said = ? WHERE id = ? AND state = ?", (said, act.id, OPEN))

    def finish(self, act: Act, state: str, memory: Memory, *, now: float, said: str = "") -> None:
        """Close an intent together with what is remembered of it."""
        with self._transaction():
            self.check_lease()
            self._db.execute(
                "UPDATE intents SET state = ?, closed = ?, said = ? WHERE id = ?", (state, now, said, act.id)
            )
            self._put(memory)
            for target in act.targets:
                self._event(now, target, f"{act.kind} {state}", f"{act.why}{f' ({said})' if said else ''} #{act.id}")

    def intents(self, state: str = OPEN) -> tuple[Intent, ...]:
        """Intents in a state, the oldest first."""
        rows = self._db.execute(
            "SELECT act, state, opened, tries, said FROM intents WHERE state = ? ORDER BY opened, id", (state,)
        ).fetchall()
        return tuple(
            Intent(act=msgspec.json.decode(act, type=Act), state=state, opened=opened, tries=tries, said=said)
            for act, state, opened, tries, said in rows
        )

    # Memory.

    def save(self, memory: Memory, *, read: Mapping[str, int] | None = None) -> None:
        """Write down what has changed since the last time, and how far into files it has been read for it."""
        with self._transaction():
            self.check_lease()
            self._put(memory)
            rows = [("read", path, str(offset)) for path, offset in (read or {}).items()]
            self._db.executemany("INSERT OR REPLACE INTO memory VALUES(?, ?, ?)", rows)

    def offsets(self) -> dict[str, int]:
        """How far into which files memory goes."""
        rows = self._db.execute("SELECT key, value FROM memory WHERE kind = 'read'").fetchall()
        return {key: int(value) for key, value in rows}

    def _put(self, memory: Memory) -> None:
        now: dict[tuple[str, str], str] = {}
        for kind, key, value in _rows(memory):
            now[kind, key] = msgspec.json.encode(value).decode()
        changed = [(*key, value) for key, value in now.items() if self._written.get(key) != value]
        gone = [key for key in self._written if key not in now]
        self._db.executemany("INSERT OR REPLACE INTO memory VALUES(?, ?, ?)", changed)
        self._db.executemany("DELETE FROM memory WHERE kind = ? AND key = ?", gone)
        self._written = now

    def load(self) -> Memory | None:
        """What was remembered; None when nothing ever was."""
        rows = self._db.execute("SELECT kind, key, value FROM memory WHERE kind != 'read'").fetchall()
        self._written = {(kind, key): value for kind, key, value in rows}
        if ("fleet", "at") not in self._written:
            return None
        kinds: dict[str, dict[str, str]] = {}
        for kind, key, value in rows:
            kinds.setdefault(kind, {})[key] = value

        def of(kind: str, wanted: Any) -> dict[str, Any]:
            return {key: msgspec.json.decode(value, type=wanted) for key, value in kinds.get(kind, {}).items()}

        fleet = kinds["fleet"]
        return Memory(
            at=msgspec.json.decode(fleet["at"], type=float),
            nodes=of("node", NodeRecord),
            jobs={int(key): value for key, value in of("job", JobRecord).items()},
            blame=of("blame", Blame),
            running={int(key): value for key, value in of("running", Running).items()},
            exposure_days=msgspec.json.decode(fleet["exposure_days"], type=dict[str, float]),
            exposure_at=msgspec.json.decode(fleet["exposure_at"], type=float),
            drains=msgspec.json.decode(fleet["drains"], type=tuple[Drain, ...]),
            kept=msgspec.json.decode(fleet.get("kept", "[]"), type=tuple[str, ...]),
            maintenance=Maintenance(
                trains=of("train", Train),
                hosts=of("host", Host),
                past=of("past", Host),
                stacks=of("stack", Stack),
                notices={int(key): value for key, value in of("notice", Notice).items()},
                reservations=of("booked", Booking),
            ),
        )

    # Events and requests.

    def _event(self, at: float, subject: str, what: str, detail: str, key: str | None = None) -> None:
        self._db.execute("INSERT OR IGNORE INTO events VALUES(?, ?, ?, ?, ?)", (at, subject, what, detail, key))

    def tell(self, events: Iterable[tuple[str, str, str, str]], *, now: float) -> None:
        """Add events: subject, what, detail and a key; of one key only the first is kept."""
        rows = list(events)
        if not rows:
            return
        with self._transaction():
            for subject, what, detail, key in rows:
                self._event(now, subject, what, detail, key or None)
            self._db.execute("DELETE FROM events WHERE at < ?", (now - _EVENTS_KEPT_S,))

    def events(self, subject: str) -> tuple[Event, ...]:
        """What happened to a node or job, the oldest first."""
        rows = self._db.execute(
            "SELECT at, subject, what, detail FROM events WHERE subject = ? ORDER BY at, rowid", (subject,)
        ).fetchall()
        return tuple(Event(at=at, subject=of, what=what, detail=detail) for at, of, what, detail in rows)

    def told(self, kind: str, since: float) -> tuple[Event, ...]:
        """What happened to all nodes, or all jobs, from a moment on, the oldest first. `kind`: node or job."""
        rows = self._db.execute(
            "SELECT at, subject, what, detail FROM events WHERE subject GLOB ? AND at >= ? ORDER BY at, rowid",
            (f"{kind}:*", since),
        ).fetchall()
        return tuple(Event(at=at, subject=of, what=what, detail=detail) for at, of, what, detail in rows)

    def latest(self, most: int) -> list[tuple[int, float, str, str, str]]:
        """The newest events, the newest first: number, when, subject, what, detail."""
        rows = self._db.execute(
            "SELECT rowid, at, subject, what, detail FROM events ORDER BY rowid DESC LIMIT ?", (most,)
        ).fetchall()
        return [(number, at, of, what, detail) for number, at, of, what, detail in rows]

    # Capacity.

    def count(self, available: Mapping[str, int], *, now: float) -> None:
        """Note how many nodes of each group are in service, of those where that has changed."""
        changed = [(now, group, nodes) for group, nodes in available.items() if self._counted.get(group) != nodes]
        if not changed:
            return
        with self._transaction():
            self._db.executemany("INSERT INTO capacity VALUES(?, ?, ?)", changed)
            self._db.execute("DELETE FROM capacity WHERE at < ?", (now - _EVENTS_KEPT_S,))
        self._counted = dict(available)

    def counted(self, since: float) -> dict[str, list[tuple[float, int]]]:
        """By group, when its nodes in service changed and to how many, the oldest first; none in an older journal."""
        found: dict[str, list[tuple[float, int]]] = {}
        try:
            rows = self._db.execute(
                "SELECT at, grouped, nodes FROM capacity WHERE at >= ? ORDER BY at, rowid", (since,)
            ).fetchall()
        except sqlite3.OperationalError:
            return found  # written by a controller that did not count
        for at, group, nodes in rows:
            found.setdefault(group, []).append((at, nodes))
        return found

    def ask(self, verb: str, target: str, *, by: str, why: str) -> None:
        """Leave a request for the daemon."""
        try:
            self._db.execute(
                "INSERT INTO requests(at, verb, target, by, why) VALUES(?, ?, ?, ?, ?)",
                (time.time(), verb, target, by, why),
            )
        except sqlite3.Error as error:
            raise ControllerError(
                f"could not leave the request to {verb} {target} in {self.path}: {error}",
                hint="only who may write that file may ask; try as root or with sudo",
            ) from None

    def requests(self) -> tuple[Request, ...]:
        """Requests that nobody has taken up."""
        rows = self._db.execute(
            "SELECT number, at, verb, target, by, why FROM requests WHERE done IS NULL ORDER BY number"
        ).fetchall()
        return tuple(Request(number=n, at=at, verb=v, target=t, by=by, why=why) for n, at, v, t, by, why in rows)

    def took(self, request: Request, *, now: float) -> None:
        """A request is in memory, and will not be asked again."""
        self._db.execute("UPDATE requests SET done = ? WHERE number = ?", (now, request.number))


def _rows(memory: Memory) -> Iterator[tuple[str, str, Any]]:
    for name, record in memory.nodes.items():
        yield "node", name, record
    for job_id, job in memory.jobs.items():
        yield "job", str(job_id), job
    for name, blame in memory.blame.items():
        yield "blame", name, blame
    for job_id, ran in memory.running.items():
        yield "running", str(job_id), ran
    for kind, table in (
        ("train", memory.maintenance.trains),
        ("host", memory.maintenance.hosts),
        ("past", memory.maintenance.past),
        ("stack", memory.maintenance.stacks),
        ("notice", memory.maintenance.notices),
        ("booked", memory.maintenance.reservations),
    ):
        for key, value in table.items():
            yield kind, str(key), value
    yield "fleet", "at", memory.at
    yield "fleet", "exposure_days", memory.exposure_days
    yield "fleet", "exposure_at", memory.exposure_at
    yield "fleet", "drains", memory.drains
    yield "fleet", "kept", memory.kept
