"""What trainmaster costs inside the training loop: its calls, and what a checkpoint keeps a step waiting.

    python benchmarks/overhead.py --quick      a minute
    python benchmarks/overhead.py              more repeats, a larger state: five minutes

Calls: nanoseconds of `step`, `should_checkpoint` and `section` in a rank, of telling its own time from its waiting,
and what they make of a step of 50 ms.
Checkpoints: one rank's state, saved in turn by torch.distributed.checkpoint's `save`, by its `async_save`, and by
trainmaster's `Checkpoints`, which also sums the files and publishes them by rename: seconds that training waits.
Copies in memory: two ranks on two nodes (processes of this machine, their keepers over loopback) with steps of 50 ms in
which the host waits, with copies every 50 steps and without, in turn: what a step takes longer. Then what it takes
until
all ranks have their state again: from their own node's memory, with one rank's copy from another node's, from the disk.

Progress and tables go to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from measure import figures
from measure.figures import Figures
from measure.memory_nodes import Nodes
from rich.console import Console

from trainmaster import Checkpoints
from trainmaster.launcher.rank import collectives, page, worker

STEP_S = 0.05
CALLS = 20_000
GOALS: dict[str, dict[str, float]] = {
    "calls_per_step_us": {"at_most": 2.0},
    "calls_of_50_ms_step_percent": {"at_most": 0.5},
    "memory_of_50_ms_step_percent": {"at_most": 0.5},
    "memory_blocked_of_50_ms_step_percent": {"at_most": 0.5},
}


def nanoseconds(call: Callable[[int], object]) -> float:
    """Median over rounds of one call's time."""
    rounds = []
    for _ in range(7):
        started = time.perf_counter_ns()
        for number in range(CALLS):
            call(number)
        rounds.append((time.perf_counter_ns() - started) / CALLS)
    return median(rounds)


def section(_: int) -> None:
    with worker.section("evaluate"):
        pass


def collective(_: int) -> None:
    with worker.collective():
        pass


def wrapped(function: Callable[[int], object], path: Path) -> Callable[[int], object]:
    """A function as the watch for stragglers wraps torch's collectives and the backward pass."""
    is_compiling, thread = torch.compiler.is_compiling, threading.get_ident()
    return collectives.around(function, page.Page(path), is_compiling, thread=thread)


def calls(folder: Path) -> Figures:
    """The calls as a rank makes them, on a page in memory as the agent gives it."""
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else folder
    path = memory / f"trainmaster-overhead-{os.getpid()}"
    page.create(path)
    os.environ["TRAINMASTER_STEP_FILE"] = str(path)
    try:
        idle = nanoseconds(lambda number: None)
        found = {
            "step_ns": nanoseconds(worker.step) - idle,
            "should_checkpoint_ns": nanoseconds(lambda number: worker.should_checkpoint()) - idle,
            "should_stop_ns": nanoseconds(lambda number: worker.should_stop()) - idle,
            "section_ns": nanoseconds(section) - idle,
            "collective_ns": nanoseconds(collective) - idle,
            "wrapped_collective_ns": nanoseconds(wrapped(lambda number: None, path)) - idle,
        }
    finally:
        path.unlink()
        del os.environ["TRAINMASTER_STEP_FILE"]
    per_step_ns = found["step_ns"] + found["should_checkpoint_ns"] + found["should_stop_ns"]
    rounded = {key: round(value, 1) for key, value in found.items()}
    percent = per_step_ns / (STEP_S * 1e9) * 100
    return rounded | {
        "calls_per_step_us": round(per_step_ns / 1000, 3),
        "calls_of_50_ms_step_percent": round(percent, 5),
    }


def checkpoints(folder: Path, *, size_mib: int, repeats: int) -> Figures:
    """How long training waits for one save, by who saves. Nothing else runs meanwhile."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    count = 16
    state = {f"weight.{number}": torch.rand(size_mib * (1 << 20) // count // 4) for number in range(count)}
    waits: dict[str, list[float | None]] = {"dcp_save": [], "dcp_async_save": [], "trainmaster": []}
    ours = Checkpoints(folder / "ours", keep=1)
    for repeat in range(repeats):
        for who, times in waits.items():
            place = folder / f"{who}-{repeat}"
            started = time.perf_counter()
            if who == "dcp_save":
                dcp.save(state, storage_writer=dcp.FileSystemWriter(place))
                times.append(time.perf_counter() - started)
            elif who == "dcp_async_save":
                future = dcp.async_save(state, storage_writer=dcp.FileSystemWriter(place))
                times.append(time.perf_counter() - started)
                future.result()
            else:
                ours.save(state, step=repeat + 1)
                times.append(time.perf_counter() - started)
                ours.wait()
            shutil.rmtree(place, ignore_errors=True)
    ours.close()
    dist.destroy_process_group()
    found: Figures = {"checkpoint_mib": size_mib}
    for who, times in waits.items():
        found |= figures.spread(f"{who}_blocked_s", times)
    found["ratio_dcp_save_to_trainmaster_blocked"] = figures.ratio(found, "dcp_save_blocked_s", "trainmaster_blocked_s")
    key = "ratio_dcp_async_save_to_trainmaster_blocked"
    found[key] = figures.ratio(found, "dcp_async_save_blocked_s", "trainmaster_blocked_s")
    return found


MEMORY_EVERY = 50


def memory_steps(folder: Path, *, size_mib: int, rounds: int) -> Figures:
    """What copies in memory add to a step, by the mean of all steps, since one in 50 pays."""
    nodes = Nodes(folder, {"n1": "a", "n2": "b"}, world_size=2)
    values = {"size_mib": size_mib, "rounds": rounds, "memory_every": MEMORY_EVERY, "save": False}
    try:
        told = nodes.run("steps", cycle=0, places=["n1", "n2"], **values)
    finally:
        nodes.close()
    # Ranks that take every step together wait for the slower one.
    worst = max(told, key=lambda one: mean(one["steps"]["memory"]))
    none_ms, memory_ms = (mean(worst["steps"][kind]) * 1000 for kind in ("none", "memory"))
    blocked = [seconds * 1000 for one in told for seconds in one["blocked_s"]]
    return {
        "memory_copy_mib": size_mib,
        "memory_step_none_ms": round(none_ms, 3),
        "memory_step_copies_ms": round(memory_ms, 3),
        "memory_of_50_ms_step_percent": round((memory_ms - none_ms) / (STEP_S * 1000) * 100, 3),
        "memory_blocked_of_50_ms_step_percent": round(median(blocked) / (MEMORY_EVERY * STEP_S * 1000) * 100, 3),
        **figures.spread("memory_blocked_ms", blocked),
        # What the copy itself takes of the training thread, whatever else the machine does.
        **figures.spread("memory_cpu_ms", [seconds * 1000 for one in told for seconds in one["cpu_s"]]),
        "memory_copies": min(one["copies"] for one in told),
        "memory_skipped": max(one["skipped"] for one in told),
    }


def memory_restore(folder: Path, *, size_mib: int, repeats: int) -> Figures:
    """Seconds until all of two ranks have their state again, by where it is."""
    times: dict[str, list[float | None]] = {"own_memory": [], "peer_memory": [], "disk": []}
    fetches: list[float | None] = []
    for repeat in range(repeats):
        here = folder / str(repeat)
        here.mkdir()
        nodes = Nodes(here, {"n1": "a", "n2": "b", "n3": "a"}, world_size=2)
        values = {"size_mib": size_mib, "memory_every": MEMORY_EVERY}
        try:
            nodes.run("steps", cycle=0, places=["n1", "n2"], rounds=0, save=True, **values)
            own = nodes.run("restore", cycle=1, places=["n1", "n2"], **values)
            nodes.die("n1")
            peer = nodes.run("restore", cycle=2, places=["n3", "n2"], **values)
            fetched = re.search(r"fetched rank 0.* in ([0-9.]+) s", (here / "n3.log").read_text())
            fetches.append(float(fetched[1]) if fetched is not None else None)
            disk = nodes.run("restore", cycle=3, places=["n3", "n2"], memory=False, **values)
        finally:
            nodes.close()
        for kind, told, source in (
            ("own_memory", own, "memory"),
            ("peer_memory", peer, "memory"),
            ("disk", disk, "disk"),
        ):
            right = all(one["source"] == source for one in told)
            times[kind].append(max(one["took_s"] for one in told) if right else None)
    found: Figures = {"restore_mib": size_mib}
    for kind, taken in times.items():
        found |= figures.spread(f"restore_{kind}_s", taken)
    # It begins with the new cycle and goes on while the rank starts, so little or nothing of it is in the figure above.
    found |= figures.spread("restore_peer_fetch_s", fetches)
    found["ratio_restore_disk_to_peer_memory"] = figures.ratio(found, "restore_disk_s", "restore_peer_memory_s")
    return found


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a state of 64 MiB, three repeats")
    args = parser.parse_args(argv)
    console = Console(stderr=True, soft_wrap=True)
    torch.set_num_threads(1)
    found: Figures = {"quick": args.quick}
    with tempfile.TemporaryDirectory(prefix="trainmaster-overhead-") as folder:
        found |= calls(Path(folder))
        found |= checkpoints(Path(folder), size_mib=64 if args.quick else 512, repeats=3 if args.quick else 7)
        for name in ("steps", "restore"):
            (Path(folder) / name).mkdir()
        found |= memory_steps(Path(folder) / "steps", size_mib=64, rounds=4 if args.quick else 20)
        size_mib = 64 if args.quick else 256
        found |= memory_restore(Path(folder) / "restore", size_mib=size_mib, repeats=1 if args.quick else 3)
    for key, value in found.items():
        console.print(f"{key:<50} {value}", highlight=False)
    for key, wanted in GOALS.items():
        console.print(f"goal  {key:<44} {figures.goal(found[key], **wanted)}", highlight=False)
    print(figures.last_line(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
