"""From what nodes of one kind have told to a verdict on each. Pure; standard library only, Python 3.9.

A node is held against its peers where the site names no figure, never with fewer than three nodes in all, and what
makes it look slow has to be seen twice. What most nodes fail is the fault of the check, and what keeps a tool from
working is not known rather than bad.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trainmaster.health import registry
from trainmaster.health.check import Compare
from trainmaster.health.deep import peers
from trainmaster.health.deep.told import Told
from trainmaster.health.finding import DRAINS, Action, Finding, Verdict, note, unknown
from trainmaster.health.profile import Profile

ANSWER, REACH, SPEED, GROUP = "deep.answer", "deep.pair.reach", "deep.pair.speed", "deep.group"
"""What only several nodes together can tell: who does not answer, who is cut off, who is slow with every partner."""


class Look(NamedTuple):
    """What the nodes told in one look at them."""

    told: Mapping[str, Told]
    """By node, of its own checks; who told nothing is missing."""
    met: Mapping[str, Mapping[str, Told]] = {}
    """By means, by node, of the tournament."""


class Judgement(NamedTuple):
    """What came of it."""

    findings: Mapping[str, tuple[Finding, ...]]
    """Of each node that was asked."""
    notes: tuple[str, ...] = ()
    """What speaks against nobody."""


def judge(nodes: Sequence[str], first: Look, second: Look | None = None) -> Judgement:
    """The verdicts.

    Args:
        nodes: all that were asked, of one kind.
        first: what they told.
        second: what those told that had stood out, when they were looked at again; None before that.
    """
    found: dict[str, list[Finding]] = {node: [] for node in nodes}
    notes: list[str] = []
    for node in nodes:
        told = first.told.get(node)
        found[node] += told.findings if told is not None else ()
    _add_silence(nodes, first, found, notes)
    medians = _add_compared(nodes, first.told, found, notes)
    for means, told_of in first.met.items():
        _add_pairs(means, told_of, found, notes)
    if second is not None:
        for node in nodes:
            found[node] = [_again(node, one, first, second, medians) for one in found[node]]
    _forgive(nodes, found, notes)
    weighed = {node: tuple(_weigh(one, first.told.get(node)) for one in findings) for node, findings in found.items()}
    return Judgement(weighed, tuple(notes))


def suspects(judgement: Judgement) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whom to look at again: the nodes that seem slow by themselves, and those that seem so in pairs."""
    slow = {check.id for check in registry.every() if check.compare is not None}
    own, paired = [], []
    for node, findings in judgement.findings.items():
        bad = {one.check for one in findings if one.verdict is Verdict.FAIL}
        own += [node] if bad & slow else []
        paired += [node] if bad & {SPEED, REACH} else []
    return tuple(own), tuple(paired)


def _add_silence(nodes: Sequence[str], look: Look, found: dict[str, list[Finding]], notes: list[str]) -> None:
    """Who did not come to the end of its own checks, when most others did."""
    through = [node for node in nodes if node in look.told and look.told[node].over]
    missing = [node for node in nodes if node not in through]
    known = len(through) >= peers.NODES_MIN and len(through) > len(nodes) / 2
    for node in through:
        found[node].append(note("it came to the end")._replace(check=ANSWER))
    for node in missing:
        told = look.told.get(node)
        words = f"no end to {told.doing}" if told is not None else "no answer"
        if known:
            detail = f"{words}, when {len(through)} of {len(nodes)} nodes were through"
            found[node].append(Finding(ANSWER, Verdict.HUNG, Action.DRAIN, detail=detail))
        else:
            found[node].append(unknown(Action.COMMENT, words)._replace(check=ANSWER))
    if missing and not known:
        notes.append(f"{len(missing)} of {len(nodes)} nodes did not come to the end, too many to blame them for it")


def _add_compared(
    nodes: Sequence[str], told: Mapping[str, Told], found: dict[str, list[Finding]], notes: list[str]
) -> dict[str, float]:
    """Who is slower than its peers. Returns the median of each figure."""
    medians: dict[str, float] = {}
    few = 0
    for check in registry.every():
        if check.compare is None:
            continue
        by_figure: dict[str, dict[str, float]] = {}
        for node in nodes:
            for figure, value in told[node].figures.get(check.id, {}).items() if node in told else ():
                if _sound(value) and figure not in told[node].named:
                    by_figure.setdefault(figure, {})[node] = value
        for figure, values in sorted(by_figure.items()):
            if len(values) < peers.NODES_MIN:
                few += 1
                # That the node itself found nothing is no answer: it has nothing to hold its figures against.
                for node in values:
                    found[node] = [_alone(one) if one.check == check.id else one for one in found[node]]
                continue
            medians[figure] = statistics.median(values.values())
            for node in peers.outliers({node: 1 / value for node, value in values.items()}, factor=1.0):
                if values[node] < _share(check.id, check.compare, told[node]) * medians[figure]:
                    # The node itself had nothing to hold it against.
                    found[node] = [one for one in found[node] if (one.check, one.verdict) != (check.id, Verdict.OK)]
                    found[node].append(_slow(check.id, check.compare, figure, values[node], medians[figure]))
    if few and len(nodes) < peers.NODES_MIN:
        notes.append(f"fewer than {peers.NODES_MIN} nodes of this kind: their figures are not compared")
    return medians


def _alone(one: Finding) -> Finding:
    if one.verdict is not Verdict.OK:
        return one
    return one._replace(verdict=Verdict.SKIP, detail=f"fewer than {peers.NODES_MIN} nodes of this kind to compare")


def _sound(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e15


def _share(check: str, compare: Compare, told: Told) -> float:
    """The site's share for this check, or ours."""
    chosen = told.thresholds.get(f"{check}:peers")
    return float(chosen) if _sound(chosen) and chosen is not None and chosen < 1 else compare.share


def _slow(check: str, compare: Compare, figure: str, value: float, median: float) -> Finding:
    name, _, subject = figure.partition(" ")
    verdict = Verdict.FAIL if compare.action in DRAINS else Verdict.WARN
    detail = f"{name} {value:g}, its peers have {median:g}"
    return Finding(check, verdict, compare.action, subject, detail, value, compare.share * median)


def _add_pairs(means: str, told: Mapping[str, Told], found: dict[str, list[Finding]], notes: list[str]) -> None:
    """Who is cut off or slow in the tournament, and which pairs are slow only with each other."""
    times = peers.of_pairs({node: one.pairs for node, one in told.items()})
    if not times:
        said = sorted({one.note for one in told.values() if one.note})
        notes += [f"{means}: {words}" for words in said[:3]] if said else [f"{means}: no pair met"]
        for findings in found.values():
            findings.append(unknown(Action.COMMENT, f"no pair met by {means}")._replace(check=REACH))
        return
    playing = {node for pair in times for node in pair}
    for node in sorted(set(told) - playing):
        words = told[node].note or f"no end to {told[node].doing}"
        found[node].append(unknown(Action.COMMENT, f"it took no part by {means}: {words}")._replace(check=REACH))
    cut = peers.cut_off(told, times)
    if len(cut) > len(told) / 2 or len(told) - len(cut) < peers.NODES_MIN - 1:
        notes += [f"{means}: {len(cut)} of {len(told)} nodes got through to nobody: the means failed"] if cut else []
        for node in cut:
            found[node].append(unknown(Action.COMMENT, f"no pair met by {means}")._replace(check=REACH))
        cut = []
    for node in cut:
        detail = f"by {means} it gets through to none of its partners"
        found[node].append(Finding(REACH, Verdict.FAIL, Action.DRAIN, detail=detail))
    slow = peers.slow_nodes(told, times)
    for node in told:
        if node not in cut and any(node in pair for pair, seconds in times.items() if seconds is not None):
            found[node].append(note(f"it met others by {means}")._replace(check=REACH))
            if node not in slow and len(told) >= peers.NODES_MIN:
                found[node].append(note(f"as fast as others by {means}")._replace(check=SPEED))
    for node, factor in slow.items():
        detail = f"an all-reduce by {means} takes {factor:.1f} times the median, even with its best partners"
        found[node].append(Finding(SPEED, Verdict.FAIL, Action.DRAIN, means, detail, factor, peers.NODE_FACTOR))
    for pair, factor in peers.slow_pairs(set(told) - set(slow) - set(cut), times).items():
        detail = f"an all-reduce by {means} takes {factor:.1f} times the median, only with each other"
        notes.append(f"{pair[0]} and {pair[1]}: {detail}")
        for node, other in (pair, pair[::-1]):
            words = f"an all-reduce by {means} takes {factor:.1f} times the median with {other} alone"
            found[node].append(Finding(SPEED, Verdict.WARN, Action.COMMENT, other, words, factor, peers.PAIR_FACTOR))
    lost = [pair for pair, seconds in times.items() if seconds is None and not set(pair) & set(cut)]
    for pair in sorted(lost)[:8]:
        notes.append(f"{pair[0]} and {pair[1]}: no all-reduce by {means} came about")


def _again(node: str, one: Finding, first: Look, second: Look, medians: Mapping[str, float]) -> Finding:
    """What is left of a finding after the second look: what was not seen again asks for nothing."""
    if one.verdict is not Verdict.FAIL:
        return one
    compare = next((check.compare for check in registry.every() if check.id == one.check), None)
    if one.check in (SPEED, REACH):
        times = peers.of_pairs({name: told.pairs for name, told in second.met.get(_means_in(one), {}).items()})
        mine = [pair for pair in times if node in pair]
        if not mine:
            return _unproven(one)
        if one.check == REACH:
            return one if all(times[pair] is None for pair in mine) else _passed(one, "got through the second time")
        again = node in peers.slow_nodes({name for pair in times for name in pair}, times)
        return one if again else _passed(one, "as fast as others the second time")
    if compare is None:
        return one
    told = second.told.get(node)
    if told is None or not told.over:
        return _unproven(one)
    name, _, _ = one.detail.partition(" ")
    figure = f"{name} {one.subject}" if one.subject else name
    value = told.figures.get(one.check, {}).get(figure)
    if not _sound(value) or value is None:
        return _unproven(one)
    median = medians.get(figure)
    if median is None:
        # The site's own figure, or the model's: the node has judged it again.
        bad = any(other.key == one.key and other.verdict is Verdict.FAIL for other in told.findings)
        return one if bad else _passed(one, f"{value:g} the second time")
    share = _share(one.check, compare, first.told[node])
    return one if value < share * median else _passed(one, f"{value:g} the second time")


def _means_in(one: Finding) -> str:
    return one.subject if one.check == SPEED else one.detail.split()[1]


def _passed(one: Finding, words: str) -> Finding:
    return note(f"{one.detail}; {words}", subject=one.subject, value=one.value)._replace(check=one.check)


def _unproven(one: Finding) -> Finding:
    """It could not be looked at again, so nobody is drained for it."""
    detail = f"{one.detail}; it could not be looked at again"
    return one._replace(verdict=Verdict.UNKNOWN, action=Action.COMMENT, detail=detail)


def _forgive(nodes: Sequence[str], found: dict[str, list[Finding]], notes: list[str]) -> None:
    """A check that most nodes fail counts against nobody."""
    failing = Counter(
        check for findings in found.values() for check in {one.check for one in findings if one.action in DRAINS}
    )
    for check, count in sorted(failing.items()):
        if len(nodes) > 1 and count > len(nodes) / 2:
            notes.append(
                f"{check} fails on {count} of {len(nodes)} nodes: the check may be wrong, so nobody is drained"
            )
            for findings in found.values():
                findings[:] = [
                    one._replace(action=Action.COMMENT) if one.check == check and one.action in DRAINS else one
                    for one in findings
                ]


def _weigh(one: Finding, told: Told | None) -> Finding:
    """As far as the site lets it go. A node's own findings have been weighed already; once more changes nothing."""
    mode = Profile({"modes": told.modes}).mode(one.check) if told is not None else "drain"
    if mode == "observe":
        return one._replace(action=Action.NONE)
    return one._replace(action=Action.COMMENT) if mode == "comment" and one.action in DRAINS else one
