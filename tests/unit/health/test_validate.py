"""Which nodes a validation takes, what it does about drains, and what it leaves alone."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainmaster.health import ledger
from trainmaster.health.finding import Action, Finding, Verdict, fail, note, unknown
from trainmaster.health.ledger import Cause, Ledger, NodeView, Step
from trainmaster.health.validate import reserve
from trainmaster.health.validate.choose import choose, kinds
from trainmaster.health.validate.consequence import bounded, consequence, exit_code, verdict_of
from trainmaster.slurm.values import Job, Node, Partition, Reservation

OURS = "[HC] deep.cpu.speed: cpu_hash_mbps 40, its peers have 100"


def node(name: str = "n01", state: str = "IDLE", reason: str = "", **more: object) -> Node:
    made = Node(name=name, state=state, reason=reason, partitions=("batch",), cpus=8, memory_mib=1024)
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "state", ["IDLE", "IDLE+PLANNED", "IDLE+CLOUD", "IDLE+DRAIN", "IDLE+DRAIN+MAINTENANCE+RESERVED"]
)
def test_who_is_idle_is_taken(state: str) -> None:
    found = choose([node(state=state, reason=OURS)])
    assert [one.name for one in found.taken] == ["n01"] and not found.left
    assert dict(found.lifts) == ({"n01": OURS} if "DRAIN" in state else {})


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("ALLOCATED", "", "it is ALLOCATED"),
        ("MIXED+DRAIN", OURS, "it is MIXED"),
        ("IDLE*", "", "does not answer"),
        ("IDLE+NOT_RESPONDING", "", "does not answer"),
        ("DOWN", "", "it is DOWN"),
        ("DOWN+DRAIN", OURS, "it is DOWN"),
        ("IDLE+COMPLETING", "", "COMPLETING"),
        ("IDLE+POWERED_DOWN", "", "POWERED_DOWN"),
        ("IDLE+DRAIN", "bad DIMM, ticket 7", "somebody else: bad DIMM, ticket 7"),
        ("IDLE+DRAIN", "", "somebody else"),
        ("IDLE+DRAIN", "Prolog error", "somebody else"),
        ("", "", "it is "),
    ],
)
def test_who_is_left_and_why(state: str, reason: str, words: str) -> None:
    found = choose([node(state=state, reason=reason)])
    assert not found.taken and not found.lifts and words in found.left["n01"]


def test_a_node_in_somebodys_reservation_is_theirs() -> None:
    held = {"n01": "tm-window"}
    assert "tm-window" in choose([node()], held=held).left["n01"]
    assert choose([node()], held=held, within="tm-window").taken


def test_peers_are_nodes_with_the_same_hardware_in_a_partition_that_is_up() -> None:
    partitions = [
        Partition(name="high", total_nodes=9),
        Partition(name="batch", total_nodes=3),
        Partition(name="old", total_nodes=1, up=False),
    ]
    both = ("high", "batch")
    nodes = [
        node("a", partitions=both),
        node("b", partitions=both),
        node("c", partitions=("high",), gres="gpu:h100:8(S:0-1)"),
    ]
    nodes.append(node("d", partitions=("old",)))
    found = kinds(nodes, partitions)
    assert [(kind.names, kind.partition, kind.gpus) for kind in found] == [
        (("a", "b"), "batch", 0),
        (("c",), "high", 8),
    ]
    assert [kind.names for kind in kinds(nodes, partitions, wanted="batch")] == [("a", "b")]
    assert kinds(nodes, partitions, wanted="nope") == ()


GOOD = (note("")._replace(check="deep.cpu.speed"), note("")._replace(check="deep.answer"))
BAD = (fail(Action.DRAIN, "cpu_hash_mbps 40, its peers have 100")._replace(check="deep.cpu.speed"),)


def test_who_fails_is_drained_once_with_our_reason() -> None:
    assert (lambda step: (step.kind, step.reason))(consequence(node(), BAD)) == ("drain", OURS)
    drained = node(state="IDLE+DRAIN", reason=OURS)
    assert consequence(drained, BAD).kind == "nothing"
    other = (BAD[0]._replace(detail="cpu_hash_mbps 39, its peers have 101"),)
    assert consequence(drained, other).kind == "nothing", "the same cause with other figures"
    worse = (*BAD, fail(Action.DRAIN, "bits")._replace(check="deep.memory.patterns"))
    assert consequence(drained, worse).kind == "drain"


def test_who_was_drained_for_deep_checks_and_passes_is_resumed() -> None:
    assert consequence(node(state="IDLE+DRAIN", reason=OURS), GOOD).kind == "resume"


@pytest.mark.parametrize(
    ("reason", "findings"),
    [
        (OURS, ()),
        (OURS, (GOOD[1],)),
        (OURS, (GOOD[0], unknown(Action.COMMENT, "?")._replace(check="deep.pair.reach"))),
        (OURS, (Finding("deep.cpu.speed", Verdict.SKIP), GOOD[1])),
        (OURS, (*GOOD, fail(Action.COMMENT, "observed only")._replace(check="gpu.temp"))),
        ("[HC] gpu.xid: 79 on 0000:0f:00.0", GOOD),
        (f"{OURS}; gpu.xid: 79", GOOD),
        (f"{OURS}; deep.storage.data: Input/output error on /scratch", GOOD),
        ("bad DIMM", GOOD),
        ("", GOOD),
    ],
)
def test_who_stays_drained(reason: str, findings: tuple[Finding, ...]) -> None:
    step = consequence(node(state="IDLE+DRAIN", reason=reason), findings)
    assert step.kind == "nothing" and step.said


@pytest.mark.parametrize("reason", ["bad DIMM", "Prolog error", "", "[TM] train: plan 7"])
def test_what_others_wrote_is_never_touched(reason: str) -> None:
    for findings in (GOOD, BAD):
        assert consequence(node(state="IDLE+DRAIN", reason=reason), findings).kind == "nothing"


def test_a_drain_by_the_nodes_own_checks_keeps_its_reason() -> None:
    own = node(state="IDLE+DRAIN", reason="[HC] gpu.xid: 79 on 0000:0f:00.0")
    assert consequence(own, BAD).kind == "nothing"


def test_other_checks_than_deep_ones_are_left_to_the_node_itself() -> None:
    assert consequence(node(), (fail(Action.DRAIN, "79")._replace(check="gpu.xid"),)).kind == "nothing"


@settings(max_examples=40)
@given(st.integers(0, 60), st.integers(1, 1000))
def test_never_more_than_a_storm(failing: int, looked_at: int) -> None:
    steps = [consequence(node(f"n{number}"), BAD) for number in range(failing)]
    kept, said = bounded(steps, looked_at=looked_at, most=None)
    drained = [step for step in kept if step.kind == "drain"]
    assert len(drained) in (0, failing) and len(drained) <= max(3, looked_at // 20)
    assert bool(said) == (len(drained) < failing)
    assert not bounded(steps, looked_at=looked_at, most=failing)[1]


def test_exit_codes() -> None:
    ok, warn, bad, dark = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.UNKNOWN
    assert [exit_code({"a": ok}), exit_code({"a": ok, "b": warn}), exit_code({"a": warn, "b": dark})] == [0, 1, 3]
    assert [exit_code({"a": dark, "b": bad}), exit_code({"a": Verdict.HUNG}), exit_code({})] == [2, 2, 3]
    assert verdict_of(()) is dark and verdict_of(GOOD) is ok


def test_what_was_left_behind_and_what_was_not() -> None:
    named = [Reservation(name=name) for name in ("hc-validate-1000-7", "hc-validate-2000-8", "hc-keep-1000-9", "tm-1")]
    job = Job(job_id=1, name="hc-validate-1000-7", state="RUNNING")
    assert reserve.stale(named, [], now_s=2010.0) == ("hc-validate-1000-7",), "the other may be about to submit its job"
    assert reserve.stale(named, [job], now_s=2010.0) == ()
    assert reserve.stale(named, [replace(job, state="COMPLETED")], now_s=9e9) == (
        "hc-validate-1000-7",
        "hc-validate-2000-8",
    )


def test_a_nodes_own_pass_leaves_the_drain_of_a_validation_alone() -> None:
    step = Step("drain", "[HC] gpu.xid: 79", Ledger((Cause("gpu.xid", "", "drain", "b1"),)))
    allowed, after = ledger.permitted(step, NodeView(True, OURS))
    assert not allowed and after.reason == "" and "validation" in after.note
    # A deep check that the node ran by itself is its own drain.
    mine = step._replace(ledger=step.ledger._replace(reason=OURS))
    assert ledger.permitted(mine, NodeView(True, OURS))[0]
