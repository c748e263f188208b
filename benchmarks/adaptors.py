"""What one look at a large cluster costs by Slurm's commands and by pyslurm: all nodes, all jobs.

    python benchmarks/adaptors.py --quick                       64 nodes, 50 jobs, three looks of each
    python benchmarks/adaptors.py --nodes 12500 --jobs 5000

A real slurmctld of its own; the nodes are defined, no slurmd runs but two, and the jobs are held. Looks by both take
turns. Where no pyslurm of Slurm's release is importable only the commands are measured, and the result says so.

Progress goes to stderr; the last line on stdout is one flat JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.pyslurm_client import open_client

# Tasks of an array that wait would be one record, so these are jobs.
_BATCH = "seq {count} | xargs -P 4 -I {{}} sbatch -Q --hold --mem=10 --output=/dev/null --wrap=true"


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def seconds(look: Callable[[], object]) -> float:
    """Of one look."""
    started = time.monotonic()
    look()
    return time.monotonic() - started


def defined(lab: Lab, count: int) -> None:
    """So many nodes more, that exist in slurm.conf alone."""
    lines = f"NodeName=x[00001-{count:05}] NodeAddr=127.0.0.1 Port=1 CPUs=8 RealMemory=1000\n"
    with lab.conf.open("a") as conf:
        conf.write(lines + f"PartitionName=defined Nodes=x[00001-{count:05}] State=UP\n")
    lab.stop_process("slurmctld")
    lab.start_slurmctld()


def measure(nodes: int, jobs: int, looks: int) -> dict[str, float | str]:
    """Medians of both."""
    with up(LabSpec(nodes=2, gpus=0, settings={"MaxJobCount": str(jobs + 100)})) as lab:
        defined(lab, nodes)
        say(f"{nodes} nodes are defined; {jobs} jobs are being submitted")
        lab.run(["sh", "-c", _BATCH.format(count=jobs)], timeout_s=1800.0)
        opened = open_client("auto", env=lab.env)
        clients = {"commands": Commands(env=lab.env)} | (
            {} if type(opened.client) is Commands else {"pyslurm": opened.client}
        )
        found: dict[str, float | str] = {"nodes": nodes, "jobs": jobs, "looks": looks, "chosen": opened.why}
        times: dict[str, list[float]] = {}
        for _ in range(looks):
            for name, client in clients.items():
                times.setdefault(f"{name}_nodes_s", []).append(seconds(client.nodes))
                times.setdefault(f"{name}_jobs_s", []).append(seconds(client.all_jobs))
        for client in clients.values():
            assert len(client.nodes()) == nodes + 2 and len(client.all_jobs()) == jobs, "one of them left some out"
        return found | {name: round(statistics.median(values), 3) for name, values in times.items()}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nodes", type=int, default=12_500)
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--looks", type=int, default=7)
    args = parser.parse_args()
    found = measure(64, 50, 3) if args.quick else measure(args.nodes, args.jobs, args.looks)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
