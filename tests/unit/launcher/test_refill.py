"""Refills: how many are asked for, which nodes they may get, and whether one that starts late is still wanted."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.errors import SpecError
from trainmaster.launcher import plan as plans
from trainmaster.launcher.node.join import too_late
from trainmaster.launcher.plan import Plan
from trainmaster.launcher.record import Event
from trainmaster.launcher.submit.render import render_refill
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.submission import draft, draft_array
from trainmaster.launcher.submit.target import Program
from trainmaster.launcher.supervise import refill as refill_module
from trainmaster.launcher.supervise.chronicle import Chronicle
from trainmaster.launcher.supervise.component import Component
from trainmaster.launcher.supervise.ending import Ending
from trainmaster.launcher.supervise.links import Links, Member
from trainmaster.launcher.supervise.refill import SETTLE_S, Need, Refill, need_of
from trainmaster.launcher.supervise.refill_ask import Answer, Order, came_back, left_out, minutes_left
from trainmaster.launcher.supervise.supervised import Supervised
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


class Quiet(Links):
    """Agents that are there or not."""

    def __init__(self, *nodes: str) -> None:
        self.members = {}
        for node in nodes:
            self.arrive(node)

    def arrive(self, node: str, job: int | None = None) -> Member:
        self.members[node] = Member(
            place=node, node=node, role="", slot=0, address="", topology=node, port=1,
            connection=None, last_heard=0.0, job=job,  # type: ignore[arg-type]
        )  # fmt: skip
        return self.members[node]


class Remembered:
    """Orders instead of threads, answered by the test."""

    def __init__(self, order: Order) -> None:
        self.order, self.answer, self.done = order, Answer(), False
        asked.append(self)


asked: list[Remembered] = []


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quiet:
    asked.clear()
    (tmp_path / plans.REFILL).write_text("#!/bin/bash\n")
    monkeypatch.setattr(refill_module, "Asking", Remembered)
    return Quiet("n1", "n2")


@pytest.fixture
def refill(links: Quiet, tmp_path: Path) -> Refill:
    plan = Plan(uid="u", name="x", run_dir=str(tmp_path), python="python", nodes=2, spares=0, refill=True)
    ending = Ending(tmp_path, 7, attempt=0, lead_s=90.0, taken_over=False)
    job = Supervised(
        run_dir=tmp_path, plan=plan, job_id=7, attempt=0, epoch=0, links=links,
        components=(Component(plan, links),), roles={}, ending=ending, generation=0,
    )  # fmt: skip
    return Refill(job, Chronicle(job))


def answer(refill: Refill, now: float, **values: object) -> None:
    asked[-1].answer, asked[-1].done = Answer(**values), True  # type: ignore[arg-type]
    refill.tick(now)


def lose(refill: Refill, links: Quiet, node: str) -> None:
    del links.members[node]
    refill.job.dead[node] = "node_death"


def test_a_node_that_was_given_back_is_still_known_to_have_come_back(refill: Refill, links: Quiet) -> None:
    """It was noted as lost anew, after its slurmd's start, and so left out of every later refill."""
    lose(refill, links, "n2")
    refill.tick(100.0)
    lost = asked[-1].order.lost["n2"]
    answer(refill, 101.0, refused="none left", back=frozenset({"n2"}), given_back=("n2",))
    refill.tick(102.0)
    assert len(asked) == 2 and asked[-1].order.submit == 1
    assert asked[-1].order.lost == {"n2": lost}


def test_a_refill_may_come_from_the_node_that_is_being_given_back(refill: Refill, links: Quiet) -> None:
    """The supervisor ended with a KeyError."""
    lose(refill, links, "n2")
    refill.tick(100.0)
    del refill.job.dead["n2"]  # as the supervisor does when it greets the agent
    refill.joined(links.arrive("n2", job=8))
    answer(refill, 101.0, given_back=("n2",))
    lose(refill, links, "n2")
    refill.tick(120.0)
    assert 8 in asked[-1].order.cancel and "n2" in asked[-1].order.lost


def test_a_node_that_was_left_for_maintenance_may_be_given_to_us_again(refill: Refill, links: Quiet) -> None:
    lose(refill, links, "n2")
    refill.job.dead |= {"n2": "maintenance", "n3": "node_fault"}
    refill.tick(100.0)
    assert asked[-1].order.blamed == ("n3",) and asked[-1].order.lost == {}
