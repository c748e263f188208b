"""The port of Slurm's placement against slurmctld itself."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ClusterShell.NodeSet import NodeSet
from tests.cloud_lab import NODES, cloud
from tests.real_lab import until

from trainmaster.lab.cluster import Lab
from trainmaster.slurm.commands import Commands

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from measure.slurm_rule import as_counts, choose

pytestmark = pytest.mark.cluster

PODS, LEAVES, WIDTH = 6, 3, 4
LEAF_OF = [node // WIDTH for node in range(PODS * LEAVES * WIDTH)]
POD_OF_LEAF = [leaf // LEAVES for leaf in range(PODS * LEAVES)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with cloud(pods=PODS, leaves=LEAVES, nodes=WIDTH) as lab:
        yield lab


def rule(lab: Lab) -> bool:
    """Which of the two rules this Slurm has."""
    version = lab.state.slurm_version
    return tuple(int(part) for part in version.split(".")[:3]) >= (24, 5, 3)


def numbers(nodelist: str) -> list[int]:
    return [int(name[1:]) - 1 for name in NodeSet(nodelist)]


def expected(free: set[int], wanted: int, newer: bool) -> list[int]:
    counts = as_counts(sorted(free), LEAF_OF, len(POD_OF_LEAF))
    found = choose(counts, POD_OF_LEAF, wanted, since_24_05_3=newer)
    assert found is not None
    return found


def test_what_slurmctld_would_take(lab: Lab) -> None:
    client, chance = Commands(env=lab.env), random.Random(5)
    different = []
    for _ in range(60):
        busy = chance.choice([0.1, 0.3, 0.6, 0.8])
        free = {node for node in range(len(LEAF_OF)) if chance.random() > busy} or {0}
        wanted = chance.randint(1, len(free))
        names = NodeSet.fromlist([f"c{node + 1:02}" for node in range(len(LEAF_OF)) if node not in free])
        options = [f"--partition={NODES}", f"--nodes={wanted}"] + ([f"--exclude={names}"] if names else [])
        script = "#!/bin/sh\n" + "".join(f"#SBATCH {option}\n" for option in options) + "true\n"
        estimate = client.estimate(script)
        assert estimate is not None
        taken = as_counts(numbers(estimate.nodes), LEAF_OF, len(POD_OF_LEAF))
        if taken != expected(free, wanted, rule(lab)):
            different.append((sorted(free), wanted, taken))
    assert not different


def test_what_real_jobs_got(lab: Lab) -> None:
    # Each job may not use some of the nodes, or the first ones would fill leaf after leaf.
    client, chance = Commands(env=lab.env), random.Random(11)
    free = set(range(len(LEAF_OF)))
    started = []
    while len(free) > 12:
        allowed = {node for node in free if chance.random() > 0.4} or free
        wanted = chance.randint(1, min(12, len(allowed)))
        names = NodeSet.fromlist([f"c{node + 1:02}" for node in range(len(LEAF_OF)) if node not in allowed])
        args = [f"--partition={NODES}", f"--nodes={wanted}", "--output=/dev/null", f"--exclude={names},n01"]
        job_id = client.submit("#!/bin/sh\nsleep 600\n", args=args)
        started.append(job_id)
        until(lambda job_id=job_id: bool((job := client.job(job_id)) and job.nodes), f"job {job_id} has nodes")
        job = client.job(job_id)
        assert job is not None
        got = numbers(job.nodes)
        assert as_counts(got, LEAF_OF, len(POD_OF_LEAF)) == expected(allowed, wanted, rule(lab))
        free -= set(got)
    assert len(started) >= 5
    for job_id in started:
        client.cancel(job_id)
