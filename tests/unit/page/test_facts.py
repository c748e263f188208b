"""What the page says of a look, without Slurm and without a browser."""

from dataclasses import replace

import pytest

from trainmaster.controller import snapshot
from trainmaster.controller.maintenance.state import Host, Maintenance, Stage, Train
from trainmaster.controller.memory import JobRecord, Memory, NodeRecord, NodeState, Try
from trainmaster.controller.policy import Guarantee
from trainmaster.page import changes, tracks
from trainmaster.page.facts import (
    Facts,
    Leaf,
    Look,
    NodeFact,
    Pod,
    Wiring,
    counts,
    entries,
    jobs_of,
    node_of,
    nodes_of,
    pods_of,
)
from trainmaster.slurm.values import Job, Node

NODES = tuple(Node(name=f"n{number}", state="IDLE", partitions=("batch",)) for number in range(1, 11))


def seen(*nodes: Node, jobs: tuple[Job, ...] = (), leaf_of: dict[str, str] | None = None) -> snapshot.Snapshot:
    changed = {node.name: node for node in (*NODES, *nodes)}
    return snapshot.of(at=1000.0, nodes=changed.values(), jobs=jobs, leaf_of=leaf_of)


@pytest.mark.parametrize(
    ("state", "ours", "look"),
    [
        ("IDLE", NodeState.OK, Look.FREE),
        ("ALLOCATED", NodeState.OK, Look.BUSY),
        ("IDLE", NodeState.PROBATION, Look.WATCHED),
        ("ALLOCATED", NodeState.SUSPECT, Look.WATCHED),
        ("IDLE+DRAIN", NodeState.QUARANTINED, Look.OURS),
        ("ALLOCATED+DRAIN", NodeState.REPAIR, Look.OURS),
        ("IDLE+DRAIN", NodeState.FOREIGN, Look.OTHERS),
        ("IDLE+DRAIN", NodeState.OK, Look.OTHERS),
        ("IDLE+MAINTENANCE", NodeState.OK, Look.OTHERS),
        ("DOWN*", NodeState.OK, Look.DOWN),
        ("DOWN+DRAIN", NodeState.QUARANTINED, Look.DOWN),
        ("IDLE*", NodeState.OK, Look.DOWN),
    ],
)
def test_a_node_is_shown_as_what_an_admin_would_name_first(state: str, ours: NodeState, look: Look) -> None:
    memory = Memory(nodes={"n1": NodeRecord(name="n1", state=ours)})
    assert node_of(Node(name="n1", state=state), memory, ()).look is look


def test_a_node_that_a_train_has_rebooted_is_the_trains_and_not_down() -> None:
    host = Host(name="n1", train="spring", car=1, stage=Stage.WORKING, since=5.0)
    fact = node_of(Node(name="n1", state="DOWN*+DRAIN"), Memory(maintenance=Maintenance(hosts={"n1": host})), ())
    assert (fact.look, fact.why, fact.since) == (Look.TRAIN, "train spring, working", 5.0)


def test_nodes_stand_in_natural_order_with_their_jobs() -> None:
    look = seen(jobs=(Job(job_id=7, state="RUNNING", nodes="n[2,10]"),))
    found = nodes_of(look, Memory(), Wiring(links={"n3": 0.5}))
    assert list(found)[:3] == ["n1", "n2", "n3"] and list(found)[-1] == "n10"
    assert found["n10"].jobs == (7,) and found["n2"].look is Look.BUSY and found["n3"].links == 0.5


def test_every_node_has_exactly_one_place_on_the_map() -> None:
    look = seen(leaf_of={"n1": "l1", "n2": "l1", "n3": "l2"})
    for wiring in (Wiring(), Wiring(pods=(Pod(name="p", leaves=(Leaf(name="l", nodes=("n2", "gone")),)),))):
        placed = [name for pod in pods_of(look, wiring) for leaf in pod.leaves for name in leaf.nodes]
        assert sorted(placed) == sorted(look.nodes)


def test_the_list_of_jobs_says_what_the_controller_does_with_them() -> None:
    tries = (Try(at=1.0, restarts=1, cause="node_fail"),)
    memory = Memory(jobs={7: JobRecord(job_id=7, tries=tries), 8: JobRecord(job_id=8, tries=tries, held="a loop")})
    waits = Job(job_id=9, state="PENDING", reason="Resources")
    jobs = (waits, *(Job(job_id=number, state="PENDING", restarts=1) for number in (7, 8)))
    found, total = jobs_of(seen(jobs=(*jobs, Job(job_id=1, state="RUNNING", nodes="n1"))), memory)
    assert total == 4 and found[0].job_id == 1
    notes = {job.job_id: job.note for job in found}
    assert notes[7] == "back 1 time, last: node_fail; waits for its start"
    assert notes[8] == "held: a loop" and notes[9] == "Resources" and notes[1] == ""


def test_the_feed_tells_whom_it_is_about_and_how_bad_it_is() -> None:
    found = entries([(3, 5.0, "node:n1", "drain done", "flap: x #0123456789"), (2, 4.0, "job:7", "release done", "")])
    assert [(one.kind, one.name, one.tone) for one in found] == [("node", "n1", "bad"), ("job", "7", "good")]


def facts(**values: object) -> Facts:
    look = seen()
    plain = Facts(cluster="lab", at=1.0, controller_at=1.0, tick_s=5.0, nodes=nodes_of(look, Memory(), Wiring()))
    return replace(plain, pods=pods_of(look, Wiring()), **values)  # type: ignore[arg-type]


def test_a_change_of_one_node_is_sent_as_one_node() -> None:
    old = facts()
    down = NodeFact(name="n4", look=Look.DOWN, slurm="DOWN*", why="Not responding")
    new = replace(old, at=2.0, nodes={**old.nodes, "n4": down})
    sent = changes.between(old, new)
    wanted = {"n4": {"name": "n4", "look": "down", "slurm": "DOWN*", "why": "Not responding"}}
    assert sent["nodes"] == wanted and sent["counts"]["down"] == 1 and counts(new)["free"] == 9
    assert "jobs" not in sent and "full" not in sent


def test_of_the_feed_only_what_is_new_is_sent() -> None:
    rows = [(number, 1.0, "node:n1", "x", "") for number in (3, 2, 1)]
    old, new = facts(feed=entries(rows[1:])), facts(feed=entries(rows))
    assert [entry["number"] for entry in changes.between(old, new)["feed"]] == [3]


def test_a_fleet_of_other_nodes_is_begun_anew() -> None:
    old = facts()
    fewer = {name: node for name, node in old.nodes.items() if name != "n3"}
    assert changes.between(old, replace(old, nodes=fewer)) == {"full": True}


def test_the_line_of_capacity_ends_with_slurms_own_word() -> None:
    look = seen(Node(name="n1", state="DOWN*", partitions=("batch",)))
    told = {"batch": [(10.0, 10), (20.0, 8), (5000.0, 1)]}
    (line,) = tracks.lines_of(look, {"batch": Guarantee(nodes=7, failure_buffer=1)}, told)
    assert line.points == ((10.0, 10), (20.0, 8), (1000.0, 9))
    assert (line.promised, line.buffer, line.now, line.size) == (7, 1, 9, 10)


def test_thinning_never_hides_the_lowest_point() -> None:
    points = [(float(at), 50 + (at * 37) % 13) for at in range(5000)]
    points[3333] = (3333.0, 2)
    found = tracks.thinned(points, most=200)
    assert len(found) <= 202 and (3333.0, 2) in found and found[0] == points[0]


def test_a_train_tells_where_it_is() -> None:
    train = Train(
        name="w", operations=("a", "b"), started_at=0.0, cycle_s=9.0, domain=2, by="ann", visited=3, off={"b": "bad"}
    )
    hosts = {
        name: Host(name=name, train="w", car=4, stage=stage, since=2.0)
        for name, stage in (("n1", Stage.CHECKING), ("n2", Stage.CHECKING), ("n3", Stage.DRAINING))
    }
    bad = Host(name="n9", train="w", car=1, stage=Stage.FAILED, since=1.0, why="a failed", visited=("w",))
    state = Maintenance(trains={"w": train}, hosts=hosts, past={"n9": bad})
    (fact,) = tracks.trains_of(state, 10)
    assert (fact.where, fact.in_hand, fact.left, fact.operations) == ("under way", 3, 4, ("a",))
    assert [(car.stage, car.hosts) for car in fact.at_work] == [("CHECKING", ("n1", "n2")), ("DRAINING", ("n3",))]
    assert fact.failed[0].why == "a failed"
