"""What every adaptor of `SlurmClient` has to do, asked of each on a real cluster with accounts.

Another adaptor is one more line of `ADAPTORS`. Answers are compared with what the daemons did, not with one another's.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from real_lab import until
from trainmaster.errors import SlurmError, SlurmMissing, SlurmUnreachable, SubmitRefused
from trainmaster.lab.cluster import Lab, LabSpec, up
from trainmaster.slurm.client import SlurmClient
from trainmaster.slurm.commands import Commands
from trainmaster.slurm.pyslurm_client import PyslurmClient, open_client
from trainmaster.slurm.values import Job

pytestmark = pytest.mark.cluster

ADAPTORS: Mapping[str, Callable[[Mapping[str, str]], SlurmClient]] = {
    "commands": lambda env: Commands(env=env),
    "pyslurm": lambda env: PyslurmClient(env=env),
}
# A job that is not there; Slurm counts from 1.
_NOBODY = 999_999


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with TemporaryDirectory(prefix="tm-conf-") as name:
        Path(name).chmod(0o755)
        spec = LabSpec(nodes=4, gpus=2, leaf=2, accounting=True, folder=Path(name) / "conformance")
        with up(spec) as lab:
            yield lab


@pytest.fixture(params=sorted(ADAPTORS))
def client(request: pytest.FixtureRequest, lab: Lab) -> SlurmClient:
    if request.param == "pyslurm" and not isinstance((found := open_client("auto", env=lab.env)).client, PyslurmClient):
        pytest.skip(f"not run: {found.why}")
    return ADAPTORS[request.param](lab.env)


def script(lab: Lab, *lines: str, options: str = "") -> str:
    head = ["#!/bin/sh", "#SBATCH --mem=10 --requeue", f"#SBATCH --output={lab.folder}/%j.out", f"#SBATCH {options}"]
    return "\n".join([*head, *lines]) + "\n"


def job_of(client: SlurmClient, job_id: int) -> Job:
    job = client.job(job_id)
    assert job is not None
    return job


def wait_for(client: SlurmClient, job_id: int, *states: str) -> Job:
    until(lambda: job_of(client, job_id).state in states, f"job {job_id} is {' or '.join(states)}")
    return job_of(client, job_id)


def test_what_the_cluster_is(lab: Lab, client: SlurmClient) -> None:
    assert client.ping()
    assert [node.name for node in client.nodes()] == list(lab.node_names)
    assert [node.name for node in client.nodes("n[02-03]")] == ["n02", "n03"]
    node = client.nodes("n01")[0]
    assert (node.gres, node.cpus, node.version) == ("gpu:h100:2", 8, lab.state.slurm_version) and "gpu" in node.features
    by_name = {one.name: one for one in client.partitions()}
    assert by_name["batch"].default and by_name["batch"].total_nodes == 4 and by_name["batch"].nodes == "n[01-04]"
    config = client.config()
    assert config["ClusterName"] == "conformance" and config["SLURM_CONF"] == str(lab.conf)
    assert client.array_size_max() == int(config["MaxArraySize"]) == 10001
    assert "leaf1" in client.topology() and client.hostnames("n[01-02],x") == ("n01", "n02", "x")
    assert "none" in client.mpi_types() and client.srun_has("nodelist") and not client.srun_has("no-such-option")


def test_a_job_from_its_submission_to_the_accounts(lab: Lab, client: SlurmClient) -> None:
    before = time.time()
    job_id = client.submit(script(lab, "sleep 1", "exit 3", options="--job-name=a=b|c --nodes=2 --comment=hello"))
    ended = wait_for(client, job_id, "FAILED")
    assert (ended.name, ended.exit_code, ended.comment, ended.node_count) == ("a=b|c", "3:0", "hello", 2)
    assert not ended.active and len(client.hostnames(ended.nodes)) == 2
    assert ended.submit_time is not None and before - 2 <= ended.submit_time <= time.time()
    assert "exit 3" in client.batch_script(job_id)
    until(lambda: [one.state for one in client.history(job_id)] == ["FAILED"], "the accounts know how it ended")
    # For a moment after the end sacct may name one node of two (22.05.8).
    until(lambda: [one.nodes for one in client.history(job_id)] == [ended.nodes], "they know all its nodes")
    (attempt,) = client.history(job_id)
    assert (attempt.job_id, attempt.exit_code) == (job_id, "3:0")
    assert attempt.start_time == ended.start_time and attempt.end_time == ended.end_time


def test_a_job_that_is_requeued_is_two_starts(lab: Lab, client: SlurmClient) -> None:
    job_id = client.submit(script(lab, "sleep 600"))
    wait_for(client, job_id, "RUNNING")
    assert any(one.job_id == job_id and one.state == "RUNNING" for one in client.jobs())
    client.requeue(job_id)
    until(lambda: job_of(client, job_id).state == "PENDING", "it is back in the queue")
    client.update_job(job_id, StartTime="now")
    again = wait_for(client, job_id, "RUNNING")
    assert again.restarts == 1
    client.cancel(job_id)
    wait_for(client, job_id, "CANCELLED")
    until(lambda: len(client.history(job_id)) == 2, "both starts are in the accounts")
    until(lambda: client.history(job_id)[-1].state == "CANCELLED", "the last one's end is there")
    assert client.history(job_id)[0].state in ("REQUEUED", "CANCELLED", "FAILED", "NODE_FAIL")
    assert client.cancelled_by(job_id) is not None
    # One that is over is left alone: `requeue` would run it again.
    client.requeue(job_id)
    assert job_of(client, job_id).state == "CANCELLED"


def test_what_a_user_writes_makes_up_no_job(lab: Lab, client: SlurmClient) -> None:
    """On 22.05.8 `scontrol show job` prints line breaks of names as they are, and the reader took what follows."""
    false = "\nJobId=99 JobName=x UserId=bob(7) JobState=RUNNING NodeList=n01\n99\x1fbob"
    job_id = client.submit(script(lab, "true", options="--hold"))
    client.update_job(job_id, JobName=f"x UserId=bob(7){false}", Comment=f"c{false}")
    seen = job_of(client, job_id)
    assert (seen.name, seen.comment) == (f"x UserId=bob(7){false}", f"c{false}")
    assert (seen.user, seen.state, seen.nodes) == ("root", "PENDING", "")
    for jobs in (client.jobs(), client.all_jobs()):
        assert not [job for job in jobs if job.job_id == 99 or job.user == "bob"]
        assert [job.name for job in jobs if job.job_id == job_id] == [seen.name]
    client.cancel(job_id)
    wait_for(client, job_id, "CANCELLED")


def test_exclusions_are_asked_for_only_where_they_are_wanted(lab: Lab, client: SlurmClient) -> None:
    job_id = client.submit(script(lab, "true", options="--hold --exclude=n01"))
    (found,) = [job for job in client.all_jobs(exclusions_of=lambda job: job.job_id == job_id) if job.job_id == job_id]
    assert found.excluded_nodes == "n01"
    if type(client) is Commands:  # pyslurm tells them without being asked
        (found,) = [job for job in client.all_jobs(exclusions_of=lambda job: False) if job.job_id == job_id]
        assert found.excluded_nodes == ""
    client.cancel(job_id)
    wait_for(client, job_id, "CANCELLED")


def test_a_job_is_told_whole(lab: Lab, client: SlurmClient) -> None:
    options = "--array=0,2%1 --hold --nice=7 --exclude=n01 --constraint=gpu"
    job_id = client.submit(script(lab, "true", options=options))
    client.update_job(job_id, AdminComment="adm")
    (seen,) = [job for job in client.jobs() if job.array_job_id == job_id]
    assert (seen.array_tasks, seen.nice, seen.features, seen.admin_comment) == ("0,2%1", 7, "gpu", "adm")
    assert (seen.std_out, seen.user, seen.requeue) == (f"{lab.folder}/{seen.job_id}.out", "root", True)
    client.release(job_id)
    until(lambda: {one.state for one in client.tasks(job_id)} == {"COMPLETED"}, "all tasks have ended")
    assert sorted(one.array_tasks for one in client.tasks(job_id)) == ["0", "2"]
    parts = client.submit(
        "#!/bin/sh\n#SBATCH --hold --mem=10 --output=/dev/null\n#SBATCH hetjob\n#SBATCH --mem=10\ntrue\n"
    )
    assert sorted(one.het_offset for one in client.parts(parts) if one.het_offset is not None) == [0, 1]
    assert (one := client.job(f"{parts}+1")) is not None and one.het_job_id == parts and one.job_id == parts + 1
    client.cancel(parts)


def test_a_squeue_that_a_user_has_set_up(lab: Lab) -> None:
    client = Commands(env={**lab.env, "SQUEUE_STATES": "SUSPENDED", "SQUEUE_FORMAT": "%A", "SLURM_TIME_FORMAT": "%s"})
    job_id = client.submit(script(lab, "true", options="--hold"))
    assert job_id in [job.job_id for job in client.jobs()] and job_of(client, job_id).submit_time is not None
    client.cancel(job_id)
    wait_for(client, job_id, "CANCELLED")


def test_hold_release_and_update(lab: Lab, client: SlurmClient) -> None:
    job_id = client.submit(script(lab, "true", options="--hold"))
    assert job_of(client, job_id).state == "PENDING"
    client.update_job(job_id, ExcNodeList="n01,n02")
    assert client.hostnames(job_of(client, job_id).excluded_nodes) == ("n01", "n02")
    client.release(job_id)
    assert set(client.hostnames(wait_for(client, job_id, "COMPLETED").nodes)) <= {"n03", "n04"}
    other = client.submit(script(lab, "true", options="--begin=now+1hour"))
    client.hold(other)
    assert "Held" in job_of(client, other).reason
    client.cancel(other)
    wait_for(client, other, "CANCELLED")


def test_a_signal_reaches_the_script_alone(lab: Lab, client: SlurmClient) -> None:
    job_id = client.submit(script(lab, "trap 'echo caught; exit 5' USR1", "echo ready", "while :; do sleep 0.1; done"))
    output = lab.folder / f"{job_id}.out"
    until(lambda: output.exists() and "ready" in output.read_text(), "its trap is set")
    client.signal(job_id, "USR1")
    assert wait_for(client, job_id, "FAILED").exit_code == "5:0"
    assert "caught" in output.read_text()


def test_an_array_and_its_tasks(lab: Lab, client: SlurmClient) -> None:
    job_id = client.submit(script(lab, "true", options="--array=1-3,7 --hold"))
    (waiting,) = client.tasks(job_id)
    assert (waiting.array_job_id, waiting.array_tasks, waiting.state) == (job_id, "1-3,7", "PENDING")
    client.release(job_id)
    until(lambda: {one.state for one in client.tasks(job_id)} == {"COMPLETED"}, "all tasks have ended")
    assert sorted(one.array_tasks for one in client.tasks(job_id)) == ["1", "2", "3", "7"]
    one = client.job(f"{job_id}_7")
    assert one is not None and one.array_tasks == "7"


def test_a_drain_and_its_end(client: SlurmClient) -> None:
    client.update_nodes("n04", State="DRAIN", Reason="[TM] test: a = b")
    node = client.nodes("n04")[0]
    assert "DRAIN" in node.state and node.reason == "[TM] test: a = b"
    client.update_nodes("n04", State="RESUME")
    until(lambda: "DRAIN" not in client.nodes("n04")[0].state, "it is back")
    assert client.nodes("n04")[0].reason == ""


def test_a_reservation(client: SlurmClient) -> None:
    client.create_reservation(
        "tm-test", StartTime="now+3600", Duration="60", Nodes="n[03-04]", Users="root", Flags="MAINT"
    )
    (found,) = client.reservations()
    assert (found.name, found.nodes, found.users, found.maintenance) == ("tm-test", "n[03-04]", ("root",), True)
    assert found.start_time is not None and found.end_time is not None and found.end_time - found.start_time == 3600
    client.delete_reservation("tm-test")
    assert client.reservations() == ()


def test_an_estimate_submits_nothing(lab: Lab, client: SlurmClient) -> None:
    known = {job.job_id for job in client.jobs()}
    found = client.estimate(script(lab, "true", options="--nodes=2"))
    assert found is not None and found.partition == "batch" and len(client.hostnames(found.nodes)) == 2
    with pytest.raises(SubmitRefused):
        client.estimate(script(lab, "true", options="--nodes=400"))
    assert {job.job_id for job in client.jobs()} == known


def test_what_is_not_there_is_none_and_what_cannot_be_is_refused(lab: Lab, client: SlurmClient) -> None:
    assert client.job(_NOBODY) is None and client.tasks(_NOBODY) == () and client.history(_NOBODY) == ()
    assert client.jobs(user="nobody") == ()
    with pytest.raises(SubmitRefused):
        client.submit(script(lab, "true", options="--partition=none"))
    for act in (client.requeue, client.hold, client.release):
        with pytest.raises(SlurmError):
            act(_NOBODY)
    with pytest.raises(SlurmError):
        client.update_nodes("n99", State="DRAIN", Reason="x")
    with pytest.raises(SlurmError):
        client.delete_reservation("tm-none")


def test_the_script_of_a_job_that_is_not_there_is_refused_instead_of_empty(client: SlurmClient) -> None:
    with pytest.raises(SlurmError, match="Invalid job id"):
        client.batch_script(_NOBODY)


def test_a_slurmctld_that_is_gone_is_told_apart_from_a_refusal(lab: Lab, client: SlurmClient, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    port = next(line for line in lab.conf.read_text().splitlines() if line.startswith("SlurmctldPort="))
    conf.write_text(lab.conf.read_text().replace(port, "SlurmctldPort=1"))
    make = next(make for make in ADAPTORS.values() if type(client) is type(make(lab.env)))
    away = make({**lab.env, "SLURM_CONF": str(conf)})
    assert not away.ping()
    with pytest.raises(SlurmUnreachable):
        away.nodes()
    with pytest.raises(SlurmMissing):
        make({**lab.env, "SLURM_CONF": str(tmp_path / "gone.conf")}).nodes()
