"""An all-reduce over all GPUs of one node, by torch.distributed. `collective.py RANKS [nccl|gloo [SECONDS]]`.

One JSON object: `{"ranks": 8, "backend": "nccl", "bus_gbps": 470.1, "wrong": 0}`, or an `error`. The bus bandwidth is
2 (n - 1) / n times the bytes in a second (GB/s, 10^9), as NCCL's own tests have it. `wrong` counts values that are not
the sum. Needs a Python that has torch; gloo tries the program itself where there is no GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Started as a file, its folder stands first on the path; torch must not find a module of ours there.
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

GPU_ELEMENTS, CPU_ELEMENTS = 1 << 28, 1 << 20
"""32-bit floats: 1 GiB between GPUs, 4 MiB between processors."""
PATIENCE_S = 60.0


def rank(number: int, ranks: int, backend: str, port: int, seconds: float) -> dict[str, Any]:
    """One process of the group. What the first one returns is what was measured."""
    from datetime import timedelta

    import torch
    import torch.distributed

    dist: Any = torch.distributed
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=PATIENCE_S))
    on_gpu = backend == "nccl"
    if on_gpu:
        torch.cuda.set_device(number)
    patience = timedelta(seconds=PATIENCE_S)
    dist.init_process_group(backend, store=store, rank=number, world_size=ranks, timeout=patience)
    values = torch.ones(GPU_ELEMENTS if on_gpu else CPU_ELEMENTS, device=f"cuda:{number}" if on_gpu else "cpu")
    dist.all_reduce(values)
    wrong = int((values != ranks).sum())
    values.fill_(1.0)

    def timed(count: int) -> float:
        _wait(torch, on_gpu)
        began_s = time.perf_counter()
        for _ in range(count):
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        _wait(torch, on_gpu)
        return (time.perf_counter() - began_s) / count

    # All have to do the same number of rounds, so the slowest of all says how many.
    pace = torch.tensor([timed(2)], device=values.device)
    dist.all_reduce(pace, op=dist.ReduceOp.MAX)
    took_s = timed(max(1, min(1000, int(seconds / float(pace[0])))))
    size = values.numel() * values.element_size()
    dist.destroy_process_group()
    bus = 2 * (ranks - 1) / ranks * size / took_s / 1e9
    return {"ranks": ranks, "backend": backend, "mib": size >> 20, "bus_gbps": round(bus, 2), "wrong": wrong}


def _wait(torch: Any, on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


def measure(ranks: int, backend: str, seconds: float) -> dict[str, Any]:
    """Start the group, each rank a process of its own, and collect what the first one says."""
    import torch.distributed

    dist: Any = torch.distributed
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    words = [str(ranks), backend, str(seconds), str(store.port)]
    # Outside of an allocation of ours nothing may be taken from the surroundings: it would name another world.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PMI", "RANK", "WORLD_"))}
    env = {**kept, "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).absolute()), *words, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for number in range(ranks)
    ]
    said = [process.communicate() for process in processes]
    for process, (_, err) in zip(processes, said):  # noqa: B905 - new in 3.10
        if process.returncode:
            last = [line for line in err.splitlines() if line.strip()][-1:] or [f"exit status {process.returncode}"]
            return {"ranks": ranks, "backend": backend, "error": last[0].strip()[:200]}
    found: dict[str, Any] = json.loads(said[0][0].splitlines()[-1])
    return found


def main(argv: list[str]) -> int:
    """Measure and print; 1 when it could not be done, 3 where this Python has no torch."""
    ranks, backend = int(argv[0]), argv[1] if len(argv) > 1 else "nccl"
    seconds = float(argv[2]) if len(argv) > 2 else 2.0
    try:
        if len(argv) > 4:
            figures = rank(int(argv[4]), ranks, backend, int(argv[3]), seconds)
        else:
            figures = measure(ranks, backend, seconds)
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if "error" in figures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
