"""What the simulator assumes, each figure with its source; "ours" marks what nobody published."""

from dataclasses import dataclass

DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of failure."""

    name: str
    share: float
    """Of all failures."""
    persistent: float
    """Probability that the node stays bad until it is repaired."""


MIX = (
    # Shares: Llama 3's table of 419 interruptions, grouped (GPU and HBM 62 %, network 12 %, software and the like 8 %,
    # host 8 %), with hangs after ByteRobust's 10 %. Persistence is ours.
    Fault(name="node_down", share=0.08, persistent=1.0),
    Fault(name="gpu", share=0.62, persistent=0.55),
    Fault(name="network", share=0.12, persistent=0.30),
    Fault(name="software", share=0.08, persistent=0.0),
    Fault(name="hang", share=0.10, persistent=0.50),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What does not depend on who looks after the fleet."""

    nodes: int = 2048
    """Of the one job that fills the fleet; 8 GPUs each."""
    failures_per_1000_node_days: float = 3.79
    """Llama 3: 419 unexpected interruptions of 2,048 nodes in 54 days. RSC-1 has 6.5, RSC-2 2.34 (Kokolis et al.)."""
    spare_share: float = 0.03
    """Nodes beyond the job's (ours; Alibaba reserves 6 %)."""
    repair_mean_s: float = DAY_S
    """Ours."""
    again_mean_s: float = 600.0
    """How soon a job fails again on a node that is still bad: most do within 10 min (Aegis: 73 % of failed tasks)."""
    checkpoint_block_s: float = 20.0
    """How long training stands still for a checkpoint (ours)."""
    checkpoint_interval_s: float | None = None
    """None for the optimum, sqrt(2 * block * time to failure) (Daly)."""
    days: float = 30.0
    mix: tuple[Fault, ...] = MIX
    failures_in_recovery: bool = True
    """Whether nodes also fail while the job starts; closed forms say no."""
    lemon_share: float = 0.0
    lemon_factor: float = 206.0
    """How much more often lemons fail: 1.2 % of nodes carry 71 % of large jobs' failures on RSC-1 (own calculation)."""

    @property
    def failure_per_s(self) -> float:
        """Of one node."""
        return self.failures_per_1000_node_days / 1000.0 / DAY_S

    @property
    def interval_s(self) -> float:
        """Between the end of one checkpoint and the start of the next."""
        if self.checkpoint_interval_s is not None:
            return self.checkpoint_interval_s
        return float((2.0 * self.checkpoint_block_s / (self.nodes * self.failure_per_s)) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """Who looks after the fleet, and how quickly."""

    name: str
    init_s: float = 480.0
    """From the start of the job to its first step: 5 to 20 min on RSC, 6.5 min at 8,192 GPUs (TrainMover)."""
    requeue_on_exit: bool = True
    """RequeueExit: a crash brings the job back by itself; otherwise a person submits it again."""
    delay_s: float = 121.0
    """After a requeue: credential lifetime + 1 s, Slurm's default."""
    node_down_s: tuple[float, float] = (300.0, 400.0)
    """Until a dead node is noticed: SlurmdTimeout to 4/3 of it, by default."""
    crash_s: tuple[float, float] = (10.0, 30.0)
    """Until every rank is down after one has crashed (ours)."""
    hang_s: tuple[float, float] = (600.0, 600.0)
    """Until a hang is noticed: NCCL's watchdog of PyTorch, 10 min; 30 to 60 min where it is off (ByteRobust)."""
    person_mean_s: float = 3600.0
    """Until a person acts (ours; manual diagnosis takes more than 30 min on average: Minder)."""
    person_finds: float = 0.5
    """Probability that the person who starts the job again leaves the bad node out (ours)."""
    check_s: float | None = None
    """Health checks drain a bad node within this time; None: there are none. 5 min on RSC."""
    check_finds: float = 0.95
    """Of persistent faults (ours; a GPU vendor's diagnosis finds 70 % of silent corruption: ByteRobust)."""
    controller: bool = False
    suspects: float = 0.95
    """Probability that the launcher names the right node (ours)."""
    tick_s: float = 10.0


PLAIN = Care(name="plain", requeue_on_exit=False, hang_s=(1800.0, 3600.0))
"""Slurm as it is installed."""
TUNED = Care(name="tuned")
"""RequeueExit, and NCCL's watchdog at 10 min."""
CHECKS = Care(name="checks", check_s=300.0)
"""And health checks every 5 min that drain."""
CONTROLLER = Care(
    name="controller",
    check_s=300.0,
    controller=True,
    node_down_s=(10.0, 15.0),
    crash_s=(5.0, 15.0),
    hang_s=(60.0, 180.0),
)
"""And trainmaster's launcher and controller: heartbeats every 5 s, hangs told in 3 steps or 60 s, exclusions."""
WARM = Care(
    name="warm",
    check_s=300.0,
    controller=True,
    node_down_s=(10.0, 15.0),
    crash_s=(5.0, 15.0),
    hang_s=(60.0, 180.0),
    init_s=120.0,
)
"""And warm starts: ByteRobust restarts 16,384 GPUs in 65 s from standbys; 2 min is what Kokolis et al. project."""
LADDER = (PLAIN, TUNED, CHECKS, CONTROLLER, WARM)
