"""Whatever cables are gone, swapped or led astray: the tree is whole, what is emitted is clean and reads back."""

from dataclasses import replace

import numpy as np
import pytest

from trainmaster.fabric.cabling import inspect
from trainmaster.fabric.diff import diff
from trainmaster.fabric.emit import tree_conf
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.lint import lint
from trainmaster.fabric.merge import merge
from trainmaster.fabric.topology_conf import read_config, tree_of

SHAPES = ["fat:4x3", "rail:3x4,rails=3", "pods:2x2x3,rails=2", "planes:2x3x3,rails=4", "fat:1x1"]


def damaged(seed):
    rng = np.random.default_rng(seed)
    fabric = generate(parse_shape(SHAPES[seed % len(SHAPES)]))
    a, b, score = (column.copy() for column in (fabric.links.a, fabric.links.b, fabric.links.score))
    ends = len(fabric.switches) + len(fabric.hcas)
    for _ in range(rng.integers(0, 12)):
        one, other = rng.integers(0, len(a), size=2)
        match rng.integers(0, 4):
            case 0:
                score[one] = 0
            case 1:
                a[one] = rng.integers(0, ends)
            case 2:
                b[one] = rng.integers(0, ends)
            case 3:
                a[[one, other]] = a[[other, one]]
    hcas = tuple(replace(hca, host="same") if rng.random() < 0.05 else hca for hca in fabric.hcas)
    return replace(fabric, hcas=hcas, links=replace(fabric.links, a=a, b=b, score=score))


@pytest.mark.parametrize("seed", [*range(60), 144, 269, 319])
def test_any_damage_gives_a_topology_that_slurm_takes(seed):
    merged = merge(damaged(seed))
    inspect(merged)
    tree = merged.tree
    if not tree.nodes:
        return
    assert set(tree.nodes) == set(merged.layout.nodes)
    text = tree_conf(tree)
    assert {one.code for one in lint(text, slurm_nodes=tree.nodes)} <= {"many-roots"}
    again = tree_of(read_config(text))
    assert diff(tree, again) == ()
    assert tree_conf(again) == text
