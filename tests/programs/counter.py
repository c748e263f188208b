"""A "training" program for the tests: counts steps, keeps its count in the run folder, and can be told to misbehave.

counter.py STEPS [--checkpoint] [--crash-at N] [--always-crash] [--fork-children] [--ignore-sigterm] [--exit CODE]
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import trainmaster

parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("--checkpoint", action="store_true", help="SIGUSR2: exit with 75 at the next step")
parser.add_argument("--until-asked", action="store_true", help="attempt 0 goes on until it is asked for a checkpoint")
parser.add_argument("--crash-at", type=int, default=-1, help="rank 1 dies there in cycle 0 of attempt 0")
parser.add_argument("--always-crash", action="store_true", help="rank 1 raises in every cycle, at once")
parser.add_argument("--fork-children", action="store_true", help="leave children in sessions of their own")
parser.add_argument("--ignore-sigterm", action="store_true")
parser.add_argument("--exit", type=int, default=0, help="rank 1 ends with this code in cycle 0")
parser.add_argument("--say", default="", help="what rank 1 writes to stderr before that")
args = parser.parse_args()

rank = int(os.environ["RANK"])
first_cycle = os.environ["TRAINMASTER_CYCLE"] == "0" and os.environ["TRAINMASTER_ATTEMPT"] == "0"
count_file = Path(os.environ["TRAINMASTER_RUN_DIR"], "count")
asked = []
if args.checkpoint:
    signal.signal(signal.SIGUSR2, lambda number, frame: asked.append(number))
if args.ignore_sigterm:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if args.fork_children:
    child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    with Path(os.environ["TRAINMASTER_RUN_DIR"], f"children-{rank}").open("a") as stream:
        stream.write(f"{child.pid}\n")
if args.always_crash and rank == 1:
    raise ValueError(f"rank 1 fails on purpose in cycle {os.environ['TRAINMASTER_CYCLE']}")
if args.always_crash:
    time.sleep(60)  # as a rank waits in a collective for one that is dead
if args.exit and rank == 1 and first_cycle:
    sys.stderr.write(args.say + "\n")
    sys.exit(args.exit)

start = int(count_file.read_text()) if count_file.exists() else 0
print(f"rank {rank} starts at {start} because of {os.environ['TRAINMASTER_CAUSE']!r}", flush=True)
endless = args.until_asked and os.environ["TRAINMASTER_ATTEMPT"] == "0"
for step in range(start, 1_000_000 if endless else start + args.steps if args.until_asked else args.steps):
    if first_cycle and rank == 1 and step == args.crash_at:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    trainmaster.step(step)
    if rank == 0:
        temporary = count_file.with_suffix(".tmp")
        temporary.write_text(str(step + 1))
        temporary.rename(count_file)
    if asked:
        sys.exit(75)
print(f"rank {rank} is done", flush=True)
