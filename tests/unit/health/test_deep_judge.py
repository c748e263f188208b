"""The verdicts of a validation: who is slow, stuck or cut off, and above all who is not to blame."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainmaster.health import registry
from trainmaster.health.deep import told as reports
from trainmaster.health.deep.judge import ANSWER, REACH, SPEED, Look, judge, suspects
from trainmaster.health.deep.told import Told
from trainmaster.health.finding import DRAINS, Action, Finding, Verdict, fail

CPU = "deep.cpu.speed"
MEMORY = "deep.memory.speed"


def names(count: int) -> list[str]:
    return [f"n{number:03}" for number in range(count)]


def told(node: str, cpu: float = 100.0, memory: float = 200.0, **more: Any) -> Told:
    """A node that came to the end."""
    figures = {CPU: {"cpu_hash_mbps": cpu}, MEMORY: {"memory_copy_gbps": memory}}
    own = tuple(Finding(check, Verdict.OK) for check in (CPU, MEMORY))
    return Told(**{"node": node, "doing": reports.OVER, "findings": own, "figures": figures} | more)


def fleet(count: int, **odd: Told) -> Look:
    return Look({node: odd.get(node, told(node)) for node in names(count)})


def bad(look: Look, second: Look | None = None, nodes: list[str] | None = None) -> dict[str, list[str]]:
    """By node, the checks for which it would be drained."""
    found = judge(nodes or list(look.told), look, second)
    return {
        node: [one.check for one in findings if one.action in DRAINS]
        for node, findings in found.findings.items()
        if any(one.action in DRAINS for one in findings)
    }


def test_a_slow_node_is_named_if_it_is_slow_twice() -> None:
    first = fleet(4, n002=told("n002", cpu=40.0))
    assert suspects(judge(names(4), first)) == (("n002",), ())
    assert bad(first, Look({"n002": told("n002", cpu=45.0)})) == {"n002": [CPU]}
    again = judge(names(4), first, Look({"n002": told("n002", cpu=98.0)}))
    (one,) = [one for one in again.findings["n002"] if one.check == CPU]
    assert (one.verdict, one.action) == (Verdict.OK, Action.NONE) and "98 the second time" in one.detail


@pytest.mark.parametrize("second", [Look({}), Look({"n002": Told(node="n002", doing="deep.cpu")})])
def test_who_could_not_be_looked_at_again_is_not_drained(second: Look) -> None:
    first = fleet(4, n002=told("n002", cpu=40.0))
    assert bad(first, second) == {}
    verdicts = {one.verdict for one in judge(names(4), first, second).findings["n002"] if one.check == CPU}
    assert verdicts == {Verdict.UNKNOWN}


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_are_not_compared_and_do_not_pass_either(count: int) -> None:
    look = fleet(count, n000=told("n000", cpu=1.0))
    found = judge(names(count), look)
    assert bad(look) == {} and "not compared" in " ".join(found.notes)
    assert {one.verdict for one in found.findings["n000"] if one.check == CPU} == {Verdict.SKIP}


def test_what_the_site_has_named_is_not_compared() -> None:
    named = fail(Action.DRAIN, "cpu_hash_mbps 40, expected 100", value=40.0)._replace(check=CPU)
    slow = told("n001", cpu=40.0, named=("cpu_hash_mbps",), findings=(named,))
    first = fleet(4, n001=slow)
    assert bad(first, Look({"n001": slow})) == {"n001": [CPU]}
    assert bad(first, Look({"n001": slow._replace(findings=(), figures={CPU: {"cpu_hash_mbps": 99.0}})})) == {}


@pytest.mark.parametrize(("doing", "words"), [("deep.memory", "no end to deep.memory"), (None, "no answer")])
def test_who_does_not_come_back_is_hung_when_most_others_do(doing: str | None, words: str) -> None:
    look = fleet(4)
    others = {node: one for node, one in look.told.items() if node != "n003"}
    stuck = Look({**others, **({"n003": Told(node="n003", doing=doing)} if doing else {})})
    found = judge(names(4), stuck)
    (one,) = found.findings["n003"]
    assert one.check == ANSWER and one.verdict is Verdict.HUNG and one.action is Action.DRAIN and words in one.detail
    assert bad(stuck, nodes=names(4)) == {"n003": [ANSWER]}


def test_when_most_are_silent_nobody_is_to_blame() -> None:
    look = Look({"n000": told("n000"), "n001": told("n001")})
    assert bad(look, nodes=names(5)) == {} and bad(Look({}), nodes=names(5)) == {}
    assert bad(look, nodes=names(3)) == {}, "two are too few to blame a third"
    assert all(one.verdict is Verdict.UNKNOWN for one in judge(names(5), Look({})).findings["n000"])


def test_what_most_nodes_fail_is_the_fault_of_the_check() -> None:
    wrong = fail(Action.DRAIN, "came back differently")._replace(check="deep.memory.patterns")
    odd = {node: told(node, findings=(wrong,)) for node in names(3)}
    found = judge(names(4), fleet(4, **odd))
    assert bad(fleet(4, **odd)) == {} and "the check may be wrong" in " ".join(found.notes)
    assert bad(fleet(4, n001=odd["n001"]), Look({})) == {"n001": ["deep.memory.patterns"]}, (
        "once is enough for wrong bits"
    )


@pytest.mark.parametrize("mode", ["observe", "comment"])
def test_the_site_may_allow_less(mode: str) -> None:
    slow = told("n001", cpu=40.0, modes={"deep": mode})
    assert bad(fleet(4, n001=slow), Look({"n001": slow})) == {}


def test_the_sites_share_of_the_peers() -> None:
    slow = told("n001", cpu=60.0, thresholds={f"{CPU}:peers": 0.5})
    assert bad(fleet(4, n001=slow), Look({"n001": slow})) == {}


class Tournament:
    """Nodes that meet each other."""

    def __init__(self, count: int, *, slow: str = "", pair: tuple[str, str] | None = None, cut: str = "") -> None:
        self.nodes = names(count)
        rng = random.Random(count)

        def seconds(one: str, other: str) -> float | None:
            factor = 3.0 if slow in (one, other) else 4.0 if pair is not None and set(pair) == {one, other} else 1.0
            return None if cut in (one, other) else 0.01 * factor * rng.uniform(0.95, 1.05)

        self.met = {
            node: Told(
                node=node,
                doing=reports.OVER,
                pairs={other: seconds(node, other) for other in self.nodes if other != node},
            )
            for node in self.nodes
        }

    def look(self) -> Look:
        return Look({node: told(node) for node in self.nodes}, {"mpi": self.met})


def test_a_node_that_is_slow_with_every_partner() -> None:
    first = Tournament(5, slow="n002").look()
    assert suspects(judge(names(5), first)) == ((), ("n002",))
    assert bad(first, Tournament(4, slow="n002").look()) == {"n002": [SPEED]}
    assert bad(first, Tournament(4).look()) == {}, "the second time it was quick"
    assert bad(first, Look({})) == {}, "there was no second time"


def test_a_pair_that_is_slow_only_with_each_other_is_told_and_nobody_is_drained() -> None:
    look = Tournament(6, pair=("n001", "n004")).look()
    found = judge(names(6), look, Look({}))
    assert bad(look, Look({})) == {} and any(one.startswith("n001 and n004") for one in found.notes)
    warned = {node for node, findings in found.findings.items() if any(one.verdict is Verdict.WARN for one in findings)}
    assert warned == {"n001", "n004"}


def test_a_node_that_nobody_gets_through_to() -> None:
    first = Tournament(5, cut="n003").look()
    assert bad(first, Tournament(4, cut="n003").look()) == {"n003": [REACH]}
    assert bad(first, Tournament(5).look()) == {}


def test_a_tournament_that_did_not_take_place_is_not_known_rather_than_bad() -> None:
    note = {node: Told(node=node, doing=reports.OVER, note="no tournament by mpi: no mpi4py") for node in names(4)}
    for met in (note, {}):
        look = Look({node: told(node) for node in names(4)}, {"mpi": met})
        found = judge(names(4), look)
        assert bad(look) == {}
        assert all(any(one.verdict is Verdict.UNKNOWN for one in findings) for findings in found.findings.values())


figure = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5), st.none(), st.booleans())


@settings(max_examples=40)
@given(st.lists(st.tuples(figure, st.sampled_from([reports.OVER, "deep.cpu", reports.CHECKS])), max_size=9))
@example([(0.0, reports.OVER), (0.5, reports.OVER), (1, reports.OVER), (None, "deep.cpu"), (1.0, "deep.cpu")])
def test_whatever_is_told_no_verdict_falls_over_and_no_check_on_most(values: list[tuple[Any, str]]) -> None:
    """Two together may: two of five nodes that did not end and one that is slow; `bounded` sees to how many go."""
    nodes = names(len(values))
    look = Look(
        {node: told(node, cpu=cpu)._replace(doing=doing) for node, (cpu, doing) in zip(nodes, values, strict=True)}
    )
    found = judge(nodes, look, look)
    assert set(found.findings) == set(nodes)
    drained = Counter(
        check
        for findings in found.findings.values()
        for check in {one.check for one in findings if one.action in DRAINS}
    )
    assert all(count <= len(nodes) / 2 for count in drained.values())


@settings(max_examples=40)
@given(st.integers(3, 40), st.floats(0.0, 0.1), st.integers(0, 1000))
def test_nodes_that_differ_by_noise_alone_are_all_well(count: int, noise: float, seed: int) -> None:
    rng = random.Random(seed)
    nodes = {node: told(node, *(rng.uniform(1 - noise, 1 + noise) * 100 for _ in range(2))) for node in names(count)}
    assert suspects(judge(names(count), Look(nodes))) == ((), ())


@settings(max_examples=40)
@given(st.integers(4, 40), st.floats(0.05, 0.6), st.integers(0, 1000))
def test_one_that_is_slow_among_many_is_always_found(count: int, share: float, seed: int) -> None:
    rng = random.Random(seed)
    nodes = {node: told(node, *(rng.uniform(0.97, 1.03) * 100 for _ in range(2))) for node in names(count)}
    odd = rng.choice(names(count))
    nodes[odd] = told(odd, cpu=100 * share, memory=100.0)
    assert bad(Look(nodes), Look({odd: nodes[odd]})) == {odd: [CPU]}


def test_every_check_that_compares_belongs_to_the_deep_set() -> None:
    compared = [check for check in registry.every() if check.compare is not None]
    assert len(compared) >= 6
    for check in compared:
        assert check.id.startswith("deep.") and 0 < check.compare.share < 1  # type: ignore[union-attr]


def test_what_is_told_comes_back_as_it_was() -> None:
    one = told(
        "n001", findings=(fail(Action.DRAIN, "so", subject="x", value=1)._replace(check=CPU),), pairs={"n2": None}
    )
    assert reports.decode(reports.encode(one)) == one


@settings(max_examples=40)
@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5).map(str)))
def test_a_damaged_report_is_none(text: str) -> None:
    assert reports.decode(text) is None
    assert reports.decode(f'{{"node": "n1", "findings": {text!r}}}') is None


@pytest.mark.parametrize(
    "text", ['{"node": 3}', '{"node": "a", "figures": []}', '{"node": "a", "findings": [["x"]]}', "[]"]
)
def test_a_report_of_another_shape_is_none(text: str) -> None:
    assert reports.decode(text) is None
