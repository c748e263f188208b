"""The fleet in which a maintenance train is simulated: what is assumed of it, and its policy."""

import math
from dataclasses import dataclass

from trainmaster.controller.maintenance import catalogue as catalogues
from trainmaster.controller.maintenance.limits import Checks, Contract, MaintenancePolicy, Rollout
from trainmaster.controller.policy import Drains, Guarantee, Modes, Policy

DAY_S = 86400.0
T0 = 1e9
GIANT = 1
PARTITION = "batch"
OPERATIONS = (
    *("nvidia-driver", "fabricmanager", "cuda", "ofed", "connectx-firmware", "kernel", "bmc", "bios", "nvme-firmware"),
    *("slurmd", "containers", "deep-check"),
)
"""Of the example's catalogue, those of a month in the simulation (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWorld:
    """What is assumed; "ours" marks what nobody published."""

    nodes: int = 2048
    giant_share: float = 0.84
    """Of the nodes, that one job has (ours)."""
    small_share: float = 0.125
    """That small jobs have (ours); the rest is free, for repairs and maintenance."""
    small_size_max: int = 8
    small_mean_s: float = 6 * 3600.0
    """How long a small job runs (ours)."""
    failures_per_1000_node_days: float = 3.79
    """Llama 3."""
    persistent: float = 0.5
    """Of failures, those after which the node needs repair (Llama 3's mix and the shares of `parameters.MIX`)."""
    repair_mean_s: float = DAY_S
    """Ours."""
    init_s: float = 480.0
    """From a start of the giant to its first step: TrainMover's 6.5 min at 8,192 GPUs, and waiting."""
    lost_s: float = 60.0
    """Of work that a planned interruption costs beside that: it saves first (ours)."""
    cycle_days: float = 28.0
    domain: str = "auto"
    jitter: float = 0.1
    """By how much an operation takes longer or shorter (ours)."""
    bad_operation: str = ""
    bad_share: float = 0.05
    """Of hosts, on which that operation fails."""
    tick_s: float = 10.0
    patient: bool = True
    """False: every car interrupts its jobs at once, as a rolling update does."""

    @property
    def giant_size(self) -> int:
        """Nodes of the one large job."""
        return max(1, round(self.giant_share * self.nodes))

    @property
    def promised(self) -> int:
        """Nodes that all jobs together have."""
        return self.giant_size + round(self.small_share * self.nodes)


def policy_of(world: MaintenanceWorld, promised: int) -> Policy:
    """The policy of a site that has promised so many nodes."""
    catalogue = catalogues.load(catalogues.EXAMPLE)
    guarantee = Guarantee(nodes=promised, failure_buffer=max(1, math.ceil(world.nodes / 128)))
    rules = MaintenancePolicy(
        registry=catalogue,
        inventory=("simulated", "{nodes}"),
        inventory_max=world.nodes,
        checks=Checks(
            quick=("simulated",), medium=("simulated",), soak=("simulated",), quick_s=30.0, medium_s=300.0, soak_s=600.0
        ),
        contract=Contract(),
        rollout=Rollout(),
        cycle_days=world.cycle_days,
        interruption_s=world.init_s + world.lost_s,
    )
    return Policy(
        modes=Modes(default="act"),
        tick_s=world.tick_s,
        guarantee={PARTITION: guarantee, "gpu:h100": guarantee},
        drains=Drains(share_max=0.05),
        maintenance=rules,
        exposure_every_s=DAY_S / 2,
        acts_max=max(64, world.nodes),
    )
