"""Scores: slower than the peers, errors, what was cleared in between; and what they mean for a node."""

from dataclasses import replace

import pytest

from trainmaster.errors import FabricError
from trainmaster.fabric.cabling import inspect
from trainmaster.fabric.counters import growth, read_counters
from trainmaster.fabric.generate import generate, parse_shape
from trainmaster.fabric.health import ailments, scored
from trainmaster.fabric.merge import collapse, merge

FABRIC = generate(parse_shape("rail:2x4,rails=2"))
REPORT = """Errors for 0x2000000000000000 "su001-rail0"
   GUID 0x2000000000000000 port ALL: [SymbolErrorCounter == 800]
   GUID 0x2000000000000000 port 2: [SymbolErrorCounter == 800] [PortXmitDiscards == 12]

## Summary: 18 nodes checked, 1 bad nodes found
"""


def slower(link, lanes):
    widths = FABRIC.links.lanes.copy()
    widths[link] = lanes
    return replace(FABRIC, links=replace(FABRIC.links, lanes=widths))


def test_a_sound_fabric_has_nothing_to_say():
    assert (scored(FABRIC).links.score == 1).all()
    assert ailments(FABRIC) == ()
    assert inspect(merge(FABRIC)) == ()


def test_a_narrow_cable_costs_its_share_and_its_node_too():
    fabric = scored(slower(4, 1))
    assert fabric.links.score[4] == 0.25
    (one,) = ailments(slower(4, 1))
    assert (one.host, one.device, one.ends) == ("n03", "mlx5_0", ("n03 mlx5_0/1", "su001-rail0/3"))
    tree = collapse(fabric)
    assert tree.score[tree.index["n03"]] == (0.25 + 1) / 2
    assert sum(tree.score < 1) == 1


def test_a_whole_generation_of_slower_cables_between_switches_is_no_fault():
    rates = FABRIC.links.lane_gbps.copy()
    rates[FABRIC.links.a < len(FABRIC.switches)] = 25.0
    assert ailments(replace(FABRIC, links=replace(FABRIC.links, lane_gbps=rates))) == ()


def test_unknown_rates_are_no_fault():
    assert ailments(slower(4, 0)) == ()


def test_errors_lower_the_score_by_how_many_there_are_in_an_hour():
    counters = read_counters(REPORT, FABRIC)
    assert counters["0x2000000000000000", 2] == {"SymbolErrorCounter": 800, "PortXmitDiscards": 12}
    (one,) = ailments(FABRIC, counters)
    assert (one.host, one.score) == ("n02", pytest.approx(1 / 3))
    assert "SymbolErrorCounter 800" in one.causes[0]
    assert ailments(FABRIC, counters, hours=100)[0].score == pytest.approx(1 / 1.02)
    fabric = scored(FABRIC, counters)
    assert scored(fabric).links.score.tolist() == fabric.links.score.tolist()


def test_a_bad_uplink_lowers_every_node_behind_it_a_little():
    uplink = next(link for link in range(len(FABRIC.links)) if FABRIC.links.a[link] == 0)
    tree = collapse(scored(slower(uplink, 1)))
    behind = [tree.score[tree.index[f"n0{number}"]] for number in (1, 2, 3, 4)]
    assert 0.8 < min(behind) == max(behind) < 1
    assert all(tree.score[tree.index[f"n0{number}"]] == 1 for number in (5, 6, 7, 8))


def test_growth_takes_a_cleared_counter_for_new():
    old = {("0x1", 1): {"SymbolErrorCounter": 100}}
    assert growth(old, {("0x1", 1): {"SymbolErrorCounter": 130}})["0x1", 1]["SymbolErrorCounter"] == 30
    assert growth(old, {("0x1", 1): {"SymbolErrorCounter": 5}})["0x1", 1]["SymbolErrorCounter"] == 5


def test_perfquery_is_matched_by_local_address():
    hcas = (replace(FABRIC.hcas[0], lid=7), *FABRIC.hcas[1:])
    text = "# Port counters: Lid 7 port 1 (CapMask: 0x00)\nPortSelect:......................1\n"
    text += "SymbolErrorCounter:..............4242\n"
    counters = read_counters(text, replace(FABRIC, hcas=hcas))
    assert counters[FABRIC.hcas[0].guid, 1]["SymbolErrorCounter"] == 4242


def test_what_are_no_counters_is_refused_and_a_clean_report_is_not():
    assert read_counters("## Summary: 18 nodes checked, 0 bad nodes found\n", FABRIC) == {}
    for text in ("", "hello", "perfquery: iberror: failed"):
        with pytest.raises(FabricError):
            read_counters(text, FABRIC)


def test_wrong_sockets_and_missing_rails_are_told():
    a = FABRIC.links.a.copy()
    a[[2, 9]] = a[[9, 2]]
    found = inspect(merge(replace(FABRIC, links=replace(FABRIC.links, a=a))))
    assert {one.code for one in found} == {"wrong-socket"}
    assert any("n02 mlx5_0 is on su002-rail1 of su002, and its node is in su001" in one.what for one in found)
    scores = FABRIC.links.score.copy()
    scores[0] = 0
    assert ailments(replace(FABRIC, links=replace(FABRIC.links, score=scores)))[0].causes == ("down",)
