"""Ranks that take steps at the same pace and save when they are told to; without torch, so that they start at once.

Attempt 0 goes on until it is told to stop, any later one takes ten steps more.
"""

import os
import sys
import time
from pathlib import Path

import trainmaster

rank = int(os.environ["RANK"])
checkpoint = Path(os.environ["TRAINMASTER_RUN_DIR"], "checkpoint")
start = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 0
print(f"rank {rank} starts at {start} because of {os.environ['TRAINMASTER_CAUSE']!r}", flush=True)
for step in range(start, 1_000_000 if os.environ["TRAINMASTER_ATTEMPT"] == "0" else start + 10):
    time.sleep(0.05)
    trainmaster.step(step, loss=1.0 / (step + 1))
    if trainmaster.should_checkpoint():
        time.sleep(0.5)
        if rank == 0:
            checkpoint.write_text(str(step))
        print(f"rank {rank} saves after {step}", flush=True)
    if trainmaster.should_stop():
        sys.exit(75)
