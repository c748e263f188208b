"""Nodes that a requeued job does without: which, how many, for how long."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.record import Event
from trainmaster.launcher.supervise.exclusions import (
    DEAD_S,
    SHARE_MAX,
    Exclusion,
    as_before,
    choose,
    merged,
    recall,
    usable,
)
from trainmaster.slurm.values import Job, Node

NOW = 1_000_000.0
FLEET = frozenset(f"n{number:03}" for number in range(40))


def event(state: str, *dead: str, at: float = NOW - 60, cause: str = "node_death", **detail: Any) -> Event:
    return Event(epoch_s=at, job_id=1, attempt=0, cycle=0, state=state, cause=cause, dead=dead, detail=detail)


def bad(node: str, *, why: str = "hang", age_s: float = 60.0, starts: int = 0) -> Exclusion:
    return Exclusion(node=node, epoch_s=NOW - age_s, why=why, starts_failed=starts)


def names(chosen: tuple[Exclusion, ...]) -> list[str]:
    return [one.node for one in chosen]


def test_what_the_record_blames_and_for_how_long() -> None:
    events = [
        event("RESTARTING", "old", at=NOW - 90_000),
        event("RESTARTING", "n1"),
        event("NODE_LOST", "n2"),
        event("RESTARTING", "n3", cause="rank_crash", doubtful=["n3"]),
        # All nodes were lost at once, which blamed none of them.
        event("REQUEUED", "n4", "n5", exclusions=[{"node": "n6", "epoch_s": NOW - 500, "why": "hang"}]),
    ]
    found = recall(events, now=NOW, ttl_s=86400.0)
    assert [(one.node, one.why) for one in found] == [("n1", "node_death"), ("n2", "node_death"), ("n6", "hang")]
    assert names(recall(events, now=NOW, ttl_s=300.0)) == ["n1", "n2"]


def test_an_exclusion_does_not_renew_itself() -> None:
    told = {"node": "n1", "epoch_s": NOW - 80_000, "why": "hang"}
    events = [event("REQUEUED", at=NOW - 10, exclusions=[told])]
    assert names(recall(events, now=NOW, ttl_s=86400.0)) == ["n1"]
    assert recall(events, now=NOW + 7000, ttl_s=86400.0) == ()


def test_of_nodes_that_are_up_a_tenth_at_most() -> None:
    many = [bad(f"n{number:03}", age_s=number) for number in range(20)]
    assert names(choose(many, eligible=FLEET, wanted=4, now=NOW)) == ["n000", "n001", "n002", "n003"]
    assert len(choose(many, eligible=frozenset(sorted(FLEET)[:6]), wanted=2, now=NOW)) >= 1


def test_dead_nodes_do_not_count_but_for_a_while() -> None:
    dead = [bad(f"n{number:03}", why="node_silent") for number in range(8)]
    assert len(choose(dead, eligible=FLEET, wanted=4, now=NOW)) == 8
    assert len(choose(dead, eligible=FLEET, wanted=4, now=NOW + DEAD_S)) == 4


def test_what_slurm_would_not_give_anyway_costs_nothing() -> None:
    down = [bad(f"x{number}") for number in range(9)]
    assert len(choose([*down, bad("n001")], eligible=FLEET, wanted=40 - 1, now=NOW)) == 10


def test_the_job_can_always_be_placed() -> None:
    eligible = frozenset({"n1", "n2", "n3"})
    dead = [bad("n1", why="node_death", age_s=5), bad("n2", why="node_death", age_s=9)]
    assert names(choose(dead, eligible=eligible, wanted=2, now=NOW)) == ["n1"]
    assert choose(dead, eligible=eligible, wanted=3, now=NOW) == ()


def test_a_black_hole_goes_first() -> None:
    candidates = [bad("n001", age_s=1), bad("n002", age_s=5000, starts=2), bad("n003", why="node_death", age_s=30)]
    small = frozenset(sorted(FLEET)[:9])
    assert names(choose(candidates, eligible=small, wanted=2, now=NOW)) == ["n002", "n003"]


def test_two_quick_failures_are_counted_over_attempts() -> None:
    quick = {"budget": {"quick_node": "n7"}}
    events = [
        event("RESTARTING", cause="rank_crash", **quick),
        event("REQUEUED", "n7", cause="start", exclusions=[{"node": "n7", "epoch_s": NOW, "why": "start"}]),
    ]
    (found,) = recall(events, now=NOW, ttl_s=1e9)
    assert found.starts_failed == 2


def test_without_a_word_from_slurm_only_the_dead_and_one_more() -> None:
    candidates = [bad("n1"), bad("n2"), bad("n3", why="node_death"), bad("n4", why="node_death")]
    assert sorted(names(choose(candidates, eligible=None, wanted=4, now=NOW))) == ["n1", "n3", "n4"]


exclusion = st.builds(
    Exclusion,
    node=st.sampled_from([*sorted(FLEET)[:15], "elsewhere"]),
    epoch_s=st.floats(NOW - 90_000, NOW),
    why=st.sampled_from(["hang", "node_death", "start", "rank_crash"]),
    starts_failed=st.integers(0, 3),
)


@given(
    st.lists(exclusion, max_size=12, unique_by=lambda one: one.node),
    st.sets(st.sampled_from(sorted(FLEET)), max_size=40),
    st.integers(1, 40),
)
def test_laws(candidates: list[Exclusion], eligible: set[str], wanted: int) -> None:
    chosen = choose(candidates, eligible=eligible, wanted=wanted, now=NOW)
    assert set(chosen) <= set(candidates)
    if len(eligible) >= wanted:
        assert len(eligible - set(names(chosen))) >= wanted
    up = [one for one in chosen if one.node in eligible and not one.is_dead(NOW)]
    assert len(up) <= max(1, SHARE_MAX * len(eligible))


def test_the_persons_own_list_stays_whatever_we_add() -> None:
    before = as_before([event("REQUEUED", excluded=["n03"]), event("RESTARTING", "n05")])
    assert merged(["n[01-02]"], ["n01", "n02", "n03", "n09"], before, ["n04"]) == "n[01-02],n01,n02,n09,n04"
    assert merged([""], ["n03"], before, []) == ""


def test_what_slurm_could_give() -> None:
    nodes = [
        Node(name="n1", state="IDLE", partitions=("batch",), features=("h100", "ib")),
        Node(name="n2", state="MIXED+DRAIN", partitions=("batch",), features=("h100", "ib")),
        Node(name="n3", state="DOWN*", partitions=("batch",), features=("h100",)),
        Node(name="n4", state="IDLE*", partitions=("batch",), features=("h100", "ib")),
        Node(name="n5", state="ALLOCATED", partitions=("batch", "high"), features=("h100", "ib")),
        Node(name="n6", state="IDLE", partitions=("cpu",), features=("ib",)),
        Node(name="n7", state="IDLE", partitions=("batch",), features=("a100", "ib")),
        Node(name="n8", state="IDLE", partitions=("batch",), features=("h100", "ib")),
    ]
    job = Job(job_id=1, partition="batch", features="h100&ib")
    assert usable(nodes, job, excluded=("n8",)) == {"n1", "n5"}
    assert usable(nodes, Job(job_id=1, partition="batch,cpu", features="[h100|a100]"), excluded=()) == {
        "n1",
        "n5",
        "n7",
        "n8",
    }


def test_where_a_running_job_preferred_to_be_is_not_taken_for_its_constraint() -> None:
    nodes = [Node(name="n1", features=("pod1",)), Node(name="n2", features=("pod2",))]
    assert usable(nodes, Job(job_id=1, features="pod1", prefer="pod1"), excluded=()) == {"n1", "n2"}
    assert usable(nodes, Job(job_id=1, features="pod1", prefer="pod2"), excluded=()) == {"n1"}
