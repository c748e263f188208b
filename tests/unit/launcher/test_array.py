"""Arrays: one sbatch, a run folder for each task that it makes itself, and several arrays where Slurm wants them."""

import itertools
import json
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from submitit.core.utils import DelayedSubmission

from fakes.clock import FakeClock
from fakes.slurm import FakeSlurm
from trainmaster.errors import SpecError, SubmitRefused, UsageError
from trainmaster.launcher import array_layout, plan, record
from trainmaster.launcher.follow import index
from trainmaster.launcher.submit import submission
from trainmaster.launcher.submit.array import ROOM_PAUSES_S, Sent, parts, send_all
from trainmaster.launcher.submit.executor import TrainmasterExecutor, map_array
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.target import Call, Program

CALLS = [Call(name="f", pickled=b"zero"), Call(name="f", pickled=b"one"), Program(argv=("echo", "two"))]


def draft(folder: Path, spec: JobSpec | None = None, **values) -> submission.Draft:
    return submission.draft_array(CALLS, spec or JobSpec(), folder, uid="uid", python="/usr/bin/python3", **values)


def test_one_script_and_four_files_for_all_tasks(tmp_path):
    made = draft(tmp_path, JobSpec(array_parallelism=2))
    slurm = FakeSlurm(first_job_id=12)
    sent = submission.send(made, slurm, clock=FakeClock())
    assert len(slurm.scripts) == 1
    lines = slurm.scripts[0].splitlines()
    assert "#SBATCH --array=0-2%2" in lines
    assert f"#SBATCH --output={tmp_path}/uid/%a.out" in lines
    assert lines[-1] == f"exec /usr/bin/python3 -P -m trainmaster.launcher.script.array_task {tmp_path}/uid"
    assert sent.tasks == "0-2"
    names = {path.name for path in made.run_dir.iterdir()}
    assert {"job.sbatch", "plan.json", "key", "tasks.json", "calls.pkl", "attempts.jsonl"} <= names
    assert not [name for name in names if name.isdecimal()]
    assert (tmp_path / "12").resolve() == made.run_dir
    assert (tmp_path / "12_submission.sh").read_text() == slurm.scripts[0]
    entry = index.find(12, index.path())
    assert entry is not None and entry.tasks == "0-2"


def test_a_task_unfolds_its_own_run_folder(tmp_path):
    made = draft(tmp_path)
    submission.send(made, FakeSlurm(first_job_id=12), clock=FakeClock())
    run_dir = array_layout.unfold(made.run_dir, 1, "12_1")
    assert run_dir == made.run_dir / "1"
    assert (run_dir / "submitted.pkl").read_bytes() == b"one"
    assert stat.S_IMODE((run_dir / "key").stat().st_mode) == 0o600
    assert (run_dir / "key").read_text() != (made.run_dir / "key").read_text()
    (made.run_dir / "1.out").write_text("said")
    assert (run_dir / "batch.out").read_text() == "said"
    (event,) = record.read(run_dir)
    assert (event.state, event.job_id) == ("SUBMITTED", "12_1")
    own = plan.read(run_dir)
    assert (own.uid, own.run_dir, own.program, own.array) == ("uid-1", str(run_dir), None, "0-2")
    assert plan.read(array_layout.unfold(made.run_dir, 2, "12_2")).program == ("echo", "two")


def test_a_requeued_task_finds_what_its_checkpoint_left(tmp_path):
    made = draft(tmp_path)
    submission.send(made, FakeSlurm(), clock=FakeClock())
    run_dir = array_layout.unfold(made.run_dir, 0, "1_0")
    (run_dir / "submitted.pkl").write_bytes(b"checkpoint")
    key = (run_dir / "key").read_text()
    assert array_layout.unfold(made.run_dir, 0, "1_0") == run_dir
    assert (run_dir / "submitted.pkl").read_bytes() == b"checkpoint"
    assert (run_dir / "key").read_text() == key


def test_a_start_that_was_cut_short_is_made_good(tmp_path):
    made = draft(tmp_path)
    submission.send(made, FakeSlurm(), clock=FakeClock())
    run_dir = array_layout.unfold(made.run_dir, 0, "1_0")
    (run_dir / "plan.json").unlink()
    array_layout.unfold(made.run_dir, 0, "1_0")
    assert plan.read(run_dir).uid == "uid-0"
    assert len(record.read(run_dir)) == 1


def test_the_plan_of_a_task_that_has_not_started_is_known(tmp_path):
    made = draft(tmp_path)
    submission.send(made, FakeSlurm(), clock=FakeClock())
    assert plan.read(made.run_dir / "2").program == ("echo", "two")
    with pytest.raises(ValueError, match="no task 9"):
        plan.read(made.run_dir / "9")
    assert not (made.run_dir / "2").exists()


def test_explicit_indices(tmp_path):
    made = draft(tmp_path, indices=[3, 10, 4])
    assert "#SBATCH --array=3-4,10%3" in made.script
    tasks = json.loads(made.files["tasks.json"])
    assert tasks["10"] == {"call": [4, 3]} and tasks["4"] == {"program": ["echo", "two"]}


@pytest.mark.parametrize("indices", [[1], [1, 1, 2], [-1, 0, 1]])
def test_indices_that_cannot_be(tmp_path, indices):
    with pytest.raises(SpecError, match="indices"):
        draft(tmp_path, indices=indices)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_indices_survive_slurms_way_of_writing_them(indices):
    assert set(array_layout.indices_of(array_layout.indices_text(indices))) == indices


@given(st.integers(1, 5000), st.integers(1, 1001))
def test_parts_hold_every_task_once(count, size):
    found = parts(range(7, 7 + count), size)
    assert [task for part in found for task in part] == list(range(7, 7 + count))
    assert max(map(len, found)) <= size
    assert len(found) == -(-count // size)


class Cluster:
    """Takes arrays of at most `size` tasks, and at most `room` tasks in all; `drains` leave at each look."""

    def __init__(self, *, size: int = 1001, room: int = 10**9, drains: int = 0) -> None:
        self.size, self.room, self.drains = size, room, drains
        self.taken: list[int] = []
        self.asked = 0

    def send(self, part: range, indices: tuple[int, ...]) -> submission.Submission:
        if max(indices) >= self.size:
            raise SubmitRefused("Batch job submission failed: Invalid job array specification")
        if len(part) > self.room:
            raise SubmitRefused("QOSMaxSubmitJobPerUserLimit\nJob violates accounting/QOS policy (job submit limit, …)")
        self.room -= len(part)
        self.taken.append(len(part))
        return submission.Submission(job_id=len(self.taken), uid="u", run_dir=Path("/x"), name="f", ranks=1)

    def others(self) -> bool:
        self.room += self.drains
        return self.drains > 0

    def size_max(self) -> int:
        self.asked += 1
        return self.size

    def all_of(self, count: int, clock: FakeClock | None = None, indices: list[int] | None = None) -> list[Sent]:
        return list(
            send_all(
                count,
                self.send,
                indices=indices,
                size_max=self.size_max,
                others=self.others,
                clock=clock or FakeClock(),
            )
        )


def test_a_thousand_tasks_are_one_array_and_one_question():
    cluster = Cluster()
    (sent,) = cluster.all_of(1000)
    assert (sent.tasks, sent.indices, cluster.asked) == (range(1000), tuple(range(1000)), 0)


def test_more_than_max_array_size_are_several_arrays():
    cluster = Cluster(size=1001)
    sent = cluster.all_of(5000)
    assert cluster.taken == [1000] * 5
    assert [one.tasks.start for one in sent] == [0, 1000, 2000, 3000, 4000]
    assert all(one.indices == tuple(range(1000)) for one in sent)


def test_indices_that_must_be_are_not_moved():
    with pytest.raises(SubmitRefused, match="takes no index from 100 on"):
        Cluster(size=100).all_of(2, indices=[5, 100])


def test_a_submit_limit_lets_in_what_fits_and_the_rest_as_others_end(caplog):
    cluster, clock = Cluster(room=300, drains=64), FakeClock()
    sent = cluster.all_of(1000, clock)
    assert sum(cluster.taken) == 1000
    assert [task for one in sent for task in one.tasks] == list(range(1000))
    assert cluster.taken[0] == 250 and len(cluster.taken) < 70
    assert caplog.text.count("more are not let in; waiting") == 1
    assert set(clock.slept) <= set(ROOM_PAUSES_S)


def test_a_limit_that_nothing_will_lift_is_an_error():
    with pytest.raises(SubmitRefused, match="job submit limit"):
        Cluster(room=300).all_of(1000)


def test_another_refusal_is_not_tried_again():
    def refuse(part: range, indices: tuple[int, ...]) -> submission.Submission:
        raise SubmitRefused("Invalid account")

    with pytest.raises(SubmitRefused, match="Invalid account"):
        list(send_all(9, refuse, size_max=lambda: 5, others=lambda: True, clock=FakeClock()))


class Executor(TrainmasterExecutor):
    """Ours with a fake Slurm."""

    slurm = FakeSlurm()

    def _client(self, spec=None):
        return self.slurm


@pytest.fixture
def executor(tmp_path):
    made = Executor(tmp_path)
    made.slurm = FakeSlurm(first_job_id=12)
    return made


def test_map_array_gives_jobs_of_our_class_with_their_calls(executor):
    jobs = executor.map_array(divmod, [10, 20], [3, 6])
    assert [job.job_id for job in jobs] == ["12_0", "12_1"]
    assert len(executor.slurm.scripts) == 1
    call = jobs[1].submission()
    assert isinstance(call, DelayedSubmission) and call.function is divmod
    assert (call.args, call._timeout_countdown) == ((20, 6), executor.max_num_timeout)
    assert jobs[1].paths.submission_file.read_text() == executor.slurm.scripts[0]


def test_a_batch_takes_programs_and_callables(executor):
    with executor.batch():
        first = executor.submit(divmod, 7, 2)
        second = executor.submit_program(["echo", "hi"])
    assert [first.job_id, second.job_id] == ["12_0", "12_1"]
    assert json.loads((first.run_dir.parent / "tasks.json").read_text())["1"] == {"program": ["echo", "hi"]}


def test_a_batch_of_one_is_a_single_job(executor):
    with executor.batch():
        job = executor.submit(divmod, 7, 2)
    assert job.job_id == "12" and "--array" not in executor.slurm.scripts[0]


def test_what_was_sent_is_cancelled_when_the_rest_is_refused(executor):
    executor.slurm.array_size = 2
    refused = SubmitRefused("Invalid job array specification")
    executor.slurm.fail["submit"] = [refused]
    sent = executor.slurm.submit

    def submit(script_text, **values):
        if executor.slurm.scripts:
            raise SubmitRefused("Invalid account")
        return sent(script_text, **values)

    executor.slurm.submit = submit
    with pytest.raises(SubmitRefused, match="Invalid account"):
        executor.map_array(abs, range(4))
    assert executor.slurm.cancelled == [12]


def test_pickles_that_are_too_big_in_sum_are_refused(tmp_path):
    executor = Executor(tmp_path, max_pickle_size_gb=1e-6)
    with pytest.raises(RuntimeError, match="max_pickle_size_gb"):
        executor.map_array(len, [b"x" * 600] * 2)


def test_the_job_of_a_task_travels(executor):
    job = executor.map_array(abs, [1, 2])[1]
    again = pickle.loads(pickle.dumps(job))
    assert (again.job_id, again.run_dir, again.num_tasks) == (job.job_id, job.run_dir, 1)


def not_to_be_called(*_: object) -> None:
    raise AssertionError("nothing is prepared or sent")


@pytest.mark.parametrize("many", [range(100_000_000), itertools.count()])
def test_a_map_over_too_much_is_refused_before_it_is_sent(tmp_path, monkeypatch, many):
    monkeypatch.setattr("trainmaster.launcher.submit.executor.TASKS_MAX", 1000)
    monkeypatch.setattr("trainmaster.launcher.submit.array.TASKS_MAX", 1000)
    monkeypatch.setattr(TrainmasterExecutor, "send_array", not_to_be_called)
    with pytest.raises(UsageError, match="tasks: at most 1,000 are taken"):
        map_array(abs, many, folder=tmp_path)


@pytest.mark.parametrize("indices", [[1], [1, 2, 3], []])
def test_indices_that_are_not_as_many_as_the_calls(tmp_path, monkeypatch, indices):
    monkeypatch.setattr(TrainmasterExecutor, "_send", not_to_be_called)
    with pytest.raises(UsageError, match=f"2 calls, but {len(indices)} indices"):
        map_array(abs, [1, 2], indices=indices, spec=JobSpec(), folder=tmp_path)


def test_a_map_over_nothing_is_no_job(tmp_path):
    assert map_array(abs, [], folder=tmp_path) == []
    with pytest.raises(UsageError, match="0 calls, but 1 indices"):
        map_array(abs, [], indices=[1], folder=tmp_path)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(1, 9)), min_size=1))
def test_indices_are_counted_without_making_them(spans):
    text = ",".join(f"{first}-{first + more}:{step}" for first, more, step in spans)
    assert array_layout.count_of(text) == len(array_layout.indices_of(text))


@pytest.mark.parametrize("text", ["", "3-1", "0-9:0", "0-9:-1", "5--3", "1,,2"])
def test_ranges_that_stand_for_nothing(text):
    with pytest.raises(ValueError):
        array_layout.count_of(text)
    with pytest.raises(ValueError):
        array_layout.indices_of(text)
