"""Loads GPUs for some seconds and measures them: tensor cores, memory, PCIe. `gpu.py [INDEX | FIRST-LAST [SECONDS]]`.

One JSON object a GPU and line: `{"name": …, "tensor_tflops": …, "tensor_wrong_warps": 0, …}`, or an `error` with what
the driver said. Nothing is judged here (health/checks/deep_gpu_*.py do that). Only the driver is needed.

- tensor: bf16 products in registers, the same on every warp; the rate over the whole time, and how many warps came to
  another result than the others, with the multiprocessors on which they ran. `mma.sync` reaches about two thirds of
  what a library's matrix product does on Hopper, so the figure is compared with the same figure elsewhere only.
- memory: a copy inside the GPU, counting bytes read and written; then patterns written to all free memory and read.
- PCIe: copies from and to pinned memory of the host.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Started as a file, with -I: nothing of ours is on the path yet.
    sys.path.insert(0, str(Path(__file__).absolute().parents[3]))

from trainmaster.health.deep.cuda import CudaError, Gpu

MIB = 1 << 20
FLOP_PER_MMA = 2 * 16 * 8 * 16
TILES = 8
THREADS = 256
SPARED_BYTES = 512 * MIB
"""Left free, for what the driver itself may need meanwhile."""
COPY_BYTES = 2048 * MIB
PCIE_BYTES = 256 * MIB
NOTHING_WRONG = (1 << 64) - 1
ROUNDS = ((0x5EED, 0), (0x5EED, NOTHING_WRONG), (0xFACADE, 0), (0xFACADE, NOTHING_WRONG))
"""Seed and flip of each pattern: every bit of every word is read back as 0 and as 1."""


def tensor(gpu: Gpu, seconds: float) -> dict[str, Any]:
    """Tensor cores at full load for `seconds`."""
    blocks = 2 * gpu.multiprocessors
    warps = blocks * THREADS // 32
    out, where = gpu.take(warps * 32 * 4), gpu.take(warps * 4)
    iterations = 20_000
    rates: list[float] = []
    wrong: set[int] = set()
    wrong_warps = 0
    began_s = time.monotonic()
    while not rates or time.monotonic() - began_s < seconds:
        begin = gpu.event()
        args = (ctypes.c_uint64(out), ctypes.c_uint64(where), ctypes.c_int(iterations))
        gpu.launch("tensor_burn", blocks, THREADS, args)
        took_s = gpu.elapsed_s(begin, gpu.event())
        rates.append(warps * iterations * TILES * FLOP_PER_MMA / took_s / 1e12)
        results, places = gpu.read(out, warps * 128), gpu.read(where, warps * 4)
        for warp in odd_ones(results, 128):
            wrong_warps += 1
            wrong.add(int.from_bytes(places[4 * warp : 4 * warp + 4], "little"))
    gpu.give_back(out)
    gpu.give_back(where)
    rates.sort()
    return {
        "tensor_tflops": round(rates[len(rates) // 2], 1),
        "tensor_min_tflops": round(rates[0], 1),
        "tensor_max_tflops": round(rates[-1], 1),
        "tensor_runs": len(rates),
        "tensor_wrong_warps": wrong_warps,
        "tensor_wrong_multiprocessors": sorted(wrong),
    }


def odd_ones(data: bytes, size: int) -> list[int]:
    """Which pieces of `size` bytes differ from what most of them are.

    >>> odd_ones(b"aabbaaaa", 2)
    [1]
    """
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    counts: dict[bytes, int] = {}
    for piece in pieces:
        counts[piece] = counts.get(piece, 0) + 1
    usual = max(counts, key=lambda piece: counts[piece])
    return [number for number, piece in enumerate(pieces) if piece != usual]


def copy_rate(gpu: Gpu) -> dict[str, Any]:
    """A copy inside the GPU's memory, GB/s (10^9) read and written."""
    source, target = gpu.take(COPY_BYTES), gpu.take(COPY_BYTES)
    words = ctypes.c_uint64(COPY_BYTES // 16)
    blocks = 16 * gpu.multiprocessors
    gpu.launch(
        "write_pattern", blocks, THREADS, (ctypes.c_uint64(source), words, ctypes.c_uint64(1), ctypes.c_uint64())
    )
    rates = []
    for _ in range(12):
        begin = gpu.event()
        gpu.launch("copy", blocks, THREADS, (ctypes.c_uint64(source), ctypes.c_uint64(target), words))
        rates.append(2 * COPY_BYTES / gpu.elapsed_s(begin, gpu.event()) / 1e9)
    gpu.give_back(source)
    gpu.give_back(target)
    return {"memory_copy_gbps": round(sorted(rates[2:])[5])}


def patterns(gpu: Gpu) -> dict[str, Any]:
    """Write and read back all free memory; 16-byte words that came back differently."""
    size = (gpu.free_bytes - SPARED_BYTES) // MIB * MIB
    while True:
        try:
            memory = gpu.take(size)
            break
        except CudaError:
            # Free in pieces only.
            size = size * 15 // 16 // MIB * MIB
            if size < MIB:
                raise
    found = gpu.take(24)
    words = ctypes.c_uint64(size // 16)
    blocks = 16 * gpu.multiprocessors
    wrong, bits, lowest = 0, 0, NOTHING_WRONG
    written_s = read_s = 0.0
    for seed, flip in ROUNDS:
        pattern = (words, ctypes.c_uint64(seed), ctypes.c_uint64(flip))
        begin = gpu.event()
        gpu.launch("write_pattern", blocks, THREADS, (ctypes.c_uint64(memory), *pattern))
        written_s += gpu.elapsed_s(begin, gpu.event())
        gpu.write(found, bytes(16) + b"\xff" * 8)
        begin = gpu.event()
        gpu.launch("check_pattern", blocks, THREADS, (ctypes.c_uint64(memory), *pattern, ctypes.c_uint64(found)))
        read_s += gpu.elapsed_s(begin, gpu.event())
        counts = gpu.read(found, 24)
        wrong += int.from_bytes(counts[0:8], "little")
        bits |= int.from_bytes(counts[8:16], "little")
        lowest = min(lowest, int.from_bytes(counts[16:24], "little"))
    gpu.give_back(memory)
    gpu.give_back(found)
    return {
        "memory_tested_mib": size // MIB,
        "memory_wrong_words": wrong,
        "memory_wrong_bits": f"{bits:#018x}",
        "memory_wrong_from_byte": None if lowest == NOTHING_WRONG else lowest * 16,
        "memory_write_gbps": round(len(ROUNDS) * size / written_s / 1e9),
        "memory_read_gbps": round(len(ROUNDS) * size / read_s / 1e9),
    }


def pcie(gpu: Gpu) -> dict[str, Any]:
    """Copies from and to pinned memory of the NUMA node that the GPU is at, GB/s (10^9)."""
    stay_near(gpu.bus_id)
    pinned, memory = gpu.take_pinned(PCIE_BYTES), gpu.take(PCIE_BYTES)
    figures = {}
    for name in ("to_gpu", "to_host"):
        rates = []
        for _ in range(8):
            begin = gpu.event()
            if name == "to_gpu":
                gpu.to_gpu(memory, pinned, PCIE_BYTES)
            else:
                gpu.to_host(pinned, memory, PCIE_BYTES)
            rates.append(PCIE_BYTES / gpu.elapsed_s(begin, gpu.event()) / 1e9)
        figures[f"pcie_{name}_gbps"] = round(sorted(rates[2:])[3], 1)
    gpu.give_back_pinned(pinned)
    gpu.give_back(memory)
    return figures


def stay_near(bus_id: str) -> None:
    """Run on the cores next to a GPU, so that memory is taken there; all cores, where the kernel does not tell."""
    try:
        text = Path(f"/sys/bus/pci/devices/{bus_id}/local_cpulist").read_text()
        os.sched_setaffinity(0, cores_of(text) & os.sched_getaffinity(0))
    except (OSError, ValueError):
        return


def cores_of(text: str) -> set[int]:
    """The numbers in a list of the kernel's.

    >>> sorted(cores_of("0-2,8\\n"))
    [0, 1, 2, 8]
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def measure(index: int, seconds: float) -> dict[str, Any]:
    """All figures of one GPU."""
    figures: dict[str, Any] = {"index": index}
    began_s = time.monotonic()
    try:
        gpu = Gpu(index, Path(__file__).with_name("kernels.ptx").read_bytes())
        figures.update(name=gpu.name, bus_id=gpu.bus_id, multiprocessors=gpu.multiprocessors)
        figures["capability"] = ".".join(str(number) for number in gpu.capability)
        figures["context_s"] = round(time.monotonic() - began_s, 3)
        for part in (copy_rate, patterns, pcie):
            figures.update(part(gpu))
        figures.update(tensor(gpu, seconds))
        gpu.close()
    except (CudaError, OSError) as error:
        figures["error"] = str(error)
    figures["took_s"] = round(time.monotonic() - began_s, 3)
    return figures


def measure_all(indexes: Sequence[int], seconds: float) -> list[str]:
    """A line for each GPU. They run at once, each in a process of its own: a broken one must not end the others."""
    readers = []
    for index in indexes:
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.write(write_end, json.dumps(measure(index, seconds)).encode())
            os._exit(0)
        os.close(write_end)
        readers.append((index, read_end))
    lines = []
    for index, read_end in readers:
        with os.fdopen(read_end) as stream:
            lines.append(stream.read() or json.dumps({"index": index, "error": "the process that measured it died"}))
    return lines


def main(argv: list[str]) -> int:
    """Measure and print; 1 when the driver refused something."""
    first, _, last = (argv[0] if argv else "0").partition("-")
    lines = measure_all(range(int(first), int(last or first) + 1), float(argv[1]) if len(argv) > 1 else 3.0)
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if any("error" in json.loads(line) for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
