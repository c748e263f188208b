"""The figures of an ETTR report as plain values, for JSON, text and the page. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from trainmaster.report import expected, phases
from trainmaster.report.attribution import AFTER_S, BEFORE_S
from trainmaster.report.curve import cumulative, sliding
from trainmaster.report.ledger import SIZES, Ledger, SizeClass
from trainmaster.report.phases import DEFINITIONS, OUTSIDE, Phase, Span
from trainmaster.report.poisson import count_interval, mean_time_interval

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def moment(epoch_ms: float) -> str:
    """ISO 8601, UTC, to the second.

    >>> moment(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def values(ledger: Ledger, spans: Sequence[Span], notes: Sequence[str], scope: str) -> dict[str, Any]:
    """Everything, by name; hours are GPU- or node-hours, as `by` says, milliseconds of parts are exact."""
    counted = {phase: value for phase, value in ledger.parts.items() if phase not in OUTSIDE}
    whole = sum(counted.values())
    every = sum(ledger.parts.values())
    return {
        "scope": scope,
        "since": moment(ledger.since_ms),
        "until": moment(ledger.until_ms),
        "by": ledger.by,
        "runs": ledger.runs,
        "attempts": ledger.attempts,
        "with_own_record": ledger.recorded,
        "ettr": ledger.ettr,
        "ettr_with_own_failures": _share(ledger.parts[Phase.PRODUCTIVE], whole + ledger.parts[Phase.USER]),
        "whole_hours": whole / HOUR_MS,
        "parts": [
            {
                "phase": str(phase),
                "hours": value / HOUR_MS,
                "weighted_ms": value,
                "wall_ms": ledger.wall[phase],
                "share": None if phase in OUTSIDE else _share(value, whole),
                "means": DEFINITIONS[phase],
            }
            for phase, value in ledger.parts.items()
        ],
        "parts_sum_weighted_ms": every,
        "parts_sum_wall_ms": sum(ledger.wall.values()),
        "lost_to": _lost_to(ledger),
        "ends": dict(sorted(ledger.ends.items(), key=lambda item: (-item[1], item[0]))),
        "failures": _failures(ledger),
        "sizes": [_size(ledger, key, one) for key, one in sorted(ledger.sizes.items()) if one.running_ms],
        "dearest": [
            {
                "job": one.job,
                "user": one.user,
                "partition": one.partition,
                "size": one.weight,
                "attempts": one.attempts,
                "lost_hours": one.lost / HOUR_MS,
                "ettr": one.ettr,
                "mostly": one.why,
            }
            for _, _, one in sorted(ledger.dearest, reverse=True)
        ],
        "sliding_hour": [[at // 1000, round(share, 5)] for at, share in sliding(ledger.productive, ledger.whole)],
        "cumulative": [[at // 1000, round(share, 5)] for at, share in cumulative(ledger.productive, ledger.whole)],
        "spans": [
            {"begin": one.begin_ms / 1000, "end": one.end_ms / 1000, "phase": str(one.phase), "cause": one.cause}
            for one in spans
        ],
        "assumed": list(ledger.assumptions.told()),
        "attribution": f"a cause counts when it was seen on a node of the attempt from {BEFORE_S // 60} min before to "
        f"{AFTER_S // 60} min after its end; NODE_FAIL without a check's word is a node that did not answer",
        "notes": list(notes),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _lost_to(ledger: Ledger) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for cause, parts in ledger.lost.items():
        if not any(parts.values()):
            continue
        found.append(
            {
                "cause": cause,
                "ends": ledger.ends.get(cause, 0),
                "hours": sum(parts.values()) / HOUR_MS,
                "parts": {str(phase): value / HOUR_MS for phase, value in parts.items() if value},
            }
        )
    return sorted(found, key=lambda one: (-one["hours"], one["cause"]))


def _failures(ledger: Ledger) -> dict[str, Any]:
    """The rate of failures per node under jobs, exact Poisson interval."""
    count = sum(one.failures for one in ledger.sizes.values())
    node_days = sum(one.node_ms for one in ledger.sizes.values()) / DAY_MS
    low, high = count_interval(count)
    return {
        "count": count,
        "node_days": node_days,
        "per_1000_node_days": _share(1000.0 * count, node_days),
        "low": _share(1000.0 * low, node_days),
        "high": _share(1000.0 * high, node_days),
        "counts_as_failure": sorted(phases.INFRASTRUCTURE),
    }


def _size(ledger: Ledger, key: int, one: SizeClass) -> dict[str, Any]:
    hours = one.running_ms / HOUR_MS
    low, high = mean_time_interval(one.failures, hours)
    nodes = one.node_ms / one.running_ms
    fleet = _failures(ledger)
    rate = (fleet["per_1000_node_days"] or 0.0) / 1000.0
    wait_s = one.wait_ms / 1000 / one.interruptions if one.interruptions else 0.0
    assumed = ledger.assumptions
    published = expected.first_form(
        nodes=nodes,
        failures_per_node_day=rate,
        init_s=assumed.init_s,
        interval_s=assumed.interval_s,
        queue_s=wait_s,
        run_s=max(1.0, one.running_ms / 1000 / max(1, one.runs)),
    )
    return {
        "size": _name(key),
        "runs": one.runs,
        "mean_nodes": nodes,
        "running_hours": hours,
        "failures": one.failures,
        "mttf_hours": hours / one.failures if one.failures else None,
        "mttf_low_hours": low,
        "mttf_high_hours": high,
        "mttf_of_rate_hours": 24.0 / (nodes * rate) if nodes * rate > 0 else None,
        "wait_after_interruption_s": wait_s,
        "ettr": _share(one.productive, one.whole),
        "ettr_expected": max(0.0, published) / (1.0 + assumed.block_s / assumed.interval_s),
    }


def _name(key: int) -> str:
    """A class of size in words.

    >>> _name(0), _name(2), _name(99)
    ('0-1', '9-64', '> 131072')
    """
    if key >= len(SIZES):
        return f"> {SIZES[-1]}"
    return f"{SIZES[key - 1] + 1 if key else 0}-{SIZES[key]}"
