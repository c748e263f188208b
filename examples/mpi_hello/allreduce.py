"""An all-reduce with mpi4py that goes on where it was: a small MPI program that survives its nodes.

trainmaster submit --nodes 4 --spares 1 --mpi pmix --wait -- python examples/mpi_hello/allreduce.py

Every step sums one number of each rank. Rank 0 keeps the total in a file after each step, and every start reads it:
that is all a program has to do to be restarted. It runs under `mpirun` or alone just as well.
"""

import argparse
import os
import time
from pathlib import Path

from mpi4py import MPI

import trainmaster


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--step-s", type=float, default=0.1, help="what a step costs besides")
    parser.add_argument("--file", type=Path, default=None, help="where the total is kept")
    parser.add_argument("--exit", type=int, default=0, help="the exit code of the last rank")
    args = parser.parse_args()

    world = MPI.COMM_WORLD
    node = os.environ.get("SLURMD_NODENAME", "this machine")
    file = args.file or Path(os.environ.get("TRAINMASTER_RUN_DIR", "."), "total")
    # One rank reads and tells: no two ranks may start from different states.
    step, total = world.bcast(load(file) if world.rank == 0 else None)
    cause = os.environ.get("TRAINMASTER_CAUSE")
    print(f"rank {world.rank} of {world.size} on {node} at step {step}{f' after {cause}' if cause else ''}", flush=True)
    while step < args.steps:
        total += world.allreduce(world.rank + 1)
        step += 1
        time.sleep(args.step_s)
        if world.rank == 0:
            save(file, step, total)
        trainmaster.step(step)
    print(f"the total of {step} steps is {total}", flush=True)
    last = world.rank == world.size - 1
    # A rank that ends with another code than 0 before all have left MPI would make the others abort.
    MPI.Finalize()
    raise SystemExit(args.exit if last else 0)


def load(file: Path) -> tuple[int, int]:
    """The step and the total that were saved last."""
    if not file.exists():
        return 0, 0
    step, total = file.read_text().split()
    return int(step), int(total)


def save(file: Path, step: int, total: int) -> None:
    """Replace the file in one go: a node may die while it is written."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(f"{step} {total}\n")
    temporary.replace(file)


if __name__ == "__main__":
    main()
