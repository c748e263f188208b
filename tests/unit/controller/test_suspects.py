"""What a user's own file may say against nodes."""

import json

import pytest

from trainmaster.controller import suspects

HELD = frozenset({"n1", "n2"})


def evidence_of(line: str) -> list[str]:
    return [node for node, _ in suspects.parse(line, job_id=7, held=HELD, now=0.0)]


def told(weight: str, symptom: str = '"hang"') -> str:
    return f'{{"symptom": {symptom}, "suspects": [{{"node": "n1", "weight": {weight}}}]}}'


@pytest.mark.parametrize(
    "weight", ["Infinity", "-Infinity", "NaN", "1e400", "9" * 400, "9" * 5000, "[]", '"x"', "null"]
)
def test_a_weight_that_is_no_number_says_nothing(weight: str) -> None:
    """9 with 400 digits is a whole number for JSON and too large for a float, which ended the controller's tick."""
    assert evidence_of(told(weight)) == []


def test_a_symptom_cannot_steer_a_terminal_or_add_a_line() -> None:
    ((_, piece),) = suspects.parse(told("1", json.dumps("a\x1b[2Jb\nc")), job_id=7, held=HELD, now=0.0)
    assert piece.what == "job 7: a?[2Jb?c"


@pytest.mark.parametrize("line", ["", "[" * 100_000, "{}", '{"symptom": "x", "suspects": [3]}', '{"suspects": 3}'])
def test_garbage_says_nothing(line: str) -> None:
    assert evidence_of(line) == []
