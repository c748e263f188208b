"""The way of a job through a requeue, step by step."""

import pytest

from trainmaster.launcher.requeue import Order, Step, next_step
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
