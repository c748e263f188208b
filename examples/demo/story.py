"""What happened to a run, from its record and its metrics: cycles, interruptions, and the seconds that each one cost.

The record's part of it is `launcher.life`. Pure, but for the readers at the end. It works for any job: `attempts.jsonl`
is trainmaster's, and of the metrics it needs one line of JSON per step with `step`, `loss` and `epoch_s` (`attempt` and
`cycle` if there was more than one).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from trainmaster.launcher import record
from trainmaster.launcher.follow.life import cycles_of
from trainmaster.launcher.record import Event

BREAKS = ("RESTARTING", "REQUEUED")
"""States with which the record says that a cycle is over and another one will follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One training step, as rank 0 wrote it down."""

    step: int
    loss: float
    epoch_s: float
    attempt: int = 0
    cycle: int = 0

    @property
    def key(self) -> tuple[int, int]:
        """Which cycle of which attempt; later ones are greater."""
        return (self.attempt, self.cycle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time in which the ranks of one cycle ran."""

    attempt: int
    cycle: int
    start_s: float
    end_s: float
    nodes: tuple[str, ...]
    """In rank order."""
    spares: tuple[str, ...]
    ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """The time between two steps that nothing had computed before, and what it went into.

    `last_s <= noticed_s <= running_s <= first_s <= back_s`, all in epoch seconds; `running_s` to `back_s` are None when
    the run never came so far.
    """

    causes: tuple[str, ...]
    """More than one when a restart was itself interrupted."""
    dead: tuple[str, ...]
    """Nodes that were lost."""
    rank: int | None
    """The rank that failed first, when it was a rank."""
    last_step: int
    last_s: float
    """When the last step before the fault was done."""
    noticed_s: float
    """When the record says that the run is restarted; the remaining ranks are stopped by then."""
    running_s: float | None
    """When all ranks of the next cycle were started."""
    first_s: float | None
    """When the next cycle had done its first step: joined, loaded the checkpoint, computed."""
    back_s: float | None
    """When the first step was done that is further than `last_step`."""
    repeated: int
    """Steps that were computed a second time."""

    @property
    def lost_s(self) -> float | None:
        """Seconds from the last step before the fault to the first new step after it."""
        return None if self.back_s is None else self.back_s - self.last_s

    @property
    def what(self) -> str:
        """One short sentence.

        >>> broken = Interruption(causes=("node_death",), dead=("n03",), rank=None, last_step=9, last_s=0, noticed_s=1,
        ...                       running_s=None, first_s=None, back_s=None, repeated=0)
        >>> broken.what
        'node n03 died'
        """
        words = []
        for cause in self.causes:
            match cause:
                case "node_death":
                    words.append(f"{_named(self.dead)} died")
                case "node_silent":
                    words.append(f"{_named(self.dead)} fell silent")
                case "supervisor_death":
                    words.append(f"{_named(self.dead)} died, and the supervisor with it")
                case "rank_crash":
                    words.append("a rank crashed" if self.rank is None else f"rank {self.rank} crashed")
                case _:
                    words.append(cause.replace("_", " "))
        return ", then ".join(dict.fromkeys(words))

    @property
    def phases(self) -> tuple[tuple[str, float, float], ...]:
        """What the lost seconds went into, as far as the run came: name, start and end in epoch seconds."""
        moments = (self.last_s, self.noticed_s, self.running_s, self.first_s, self.back_s)
        names = ("notice, stop", "start ranks", "load, first step", "repeat steps")
        found = []
        for name, (start_s, end_s) in zip(names, pairwise(moments), strict=True):
            if start_s is None or end_s is None:
                break
            found.append((name, start_s, end_s))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All of it."""

    name: str
    events: tuple[Event, ...]
    points: tuple[Point, ...]
    spans: tuple[Span, ...]
    interruptions: tuple[Interruption, ...]
    start_s: float
    end_s: float
    end: Event | None
    sample: str = ""
    """Text that the trained model wrote."""

    @property
    def furthest(self) -> int:
        """The last step that was reached."""
        return max((point.step for point in self.points), default=0)

    @property
    def lost_s(self) -> float:
        """Seconds that all interruptions together cost."""
        return sum(one.lost_s or 0.0 for one in self.interruptions)


def tell(*, name: str, events: Sequence[Event], points: Sequence[Point], sample: str = "") -> Story:
    """Make the story of one job from its record and its metrics."""
    times = [event.epoch_s for event in events] + [point.epoch_s for point in points]
    end = record.end_of(events)
    return Story(
        name=name,
        events=tuple(events),
        points=tuple(points),
        spans=find_spans(events, points),
        interruptions=find_interruptions(events, points),
        start_s=min(times, default=0.0),
        end_s=max(times, default=0.0) if end is None else end.epoch_s,
        end=end,
        sample=sample,
    )


def find_spans(events: Sequence[Event], points: Sequence[Point]) -> tuple[Span, ...]:
    """The cycles whose ranks ran. One that is not over yet lasts to the last thing that is known of it."""
    spans = []
    for row in cycles_of(events):
        if row.running_s is None:
            continue
        key = (row.attempt, row.cycle)
        if row.ended_s is None:
            end_s = max([row.running_s, *(point.epoch_s for point in points if point.key == key)])
        else:
            # The record learns of a death a little after it happened.
            end_s = max(row.running_s, row.fault_s or row.ended_s)
        spans.append(
            Span(
                attempt=row.attempt,
                cycle=row.cycle,
                start_s=row.running_s,
                end_s=end_s,
                nodes=row.nodes,
                spares=row.spares,
                ranks=row.ranks,
            )
        )
    return tuple(spans)


def find_interruptions(events: Sequence[Event], points: Sequence[Point]) -> tuple[Interruption, ...]:
    """What kept the run from new steps. Restarts without a new step between them are one interruption."""
    groups: list[list[Event]] = []
    for event in events:
        if event.state in BREAKS:
            same = groups and _best_before(groups[-1][0], points) == _best_before(event, points)
            groups[-1].append(event) if same else groups.append([event])
    return tuple(_interruption(group, events, points) for group in groups)


def _interruption(breaks: Sequence[Event], events: Sequence[Event], points: Sequence[Point]) -> Interruption:
    first_break, last_break = breaks[0], breaks[-1]
    best = _best_before(first_break, points)
    # Without any step before it, the loss counts from the moment at which the job began.
    last_step, last_s = (best.step, best.epoch_s) if best else (0, events[0].epoch_s)
    later = [point for point in points if point.key > (last_break.attempt, last_break.cycle)]
    back = next((point for point in later if point.step > last_step), None)
    first = later[0] if later else None
    running_s = next(
        (event.epoch_s for event in events if event.state == "RUNNING" and event.epoch_s >= last_break.epoch_s), None
    )
    if running_s is not None and first is not None:
        running_s = min(running_s, first.epoch_s)
    failures = [event.detail["failure"] for event in breaks if event.detail.get("failure")]
    behind = [point for point in later if point.step <= last_step and (back is None or point.epoch_s < back.epoch_s)]
    return Interruption(
        causes=tuple(event.cause or "unknown" for event in breaks),
        dead=tuple(dict.fromkeys(node for event in breaks for node in event.dead)),
        rank=failures[0].get("rank") if failures else None,
        last_step=last_step,
        last_s=last_s,
        noticed_s=max(last_s, first_break.epoch_s),
        running_s=running_s,
        first_s=first.epoch_s if first else None,
        back_s=back.epoch_s if back else None,
        repeated=len(behind),
    )


def _best_before(broken: Event, points: Iterable[Point]) -> Point | None:
    """The furthest step of the cycle that broke and of those before it."""
    known = (point for point in points if point.key <= (broken.attempt, broken.cycle))
    return max(known, key=lambda point: (point.step, -point.epoch_s), default=None)


def _named(nodes: Sequence[str]) -> str:
    if not nodes:
        return "a node"
    return f"{'node' if len(nodes) == 1 else 'nodes'} {' and '.join(nodes)}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_points(path: Path) -> tuple[Point, ...]:
    """Steps in the order in which they were computed; a line that a dying rank left half-written is passed over."""
    points = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    for line in lines:
        try:
            values = json.loads(line)
            points.append(
                Point(
                    step=int(values["step"]),
                    loss=float(values["loss"]),
                    epoch_s=float(values["epoch_s"]),
                    attempt=int(values.get("attempt", 0)),
                    cycle=int(values.get("cycle", 0)),
                )
            )
        except (ValueError, TypeError, LookupError, AttributeError):
            continue
    return tuple(points)


def read_sample(run_dir: Path) -> str:
    """The text between the two lines with which tiny_gpt frames its sample; empty when it wrote none."""
    for path in sorted(run_dir.glob("attempt*/rank0.out"), key=lambda path: path.stat().st_mtime, reverse=True):
        _, found, rest = path.read_text(errors="replace").partition("--- sample ---\n")
        if found:
            return rest.partition("\n--- end of sample ---")[0]
    return ""


def read(run_dir: Path, metrics: Path) -> Story:
    """The story of the job in this run folder."""
    return tell(
        name=run_dir.name, events=record.read(run_dir), points=read_points(metrics), sample=read_sample(run_dir)
    )
