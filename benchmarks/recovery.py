"""Seconds from a fault to the next new training step: trainmaster, plain sbatch, submitit and elastic torchrun.

    python benchmarks/recovery.py --quick          under a minute: trainmaster alone, once per fault
    python benchmarks/recovery.py                  all with tuned Slurm, five times each: about an hour
    python benchmarks/recovery.py --side-by-side 8 the same in 10 minutes, on 16 cores or more
    python benchmarks/recovery.py --production     sbatch and submitit also with production time-outs, once: 20 min more
    python benchmarks/recovery.py --peers trainmaster torchrun_tuned nvrx --faults hang
    python benchmarks/recovery.py --peers trainmaster sbatch_tuned --faults supervisor_death
    python benchmarks/recovery.py --peers trainmaster trainmaster_cold trainmaster_requeue --faults node_death

Every measurement has a lab and a job of its own: the same model (examples/tiny_gpt), four ranks on four nodes, six
nodes in the lab. When the run flows, a rank crashes, a node dies, or a node freezes, never the batch host; when asked
for, a rank hangs or the batch host dies. The clock runs until the training program stamps a step that had not been done
before the fault: lost work counts.

Progress and tables go to stderr; the last line on stdout is one flat JSON object, of seconds and ratios.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from measure import figures
from measure.figures import Figures
from measure.floor import PARTS, Floor
from measure.recovery_figures import above_floor, collect, show
from measure.strike import (
    CHECKPOINT_EVERY,
    COLLECTIVE_TIMEOUT_S,
    FAULTS,
    MORE_FAULTS,
    SETTLE_S,
    Measured,
    measure,
    strike,
)
from peers.table import PEERS, Peer, by_name
from peers.work import RANKS, TRAIN, Work
from rich.console import Console

from trainmaster.errors import TrainmasterError
from trainmaster.lab.cluster import LabSpec, up

QUICK_SETTLE_S = 3.0
SIDE_BY_SIDE = 3
"""Measurements with production time-outs that run at once; they wait for minutes and compute for seconds."""


# --- many measurements -----------------------------------------------------------------------------------------------


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
    parser.add_argument(
        "--faults",
        nargs="+",
        choices=(*FAULTS, *MORE_FAULTS),
        default=list(FAULTS),
        help="these instead of the first three",
    )
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
    if not args.peers:
        peers = [peer for peer in peers if not peer.when_asked]
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
