"""Topology files: what is emitted, what lint finds, what differs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.errors import FabricError
from trainmaster.fabric.diff import diff
from trainmaster.fabric.emit import block_conf, topology_yaml, tree_conf
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.lint import Severity, lint
from trainmaster.fabric.merge import collapse
from trainmaster.fabric.model import Fabric
from trainmaster.fabric.topology_conf import fold, read_config, tree_of, unfold

GOOD = "SwitchName=r Switches=a,b\nSwitchName=a Nodes=n[1-3]\nSwitchName=b Nodes=n[4-6]\n"


def codes(text, **options):
    return {one.code for one in lint(text, **options)}


@pytest.mark.parametrize(
    ("text", "code", "severity"),
    [
        ("SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n", "duplicate-name", "error"),
        (GOOD.replace("a,b", "a,b,c"), "unknown-child", "error"),
        (GOOD.replace("Switches=a,b", "Switches=a,b Nodes=n7"), "both", "error"),
        (GOOD + "SwitchName=c\n", "empty-switch", "error"),
        (GOOD.replace("n[4-6]", "n[3-6]"), "node-twice", "error"),
        ("SwitchName=r Switches=r0,r1\nSwitchName=r0 Nodes=n[1-4]\nSwitchName=r1 Nodes=n[1-4]\n", "rails-as-leaves",
         "error"),
        (GOOD + "SwitchName=q Switches=a,b\n", "many-parents", "warning"),
        ("SwitchName=x Switches=y\nSwitchName=y Switches=x\nSwitchName=a Nodes=n1\n", "cycle", "error"),
        ("SwitchName=r Switches=p,c\nSwitchName=p Switches=a\nSwitchName=a Nodes=n1\nSwitchName=c Nodes=n2\n",
         "unequal-depth", "error"),
        ("SwitchName=a Nodes=n1\nSwitchName=b Nodes=n2\n", "many-roots", "warning"),
        (GOOD.replace("=b", "=" + "b" * 70).replace("a,b", "a," + "b" * 70), "long-name", "warning"),
        (GOOD + "hello world\n", "unreadable", "error"),
        (GOOD.replace("Nodes=n[1-3]", "Nodes=n[1-"), "unreadable", "error"),
        (GOOD + "SwitchName=z Nodes=n9 Colour=red\n", "unreadable", "error"),
        ("# nothing\n", "empty", "error"),
        ("SwitchName=[a-b] Nodes=n1\n", "bad-name", "error"),
        ("SwitchName=t Switches=p,q\nSwitchName=p Switches=a,c\nSwitchName=q Switches=b,d\nSwitchName=a Nodes=n1\n"
         "SwitchName=b Nodes=n2\nSwitchName=c Nodes=n3\nSwitchName=d Nodes=n4\n", "pods-mixed", "warning"),
        ("SwitchName=top Switches=s[1-600]\n" + "".join(f"SwitchName=s{n} Nodes=n{n}\n" for n in range(1, 601)),
         "many-switches", "warning"),
        ("BlockName=b1 Nodes=n[1-4]\nBlockSizes=4,12\n", "block-sizes", "error"),
        ("BlockName=b1 Nodes=n[1-3]\nBlockSizes=4\n", "small-block", "error"),
        ("SwitchName=s Nodes=n[1-3]\nBlockName=b1 Nodes=n[4-6]\nBlockSizes=3\n", "switches-and-blocks", "error"),
        ("BlockName=b1 Nodes=n[1-3]\nBlockName=b2 Nodes=n[3-6]\nBlockSizes=2\n", "node-in-two-blocks", "error"),
    ],
)  # fmt: skip
def test_every_trap_is_found_and_explained(text, code, severity):
    found = [one for one in lint(text) if one.code == code]
    assert found, codes(text)
    assert found[0].severity == severity
    assert found[0].what
    assert found[0].why
    assert found[0].mend


def test_a_good_file_has_nothing_to_mend():
    assert lint(GOOD, slurm_nodes=unfold("n[1-6]")) == ()
    assert codes(GOOD, slurm_nodes=unfold("n[1-7]")) == {"missing-node"}
    assert codes(GOOD, slurm_nodes=unfold("n[1-5]")) == {"unknown-node"}


@pytest.mark.parametrize("shape", ["fat:4x8", "rail:3x4", "pods:3x2x4,rails=2", "planes:2x2x3,rails=2", "rail:1x2"])
def test_what_is_emitted_is_clean_and_read_back_the_same(shape):
    tree = collapse(generate(parse_shape(shape)))
    text = tree_conf(tree)
    assert lint(text, slurm_nodes=tree.nodes) == ()
    again = tree_of(read_config(text))
    assert (again.nodes, again.leaves, again.pods) == (tree.nodes, tree.leaves, tree.pods)
    assert tree_conf(again) == text
    assert diff(tree, again) == ()
    blocks = block_conf(tree)
    assert not [one for one in lint(blocks) if one.severity is Severity.ERROR]


def test_the_order_in_which_the_source_tells_changes_nothing():
    fabric = generate(parse_shape("pods:2x3x4,rails=2"))
    text = tree_conf(collapse(fabric))
    order = list(range(len(fabric.switches)))
    random.Random(7).shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    count = len(order)

    def moved(ends):
        return [place[end] if end < count else end for end in ends.tolist()]

    shuffled = Fabric(
        source="x",
        switches=tuple(fabric.switches[old] for old in order),
        hcas=fabric.hcas,
        links=type(fabric.links).of(
            moved(fabric.links.a), fabric.links.a_port, moved(fabric.links.b), fabric.links.b_port
        ),
    )
    assert tree_conf(collapse(shuffled)) == text


def test_nodes_that_only_one_side_knows():
    tree = collapse(generate(parse_shape("pods:2x2x2,rails=2")))
    nodes = [*tree.nodes[:-1], "login1", "cpu9"]
    text = tree_conf(tree, slurm_nodes=nodes)
    assert codes(text, slurm_nodes=nodes) == {"many-roots"}
    assert "login1" in text
    assert tree.nodes[-1] not in {name for entry in read_config(text).entries for name in entry.nodes}
    with pytest.raises(FabricError):
        block_conf(tree, slurm_nodes=["nobody"])


def test_yaml_has_the_tree_and_the_blocks():
    tree = collapse(generate(parse_shape("rail:4x4,rails=2")))
    lines = topology_yaml(tree, blocks=True).splitlines()
    assert lines[1] == "---"
    assert "      - switch: su001" in lines
    assert "        nodes: n[01-04]" in lines
    assert "    block_sizes:" in lines
    assert lines[lines.index("    block_sizes:") + 1 : lines.index("    blocks:")] == [
        f"      - {n}" for n in (4, 8, 16)
    ]


def test_diff_tells_moves_new_nodes_and_names():
    old = tree_of(read_config(GOOD))
    new = tree_of(read_config(GOOD.replace("n[1-3]", "n[1-2],n7").replace("n[4-6]", "n[3,5-6]").replace("r ", "top ")))
    assert [(one.kind, one.names, one.old, one.new) for one in diff(old, new)] == [
        ("pod-renamed", (), "r", "top"),
        ("node-gone", ("n4",), "b", ""),
        ("node-new", ("n7",), "", "a"),
        ("node-moved", ("n3",), "a", "b"),
    ]


@given(st.sets(st.from_regex(r"[a-z]{1,3}[0-9]{1,3}(-[0-9]{1,2})?", fullmatch=True), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_folded_names_unfold_to_themselves(names):
    folded = fold(names)
    assert set(unfold(folded)) == names
    assert all(part.count("[") <= 1 for part in folded.replace("],", "]\n").splitlines())


LINES = st.sampled_from(
    ["SwitchName=a", "SwitchName=b", " Nodes=n[1-3]", " Switches=a,b", " Switches=a", "\n", "BlockName=a",
     "BlockSizes=4,8", "SwitchName=a[", "SwitchName=@x",
     " ", "\\\n", "#", "Nodes=", "=", "n[1-", ",", " Level=1", "SwitchName=" + "x" * 80]
)  # fmt: skip


@given(st.lists(LINES, max_size=20).map("".join) | st.text(max_size=60))
@settings(max_examples=80, deadline=None)
def test_lint_survives_every_text(text):
    for finding in lint(text, slurm_nodes=["n1", "n2"]):
        assert str(finding)
