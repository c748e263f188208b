"""A rank that stamps its steps: stamping_rank.py STEPS [--exit-once CODE] [--raise-at STEP]. Rank 0 keeps the count.

No rank begins a step before all have done the one before, as if each ended with a collective; files say who is where,
so that a rank costs no more than an interpreter.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import trainmaster

parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("--exit-once", type=int, default=0, help="rank 1 ends with this code at step 20 of the first cycle")
parser.add_argument("--raise-at", type=int, default=-1, help="rank 1 raises at this step, in every cycle")
args = parser.parse_args()
rank, attempt, cycle = (os.environ[name] for name in ("RANK", "TRAINMASTER_ATTEMPT", "TRAINMASTER_CYCLE"))
run_dir = Path(os.environ["TRAINMASTER_RUN_DIR"])
(run_dir / "stamps").mkdir(exist_ok=True)
asked: list[int] = []
signal.signal(signal.SIGUSR2, lambda number, frame: asked.append(number))
count = run_dir / "count"
start = int(count.read_text()) if count.exists() else 0
board = run_dir / "stamps" / f"at-{attempt}.{cycle}"
board.mkdir(exist_ok=True)
ranks = [board / str(number) for number in range(int(os.environ["WORLD_SIZE"]))]


def at(path: Path) -> int:
    return int(path.read_text() or -1) if path.exists() else -1


with (run_dir / "stamps" / f"rank{rank}").open("ab", buffering=0) as stamps:
    for step in range(start, args.steps):
        time.sleep(0.05)
        if rank == "1" and step == 20 and args.exit_once and (attempt, cycle) == ("0", "0"):
            sys.exit(args.exit_once)
        if rank == "1" and step == args.raise_at:
            raise ValueError("rank 1 fails on purpose")
        stamps.write(f"{time.time()} {attempt} {cycle} {step}\n".encode())
        trainmaster.step(step)
        ranks[int(rank)].write_text(str(step))
        while not asked and min(map(at, ranks)) < step:
            time.sleep(0.01)
        if rank == "0":
            fresh = count.with_suffix(f".{attempt}.{cycle}")
            fresh.write_text(str(step + 1))
            fresh.rename(count)
        if asked:
            sys.exit(75)
