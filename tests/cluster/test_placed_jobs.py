"""Jobs that are kept to pods and whose ranks lie in the fabric as predicted, seen from inside."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.real_lab import small, states, until, wait_for

from trainmaster.fabric.crossings import Place
from trainmaster.fabric.link_health import BadNode, LinkHealth, encode
from trainmaster.fabric.mesh import axes_of, between_nodes
from trainmaster.fabric.order import arrange
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher.follow.lie import lie_of, words_of
from trainmaster.launcher.placement import Placement
from trainmaster.launcher.record import Event
from trainmaster.launcher.roles.role import Role, submit_roles
from trainmaster.launcher.submit.executor import map_array, submit
from trainmaster.launcher.submit.spec import JobSpec

pytestmark = pytest.mark.cluster

# Names say nothing of the fabric: neighbours by name hang under different leaves. Pods a and b, and a small one, c.
LEAVES = {
    "a1": ("n01", "n04"),
    "a2": ("n07", "n10"),
    "b1": ("n02", "n05"),
    "b2": ("n08", "n11"),
    "c1": ("n03", "n06"),
    "c2": ("n09",),
}
# Only the backfill scheduler starts heterogeneous jobs.
SETTINGS = {"SchedulerParameters": "bf_interval=1"}
SAY = (
    "import os, pathlib; d = pathlib.Path(os.environ['TRAINMASTER_RUN_DIR']);"
    "(d / ('said' + os.environ['RANK'])).write_text(os.environ['SLURMD_NODENAME'])"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with up(LabSpec(nodes=11, leaf=4, gpus=0, settings=SETTINGS)) as lab, pytest.MonkeyPatch.context() as patch:
        lines = [f"SwitchName={leaf} Nodes={','.join(nodes)}" for leaf, nodes in LEAVES.items()]
        for pod in "abc":
            below = ",".join(leaf for leaf in LEAVES if leaf.startswith(pod))
            lines.append(f"SwitchName=pod{pod} Switches={below}")
        lines.append("SwitchName=top Switches=poda,podb,podc")
        (lab.folder / "topology.conf").write_text("\n".join(lines) + "\n")
        lab.stop_process("slurmctld")
        lab.start_slurmctld()
        # What a step finds in SLURM_TOPOLOGY_ADDR is what its slurmd has read.
        for node in lab.node_names:
            lab.stop_process("slurmd", node)
            lab.start_slurmd(node)
        lab.wait_idle()
        patch.setenv("SLURM_CONF", str(lab.conf))
        yield lab


def pod_of(node: str) -> str:
    return next(leaf for leaf, nodes in LEAVES.items() if node in nodes)[0]


def place_of(node: str) -> Place:
    return Place(pod_of(node), next(leaf for leaf, nodes in LEAVES.items() if node in nodes))


def said(run_dir: Path, ranks: int) -> list[str]:
    found = [next(iter(run_dir.rglob(f"said{rank}")), None) for rank in range(ranks)]
    assert None not in found
    return [path.read_text() for path in found if path is not None]


def started_with_a_spare(folder: Path, spec: JobSpec) -> tuple[Event, list[str]]:
    """A job with a spare that all came in time; its RUNNING event, and the node of each rank.

    Ranks do not wait for a spare that comes late: on a busy machine the ninth agent may come after the start, and
    whoever was there, the worst placed among them, has got ranks.
    """
    for number in range(5):
        job = submit([sys.executable, "-c", SAY], spec=spec, folder=folder / str(number))
        job.wait()
        event = next(event for event in job.events() if event.state == "RUNNING")
        if event.spares:
            return event, said(job.run_dir, spec.nodes)
    raise AssertionError("in five jobs one of the agents came late")


def test_ranks_follow_the_mesh_and_the_worst_node_is_the_spare(lab: Lab, tmp_path: Path) -> None:
    mesh = {"pp": 2, "dp": 4}
    spec = small(nodes=8, spares=1, exclude="n06,n09", placement=Placement(mesh=mesh))
    event, ranks = started_with_a_spare(tmp_path, spec)
    assert tuple(ranks) == event.nodes
    in_order = sorted(ranks, key=lambda node: (place_of(node), int(node[1:])))
    axes = between_nodes(axes_of(mesh), 1)
    expected = [in_order[at] for at in arrange([place_of(node) for node in in_order], axes).order]
    assert ranks == expected
    # Whoever pipelines is numbered first, but data parallel groups are what stays in a pod: two of four nodes each.
    for stage in range(2):
        assert len({pod_of(node) for node in ranks[stage::2]}) == 1
    assert pod_of(event.spares[0]) not in {pod_of(node) for node in ranks}
    assert event.detail["placement"]["axes"]["dp"][0] == 0


def test_a_node_with_bad_links_waits_as_a_spare(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text(f'link_health = "{tmp_path}/links.json"\n')
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(tmp_path / "config.toml"))
    bad = {"n04": BadNode(score=0.5), "n05": BadNode(score=0.9)}
    found = LinkHealth(taken_at_s=time.time(), good_for_s=3600.0, known="n[01-11]", nodes=bad)
    (tmp_path / "links.json").write_text(encode(found))
    # By where they lie n07 would wait: it is alone under its leaf.
    spec = small(nodes=3, spares=1, exclude="n03,n06,n08,n09,n10,n11,n02")
    event, ranks = started_with_a_spare(tmp_path, spec)
    assert event.spares == ("n04",) and sorted(ranks) == ["n01", "n05", "n07"]
    assert event.detail["bad_links"] == {"n04": 0.5, "n05": 0.9}


def test_a_job_is_kept_to_the_pod_that_fits_best(lab: Lab, tmp_path: Path) -> None:
    until(lambda: not lab.run(["squeue", "--noheader"]).stdout, "the cluster is empty")
    # By its own rule Slurm may take any pod; the smallest that holds three nodes is c.
    job = submit([sys.executable, "-c", SAY], spec=small(nodes=3, placement=Placement()), folder=tmp_path)
    job.wait()
    assert {pod_of(node) for node in said(job.run_dir, 3)} == {"c"}
    lie = lie_of(job.run_dir)
    assert lie["steering"]["pods"] == ["podc"] and lie["score"]["pods"] == 1
    assert any("podc" in line for line in words_of(lie))
    shown = lab.run(["scontrol", "show", "job", str(job.job_id)]).stdout
    assert "ExcNodeList=n[01-02,04-05,07-08,10-11]" in shown


def test_no_pod_is_worth_a_wait_that_nobody_wanted(lab: Lab, tmp_path: Path) -> None:
    until(lambda: not lab.run(["squeue", "--noheader"]).stdout, "the cluster is empty")
    script = "#!/bin/sh\nsleep 600\n"
    blocker = lab.run(
        ["sbatch", "--parsable", "--exclusive", "--nodelist=n01,n02,n03", "--time=10", "--output=/dev/null"],
        input_text=script,
    ).stdout.strip()
    until(lambda: lab.run(["squeue", "--noheader", "--format=%T"]).stdout.strip() == "RUNNING", "the blocker runs")
    job = submit(
        [sys.executable, "-c", SAY],
        spec=small(nodes=4, exclusive=True, placement=Placement(pods_max=1)),
        folder=tmp_path,
    )
    job.wait()
    assert "later" in lie_of(job.run_dir)["steering"]["not_steered"]
    assert len(said(job.run_dir, 4)) == 4
    lab.run(["scancel", blocker])


def test_a_requeue_forgets_the_pods(lab: Lab, tmp_path: Path) -> None:
    # It did not, unless the person excluded nodes too: what was excluded for the place stayed in Slurm.
    until(lambda: not lab.run(["squeue", "--noheader"]).stdout, "the cluster is empty")
    again = "import os, sys; sys.exit(75 if os.environ['SLURM_RESTART_COUNT'] == '0' else 0)"
    job = submit(
        [sys.executable, "-c", f"import os; os.environ.setdefault('SLURM_RESTART_COUNT', '0'); {again}"],
        spec=small(nodes=3, placement=Placement()),
        folder=tmp_path,
    )
    assert job.job_id is not None
    wait_for(job, "REQUEUED")
    job.wait()
    assert states(job)[-1] == "SUCCEEDED"
    shown = lab.run(["scontrol", "show", "job", str(job.job_id)]).stdout
    assert "ExcNodeList=(null)" in shown, shown
    assert lie_of(job.run_dir)["steering"]["pods"] == ["podc"]


def test_roles_are_kept_to_a_pod_together(lab: Lab, tmp_path: Path) -> None:
    until(lambda: not lab.run(["squeue", "--noheader"]).stdout, "the cluster is empty")
    say = [sys.executable, "-c", SAY.replace("'said' + os.environ['RANK']", "'said0'")]
    spec = small(nodes=2, placement=Placement())
    job = submit_roles({"one": Role(target=say, spec=spec), "two": Role(target=say, spec=spec)}, folder=tmp_path)
    assert job.exception() is None
    # Each alone would have gone to the smallest pod, c.
    shown = lab.run(["scontrol", "show", "job", str(job.job_id)]).stdout
    assert shown.count("ExcNodeList=n[") == 2
    told = lie_of(job.run_dir)["steering"]["roles"]
    pods = {pod_of(node) for event in job.events() if event.state == "RUNNING" for node in event.nodes}
    assert told["one"]["pods"] == told["two"]["pods"] == [f"pod{pod}" for pod in pods]


def test_tasks_of_an_array_are_limited_to_leaves_and_ordered(lab: Lab, tmp_path: Path) -> None:
    until(lambda: not lab.run(["squeue", "--noheader"]).stdout, "the cluster is empty")
    spec = small(nodes=2, placement=Placement(leaves_max=1, wait_s=60))
    jobs = map_array(where_am_i, range(2), spec=spec, folder=tmp_path)
    for job in jobs:
        nodes = [str(node) for node in job.results()]
        assert len({place_of(node) for node in nodes}) == 1, nodes
        lie = lie_of(job.run_dir)
        assert "score" in lie and any(line.startswith("--switches=1") for line in words_of(lie))


def where_am_i(_: int) -> str:
    import os

    return os.environ["SLURMD_NODENAME"]
