"""From cables to ranks: what is discovered becomes Slurm's topology, ranks follow it, and a cut cable is avoided."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real_lab import small, until

from trainmaster.fabric.topology_conf import fold
from trainmaster.lab import ib
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.lie import lie_of, words_of
from trainmaster.launcher.placement import Placement
from trainmaster.launcher.submit.executor import submit

pytestmark = pytest.mark.cluster

SAY = (
    "import os, pathlib; d = pathlib.Path(os.environ['TRAINMASTER_RUN_DIR']);"
    "(d / ('said' + os.environ['RANK'])).write_text(os.environ['SLURMD_NODENAME'])"
)
# Shape, nodes of the mesh job, its stages, and which nodes others use: it shall not fit under one leaf.
SHAPES = [
    pytest.param(("rail:2x5,rails=4", 8, 2, ""), id="10-nodes"),
    pytest.param(("rail:4x32", 16, 4, "n[001-022,033-054,065-128]"), id="128-nodes", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=SHAPES)
def built(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, int, int]]:
    """A lab whose Slurm knows nothing of the fabric yet; nodes of the mesh job; its stages."""
    shape, wanted, stages, busy = request.param
    with up(LabSpec(fabric=shape, gpus=0)) as lab, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(lab.conf))
        (lab.folder / "topology.conf").write_text(f"SwitchName=unknown Nodes={fold(lab.node_names)}\n")
        lab.run(["scontrol", "reconfigure"])
        until(lambda: "unknown" in lab.run(["scontrol", "show", "topology"]).stdout, "nothing is known")
        lab.wait_idle()
        if busy:
            others = ["--exclusive", f"--nodelist={busy}", "--job-name=others", "--output=/dev/null"]
            lab.run(["sbatch", *others], input_text="#!/bin/sh\nsleep 3600\n")
            until(lambda: "RUNNING" in lab.run(["squeue", "--noheader", "--format=%T"]).stdout, "the others run")
        yield lab, wanted, stages


def fabric(lab: Lab, *argv: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster", "fabric", *argv],
        env={**lab.env, "TRAINMASTER_CONFIG": os.environ["TRAINMASTER_CONFIG"]},
        input=stdin, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def look(lab: Lab, folder: Path) -> list[str]:
    """What the tools of InfiniBand say now, as options of `fabric`."""
    (folder / "now.txt").write_text(ib.run_tool(lab, ["ibnetdiscover"]).stdout)
    (folder / "errors.txt").write_text(ib.run_tool(lab, ["ibqueryerrors"]).stdout)
    return ["--from", str(folder / "now.txt"), "--counters", str(folder / "errors.txt"), "--slurm"]


def run_mesh_job(lab: Lab, folder: Path, wanted: int, mesh: dict[str, int]) -> tuple[list[str], Path]:
    """The nodes of all ranks, as they say themselves, and the run folder."""
    until(
        lambda: set(lab.run(["squeue", "--noheader", "--format=%j"]).stdout.split()) <= {"others"},
        "no job of ours is left",
    )
    job = submit([sys.executable, "-c", SAY], spec=small(nodes=wanted, placement=Placement(mesh=mesh)), folder=folder)
    job.wait()
    files = {rank: next(iter(job.run_dir.rglob(f"said{rank}")), None) for rank in range(wanted)}
    return [path.read_text() for _, path in sorted(files.items()) if path is not None], job.run_dir


def test_cables_to_ranks_and_round_a_cut_cable(
    built: tuple[Lab, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, wanted, stages = built
    (tmp_path / "config.toml").write_text(f'link_health = "{tmp_path}/links.json"\n')
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(tmp_path / "config.toml"))
    mesh = {"pp": stages, "dp": wanted // stages}
    source = look(lab, tmp_path)
    found = json.loads(fabric(lab, "discover", *source, "--json"))
    assert found["nodes"] == len(lab.node_names) and not found["findings"]
    topology = lab.folder / "topology.conf"
    fabric(lab, "emit", "tree", *source, "--output", str(topology))
    assert fabric(lab, "lint", str(topology), "--slurm") == "nothing to mend\n"
    lab.run(["scontrol", "reconfigure"])
    assert fabric(lab, "diff", *source) == "nothing changes\n"
    assert "0 nodes" in fabric(lab, "health", *source, "--publish")

    ranks, run_dir = run_mesh_job(lab, tmp_path, wanted, mesh)
    predicted = fabric(
        lab, "order", ",".join(ranks), "--from", str(topology), "--mesh", f"pp={stages},dp={wanted // stages}"
    )
    assert ranks == predicted.split(), "from inside the job"
    assert ranks != sorted(ranks), "or the order would say nothing"
    assert not lie_of(run_dir)["steering"].get("avoided")

    # The first rank's node has served once; with its cable cut it is the one to leave out.
    victim = ranks[0]
    lab.fault("ib-cut", f"{victim}:1")
    said = fabric(lab, "health", *look(lab, tmp_path), "--publish")
    assert f"{victim}: score" in said and "mlx5_1" in said
    again, run_dir = run_mesh_job(lab, tmp_path, wanted, mesh)
    assert len(again) == wanted and victim not in again
    assert any(f"left out for their links: {victim}" in line for line in words_of(lie_of(run_dir)))
    # By hand the same, and what is old is not used.
    place = ["place", "--from", str(topology), "--count", str(wanted), "--links", "--json"]
    assert victim not in json.loads(fabric(lab, *place))["nodes"]
    pictures = [tmp_path / "whole.svg", tmp_path / "cut.svg"]
    for picture, more in zip(pictures, ([], ["--links"]), strict=True):
        fabric(lab, "draw", "--from", str(topology), *more, "--output", str(picture))
    assert pictures[0].read_text() != pictures[1].read_text()

    lab.fault("ib-mend", f"{victim}:1")
    assert f"{victim}: sound again" in fabric(lab, "health", *look(lab, tmp_path), "--publish")
