"""Ranks under torchrun: in the first cycle one of them fails, in the next all sum a number over gloo.

gloo_ranks.py RANK CODE TEXT    the rank that ends with CODE in cycle 0; TEXT is printed
"""

import os
import sys
import time

if os.environ["TRAINMASTER_CYCLE"] == "0":
    if os.environ["RANK"] == sys.argv[1]:
        sys.exit(int(sys.argv[2]))
    time.sleep(600)

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
total = torch.tensor([rank + 1])
dist.all_reduce(total)
place = f"{os.environ['SLURMD_NODENAME']} {os.environ['GROUP_RANK']} {os.environ['LOCAL_RANK']}"
print(f"rank {rank} of {dist.get_world_size()} on {place}: {total.item()} {sys.argv[3]}", flush=True)
dist.barrier()
