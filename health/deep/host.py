"""Loads the processors and the memory of a node and measures them. `host.py cpu | memory | patterns [SECONDS [MIB]]`.

One JSON object on stdout: `{"cpu_hash_mbps": …}`. Nothing is judged here (health/checks/deep_*.py do that). Standard
library only, any Python from 3.9 on: the work itself is done by C functions that let other threads run meanwhile, so
one process keeps every core busy. Each thread is tied to one core, and its memory is of that core's NUMA node.

- cpu: SHA-256, which needs the core and next to no memory; MB/s (10^6) over all cores.
- memory: copies between buffers beyond every cache, as STREAM's copy; GB/s (10^9) read and written.
- patterns: as much memory as may be had is filled and read back, each bit once as 0 and once as 1.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MIB = 1 << 20
SAMPLE_S = 0.3
"""Some scheduling periods long, so that a node whose processors are held back is slow in each sample."""
SAMPLES = 5
COPY_MIB = 64
"""Of a thread's buffers. All threads together are far beyond what caches hold."""
BLOCK = 2 * MIB
CHUNK = 128 * BLOCK
SHARE = 0.5
"""Of all memory, what the pattern test may leave in use at most, with what others use."""
_STEP = 64
"""Bytes by which the pattern of a block is shifted against that of the one before it."""

_libc = ctypes.CDLL(None)
_copy, _compare = _libc.memcpy, _libc.memcmp
for _function in (_copy, _compare):
    _function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    _function.restype = ctypes.c_int if _function is _compare else ctypes.c_void_p


def on_each_core(work: Callable[[int], None]) -> None:
    """Run `work(number)` in a thread on each core that this process may use, and wait for all."""
    failed: list[BaseException] = []

    def one(number: int, core: int) -> None:
        try:
            # For the calling thread alone.
            os.sched_setaffinity(0, {core})
            work(number)
        except (OSError, ValueError, MemoryError) as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(sorted(os.sched_getaffinity(0)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _best(amount_of: Callable[[float], float]) -> float:
    """The best of some samples of a thread: whatever disturbs one makes it worse."""
    best = 0.0
    for _ in range(SAMPLES):
        began_s = time.perf_counter()
        amount = amount_of(began_s + SAMPLE_S)
        best = max(best, amount / (time.perf_counter() - began_s))
    return best


def cpu() -> dict[str, Any]:
    """SHA-256 on all cores at once."""
    block = bytes(MIB)
    rates: dict[int, float] = {}

    def work(number: int) -> None:
        def sample(until_s: float) -> float:
            amount = 0
            while time.perf_counter() < until_s:
                hashlib.sha256(block).digest()
                amount += len(block)
            return amount

        rates[number] = _best(sample)

    on_each_core(work)
    slowest = min(rates.values())
    return {
        "cpus": len(rates),
        "cpu_hash_mbps": round(sum(rates.values()) / 1e6, 1),
        "cpu_slowest_mbps": round(slowest / 1e6, 1),
    }


def memory() -> dict[str, Any]:
    """Copies on all cores at once."""
    size = COPY_MIB * MIB
    rates: dict[int, float] = {}

    def work(number: int) -> None:
        # Written here first, so the kernel takes it from this core's NUMA node.
        source, target = mmap.mmap(-1, size), mmap.mmap(-1, size)
        here, there = _address(source), _address(target)
        ctypes.memset(here, 0x5A, size)
        ctypes.memset(there, 0, size)

        def sample(until_s: float) -> float:
            amount = 0
            while time.perf_counter() < until_s:
                _copy(there, here, size)
                amount += 2 * size
            return amount

        rates[number] = _best(sample)

    on_each_core(work)
    return {"memory_copy_gbps": round(sum(rates.values()) / 1e9, 2), "memory_threads": len(rates)}


def patterns(seconds: float, most_mib: int) -> dict[str, Any]:
    """Fill memory, read it back, and the same with every bit turned round.

    Args:
        seconds: how long memory may be taken and tested; what is not reached by then is told.
        most_mib: how much at most; 0: until SHARE of the node's memory is in use.
    """
    try:
        # If memory runs out all the same, this process goes first.
        with open("/proc/self/oom_score_adj", "w") as stream:
            stream.write("1000")
    except OSError:
        pass
    end_s = time.monotonic() + seconds
    lock = threading.Lock()
    left = [most_mib * MIB if most_mib else 1 << 60]
    total, wrong, places = [0], [0], []

    def work(number: int) -> None:
        # Of random numbers, so that no line of the bus is still; the same in each run.
        base = hashlib.shake_128(b"trainmaster").digest(BLOCK + 4096)
        turned = bytes(255 - byte for byte in base[:4096]) * (len(base) // 4096 + 1)
        base = base[:4096] * (len(base) // 4096 + 1)
        held = []
        while time.monotonic() < end_s:
            with lock:
                size = min(CHUNK, left[0]) // BLOCK * BLOCK
                if size == 0 or not _room(size):
                    break
                left[0] -= size
            held.append(mmap.mmap(-1, size))
            for text in (base, turned):
                pattern = ctypes.create_string_buffer(text, len(text))
                bad = _fill_and_check(held[-1], ctypes.addressof(pattern))
                if bad:
                    with lock:
                        wrong[0] += len(bad)
                        places.extend(bad[:4])
            with lock:
                total[0] += size
        # What was filled first is looked at once more: by now it has been held for a while.
        pattern = ctypes.create_string_buffer(turned, len(turned))
        for piece in held:
            if time.monotonic() > end_s + seconds:
                break
            bad = _check(piece, ctypes.addressof(pattern))
            with lock:
                wrong[0] += len(bad)
                places.extend(bad[:4])

    on_each_core(work)
    return {"memory_tested_mib": total[0] // MIB, "memory_wrong_blocks": wrong[0], "memory_wrong": places[:8]}


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _room(size: int) -> bool:
    """Whether `size` more bytes leave enough for everybody else."""
    found: dict[str, int] = {}
    with open("/proc/meminfo") as stream:
        for line in stream:
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                found[name] = int(rest.split()[0]) * 1024
    return found["MemAvailable"] - size > (1 - SHARE) * found["MemTotal"]


def _fill_and_check(memory: mmap.mmap, pattern: int) -> list[str]:
    start = _address(memory)
    for number, offset in enumerate(range(0, len(memory), BLOCK)):
        _copy(start + offset, pattern + number % 32 * _STEP, BLOCK)
    return _check(memory, pattern)


def _check(memory: mmap.mmap, pattern: int) -> list[str]:
    """Words about each block that differs: how many bits, and which."""
    start = _address(memory)
    found = []
    for number, offset in enumerate(range(0, len(memory), BLOCK)):
        expected = pattern + number % 32 * _STEP
        if _compare(start + offset, expected, BLOCK):
            found.append(_difference(ctypes.string_at(start + offset, BLOCK), ctypes.string_at(expected, BLOCK)))
    return found


def _difference(seen: bytes, wanted: bytes) -> str:
    """In words, which bits of a block are not what was written.

    >>> _difference(bytes([0, 7, 0]), bytes([0, 3, 0]))
    '1 byte, bits 0x04'
    """
    odd = [one ^ other for one, other in zip(seen, wanted) if one != other]  # noqa: B905 - new in 3.10
    bits = 0
    for byte in odd:
        bits |= byte
    return f"{len(odd)} byte{'s' if len(odd) != 1 else ''}, bits {bits:#04x}"


def main(argv: list[str]) -> int:
    """Measure one part and print."""
    part = argv[0] if argv else "cpu"
    if part == "patterns":
        seconds = float(argv[1]) if len(argv) > 1 else 10.0
        figures = patterns(seconds, int(float(argv[2])) if len(argv) > 2 else 0)
    else:
        figures = cpu() if part == "cpu" else memory()
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
