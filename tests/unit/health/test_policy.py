"""From findings to a decision: modes, strikes, reasons, exit codes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.health import policy
from trainmaster.health.check import Check
from trainmaster.health.finding import DRAINS, Action, Finding, Verdict, fail, unknown, warn
from trainmaster.health.policy import Decision, decide
from trainmaster.health.profile import Profile


def check(check_id: str, **different: Any) -> Check:
    return Check(id=check_id, about="", sources=(), judge=lambda context: [], **different)


CHECKS = {
    entry.id: entry
    for entry in (check("gpu.ecc.uncorr"), check("gpu.temp", strikes=3), check("x.day", strikes=2, window_s=100.0))
}


def weigh(*findings: Finding, strikes: Any = None, profile: Any = None, now_s: float = 1000.0) -> Decision:
    return decide(findings, checks=CHECKS, strikes=strikes or {}, profile=Profile(profile or {}), now_s=now_s)


def ecc(action: Action = Action.DRAIN_RESET) -> Finding:
    return fail(action, "3 uncorrectable", subject="0000:0f:00.0")._replace(check="gpu.ecc.uncorr")


def hot() -> Finding:
    return fail(Action.DRAIN, "0 C to its limit", subject="g")._replace(check="gpu.temp")


def test_nothing_found_asks_for_nothing() -> None:
    decision = weigh(Finding("gpu.temp", Verdict.OK), Finding("ib.state", Verdict.SKIP))
    assert (decision.action, decision.reason, decision.exit_code, decision.strikes) == (Action.NONE, "", 0, {})


def test_the_reason_begins_with_our_mark_and_the_check() -> None:
    decision = weigh(ecc())
    assert decision.reason == "[HC] gpu.ecc.uncorr: 3 uncorrectable on 0000:0f:00.0"
    assert (decision.action, decision.requeue, decision.exit_code) == (Action.DRAIN_RESET, False, 2)


def test_what_needs_hands_outranks_what_a_reset_mends() -> None:
    decision = weigh(ecc(), ecc(Action.DRAIN))
    assert decision.action is Action.DRAIN
    assert weigh(ecc(), ecc(Action.DRAIN_REQUEUE)).requeue


@pytest.mark.parametrize(
    ("modes", "action", "verdict"),
    [
        ({}, Action.DRAIN_RESET, Verdict.FAIL),
        ({"*": "comment"}, Action.COMMENT, Verdict.FAIL),
        ({"*": "drain", "gpu": "observe"}, Action.NONE, Verdict.FAIL),
        ({"gpu": "observe", "gpu.ecc": "drain"}, Action.DRAIN_RESET, Verdict.FAIL),
    ],
)
def test_the_site_decides_how_far_a_check_may_go(modes: dict[str, str], action: Action, verdict: Verdict) -> None:
    decision = weigh(ecc(), profile={"modes": modes})
    assert (decision.action, decision.findings[0].verdict) == (action, verdict)


def test_a_strike_is_a_warning_until_there_are_enough() -> None:
    strikes: Any = {}
    actions = []
    for number in range(4):
        decision = weigh(hot(), strikes=strikes, now_s=1000.0 + 60 * number)
        strikes = decision.strikes
        actions.append((decision.action, decision.findings[0].verdict))
    assert actions == [(Action.COMMENT, Verdict.WARN)] * 2 + [(Action.DRAIN, Verdict.FAIL)] * 2


def test_one_good_pass_clears_consecutive_strikes() -> None:
    strikes = weigh(hot(), strikes=weigh(hot()).strikes).strikes
    assert len(strikes["gpu.temp|g"]) == 2
    assert weigh(Finding("gpu.temp", Verdict.OK), strikes=strikes).strikes == {}


def test_a_pass_that_could_not_look_neither_counts_nor_clears() -> None:
    strikes = weigh(hot(), strikes=weigh(hot()).strikes).strikes
    blind = unknown(Action.NONE, "gpu.query hung")._replace(check="gpu.temp")
    assert weigh(blind, strikes=strikes).strikes == strikes


def test_strikes_in_a_window_outlive_good_passes_and_age() -> None:
    bad = fail(Action.DRAIN, "again", subject="d")._replace(check="x.day")
    strikes = weigh(bad, now_s=1000.0).strikes
    strikes = weigh(now_s=1050.0, strikes=strikes).strikes
    assert weigh(bad, now_s=1090.0, strikes=strikes).action is Action.DRAIN
    assert weigh(bad, now_s=1200.0, strikes=strikes).action is Action.COMMENT
    # A clock that was set back must not keep a strike for ever.
    assert weigh(bad, now_s=10.0, strikes=strikes).action is Action.COMMENT


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ((), 0),
        (("ok", "skip"), 0),
        (("warn",), 1),
        (("warn", "unknown"), 3),
        (("unknown", "fail"), 2),
        (("hung",), 2),
    ],
)
def test_exit_codes(verdicts: tuple[str, ...], code: int) -> None:
    assert policy.exit_code([Finding("a", Verdict(verdict)) for verdict in verdicts]) == code


@given(
    st.lists(
        st.tuples(st.sampled_from(["gpu.xid", "ib.state", "fs.usage"]), st.text(max_size=120), st.text(max_size=40)),
        max_size=30,
    )
)
def test_a_reason_is_one_bounded_line_that_slurm_takes(rows: list[tuple[str, str, str]]) -> None:
    findings = [fail(Action.DRAIN, detail, subject=subject)._replace(check=name) for name, detail, subject in rows]
    text = policy.reason(findings)
    assert len(text.encode()) <= policy.REASON_MAX
    assert text.isascii() and "\n" not in text and '"' not in text
    if findings:
        assert text.startswith("[HC] ") and text[5:].partition(":")[0] in {name for name, _, _ in rows}


@given(st.lists(st.sampled_from([ecc(), hot(), warn("w")._replace(check="a"), Finding("b", Verdict.OK)]), max_size=8))
def test_nothing_drains_in_observe_mode(findings: list[Finding]) -> None:
    decision = weigh(*findings, profile={"modes": {"*": "observe"}})
    assert decision.action is Action.NONE and not decision.reason
    assert not [finding for finding in decision.findings if finding.action in DRAINS]
