"""One cycle: which places run it, which of its ranks have ended, what was lost, how far it came. No input or output."""

import time
from dataclasses import dataclass, field

from trainmaster.launcher.exit_rules import EXIT_REQUEUE
from trainmaster.launcher.rank.order import Order
from trainmaster.launcher.supervise import stacks
from trainmaster.launcher.supervise.hang import Hang
from trainmaster.launcher.supervise.stacks import Where
from trainmaster.launcher.supervise.symptom import Outcome, RankExit
from trainmaster.launcher.supervise.values import Divergence


@dataclass(slots=True, kw_only=True)
class Cycle:
    """The state of the current cycle, filled in as messages come."""

    number: int
    places: tuple[str, ...]
    """Keys of its agents, in rank order."""
    world_size: int
    furthest_before: int
    """The last step that any earlier cycle reached; -1 when none did."""
    furthest: int
    steps: dict[int, int] = field(default_factory=dict)
    """The last step of each rank that reports any; they may be up to a heartbeat old."""
    exits: dict[int, RankExit] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    """Place -> how it was lost."""
    steps_known: bool = False
    first_step_epoch_s: float | None = None
    start_told: bool = False
    """The record says that it runs."""
    progress_told: bool = False
    fault_epoch_s: float | None = None
    started: float = field(default_factory=time.monotonic)
    let_go: bool = False
    """The ranks other than 0 were told to start."""
    all_started: bool = False
    asked_why: bool = False
    """Slurm was asked whether it is behind this cycle's end."""
    asked_to_save: bool = False
    """Its ranks were asked for a checkpoint."""
    asked_s: float = 0.0
    """When they were asked last."""
    linger_since: float | None = None
    hang: Hang | None = None
    """Ranks that do not move; they have been asked for their stacks."""
    hang_since: float = 0.0
    diverged: Divergence | None = None
    """What a reported value has told."""
    diverged_told: bool = False
    """The record says so."""
    saved_before: int = -1
    """The newest checkpoint of all earlier cycles."""
    saved: int = -1
    """The newest checkpoint of all cycles."""
    order: Order | None = None
    """What all ranks were told to do at one step."""
    leaving: tuple[str, ...] = ()
    """Places whose nodes are to be exchanged for spares once its ranks have saved."""
    leaving_for: str = "straggler"
    """Why: straggler, maintenance, or requested by somebody."""
    where: dict[int, tuple[str, Where]] = field(default_factory=dict)
    """Node and stacks of the ranks that have been asked."""

    def lose(self, place: str, how: str, epoch_s: float) -> None:
        """A place of this cycle is gone since `epoch_s`."""
        self.lost[place] = how
        self.fault_epoch_s = min(epoch_s, self.fault_epoch_s or epoch_s)

    def end_rank(self, entry: RankExit) -> None:
        """A rank has ended."""
        self.exits[entry.rank] = entry
        if entry.failed:
            self.fault_epoch_s = min(entry.epoch_s, self.fault_epoch_s or entry.epoch_s)

    def note_steps(self, steps: dict[str, list[float]]) -> None:
        """Take in the last step and its time (epoch seconds) of some ranks."""
        for rank, (step, epoch_s) in steps.items():
            self.steps[int(rank)] = int(step)
            self.furthest = max(self.furthest, int(step))
            if not self.steps_known:
                self.steps_known = True
                self.first_step_epoch_s = epoch_s

    @property
    def slowest(self) -> tuple[int, int] | None:
        """The rank that is behind all others, and its last step; None when none is."""
        running = {rank: step for rank, step in self.steps.items() if rank not in self.exits}
        if len(set(running.values())) < 2:
            return None
        rank = min(running, key=lambda one: (running[one], one))
        return rank, running[rank]

    @property
    def may_be_saving(self) -> bool:
        """Ranks have ended, but those that still run may be about to say that their checkpoint is written.

        One that was asked to save may also die of it: where a rank's process ends first, the others' connections break,
        and torch aborts a process that is on its way out.
        """
        asks = {entry.code for entry in self.exits.values() if entry.failed} == {EXIT_REQUEUE}
        return not self.lost and len(self.exits) < self.world_size and (asks or self.asked_to_save)

    @property
    def suspects(self) -> tuple[tuple[int, str], ...]:
        """Rank and node of those that hold the others up, when some ranks hang."""
        if self.hang is None:
            return ()
        ended = sum(1 for entry in self.exits.values() if entry.code == 0)
        found = stacks.suspects((where for _, where in self.where.values()), ended=ended)
        return tuple((rank, self.where[rank][0]) for rank in found)

    def outcome(self, *, ending: str | None, notice: str | None, steps_ever: bool) -> Outcome:
        """What `decide` judges. `notice` is the cause of an earlier warning, which counts if a rank heeded it."""
        heeded = any(entry.code == EXIT_REQUEUE for entry in self.exits.values())
        return Outcome(
            world_size=self.world_size,
            exits=tuple(self.exits.values()),
            lost=dict(self.lost),
            ending=ending or (notice if heeded else None),
            advanced=self.furthest > self.furthest_before,
            steps_known=steps_ever or self.steps_known,
            uptime_s=time.monotonic() - self.started,
            hang=self.hang,
            suspects=self.suspects,
            diverged=self.diverged,
            saved=self.saved > self.saved_before,
            saves_known=self.saved >= 0,
        )
