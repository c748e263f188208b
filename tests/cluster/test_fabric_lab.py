"""A lab with simulated InfiniBand: the real ibnetdiscover sees what was built, and what was broken."""

import pytest

from trainmaster.errors import UsageError
from trainmaster.fabric.merge import collapse, merge
from trainmaster.fabric.sources import ibnetdiscover, ibnetdiscover_ports
from trainmaster.lab import ib
from trainmaster.lab.cluster import LabSpec, up

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab():
    with up(LabSpec(fabric="planes:2x2x3,rails=4", gpus=4)) as running:
        yield running


@pytest.fixture
def whole(lab):
    yield lab
    lab.fault("ib-renew")


def seen(lab, plane=0):
    done = ib.run_tool(lab, ["ibnetdiscover"], plane=plane)
    assert done.returncode == 0, done.stderr
    return ibnetdiscover.read(done.stdout)


def test_the_tools_see_what_was_built_and_slurm_runs_with_its_topology(lab):
    assert lab.node_names == tuple(f"n{number:02}" for number in range(1, 7))
    fabric = seen(lab)
    assert {node.name for node in fabric.nodes()} == set(lab.node_names)
    assert [hca.device for hca in fabric.hcas if hca.host == "n01"] in (["mlx5_0", "mlx5_2"], ["mlx5_2", "mlx5_0"])
    assert fabric.links.gbps.tolist() == [4 * 53.125] * len(fabric.links)
    tree = collapse(fabric)
    assert [tree.nodes_of_leaf(leaf) for leaf in (0, 1)] == [lab.node_names[:3], lab.node_names[3:]]
    by_port = ibnetdiscover_ports.read(ib.run_tool(lab, ["ibnetdiscover", "-p"], plane=1).stdout)
    assert collapse(by_port).nodes == lab.node_names
    shown = lab.run(["scontrol", "show", "topology"]).stdout
    assert "SwitchName=su001 Level=0 LinkSpeed=1 Nodes=n[01-03]" in shown


def test_a_pulled_cable_is_gone_and_comes_back(whole):
    whole.fault("ib-cut", "n02:2")
    assert "mlx5_2" not in [hca.device for hca in seen(whole).hcas if hca.host == "n02"]
    tree = collapse(seen(whole))
    assert tree.score[tree.index["n02"]] == 0.5
    whole.fault("ib-mend", "n02:2")
    assert (collapse(seen(whole)).score == 1).all()


def test_swapped_cables_are_seen_and_split_nothing(whole):
    whole.fault("ib-swap", "n02:0,n04:2")
    merged = merge(seen(whole))
    assert merged.tree.nodes_of_leaf(0) == ("n01", "n02", "n03")
    n02 = merged.layout.nodes.index("n02")
    on = merged.layout.on_switch[merged.layout.on_node == n02]
    assert {merged.fabric.switches[switch].name for switch in on} == {"su001-rail2", "su002-rail2"}


def test_narrow_slow_and_erring_cables_show_in_the_tools(whole):
    whole.fault("ib-narrow", "n03:0")
    whole.fault("ib-slow", "n05:2")
    whole.fault("ib-symbol-errors", "su001-rail0:1")
    fabric = seen(whole)
    assert sorted(set(fabric.links.gbps)) == [40, 53.125, 212.5]
    errors = ib.run_tool(whole, ["ibqueryerrors"]).stdout
    assert "SymbolErrorCounter == 4000" in errors


def test_cables_that_are_not_there_are_refused(lab):
    for target in ("n99:0", "n01:9", "su001-rail0:99", "nothing", "n01:x"):
        with pytest.raises(UsageError):
            lab.fault("ib-cut", target)
