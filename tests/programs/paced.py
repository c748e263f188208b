"""Ranks that work for a moment, wait for each other over gloo, and save when asked: paced.py STEPS

All do the same work, so whoever takes longer for it sits on a slow node.
"""

import argparse
import hashlib
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import trainmaster

parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
args = parser.parse_args()
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", timeout=timedelta(seconds=300))
count_file = Path(os.environ["TRAINMASTER_RUN_DIR"], "count")
start = int(count_file.read_text()) if count_file.exists() else 0
dist.barrier()
print(f"rank {rank} starts at {start} because of {os.environ['TRAINMASTER_CAUSE']!r}", flush=True)
block = bytes(1 << 20)
for step in range(start, args.steps):
    for _ in range(40):
        hashlib.sha256(block).digest()
    time.sleep(0.1)
    dist.all_reduce(torch.ones(1))
    trainmaster.step(step)
    if trainmaster.should_checkpoint():
        dist.barrier()
        if rank == 0:
            count_file.with_suffix(".tmp").write_text(str(step + 1))
            count_file.with_suffix(".tmp").rename(count_file)
        print(f"rank {rank} saves after {step}", flush=True)
    if trainmaster.should_stop():
        sys.exit(75)
    if Path(os.environ["TRAINMASTER_RUN_DIR"], "enough").exists():
        break
dist.destroy_process_group()
