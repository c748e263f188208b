"""Train a recommender with four roles on three kinds of nodes, and compare it with plain training.

    trainmaster lab up --partition cpu:5 --partition highmem:3 --partition gpu:3x1 && eval "$(trainmaster lab env)"
    python examples/recommender/run.py

On another cluster name its partitions: --gpu-partition a100 --highmem-partition big --cpu-partition batch.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from baseline import baseline

from trainmaster import JobSpec, Role, submit_roles

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.01
"""How far below plain training the AUC may stay: rows that are a few steps old cost a little."""


def options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in ("gpu", "highmem", "cpu"):
        parser.add_argument(f"--{kind}-partition", default=kind, metavar="NAME")
    parser.add_argument("--trainers", type=int, default=2, help="nodes with one GPU each")
    parser.add_argument("--servers", type=int, default=2, help="high-memory nodes, a shard of the table on each")
    parser.add_argument("--workers", type=int, default=2, help="CPU nodes with an embedding worker each")
    parser.add_argument("--loaders", type=int, default=2, help="data loaders, all on one CPU node")
    parser.add_argument("--cpus", type=int, default=1, help="of each process")
    parser.add_argument("--spares", type=int, default=0, help="nodes more for each role")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=256, help="views per trainer and step")
    parser.add_argument("--folder", type=Path, default=Path("recommender_run"), help="seen by all nodes; goes on there")
    return parser.parse_args(argv)


def roles(args: argparse.Namespace) -> dict[str, Role]:
    """Who runs where, waits for whom, and restarts with whom."""
    model = args.folder.resolve() / "model"
    spec = partial(JobSpec, cpus_per_task=args.cpus, spares=args.spares)

    def program(name: str, *arguments: object) -> list[str]:
        return [sys.executable, str(HERE / name), *map(str, arguments)]

    return {
        # A server that dies has lost what it was taught since the snapshot: the trainers must go back there as well.
        "embedding": Role(
            target=program("embedding_server.py", "--folder", model),
            spec=spec(partition=args.highmem_partition, nodes=args.servers),
            service=True,
            restart="rollback",
            rolls_back=("trainer",),
        ),
        # Loaders and workers have nothing to lose: the dead one starts again, and the others wait for it.
        "loader": Role(
            target=program("data_loader.py"),
            spec=spec(partition=args.cpu_partition, tasks_per_node=args.loaders),
            service=True,
            restart="alone",
        ),
        "worker": Role(
            target=program("embedding_worker.py"),
            spec=spec(partition=args.cpu_partition, nodes=args.workers),
            service=True,
            restart="alone",
            after=("embedding", "loader"),
        ),
        # All-reduce needs every rank: the trainers die and restart together. When they are done, the job is.
        "trainer": Role(
            target=program("trainer.py", "--folder", model, "--steps", args.steps, "--rows", args.rows),
            spec=spec(partition=args.gpu_partition, nodes=args.trainers, gpus_per_node=1),
            restart="gang",
            after=("worker",),
        ),
    }


def main(argv: Sequence[str]) -> int:
    args = options(argv)
    job = submit_roles(roles(args), name="recommender", folder=args.folder / "jobs")
    print(f"job {job.job_id} is submitted; its files lie in {job.run_dir}", flush=True)
    plain = baseline(steps=args.steps, rows=args.rows * args.trainers)
    failure = job.exception()
    if failure:
        print(failure, file=sys.stderr)
        return 1
    hybrid = json.loads((args.folder / "model" / "result.json").read_text())
    print(f"AUC {hybrid['auc']:.4f} hybrid, {plain['auc']:.4f} plain, {plain['best']:.4f} is the best there can be")
    return 0 if hybrid["auc"] > plain["auc"] - TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
