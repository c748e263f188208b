"""Stop and check on a real cluster: pairs that meet over real Slurm steps find the node that is throttled."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import real_lab
from trainmaster import Role, submit_roles
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.launcher import record
from trainmaster.launcher.submit.executor import submit
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.supervise import suspects

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).parents[1] / "programs" / "collective.py"
SHARE = 0.03
"""Of a CPU; on two of them four nodes have half of one each, and less beside other work."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # Only the backfill scheduler starts heterogeneous jobs, by default every 30 s.
    with up(LabSpec(nodes=4, settings={"SchedulerParameters": "bf_interval=1"})) as made:
        yield made


@pytest.mark.slow
def test_after_a_hang_the_throttled_node_is_found_and_left_out(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    spec = JobSpec(
        nodes=3, spares=1, time=10, hang_timeout_s=4.0, stop_grace_s=0.5, diagnose="on_suspicion", stragglers="off"
    )
    job = submit([sys.executable, str(PROGRAM), "40", "--stuck-at", "8"], spec=spec, folder=tmp_path / "jobs")
    events = lambda: record.read(job.run_dir)  # noqa: E731
    real_lab.until(lambda: any(event.state == "PROGRESS" for event in events()), "the run flows", timeout_s=120)
    first = next(event for event in events() if event.state == "RUNNING")
    # Not the node of the rank that hangs: the stacks blame that one, and only a look at all of them finds this one.
    bad = first.nodes[2]
    lab.fault("node-slow", bad, share=SHARE)
    try:
        real_lab.until(lambda: any(event.state == "DIAGNOSED" for event in events()), "it was checked", timeout_s=200)
        found = next(event for event in events() if event.state == "DIAGNOSED")
        assert [one["nodes"] for one in found.detail["guilty"]] == [[bad]], found.detail
        assert found.detail["left_out"] == [bad] and found.detail["means"] == "torch gloo"
        kept = json.loads((job.run_dir / "diagnosis-0.0.json").read_text())
        assert kept["left_out"] == [bad] and set(kept["told"]) == set(lab.node_names) and kept["rounds"] == 3
        assert job.exception() is None
    finally:
        lab.fault("node-fast", bad)
    again = [event for event in events() if event.state == "RUNNING"][-1]
    assert set(again.nodes) == set(lab.node_names) - {bad}
    lines = [json.loads(line) for line in (job.run_dir / suspects.FILE).read_text().splitlines()]
    assert [line["symptom"] for line in lines] == ["hang", "diagnosis"]
    argv = [sys.executable, "-m", "trainmaster", "jobs", "show", "--folder", str(tmp_path / "jobs"), str(job.job_id)]
    said = subprocess.run(argv, env=lab.env, capture_output=True, text=True, check=True).stdout
    assert f"left out: {bad}" in said
    assert [row.split()[0] for row in said.splitlines() if row.startswith("0.")] == ["0.0", "0.1"]


@pytest.mark.slow
def test_the_nodes_of_a_role_are_checked_while_the_others_go_on(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    own = JobSpec(nodes=2, time=10, hang_timeout_s=4.0, stop_grace_s=0.5, diagnose="on_suspicion", stragglers="off")
    roles = {
        "server": Role(target=["/bin/sleep", "600"], service=True, spec=JobSpec(time=10)),
        "trainer": Role(target=[sys.executable, str(PROGRAM), "40", "--stuck-at", "8"], spec=own),
    }
    job = submit_roles(roles, folder=tmp_path / "jobs")
    assert job.exception() is None
    (found,) = [event for event in job.events() if event.state == "DIAGNOSED"]
    assert found.role == "trainer" and found.detail["means"] == "torch gloo", found.detail
    (running, *_) = [event for event in job.events() if event.state == "RUNNING" and event.role == "trainer"]
    told = json.loads((job.run_dir / "trainer" / "diagnosis-0.0.json").read_text())
    assert set(told["told"]) == set(running.nodes), "the server's node is not disturbed"
    again = [(event.role, event.cause) for event in job.events() if event.state == "RESTARTING"]
    assert again == [("trainer", "hang")]


def by_hand(lab: Lab, folder: Path, means: str) -> tuple[int, dict[str, Any]]:
    """`jobs diagnose` of all nodes in an allocation: its exit code, and what it found."""
    line = f"{sys.executable} -m trainmaster jobs diagnose --json --means {means} --limit-s 90 --folder {folder}"
    argv = ["salloc", f"--nodes={len(lab.node_names)}", "--time=5", "--quiet", *line.split()]
    done = subprocess.run(argv, env=lab.env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode in (0, 2), done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert set(found["told"]) == set(lab.node_names), found
    assert all(len(told["pairs"]) == 3 and all(told["pairs"].values()) for told in found["told"].values()), found
    assert list(folder.iterdir()) == [], "nothing is left behind"
    return done.returncode, found


def test_by_hand_in_an_allocation_every_node_meets_every_other(lab: Lab, tmp_path: Path) -> None:
    code, found = by_hand(lab, tmp_path, "mpi")
    assert code == (2 if found["guilty"] or found["guilty_pairs"] else 0), "who is fast depends on the machine's day"


@pytest.mark.slow
@pytest.mark.parametrize("means", ["torch", "mpi"])
def test_by_hand_in_an_allocation_the_throttled_node_is_found(lab: Lab, tmp_path: Path, means: str) -> None:
    bad = "n03"
    lab.fault("node-slow", bad, share=SHARE)
    try:
        code, found = by_hand(lab, tmp_path, means)
    finally:
        lab.fault("node-fast", bad)
    assert code == 2 and [one["nodes"] for one in found["guilty"]] == [[bad]], found
    assert found["guilty_pairs"] == [], found
