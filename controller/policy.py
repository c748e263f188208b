"""What the site wants: limits, budgets, modes and commands, from a TOML file. Every default says where it is from.

    [modes]
    default = "propose"
    release = "act"

    [guarantee.batch]
    nodes = 1984

The file is `/etc/trainmaster/controller.toml`, or what `--policy` names.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from trainmaster.config import Word, decode
from trainmaster.controller.maintenance import catalogue as catalogues
from trainmaster.controller.maintenance.limits import MaintenancePolicy
from trainmaster.errors import ConfigError

FILE = Path("/etc/trainmaster/controller.toml")

Mode = Literal["observe", "propose", "act"]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


class Modes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the controller may do by itself. observe: remember; propose: say what it would do; act: do it."""

    default: Mode = "propose"
    drain: Mode | None = None
    resume: Mode | None = None
    requeue: Mode | None = None
    release: Mode | None = None
    """Let a requeued job start without Slurm's delay, on other nodes than those that failed it."""
    hold: Mode | None = None
    notify: Mode | None = None
    keep: Mode | None = None
    """Reserve the nodes of a job that is on its way back for it. Only asked about where it is "act"."""
    free: Mode | None = None
    verify: Mode | None = None
    ticket: Mode | None = None
    book: Mode | None = None
    unbook: Mode | None = None
    operate: Mode | None = None
    reboot: Mode | None = None
    inspect: Mode | None = None
    check: Mode | None = None
    label: Mode | None = None

    def of(self, kind: str) -> Mode:
        """The mode of a kind of act."""
        chosen: Mode | None = getattr(self, kind)
        return chosen or self.default


class Guarantee(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a partition, or a type of GPU (`[guarantee."gpu:h100"]`), is promised."""

    nodes: Count
    """Nodes in service, whatever we plan."""
    failure_buffer: Count = 0
    """Nodes beyond those, kept for what fails by itself."""


class Drains(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may be taken out, and when the checks are more likely wrong than the fleet."""

    share_max: Share = 0.05
    """Of the fleet, out of service because of us at once. P99.9 of nodes in 24 h repair at 6.5 failures per 1,000
    node-days is 1.3 % of 2,048 nodes (own calculation)."""
    breaker_window_s: Seconds = 600.0
    breaker_share: Share = 0.02
    """More drains than this share of the fleet in a window stop further ones; NVSentinel's breaker knows 50 % only."""
    breaker_least: AtLeastOne = 3
    concentration_share: Share = 0.6
    """One check or one leaf switch behind more than this share of the window's drains is to blame itself."""
    concentration_least: AtLeastOne = 4
    falls_max: AtLeastOne = 3
    """A node that goes down this often in a day is taken out (ours)."""


class Evidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What speaks against a node, and how much."""

    fatal: tuple[str, ...] = ("gpu.present", "ib.present", r"gpu.xid: (.*\D)?79\b")
    """Regular expressions, matched against the causes in a health reason: what runs there cannot go on. These are the
    findings that trainmaster's own checks call drain-requeue; Xid 79 is a GPU that fell off the bus."""
    memory_s: Seconds = 24 * 3600.0
    incident_s: Seconds = 900.0
    """Signs within this time are of one failure: causes are seen from 10 min before to 5 min after a job's end
    (Kokolis et al., HPCA'25)."""
    check_weight: Annotated[float, Meta(ge=0.0)] = 0.5
    """Of a failure, that a drain by a check counts (ours)."""
    slurm_weight: Annotated[float, Meta(ge=0.0)] = 0.25
    """That a drain by Slurm itself counts: "Kill task failed", "Prolog error" (ours)."""


class Requeue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How jobs come back."""

    loops_max: Count = 3
    """Restarts without progress before a job is held; Slurm itself has no bound (35 in one published case)."""
    per_day_max: Count = 8
    per_day_1000_nodes: Annotated[float, Meta(ge=0.0)] = 20.0
    """And so many more for each 1,000 nodes of the job: three times the failures of RSC-1, or no giant could run."""
    backoff_s: tuple[Seconds, ...] = (0.0, 60.0, 300.0, 900.0)
    """Waits before the first, second... restart without progress."""
    progress_s: Seconds = 900.0
    """An attempt that ran this long is taken to have got further: 73 % of failing tasks fail within 10 min (Aegis)."""
    exclude_s: Seconds = 3600.0
    exclude_share: Share = 0.1
    blast_node_hours: Annotated[float, Meta(ge=0.0)] = 1000.0
    """What other jobs may lose in a day to the restarts of one (ours; the published case cost 548 preemptions)."""
    blast_window_s: Seconds = 300.0
    delay_max_s: Seconds = 600.0
    """A begin time at most this long after a requeue is Slurm's own: credential lifetime + 1 s, 121 s by default."""
    supervised_patience_s: Seconds | None = None
    """How long a job that trainmaster's launcher runs is left to release itself, which takes it about 2 s. Unless said
    otherwise 30 s, and 3 s with proctrack/cgroup, where nothing of a job outlives it to do so."""
    submitit: bool = True
    """submitit's jobs save on SIGUSR2 and requeue themselves without having to say so, unless they near their time
    limit: then submitit would count the signal as a timeout."""
    keep_s: Seconds = 900.0
    """How long the nodes of a job that comes back are kept for it at most; 0: not at all."""
    keep_nodes_min: AtLeastOne = 2
    """Fewer nodes than that are found again easily."""
    keep_wait_max_s: Seconds = 60.0
    """Nothing is kept for a job that has to wait longer before it may start again."""
    priority_loss: Share = 0.02
    """A job that lost more than this share of its priority by its requeue gets it back."""
    signal_comment: str = "checkpoint=USR2"
    """A job whose comment says so saves and requeues itself on SIGUSR2. Others would die of it."""
    grace_s: Seconds = 120.0
    """For saving, after that signal."""


class Lemons(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes that fail again and again. Rates are per 1,000 node-days under jobs."""

    window_days: Annotated[float, Meta(gt=0.0)] = 28.0
    """Kokolis et al. look at 28 days; here it is the time constant of forgetting."""
    base_rate: Annotated[float, Meta(gt=0.0)] = 1.9
    """Of healthy nodes: RSC-1's 6.5 without the 71 % that its lemons carry (own calculation)."""
    base_shape: Annotated[float, Meta(gt=0.0)] = 2.0
    """How much healthy nodes differ; Gamma's shape (ours)."""
    lemon_rate: Annotated[float, Meta(gt=0.0)] = 100.0
    """Of lemons on average: between mild ones (50) and RSC-1's (387)."""
    lemon_shape: Annotated[float, Meta(gt=0.0)] = 1.0
    prior: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.012
    """Share of lemons: 1.2 % of RSC-1's nodes."""
    probability_min: Share = 0.7
    """`trainmaster sim lemons`: 98 % of those named are lemons and 93 % of RSC-1's kind are found, 86 % by the rule of
    three failures in 28 days; of mild ones 10 %, by the rule 5 %."""
    incidents_min: AtLeastOne = 2
    """One failure condemns nobody."""


class Returning(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How nodes that we drained come back."""

    verify: tuple[str, ...] = ()
    """A command with {node} in it that ends with 0 when the node is fit; empty: only a person lets nodes back."""
    verify_timeout_s: Seconds = 600.0
    ticket: tuple[str, ...] = ()
    """A command with {node}, {why} and {id} in it, for nodes that need hands. It is run again until it ends with 0; the
    id stays the same, so that a second try can be told from a second ticket."""
    ticket_url: str = ""
    """Or where a ticket is POSTed to, as JSON: node, why, id."""
    ticket_again_s: tuple[Seconds, ...] = (60.0, 300.0, 1800.0, 3600.0)
    """Waits after a ticket that could not be left; the last one again and again."""
    probation_s: Seconds = 24 * 3600.0
    """For so long at least a node that came back is on probation."""
    probation_busy_s: Seconds = 12 * 3600.0
    """And until it has spent so long under jobs: an idle node proves nothing (ours)."""
    probation_max_s: Seconds = 7 * 24 * 3600.0
    """But no longer than this."""
    probation_job_nodes_max: AtLeastOne = 8
    """Jobs of more nodes than this are let start again without those on probation, as far as there is room: what a node
    costs that fails once more grows with the job (ours)."""
    at_once_max: AtLeastOne = 16


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    tick_s: Annotated[float, Meta(gt=0.0)] = 5.0
    """Half of it is what a job's return waits on average for being noticed."""
    client: Literal["commands", "pyslurm", "auto"] = "commands"
    """Who reads nodes and jobs; `auto` takes pyslurm where one of Slurm's own release is importable."""
    modes: Modes = Modes()
    guarantee: dict[Word, Guarantee] = {}
    drains: Drains = Drains()
    evidence: Evidence = Evidence()
    requeue: Requeue = Requeue()
    lemons: Lemons = Lemons()
    returning: Returning = Returning()
    metrics: str = "127.0.0.1:9321"
    """Where Prometheus reads, as ADDRESS:PORT; "" for nowhere."""
    maintenance: MaintenancePolicy = MaintenancePolicy()
    acts_max: AtLeastOne = 64
    """Acts of one tick; a plan is bounded whatever happened."""
    exposure_every_s: Seconds = 600.0


def load(path: Path | None = None) -> Policy:
    """The policy of a file; the defaults when none is named and the usual one is not there. Raises ConfigError."""
    file = path or FILE
    if path is None and not file.exists():
        return Policy()
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError((f"{file}: could not be read: {error.strerror or error}",)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError((f"{file}: is not TOML: {error}",)) from None
    faults: list[str] = []
    policy = decode(values, Policy, str(file), faults)
    faults += _expressions(policy, file)
    if policy.maintenance.registry is not None:
        faults.append(f"{file}: maintenance.registry: name a file with maintenance.catalogue instead")
    if faults:
        raise ConfigError(tuple(faults))
    return with_catalogue(policy, file)


def with_catalogue(policy: Policy, file: Path) -> Policy:
    """The policy with the operations of the file that it names. Raises ConfigError."""
    if not policy.maintenance.catalogue:
        return policy
    registry = catalogues.load(file.parent / policy.maintenance.catalogue)
    return replace(policy, maintenance=replace(policy.maintenance, registry=registry))


def _expressions(policy: Policy, file: Path) -> list[str]:
    import re

    faults = []
    for pattern in policy.evidence.fatal:
        try:
            re.compile(pattern)
        except re.error as error:
            faults.append(f"{file}: evidence.fatal: {pattern!r} is not a regular expression: {error}")
    return faults
