"""What a submission does for a job's place in the fabric."""

import json
import time
from pathlib import Path

import pytest
from tests.fakes.slurm import FakeSlurm

from trainmaster.errors import SlurmUnreachable, SpecError
from trainmaster.fabric.link_health import BadNode, LinkHealth, encode
from trainmaster.launcher import placement, plan
from trainmaster.launcher.placement import Placement
from trainmaster.launcher.roles.role import Role, draft_roles
from trainmaster.launcher.submit import steering, submission
from trainmaster.launcher.submit.placement_cli import mesh_of
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.spec_file import decode
from trainmaster.launcher.submit.target import Program
from trainmaster.slurm.values import Estimate, Node, Partition

TOPOLOGY = """SwitchName=a1 Level=0 LinkSpeed=1 Nodes=n[1-4]
SwitchName=b1 Level=0 LinkSpeed=1 Nodes=n[5-6]
SwitchName=pa Level=1 LinkSpeed=1 Nodes=n[1-4] Switches=a1
SwitchName=pb Level=1 LinkSpeed=1 Nodes=n[5-6] Switches=b1
SwitchName=top Level=2 LinkSpeed=1 Nodes=n[1-6] Switches=pa,pb
"""


def cluster(*, busy: tuple[str, ...] = ()) -> FakeSlurm:
    slurm = FakeSlurm(partitions=[Partition(name="gpu", total_nodes=6, default=True)])
    slurm.switches = TOPOLOGY
    slurm.existing_nodes = tuple(
        Node(name=f"n{number}", state="ALLOCATED" if f"n{number}" in busy else "IDLE", partitions=("gpu",))
        for number in range(1, 7)
    )
    return slurm


def drafted(folder: Path, **values: object) -> submission.Draft:
    target = Program(argv=("/bin/true",))
    spec = JobSpec(**values)  # type: ignore[arg-type]
    return submission.draft(target, spec, folder, uid="uid", python="/usr/bin/python3")


def test_a_job_is_kept_to_its_pod_and_the_plan_forgets_it(tmp_path: Path) -> None:
    made = steering.steered(drafted(tmp_path, nodes=2, exclude="n9", placement=Placement()), cluster())
    assert "#SBATCH --exclude=n9,n[1-4]" in made.script
    assert made.plan.exclude == "n9", "a requeue may go anywhere"
    told = json.loads(made.files[placement.FILE])
    assert told["pods"] == ["pb"] and "kept to pb" in steering.lines(told)[0]


def test_without_a_placement_nothing_is_asked(tmp_path: Path) -> None:
    slurm = cluster()
    made = drafted(tmp_path, nodes=2)
    assert steering.steered(made, slurm) is made and not slurm.calls


def test_leaves_are_slurms_own_option(tmp_path: Path) -> None:
    made = steering.steered(
        drafted(tmp_path, nodes=2, placement=Placement(topology="off", leaves_max=1, wait_s=90)), cluster()
    )
    assert "#SBATCH --switches=1@0-00:01:30" in made.script


def test_a_later_start_is_no_place_worth_having(tmp_path: Path) -> None:
    class Later(FakeSlurm):
        def estimate(self, script_text: str) -> Estimate | None:
            return Estimate(start_time=1000.0 if "--exclude" in script_text else 400.0, nodes="", partition="gpu")

    slurm = Later(partitions=cluster().existing)
    slurm.switches, slurm.existing_nodes = TOPOLOGY, cluster().existing_nodes
    made = steering.steered(drafted(tmp_path, nodes=2, placement=Placement()), slurm)
    assert "--exclude" not in made.script and "600 s later" in json.loads(made.files[placement.FILE])["not_steered"]
    patient = steering.steered(drafted(tmp_path, nodes=2, placement=Placement(wait_s=600)), slurm)
    assert "--exclude" in patient.script


@pytest.mark.parametrize("state", ["IDLE+DRAIN", "IDLE*", "DOWN", "IDLE+RESERVED"])
def test_nodes_out_of_service_are_not_idle(tmp_path: Path, state: str) -> None:
    slurm = cluster()
    slurm.existing_nodes = tuple(
        Node(name=node.name, state=state if node.name == "n6" else node.state, partitions=node.partitions)
        for node in slurm.existing_nodes
    )
    made = steering.steered(drafted(tmp_path, nodes=2, placement=Placement()), slurm)
    assert json.loads(made.files[placement.FILE])["pods"] == ["pa"]


def test_a_cluster_without_switches_or_answers_still_gets_the_job(tmp_path: Path) -> None:
    slurm = cluster()
    slurm.switches = ""
    made = steering.steered(drafted(tmp_path, nodes=2, placement=Placement()), slurm)
    assert "no switches" in json.loads(made.files[placement.FILE])["not_steered"]
    slurm = cluster()
    slurm.fail["nodes"] = [SlurmUnreachable("slurmctld did not answer")]
    made = steering.steered(drafted(tmp_path, nodes=2, placement=Placement()), slurm)
    assert "did not answer" in json.loads(made.files[placement.FILE])["not_steered"]


def test_it_travels_in_the_plan(tmp_path: Path) -> None:
    wanted = Placement(mesh={"pp": 2, "dp": 2}, volumes={"pp": 3.0}, pods_max=2)
    made = drafted(tmp_path, nodes=4, placement=wanted)
    (tmp_path / "uid").mkdir()
    plan.write(tmp_path / "uid", made.plan)
    assert plan.read(tmp_path / "uid").placement == wanted


def test_all_faults_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        decode({"nodes": 2, "placement": {"topology": "on", "mesh": {"dp": 3}, "pods_max": 0, "leafs": 1}})
    text = str(caught.value)
    for word in ("'leafs'", "'on'", "pods_max", "dp 3 has 3 ranks"):
        assert word in text


def test_a_mesh_on_the_command_line() -> None:
    assert mesh_of("tp=8, dp=4") == {"tp": 8, "dp": 4}


def bad_links(folder: Path, monkeypatch: pytest.MonkeyPatch, *, age_s: float = 60.0, **scores: float) -> None:
    nodes = {name: BadNode(score=score) for name, score in scores.items()}
    health = LinkHealth(taken_at_s=time.time() - age_s, good_for_s=3600.0, nodes=nodes)
    (folder / "links.json").write_text(encode(health))
    (folder / "config.toml").write_text(f'link_health = "{folder}/links.json"\n')
    monkeypatch.setenv("TRAINMASTER_CONFIG", str(folder / "config.toml"))


def test_nodes_with_bad_links_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_links(tmp_path, monkeypatch, n2=0.875)
    made = steering.steered(drafted(tmp_path, nodes=3, placement=Placement()), cluster())
    assert "#SBATCH --exclude=n[2,5-6]" in made.script
    told = json.loads(made.files[placement.FILE])
    assert steering.lines(told)[:2] == ["kept to pa with --exclude of 2 other nodes", "left out for their links: n2"]
    assert not made.plan.exclude, "a requeue may go anywhere"


def test_bad_links_are_avoided_without_any_topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_links(tmp_path, monkeypatch, n2=0.875)
    slurm = cluster()
    slurm.switches = ""
    made = steering.steered(drafted(tmp_path, nodes=3, placement=Placement()), slurm)
    assert "#SBATCH --exclude=n2\n" in made.script
    assert steering.lines(json.loads(made.files[placement.FILE]))[0] == "left out for their links: n2"


def test_an_old_file_of_bad_links_is_ignored_and_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_links(tmp_path, monkeypatch, age_s=7200.0, n5=0.5)
    made = steering.steered(drafted(tmp_path, nodes=2, placement=Placement()), cluster())
    assert "#SBATCH --exclude=n[1-4]" in made.script
    said = steering.lines(json.loads(made.files[placement.FILE]))
    assert any("2.0 hours ago and good for 1.0, so it is ignored" in line for line in said)


def test_a_requeue_is_told_what_was_left_out_for_the_place(tmp_path: Path) -> None:
    made = steering.steered(drafted(tmp_path, nodes=2, exclude="n9", placement=Placement()), cluster())
    assert placement.left_out(tmp_path) == ""
    (tmp_path / placement.FILE).write_bytes(made.files[placement.FILE])
    assert placement.left_out(tmp_path) == "n[1-4]"
    (tmp_path / placement.FILE).write_text("[1")
    assert placement.left_out(tmp_path) == ""


def test_tasks_of_an_array_get_their_leaves_and_no_pods(tmp_path: Path) -> None:
    def drafted_array(wanted: Placement | None) -> submission.Draft:
        spec = JobSpec(nodes=2, placement=wanted, array_parallelism=2)
        targets = [Program(argv=("/bin/true",))] * 3
        return submission.draft_array(targets, spec, tmp_path, uid="uid", python="/usr/bin/python3")

    slurm = cluster()
    made = steering.steered(drafted_array(Placement(leaves_max=1, wait_s=90)), slurm)
    assert "#SBATCH --switches=1@0-00:01:30" in made.script and "--exclude" not in made.script and not slurm.calls
    said = steering.lines(json.loads(made.files[placement.FILE]))
    assert any("each task" in line for line in said)
    assert placement.FILE not in drafted_array(None).files
    assert placement.FILE not in drafted_array(Placement(topology="off")).files
    with pytest.raises(SpecError, match="pods_max cannot be kept for the tasks of an array"):
        drafted_array(Placement(pods_max=1))


def roles(tmp_path: Path, slurm: FakeSlurm, **specs: JobSpec) -> submission.Draft:
    wanted = {name: Role(target=["/bin/true"], spec=spec) for name, spec in specs.items()}
    return steering.steered(draft_roles(wanted, name="job", folder=tmp_path), slurm)


def test_roles_that_may_have_the_same_nodes_are_kept_to_pods_together(tmp_path: Path) -> None:
    made = roles(
        tmp_path,
        cluster(),
        trainer=JobSpec(nodes=2, exclude="n9", placement=Placement(leaves_max=1)),
        server=JobSpec(nodes=2, placement=Placement()),
        other=JobSpec(nodes=1),
    )
    # Four of them fit into the pod of four, and two would have fitted into the small one.
    assert made.script.count("n[5-6]") == 2 and "#SBATCH --exclude=n9,n[5-6]" in made.script
    assert made.script.count("--switches=1@") == 1
    told = json.loads(made.files[placement.FILE])
    assert told["exclude"] == "n[5-6]" and set(told["roles"]) == {"trainer", "server"}
    assert told["roles"]["server"]["pods"] == ["pa"]
    assert [part.plan.exclude for part in made.parts] == ["n9", "", ""], "a requeue may go anywhere"
    assert any(line.startswith("server: kept to pa") for line in steering.lines(told))


def test_roles_that_do_not_fit_now_are_not_steered(tmp_path: Path) -> None:
    slurm = cluster(busy=("n1", "n5"))
    both = {name: JobSpec(nodes=2, placement=Placement()) for name in ("a", "b")}
    told = json.loads(roles(tmp_path, slurm, **both).files[placement.FILE])
    assert "do not hold a and b" in told["roles"]["a"]["not_steered"] and told["exclude"] == ""
    both = {name: JobSpec(nodes=2, placement=Placement(pods_max=1)) for name in ("a", "b")}
    made = roles(tmp_path, slurm, **both)
    assert "but not now" in json.loads(made.files[placement.FILE])["roles"]["b"]["not_steered"]
    assert "--exclude" not in made.script


def test_roles_without_a_placement_ask_nothing(tmp_path: Path) -> None:
    slurm = cluster()
    made = roles(tmp_path, slurm, a=JobSpec(nodes=1), b=JobSpec(nodes=1))
    assert placement.FILE not in made.files and not slurm.calls


def test_roles_are_submitted_whatever_slurm_does_not_say(tmp_path: Path) -> None:
    slurm = cluster()
    slurm.fail["topology"] = [SlurmUnreachable("slurmctld did not answer")]
    made = roles(tmp_path, slurm, a=JobSpec(nodes=1, placement=Placement()), b=JobSpec(nodes=1))
    assert "did not answer" in json.loads(made.files[placement.FILE])["roles"]["a"]["not_steered"]
