"""What the site wants of maintenance: `[maintenance]` of the controller's policy. Every default says whence it is."""

from typing import Annotated

from msgspec import Meta, Struct

from trainmaster.config import Word
from trainmaster.controller.maintenance.catalogue import Catalogue

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


class Contract(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What jobs may ask for, and what they get without asking. All of it is ours."""

    notice_s: Seconds = 0.0
    """From the drain of its nodes until a job may be asked to leave; it sees the reservation meanwhile."""
    notice_max_s: Seconds = 24 * 3600.0
    grace_s: Seconds = 120.0
    """For saving, after the signal."""
    grace_max_s: Seconds = 1800.0
    deferral_s: Seconds = 3600.0
    """What one deferral buys."""
    deferrals_max: Count = 3


class Checks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Three tiers of verification, each a command with {node} in it that ends with 0 when the host is fit."""

    quick: tuple[str, ...] = ()
    """Less than a minute: is everything there?"""
    medium: tuple[str, ...] = ()
    """Less than 10 min: does it work?"""
    soak: tuple[str, ...] = ()
    """As long as the site wants: does it work under load?"""
    quick_s: Seconds = 60.0
    """After so long it has failed."""
    medium_s: Seconds = 600.0
    soak_s: Seconds = 7200.0


class Rollout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From a few hosts to all, with a pause after each phase in which they are watched. All of it is ours."""

    canary: AtLeastOne = 2
    """Hosts of the first phase."""
    shares: tuple[Share, ...] = (0.01, 0.1)
    """Of all hosts, up to the end of each further phase; after the last come all others."""
    soak_s: tuple[Seconds, ...] = (3600.0, 3600.0, 6 * 3600.0)
    """How long hosts are watched after each phase; the last counts for all phases that have none of their own."""
    failures_max: Count = 1
    """An operation that fails on more hosts than that is taken off, if it also fails on more than `failures_share`."""
    failures_share: Share = 0.02


class MaintenancePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole section."""

    catalogue: str = ""
    """The file of operations; where it is relative it lies beside the policy."""
    inventory: tuple[str, ...] = ()
    """A command with {nodes} in it that prints a line `NODE COMPONENT VERSION` for each that it sees. No train starts
    without one: that an operation ended with 0 is not believed."""
    inventory_s: Seconds = 300.0
    inventory_max: AtLeastOne = 256
    """Hosts of one such command."""
    checks: Checks = Checks()
    contract: Contract = Contract()
    rollout: Rollout = Rollout()
    units: dict[Word, dict[Word, str]] = {}
    """By kind (pod, switch, leaf), by name, a hostlist. Leaf switches of Slurm's topology need not stand here."""
    cycle_days: Annotated[float, Meta(gt=0.0)] = 28.0
    """Meta visits its fleet cyclically, "in a guaranteed timeframe" that it does not name; four weeks is ours."""
    domain: str = "auto"
    interruption_s: Seconds = 540.0
    """What one interruption costs the largest job; 9 min is TrainMover's restart of 8,192 GPUs and half an interval."""
    failures_per_1000_node_days: Annotated[float, Meta(ge=0.0)] = 2.34
    """How often nodes fail under jobs, which restart then and can be moved; the lowest published (RSC-2)."""
    at_once_max: AtLeastOne = 64
    """Commands that run at once."""
    margin: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.05
    """Of the cycle, kept for what goes wrong: jobs are asked to leave so that all is done before (ours)."""
    reserve: bool = True
    """Whether each car's hosts get a reservation, which tells jobs and `sreport` that this is maintenance."""
    registry: Catalogue | None = None
    """What `catalogue` says; filled in when the policy is loaded, never written there."""
