"""The run folder of a job that plain sbatch started."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmUnreachable, SpecError, UsageError
from trainmaster.launcher import plan, record
from trainmaster.launcher.follow import index
from trainmaster.launcher.follow.find import find
from trainmaster.launcher.follow.queue import Queue
from trainmaster.launcher.follow.watch import Watch
from trainmaster.launcher.script import inside, lines
from trainmaster.launcher.script.allocation import Allocation
from trainmaster.launcher.submit.defaults import with_defaults
from trainmaster.launcher.submit.target import Program

PROGRAM = Program(argv=("python3", "train.py"))
JOB = Allocation(
    job_id=12,
    name="train",
    cluster="lab",
    partition="gpu",
    submit_dir="/work",
    attempt=0,
    nodes=5,
    nodelist="n[01-05]",
    is_batch_step=True,
    batch_pid=1,
    tasks_per_node=8,
    cpus_per_node=64,
)
OUTPUT = "/there/slurm-12.out"


def slurm(**values) -> FakeSlurm:
    made = FakeSlurm()
    made.scripts.append("#!/bin/bash\nexec trainmaster run -- python3 train.py\n")
    made.put(12, "RUNNING", **({"name": "train", "std_out": OUTPUT, "submit_time": 5.0} | values))
    return made


def prepare(
    folder: Path, found: Allocation = JOB, client: FakeSlurm | None = None, program: Program = PROGRAM, **values
) -> Path:
    spec = inside.fitted({"spares": 1} | values, found)
    return inside.prepare(
        program, spec, found, client or slurm(), folder, clock=FakeClock(), python="/py", slurm_conf="/lab.conf"
    )


# --- what is run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "nodes", "spares"),
    [({}, 5, 0), ({"spares": 2}, 3, 2), ({"nodes": 4}, 4, 1), ({"nodes": 2, "spares": 1}, 2, 1)],
)
def test_all_nodes_serve(given, nodes, spares):
    spec = inside.fitted(given, JOB)
    assert (spec.nodes, spec.spares, spec.tasks_per_node, spec.cpus_per_task) == (nodes, spares, 8, 8)
    assert spec.name == "train"


def test_what_is_given_wins():
    spec = inside.fitted({"tasks_per_node": 4, "cpus_per_task": 3, "requeues_max": 2}, JOB)
    assert (spec.tasks_per_node, spec.cpus_per_task, spec.requeues_max) == (4, 3, 2)


def test_more_ranks_than_cpus_share_them():
    assert inside.fitted({"tasks_per_node": 100}, JOB).cpus_per_task is None


@pytest.mark.parametrize("given", [{"nodes": 6}, {"spares": 5}, {"nodes": 5, "spares": 1}])
def test_more_nodes_than_there_are(given):
    with pytest.raises(UsageError, match="has 5"):
        inside.fitted(given, JOB)


def test_faults_are_named_together():
    with pytest.raises(SpecError) as raised:
        inside.fitted({"spares": -1, "backoff_s": -2.0}, JOB)
    assert len(raised.value.faults) == 2


def test_what_a_person_started_by_hand_is_not_requeued():
    assert inside.fitted({"requeues_max": 3}, replace(JOB, is_batch_step=False)).requeues_max == 0


def test_an_attached_step_is_told_about_its_job_by_slurm():
    found = inside.held(replace(JOB, nodes=1, name="bash", is_batch_step=False), slurm(nodes="n01,n02", restarts=3))
    assert (found.nodes, found.name, found.attempt, found.nodelist) == (2, "train", 3, "n01,n02")
    with pytest.raises(UsageError, match="holds no nodes"):
        inside.held(JOB, slurm(nodes=""))


def test_defaults_add_to_what_sbatch_has_decided_and_change_none_of_it(tmp_path):
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(
        '[profiles.gpu]\npartitions = ["gpu"]\n[profiles.gpu.fabric]\nsocket_interface = "ib0"\n'
        "[profiles.gpu.job]\nspares = 2\ncpus_per_task = 1\nrestarts_max = 4\n"
    )
    env = {"TRAINMASTER_CONFIG": str(cluster), "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    spec = with_defaults(inside.fitted({}, JOB), given=inside.DECIDED, env=env)
    assert (spec.nodes, spec.spares, spec.cpus_per_task, spec.partition) == (5, 0, 8, "gpu")
    assert spec.restarts_max == 4
    run_dir = inside.prepare(
        PROGRAM, spec, JOB, slurm(), tmp_path, clock=FakeClock(), python="/py", slurm_conf="/lab.conf"
    )
    assert plan.read(run_dir).env_defaults["NCCL_SOCKET_IFNAME"] == "=ib0"


# --- the first start --------------------------------------------------------------------------------------------------


def test_the_folder_is_that_of_any_other_job(tmp_path):
    run_dir = prepare(tmp_path, client=slurm(excluded_nodes="n07"))
    made = plan.read(run_dir)
    assert (made.nodes, made.spares, made.tasks_per_node, made.program) == (4, 1, 8, PROGRAM.argv)
    assert (made.run_dir, made.uid, made.exclude) == (str(run_dir), run_dir.name, "n07")
    assert made.env == {"SLURM_NTASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "8"}
    assert stat.S_IMODE((run_dir / "key").stat().st_mode) == 0o600
    assert (run_dir / "job.sbatch").read_text().endswith("python3 train.py\n")
    assert (run_dir / "batch.out").readlink() == Path(OUTPUT)
    assert (tmp_path / "12").resolve() == run_dir
    (event,) = record.read(run_dir)
    assert (event.state, event.job_id, event.epoch_s) == ("SUBMITTED", 12, 5.0)
    entry = index.find(12, index.path(), slurm_conf="/lab.conf")
    assert entry is not None and (entry.run_dir, entry.name) == (str(run_dir), "train")


def test_slurm_may_be_silent(tmp_path):
    client = slurm()
    client.fail = {"job": [SlurmUnreachable("no answer")], "batch_script": [SlurmUnreachable("no answer")]}
    run_dir = prepare(tmp_path, client=client)
    assert plan.read(run_dir).nodes == 4
    assert (run_dir / "job.sbatch").read_text() == ""


def test_a_job_that_slurm_may_not_requeue_does_not_try(tmp_path):
    assert plan.read(prepare(tmp_path / "a")).requeues_max == 10
    assert plan.read(prepare(tmp_path / "b", client=slurm(requeue=False))).requeues_max == 0


def test_whoever_follows_such_a_job_knows_it_by_its_output(tmp_path):
    run_dir = prepare(tmp_path)
    client = slurm()

    def watch() -> Watch:
        return Watch(run_dir, 12, Queue(client, start=lambda work: work()))

    assert watch().state() == "STARTING"
    client.put(12, "RUNNING", std_out="/elsewhere/slurm-12.out")
    assert watch().state() == "PENDING", "another job has got its number"


def test_tasks_of_an_array_keep_apart(tmp_path):
    def task(number: int, **values) -> Allocation:
        return replace(JOB, job_id=12 + number, array=12, task=number, **values)

    folders = {}
    for number in (0, 3):
        client = slurm()
        client.put(12 + number, "RUNNING", name="train", std_out=f"/there/slurm-12_{number}.out")
        folders[number] = prepare(tmp_path, task(number), client)
    assert folders[0] != folders[3]
    for number, run_dir in folders.items():
        found = find(f"12_{number}", tmp_path)
        assert (found.run_dir, found.job_id) == (run_dir, f"12_{number}")
        assert find(f"12_{number}").run_dir == run_dir
        assert plan.read(run_dir).program == PROGRAM.argv
        assert [event.job_id for event in record.read(run_dir)] == [f"12_{number}"]
        assert (run_dir / "batch.out").readlink() == Path(f"/there/slurm-12_{number}.out")
        record.append(run_dir, record.Event(epoch_s=1.0, job_id=f"12_{number}", attempt=0, cycle=0, state="STARTING"))
        uid = plan.read(run_dir).uid
        assert prepare(tmp_path, task(number, attempt=1)) == run_dir
        assert plan.read(run_dir).uid == uid


# --- later starts -----------------------------------------------------------------------------------------------------


def attempt(number: int, **values) -> Allocation:
    return replace(JOB, attempt=number, **values)


def started(run_dir: Path, number: int) -> None:
    record.append(run_dir, record.Event(epoch_s=1.0, job_id=12, attempt=number, cycle=0, state="STARTING"))


def test_a_requeued_job_finds_its_folder(tmp_path):
    run_dir = prepare(tmp_path, client=slurm(excluded_nodes="n07"))
    started(run_dir, 0)
    client = slurm(excluded_nodes="n07,n02")
    assert prepare(tmp_path, attempt(1, nodes=3), client) == run_dir
    made = plan.read(run_dir)
    assert (made.nodes, made.spares) == (2, 1), "the allocation of today counts"
    assert made.exclude == "n07", "what we excluded is in the record, and is not the user's wish"
    assert not client.calls
    assert len(record.read(run_dir)) == 2
    started(run_dir, 1)
    assert prepare(tmp_path, attempt(2)) == run_dir


def test_the_first_start_never_takes_an_old_folder(tmp_path):
    old = prepare(tmp_path)
    new = prepare(tmp_path)
    assert new != old and (tmp_path / "12").resolve() == new


@pytest.mark.parametrize(
    "other", [{"name": "other"}, {"cluster": "other"}, {"submit_dir": "/other"}], ids=lambda entry: next(iter(entry))
)
def test_job_ids_come_round_again(tmp_path, other):
    old = prepare(tmp_path)
    started(old, 0)
    assert prepare(tmp_path, attempt(1, **other)) != old


def test_a_folder_that_has_seen_this_attempt_is_another_jobs(tmp_path):
    old = prepare(tmp_path)
    started(old, 1)
    assert prepare(tmp_path, attempt(1)) != old


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    old = prepare(tmp_path)
    identity = json.loads((old / lines.NOTE).read_text())
    (old / lines.NOTE).write_text(json.dumps(identity | {"user_id": os.getuid() + 1}))
    assert prepare(tmp_path, attempt(1)) != old


def test_a_submitted_jobs_folder_is_not_mistaken_for_one_of_these(tmp_path):
    old = prepare(tmp_path)
    (old / lines.NOTE).unlink()
    assert prepare(tmp_path, attempt(1)) != old


# --- several lines in one script --------------------------------------------------------------------------------------


def line(word: str) -> Program:
    return Program(argv=("python3", f"{word}.py"))


def execution(monkeypatch, number: int) -> None:
    """What follows is run by another process of the batch script."""
    monkeypatch.setattr(lines, "_execution", lambda found: f"script {number}")


def test_two_lines_of_a_script_find_their_own_folders_after_a_requeue(tmp_path, monkeypatch):
    """The first line took the folder of the second, which made a new one."""
    execution(monkeypatch, 0)
    first, second = prepare(tmp_path, program=line("a")), prepare(tmp_path, program=line("b"))
    assert first != second
    for run_dir in (first, second):
        started(run_dir, 0)
    for number in (1, 2):
        execution(monkeypatch, number)
        assert prepare(tmp_path, attempt(number), program=line("a")) == first
        assert (tmp_path / "12").resolve() == find(12).run_dir == first, "that is the one that runs"
        started(first, number)
        assert prepare(tmp_path, attempt(number), program=line("b")) == second
        assert (tmp_path / "12").resolve() == find(12).run_dir == second
        started(second, number)
        assert prepare(tmp_path, attempt(number), program=line("c")) not in (first, second)


def test_a_line_whose_options_change_is_found_by_how_it_begins(tmp_path, monkeypatch):
    execution(monkeypatch, 0)
    first = prepare(tmp_path, program=Program(argv=("python3", "a.py", "--resume", "0")))
    other = prepare(tmp_path, program=line("b"))
    execution(monkeypatch, 1)
    repair = prepare(tmp_path, attempt(1), program=line("only-after-a-requeue"))
    assert repair not in (first, other)
    assert prepare(tmp_path, attempt(1), program=Program(argv=("python3", "a.py", "--resume", "7"))) == first
    assert prepare(tmp_path, attempt(1), program=line("b")) == other


def test_a_loop_goes_on_where_it_was_and_then_further(tmp_path, monkeypatch):
    execution(monkeypatch, 0)
    folders = [prepare(tmp_path) for _ in range(3)]
    execution(monkeypatch, 1)
    again = [prepare(tmp_path, attempt(1)) for _ in range(5)]
    assert again[:3] == folders and len(set(again)) == 5


def test_the_first_start_of_another_job_of_that_number_finds_nothing(tmp_path, monkeypatch):
    execution(monkeypatch, 0)
    old = [prepare(tmp_path, program=line(word)) for word in ("a", "b")]
    execution(monkeypatch, 1)
    new = [prepare(tmp_path, program=line(word)) for word in ("a", "b")]
    assert not set(old) & set(new)
    execution(monkeypatch, 2)
    assert [prepare(tmp_path, attempt(1), program=line(word)) for word in ("a", "b")] == new
