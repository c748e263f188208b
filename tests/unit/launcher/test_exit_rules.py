"""The exit policy: what a person may write, what is refused and in which words, and which rule counts."""

import argparse
import signal
import time

import pytest

from trainmaster.errors import SpecError
from trainmaster.launcher import exit_rules, plan
from trainmaster.launcher.exit_rules import CAUSES, DEFAULT, RESERVED, Rule, Then, from_value, in_order
from trainmaster.launcher.search import SEARCH_S, Search
from trainmaster.launcher.submit import submit_cli
from trainmaster.launcher.submit.spec import JobSpec
from trainmaster.launcher.submit.spec_file import decode
from trainmaster.launcher.supervise.budget import Budget, Limits
from trainmaster.launcher.supervise.decide import Action, Decision, decide, first_rule
from trainmaster.launcher.supervise.symptom import Outcome, RankExit, Symptom

LIMITS = Limits(restarts_max=10, no_progress_max=3, requeues_max=10, backoff_s=1.0)


def ended(rank: int, code: int, *, text: str = "", said: str = "", at: float = 0.0, node: str = "") -> RankExit:
    return RankExit(rank=rank, node=node or f"n{rank}", code=code, epoch_s=at, text=text, said=said)


def after(*exits: RankExit, rules: tuple[Rule, ...] = (), healthy: int = 2, **values: object) -> Decision:
    more = {"advanced": True, "steps_known": True, **values}
    outcome = Outcome(world_size=3, exits=exits, **more)  # type: ignore[arg-type]
    limits = Limits(restarts_max=10, no_progress_max=3, requeues_max=10, backoff_s=1.0, rules=rules)
    return decide(outcome, Budget(), limits, now=1e6, healthy=healthy, wanted=2)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("code=3,4 => hold", Rule(code=(3, 4), then="hold")),
        ("signal=segv,11 => restart_without_node", Rule(signal=("SIGSEGV", "SIGSEGV"), then="restart without node")),
        (
            "text='out of  data' cause=rank_crash => Succeed",
            Rule(text="out of  data", cause=("rank_crash",), then="succeed"),
        ),
        ("text='a => b' => fail", Rule(text="a => b", then="fail")),
    ],
)
def test_rules_as_text(text: str, rule: Rule) -> None:
    assert from_value(text) == (rule, ())
    assert from_value(str(rule))[0] == rule


def test_rules_from_a_file_and_back_from_the_plan(tmp_path) -> None:
    spec = decode(
        {"exit_rules": [{"code": 3, "then": "hold"}, {"text": "ECC", "cause": ["rank_crash"], "then": "requeue"}]}
    )
    assert spec.exit_rules == (Rule(code=(3,), then="hold"), Rule(text="ECC", cause=("rank_crash",), then="requeue"))
    made = plan.Plan(
        uid="u", name="n", run_dir=str(tmp_path), python="p", nodes=1, exit_rules=exit_rules.read(spec.exit_rules)
    )
    plan.write(tmp_path, made)
    assert plan.read(tmp_path) == made


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ("code=3 => hold", "exit_rules must be a list of rules"),
        (({"cod": 3, "then": "hold"},), "exit_rules[1]: there is no key 'cod'; 'code' may be meant"),
        (({"code": 3},), "exit_rules[1]: `then` is missing; it is one of: succeed, restart,"),
        (("code=3",), "has no `=>`"),
        (("code 3 => hold",), "'code' is no condition"),
        (("text='oh => hold",), "cannot be read: No closing quotation"),
        ((Rule(then="hold"),), "it has no condition"),
        ((Rule(code=(75,), then="hold"),), "code 75 is reserved: it asks for a requeue"),
        ((Rule(code=(0,), then="hold"),), "code 0 is reserved"),
        ((Rule(code=(300,), then="hold"),), "an exit code is a number from 1 to 255, not 300"),
        (("code=x => hold",), "an exit code is a number from 1 to 255, not 'x'"),
        ((Rule(code=(3,), signal=("SIGBUS",), then="hold"),), "never with both"),
        (("signal=SIGSEGVV => hold",), "there is no signal SIGSEGVV; SIGSEGV may be meant"),
        ((Rule(text="(", then="hold"),), "is no regular expression: missing )"),
        ((Rule(text="x*", then="hold"),), "is found in everything"),
        ((Rule(cause=("hangs",), then="hold"),), "there is no cause 'hangs'; 'hang' may be meant (causes: rank_crash,"),
        ((Rule(cause=("exclude_node",), then="hold"),), "cause 'exclude_node' belongs to a code"),
        ((Rule(code=(3,), then="hodl"),), "`then` cannot be 'hodl'; 'hold' may be meant"),
        ((Rule(cause=("timeout",), then="restart"),), "nothing can be restarted in place when the cause is timeout"),
        (("code=3 => hold", "code=3 => fail"), "exit_rules[2] (code=3 => fail): it never counts, since exit_rules[1]"),
    ],
)
def test_a_fault_is_named_at_submission(rules, fault: str) -> None:
    found = JobSpec(exit_rules=rules).faults()
    assert any(fault in one for one in found), found


def test_all_faults_of_all_rules_are_named_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        decode({"exit_rules": ["code=75 => hold", {"then": "fly", "code": 1}, "signal=NO => fail"], "nodes": 0})
    assert len(caught.value.faults) == 4


def test_every_cause_has_a_rule_of_ours() -> None:
    for cause in CAUSES:
        if cause != "never_requeue":
            rule, _ = first_rule(in_order(()), Symptom(cause=cause))
            assert cause in rule.cause, cause
    assert not any(True for rule in (*RESERVED, *DEFAULT) if rule.then not in set(Then))


def test_the_first_rule_that_fits_counts() -> None:
    rules = (Rule(code=(3,), text="b", then="hold"), Rule(code=(3,), then="succeed"))
    assert after(ended(0, 3, text="abc"), rules=rules).hold
    assert after(ended(0, 3, text="x"), rules=rules).action is Action.SUCCEED
    assert after(ended(0, 4), rules=rules).action is Action.RESTART


def test_a_code_counts_whoever_says_it_but_words_only_of_the_first_to_fail() -> None:
    shot, echo = ended(1, 1, text="boom", at=5.0), ended(2, 7, text="Connection reset by peer, boom?", at=4.0)
    assert after(shot, echo, rules=(Rule(code=(7,), then="hold"),)).hold
    assert not after(shot, echo, rules=(Rule(text="boom\\?", then="hold"),)).hold
    decision = after(shot, echo, rules=(Rule(text="boom", then="restart without node"),), healthy=3)
    assert (decision.action, decision.exclude) == (Action.RESTART, ("n1",))


def test_words_are_looked_for_in_both_streams() -> None:
    rules = (Rule(text=r"loss is nan", then="fail"),)
    decision = after(ended(0, 1, text="Traceback ...", said="step 7: loss is nan\n"), rules=rules)
    assert (decision.action, decision.rule) == (Action.END, "text='loss is nan' => fail")
    assert after(ended(0, 1, text="Traceback ...", said="x" * 9000), rules=rules).action is Action.RESTART


def test_signals() -> None:
    rules = (Rule(signal=("SIGBUS", "SIGSEGV"), then="requeue without nodes"),)
    decision = after(ended(0, -11), rules=rules)
    assert (decision.action, decision.exclude, decision.cause) == (Action.REQUEUE, ("n0",), "rank_crash")
    assert after(ended(0, -9), rules=rules).action is Action.RESTART


def test_93_cancel_and_the_good_end_stand_above_all_rules() -> None:
    rules = (Rule(text="", cause=("rank_crash",), then="restart"), Rule(text="x", then="requeue"))
    never = after(ended(0, 93, text="x"), rules=rules)
    assert (never.action, never.cause, never.state) == (Action.END, "never_requeue", "FAILED_USER")
    assert after(ended(0, 93, text="x"), rules=rules, ending="preemption").action is Action.END
    cancelled = after(ended(0, 1, text="x"), rules=rules, ending="user")
    assert (cancelled.action, cancelled.state) == (Action.END, "CANCELLED")
    assert after(ended(0, 0), ended(1, 0), ended(2, 0), rules=rules).action is Action.SUCCEED


def test_a_rule_may_change_what_follows_from_the_time_limit() -> None:
    assert after(ending="timeout").action is Action.END
    rules = (Rule(cause=("timeout",), then="requeue"),)
    decision = after(ending="timeout", rules=rules)
    assert (decision.action, decision.cause) == (Action.REQUEUE, "timeout")
    assert after(ended(0, 75), ending="timeout").action is Action.REQUEUE


def test_what_is_being_ended_is_not_restarted_in_place() -> None:
    rules = (Rule(text="oops", then="restart without node"),)
    decision = after(ended(0, 1, text="oops"), ending="preemption", rules=rules)
    assert (decision.action, decision.exclude) == (Action.REQUEUE, ("n0",))


def test_without_a_spare_a_node_is_left_out_by_a_requeue() -> None:
    rules = (Rule(code=(17,), then="restart without node"),)
    assert after(ended(1, 17), rules=rules, healthy=3).exclude == ("n1",)
    decision = after(ended(1, 17), rules=rules, healthy=2)
    assert (decision.action, decision.exclude) == (Action.REQUEUE, ("n1",))


def test_words_about_a_broken_machine_leave_its_node_out() -> None:
    ecc = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    decision = after(ended(2, 1, text=ecc), healthy=3)
    assert (decision.action, decision.cause, decision.exclude) == (Action.RESTART, "node_fault", ("n2",))
    assert after(ended(2, 1, text=ecc), rules=(Rule(cause=("node_fault",), then="hold"),)).hold


def test_rules_of_the_command_line_come_before_those_of_the_file(tmp_path) -> None:
    (tmp_path / "job.toml").write_text('jump = {loss = 30}\n[[exit_rules]]\ncode = 3\nthen = "hold"\n')
    parser = argparse.ArgumentParser()
    submit_cli.configure(parser)
    words = [
        "--spec",
        str(tmp_path / "job.toml"),
        "--exit-rule",
        "signal=BUS => requeue",
        "--jump",
        "grad=9",
        "--",
        "x",
    ]
    spec = decode(submit_cli._values(parser.parse_args(words)))
    assert spec.exit_rules == (Rule(signal=("SIGBUS",), then="requeue"), Rule(code=(3,), then="hold"))
    assert spec.jump == {"loss": 30, "grad": 9.0}
    assert JobSpec(jump={"loss": 1}).faults() == (
        "jump: loss must be a number of median absolute deviations, at least 3, it is 1",
    )


ENDLESS = (r"(\w+\s?)+:", "(a+)+$", "(x+x+)+y", ".*.*.*.*=")


@pytest.mark.parametrize("expression", ENDLESS)
def test_an_expression_without_an_end_does_not_stall_the_supervisor(expression: str) -> None:
    """It was looked for until it was found, while the agents waited for a heartbeat."""
    slow, code = Rule(text=expression, then="hold"), Rule(code=(7,), then="requeue")
    began_s = time.process_time()
    made = after(ended(1, 7, text=("x" if "x" in expression else "a") * 8000 + "!"), rules=(slow, code))
    assert time.process_time() - began_s < 10 * SEARCH_S
    assert (made.action, made.given_up) == (Action.REQUEUE, (expression,)), "the rules after it still count"


def test_many_ranks_share_the_time_for_looking() -> None:
    rule = Rule(code=(7,), text="(a+)+$", then="hold")
    began_s = time.process_time()
    made = after(*(ended(rank, 7, text="a" * 8000 + "!") for rank in range(200)), rules=(rule,))
    assert time.process_time() - began_s < 10 * SEARCH_S and made.given_up == ("(a+)+$",)


def test_what_took_long_once_leaves_no_timer_and_no_handler_behind() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    search = Search(0.01)
    assert not search.found("(a+)+$", "a" * 8000 + "!")
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0) and signal.getsignal(signal.SIGVTALRM) is before
    assert not search.found("b", "b") and search.given_up == ["(a+)+$", "b"], "the time is over for all"


@pytest.mark.parametrize("expression", ENDLESS)
def test_an_expression_without_an_end_is_refused(expression: str) -> None:
    (fault,) = exit_rules.faults([Rule(text=expression, then="hold")])
    assert "takes more than" in fault


@pytest.mark.parametrize(
    "expression",
    ["out of data", r"loss scale reached \d+", r"(?i)cuda error: .* ECC", r"data of day .* are missing", r"^\w+: \d+$"],
)
def test_sound_expressions_are_not_refused(expression: str) -> None:
    assert not list(exit_rules.faults([Rule(text=expression, then="hold")]))
