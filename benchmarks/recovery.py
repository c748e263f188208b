"""Seconds from a fault to the next new training step: trainmaster, plain sbatch, submitit and elastic torchrun.

    python benchmarks/recovery.py --quick          under a minute: trainmaster alone, once per fault
    python benchmarks/recovery.py                  all with tuned Slurm, five times each: about an hour
    python benchmarks/recovery.py --side-by-side 8 the same in 10 minutes, on 16 cores or more
    python benchmarks/recovery.py --production     sbatch and submitit also with production time-outs, once: 20 min more

Every measurement has a lab and a job of its own: the same model (examples/tiny_gpt), four ranks on four nodes, six
nodes in the lab. When the run flows, a rank crashes, a node dies, or a node freezes; never the batch host. The clock
runs until the training program stamps a step that had not been done before the fault: lost work counts.

Progress and tables go to stderr; the last line on stdout is one flat JSON object, of seconds and ratios.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from measure import figures, steps
from measure.figures import Figures
from measure.floor import PARTS, Floor
from peers import checkpointable, elastic_torchrun, ours, plain_sbatch
from peers.work import RANKS, SPARES, TRAIN, Place, Work
from rich.console import Console
from rich.table import Table

from trainmaster.errors import SlurmError, TrainmasterError
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands

FAULTS = ("rank_crash", "node_death", "node_freeze")
LAB_NODES = RANKS + SPARES + 1
TUNED = {
    "SlurmdTimeout": "15",
    "AuthInfo": "cred_expire=5",
    "SchedulerParameters": "sched_interval=2,bf_interval=2",
}
"""The friendliest that Slurm allows: nodes are given up after 15 s, a requeued job may start after 6 s, not 121, and
then waits 2 s for the scheduler to come by, not 30. A large cluster could not afford the first and the last."""
CHECKPOINT_EVERY = 10
COLLECTIVE_TIMEOUT_S = 30.0
SETTLE_S = 10.0
"""From the first step to the fault: a run in full flow, for all alike."""
QUICK_SETTLE_S = 3.0
START_LIMIT_S = 180.0
SIDE_BY_SIDE = 3
"""Measurements with production time-outs that run at once; they wait for minutes and compute for seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to keep the training running, on one tuning of Slurm."""

    name: str
    title: str
    start: Callable[[Lab, Work], int]
    place: Callable[[Lab, Work, int], Place]
    settings: dict[str, str]
    limit_s: float
    production: bool = False


PEERS = (
    Peer(
        name="trainmaster", title="trainmaster, 1 spare", start=ours.start, place=ours.place, settings={}, limit_s=120
    ),
    Peer(
        name="torchrun_tuned",
        title="torchrun 4:5, tuned rendezvous",
        start=elastic_torchrun.start_tuned,
        place=elastic_torchrun.place,
        settings={},
        limit_s=300,
    ),
    Peer(
        name="torchrun",
        title="torchrun 4:5, default rendezvous",
        start=elastic_torchrun.start,
        place=elastic_torchrun.place,
        settings={},
        limit_s=300,
    ),
    Peer(
        name="sbatch_tuned",
        title="sbatch --requeue, tuned Slurm",
        start=plain_sbatch.start,
        place=plain_sbatch.place,
        settings=TUNED,
        limit_s=300,
    ),
    Peer(
        name="submitit_tuned",
        title="submitit, tuned Slurm",
        start=checkpointable.start,
        place=checkpointable.place,
        settings=TUNED,
        limit_s=300,
    ),
    Peer(
        name="sbatch_production",
        title="sbatch --requeue, production",
        start=plain_sbatch.start,
        place=plain_sbatch.place,
        settings={},
        limit_s=1200,
        production=True,
    ),
    Peer(
        name="submitit_production",
        title="submitit, production",
        start=checkpointable.start,
        place=checkpointable.place,
        settings={},
        limit_s=1200,
        production=True,
    ),
)

GOALS: dict[str, dict[str, float]] = {
    "trainmaster_rank_crash_s": {"at_most": 1.0},
    "trainmaster_node_death_s": {"at_most": 3.0},
    "trainmaster_node_freeze_s": {"at_most": 8.0},
    "ratio_sbatch_tuned_to_trainmaster_node_death": {"at_least": 20.0},
    "ratio_submitit_tuned_to_trainmaster_node_death": {"at_least": 20.0},
    "ratio_torchrun_to_trainmaster_node_death": {"at_least": 3.0},
    "ratio_torchrun_tuned_to_trainmaster_node_death": {"at_least": 3.0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One repeat."""

    peer: str
    fault: str
    recovered_s: float | None = None
    first_again_s: float | None = None
    lost_steps: int | None = None
    step_ms: float | None = None
    """A step's usual time before the fault."""
    note: str = ""


class Stuck(TrainmasterError):
    """A run did not get to where the fault is injected."""


# --- one measurement -------------------------------------------------------------------------------------------------


def measure(peer: Peer, fault: str, folder: Path) -> Measured:
    """Build a lab, start the training, break something, wait for a new step. Nothing is left but files in `folder`."""
    work = Work(folder=folder, checkpoint_every=CHECKPOINT_EVERY, collective_timeout_s=COLLECTIVE_TIMEOUT_S)
    folder.mkdir(parents=True)
    try:
        with up(LabSpec(nodes=LAB_NODES, settings=peer.settings)) as lab:
            return strike(lab, peer, work, peer.start(lab, work), fault, settle_s=SETTLE_S)
    except TrainmasterError as error:
        return Measured(peer=peer.name, fault=fault, note=str(error))


def strike(lab: Lab, peer: Peer, work: Work, job_id: int, fault: str, *, settle_s: float) -> Measured:
    """Break something in a run that has flowed for `settle_s`, and wait for a new step."""
    await_flow(lab, work, job_id, settle_s)
    place = peer.place(lab, work, job_id)
    before_s = time.time()
    struck_s = inject(lab, peer, work, job_id, fault, place) or before_s
    recovery, note = await_recovery(lab, work, job_id, struck_s, time.time(), peer.limit_s)
    flowing = [entry for entry in steps.read(work.metrics) if before_s - settle_s < entry.epoch_s <= before_s]
    step_ms = (flowing[-1].epoch_s - flowing[0].epoch_s) / (len(flowing) - 1) * 1000 if len(flowing) > 1 else None
    return Measured(
        peer=peer.name,
        fault=fault,
        recovered_s=recovery.recovered_s,
        first_again_s=recovery.first_again_s,
        lost_steps=recovery.lost_steps,
        step_ms=step_ms,
        note=note,
    )


def quick(faults: Sequence[str], console: Console, folder: Path) -> list[Measured]:
    """All faults on one job of trainmaster's, one after the other: no comparison, but a figure in under a minute."""
    spares = sum(fault.startswith("node") for fault in faults)
    work = Work(
        folder=folder / "quick",
        checkpoint_every=CHECKPOINT_EVERY,
        collective_timeout_s=COLLECTIVE_TIMEOUT_S,
        spares=spares,
    )
    work.folder.mkdir(parents=True)
    peer = by_name("trainmaster")
    done: list[Measured] = []
    with up(LabSpec(nodes=RANKS + spares)) as lab:
        job_id = peer.start(lab, work)
        for fault in faults:
            settle_s = QUICK_SETTLE_S if done else SETTLE_S
            done.append(strike(lab, peer, work, job_id, fault, settle_s=settle_s))
            tell(console, done[-1], "1/1")
    return done


def await_flow(lab: Lab, work: Work, job_id: int, settle_s: float) -> None:
    """Wait until the run has gone on for a while and is half-way between two checkpoints."""
    deadline_s = time.monotonic() + START_LIMIT_S
    began_s = time.time()
    while time.monotonic() < deadline_s:
        seen = steps.read(work.metrics)
        since_s = max(began_s, seen[0].epoch_s) if seen else began_s
        flowing = bool(seen) and time.time() - since_s > settle_s and seen[-1].step > 2 * CHECKPOINT_EVERY
        if flowing and seen[-1].step % CHECKPOINT_EVERY == CHECKPOINT_EVERY // 2:
            return
        if not seen and (gone := why_gone(lab, job_id)):
            raise Stuck(f"the training never began: {gone}; it said: {last_words(work)}")
        time.sleep(0.01 if flowing else 0.2)
    raise Stuck(f"no flow of steps after {START_LIMIT_S:g} s; it said: {last_words(work)}")


def inject(lab: Lab, peer: Peer, work: Work, job_id: int, fault: str, place: Place) -> float | None:
    """Do the fault; returns when it was done (epoch seconds), if that was one moment."""
    if fault == "node_death":
        lab.fault("node-death", place.node)
    elif fault == "node_freeze":
        lab.fault("node-freeze", place.node)
    elif peer.start is checkpointable.start:
        pid = checkpointable.pid_of_rank(lab, job_id, place.rank)
        struck_s = time.time()
        os.kill(pid, signal.SIGKILL)
        return struck_s
    else:
        run_dir = {"run_dir": work.folder / "run"} if peer.start is ours.start else {}
        return lab.fault("rank-crash", f"{job_id}:{place.rank}", **run_dir).epoch_s
    return None


def await_recovery(
    lab: Lab, work: Work, job_id: int, before_s: float, after_s: float, limit_s: float
) -> tuple[steps.Recovery, str]:
    """Wait for a new step. Returns what there is, and why it ended without one if it did."""
    asked_s = time.monotonic()
    while True:
        found = steps.recovery(steps.read(work.metrics), before_s=before_s, after_s=after_s)
        waited_s = time.time() - after_s
        if found.recovered_s is not None:
            return found, ""
        if waited_s > limit_s:
            return found, f"no new step within {limit_s:g} s"
        if time.monotonic() - asked_s > 5.0:
            asked_s = time.monotonic()
            if gone := why_gone(lab, job_id):
                return found, f"{gone}; it said: {last_words(work)}"
        time.sleep(0.05 if waited_s < 20 else 0.5)


def why_gone(lab: Lab, job_id: int) -> str:
    """How a job has ended, or nothing while it may still run."""
    try:
        job = Commands(env=lab.env).job(job_id)
    except SlurmError:
        return ""  # slurmctld is busy with the dead node; the metrics file tells in any case
    if job is None:
        return "Slurm no longer knows the job"
    return "" if job.active else f"the job has ended as {job.state}"


def last_words(work: Work) -> str:
    """The end of what the job printed, on one line."""
    outputs = [work.output, *sorted(work.folder.glob("submitit/*.err")), *sorted(work.folder.glob("run/batch.out"))]
    text = "\n".join(path.read_text(errors="replace") for path in outputs if path.exists())
    return " | ".join(text.strip().splitlines()[-4:])[-400:] or "nothing"


# --- many measurements -----------------------------------------------------------------------------------------------


def in_turn(
    peers: Sequence[Peer], faults: Sequence[str], repeats: int, console: Console, folder: Path
) -> list[Measured]:
    """One after the other, peer by peer within each repeat, so that a slow hour hits all alike."""
    done = []
    for repeat in range(repeats):
        for fault in faults:
            for peer in peers:
                one = measure(peer, fault, folder / f"{peer.name}-{fault}-{repeat}")
                tell(console, one, f"{repeat + 1}/{repeats}")
                done.append(one)
    return done


def side_by_side(
    peers: Sequence[Peer], faults: Sequence[str], repeats: int, width: int, console: Console, folder: Path
) -> list[Measured]:
    """Each in a process of its own, `width` at a time: they need the machine for seconds, and wait for much longer."""
    # What takes longest goes first, so that the end is not one long wait for the last.
    waiting = [(peer, fault, repeat) for fault in faults[::-1] for repeat in range(repeats) for peer in peers[::-1]]
    total = len(waiting)
    running: list[subprocess.Popen[str]] = []
    done: list[Measured] = []
    try:
        while waiting or running:
            while waiting and len(running) < width:
                peer, fault, repeat = waiting.pop(0)
                own = folder / f"{peer.name}-{fault}-{repeat}"
                argv = [sys.executable, __file__, "--one", peer.name, fault, str(own)]
                running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                assert process.stdout is not None
                lines = process.stdout.read().splitlines()
                if process.returncode != 0 or not lines:
                    raise TrainmasterError(f"a measurement ended with exit code {process.returncode}")
                done.append(Measured(**json.loads(lines[-1])))
                tell(console, done[-1], f"{len(done)}/{total}")
            time.sleep(0.5)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return done


def tell(console: Console, one: Measured, count: str) -> None:
    """One line about one measurement."""
    found = "[red]no recovery[/]" if one.recovered_s is None else f"{one.recovered_s:8.2f} s"
    again = "" if one.first_again_s is None else f"  (first step of any kind {one.first_again_s:.2f} s"
    again += "" if one.lost_steps is None else f", {one.lost_steps} steps done twice)"
    step = "" if one.step_ms is None else f"  step {one.step_ms:.0f} ms"
    console.print(f"{count:>5}  {one.peer:<20} {one.fault:<12} {found}{again}{step}  {one.note}", highlight=False)


def floors(repeats: int, folder: Path, console: Console) -> Figures:
    """The floor, cold and warm: medians of its parts."""
    console.print("the floor: starting four ranks from a checkpoint, with nothing to notice, decide or schedule")
    floor = Floor(TRAIN, ranks=RANKS, folder=folder / "floor")
    found: Figures = {}
    for kind in ("cold", "warm"):
        runs = [floor.measure(kind) for _ in range(repeats)]
        for part in PARTS:
            middle = figures.spread(f"floor_{kind}_{part}_s", [run[part] for run in runs])
            keep = (
                f"floor_{kind}_{part}_s",
                *([f"floor_{kind}_total_min_s", f"floor_{kind}_total_max_s"] if part == "total" else ()),
            )
            found |= {key: middle[key] for key in keep}
    return found


# --- figures ---------------------------------------------------------------------------------------------------------


def collect(done: Iterable[Measured]) -> Figures:
    """All repeats as flat figures."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in done:
        groups.setdefault((one.peer, one.fault), []).append(one)
    found: Figures = {}
    for (peer, fault), ones in groups.items():
        found |= figures.spread(f"{peer}_{fault}_s", [one.recovered_s for one in ones])
        lost = [one.lost_steps for one in ones if one.lost_steps is not None]
        found[f"{peer}_{fault}_lost_steps"] = math.ceil(sum(lost) / len(lost)) if lost else None
        if notes := sorted({one.note for one in ones if one.note}):
            found[f"{peer}_{fault}_note"] = "; ".join(notes)
    for peer, fault in groups:
        if peer != "trainmaster" and f"trainmaster_{fault}_s" in found:
            key = f"ratio_{peer}_to_trainmaster_{fault}"
            found[key] = figures.ratio(found, f"{peer}_{fault}_s", f"trainmaster_{fault}_s")
    return found


def above_floor(found: Figures) -> Figures:
    """How far each recovery is from the floor. Elsewhere new processes have to be started; trainmaster's are warm."""
    more: Figures = {}
    for peer in PEERS:
        total = found.get(f"floor_{'warm' if peer.name == 'trainmaster' else 'cold'}_total_s")
        for fault in FAULTS:
            value = found.get(f"{peer.name}_{fault}_s")
            if isinstance(value, int | float) and isinstance(total, int | float):
                more[f"{peer.name}_{fault}_above_floor_s"] = round(value - total, 4)
    return more


def show(found: Figures, console: Console) -> None:
    """The tables."""
    table = Table(title="seconds from the fault to the next new step: median (least - most), steps done twice")
    table.add_column("")
    for fault in FAULTS:
        table.add_column(fault.replace("_", " "), justify="right")
    for peer in PEERS:
        if any(f"{peer.name}_{fault}_s" in found for fault in FAULTS):
            table.add_row(peer.title, *(cell(found, f"{peer.name}_{fault}") for fault in FAULTS))
    console.print(table)
    if "floor_cold_total_s" in found:
        table = Table(title="the floor in seconds: four ranks from their start to their first step after a checkpoint")
        for column in ("", *(part.replace("_", " ") for part in PARTS)):
            table.add_column(column, justify="right")
        for kind in ("cold", "warm"):
            table.add_row(kind, *(f"{found[f'floor_{kind}_{part}_s']:.3f}" for part in PARTS))
        console.print(table)
        for fault in FAULTS:
            if (above := found.get(f"trainmaster_{fault}_above_floor_s")) is not None:
                console.print(f"trainmaster is {above:.2f} s above the warm floor after a {fault.replace('_', ' ')}")
    for key, wanted in GOALS.items():
        if key in found:
            console.print(f"goal  {key:<55} {found[key]}  {figures.goal(found[key], **wanted)}")


def cell(found: Figures, stem: str) -> str:
    """One cell of the table."""
    if f"{stem}_s" not in found:
        return "-"
    middle, least, most = (found[key] for key in (f"{stem}_s", f"{stem}_min_s", f"{stem}_max_s"))
    if middle is None:
        return f"no recovery ({found[f'{stem}_failed']} of {found[f'{stem}_repeats']})"
    return f"{middle:.2f} ({least:.2f} - {most:.2f}), {found[f'{stem}_lost_steps']}"


# --- the command line ------------------------------------------------------------------------------------------------


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="trainmaster alone, once per fault, all on one job")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--production", action="store_true", help="also with production time-outs, once, side by side")
    names = [peer.name for peer in PEERS]
    parser.add_argument(
        "--side-by-side",
        type=int,
        default=1,
        metavar="N",
        help="so many measurements at once, where there are some 2 N cores: each computes for a third of its time",
    )
    parser.add_argument("--peers", nargs="+", choices=names, metavar="PEER", help=f"only these of {', '.join(names)}")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="only these")
    parser.add_argument("--no-floor", action="store_true", help="do not measure the floor")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for the runs' files, to read later")
    parser.add_argument("--one", nargs=3, metavar=("PEER", "FAULT", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = options(argv)
    signal.signal(signal.SIGTERM, leave)
    if args.one:
        peer, fault, folder = args.one
        print(json.dumps(asdict(measure(by_name(peer), fault, Path(folder)))))
        return 0
    console = Console(stderr=True, soft_wrap=True, width=None if sys.stderr.isatty() else 160)
    if args.keep:
        args.keep.mkdir(parents=True)
        return run(args, args.keep.resolve(), console)
    with tempfile.TemporaryDirectory(prefix="trainmaster-recovery-", ignore_cleanup_errors=True) as folder:
        return run(args, Path(folder), console)


def run(args: argparse.Namespace, folder: Path, console: Console) -> int:
    """Measure and report."""
    peers = [by_name(name) for name in args.peers] if args.peers else list(PEERS)
    now = [peer for peer in peers if not peer.production]
    later = [peer for peer in peers if peer.production] if args.production or args.peers else []
    found: Figures = {"quick": args.quick}
    if args.quick:
        console.print("[bold yellow]--quick: trainmaster alone, once per fault on one job; too little for any claim[/]")
        done = quick(args.faults, console, folder)
    else:
        if args.side_by_side > 1:
            done = side_by_side(now, args.faults, args.repeats, args.side_by_side, console, folder)
        else:
            done = in_turn(now, args.faults, args.repeats, console, folder)
        if later:
            console.print("production time-outs (SlurmdTimeout=300, 121 s to requeue): once each, side by side")
            done += side_by_side(later, args.faults, 1, max(args.side_by_side, SIDE_BY_SIDE), console, folder)
    if not args.no_floor and not args.quick:
        found |= floors(args.repeats, folder, console)
    found |= collect(done)
    found |= above_floor(found)
    show(found, console)
    print(figures.last_line(found))
    return 0


def by_name(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)


def leave(number: int, _: FrameType | None) -> NoReturn:
    """SIGTERM ends this as Ctrl-C does: through the context managers, which end the labs."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TrainmasterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
