"""Which pods and leaves jobs get by Slurm's rule and by ours, while other jobs come and go; against CP-SAT's optimum.

    python benchmarks/placement.py --quick     under a minute
    python benchmarks/placement.py             an hour and more of one core

Three fabrics of 32 nodes a leaf: F1, 16 leaves of a full bisection (512 nodes); F2, 8 pods of 12 leaves, 7:1 above them
(3,072); F3, 33 such pods (12,672 nodes, 101,376 GPUs). F4: 144 NVLink domains of 18 nodes, eight in a pod (2,592).
Slurm's rule is a port (`measure/slurm_rule.py`), compared with slurmctld itself by tests/cluster/test_slurm_rule.py.
Sizes and run times are synthetic and no bandwidth is measured.
Prints Markdown tables with 95 % intervals over the seeds; the last line on stdout is one flat JSON object.
"""

import argparse
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

import numpy as np
from measure import churn
from measure.figures import Figures, goal, last_line

from trainmaster.fabric.allot import weights_for
from trainmaster.fabric.crossings import Place, ring_crossings
from trainmaster.fabric.mesh import axes_of, between_nodes
from trainmaster.fabric.model import Ints
from trainmaster.fabric.order import arrange
from trainmaster.fabric.place import place
from trainmaster.fabric.tree import Tree

SHOWN = (1, 8, 32, 64, 128, 256, 512, 1024, 2048)
STUDENT_T = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78, 10: 2.26, 30: 2.05}
Key = tuple[str, float, int, str]
"""Fabric, load, nodes of the job, policy."""


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean."""
    if len(values) < 2:
        return float("nan")
    t = STUDENT_T[max(size for size in STUDENT_T if size <= len(values))]
    return t * statistics.stdev(values) / len(values) ** 0.5


def units(tree: Tree, taken: Ints) -> tuple[list[int], list[int]]:
    """Pod and leaf of each node of a job, in the fabric's order."""
    leaves = np.repeat(np.arange(len(taken)), taken)
    return tree.pod_of_leaf[leaves].tolist(), leaves.tolist()


def crossings(tree: Tree, taken: Ints, shuffler: random.Random) -> dict[str, float]:
    """Edges of the ring that cross, ordered and by names that say nothing of the fabric."""
    pods, leaves = units(tree, taken)
    mixed = list(range(len(pods)))
    shuffler.shuffle(mixed)
    return {
        "ring_pod": ring_crossings(pods),
        "ring_leaf": ring_crossings(leaves),
        "ring_pod_names": ring_crossings([pods[at] for at in mixed]),
        "ring_leaf_names": ring_crossings([leaves[at] for at in mixed]),
    }


def meshed(tree: Tree, taken: Ints) -> dict[str, float]:
    """Volume x crossings of TP8 x DP x PP8 along the fabric (SwitchAsNodeRank), and by the best order of its axes."""
    pods, leaves = units(tree, taken)
    axes = between_nodes(axes_of({"tp": 8, "pp": 8, "dp": len(pods) // 8}), 8)
    found = arrange([Place(*both) for both in zip(pods, leaves, strict=True)], axes)
    return {"mesh_as_given": found.cost_as_given, "mesh_ours": found.cost}


def simulate(fabric: str, loads: Iterable[float], seeds: int, jobs: int, samples: int) -> tuple[dict, dict]:
    """Means by seed of everything, and how our choice compares with CP-SAT's."""
    tree = churn.FABRICS[fabric].tree()
    chosen = churn.policies(tree)
    means: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    against: dict[str, list[float]] = defaultdict(list)
    for load in loads:
        for seed in range(seeds):
            shuffler = random.Random(seed)
            seen: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
            left = samples
            for start in churn.run(tree, chosen, load=load, jobs=jobs, seed=seed):
                here = seen[start.size, start.policy]
                used = start.taken > 0
                figures = {"pods": len(set(tree.pod_of_leaf[used].tolist())), "leaves": int(used.sum())}
                figures |= {"waited": start.waited, "at_once": float(start.waited == 0)}
                if start.size >= churn.SEGMENT:
                    figures["whole"] = float((start.taken // churn.SEGMENT).sum() * churn.SEGMENT / start.size)
                if start.size >= 8:
                    figures |= crossings(tree, start.taken, shuffler)
                if start.size in (256, 512) and len(here["pods"]) < 4:
                    figures |= meshed(tree, start.taken)
                for name, value in figures.items():
                    here[name].append(value)
                if start.policy in ("ours", "slurm") and start.size >= 64 and left and find_spec("ortools"):
                    left -= 1
                    compare(tree, start, against)
            for (size, policy), values in seen.items():
                for name, numbers in values.items():
                    means[fabric, load, size, policy][name].append(statistics.fmean(numbers))
            print(f"{fabric} load {load} seed {seed} done", file=sys.stderr, flush=True)
    return means, against


def compare(tree: Tree, start: churn.Start, against: dict[str, list[float]]) -> None:
    """Our choice and CP-SAT's for one job in one state, whoever's history led there."""
    pods, leaves, proven = churn.optimum(tree, start.free, start.size)
    if not proven:
        against["unproven"].append(1.0)
        return
    taken = churn.policies(tree)["ours"](start.free, start.size, False) > 0
    own_pods, own_leaves = len(set(tree.pod_of_leaf[taken].tolist())), int(taken.sum())
    against["pods_equal"].append(float(own_pods == pods))
    weights = weights_for(tree)
    against["cost_equal"].append(float(weights.pod * (own_pods - pods) + weights.leaf * (own_leaves - leaves) < 1e-9))
    against["leaves_over"].append(own_leaves / leaves - 1)


def latency_ms(seeds: int) -> dict[str, list[float]]:
    """Place and order jobs of all sizes on F3 at random states: milliseconds of this process's time, by size."""
    tree = churn.FABRICS["F3"].tree()
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(seeds):
        chance = np.random.default_rng(seed)
        free = chance.random(len(tree.nodes)) < np.clip(chance.random(len(tree.pods)) * 0.9, 0.05, 1)[tree.pod_of]
        for size in SHOWN:
            if size <= int(free.sum()):
                began = time.process_time()
                placed = place(tree, free, size, spares=min(2, size // 64))
                assert placed is not None
                names = placed.names(tree)
                found[str(size)].append(1e3 * (time.process_time() - began))
                assert len(names) == size
    return found


def table(means: dict[Key, dict[str, list[float]]], fabric: str, load: float) -> str:
    """One fabric under one load, in Markdown."""
    lines = [
        f"\n{fabric}, load {load}\n",
        "| nodes | pods: Slurm | Slurm <= 24.05.2 | ours | ours, at submission | leaves: Slurm | ours "
        "| ring edges between pods: names | Slurm, ordered | ours |",
        "|" + "---|" * 10,
    ]

    def cell(size: int, policy: str, name: str) -> str:
        values = means[fabric, load, size, policy][name]
        half = interval(values)
        return f"{statistics.fmean(values):.2f}" + (f" ± {half:.2f}" if half == half else "")

    for size in SHOWN:
        if not means[fabric, load, size, "ours"]:
            continue
        cells = [cell(size, policy, "pods") for policy in ("slurm", "slurm_old", "ours", "ours_user")]
        cells += [cell(size, policy, "leaves") for policy in ("slurm", "ours")]
        ring = [("slurm", "ring_pod_names"), ("slurm", "ring_pod"), ("ours", "ring_pod")]
        cells += [cell(size, policy, name) if size >= 8 else "" for policy, name in ring]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def domains(means: dict[Key, dict[str, list[float]]], fabric: str, load: float) -> str:
    """How many NVLink domains jobs span, and which share of their groups lies whole in one, in Markdown."""
    lines = [
        f"\n{fabric}, load {load}: groups of {churn.SEGMENT} nodes\n",
        "| nodes | domains: Slurm | ours | ours, in groups | groups in one domain: Slurm | ours | ours, in groups |",
        "|" + "---|" * 7,
    ]
    for size in SHOWN:
        cells = []
        for name, factor in (("leaves", 1.0), ("whole", 100.0)):
            for policy in ("slurm", "ours", "ours_segments"):
                values = [factor * value for value in means[fabric, load, size, policy][name]]
                if values:
                    half = interval(values)
                    cells.append(f"{statistics.fmean(values):.2f}" + (f" ± {half:.2f}" if half == half else ""))
        if len(cells) == 6:
            lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three seeds and short histories")
    parser.add_argument("--seeds", type=int, help="histories of each fabric and load (30)")
    parser.add_argument("--load", type=float, action="append", help="offered load (0.7 and 0.9)")
    parser.add_argument("--samples", type=int, help="states of each history that CP-SAT solves, 10 s at most each (8)")
    parser.add_argument("--fabric", action="append", choices=tuple(churn.FABRICS), help="only this one")
    args = parser.parse_args()
    seeds = args.seeds or (3 if args.quick else 30)
    loads = args.load or ((0.8,) if args.quick else (0.7, 0.9))
    jobs, samples = (1200, 4) if args.quick else (6000, 8)
    samples = samples if args.samples is None else args.samples
    figures: Figures = {"seeds": seeds}
    for fabric in args.fabric or churn.FABRICS:
        means, against = simulate(fabric, loads, seeds, jobs, samples)
        for load in loads:
            print(table(means, fabric, load), flush=True)
            here = f"{fabric.lower()}_load{round(100 * load)}"
            if any(means[fabric, load, size, "ours_segments"] for size in SHOWN):
                print(domains(means, fabric, load), flush=True)
                for policy in ("slurm", "ours", "ours_segments"):
                    whole = [means[fabric, load, size, policy]["whole"] for size in (64, 128, 256)]
                    found = [value for some in whole for value in some]
                    figures[f"{here}_{policy}_whole_groups_share"] = (
                        round(statistics.fmean(found), 4) if found else None
                    )
            for size in (256, 512, 1024, 2048):
                ours, slurm = (means[fabric, load, size, policy]["pods"] for policy in ("ours", "slurm"))
                if ours and slurm:
                    ratio = statistics.fmean(ours) / statistics.fmean(slurm)
                    figures[f"{here}_{size}_nodes_ratio_of_pods"] = round(ratio, 3)
                    wanted = goal(ratio, at_most=0.4) if fabric == "F3" and size in (512, 1024) else ""
                    print(f"{size} nodes: {ratio:.2f} of Slurm's pods {wanted}")
            waits = [means[fabric, load, size, "ours"]["at_once"] for size in SHOWN if size >= 64]
            at_once = [value for some in waits for value in some]
            if at_once:
                print(f"jobs of 64 nodes and more that started at once: {100 * statistics.fmean(at_once):.0f} %")
            for size in (256, 512):
                values = means[fabric, load, size, "ours"]
                given = means[fabric, load, size, "slurm"]["mesh_as_given"]
                if values["mesh_ours"] and given and statistics.fmean(given):
                    rows = [given, means[fabric, load, size, "slurm"]["mesh_ours"], values["mesh_ours"]]
                    said = " / ".join(f"{statistics.fmean(row):.0f}" for row in rows)
                    print(f"TP8 PP8 DP{size // 8}, volume x crossings: Slurm in leaf order / reordered / ours: {said}")
                    figures[f"{here}_{size}_nodes_mesh_ratio"] = round(
                        statistics.fmean(rows[2]) / statistics.fmean(rows[0]), 3
                    )
        if not find_spec("ortools"):
            print("CP-SAT is missing: pip install 'trainmaster[bench]'")
        if against["pods_equal"]:
            equal, over = statistics.fmean(against["pods_equal"]), statistics.fmean(against["leaves_over"])
            count, unproven = len(against["pods_equal"]), len(against["unproven"])
            said = f"pods equal in {100 * equal:.1f} % ({goal(equal, at_least=0.95)}), leaves {100 * over:+.2f} %"
            print(f"CP-SAT, {count} states ({unproven} more unproven): {said} ({goal(over, at_most=0.05)})")
            figures[f"{fabric.lower()}_pods_equal_share"] = round(equal, 4)
            figures[f"{fabric.lower()}_leaves_over_share"] = round(over, 4)
            # Where a pod weighs no more than a leaf, one more of one and one less of the other are as good.
            figures[f"{fabric.lower()}_cost_equal_share"] = round(statistics.fmean(against["cost_equal"]), 4)
    print("\n| nodes of F3's 12,672 | place + order, ms, median | slowest |\n|---|---|---|")
    for size, values in latency_ms(5 if args.quick else 30).items():
        print(f"| {size} | {statistics.median(values):.2f} | {max(values):.2f} |")
        figures[f"place_{size}_median_ms"] = round(statistics.median(values), 3)
        figures[f"place_{size}_max_ms"] = round(max(values), 3)
    print(last_line(figures))


if __name__ == "__main__":
    main()
