"""How long a month of accounting takes to report on, and how much memory: 35,000 jobs a day, or 10 million rows.

    python benchmarks/accounting.py [--quick] [--rows N]

The rows are made up, in sacct's format, with every kind of end; they go through a file, as those of another site would.
In full it takes a few minutes. No peer does the same.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from trainmaster.report.gather import Sources, gather
from trainmaster.slurm.accounting import Question

T0_S = 1_793_000_000
JOBS_A_DAY = 35_000
# RSC-1's shares of ends, rounded, and sizes such that most jobs are small (Kokolis et al.).
ENDS = ("COMPLETED",) * 600 + ("FAILED",) * 240 + ("PREEMPTED",) * 100 + ("CANCELLED by 1000",) * 34
ENDS += ("REQUEUED",) * 19 + ("TIMEOUT",) * 6 + ("NODE_FAIL",)
SIZES = (1,) * 12 + (2, 4, 8, 8, 8, 16, 32, 128, 512)


def write(path: Path, rows: int) -> int:
    """Write that many rows or a few more; returns the end of the last."""
    rng = random.Random(1)
    written = number = last = 0
    with path.open("w") as out:
        while written < rows:
            number += 1
            submit = T0_S + number * 86400 // JOBS_A_DAY
            gpus = rng.choice(SIZES)
            nodes = -(-gpus // 8)
            first = rng.randrange(2000 - nodes)
            names = f"n{first:04}" if nodes == 1 else f"n[{first:04}-{first + nodes - 1:04}]"
            tres = f"billing={gpus},cpu={gpus * 12},gres/gpu={gpus},mem={gpus * 120}G,node={nodes}"
            eligible = submit
            while True:
                state = rng.choice(ENDS)
                start = eligible + rng.randrange(900)
                end = start + int(rng.expovariate(1 / 5000))
                times = f"{submit}|{eligible}|{start}|{end}|00:00:00"
                out.write(f"{number}|{number}|u{number % 400}|gpu|{state}|{times}|{nodes}|{tres}|{tres}|{names}\n")
                written += 1
                last = max(last, end)
                if state not in ("PREEMPTED", "REQUEUED", "NODE_FAIL"):
                    break
                submit, eligible = end, end + 121
    return last


def measure(path: Path, until_s: int) -> tuple[float, float, float, int]:
    """Seconds of wall and of CPU time, peak memory in MiB, and how many attempts were read."""
    begun, worked = time.perf_counter(), time.process_time()
    found = gather(Sources(question=Question(since_s=T0_S, until_s=until_s), rows_file=path))
    took_s = time.perf_counter() - begun
    cpu_s = time.process_time() - worked
    return took_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found.ledger.attempts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of a month")
    parser.add_argument("--rows", type=int, help="instead of 1.2 million for a month and then 10 million")
    args = parser.parse_args()
    month = JOBS_A_DAY * 30 * 117 // 100  # with what is requeued
    sizes = [args.rows] if args.rows else [month // 10] if args.quick else [month, 10_000_000]
    figures: dict[str, float] = {}
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows"
            took_s, cpu_s, peak_mib, attempts = measure(path, write(path, rows))
        print(f"{attempts:,} attempts: {took_s:.2f} s ({cpu_s:.2f} s of CPU), peak {peak_mib:.0f} MiB", file=sys.stderr)
        figures[f"rows_{rows}_wall_s"] = round(took_s, 2)
        figures[f"rows_{rows}_cpu_s"] = round(cpu_s, 2)
        figures[f"rows_{rows}_peak_mib"] = round(peak_mib, 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
