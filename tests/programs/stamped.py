"""Steps of known length that note when they were done: stamped.py STEPS SAVE_EVERY [--kill-at N] [--hang-at N]

Ranks wait for nobody. What is lost by an interruption can be told from the notes alone, without trainmaster's record.
"""

import argparse
import json
import os
import signal
import time
from pathlib import Path

import trainmaster
from trainmaster.launcher.rank.worker import checkpoint_published

parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("save_every", type=int)
parser.add_argument("--kill-at", type=int, default=-1, help="rank 0 is killed there in cycle 0")
parser.add_argument("--hang-at", type=int, default=-1, help="all ranks stand still there in cycle 1")
args = parser.parse_args()
folder = Path(os.environ["TRAINMASTER_RUN_DIR"])
rank, cycle = int(os.environ["RANK"]), int(os.environ["TRAINMASTER_CYCLE"])
kept = folder / "kept"
first = int(kept.read_text()) + 1 if kept.exists() else 0


def note(what: str, step: int) -> None:
    if rank == 0:
        with (folder / "stamps").open("a") as stream:
            stream.write(json.dumps([time.time(), cycle, what, step]) + "\n")


note("begin", first)
for step in range(first, args.steps):
    time.sleep(0.2)
    trainmaster.step(step)
    note("step", step)
    if step % args.save_every == args.save_every - 1:
        checkpoint_published(step)
        note("saved", step)
        if rank == 0:
            kept.write_text(str(step))
    if cycle == 0 and step == args.kill_at and rank == 0:
        note("killed", step)
        os.kill(os.getpid(), signal.SIGKILL)
    if cycle == 1 and step == args.hang_at:
        note("hung", step)
        time.sleep(3600)
note("done", args.steps)
