"""Ranks that take every step together over gloo: collective.py STEPS [--stuck-at N] [--until-asked]

In cycle 0, rank 1 gets stuck at step N, in C and with the interpreter's lock held.
"""

import argparse
import ctypes
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import trainmaster


def stuck_in_c() -> None:
    while True:
        ctypes.PyDLL(None).sleep(600)


parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("--stuck-at", type=int, default=-1)
parser.add_argument("--until-asked", action="store_true", help="attempt 0 goes on until it is told to stop")
args = parser.parse_args()
endless = args.until_asked and os.environ["TRAINMASTER_ATTEMPT"] == "0"
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", timeout=timedelta(seconds=300))
count_file = Path(os.environ["TRAINMASTER_RUN_DIR"], "count")
start = int(count_file.read_text()) if count_file.exists() else 0
dist.barrier()
print(f"rank {rank} starts at {start} because of {os.environ['TRAINMASTER_CAUSE']!r}", flush=True)
for step in range(start, 1_000_000 if endless else start + args.steps if args.until_asked else args.steps):
    if rank == 1 and step == args.stuck_at and os.environ["TRAINMASTER_CYCLE"] == "0":
        stuck_in_c()
    time.sleep(0.05)
    dist.all_reduce(torch.ones(1))
    trainmaster.step(step)
    if rank == 0:
        count_file.with_suffix(".tmp").write_text(str(step + 1))
        count_file.with_suffix(".tmp").rename(count_file)
    if args.until_asked and trainmaster.should_checkpoint():
        print(f"rank {rank} saves after {step}", flush=True)
    if args.until_asked and trainmaster.should_stop():
        sys.exit(75)
dist.destroy_process_group()
