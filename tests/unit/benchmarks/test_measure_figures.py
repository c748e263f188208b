"""Medians that failures cannot make better, ratios, goals, and the last line."""

import json

import pytest
from measure import figures, floor


def test_a_failed_repeat_makes_no_median_better():
    found = figures.spread("x_s", [1.0, None, 3.0])
    assert (found["x_s"], found["x_min_s"], found["x_max_s"], found["x_failed"]) == (3.0, 1.0, 3.0, 1)
    assert figures.spread("x_s", [1.0, None, None])["x_s"] is None
    assert figures.spread("x_s", [])["x_s"] is None


def test_a_ratio_needs_both():
    found: figures.Figures = {"a_s": 6.0, "b_s": 2.0, "c_s": None}
    assert figures.ratio(found, "a_s", "b_s") == 3.0
    assert figures.ratio(found, "a_s", "c_s") is None
    assert figures.ratio(found, "a_s", "d_s") is None


def test_goals_are_said_in_words():
    assert figures.goal(25.0, at_least=20) == "met (>= 20)"
    assert figures.goal(2.0, at_least=20) == "missed (>= 20)"


def test_the_last_line_is_one_flat_object():
    assert json.loads(figures.last_line({"a_s": 1.5, "b_s": None})) == {"a_s": 1.5, "b_s": None}
    with pytest.raises(AssertionError):
        figures.last_line({"a": [1]})


def test_a_part_of_the_floor_ends_with_its_last_rank():
    first = {"spawned": 0.0, "started": 1.0, "imported": 3.0, "rendezvous": 3.5, "loaded": 4.0, "stepped": 4.5}
    second = {"spawned": 0.1, "started": 1.2, "imported": 5.0, "rendezvous": 5.1, "loaded": 5.4}
    parts = floor.parts([first, second])
    assert parts["total"] == pytest.approx(4.4)
    assert parts["import"] == pytest.approx(3.8)
    assert sum(seconds for part, seconds in parts.items() if part != "total") == pytest.approx(parts["total"])
