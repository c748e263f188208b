"""The way of a job through a requeue, step by step."""

import pytest

from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmError, SlurmUnreachable
from trainmaster.launcher import record
from trainmaster.launcher.supervise import requeue
from trainmaster.launcher.supervise.requeue import Order, Step, next_of_all, next_step
from trainmaster.slurm.values import Job

ORDER = Order(job_id=7, restarts=0, exclude="n03")
NOW = 1000.0


@pytest.mark.parametrize(
    ("job", "step"),
    [
        (None, Step.GIVE_UP),
        (Job(job_id=7, state="CANCELLED"), Step.GIVE_UP),
        (Job(job_id=7, state="RUNNING"), Step.REQUEUE),
        (Job(job_id=7, state="COMPLETING"), Step.WAIT),
        (Job(job_id=7, state="COMPLETING", restarts=1), Step.WAIT),
        (Job(job_id=7, state="PENDING", restarts=1, eligible_time=1121.0, reason="BeginTime"), Step.RELEASE),
        (Job(job_id=7, state="PENDING", restarts=1, eligible_time=999.0, reason="None"), Step.RELEASE),
        (
            Job(job_id=7, state="PENDING", restarts=1, eligible_time=999.0, reason="Resources", excluded_nodes="n03"),
            Step.DONE,
        ),
        (Job(job_id=7, state="RUNNING", restarts=1), Step.DONE),
    ],
)
def test_next_step(job: Job | None, step: Step) -> None:
    assert next_step(job, ORDER, now=NOW) is step


@pytest.mark.parametrize(
    ("steps", "step"),
    [
        ([Step.REQUEUE], Step.REQUEUE),
        ([Step.REQUEUE, Step.REQUEUE], Step.REQUEUE),
        # The leader is requeued already, a component still has to follow: asking again would be refused.
        ([Step.RELEASE, Step.REQUEUE], Step.WAIT),
        # A component whose first node is dead stays COMPLETING until Slurm has marked that node DOWN.
        ([Step.RELEASE, Step.WAIT, Step.RELEASE], Step.WAIT),
        ([Step.DONE, Step.RELEASE], Step.RELEASE),
        ([Step.DONE, Step.DONE], Step.DONE),
        ([Step.GIVE_UP, Step.REQUEUE], Step.GIVE_UP),
        ([Step.DONE, Step.GIVE_UP], Step.DONE),
    ],
)
def test_a_heterogeneous_job_waits_for_its_last_component(steps: list[Step], step: Step) -> None:
    assert next_of_all(steps) is step


def test_a_job_is_not_released_in_the_second_in_which_it_was_requeued() -> None:
    requeued = Job(job_id=7, state="PENDING", restarts=1, eligible_time=1121.0, reason="BeginTime", submit_time=1000.0)
    assert next_step(requeued, ORDER, now=1000.9) is Step.WAIT
    assert next_step(requeued, ORDER, now=1001.0) is Step.RELEASE


@pytest.mark.parametrize(
    ("state", "restarts", "started", "refused"),
    [
        ("FAILED", 1, False, True),
        ("FAILED", 1, True, False),
        ("RUNNING", 1, False, False),
        ("CANCELLED", 1, False, False),
    ],
)
def test_a_launch_that_slurmd_refused_is_told_from_a_program_that_failed(
    tmp_path, monkeypatch, state, restarts, started, refused
):
    monkeypatch.setattr(requeue, "_REFUSAL_PAUSES_S", (0.0, 0.0))
    slurm = FakeSlurm()
    slurm.put(12, state, restarts=restarts)
    if started:
        record.append(tmp_path, record.Event(epoch_s=1.0, job_id=12, attempt=1, cycle=0, state="STARTING"))
    assert requeue.was_refused(slurm, tmp_path, requeue.Order(job_id=12, restarts=0)) is refused


def test_the_requeue_is_asked_for_until_slurmctld_is_back(monkeypatch):
    monkeypatch.setattr(requeue.time, "sleep", lambda seconds: None)
    slurm = FakeSlurm()
    slurm.put(7, "RUNNING")
    slurm.fail["job"] = [SlurmUnreachable("away")] * 3
    slurm.fail["requeue"] = [SlurmUnreachable("away again")]
    requeue.ask(slurm, ORDER)
    assert slurm.requeued == [7]


def test_nothing_is_asked_for_twice_and_a_refusal_keeps_nobody_waiting():
    slurm = FakeSlurm()
    slurm.put(7, "COMPLETING", restarts=1)
    requeue.ask(slurm, ORDER)
    slurm.put(7, "RUNNING")
    slurm.fail["requeue"] = [SlurmError("Requested operation is presently disabled")]
    requeue.ask(slurm, ORDER)
    assert slurm.requeued == []
