"""Ranks whose state shows every step lost or done twice: memory_trainer.py FOLDER STEPS EVERY MEMORY_EVERY [SIZE]

Each rank's state is its own. Ends with 1 when it is not what so many steps make of it.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import trainmaster

folder, steps, memory_every = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
every = sys.argv[3] if sys.argv[3] == "auto" else int(sys.argv[3])
size = int(sys.argv[5]) if len(sys.argv) > 5 else 100_000
rank = int(os.environ["RANK"])
torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
# A name of its own for each rank's: DCP takes plain tensors of one name for copies of one tensor.
mine = f"weight.{rank}"
state = {mine: torch.zeros(size), "bias": {"b": torch.zeros(1)}, "text": ""}
with trainmaster.Checkpoints(folder, every=every, memory_every=memory_every, timeout_s=60) as checkpoints:
    begun = time.perf_counter()
    found = checkpoints.load(state)
    first = 1
    if found is not None:
        first = found.step + 1
        took_s = time.perf_counter() - begun
        print(f"goes on after {found.step} from {found.source} facts {dict(found.facts)} in {took_s:.3f} s", flush=True)
        assert state["text"] == f"after {found.step}", state["text"]
    for step in range(first, steps + 1):
        time.sleep(0.05)
        dist.all_reduce(torch.ones(1))
        state[mine] += rank + 1
        state["bias"]["b"] += 1
        state["text"] = f"after {step}"
        trainmaster.step(step)
        checkpoints.after_step(state, step=step, facts={"seen": step * 8})
wrong = (state[mine] != (rank + 1) * steps).any() or state["bias"]["b"].item() != steps
print("the state is", "wrong" if wrong else "right", flush=True)
dist.barrier()
dist.destroy_process_group()
sys.exit(int(wrong))
