"""One rank for the measurements of copies in memory: memory_rank.py SCENE VALUES; prints JSON at last."""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainmaster import Checkpoints

STEP_S = 0.05


def state_of(size_mib: int) -> dict[str, torch.Tensor]:
    count = 16
    return {f"weight.{number}": torch.rand(size_mib * (1 << 20) // count // 4) for number in range(count)}


def _all(holds: bool) -> bool:
    verdicts = torch.tensor([int(holds)])
    dist.all_reduce(verdicts, op=dist.ReduceOp.MIN)
    return bool(verdicts.item())


def steps(values: dict[str, Any]) -> dict[str, Any]:
    """Steps of 50 ms in which the host waits, as it does for a GPU; rounds with copies and without in turn."""
    state = state_of(values["size_mib"])
    found: dict[str, list[float]] = {"none": [], "memory": []}
    with Checkpoints(Path(values["folder"]), memory_every=values["memory_every"]) as checkpoints:
        memory = checkpoints._memory
        assert memory is not None
        step = 1
        if values["save"]:
            checkpoints.save(state, step=step)
            checkpoints.wait()
        # The first copies make their files; what follows is what a run sees. With the third the second is whole.
        while not _all(memory.count >= 3):
            step += values["memory_every"] - step % values["memory_every"]
            checkpoints.after_step(state, step=step)
            time.sleep(0.5)
        warm_s, warm = memory.blocked_s, memory.count
        blocked_s, cpu_s = [], []
        for _ in range(values["rounds"]):
            for kind, times in found.items():
                dist.barrier()
                for _ in range(values["memory_every"]):
                    started = time.perf_counter()
                    time.sleep(STEP_S)
                    step += 1
                    if kind == "memory":
                        before_s, before_cpu_s = memory.blocked_s, time.thread_time()
                        checkpoints.after_step(state, step=step)
                        if memory.blocked_s != before_s:
                            blocked_s.append(memory.blocked_s - before_s)
                            cpu_s.append(time.thread_time() - before_cpu_s)
                    times.append(time.perf_counter() - started)
        time.sleep(2.0)
        return {
            "steps": found,
            "blocked_s": blocked_s,
            "cpu_s": cpu_s,
            "copies": memory.count - warm,
            "skipped": memory.skipped,
            "warm_s": warm_s / warm,
        }


def restore(values: dict[str, Any]) -> dict[str, Any]:
    """From a rank that knows its peers to a state that is there again."""
    state = state_of(values["size_mib"])
    for path in Path(values["folder"]).glob("step_*/*"):
        with path.open("rb") as stream:
            # Shared storage would not have it in this machine's page cache either.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    dist.barrier()
    started = time.perf_counter()
    with Checkpoints(Path(values["folder"]), memory_every=values["memory_every"]) as checkpoints:
        found = checkpoints.load(state)
        took_s = time.perf_counter() - started
    assert found is not None
    return {"took_s": took_s, "source": found.source, "step": found.step}


def main() -> int:
    values = json.loads(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{values['rendezvous']}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=300),
    )
    found = {"steps": steps, "restore": restore}[sys.argv[1]](values)
    dist.barrier()
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
