"""Whoever signals a job writes down why first, in its run folder. Standard library only: the supervisor reads it."""

import getpass
import json
import logging
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trainmaster.launcher.plan import array_of

log = logging.getLogger("trainmaster")

CANCEL, REQUEUE = "cancel", "requeue"
NOT_BY_US = "not by trainmaster"
"""Who did it, when it was done with Slurm's own commands and no accounts tell by whom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What somebody is about to do to a job, and why."""

    by: str = ""
    """The user; "" when the disk was full and only the file's name could be written."""
    reason: str = ""
    """In the person's own words."""
    cause: str = "user"
    """What the record calls it."""
    time: float = 0.0
    """Seconds since the epoch."""
    attempt: int | None = None
    """The attempt that it is about; None for all."""


def who() -> str:
    """The user as Slurm's commands take it: the login name, or the number of a user who has none here."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def leave(run_dir: Path, verb: str, *, reason: str = "", attempt: int | None = None) -> None:
    """Write down that this user is about to `verb` the job. A full disk must not keep anybody from doing so."""
    intent = Intent(by=who(), reason=reason, time=time.time(), attempt=attempt)
    temporary = run_dir / f".{verb}.json.{os.getpid()}"
    try:
        if array_of(run_dir) is not None:
            run_dir.mkdir(exist_ok=True)  # a task that has not started
        temporary.write_text(json.dumps(asdict(intent)) + "\n")
        temporary.replace(run_dir / f"{verb}.json")
    except OSError as error:
        log.warning("could not write down who wants to %s the job of %s: %s", verb, run_dir, error)


def found(run_dir: Path, verb: str, *, attempt: int | None = None) -> Intent | None:
    """What was written down; None when nothing was, or only about an attempt other than `attempt`."""
    known = {entry.name for entry in fields(Intent)}
    try:
        values = json.loads((run_dir / f"{verb}.json").read_text())
        if values is None:
            return None  # dropped
        intent = Intent(**{key: value for key, value in values.items() if key in known})
    except FileNotFoundError:
        # What is meant for a whole array is meant for each of its tasks.
        array_dir = array_of(run_dir)
        return found(array_dir, verb, attempt=attempt) if array_dir is not None else None
    except (OSError, ValueError, TypeError, AttributeError):
        return Intent()
    return None if intent.attempt is not None and attempt not in (None, intent.attempt) else intent


def drop(run_dir: Path, verb: str) -> None:
    """Forget it: somebody has changed their mind. For a task of an array it is forgotten for that task alone."""
    array_dir = array_of(run_dir)
    try:
        if array_dir is not None and (array_dir / f"{verb}.json").exists() and run_dir.exists():
            (run_dir / f"{verb}.json").write_text("null\n")
        else:
            (run_dir / f"{verb}.json").unlink(missing_ok=True)
    except OSError as error:
        log.warning("could not remove %s.json from %s: %s", verb, run_dir, error)
