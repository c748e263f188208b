"""What a decision asks for: acts, what was refused and why, and when to look again. Pure values.

The same cause always gives an act the same id, so a controller that is killed between deciding and writing decides on
the very same act again, and one that is killed between acting and noting finds its intent and looks whether it holds.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

MARK = "[TM] "
"""What every reason of ours begins with."""
REASON_MAX = 200
"""Characters of a reason, the id included; `sinfo -R` shows twenty."""


class Kind(StrEnum):
    """What can be done."""

    DRAIN = "drain"
    RESUME = "resume"
    REQUEUE = "requeue"
    RELEASE = "release"
    HOLD = "hold"
    NOTIFY = "notify"
    KEEP = "keep"
    """Keep a job's nodes for it until it is back in them."""
    FREE = "free"
    """Give up such a reservation."""
    VERIFY = "verify"
    TICKET = "ticket"
    BOOK = "book"
    """A reservation over the hosts of a car."""
    UNBOOK = "unbook"
    OPERATE = "operate"
    """An operation of the catalogue, on hosts that are out."""
    REBOOT = "reboot"
    INSPECT = "inspect"
    """Which versions are on hosts."""
    CHECK = "check"
    """A tier of verification, on a host that was worked on."""
    LABEL = "label"
    """The feature that says which stack a host has."""


TAKES_OUT = frozenset({Kind.DRAIN, Kind.BOOK})
"""Kinds that cost capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing to do, with all that is needed to check it again just before."""

    kind: Kind
    cause: str
    """In one word, what the breaker counts by: flap, lemon, person, node_fail, check, loop."""
    why: str
    """In a sentence, for people."""
    attempt: str = ""
    """What tells this act from an earlier one of the same kind on the same target."""
    nodes: tuple[str, ...] = ()
    """Sorted; of acts on nodes."""
    planned: bool = False
    """It could wait: nothing is broken that it would bring back."""
    expected_reason: str = ""
    """Of resume: the reason that has to stand there still."""
    job_id: int = 0
    restarts: int = 0
    """Slurm's restart count of the attempt that it is about."""
    exclude: tuple[str, ...] | None = None
    """The whole ExcNodeList for the job; None leaves it alone."""
    ours: tuple[str, ...] = ()
    """Those of `exclude` that we put there."""
    unhold: bool = False
    priority: int = 0
    """Of release: what the job had when it last started; 0 leaves it alone."""
    reserve: str = ""
    """Of keep: a hostlist."""
    owner: str = ""
    """Of keep: whose job it is."""
    signal: str = ""
    train: str = ""
    car: int = 0
    work: str = ""
    """Of operate and reboot the operation, of check the tier, of label the feature."""
    reservation: str = ""
    """Of free, book and unbook: its name. Of keep and release: that of the one which is there already."""
    until: float = 0.0
    """Of book: when it is over whatever happens."""
    batch: bool = False
    """Of notify: the signal is for the batch step alone."""
    deadline_s: float = 120.0
    """After so long without its postcondition it is given up, and decided on anew."""

    @property
    def id(self) -> str:
        """Ten hexadecimal digits."""
        target = ",".join(self.nodes) if self.nodes else f"job:{self.job_id}:{self.restarts}"
        if self.reservation and not self.job_id:
            target = f"reservation:{self.reservation}"
        return hashlib.sha256(f"{self.kind}|{target}|{self.attempt}".encode()).hexdigest()[:10]

    @property
    def targets(self) -> tuple[str, ...]:
        """What nobody else may touch meanwhile, sorted, so that locks are always taken in one order."""
        if self.reservation and not self.nodes and not self.job_id:
            return (f"reservation:{self.reservation}",)
        if self.nodes:
            return tuple(f"node:{name}" for name in sorted(self.nodes))
        return (f"job:{self.job_id}",)

    @property
    def reason(self) -> str:
        """What a drain writes into Slurm: `[TM] flap: went down 3 times in a day #0123456789`."""
        tail = f" #{self.id}"
        return f"{MARK}{self.cause}: {self.why}"[: REASON_MAX - len(tail)] + tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was not done, and the rule that stands in the way."""

    subject: str
    """`node:n01`, `job:7`."""
    wanted: Kind
    rule: str
    """I1 to I12."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """The breaker stopped drains: of everything, of one cause, or under one leaf switch."""

    scope: str
    """all, cause or leaf."""
    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What follows from one look."""

    at: float
    acts: tuple[Act, ...] = ()
    refused: tuple[Refusal, ...] = ()
    trips: tuple[Trip, ...] = ()
    wake_at: float | None = None
    """Something falls due then, whatever happens until then."""
