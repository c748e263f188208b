"""Which drains are ours: never twice, never another's, never too many, and taken back only when the cause is gone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.health import enforce, ledger, policy, registry
from trainmaster.health.finding import Action, Finding, Verdict, fail
from trainmaster.health.ledger import Ledger, NodeView, Step
from trainmaster.health.policy import Decision
from trainmaster.health.profile import Profile

RESTS = {"gpu.hung": ["gpu.temp"], "gpu.query": ["gpu.temp"]}
IDLE = NodeView(False, "")


def decide(*findings: Finding) -> Decision:
    return policy.decide(findings, checks={}, strikes={}, profile=Profile({}), now_s=0.0)


def bad(check: str = "fs.usage", subject: str = "/tmp", action: Action = Action.DRAIN) -> Finding:
    return fail(action, "96% full", subject=subject)._replace(check=check)


def good(check: str = "fs.usage") -> Finding:
    return Finding(check, Verdict.OK)


def blind(check: str = "fs.usage") -> Finding:
    return Finding(check, Verdict.UNKNOWN)


def step(old: Ledger, *findings: Finding, boot_id: str = "b1") -> Step:
    return ledger.wanted(old, decide(*findings), boot_id, RESTS)


def drained(*findings: Finding) -> Ledger:
    """The ledger after a drain for these."""
    taken, after = ledger.permitted(step(Ledger(), *findings), IDLE)
    assert taken and after.reason
    return after


def kinds(old: Ledger, *passes: tuple[Finding, ...], boot_id: str = "b1") -> list[str]:
    found = []
    for findings in passes:
        wanted = step(old, *findings, boot_id=boot_id)
        found.append(wanted.kind)
        old = wanted.ledger if wanted.kind == "nothing" else ledger.permitted(wanted, NodeView(True, old.reason))[1]
    return found


def test_a_healthy_node_asks_for_nothing() -> None:
    assert step(Ledger(), good()) == Step("nothing", "", Ledger())


def test_a_cause_drains_once() -> None:
    after = drained(bad())
    assert after.reason == "[HC] fs.usage: 96% full on /tmp"
    assert kinds(after, (bad(),), (bad(),)) == ["nothing", "nothing"]
    # Somebody resumed the node by hand, and the cause is the same: that is their decision.
    assert step(after, bad()).kind == "nothing"


def test_another_cause_drains_with_a_reason_for_both() -> None:
    wanted = step(drained(bad()), bad(), bad("ib.state", "mlx5_0/1"))
    assert wanted.kind == "drain" and "fs.usage" in wanted.reason and "ib.state" in wanted.reason
    assert ledger.permitted(wanted, NodeView(True, "[HC] fs.usage: 96% full on /tmp"))[0]


def test_what_is_mended_is_resumed_after_two_good_passes() -> None:
    assert kinds(drained(bad()), (good(),), (good(),)) == ["nothing", "resume"]
    assert kinds(drained(bad()), (good(),), (bad(),), (good(),), (good(),)) == [
        "nothing",
        "nothing",
        "nothing",
        "resume",
    ]


def test_not_to_have_looked_is_no_answer() -> None:
    after = drained(bad())
    assert kinds(after, *(((good("ib.state"),),) * 4)) == ["nothing"] * 4
    assert kinds(after, *(((blind(),),) * 4)) == ["nothing"] * 4


def test_what_needs_a_reset_is_resumed_only_after_the_node_has_booted() -> None:
    after = drained(bad("gpu.xid", "0000:0f:00.0", Action.DRAIN_RESET))
    assert kinds(after, *(((good("gpu.xid"),),) * 4)) == ["nothing"] * 4
    assert kinds(after, *(((good("gpu.xid"),),) * 2), boot_id="b2") == ["nothing", "resume"]


def test_a_tool_that_hung_is_over_when_its_checks_can_judge_again() -> None:
    hung = Finding("gpu.hung", Verdict.HUNG, Action.DRAIN, "", "no answer within 20 s")
    after = drained(hung, blind("gpu.temp"))
    assert kinds(after, *(((blind("gpu.temp"),),) * 3)) == ["nothing"] * 3
    assert kinds(after, *(((good("fs.usage"),),) * 3)) == ["nothing"] * 3
    assert kinds(after, *(((good("gpu.temp"),),) * 2)) == ["nothing", "resume"]


def test_what_another_wrote_is_neither_overwritten_nor_cleared() -> None:
    wanted = step(Ledger(), bad())
    taken, after = ledger.permitted(wanted, NodeView(True, "bad DIMM, see ticket 7"))
    assert not taken and after.reason == "" and "ticket 7" in after.note
    # Their drain is over and our cause is not.
    assert step(after, bad()).kind == "drain"
    resume = step(step(drained(bad()), good()).ledger, good())
    assert resume.kind == "resume"
    for view in (NodeView(True, "bad DIMM"), NodeView(True, "[HC] fs.usage: something else"), IDLE):
        assert ledger.permitted(resume, view) == (False, Ledger())
    assert ledger.permitted(resume, NodeView(True, "[HC] fs.usage: 96% full on /tmp")) == (True, Ledger())


def test_a_storm_drains_nobody() -> None:
    wanted = step(Ledger(), bad())
    taken, after = ledger.permitted(wanted, NodeView(False, "", recent=ledger.STORM_NODES))
    assert not taken and "the check may be wrong" in after.note
    assert step(after, bad()).kind == "drain", "it is tried again"


def test_slurmctld_away_is_remembered() -> None:
    after = ledger.unreachable(step(Ledger(), bad()), "no answer")
    assert after.causes and not after.reason and step(after, bad()).kind == "drain"
    # The cause went before anybody could be told.
    assert kinds(after, (good(),), (good(),)) == ["nothing", "nothing"]
    assert step(step(after, good()).ledger, good()).ledger == Ledger()


def test_a_drain_of_ours_that_was_forgotten_is_known_again_by_its_reason() -> None:
    wanted = step(Ledger(), bad())
    taken, after = ledger.permitted(wanted, NodeView(True, wanted.reason))
    assert not taken and after.reason == wanted.reason


SHOWN = (
    "NodeName=n01 Arch=x86_64 CoresPerSocket=8 State=IDLE+DRAIN ThreadsPerCore=1 OS=Linux 6.1 State=fake "
    "Reason=[HC] gpu.xid: 79, fell off the bus on 0000:0f:00.0 [root@2026-11-23T10:00:00] Comment=see [x@y]\n"
)


def test_what_slurmctld_says_is_read() -> None:
    reasons = "n01|990|[HC] a: b\nn02|990|[HC] a: b\nn02|990|[HC] a: b\nn03|100|[HC] a: b\nn04|990|bad DIMM\ngarbage\n"
    view = ledger.view_of(SHOWN, reasons, node="n01", now_s=1000.0)
    # n02 is in two partitions, n03's 900 s are more than the 600 of the window, n04 was drained by somebody else.
    assert view == NodeView(True, "[HC] gpu.xid: 79, fell off the bus on 0000:0f:00.0", 1)
    assert ledger.view_of(SHOWN, "", node="n02", now_s=0.0) is None
    idle = ledger.view_of("NodeName=n01 State=IDLE ThreadsPerCore=1\n", "", node="n01", now_s=0.0)
    assert idle == IDLE


@given(st.text(), st.text())
def test_no_words_of_slurm_are_raised(shown: str, reasons: str) -> None:
    ledger.view_of(shown, reasons, node="n01", now_s=0.0)


@given(st.text())
def test_no_garbage_is_taken_for_a_ledger(text: str) -> None:
    assert ledger.decode(text) == Ledger()


def test_a_ledger_is_kept() -> None:
    after = drained(bad(), bad("gpu.xid", "g", Action.DRAIN_RESET))
    assert ledger.decode(ledger.encode(after)) == after


SEEN = st.sampled_from([bad(), good(), blind(), bad("gpu.xid", "g", Action.DRAIN_RESET), good("gpu.xid")])
VIEWS = st.sampled_from(["as we left it", "resumed by hand", "taken over"])


@given(st.lists(st.tuples(st.lists(SEEN, max_size=3), VIEWS), max_size=12))
def test_laws(passes: list[tuple[list[Finding], str]]) -> None:
    """Whatever happens: no drain over another's reason, no resume of what is not ours, one drain for one cause."""
    book, slurm = Ledger(), NodeView(False, "")
    for findings, event in passes:
        if event == "resumed by hand":
            slurm = NodeView(False, "")
        elif event == "taken over":
            slurm = NodeView(True, "bad DIMM")
        before = book
        wanted = ledger.wanted(book, decide(*findings), "b1", RESTS)
        book = wanted.ledger
        if wanted.kind == "nothing":
            continue
        taken, book = ledger.permitted(wanted, slurm)
        if not taken:
            continue
        if wanted.kind == "drain":
            assert not slurm.drained or slurm.reason.startswith("[HC] ")
            assert set(wanted.ledger.causes) - set(before.causes) or not before.reason
            slurm = NodeView(True, wanted.reason)
        else:
            assert slurm == NodeView(True, before.reason)
            slurm = NodeView(False, "")


def test_every_source_knows_its_checks() -> None:
    rests: Any = registry.rests()
    assert "gpu.ecc.uncorr" in rests["gpu.hung"] and "fs.alive" in rests["fs.space"]


@pytest.mark.parametrize("text", ["n01|2026-11-23T10:00:00|[HC] a|b", "n01|Unknown|x", "", "a"])
def test_times_of_sinfo(text: str) -> None:
    lines = enforce._with_seconds(text).splitlines()
    assert len(lines) == text.count("2026")
