"""Remarks about a job: each of them, and its absence where all is well."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.clock import FakeClock
from fakes.slurm import FakeSlurm
from trainmaster.errors import SlurmError, SubmitRefused
from trainmaster.launcher.submit.foresight import foresee, partition_of, say
from trainmaster.launcher.submit.lint import Cluster, Remark, lint
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.timelimit import seconds_of
from trainmaster.slurm.values import Node, Partition, Reservation

NOW_S = datetime(2026, 11, 23, 7, tzinfo=UTC).timestamp()
HOUR_S = 3600.0
GPU = Partition(name="gpu", total_nodes=4, default=True, max_time="7-00:00:00", default_time="01:00:00")
CPU = Partition(name="cpu", total_nodes=2, up=False, max_time="UNLIMITED")


def node(number: int, state: str = "IDLE", reason: str = "") -> Node:
    return Node(
        name=f"n{number}",
        state=state,
        reason=reason,
        partitions=("gpu",),
        gres="gpu:h100:8",
        cpus=96,
        memory_mib=1000,
    )


NODES = tuple(node(number) for number in range(1, 5))


def maintenance(nodes: str, start_s: float, end_s: float, name: str = "service") -> Reservation:
    flags = ("MAINT", "IGNORE_JOBS")
    return Reservation(name=name, nodes=nodes, start_time=NOW_S + start_s, end_time=NOW_S + end_s, flags=flags)


def cluster(*reservations: Reservation, nodes: tuple[Node, ...] = NODES) -> Cluster:
    return Cluster(partitions=(GPU, CPU), nodes=nodes, reservations=reservations)


def told(spec: JobSpec, seen: Cluster) -> dict[str, str]:
    return {remark.check: remark.text for remark in lint(spec, seen, now_s=NOW_S)}


def test_nothing_is_said_of_a_job_that_fits():
    assert told(JobSpec(nodes=4, gpus_per_node=8, cpus_per_task=12, mem=1000, time="1d"), cluster()) == {}
    assert told(JobSpec(time="2h"), cluster()) == {}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (JobSpec(checkpoint_signal_s=3600), "the partition's default time limit is 0-01:00:00, and 3600 s before it"),
        (JobSpec(time="1m"), "60 s early: possibly as soon as they start"),
        (JobSpec(time="5m", checkpoint_signal_s=250), "60 s early"),
    ],
)
def test_signal(spec, words):
    assert words in told(spec, cluster())["signal"]


def test_a_signal_that_is_off_or_in_time_is_no_matter():
    for spec in (JobSpec(time="1m", checkpoint_signal_s=0), JobSpec(time="unlimited"), JobSpec(time="5m")):
        assert "signal" not in told(spec, cluster())


def test_a_partition_that_is_not_up():
    assert told(JobSpec(partition="cpu"), cluster())["partition"].startswith("partition 'cpu' is not up")
    assert "partition" not in told(JobSpec(partition="cpu,gpu"), cluster())


def test_more_nodes_than_take_jobs():
    nodes = (node(1), node(2, "IDLE+DRAIN", "bad cable"), node(3, "DOWN*", "gone"), node(4, "ALLOCATED"))
    text = told(JobSpec(nodes=3, cpus_per_task=1), cluster(nodes=nodes))["nodes"]
    assert text == (
        "it wants 3 nodes, but 2 of the 4 of partition 'gpu' take jobs: n2 IDLE+DRAIN (bad cable); n3 DOWN* (gone). "
        "It waits until there are enough"
    )
    assert told(JobSpec(nodes=1, spares=1), cluster(nodes=nodes)) == {}
    assert "2 are excluded" in told(JobSpec(nodes=3, exclude="n[1-2]"), cluster())["nodes"]


def test_a_wall_time_that_runs_into_a_maintenance():
    seen = cluster(maintenance("n[1-2]", 5 * HOUR_S, 8 * HOUR_S))
    text = told(JobSpec(nodes=3, time="1d"), seen)["reservation"]
    assert text.startswith("with a time limit of 1-00:00:00, it runs into 'service' (maintenance, 20")
    assert "leaves fewer than 3 node(s)" in text and text.endswith("at most 0-05:00:00 it could start before")
    # There is room beside it, or time before it, or it is for this job.
    assert "reservation" not in told(JobSpec(nodes=2, time="1d"), seen)
    assert "reservation" not in told(JobSpec(nodes=3, time="4h"), seen)
    assert "reservation" not in told(JobSpec(nodes=3, time="1d", reservation="service"), seen)
    assert "reservation" not in told(JobSpec(nodes=3, time="1d"), cluster(maintenance("n1", -9e3, -1.0)))


def test_without_a_time_limit_the_partitions_counts():
    text = told(JobSpec(nodes=4), cluster(maintenance("n1", 0.5 * HOUR_S, HOUR_S)))["reservation"]
    assert "with a time limit of 0-01:00:00, the partition's" in text and "0-00:30:00" in text
    assert "reservation" not in told(JobSpec(nodes=4), cluster(maintenance("n1", 1.1 * HOUR_S, 2 * HOUR_S)))


NODE_LISTS = st.sets(st.integers(1, 4), min_size=1).map(lambda numbers: ",".join(f"n{number}" for number in numbers))
HOURS = st.integers(-2, 30)


@given(st.lists(st.tuples(NODE_LISTS, HOURS, st.integers(1, 9)), max_size=4), st.integers(1, 4), st.integers(1, 40))
def test_the_time_that_is_offered_fits_and_is_the_longest(reserved, wanted, hours):
    seen = cluster(
        *(maintenance(nodes, start * HOUR_S, (start + length) * HOUR_S) for nodes, start, length in reserved)
    )

    def remark(limit_s: float) -> str | None:
        return told(JobSpec(nodes=wanted, time=f"{int(limit_s)}s", checkpoint_signal_s=0), seen).get("reservation")

    text = remark(hours * HOUR_S)
    offered = re.search(r"at most (\S+) it could", text or "")
    if offered:
        limit_s = seconds_of(offered[1])
        assert remark(limit_s) is None and remark(limit_s + 1) is not None
    elif text is not None:
        assert remark(60) is not None
    for shorter in range(1, hours):
        assert text is not None or remark(shorter * HOUR_S) is None


def test_a_shorter_time_is_offered_only_where_it_helps():
    now = cluster(maintenance("n1", -HOUR_S, HOUR_S))
    assert "could start before" not in told(JobSpec(nodes=4, time="2h"), now)["reservation"]
    # The first takes one node of the three that are needed, the second another.
    two = cluster(maintenance("n1", HOUR_S, 9 * HOUR_S, "a"), maintenance("n2", 3 * HOUR_S, 9 * HOUR_S, "b"))
    assert "at most 0-03:00:00" in told(JobSpec(nodes=3, time="1d"), two)["reservation"]
    assert "at most 0-01:00:00" in told(JobSpec(nodes=4, time="1d"), two)["reservation"]


@pytest.mark.parametrize(
    ("spec", "check", "words"),
    [
        (JobSpec(gpus_per_node=2, cpus_per_task=24), "cpus", "48 of 96 CPUs with 2 of 8 GPUs of a node such as n1; 24"),
        (JobSpec(gpus_per_node=2, cpus_per_task=1, mem=500), "memory", "500 of 1000 MiB of memory with 2 of 8 GPUs"),
        (JobSpec(gpus_per_node=2, cpus_per_task=1, mem="0"), "memory", "1000 of 1000 MiB"),
        (JobSpec(gpus_per_node=8), "cpus", "Slurm gives 1 CPU of each node to its 8 ranks"),
        (JobSpec(tasks_per_node=4), "cpus", "Slurm gives 1 CPU of each node to its 4 ranks"),
    ],
)
def test_out_of_proportion(spec, check, words):
    assert words in told(spec, cluster())[check]


@pytest.mark.parametrize(
    "spec",
    [
        JobSpec(gpus_per_node=2, cpus_per_task=12, mem=250),
        JobSpec(gpus_per_node=8, cpus_per_task=12, mem="0"),
        JobSpec(gpus_per_node=2, exclusive=True, mem="0"),
        JobSpec(gpus_per_node=2, sbatch={"cpus-per-gpu": 12}),
        JobSpec(tasks_per_node=8, mpi="pmix"),
        JobSpec(),
    ],
)
def test_in_proportion(spec):
    assert told(spec, cluster()) == {}


def test_cpus_that_the_partition_adds_for_each_gpu_are_known():
    partition = Partition(name="gpu", default=True, job_defaults="DefCpuPerGPU=12,DefMemPerGPU=100")
    assert lint(JobSpec(gpus_per_node=2), Cluster(partitions=(partition,), nodes=NODES), now_s=NOW_S) == ()


def test_a_cluster_that_is_not_known_says_nothing():
    assert told(JobSpec(nodes=9, time="9d", cpus_per_task=9, gpus_per_node=2), Cluster()) == {}


# --- looking ----------------------------------------------------------------------------------------------------------


def slurm(*states: str) -> FakeSlurm:
    fake = FakeSlurm(partitions=(GPU,))
    fake.existing_nodes = tuple(node(number, state) for number, state in enumerate(states, 1))
    return fake


def test_bad_news_is_checked_again_before_it_is_told(tmp_path):
    conf, clock, fake = str(tmp_path), FakeClock(), slurm("IDLE", "DOWN*")
    spec = JobSpec(nodes=2)
    assert [remark.check for remark in foresee("x", [spec], fake, clock, conf)] == ["nodes"]
    assert fake.calls["nodes"] == 1  # just looked
    fake.existing_nodes = (node(1), node(2))
    clock.sleep_s(20)
    assert foresee("x", [spec], fake, clock, conf) == ()
    assert foresee("x", [spec], fake, clock, conf) == () and fake.calls["nodes"] == 2
    assert partition_of(spec, conf) == GPU


def test_a_look_that_is_not_needed_is_not_taken_unless_asked_for(tmp_path):
    fake = slurm("IDLE")
    assert foresee("x", [JobSpec()], fake, FakeClock(), str(tmp_path)) == ()
    assert not fake.calls
    foresee("x", [JobSpec()], fake, FakeClock(), str(tmp_path), look=True)
    assert fake.calls == {"partitions": 1, "nodes": 1, "reservations": 1}


def test_a_cluster_that_got_larger_is_asked_before_a_job_is_refused(tmp_path):
    fake, clock = slurm("IDLE"), FakeClock()
    foresee("x", [JobSpec(nodes=1, time=5)], fake, clock, str(tmp_path))
    fake.existing = (Partition(name="gpu", total_nodes=8, default=True),)
    clock.sleep_s(20)
    foresee("x", [JobSpec(nodes=8)], fake, clock, str(tmp_path))
    with pytest.raises(SubmitRefused, match="wants 9 nodes"):
        foresee("x", [JobSpec(nodes=9)], fake, clock, str(tmp_path))


@pytest.mark.parametrize("verb", ["partitions", "nodes", "reservations"])
def test_what_slurm_does_not_tell_keeps_nobody_from_submitting(tmp_path, verb):
    fake = slurm("DOWN*")
    fake.fail[verb] = [SlurmError("away")]
    assert foresee("x", [JobSpec(nodes=2)], fake, FakeClock(), str(tmp_path)) == ()


def test_a_remark_is_said_once(caplog):
    for _ in range(3):
        say("train-once", [Remark(check="nodes", text="so few")])
    assert caplog.messages == ["warning: job 'train-once': so few"]
