"""Fabrics that are no tidy fat tree, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest

from trainmaster.errors import FabricError
from trainmaster.fabric.cabling import inspect
from trainmaster.fabric.emit import tree_conf
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.join import join
from trainmaster.fabric.lint import lint
from trainmaster.fabric.merge import collapse, merge
from trainmaster.fabric.model import Fabric, Hca, Links, Switch


def fabric_of(switches, nodes, trunks):
    """A fabric from names: `nodes` maps a host to its switches, `trunks` are pairs of switches."""
    number = {name: place for place, name in enumerate(switches)}
    hcas, ends = [], []
    for host, above in nodes.items():
        for rail, switch in enumerate(above):
            ends.append((len(switches) + len(hcas), number[switch]))
            hcas.append(Hca(guid=f"{host} {rail}", host=host, device=f"mlx5_{rail}"))
    ends += [(number[a], number[b]) for a, b in trunks]
    ports = list(range(1, len(ends) + 1))
    return Fabric(
        source="test",
        switches=tuple(Switch(guid=name, name=name, ports=64) for name in switches),
        hcas=tuple(hcas),
        links=Links.of([a for a, _ in ends], ports, [b for _, b in ends], ports),
    )


def test_a_login_node_on_a_spine_makes_it_no_leaf():
    leaves = {f"n{number}": [f"leaf{number // 4}"] for number in range(16)}
    trunks = [(f"leaf{leaf}", f"spine{spine}") for leaf in range(4) for spine in range(2)]
    names = [*(f"leaf{n}" for n in range(4)), "spine0", "spine1"]
    tree = collapse(fabric_of(names, {**leaves, "x1": ["spine0"]}, trunks))
    assert len(tree.pods) == 1
    assert sorted(tree.leaf_sizes.tolist()) == [1, 4, 4, 4, 4]
    assert lint(tree_conf(tree), slurm_nodes=tree.nodes) == ()


def test_two_leaf_switches_cabled_to_each_other_are_one_pod():
    tree = collapse(fabric_of(["a", "b"], {"n1": ["a"], "n2": ["a"], "n3": ["b"], "n4": ["b"]}, [("a", "b")]))
    assert (tree.leaves, len(tree.pods), tree.island_of_pod.tolist()) == (("a", "b"), 1, [0])


def test_leaf_switches_in_a_mesh_are_one_pod_of_leaves():
    names = [f"s{number}" for number in range(4)]
    nodes = {f"n{number}": [names[number // 3]] for number in range(12)}
    mesh = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    tree = collapse(fabric_of(names, nodes, mesh))
    assert (tree.leaf_sizes.tolist(), len(tree.pods)) == ([3, 3, 3, 3], 1)


def test_one_switch_is_one_leaf():
    tree = collapse(fabric_of(["s"], {"n1": ["s"], "n2": ["s"]}, []))
    assert (tree.leaves, len(tree.pods)) == (("s",), 1)
    assert lint(tree_conf(tree), slurm_nodes=tree.nodes) == ()


def test_a_fabric_cut_in_two_gets_two_roots_and_a_warning():
    whole = generate(parse_shape("pods:2x2x3,rails=2"))
    cores = [number for number, switch in enumerate(whole.switches) if switch.name.startswith("core")]
    scores = np.where(np.isin(whole.links.a, cores) | np.isin(whole.links.b, cores), 0.0, 1.0)
    merged = merge(replace(whole, links=replace(whole.links, score=scores)))
    assert merged.tree.island_of_pod.tolist() == [0, 1]
    assert "cut" in {one.code for one in inspect(merged)}
    text = tree_conf(merged.tree)
    assert {one.code for one in lint(text, slurm_nodes=merged.tree.nodes)} == {"many-roots"}


def test_hosts_of_one_name_on_every_switch_merge_nothing():
    whole = generate(parse_shape("fat:80x2"))
    hcas = [replace(hca, host="same") if number % 2 else hca for number, hca in enumerate(whole.hcas)]
    tree = collapse(replace(whole, hcas=tuple(hcas)))
    assert len(tree.leaves) == 80


def test_nodes_and_switches_that_nothing_joins_do_no_harm():
    fabric = fabric_of(["a", "b", "alone"], {"n1": ["a"], "n2": ["b"]}, [("a", "b")])
    fabric = replace(fabric, hcas=(*fabric.hcas, Hca(guid="x", host="lost")))
    assert collapse(fabric).nodes == ("n1", "n2")
    # Two switches, and hosts only behind what is cut.
    assert collapse(fabric_of(["a", "b"], {}, [("a", "b")])).nodes == ()
    empty = collapse(Fabric(source="nothing"))
    assert empty.nodes == ()
    with pytest.raises(FabricError):
        tree_conf(empty)


def test_a_subnet_near_the_end_of_its_addresses_is_told():
    switches = tuple(Switch(guid=str(number), name=str(number)) for number in range(45_000))
    joined = join([Fabric(source="test", switches=switches)])
    assert any("49151 local addresses" in remark for remark in joined.remarks)


def test_slurm_nodes_that_the_fabric_lacks_are_told():
    merged = merge(generate(parse_shape("fat:2x2")))
    found = inspect(merged, slurm_nodes=[*merged.tree.nodes, "n99"])
    assert [one.code for one in found] == ["not-in-fabric"]


def test_names_of_switches_that_slurm_could_not_read_are_cleaned_and_stay_unique():
    fabric = fabric_of(
        ["MF0;sw[1]:MQM9700/U1", "MF0;sw[2]:MQM9700/U1", "same", "same"],
        {"n1": ["MF0;sw[1]:MQM9700/U1"], "n2": ["MF0;sw[2]:MQM9700/U1"]},
        [("MF0;sw[1]:MQM9700/U1", "same"), ("MF0;sw[2]:MQM9700/U1", "same")],
    )
    tree = collapse(fabric)
    assert tree.leaves == ("MF0-sw-1-MQM9700-U1", "MF0-sw-2-MQM9700-U1")
    assert lint(tree_conf(tree), slurm_nodes=tree.nodes) == ()
