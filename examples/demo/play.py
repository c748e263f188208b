"""What the demo does, in order: lab, job, faults, checks, report."""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import timeline
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from story import Point, Story, read_points, read_sample, tell

from trainmaster.errors import TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.job import TrainmasterJob
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec

ABOUT = (
    "A real Slurm cluster on this machine, a real training job, and two real faults that it survives. Exit code 1 when "
    "the job does not succeed or a fault did not do what it should."
)
TRAIN = Path(__file__).resolve().parents[1] / "tiny_gpt" / "train.py"
NODES = 4
SPARES = 1
CHECKPOINT_EVERY = 25
STEPS_MIN = 4 * CHECKPOINT_EVERY
STANDSTILL_S = 90.0
"""Without a new step or event for so long, something is wrong, and the demo says so instead of waiting for ever."""


class DemoFailed(TrainmasterError):
    """The demo did not show what it is there to show."""


@dataclass(kw_only=True)
class Watched:
    """What is known of the job so far."""

    job: TrainmasterJob[Any]
    metrics: Path
    console: Console
    start_s: float = 0.0
    events: tuple[Event, ...] = ()
    points: tuple[Point, ...] = ()
    changed_s: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Read what is new, and print new events."""
        events, points = self.job.events(), read_points(self.metrics)
        for event in events[len(self.events) :]:
            self.start_s = self.start_s or event.epoch_s
            self.console.print(timeline.line(event, self.start_s))
        if (len(events), len(points)) != (len(self.events), len(self.points)):
            self.changed_s = time.monotonic()
        self.events, self.points = events, points

    @property
    def step(self) -> int:
        """The last step of all."""
        return max((point.step for point in self.points), default=0)

    @property
    def ended(self) -> Event | None:
        """The event with which the job ended, if it did."""
        return self.events[-1] if self.events and self.events[-1].ends else None

    def say(self, text: str) -> None:
        """A line of our own between those of the job."""
        self.console.print(f"[dim]{time.time() - self.start_s:7.1f} s[/]  [bold yellow]{'FAULT':<11}[/] {text}")


def main(argv: Sequence[str]) -> int:
    """Play the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python examples/demo", description=ABOUT)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=Path("demo"), help="for the job and the report")
    args = parser.parse_args(argv)
    if args.steps < STEPS_MIN:
        parser.error(f"--steps must be at least {STEPS_MIN}: two faults need room, and checkpoints between them")
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _leave)
    began_s = time.monotonic()
    try:
        story = run(args.steps, prepared(args.out), console)
        timeline.show(story, console)
        path = write_report(story, args.out / "report.html")
        check(story, args.steps)
    except TrainmasterError as error:
        console.print(f"[bold red]The demo failed:[/] {error}", markup=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("interrupted; the lab is down")
        return 130
    console.print(f"\nThe report: [bold]{path}[/]   ({time.monotonic() - began_s:.0f} s in all)")
    return 0


def prepared(folder: Path) -> Path:
    """The folder, without what an earlier demo left there."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("jobs", "checkpoints"):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    for name in ("metrics.jsonl", "report.html"):
        (folder / name).unlink(missing_ok=True)
    return folder


def run(steps: int, folder: Path, console: Console) -> Story:
    """The whole demo but the report: lab, job, faults, end. Nothing of the lab is left afterwards."""
    console.print(f"[bold]Starting a Slurm cluster of {NODES + SPARES + 1} nodes on this machine[/]")
    metrics = folder / "metrics.jsonl"
    with up(LabSpec(nodes=NODES + SPARES + 1)) as lab, environment_of(lab):
        program = [sys.executable, str(TRAIN), "--steps", str(steps), "--metrics", str(metrics)]
        program += ["--checkpoint-dir", str(folder / "checkpoints"), "--checkpoint-every", str(CHECKPOINT_EVERY)]
        spec = JobSpec(name="demo", nodes=NODES, spares=SPARES, tasks_per_node=1, time="15")
        console.print(f"[bold]Submitting:[/] {NODES} nodes and {SPARES} spare, {steps} steps of {TRAIN.parent.name}")
        watched = Watched(job=submit(program, spec=spec, folder=folder / "jobs"), metrics=metrics, console=console)
        with progress(console) as bar:
            task = bar.add_task("training", total=steps)
            for _ in faults(lab, watched, steps):
                bar.update(task, completed=watched.step)
    sample = read_sample(watched.job.run_dir)
    return tell(name="demo", events=watched.events, points=watched.points, sample=sample)


def faults(lab: Lab, watched: Watched, steps: int) -> Iterator[None]:
    """Break things when their time has come; yields each time that something may have changed, until the job ends."""
    # Half-way between two checkpoints: there is work to repeat, as much as there is on average.
    halfway = CHECKPOINT_EVERY // 2
    yield from until(watched, steps // 3 + halfway)
    running = last_running(watched)
    # Not the node of the supervisor: what happens then is a story of its own.
    supervisor = next(event.detail["node"] for event in watched.events if event.state == "STARTING")
    victim = next(node for node in reversed(running.nodes[:-1]) if node != supervisor)
    watched.say(f"killing everything on node {victim}, which runs rank {running.nodes.index(victim)}")
    lab.fault("node-death", victim)
    yield from until(watched, 2 * steps // 3 + halfway)
    rank = 1
    watched.say(f"killing rank {rank}, on node {last_running(watched).nodes[rank]}")
    lab.fault("rank-crash", f"{watched.job.job_id}:{rank}")
    yield from until(watched, None)


def until(watched: Watched, step: int | None) -> Iterator[None]:
    """Look at the job until it has done a step, or with None until it ends. Raises DemoFailed when neither happens."""
    while True:
        watched.look()
        yield
        if watched.ended is not None and step is not None:
            raise DemoFailed(f"the job ended before step {step}: {seen(watched)}", hint=logs_of(watched))
        if watched.ended is not None or (step is not None and watched.step >= step):
            return
        if time.monotonic() - watched.changed_s > STANDSTILL_S:
            raise DemoFailed(f"nothing happened for {STANDSTILL_S:.0f} s: {seen(watched)}", hint=logs_of(watched))
        time.sleep(0.1)


def last_running(watched: Watched) -> Event:
    """The newest event that says where the ranks run."""
    return next(event for event in reversed(watched.events) if event.state == "RUNNING")


def check(story: Story, steps: int) -> None:
    """Raise DemoFailed unless the job succeeded and both faults took place and were survived."""
    if story.end is None or story.end.state != "SUCCEEDED":
        raise DemoFailed(f"the job did not succeed: {story.end}")
    if story.furthest != steps:
        raise DemoFailed(f"the job ended after step {story.furthest}, not {steps}")
    causes = [one.causes for one in story.interruptions]
    if causes != [("node_death",), ("rank_crash",)]:
        raise DemoFailed(f"a node should have died and then a rank crashed; the record says {causes}")
    if any(one.lost_s is None for one in story.interruptions):
        raise DemoFailed("there was no new step after a fault")
    if not story.sample:
        raise DemoFailed("the trained model wrote no text")


def write_report(story: Story, path: Path) -> Path:
    """Draw the pictures; imported only here, since matplotlib is slow to load and the job is what counts until then."""
    import demo_report

    demo_report.write(story, path)
    return path


def seen(watched: Watched) -> str:
    """The last words of the record."""
    last = watched.events[-1] if watched.events else None
    where = f"step {watched.step}"
    return f"{where}; no event in the record" if last is None else f"{where}; {last.state}, {timeline.describe(last)}"


def logs_of(watched: Watched) -> str:
    return f"the logs are in {watched.job.run_dir}"


@contextmanager
def environment_of(lab: Lab) -> Iterator[None]:
    """What is submitted meanwhile goes to the lab, whatever cluster this shell was meant for."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(lab.env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def progress(console: Console) -> Progress:
    """A bar below the lines, on a terminal; nothing elsewhere."""
    columns = (TextColumn("          step"), BarColumn(bar_width=40), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """SIGTERM ends the demo as Ctrl-C does: through the context managers."""
    raise SystemExit(128 + number)
