"""What is emitted, loaded by slurmctld of Debian 13 and of Debian unstable: tree, block and topology.yaml.

Slow, since a root with each is made first by debootstrap: a minute each and 500 MB. $TRAINMASTER_SLURM_ROOTS names a
folder in which they are kept.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import newer_slurm
from tests.newer_slurm import Answer, ask

from trainmaster.fabric.emit import block_conf, topology_yaml, tree_conf
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.lint import Severity, lint
from trainmaster.fabric.merge import collapse
from trainmaster.fabric.topology_conf import fold

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NAMES = tuple(f"n{number:02}" for number in range(1, 17))
SHAPES = ["pods:2x2x4,rails=2", "fat:2x8", "rail:4x4,rails=4", "fat:3x5"]


@pytest.fixture(scope="module", params=["trixie", "sid"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from newer_slurm.root_of(request.param, tmp_path_factory)


def started(root: Path, plugin: str, files: dict[str, str], *commands: str) -> Answer:
    settings = f"TopologyPlugin=topology/{plugin}\n" if plugin else ""
    return ask(root, nodes=fold(NAMES), settings=settings, files=files, commands=commands)


@pytest.mark.parametrize("shape", SHAPES)
def test_tree(root: Path, shape: str) -> None:
    text = tree_conf(collapse(generate(parse_shape(shape))), slurm_nodes=NAMES)
    said = started(root, "tree", {"topology.conf": text}, "scontrol show topology")
    assert said.runs and all("no switch can reach all nodes" in line for line in said.complaints), said.log
    for line in text.splitlines()[1:]:
        name = line.split()[0]
        assert f"{name} " in said.outputs[0]


@pytest.mark.parametrize("base", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_block(root: Path, shape: str, base: int) -> None:
    text = block_conf(collapse(generate(parse_shape(shape))), slurm_nodes=NAMES, base=base)
    size = int(text.split("BlockSizes=")[1].split(",")[0])
    said = started(
        root,
        "block",
        {"topology.conf": text},
        "scontrol show topology",
        f"sbatch --test-only --nodes={2 * size} --segment={size} --wrap=true",
    )
    assert said.runs and all("lack access to 1 nodes: n16" in line for line in said.complaints), said.log
    for line in text.splitlines()[1:-1]:
        assert line.split()[0] + " " in said.outputs[0]
    assert "to start at" in said.outputs[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_yaml(root: Path, shape: str) -> None:
    if newer_slurm.version(root) < (25, 5):
        pytest.skip("topology.yaml is new in 25.05")
    tree = collapse(generate(parse_shape(shape)))
    text = topology_yaml(tree, slurm_nodes=NAMES, blocks=True)
    commands = ("scontrol show topoconf", "scontrol show topology", "sbatch --test-only --nodes=5 --wrap=true")
    said = started(root, "", {"topology.yaml": text}, *commands)
    assert said.runs and all("no switch can reach" in line or "lack access" in line for line in said.complaints)
    # What it prints of its own is what it was given.
    for line in text.splitlines()[2:]:
        words = line.strip().removeprefix("- ")
        assert words in said.outputs[0], words
    for leaf in tree.leaves:
        assert f"SwitchName={leaf} " in said.outputs[1]
    assert "to start at" in said.outputs[2]


def blocks(*lists: str, sizes: str) -> str:
    return "".join(f"BlockName={name} Nodes={nodes}\n" for name, nodes in zip("abc", lists, strict=False)) + (
        f"BlockSizes={sizes}\n"
    )


FATAL = {
    "block-sizes": blocks("n[01-05]", "n[06-10]", "n[11-15]", sizes="5,15"),
    "duplicate-name": blocks("n[01-05]", sizes="5") + "BlockName=a Nodes=n[06-10]\n",
    "small-block": blocks("n[01-05]", "n[06-08]", sizes="5"),
    "switches-and-blocks": "SwitchName=s Nodes=n[01-05]\n" + blocks("n[06-10]", sizes="5"),
}


@pytest.mark.parametrize("code", FATAL)
def test_slurmctld_ends_at_what_lint_calls_an_error(root: Path, code: str) -> None:
    found = {one.code for one in lint(FATAL[code], slurm_nodes=NAMES) if one.severity is Severity.ERROR}
    assert found == {code}
    newer = newer_slurm.version(root) >= (26, 5)
    # The newer one takes small blocks, and gives them no whole segment.
    assert started(root, "block", {"topology.conf": FATAL[code]}).runs is (newer and code == "small-block")


def test_nodes_of_no_block_are_no_help_to_those_of_blocks(root: Path) -> None:
    text = blocks("n[01-05]", "n[06-10]", sizes="5")
    assert [one.code for one in lint(text, slurm_nodes=NAMES)] == ["missing-node"]
    commands = ("sbatch --test-only --nodes=12 --wrap=true", "sbatch --test-only --nodes=10 --wrap=true")
    said = started(root, "block", {"topology.conf": text}, *commands)
    assert said.runs and "not available" in said.outputs[0] and "to start at" in said.outputs[1]
