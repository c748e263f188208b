"""A lab with simulated InfiniBand: the real ibnetdiscover sees what was built, and what was broken."""

import subprocess
import sys

import pytest

from trainmaster.errors import UsageError
from trainmaster.fabric.merge import collapse, merge
from trainmaster.fabric.sources import ibnetdiscover, ibnetdiscover_ports
from trainmaster.lab import ib
from trainmaster.lab.cluster import LabSpec, up
from trainmaster.slurm.commands import Commands

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


class Host:
    """The fabric's host: looks, publishes, and has health act upon it."""

    def __init__(self, lab, folder):
        self.lab, self.folder = lab, folder
        self.client = Commands(env=lab.env)

    def command(self, *argv):
        done = subprocess.run(
            [sys.executable, "-m", "trainmaster", *argv],
            env=self.lab.env, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, 1, 2), done.stderr
        return done.stdout

    def look(self):
        texts = []
        for plane in (0, 1):
            path = self.folder / f"plane{plane}"
            path.write_text(ib.run_tool(self.lab, ["ibnetdiscover"], plane=plane).stdout)
            texts += ["--from", str(path)]
        return self.command("fabric", "health", *texts, "--slurm", "--publish", str(self.folder / "links.json"))

    def act(self, *more):
        where = ["--state", str(self.folder / "state"), "--profile", str(self.folder / "none")]
        return self.command("health", "fabric", str(self.folder / "links.json"), "--act", *where, *more)

    def node(self, name):
        return self.client.nodes(name)[0]

    def drained(self, name):
        return "DRAIN" in self.node(name).state


def test_what_only_the_fabric_sees_drains_once_and_is_taken_back(whole, tmp_path):
    host = Host(whole, tmp_path)
    host.look()
    assert "nothing speaks against any node" in host.act()
    whole.fault("ib-swap", "n02:0,n04:2")
    whole.fault("ib-cut", "n05:1")
    whole.run(["scontrol", "update", "NodeName=n04", "State=DRAIN", "Reason=rack move"])
    host.look()
    assert "would drain n02" in host.act("--dry-run") and not host.drained("n02")
    assert "drain n02" in host.act()
    assert host.node("n02").reason.startswith("[HC] fabric.rail: is on su002-rail2")
    assert host.node("n04").reason == "rack move"
    # A dead port is for the node's own checks to drain for; here it is only told.
    assert not host.drained("n05")
    assert "Comment=[HC] fabric.missing: no cable" in whole.run(["scontrol", "show", "node", "n05"]).stdout

    # Lifted by hand: the same cause is not drained for again.
    whole.run(["scontrol", "update", "NodeName=n02", "State=RESUME"])
    host.look()
    host.act()
    assert not host.drained("n02")

    # Another's drain is gone, ours takes its place, and goes when two looks have found the cable where it belongs.
    whole.run(["scontrol", "update", "NodeName=n04", "State=RESUME"])
    host.look()
    assert "drain n04" in host.act() and host.node("n04").reason.startswith("[HC] fabric.rail")
    whole.fault("ib-renew")
    host.look()
    host.act()
    host.act()
    assert host.drained("n04"), "one look, however often it is acted upon, is one"
    host.look()
    assert "resume n04" in host.act() and not host.drained("n04")
    assert "Comment=[HC]" not in whole.run(["scontrol", "show", "node", "n05"]).stdout
