"""Copies between the GPUs of a node, each pair and both ways, one after another. `peers_gpu.py COUNT`.

One JSON object: `{"gpus": 8, "peers": {"0-1": 362.1, …}, "refused": ["0-4"]}`, GB/s (10^9) from the first to the
second, and the pairs whose GPUs the driver does not let reach each other; or an `error` with what the driver said.
Nothing is judged here. Only the driver is needed; runs with `python3 -I -S`, also on Python 3.9.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Started as a file, with -I: nothing of ours is on the path yet.
    sys.path.insert(0, str(Path(__file__).absolute().parents[3]))

from trainmaster.health.deep.cuda import CudaError, Gpu

SIZE = 256 << 20
COPIES = 8


def measure(count: int) -> dict[str, Any]:
    """All ordered pairs of the first `count` GPUs."""
    figures: dict[str, Any] = {"gpus": count, "peers": {}, "refused": []}
    try:
        ptx = Path(__file__).with_name("kernels.ptx").read_bytes()
        gpus = [Gpu(index, ptx) for index in range(count)]
        memory = []
        for gpu in gpus:
            gpu.use()
            memory.append(gpu.take(SIZE))
        for one, source in enumerate(gpus):
            for other, target in enumerate(gpus):
                if one == other:
                    continue
                if not source.reaches(target):
                    figures["refused"].append(f"{one}-{other}")
                    continue
                rate = _rate(source, target, memory[other], memory[one])
                figures["peers"][f"{one}-{other}"] = round(rate / 1e9, 1)
    except (CudaError, OSError) as error:
        figures["error"] = str(error)
    return figures


def _rate(source: Gpu, target: Gpu, into: int, out_of: int) -> float:
    """Bytes a second, of the second round: the first makes the way."""
    source.use()
    for _ in range(2):
        begin = source.event()
        for _ in range(COPIES):
            source.to_peer(target, into, out_of, SIZE)
        took_s = source.elapsed_s(begin, source.event())
    return COPIES * SIZE / took_s


def main(argv: list[str]) -> int:
    """Measure and print; 1 when the driver refused something."""
    figures = measure(int(argv[0]) if argv else 2)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if "error" in figures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
