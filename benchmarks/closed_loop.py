"""Where real Slurm puts real jobs, by its own rule and with `fabric plan`: pods, leaves, crossing edges and waiting.

    python benchmarks/closed_loop.py --quick       64 nodes, two and a half minutes
    python benchmarks/closed_loop.py               512 nodes, some eight minutes

One lab with job_submit.lua; jobs of several sizes arrive at random and sleep for some seconds. Each history is run
twice, the same jobs at the same moments: without a plan, which leaves all to Slurm's topology/tree, and with
`trainmaster fabric plan --waiting` beside slurmctld. What is measured is what squeue says of each job afterwards: its
nodes, and how long it waited. Names of the lab's nodes follow the fabric, so a ring by names is a ring along it.
The last line on stdout is one flat JSON object.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from measure.figures import Figures, last_line

from trainmaster.fabric.crossings import ring_crossings
from trainmaster.fabric.topology_conf import read_config, tree_of, unfold
from trainmaster.fabric.tree import Tree
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.commands import Commands

PLUGIN = Path(__file__).parents[1] / "slurm_plugins" / "job_submit.lua"
SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4)
"""Sizes of jobs as shares of the cluster; a pod is an eighth of it."""
EXPONENT = 0.6
RUNS_S, SIGMA = 8.0, 0.6
"""Median and spread of how long jobs run."""
PLAN_EVERY_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One job of a history."""

    at_s: float
    nodes: int
    runs_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The same job as Slurm ran it."""

    nodes: int
    pods: int
    leaves: int
    ring_pod: int
    waited_s: float


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def history(*, seed: int, load: float, nodes: int, jobs: int) -> list[Asked]:
    """Jobs that ask for a share `load` of all node seconds."""
    chance = np.random.default_rng(seed)
    sizes = np.array([max(1, round(share * nodes)) for share in SHARES])
    likely = sizes**-EXPONENT / (sizes**-EXPONENT).sum()
    size = chance.choice(sizes, size=jobs, p=likely)
    runs = np.clip(np.rint(chance.lognormal(np.log(RUNS_S), SIGMA, size=jobs)), 3, 40)
    between = float((size * runs).mean()) / (load * nodes)
    arrives = np.cumsum(chance.exponential(between, size=jobs))
    rows = zip(arrives.tolist(), size.tolist(), runs.tolist(), strict=True)
    return [Asked(at_s=at, nodes=int(count), runs_s=int(run)) for at, count, run in rows]


@contextmanager
def planner(lab: Lab, *, runs: bool) -> Iterator[None]:
    """`fabric plan` beside slurmctld, or nothing and no file."""
    placements = lab.folder / "run" / "placements"
    placements.unlink(missing_ok=True)
    if not runs:
        yield
        return
    words = ["fabric", "plan", "--output", str(placements), "--waiting", "--every", str(PLAN_EVERY_S)]
    with (lab.folder / "planner.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "trainmaster", *words], env=lab.env, stdout=log, stderr=log)
        try:
            while not placements.exists():
                if process.poll() is not None:
                    raise SystemExit(f"the planner ended: {(lab.folder / 'planner.log').read_text()[-500:]}")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)
            placements.unlink(missing_ok=True)


def ran(lab: Lab, tree: Tree, asked: Sequence[Asked]) -> list[Seen]:
    """Run a history to its end."""
    client = Commands(env=lab.env)
    begin, late, numbers = time.monotonic(), 0.0, []
    for one in asked:
        time.sleep(max(0.0, begin + one.at_s - time.monotonic()))
        late = max(late, time.monotonic() - begin - one.at_s)
        words = [f"--nodes={one.nodes}", "--exclusive", "--mem=0", "--time=2", "--output=/dev/null"]
        numbers.append(client.submit(f"#!/bin/sh\nsleep {one.runs_s}\n", args=words))
    while lab.run(["squeue", "--noheader", "--format=%i"]).stdout.strip():
        time.sleep(1.0)
    took_s = time.monotonic() - begin
    say(f"  {len(asked)} jobs in {took_s:.0f} s; a submission was {late:.1f} s late at most")
    text = lab.run(["squeue", "--noheader", "--states=all", "--format=%i|%T|%V|%S|%N"]).stdout
    rows = {int(row[0]): row for row in (line.strip().split("|") for line in text.splitlines())}
    seen = []
    for number in numbers:
        _, state, submitted, started, names = rows[number]
        if state != "COMPLETED":
            raise SystemExit(f"job {number} is {state}, not completed; what jobs got cannot be compared")
        own = np.sort([tree.index[name] for name in unfold(names)])
        pods, leaves = tree.pod_of[own].tolist(), tree.leaf_of[own].tolist()
        waited = (datetime.fromisoformat(started) - datetime.fromisoformat(submitted)).total_seconds()
        seen.append(
            Seen(
                nodes=len(own),
                pods=len(set(pods)),
                leaves=len(set(leaves)),
                ring_pod=ring_crossings(pods),
                waited_s=waited,
            )
        )
    return seen


def row(load: float, size: str, plain: Sequence[Seen], ours: Sequence[Seen]) -> str:
    """One line of the table: means of what is counted, medians of what is waited for."""
    cells = [f"{load:g}", size, str(len(plain))]
    for name in ("pods", "leaves", "ring_pod"):
        cells += [f"{statistics.fmean(getattr(one, name) for one in some):.2f}" for some in (plain, ours)]
    for some in (plain, ours):
        waits = [one.waited_s for one in some]
        cells.append(f"{statistics.median(waits):.0f} / {statistics.fmean(waits):.1f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="64 nodes, one load, 60 jobs")
    parser.add_argument("--nodes", type=int, help="a multiple of 64 (512; quick 64)")
    parser.add_argument("--jobs", type=int, help="of each history (100; quick 60)")
    parser.add_argument("--load", type=float, action="append", help="offered share of all node seconds (0.6, 0.9)")
    parser.add_argument("--seed", type=int, default=1, help="of the first history")
    args = parser.parse_args()
    nodes, jobs = args.nodes or (64 if args.quick else 512), args.jobs or (60 if args.quick else 100)
    if nodes % 64:
        parser.error("--nodes must be a multiple of 64: 8 pods of 4 leaves")
    loads = args.load or ([0.7] if args.quick else [0.6, 0.9])
    settings = {"SchedulerParameters": "bf_interval=2,ignore_prefer_validation", "MinJobAge": "3600"}
    spec = LabSpec(fabric=f"pods:8x4x{nodes // 32},rails=1,over=7", gpus=0, job_submit=PLUGIN, settings=settings)
    began = time.monotonic()
    figures: Figures = {"nodes": nodes, "jobs": jobs}
    lines = [
        "| load | nodes | jobs | pods: Slurm | ours | leaves: Slurm | ours | ring edges between pods: Slurm | ours "
        "| waited, median / mean s: Slurm | ours |",
        "|" + "---|" * 11,
    ]
    with up(spec) as lab:
        say(f"{nodes} nodes up after {time.monotonic() - began:.0f} s")
        tree = tree_of(read_config(Commands(env=lab.env).topology()))
        for number, load in enumerate(loads):
            asked = history(seed=args.seed + number, load=load, nodes=nodes, jobs=jobs)
            found: dict[bool, list[Seen]] = {}
            # Who is first changes, so that neither always has the warmer machine.
            for steered in (False, True) if number % 2 == 0 else (True, False):
                say(f"load {load:g}, {'with a plan' if steered else 'Slurm alone'}")
                with planner(lab, runs=steered):
                    found[steered] = ran(lab, tree, asked)
            for size in sorted({one.nodes for one in asked}):
                pair = [[one for one in found[steered] if one.nodes == size] for steered in (False, True)]
                lines.append(row(load, str(size), *pair))
            lines.append(row(load, "all", found[False], found[True]))
            for steered, name in ((False, "slurm"), (True, "ours")):
                here, some = f"load{round(100 * load)}_{name}", found[steered]
                large = [one for one in some if one.nodes > nodes // 8]
                figures[f"{here}_pods_mean"] = round(statistics.fmean(one.pods for one in some), 3)
                figures[f"{here}_large_pods_mean"] = round(statistics.fmean(one.pods for one in large), 3)
                figures[f"{here}_leaves_mean"] = round(statistics.fmean(one.leaves for one in some), 3)
                figures[f"{here}_ring_pod_sum"] = sum(one.ring_pod for one in some)
                figures[f"{here}_waited_median_s"] = statistics.median(one.waited_s for one in some)
                figures[f"{here}_waited_mean_s"] = round(statistics.fmean(one.waited_s for one in some), 2)
    print("\n".join(lines))
    print(last_line(figures))


if __name__ == "__main__":
    main()
