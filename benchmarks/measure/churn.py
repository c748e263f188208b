"""Jobs that come and go on a fabric, and how each policy places them. For benchmarks.

Jobs have power-law sizes and log-normal run times, arrive at random and start in order as soon as enough nodes are
free. Where they run changes nothing about when, so all policies see the same starts and ends, each with its own history
of which nodes are free.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from measure import slurm_rule
from trainmaster.fabric.allot import allot, weights_for
from trainmaster.fabric.model import Ints
from trainmaster.fabric.tree import Tree

EXPONENT = 0.6
"""A job of twice the nodes is 2^-0.6 times as frequent, so that large jobs use most of the node hours."""
SIGMA = 1.2
"""Of the logarithm of run times, whose median is 1."""

Policy = Callable[[Ints, int, bool], Ints]
"""([leaves] free nodes, nodes of the job, whether it had to wait) -> [leaves] nodes taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A fabric of equal pods of equal leaves."""

    name: str
    pods: int
    leaves: int
    nodes: int
    oversubscription: float

    def tree(self) -> Tree:
        """It as placement sees it."""
        leaves, count = self.pods * self.leaves, self.pods * self.leaves * self.nodes
        leaf_of = np.repeat(np.arange(leaves), self.nodes).astype(np.int32)
        pod_of_leaf = np.repeat(np.arange(self.pods), self.leaves).astype(np.int32)
        return Tree(
            nodes=tuple(f"n{number:05}" for number in range(count)),
            leaf_of=leaf_of,
            pod_of=pod_of_leaf[leaf_of],
            score=np.ones(count),
            block_of=np.full(count, -1, dtype=np.int32),
            leaves=tuple(f"leaf{number:03}" for number in range(leaves)),
            pods=tuple(f"pod{number:02}" for number in range(self.pods)),
            pod_of_leaf=pod_of_leaf,
            island_of_pod=np.zeros(self.pods, dtype=np.int32),
            pod_oversubscription=self.oversubscription,
        )


FABRICS = {
    "F1": Shape(name="F1", pods=1, leaves=16, nodes=32, oversubscription=1.0),
    "F2": Shape(name="F2", pods=8, leaves=12, nodes=32, oversubscription=7.0),
    "F3": Shape(name="F3", pods=33, leaves=12, nodes=32, oversubscription=7.0),
    # NVLink domains of 18 nodes, eight under the same switches. Slurm sees a leaf where a domain is.
    "F4": Shape(name="F4", pods=18, leaves=8, nodes=18, oversubscription=1.0),
}
SEGMENT = 16
"""Nodes of a group that wants one NVLink domain for itself: sizes are powers of two, and a domain has 18 nodes."""
DOMAIN = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One job at its start: what was free, and what it got."""

    policy: str
    size: int
    waited: float
    free: Ints
    taken: Ints


def policies(tree: Tree) -> dict[str, Policy]:
    """What is compared."""
    weights = weights_for(tree)

    def slurm(*, since_24_05_3: bool) -> Policy:
        def choose(free: Ints, wanted: int, waited: bool) -> Ints:
            found = slurm_rule.choose(free, tree.pod_of_leaf, wanted, since_24_05_3=since_24_05_3)
            assert found is not None
            return np.array(found, dtype=np.int32)

        return choose

    def ours(free: Ints, wanted: int, waited: bool) -> Ints:
        found = allot(tree, free, wanted, weights)
        assert found is not None
        return found[0]

    def in_segments(free: Ints, wanted: int, waited: bool) -> Ints:
        # A group that would be torn is better torn than made to wait.
        found = allot(tree, free, wanted, weights, groups=(1, min(SEGMENT, wanted)))
        return ours(free, wanted, waited) if found is None else found[0]

    by_slurm = slurm(since_24_05_3=True)

    def at_submission(free: Ints, wanted: int, waited: bool) -> Ints:
        return (by_slurm if waited else ours)(free, wanted, waited)

    return {
        "slurm": by_slurm,
        "slurm_old": slurm(since_24_05_3=False),
        "ours": ours,
        # Without an admin's help a job can be steered only when it is submitted, for what is free then.
        "ours_user": at_submission,
        **({"ours_segments": in_segments} if int(tree.leaf_sizes.max()) == DOMAIN else {}),
    }


def run(tree: Tree, chosen: dict[str, Policy], *, load: float, jobs: int, seed: int) -> Iterator[Start]:
    """Starts of jobs, after a quarter of them has filled the machine. `load`: offered share of all node hours."""
    random = np.random.default_rng(seed)
    total = len(tree.nodes)
    largest = min(2048, total // 6)
    sizes_there = 2 ** np.arange(int(np.log2(largest)) + 1)
    chances = sizes_there**-EXPONENT
    sizes = random.choice(sizes_there, size=jobs, p=chances / chances.sum())
    lengths = random.lognormal(0.0, SIGMA, size=jobs)
    between = float((sizes_there * chances / chances.sum()).sum()) * float(np.exp(SIGMA**2 / 2)) / (load * total)
    arrivals = np.cumsum(random.exponential(between, size=jobs))
    leaf_sizes = tree.leaf_sizes
    free = {name: leaf_sizes.copy() for name in chosen}
    idle, now = total, 0.0
    ends: list[tuple[float, int, dict[str, Ints]]] = []
    for number in range(jobs):
        size = int(sizes[number])
        now = max(now, float(arrivals[number]))
        while ends and (ends[0][0] <= now or idle < size):
            now = max(now, ends[0][0])
            gone = heapq.heappop(ends)
            idle += int(sizes[gone[1]])
            for name, taken in gone[2].items():
                free[name] += taken
        held = {}
        waited = now - float(arrivals[number])
        for name, policy in chosen.items():
            taken = policy(free[name], size, waited > 0)
            if number >= jobs // 4:
                yield Start(policy=name, size=size, waited=waited, free=free[name].copy(), taken=taken)
            free[name] -= taken
            held[name] = taken
        idle -= size
        heapq.heappush(ends, (now + float(lengths[number]), number, held))


def optimum(tree: Tree, free: Ints, wanted: int) -> tuple[int, int, bool]:
    """Pods and leaves of the cheapest choice, of equals that of fewest pods, by CP-SAT; and whether it has proven it.

    Where a pod weighs no more than a leaf, many choices cost the same. Without a rule for them the solver's pods would
    be those of whichever it happened to meet first.
    """
    from ortools.sat.python import cp_model

    weights = weights_for(tree)
    model = cp_model.CpModel()
    pod = [model.new_bool_var("") for _ in tree.pods]
    leaf = [model.new_bool_var("") for _ in tree.leaves]
    for number, above in enumerate(tree.pod_of_leaf.tolist()):
        model.add_implication(leaf[number], pod[above])
    model.add(sum(int(count) * leaf[number] for number, count in enumerate(free)) >= wanted)
    ties = len(pod) + 1
    model.minimize((ties * round(100 * weights.pod) + 1) * sum(pod) + ties * round(100 * weights.leaf) * sum(leaf))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = 10.0
    status = solver.solve(model)
    pods, leaves = (sum(solver.boolean_value(one) for one in some) for some in (pod, leaf))
    return pods, leaves, status == cp_model.OPTIMAL
