"""What the fabric's side says against nodes: weighed by the profile, and never mixed with what nodes say themselves."""

import json
from pathlib import Path

import pytest

from trainmaster.fabric.link_health import BadNode, Evidence, LinkHealth, encode
from trainmaster.health import fabric_side, ledger, policy
from trainmaster.health.fabric_side import findings_of, read, told_only
from trainmaster.health.finding import Action, Finding, Verdict
from trainmaster.health.fleet import faults
from trainmaster.health.ledger import Ledger, NodeView, Step
from trainmaster.health.profile import Profile


def published(path: Path, **evidence: Evidence) -> Path:
    nodes = {name: BadNode(score=0.5, evidence=(one,)) for name, one in evidence.items()}
    path.write_text(encode(LinkHealth(taken_at_s=1000.0, good_for_s=3600.0, known="n[01-04]", nodes=nodes)))
    return path


STRAY = Evidence(code="wrong-socket", subject="mlx5_2", detail="is on su002-rail3", score=0.5, seen_at_s=1000.0)


def errors(score: float) -> Evidence:
    return Evidence(code="errors", subject="mlx5_0", detail="SymbolErrorCounter 9 at leaf/2", score=score)


def acting(evidence: Evidence, profile: Profile | None = None, *, path: Path) -> dict[str, Action]:
    look = read(str(published(path, n01=evidence)), 1001.0)
    assert not look.trouble
    (told,) = told_only(look, profile=profile or Profile({}))
    return {finding.check: finding.action for finding in told.findings}


def test_a_wrong_socket_drains_and_a_few_errors_only_comment(tmp_path: Path) -> None:
    path = tmp_path / "links"
    assert acting(STRAY, path=path) == {"fabric.rail": Action.DRAIN}
    assert acting(errors(0.5), path=path) == {"fabric.errors": Action.COMMENT}
    assert acting(errors(0.05), path=path) == {"fabric.errors": Action.DRAIN}
    for code in ("rail-missing", "rate", "absent"):
        assert set(acting(Evidence(code=code), path=path).values()) == {Action.COMMENT}
    assert acting(Evidence(code="uplink"), path=path) == {}, "no fault of the node's"


def test_the_site_says_how_far_each_may_go(tmp_path: Path) -> None:
    path = tmp_path / "links"
    profile = {"modes": {"fabric": "comment"}, "thresholds": {"fabric.errors": 0.7}}
    assert acting(STRAY, Profile(profile), path=path) == {"fabric.rail": Action.COMMENT}
    assert faults(profile, "f.toml") == []
    assert acting(errors(0.5), Profile({"thresholds": {"fabric.errors": 0.7}}), path=path) == {
        "fabric.errors": Action.DRAIN
    }
    assert acting(Evidence(code="rail-missing"), Profile({"actions": {"fabric.missing:warn": "drain"}}), path=path) == {
        "fabric.missing": Action.DRAIN
    }
    assert "fabric.rails" in faults({"modes": {"fabric.rails": "drain"}}, "f.toml")[0]


def test_all_that_was_looked_at_and_is_well_is_said_so_and_an_absent_node_was_not() -> None:
    assert {one.check for one in findings_of(None, Profile({}))} == set(fabric_side.CHECKS)
    node = {"evidence": [{"code": "absent", "subject": "", "detail": "", "score": 0.0}]}
    assert [one.check for one in findings_of(node, Profile({}))] == ["fabric.absent"]


@pytest.mark.parametrize("text", ["", "[]", '{"format": "trainmaster link health 1"}', '{"format": "x"}'])
def test_what_is_no_such_file_is_trouble(tmp_path: Path, text: str) -> None:
    (tmp_path / "links").write_text(text)
    assert read(str(tmp_path / "links"), 0.0).trouble


def test_damaged_evidence_is_trouble(tmp_path: Path) -> None:
    raw = json.loads(published(tmp_path / "links", n01=STRAY).read_text())
    raw["nodes"]["n01"]["evidence"][0].pop("score")
    raw["nodes"]["n01"]["evidence"][0]["code"] = "errors"
    (tmp_path / "links").write_text(json.dumps(raw))
    assert "damaged" in read(str(tmp_path / "links"), 1001.0).trouble


def test_an_old_file_is_trouble(tmp_path: Path) -> None:
    assert "hours ago and good for 1.0" in read(str(published(tmp_path / "links", n01=STRAY)), 9000.0).trouble


OWN = "[HC] gpu.xid: 79 on 0000:0f:00.0"
SIDE = "[HC] fabric.rail: is on su002-rail3 on mlx5_2"


def drain(reason: str) -> Step:
    return Step("drain", reason, Ledger((ledger.Cause("x", "y", "drain", "b"),)))


@pytest.mark.parametrize(("stands", "wanted"), [(OWN, SIDE), (SIDE, OWN), ("[HC] deep.gpu.speed: slow", SIDE)])
def test_the_node_and_the_fabrics_side_leave_each_others_drains_alone(stands: str, wanted: str) -> None:
    taken, after = ledger.permitted(drain(wanted), NodeView(True, stands))
    assert not taken and after.causes and not after.reason and stands in after.note, "and it tries again"


def test_the_fabrics_side_adds_to_its_own_drain() -> None:
    taken, after = ledger.permitted(drain(SIDE), NodeView(True, "[HC] fabric.errors: many"))
    assert taken and after.reason == SIDE


def test_reasons_of_the_fabrics_side_begin_as_the_ledger_expects() -> None:
    found = findings_of({"evidence": [{"code": "wrong-socket", "subject": "mlx5_2", "detail": "x"}]}, Profile({}))
    decision = policy.decide(found, checks={}, strikes={}, profile=Profile({}), now_s=0.0)
    assert decision.reason.startswith(ledger.FABRIC)
    assert all(one == Finding(one.check, Verdict.OK) for one in found[1:])
