"""Refills: how many are asked for, which nodes they may get, and whether one that starts late is still wanted."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.errors import SpecError
from trainmaster.launcher.node.join import too_late
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.render import render_refill
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.submission import draft, draft_array
from trainmaster.launcher.submit.target import Program
from trainmaster.launcher.supervise.refill import SETTLE_S, Need, need_of
from trainmaster.launcher.supervise.refill_ask import Order, came_back, left_out, minutes_left
from trainmaster.launcher.supervise.takeover import Post
from trainmaster.slurm.values import Job, Node


@given(
    wanted=st.integers(1, 20),
    spares=st.integers(0, 5),
    healthy=st.integers(0, 30),
    waiting=st.integers(0, 10),
    missing_s=st.floats(0, 100),
)
def test_never_more_nodes_are_on_their_way_than_are_missing(
    wanted: int, spares: int, healthy: int, waiting: int, missing_s: float
) -> None:
    need = need_of(wanted=wanted, spares=spares, healthy=healthy, waiting=waiting, missing_s=missing_s)
    after = waiting + need.submit - need.cancel
    assert 0 <= need.cancel <= waiting and need.submit >= 0 and not (need.submit and need.cancel)
    assert after <= max(0, wanted + spares - healthy)
    if missing_s >= SETTLE_S or healthy < wanted:
        assert after == max(0, wanted + spares - healthy)


def test_a_late_agent_is_waited_for_unless_ranks_cannot_run_without() -> None:
    assert need_of(wanted=4, spares=1, healthy=4, waiting=0, missing_s=0.0) == Need()
    assert need_of(wanted=4, spares=1, healthy=3, waiting=0, missing_s=0.0) == Need(submit=2)


def node(name: str, state: str = "IDLE", started: float | None = 200.0) -> Node:
    return Node(name=name, state=state, slurmd_start_time=started)


def test_a_node_is_back_only_when_its_slurmd_was_started_after_it_was_lost() -> None:
    nodes = [node("n1"), node("n2", started=50.0), node("n3", "DOWN"), node("n4", "IDLE*"), node("n5", started=None)]
    assert came_back([*nodes, node("n6")], dict.fromkeys(("n1", "n2", "n3", "n4", "n5"), 100.0)) == {"n1"}


def test_a_refill_gets_no_node_that_is_used_lost_blamed_or_excluded() -> None:
    order = Order(job_id=1, present=("n1", "n2"), lost={"n3": 1.0, "n4": 1.0}, blamed=("n5",), exclude="x[1-2]")
    assert left_out(order, {"n4"}, ("n6", "n1")) == "x[1-2],n6,n1,n2,n3,n5"


def test_its_time_limit_is_what_the_job_has_left() -> None:
    assert minutes_left(Job(job_id=1, end_time=1090.0), 1000.0) == 2
    assert minutes_left(Job(job_id=1, end_time=900.0), 1000.0) == 1
    assert minutes_left(Job(job_id=1), 1000.0) is None


POST = Post(attempt=1, epoch=0, node="n1", host="127.0.0.1", port=4000)


def event(state: str, attempt: int = 1) -> Event:
    return Event(epoch_s=1.0, job_id=7, attempt=attempt, cycle=0, state=state)


@pytest.mark.parametrize(
    ("post", "events", "state", "why"),
    [
        (POST, [event("RUNNING")], "RUNNING", ""),
        (POST, [event("REQUEUED", attempt=0), event("RUNNING")], "", ""),
        (None, [], "RUNNING", "the job has no supervisor"),
        (replace(POST, attempt=2), [], "RUNNING", "attempt 1 asked for a node, and attempt 2 runs by now"),
        (POST, [event("SUCCEEDED")], "RUNNING", "attempt 1 is over"),
        (POST, [event("REQUEUED")], "PENDING", "attempt 1 is over"),
        (POST, [event("RUNNING")], "COMPLETING", "the job is COMPLETING"),
    ],
)
def test_a_refill_that_starts_late_sees_whether_it_is_wanted(
    post: Post | None, events: list[Event], state: str, why: str
) -> None:
    assert too_late(post, events, state, attempt=1) == why


def test_its_script_asks_for_one_node_of_the_same_kind() -> None:
    spec = JobSpec(
        name="train", nodes=16, spares=2, refill=True, gpus_per_node=8, mem="900G", time="2d", exclude="n9",
        partition="gpu", setup=("module load cuda",), sbatch={"dependency": "after:1", "licenses": "a:1"},
    )  # fmt: skip
    lines = render_refill(spec, name="x", run_dir=Path("/shared/run"), secrets_file=Path("/shared/run/s")).splitlines()
    given = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert {"--nodes=1", "--gpus-per-node=8", "--mem=900G", "--partition=gpu", "--licenses=a:1"} <= given
    assert {"--job-name=train.refill", "--no-requeue", "--output=/shared/run/refill.out"} <= given
    assert not any(word in line for line in given for word in ("exclude", "dependency", "time=", "signal"))
    assert "module load cuda" in lines and ". /shared/run/s || exit 1" in lines


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"runner": "srun"}, "runner 'srun'"),
        ({"sbatch": {"nodelist": "n[1-2]"}}, "'nodelist'"),
        ({"refill": "yes"}, "true or false"),
        ({"refill_wait_s": -1}, "refill_wait_s must be at least 0"),
    ],
)
def test_what_cannot_be_refilled_is_refused(values: dict[str, object], word: str) -> None:
    (fault,) = JobSpec(**({"refill": True} | values)).faults()  # type: ignore[arg-type]
    assert word in fault


def test_an_array_is_not_refilled(tmp_path: Path) -> None:
    program = Program(argv=("true",))
    with pytest.raises(SpecError, match="refill must be false for an array"):
        draft_array([program, program], JobSpec(refill=True), tmp_path, uid="u", python="python3")


def test_only_a_job_that_wants_it_has_the_script(tmp_path: Path) -> None:
    program = Program(argv=("true",))
    assert "refill.sbatch" in draft(program, JobSpec(refill=True), tmp_path, uid="u", python="python3").files
    assert draft(program, JobSpec(), tmp_path, uid="u", python="python3").files == {}
