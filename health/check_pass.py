"""One pass over a node: look at the sources, judge, remember. What is done about it is the caller's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from trainmaster.health import policy, runner
from trainmaster.health.check import Check, Context, Place, Source
from trainmaster.health.finding import Action, Finding, Verdict
from trainmaster.health.policy import Decision
from trainmaster.health.profile import Profile
from trainmaster.health.record import Any, NamedTuple
from trainmaster.health.runner import Reading
from trainmaster.health.state import State

FAULTS = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError)
"""What code raises that meets a form it does not know."""


class Pass(NamedTuple):
    """All that came of it."""

    decision: Decision
    state: State
    """For the next pass."""
    readings: Mapping[str, Reading]
    took_s: float


def run(
    checks: Sequence[Check],
    *,
    profile: Profile,
    state: State,
    root: str = "",
    budget_s: float = runner.BUDGET_S,
    now: Callable[[], float] = time.time,
    begin: Callable[[str], None] = lambda name: None,
) -> Pass:
    """Run these checks, looking at each source once; `begin` is told each deep one before it is looked at."""
    began_s = time.monotonic()

    def place(source: Source) -> Place:
        return Place(root, profile, state.sources.get(source.name))

    light = [source for source in sources_of(checks) if source.set != "deep"]
    readings = runner.read_all(light, place, budget_s=budget_s, stuck=state.stuck)
    # What loads the hardware is looked at alone, or two of them would measure each other.
    for source in sources_of(checks):
        if source.set == "deep":
            begin(source.name)
            left_s = max(0.0, began_s + budget_s - time.monotonic())
            readings.update(runner.read_all([source], place, budget_s=left_s, stuck=state.stuck))
    now_s = now()
    findings = judge(checks, readings, profile=profile, state=state, now_s=now_s)
    known = {check.id: check for check in checks}
    known.update({source.name: _of_source(source) for source in sources_of(checks) if source.name not in known})
    decision = policy.decide(findings, checks=known, strikes=state.strikes, profile=profile, now_s=now_s)
    after = remembered(checks, readings, profile=profile, state=state, now_s=now_s)
    after = after._replace(strikes=decision.strikes, passes=state.passes + 1)
    return Pass(decision, after, readings, time.monotonic() - began_s)


def sources_of(checks: Sequence[Check]) -> list[Source]:
    """Each source of these checks once, commands first: they take longest."""
    found = {source.name: source for check in checks for source in check.sources}
    return sorted(found.values(), key=lambda source: source.ask is None)


def _of_source(source: Source) -> Check:
    return Check(source.name, source.about, (source,), lambda context, value: [])


def judge(
    checks: Sequence[Check], readings: Mapping[str, Reading], *, profile: Profile, state: State, now_s: float
) -> list[Finding]:
    """What the readings say. Pure.

    Trouble with a source is one finding, under the source's name; the checks that rest on it say "unknown" and ask for
    nothing themselves, so that one stuck tool does not read like a dozen faults.
    """
    findings = [finding for source in sources_of(checks) for finding in trouble(source, readings[source.name], profile)]
    for check in checks:
        values, gone = _values(check, readings)
        if gone is not None:
            # The trouble with a source already stands there under its name.
            findings += [gone] if gone.check not in {finding.check for finding in findings} else []
            continue
        context = Context(profile, state.checks.get(check.id), now_s)
        try:
            try:
                judged = check.judge(context, *values)
            except FAULTS:
                # What was remembered may be of another version; without it the node can still be judged.
                judged = check.judge(context._replace(memory=None), *values)
        except FAULTS as error:
            # A fault of ours, or a tool whose output nobody has seen yet: it must not cost the other checks.
            detail = f"could not be judged: {type(error).__name__}: {error}"
            judged = [Finding(check.id, Verdict.UNKNOWN, Action.COMMENT, detail=detail)]
        findings += [finding._replace(check=check.id) for finding in judged] or [Finding(check.id, Verdict.OK)]
    return findings


def trouble(source: Source, reading: Reading, profile: Profile) -> list[Finding]:
    """The finding about a source that could not be read. Pure."""
    if reading.state == "hung":
        return [Finding(source.hung_id or source.name, Verdict.HUNG, source.hung, detail=reading.detail)]
    if reading.state == "late":
        return [Finding(source.name, Verdict.UNKNOWN, Action.COMMENT, detail=reading.detail)]
    if reading.state == "missing":
        # Nobody said that this node has GPUs: one without its tools is told, and not taken out of service.
        asked = source.trouble if profile.gpus or not source.name.startswith("gpu.") else Action.COMMENT
        return [Finding(source.name, Verdict.UNKNOWN, asked, detail=reading.detail)]
    if reading.state == "failed":
        # What looks broken and asks for a drain is a failure; all else is only not known.
        verdict = Verdict.UNKNOWN if source.trouble in (Action.NONE, Action.COMMENT) else Verdict.FAIL
        return [Finding(source.name, verdict, source.trouble, detail=reading.detail)]
    return []


def _values(check: Check, readings: Mapping[str, Reading]) -> tuple[list[Any], Finding | None]:
    """The values for a check's judgement, or the finding that says why there are none."""
    for source in check.sources:
        reading = readings[source.name]
        if reading.state == "absent":
            return [], Finding(check.id, Verdict.SKIP, detail=reading.detail)
        if reading.state != "ok":
            return [], Finding(check.id, Verdict.UNKNOWN, detail=f"{source.name} {reading.state}")
    return [readings[source.name].value for source in check.sources], None


def remembered(
    checks: Sequence[Check], readings: Mapping[str, Reading], *, profile: Profile, state: State, now_s: float
) -> State:
    """What the next pass shall know; what could not be read this time is kept as it was. Pure."""
    sources = dict(state.sources)
    for source in sources_of(checks):
        reading = readings[source.name]
        if source.remember is not None and reading.state == "ok":
            try:
                sources[source.name] = source.remember(reading.value)
            except FAULTS:
                sources.pop(source.name, None)  # a value of a form that nobody has seen yet
    kept = dict(state.checks)
    for check in checks:
        values, gone = _values(check, readings)
        if check.remember is None or gone is not None:
            continue
        try:
            kept[check.id] = check.remember(Context(profile, state.checks.get(check.id), now_s), *values)
        except FAULTS:
            # Left behind by another version, perhaps: it begins anew at the next pass.
            kept.pop(check.id, None)
    stuck = {name: known for name, known in state.stuck.items() if name not in readings}
    stuck.update(
        {name: reading.value for name, reading in readings.items() if reading.state == "hung" and reading.value}
    )
    return state._replace(sources=sources, checks=kept, stuck=stuck)
