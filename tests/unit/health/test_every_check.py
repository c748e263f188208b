"""Six cases of every check: pass, fail, not applicable, tool missing, hang, garbage. Who lacks a case fails here."""

import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from detection import FAULTS, SLOW_TOOLS
from hypothesis import given, settings
from hypothesis import strategies as st
from measure.sick_node import SickNode

from every_check import CHANGES, EVERYWHERE, NO_TOOL, OPTIONAL, VALUES
from trainmaster.health import check_pass, children, node, registry, runner
from trainmaster.health.check import Check, Completed, Place, Source
from trainmaster.health.finding import Finding, Verdict
from trainmaster.health.profile import Profile
from trainmaster.health.runner import Reading
from trainmaster.health.state import State

EVERY = registry.every()
SOURCES = {source.name: source for check in EVERY for source in check.sources}
FAULT = {case.check: case for case in reversed(FAULTS)}
PASSES = 3
NAMED = Profile(
    {
        **{"gpus": 8, "units": ["munge"], "ib": {"mlx5_0": {}}, "leaves": {"mlx5_0/1": "0x1"}},
        **{"deep": {"storage": ["/scratch"]}},
    }
)
"""A node that should have all of it."""
every_check = pytest.mark.parametrize("check", EVERY, ids=lambda check: check.id)


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> SickNode:
    """A node of files on which all is well."""
    return SickNode(tmp_path_factory.mktemp("healthy"))


@pytest.fixture(scope="module")
def healthy(sick: SickNode) -> Any:
    """A pass over it."""
    return sick.look(SLOW_TOOLS, "full")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node without anything, of which nobody expects anything."""
    root = tmp_path_factory.mktemp("bare")
    (root / "proc").mkdir()
    return root


def told(findings: tuple[Finding, ...] | list[Finding], check: Check) -> list[Finding]:
    return [finding for finding in findings if finding.check == check.id]


def judged(
    check: Check, values: tuple[Any, ...], profile: dict[str, Any] | Profile | None = None, memory: Any = None
) -> list[Finding]:
    """What a pass makes of these values."""
    readings = {source.name: Reading("ok", value) for source, value in zip(check.sources, values, strict=True)}
    state = State(checks={check.id: memory} if memory is not None else {})
    profile = profile if isinstance(profile, Profile) else Profile(profile or {})
    return check_pass.judge([check], readings, profile=profile, state=state, now_s=1e9)


def test_the_tables_speak_of_checks_and_sources_that_there_are() -> None:
    ids = {check.id for check in EVERY}
    assert set(VALUES) | set(CHANGES) | set(EVERYWHERE) <= ids
    assert set(NO_TOOL) | set(OPTIONAL) <= set(SOURCES) and not set(NO_TOOL) & set(OPTIONAL)
    assert not set(CHANGES) & set(VALUES)


@every_check
def test_pass(check: Check, healthy: Any) -> None:
    if check.id in VALUES:
        shown = VALUES[check.id]
        findings = judged(check, shown.good, shown.profile, shown.memory)
    else:
        findings = told(healthy.decision.findings, check)
    assert [finding.verdict for finding in findings] == [Verdict.OK], findings


@every_check
def test_fail(check: Check, tmp_path: Path) -> None:
    if check.id in VALUES:
        shown = VALUES[check.id]
        findings = judged(check, shown.bad, shown.profile, shown.memory)
        assert any(finding.verdict in (Verdict.FAIL, Verdict.WARN) and finding.detail for finding in findings), findings
        return
    assert check.id in FAULT or check.id in CHANGES, "show a fault that it finds: in benchmarks/detection.py, or here"
    case = FAULT.get(check.id)
    sick = SickNode(tmp_path)
    options = node.Options(root=str(sick.root), only=(check.id,), set="full")
    node.run(options)
    (case.change if case else CHANGES[check.id])(sick)
    found: list[Finding] = []
    for number in range(PASSES):
        if number and case and case.between:
            case.between(sick)
        found += told(node.run(options).decision.findings, check)
    assert any(finding.verdict in (Verdict.FAIL, Verdict.WARN) and finding.detail for finding in found), found


@every_check
def test_not_applicable(check: Check, bare: Path) -> None:
    if check.id in EVERYWHERE:
        return
    result = check_pass.run([check], profile=Profile({}), state=State(), root=str(bare))
    assert [finding.verdict for finding in result.decision.findings] == [Verdict.SKIP], result.decision.findings
    assert result.decision.findings[0].detail


@every_check
def test_tool_missing(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [source for source in check.sources if source.name not in NO_TOOL]
    assert all(source.ask is not None for source in asked), "say in NO_TOOL why no tool of it can be missing"
    monkeypatch.setattr(children, "_FOLDERS", "")
    monkeypatch.setenv("PATH", "")
    for source in asked:
        reading = runner.read_all([source], lambda source: Place("", NAMED))[source.name]
        assert reading.state == ("absent" if source.name in OPTIONAL else "missing") and reading.detail, reading
        readings = {one.name: Reading("ok", {}) for one in check.sources} | {source.name: reading}
        findings = check_pass.judge([check], readings, profile=NAMED, state=State(), now_s=1e9)
        wanted = Verdict.SKIP if source.name in OPTIONAL else Verdict.UNKNOWN
        assert {finding.verdict for finding in findings} == {wanted}, findings


def _hanging(source: Source) -> Source:
    def read(place: Place) -> Any:
        time.sleep(300)

    def ask(place: Place) -> Generator[list[str], Completed, Any]:
        yield ["/bin/sleep", "300"]

    return source._replace(deadline_s=0.05, **({"read": read} if source.read else {"ask": ask}))


@every_check
def test_hang(check: Check) -> None:
    stuck = check._replace(sources=tuple(map(_hanging, check.sources)))
    result = check_pass.run([stuck], profile=Profile({}), state=State(), root="/nonexistent")
    assert {reading.state for reading in result.readings.values()} == {"hung"}
    found = {finding.check: finding.verdict for finding in result.decision.findings}
    for source in check.sources:
        assert found.pop(source.hung_id or source.name) is Verdict.HUNG
    assert set(found.values()) <= {Verdict.UNKNOWN} and set(found) <= {check.id}


# -- garbage -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a value, itself included."""
    yield here
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from places(inner, (*here, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a value with one part of it exchanged."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


@every_check
def test_garbage_in_a_value(check: Check, healthy: Any) -> None:
    """Wherever it stands, what is remembered of it included, there is a verdict on this check and no exception."""
    if check.id in VALUES:
        good = VALUES[check.id].good
    else:
        good = tuple(healthy.readings[source.name].value for source in check.sources)
    paths = list(places(list(good)))[1:]

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from(paths), JSON, JSON)
    def hold(path: tuple[Any, ...], new: Any, memory: Any) -> None:
        values = tuple(put(list(good), path, new))
        readings = {source.name: Reading("ok", value) for source, value in zip(check.sources, values, strict=True)}
        state = State(checks={check.id: memory})
        for _ in range(2):
            given_ = {"profile": Profile({}), "state": state, "now_s": 1e9}
            findings = check_pass.judge([check], readings, **given_)
            assert findings and {finding.check for finding in findings} == {check.id}
            state = check_pass.remembered([check], readings, **given_)

    hold()


@every_check
def test_garbage_of_a_tool_is_never_a_pass(check: Check, sick: SickNode) -> None:
    asking = [source for source in check.sources if source.ask is not None]
    if not asking:
        return  # files: below
    # What loads hardware is absent below a fake root.
    root = "" if check.id.startswith("deep.") else str(sick.root)
    place = Place(root, Profile({**sick.profile, **NAMED.raw, "tools": {"nvidia-smi": "/x", "dcgmi": "/x"}}))

    @settings(max_examples=25, deadline=None)
    @given(st.text("abcxyz {}[]:,.\n-0%", min_size=1), st.sampled_from([0, 0, 0, 1, 127, -11]))
    def hold(text: str, code: int) -> None:
        for source in asking:
            assert source.ask is not None
            talk = source.ask(place)
            try:
                next(talk)
                for _ in range(9):
                    talk.send(Completed(text, "", code))
            except StopIteration as stop:
                reading = Reading("ok", json.loads(json.dumps(stop.value)))
            except Exception as error:  # noqa: BLE001 - as the runner does
                reading = runner._reading_of(error)
            else:
                raise AssertionError("asks on and on")
            readings = {one.name: Reading("ok", {"gpus": {}, "stepds": 0}) for one in check.sources}
            readings[source.name] = reading
            findings = check_pass.judge([check], readings, profile=NAMED, state=State(), now_s=1e9)
            assert Verdict.OK not in {finding.verdict for finding in findings}, (reading, findings)

    hold()


@pytest.fixture(scope="module", params=["", "garbage\n", "-1\n", "9" * 300, "\udcff\udcfe\x00", "a b c d\n" * 50])
def garbled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """A pass over a node all of whose files say the same nonsense."""
    sick = SickNode(tmp_path_factory.mktemp("garbled"))
    sick.look()
    for folder in ("proc", "sys", "dev"):
        for path in (sick.root / folder).rglob("*"):
            if path.is_file() and not path.is_symlink() and path.name != "boot_id":
                path.write_bytes(request.param.encode(errors="surrogateescape"))
    result = node.run(node.Options(root=str(sick.root)))
    found: dict[str, list[Finding]] = {}
    for finding in result.decision.findings:
        found.setdefault(finding.check, []).append(finding)
    return found


@pytest.mark.parametrize("check", registry.chosen(), ids=lambda check: check.id)
def test_files_of_garbage_leave_a_verdict(check: Check, garbled: dict[str, list[Finding]]) -> None:
    assert garbled.get(check.id)
    for finding in garbled[check.id]:
        assert "Error" not in finding.detail or "Errno" in finding.detail, "our own mistake is shown as the node's"
