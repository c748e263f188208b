"""What a check is: one or more sources, and a pure function that judges what they gave."""

from __future__ import annotations

from collections.abc import Callable, Generator

from trainmaster.health.finding import Action, Finding
from trainmaster.health.profile import Profile
from trainmaster.health.record import Any, NamedTuple


class Place(NamedTuple):
    """What a source may know when it looks at the node."""

    root: str = ""
    """What stands before every absolute path; a fake root in the lab and in tests."""
    profile: Profile = Profile({})
    memory: Any = None
    """What the source remembered of an earlier pass of this boot (its `remember`)."""


class Completed(NamedTuple):
    """How a command that a source asked for ended."""

    out: str
    err: str
    code: int
    """Exit status; minus the signal's number when one ended it."""


class Absent(Exception):
    """There is nothing of the kind on this node; the checks that rest on it are skipped."""


class SourceFault(Exception):
    """The source did not give what it should, so nothing can be judged."""


class Missing(SourceFault):
    """The tool that would tell is not installed."""


class Source(NamedTuple):
    """One place where facts come from, looked at once in a pass, however many checks rest on it."""

    name: str
    """The check id under which trouble with the source itself is reported."""
    about: str
    """For people: which files or which command."""
    read: Callable[[Place], Any] | None = None
    """Looks at files in a forked child that can be abandoned; returns JSON values."""
    ask: Callable[[Place], Generator[list[str] | Callable[[], str], Completed, Any]] | None = None
    """Instead of `read`: yields questions, is sent how they ended, returns JSON values. A question is a command
    line, or a function that is run in a child of its own as if it were one."""
    deadline_s: float = 5.0
    trouble: Action = Action.COMMENT
    """What it asks for when it fails. A missing tool never is a pass."""
    hung: Action = Action.DRAIN
    hung_id: str = ""
    """The id under which a hang is reported, if not `name`."""
    set: str = "fast"
    """The smallest of `registry.SETS` that it belongs to: full takes a moment longer, deep loads the hardware."""
    idle: bool = False
    """Not to be looked at beside a running job, which it would hold up."""
    remember: Callable[[Any], Any] | None = None
    """What of the value the next pass shall see as `Place.memory`."""


class Context(NamedTuple):
    """What a judgement may rest on besides the value. All of it is data."""

    profile: Profile = Profile({})
    memory: Any = None
    """What this check remembered of an earlier pass of this boot; None at first."""
    now_s: float = 0.0
    """Seconds since the epoch."""
    uptime_s: float = 0.0


class Compare(NamedTuple):
    """What of a check's value can be held against a site's figure, or against other nodes of the same kind."""

    figures: Callable[[Any], dict[str, float]]
    """By "name subject" or "name", what was measured; more is better. Pure."""
    share: float
    """Of the median of the other nodes, below which a node is slow. What a site has named is held to SITE_SHARE."""
    action: Action = Action.DRAIN
    """What it asks for when it is slower than its peers."""


class Check(NamedTuple):
    """One check. Its file is named after its id."""

    id: str
    about: str
    """One sentence for `trainmaster health list`."""
    sources: tuple[Source, ...]
    judge: Callable[..., list[Finding]]
    """(context, value of each source) -> findings, none when all is well. Pure."""
    remember: Callable[..., Any] | None = None
    """(context, value of each source) -> what the next pass shall know. Pure."""
    strikes: int = 1
    """How many passes must have found it before its action counts; until then it is a warning."""
    window_s: float = 0.0
    """The strikes are counted in this time; 0: in passes that follow one another."""
    compare: Compare | None = None
    """For deep checks, which measure."""
