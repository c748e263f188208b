"""A real slurmctld takes every emitted tree, ends at what lint calls fatal, and runs with what was discovered."""

import json
import re
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from tests.real_lab import until

from trainmaster.errors import LabError
from trainmaster.fabric.emit import tree_conf
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.lint import lint
from trainmaster.fabric.merge import collapse
from trainmaster.fabric.model import Links
from trainmaster.fabric.netlist import netlist
from trainmaster.lab import ib
from trainmaster.lab.cluster import LabSpec, up
from trainmaster.slurm.commands import Commands

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab():
    with up(LabSpec(fabric="pods:2x2x2,rails=2", gpus=0)) as running:
        yield running


def run_with(lab, text):
    """Start slurmctld with a topology; what it says of it, or None if it ends."""
    log = lab.folder / "log" / "slurmctld.log"
    lab.stop_process("slurmctld")
    (lab.folder / "topology.conf").write_text(text)
    before = log.stat().st_size
    try:
        lab.start_slurmctld()
    except LabError:
        return None
    said = log.read_text()[before:]
    return [line for line in said.splitlines() if re.search(r"switch|topology: warn|hostnames in", line, re.IGNORECASE)]


def command(lab, *argv, stdin=""):
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster", "fabric", *argv],
        env=lab.env, input=stdin, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "shape", ["fat:2x4", "fat:8x1", "rail:2x4,rails=4", "rail:1x8,rails=2", "pods:2x2x2,rails=2", "pods:4x2x1,rails=2",
              "planes:2x4x2,rails=2"]
)  # fmt: skip
def test_slurmctld_takes_what_is_emitted_without_a_word(lab, shape):
    tree = collapse(generate(parse_shape(shape), names=lab.node_names))
    assert run_with(lab, tree_conf(tree, slurm_nodes=lab.node_names)) == []
    lab.wait_idle()
    lab.run(["srun", "--nodes=8", "true"])


def test_it_takes_nodes_that_the_fabric_lacks_below_a_root_of_their_own(lab):
    tree = collapse(generate(parse_shape("pods:1x3x2,rails=2"), names=lab.node_names[:6]))
    said = run_with(lab, tree_conf(tree, slurm_nodes=lab.node_names))
    assert all("no switch can reach all nodes" in line for line in said)
    lab.wait_idle()
    lab.run(["srun", "--nodes=6", "--exclude=n[07-08]", "true"])
    lab.run(["srun", "--nodes=2", "--nodelist=n[07-08]", "true"])


def uneven(names):
    """Two pods below cores, and the leaf switches of the second hang on the cores directly: its spines are gone."""
    whole = generate(parse_shape("pods:2x2x2,rails=2"), names=names)
    number = {switch.name: place for place, switch in enumerate(whole.switches)}
    gone = [place for name, place in number.items() if name.startswith("pod02-spine")]
    leaves = [number[f"su{unit:03}-rail{rail}"] for unit in (3, 4) for rail in (0, 1)]
    cores = [place for name, place in number.items() if name.startswith("core")]
    ends = [(leaf, core) for leaf in leaves for core in cores]
    more = Links.of([a for a, _ in ends], [40 + at for at in range(len(ends))], [b for _, b in ends],
                    [80 + at for at in range(len(ends))], lane_gbps=100.0)  # fmt: skip
    links = without(whole.links, gone).joined(more)
    return replace(whole, links=links)


def cut(names):
    """Two pods without a core between them."""
    whole = generate(parse_shape("pods:2x2x2,rails=2"), names=names)
    cores = [place for place, switch in enumerate(whole.switches) if switch.name.startswith("core")]
    return replace(whole, links=without(whole.links, cores))


def with_hosts_on_a_spine(names):
    """The last two nodes hang on a spine, the others on leaf switches."""
    whole = generate(parse_shape("rail:2x4,rails=1"), names=names)
    count = len(whole.switches)
    spine = next(place for place, switch in enumerate(whole.switches) if switch.name.startswith("spine"))
    moved = [count + place for place, hca in enumerate(whole.hcas) if hca.host in names[-2:]]
    more = Links.of(
        moved, [1] * len(moved), [spine] * len(moved), [50 + at for at in range(len(moved))], lane_gbps=100.0
    )
    return replace(whole, links=without(whole.links, moved).joined(more))


def without(links, ends):
    kept = ~(np.isin(links.a, ends) | np.isin(links.b, ends))
    return replace(links, **{one.name: getattr(links, one.name)[kept] for one in fields(links)})


@pytest.mark.parametrize(
    ("build", "codes", "islands"),
    [(uneven, set(), 1), (with_hosts_on_a_spine, set(), 1), (cut, {"many-roots"}, 2)],
)
def test_it_takes_what_was_discovered_of_a_fabric_of_unequal_depth_or_cut_in_two(lab, tmp_path, build, codes, islands):
    found = tmp_path / "fabric.txt"
    found.write_text(netlist(build(lab.node_names)))
    # As it comes from the tool, through the command.
    text = command(lab, "emit", "tree", "--from", str(found), "--nodes", ",".join(lab.node_names))
    assert {one.code for one in lint(text, slurm_nodes=lab.node_names)} == codes, text
    said = run_with(lab, text)
    assert said is not None and all("no switch can reach all nodes" in line for line in said)
    assert bool(said) == (islands > 1)
    lab.wait_idle()
    if islands == 1:
        lab.run(["srun", "--nodes=8", "true"])
    else:
        lab.run(["srun", "--nodes=4", "--nodelist=n[01-04]", "true"])
        lab.run(["srun", "--nodes=4", "--nodelist=n[05-08]", "true"])


FATAL = {
    "duplicate-name": "SwitchName=a Nodes=n[01-04]\nSwitchName=a Nodes=n[05-08]\n",
    "unknown-child": "SwitchName=a Nodes=n[01-08]\nSwitchName=r Switches=a,b\n",
    "both": "SwitchName=a Nodes=n[01-04]\nSwitchName=r Switches=a Nodes=n[05-08]\n",
    "empty-switch": "SwitchName=a Nodes=n[01-08]\nSwitchName=b\nSwitchName=r Switches=a,b\n",
    "cycle": "SwitchName=a Nodes=n[01-08]\nSwitchName=r Switches=a,s\nSwitchName=s Switches=r\n",
    "unreadable": "SwitchName=a Nodes=n[01-08] Colour=red\n",
}


@pytest.mark.parametrize("code", FATAL)
def test_slurmctld_ends_at_what_lint_calls_an_error(lab, code):
    assert code in {one.code for one in lint(FATAL[code])}
    assert run_with(lab, FATAL[code]) is None


def test_from_cables_to_a_running_topology_and_a_pulled_cable(lab, tmp_path):
    # Whatever ran before this, slurmctld answers.
    assert run_with(lab, "SwitchName=only Nodes=n[01-08]\n") == []
    found = tmp_path / "fabric.txt"
    found.write_text(ib.run_tool(lab, ["ibnetdiscover"]).stdout)
    target = lab.folder / "topology.conf"
    command(lab, "emit", "tree", "--from", str(found), "--slurm", "--output", str(target))
    assert lint(target.read_text(), slurm_nodes=lab.node_names) == ()
    assert run_with(lab, target.read_text()) == []
    lab.wait_idle()
    assert command(lab, "diff", "--from", str(found), "--slurm") == "nothing changes\n"
    # A job that fits into a pod gets one.
    lab.run(["srun", "--nodes=4", "--switches=2", "true"])
    lab.fault("ib-cut", "n03:1")
    lab.fault("ib-symbol-errors", "n06:0")
    now = ib.run_tool(lab, ["ibnetdiscover"]).stdout
    counters = tmp_path / "counters"
    counters.write_text(ib.run_tool(lab, ["ibqueryerrors"]).stdout)
    seen = json.loads(command(lab, "health", "--from", "-", "--counters", str(counters), "--json", stdin=now))
    assert seen["nodes"]["n03"] == 0.5
    assert 0.5 < seen["nodes"]["n06"] < 0.6
    assert [link["host"] for link in seen["links"] if link["host"]] == ["n06"]
    # A dead rail moves nobody.
    assert command(lab, "diff", "--from", "-", "--slurm", stdin=now) == "nothing changes\n"
    odd = json.loads(command(lab, "discover", "--from", "-", "--slurm", "--json", stdin=now))
    assert [one["code"] for one in odd["findings"]] == ["missing-rail"]


def test_topology_is_what_slurmctld_runs_with(lab):
    run_with(lab, "SwitchName=only Nodes=n[01-08]\n")
    assert "SwitchName=only" in Commands(env=lab.env).topology()


def test_slurmd_that_kept_the_old_topology_are_told_and_a_reconfigure_mends_it(lab):
    run_with(lab, "SwitchName=only Nodes=n[01-08]\n")
    lab.wait_idle()
    lab.run(["scontrol", "reconfigure"])
    until(lambda: "told what slurmctld has" in steps(lab)[1], "all have the one switch")
    # slurmctld alone is started anew.
    run_with(lab, "SwitchName=top Switches=a,b\nSwitchName=a Nodes=n[01-04]\nSwitchName=b Nodes=n[05-08]\n")
    lab.wait_idle()
    code, said = steps(lab)
    assert code == 1 and "n01: its steps are told only, and slurmctld has top.a" in said
    lab.run(["scontrol", "reconfigure"])
    until(lambda: steps(lab) == (0, "the steps of all 8 idle nodes are told what slurmctld has\n"), "all have the new")


def steps(lab):
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster", "fabric", "diff", "--steps"],
        env=lab.env, capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    return done.returncode, done.stdout
