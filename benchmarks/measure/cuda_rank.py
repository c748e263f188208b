"""A rank of benchmarks/gpu.py: trains a small network on a GPU, holds memory, and writes down what it met and when.

FOLDER BACKEND SHARE_OF_MEMORY STEPS [MODULE]; RANK and the like in the environment. Ranks share one GPU when there are
more of them than GPUs, which gloo allows and NCCL does not. Lines of JSON go to FOLDER/starts.jsonl (one per start of a
rank) and FOLDER/steps.jsonl (rank 0, one per step); FOLDER/done is the last step, from which the next start goes on.
MODULE is imported before the training begins, as torch.compile imports its own.
"""

import os
import sys
import time

STAMPS = {"main": time.time()}
# What a rank forked from a warm process finds, and a new one does not.
WARM = "torch" in sys.modules

import importlib  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from trainmaster import step as report_step  # noqa: E402

STAMPS["imported"] = time.time()
MIB = 1 << 20


def add_line(path: Path, values: dict[str, Any]) -> None:
    """Append in one write: several ranks share the file, and any of them may be killed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, json.dumps(values).encode() + b"\n")
    os.close(descriptor)


def main(folder: Path, backend: str, share: float, steps: int, module: str = "") -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    facts: dict[str, Any] = {"rank": rank, "world_size": world_size, "pid": os.getpid(), "warm": WARM}
    facts["cycle"] = int(os.environ["TRAINMASTER_CYCLE"])
    facts["visible"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    facts["touched_before"] = torch.cuda.is_initialized()
    device, ballast = torch.device("cpu"), None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
        torch.zeros(1, device=device)
        free, total = torch.cuda.mem_get_info()
        facts |= {"free_mib": free // MIB, "total_mib": total // MIB, "name": torch.cuda.get_device_name()}
        facts |= {"devices": torch.cuda.device_count(), "uuid": str(torch.cuda.get_device_properties(device).uuid)}
        STAMPS["cuda"] = time.time()
        ballast = torch.empty(int(share * total), dtype=torch.uint8, device=device)
        ballast.fill_(rank + 1)
    if module:
        importlib.import_module(module)
    dist.init_process_group(backend, init_method="env://")
    STAMPS["group"] = time.time()
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.GELU()) for _ in range(8)]
    model = DistributedDataParallel(torch.nn.Sequential(*layers).to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    done = folder / "done"
    step = int(done.read_text()) if done.exists() else 0
    begun = step
    while step < steps:
        loss = model(torch.randn(256, 1024, device=device)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = loss.item()  # waits for the GPU
        step += 1
        report_step(step)
        if rank == 0:
            add_line(folder / "steps.jsonl", {"step": step, "epoch_s": time.time(), "loss": value})
            fresh = folder / "done.new"
            fresh.write_text(str(step))
            fresh.replace(done)
        if step == begun + 1:
            STAMPS["stepped"] = time.time()
            add_line(folder / "starts.jsonl", facts | {"stamps": STAMPS})
        time.sleep(0.01)
    if ballast is not None:
        assert int(ballast[-1]) == rank + 1, "what another rank wrote into our memory"
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
