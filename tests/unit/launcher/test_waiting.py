"""Slurm's reasons in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.follow.waiting import completing, waiting
from trainmaster.slurm.values import Job, Node


@pytest.mark.parametrize(
    ("reason", "words", "advice"),
    [
        ("Priority", "higher priority", "sprio"),
        ("Resources", "next in line", "wait"),
        ("(BeginTime)", "earliest start", "StartTime=now"),
        ("DependencyNeverSatisfied", "never start", "cancel"),
        ("Dependency", "another job to end", "nothing"),
        ("JobHeldUser", "you hold it", "scontrol release"),
        ("PartitionTimeLimit", "longer than its partition allows", "shorter `time`"),
        ("ReqNodeNotAvail,_UnavailableNodes:n[01-02]", "UnavailableNodes:n[01-02]", "sinfo -R"),
        ("ReqNodeNotAvail, Reserved for maintenance", "maintenance", "shorter `time`"),
        ("ReqNodeNotAvail,_May_be_reserved_for_other_job", "a reservation keeps nodes", "shorter `time`"),
        (
            "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions",
            "too many of the nodes",
            "sinfo -R",
        ),
        ("launch_failed_requeued_held", "a node could not start it", "release"),
        ("job requeued in held state", "put back into the queue", "release"),
        ("job_requeued_in_held_state", "put back into the queue", "release"),
        ("AssocGrpGRES", "your account or its parents allows no more", "wait"),
        ("QOSMaxJobsPerUserLimit", "its QOS allows no more", "another `qos`"),
        ("", "has not looked at it yet", "wait"),
        ("BrandNewReason", "'BrandNewReason'", "squeue(1)"),
    ],
)
def test_reasons(reason, words, advice):
    found = waiting(reason)
    assert words in found.words and advice in found.advice


@given(st.text())
def test_every_reason_gets_words(reason):
    found = waiting(reason)
    assert found.words and found.advice


def test_a_job_that_slurm_does_not_let_go_names_the_node():
    """It was CANCELLING, and nothing said why."""
    job = Job(job_id=1, state="COMPLETING", nodes="n02")
    dead, alive = Node(name="n02", state="DOWN*+COMPLETING"), Node(name="n02", state="IDLE+COMPLETING")
    told = "Slurm still waits for n02, which does not answer; it gives that up after SlurmdTimeout"
    assert completing(job, [dead]) == told
    assert completing(job, [alive]) == "Slurm still waits for n02 to end what ran there"
    assert completing(Job(job_id=1, state="PENDING"), [dead]) == ""
