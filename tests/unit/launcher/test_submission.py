"""Submitting: the run folder is complete before sbatch runs, and nothing is left when there is no job."""

import json
import os
import shlex
import stat
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmError, SlurmMissing, SlurmUnreachable, SpecError, SubmitRefused, UsageError
from trainmaster.launcher import plan, record
from trainmaster.launcher.follow import index
from trainmaster.launcher.submit import submission
from trainmaster.launcher.submit.refusal import too_much
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Call, Program
from trainmaster.slurm.values import Node, Partition

PROGRAM = Program(argv=("python3", "train.py", "--lr", "1"))
PARTITIONS = (
    Partition(name="gpu", nodes="n[01-08]", total_nodes=8, up=True, default=True),
    Partition(name="cpu", nodes="c[1-4]", total_nodes=4, up=False, default=False),
)


def draft(folder: Path, spec: JobSpec | None = None, target=PROGRAM) -> submission.Draft:
    return submission.draft(target, spec or JobSpec(), folder, uid="20261123-070000-abcdef", python="/usr/bin/python3")


def test_what_is_there_when_sbatch_runs(tmp_path):
    made = draft(tmp_path / "jobs", JobSpec(nodes=2, spares=1, gpus_per_node=4, env={"A": "b"}, exclude="n07"))

    class Looking(FakeSlurm):
        def submit(self, script_text, *, args=()):
            self.names = sorted(path.name for path in made.run_dir.iterdir())
            return super().submit(script_text)

    slurm = Looking(first_job_id=12)
    sent = submission.send(made, slurm, clock=FakeClock())
    assert slurm.names == ["explain.json", "job.sbatch", "key", "plan.json"]
    assert slurm.scripts == [made.script] == [(made.run_dir / "job.sbatch").read_text()]
    assert stat.S_IMODE((made.run_dir / "key").stat().st_mode) == 0o600
    assert len(bytes.fromhex((made.run_dir / "key").read_text())) == 32
    assert plan.read(made.run_dir) == made.plan
    assert (made.plan.nodes, made.plan.spares, made.plan.tasks_per_node) == (2, 1, 4)
    assert (made.plan.program, made.plan.env, made.plan.exclude) == (PROGRAM.argv, {"A": "b"}, "n07")
    assert (sent.job_id, sent.ranks, sent.name) == (12, 8, "train")


def test_the_job_is_found_again(tmp_path):
    made = draft(tmp_path)
    submission.send(made, FakeSlurm(first_job_id=12), clock=FakeClock(), slurm_conf="/lab/slurm.conf")
    assert (tmp_path / "12").resolve() == made.run_dir
    entry = index.find(12, index.path(), slurm_conf="/lab/slurm.conf")
    assert entry is not None
    assert (entry.run_dir, entry.name) == (str(made.run_dir), "train")
    (event,) = record.read(made.run_dir)
    assert (event.state, event.job_id) == ("SUBMITTED", 12)


def test_a_job_id_that_comes_round_again_points_at_the_new_job(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "12").symlink_to("old")
    made = draft(tmp_path)
    submission.send(made, FakeSlurm(first_job_id=12), clock=FakeClock())
    assert (tmp_path / "12").resolve() == made.run_dir


def test_a_call_is_there_as_bytes(tmp_path):
    made = draft(tmp_path, target=Call(name="f", pickled=b"bytes"))
    submission.send(made, FakeSlurm(), clock=FakeClock())
    assert (made.run_dir / "submitted.pkl").read_bytes() == b"bytes"
    assert made.plan.program is None


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    "error", [SubmitRefused("no"), SlurmMissing("no sbatch"), SlurmError("odd"), KeyboardInterrupt()]
)
def test_nothing_is_left_when_there_is_no_job(tmp_path, error):
    slurm = FakeSlurm()
    slurm.fail["submit"] = [error]
    with pytest.raises(type(error)):
        submission.send(draft(tmp_path), slurm, clock=FakeClock())
    assert left(tmp_path) == []
    assert list(index.newest_first(index.path())) == []


def test_a_slurmctld_that_comes_back_gets_the_job_once(tmp_path, caplog):
    slurm, clock = FakeSlurm(), FakeClock()
    slurm.fail["submit"] = [SlurmUnreachable("Zero Bytes were transmitted or received")] * 2
    slurm.fail["jobs"] = [SlurmUnreachable("down")]
    submission.send(draft(tmp_path), slurm, clock=clock)
    assert len(slurm.scripts) == 1
    assert clock.slept == [1.0, 2.0]
    assert "trying again" in caplog.text


def test_a_slurmctld_that_stays_away_is_given_up_after_half_a_minute(tmp_path):
    slurm, clock = FakeSlurm(), FakeClock()
    slurm.fail["submit"] = [SlurmUnreachable("Unable to contact slurm controller")] * 6
    with pytest.raises(SlurmUnreachable) as caught:
        submission.send(draft(tmp_path), slurm, clock=clock)
    assert clock.passed_s == 30.0
    assert slurm.calls == {"submit": 6}
    assert "did not answer for 30 s" in str(caught.value)
    assert "Unable to contact slurm controller" in str(caught.value)
    assert left(tmp_path) == []


def test_a_job_whose_number_got_lost_is_not_submitted_twice(tmp_path):
    made = draft(tmp_path)

    class Lossy(FakeSlurm):
        def submit(self, script_text, *, args=()):
            job_id = super().submit(script_text)
            self.put(job_id, "PENDING", name="train", std_out=str(made.run_dir / "batch.out"))
            raise SlurmUnreachable("Socket timed out on send/recv operation")

    slurm = Lossy(first_job_id=7)
    slurm.put(6, "RUNNING", name="train", std_out="/another/run/batch.out")
    assert submission.send(made, slurm, clock=FakeClock()).job_id == 7
    assert len(slurm.scripts) == 1


def test_no_slurm_question_but_the_one_on_the_way_to_a_job(tmp_path):
    slurm = FakeSlurm(partitions=PARTITIONS)
    submission.send(draft(tmp_path), slurm, clock=FakeClock())
    assert slurm.calls == {"submit": 1}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (JobSpec(partition="gp"), ["no partition 'gp'", "gpu (8 nodes), cpu (4 nodes)"]),
        (JobSpec(partition="cpu"), ["'cpu' is not up"]),
    ],
)
def test_a_refusal_is_explained_and_quoted(tmp_path, spec, words):
    slurm = FakeSlurm(partitions=PARTITIONS)
    slurm.fail["submit"] = [SubmitRefused("sbatch: error: invalid partition specified")]
    with pytest.raises(SubmitRefused) as caught:
        submission.send(draft(tmp_path, spec), slurm, clock=FakeClock())
    for word in [*words, "sbatch: error: invalid partition specified"]:
        assert word in str(caught.value)


def test_more_nodes_than_there_are_is_refused_though_slurm_would_take_it(tmp_path):
    slurm = FakeSlurm(partitions=PARTITIONS)
    with pytest.raises(SubmitRefused) as caught:
        submission.send(draft(tmp_path, JobSpec(nodes=8, spares=1)), slurm, clock=FakeClock(), slurm_conf=str(tmp_path))
    assert "wants 9 nodes (8 and 1 spare), but partition 'gpu' has 8" in str(caught.value)
    assert slurm.calls == {"partitions": 1}
    assert left(tmp_path) == []


def test_more_time_than_the_partition_allows_is_refused_though_slurm_would_take_it(tmp_path):
    short = Partition(name="gpu", total_nodes=8, up=True, default=True, max_time="1-00:00:00")
    endless = Partition(name="cpu", total_nodes=8, up=True, default=False, max_time="UNLIMITED")
    slurm = FakeSlurm(partitions=(short, endless))
    with pytest.raises(SubmitRefused, match=r"wants 2-00:00:00, but partition 'gpu' allows 1-00:00:00"):
        submission.send(draft(tmp_path, JobSpec(time="2d")), slurm, clock=FakeClock(), slurm_conf=str(tmp_path))
    for spec in (
        JobSpec(time="1d"),
        JobSpec(time="2d", partition="cpu"),
        JobSpec(time="unlimited", partition="gpu,cpu"),
    ):
        assert too_much(spec, slurm.existing) == ()


def test_the_partitions_are_asked_for_once_by_who_submits_much(tmp_path):
    slurm, clock = FakeSlurm(partitions=PARTITIONS), FakeClock()
    for number in range(20):
        made = draft(tmp_path / str(number), JobSpec(nodes=8))
        submission.send(made, slurm, clock=clock, slurm_conf=str(tmp_path))
    assert slurm.calls == {"submit": 20, "partitions": 1, "nodes": 1, "reservations": 1}


def test_a_node_that_has_not_what_is_asked_for_is_described(tmp_path):
    class WithNodes(FakeSlurm):
        def nodes(self, names=""):
            return (Node(name="n01", partitions=("gpu",), cpus=96, memory_mib=2048, gres="gpu:h100:8"),)

    slurm = WithNodes(partitions=PARTITIONS)
    slurm.fail["submit"] = [SubmitRefused("Requested node configuration is not available")]
    with pytest.raises(SubmitRefused, match="at most 96 CPUs, 2048 MiB of memory and gpu:h100:8"):
        submission.send(draft(tmp_path, JobSpec(gpus_per_node=16)), slurm, clock=FakeClock())


def test_a_refusal_that_slurm_does_not_help_to_explain_is_still_quoted(tmp_path):
    slurm = FakeSlurm()
    slurm.fail = {"submit": [SubmitRefused("sbatch: error: QOS")], "partitions": [SlurmError("away")]}
    with pytest.raises(SubmitRefused, match="sbatch: error: QOS"):
        submission.send(draft(tmp_path), slurm, clock=FakeClock())


def test_a_folder_that_is_a_file_or_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"could not write the job's files to .*file.*Not a directory"):
        submission.send(draft(tmp_path / "file"), FakeSlurm(), clock=FakeClock())


@pytest.fixture
def not_root():
    """Root may write everywhere; be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def made(tmp_path):
    """Made as ourselves: somebody else may not be able to read this checkout."""
    return draft(tmp_path)


def test_a_folder_that_is_not_writable(tmp_path, made, not_root):
    if os.geteuid() != 65534:
        tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        submission.send(made, FakeSlurm(), clock=FakeClock())


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_where_slurm_cannot_write_bash_does(tmp_path, name):
    script = draft(tmp_path / name).script
    assert "#SBATCH --output=/dev/null" in script.splitlines()
    assert f"exec >>{shlex.quote(f'{tmp_path}/{name}/20261123-070000-abcdef/batch.out')} 2>&1" in script


def test_faults_of_the_spec_come_before_anything_is_written(tmp_path):
    with pytest.raises(SpecError):
        draft(tmp_path, JobSpec(nodes=0))
    assert left(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(run_dir, made):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan, "write", full)
    with pytest.raises(UsageError, match="No space left on device"):
        submission.send(draft(tmp_path), FakeSlurm(), clock=FakeClock())
    assert left(tmp_path) == []


def test_a_home_that_cannot_be_written_costs_the_list_not_the_job(tmp_path, monkeypatch, caplog):
    (tmp_path / "state").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    sent = submission.send(draft(tmp_path / "jobs"), FakeSlurm(), clock=FakeClock())
    assert sent.job_id == 1
    assert "will not list it" in caplog.text


def test_the_index_reads_from_the_end_and_passes_torn_lines(tmp_path):
    file = tmp_path / "jobs.jsonl"
    for number in range(2000):
        entry = index.Entry(time=0.0, job_id=number % 1500, uid=f"u{number}", run_dir="/x" * 40, name="n")
        index.append(entry, file)
    with file.open("a") as stream:
        stream.write('{"job_id": 3, "ti')
    assert [entry.uid for entry in index.newest_first(file)][:2] == ["u1999", "u1998"]
    assert len(list(index.newest_first(file))) == 2000
    found = index.find(3, file)
    assert found is not None and found.uid == "u1503"
    assert index.find(99999, file) is None


def test_the_index_prefers_the_cluster_that_is_asked_for(tmp_path):
    file = tmp_path / "jobs.jsonl"
    for conf in ("/a", "/b"):
        index.append(index.Entry(time=0, job_id=1, uid=conf, run_dir="/", name="n", slurm_conf=conf), file)
    assert [index.find(1, file, slurm_conf=conf).uid for conf in ("/a", "/b", "/c")] == ["/a", "/b", "/b"]
    assert json.loads(file.read_text().splitlines()[0])["job_id"] == 1
