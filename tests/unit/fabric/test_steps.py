"""Which slurmd has another topology than slurmctld."""

from trainmaster.fabric.steps import stale

TOPOLOGY = """SwitchName=top Level=1 LinkSpeed=1 Nodes=n[1-4] Switches=a,b
SwitchName=a Level=0 LinkSpeed=1 Nodes=n[1-2]
SwitchName=b Level=0 LinkSpeed=1 Nodes=n[3-4]
"""


def test_what_slurmctld_has_is_not_stale() -> None:
    assert stale(TOPOLOGY, {"n1": "top.a.n1", "n4": "top.b.n4"}) == ()
    assert stale("", {"n1": "n1"}) == (), "without switches the address is the node alone"


def test_other_switches_and_none_are() -> None:
    found = stale(TOPOLOGY, {"n1": "top.b.n1", "n2": "n2", "n3": "top.b.n3"})
    assert [(one.node, one.told, one.has) for one in found] == [("n1", "top.b", "top.a"), ("n2", "", "top.a")]
    assert str(found[1]) == "n2: its steps are told no switch, and slurmctld has top.a"


def test_a_node_of_no_switch_has_none() -> None:
    assert stale(TOPOLOGY, {"n9": "n9"}) == ()
    assert stale(TOPOLOGY, {"n9": "top.a.n9"})[0].has == ""
