"""Error counters of the ports: what was added since the last pass, never what has gathered over a node's life.

The first pass of a boot only takes the baseline. A counter that went back was cleared; what it shows now is new.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any, NamedTuple
from trainmaster.health.sources import infiniband

DOWNS_WINDOW_S = 3 * 3600.0
HOUR_S, MINUTE_S, SHORT_S = 3600.0, 60.0, 10.0
# counter: more than this many a second, taken over this time, asks for the action. What would be too much for the whole
# of that time is told at once; a few in a short part of it are not: one error between two passes that follow closely
# is no 360 an hour.
RATES = (
    ("symbol_error", 120 / 3600, HOUR_S, Action.DRAIN_RESET),
    ("link_error_recovery", 5 / 60, MINUTE_S, Action.COMMENT),
    ("port_rcv_errors", 10.0, SHORT_S, Action.COMMENT),
    ("port_xmit_discards", 100.0, SHORT_S, Action.COMMENT),
    ("local_ack_timeout_err", 1.0, SHORT_S, Action.COMMENT),
)
ANY = ("local_link_integrity_errors", "excessive_buffer_overrun_errors", "rnr_nak_retry_err")


class Change(NamedTuple):
    """What happened at one port."""

    name: str
    added: dict[str, int]
    """Since the last pass."""
    rated: dict[float, tuple[float, dict[str, int]]]
    """By the time that a rate is taken over: how long ago that time's baseline was taken, and what was added since."""
    downs: list[float]
    """When its link went down, in the last hours."""
    failed: dict[str, str]
    """By counter, what it was drained for in this boot, until the counter is cleared."""


def added_since(then: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """By counter. One that went back was cleared: all that it shows is new. Pure.

    >>> added_since({"a": 5, "b": 5}, {"a": 7, "b": 1})
    {'a': 2, 'b': 1}
    """
    return {
        name: value - then.get(name, value) if value >= then.get(name, value) else value for name, value in now.items()
    }


def changes(context: Context, value: Any) -> dict[str, Change]:
    """By port: the adapter's GUID and the port, so that an exchanged adapter begins anew. Pure."""
    old = context.memory if isinstance(context.memory, dict) else {}
    found = {}
    for device, facts in sorted(value.items()):
        for number, port in facts["ports"].items():
            key = f"{facts['node_guid']}/{number}"
            before = old.get(key)
            added: dict[str, int] = {}
            rated: dict[float, tuple[float, dict[str, int]]] = {}
            downs, failed = [], {}
            if isinstance(before, dict):
                added = added_since(before["counters"], port["counters"])
                for window_s, taken_s, counters in before["baselines"]:
                    rated[window_s] = (context.now_s - taken_s, added_since(counters, port["counters"]))
                downs = [moment for moment in before["downs"] if 0 <= context.now_s - moment <= DOWNS_WINDOW_S]
                then, now = before["counters"], port["counters"]
                failed = {
                    name: said for name, said in before["failed"].items() if now.get(name, 0) >= then.get(name, 0)
                }
            downs += [context.now_s] * min(added.get("link_downed", 0), 10)
            change = Change(f"{device}/{number}", added, rated, downs, failed)
            found[key] = change._replace(failed={**failed, **failures(context, change)})
    return found


def failures(context: Context, change: Change) -> dict[str, str]:
    """By counter, what a port is drained for as it is now. Pure."""
    limit = context.profile.threshold("ib.counters.link_downed", 3)
    found = {name: f"{name} +{change.added[name]}" for name in ANY if change.added.get(name)}
    if len(change.downs) > limit:
        found["link_downed"] = f"link down {len(change.downs)} times in three hours"
    return {**found, **{name: said for name, said, action in rates(context, change) if action is not Action.COMMENT}}


def rates(context: Context, change: Change) -> list[tuple[str, str, Action]]:
    """The counters that rise too fast: name, words, action. Pure."""
    found = []
    for name, default, window_s, action in RATES:
        elapsed_s, rated = change.rated.get(window_s, (0.0, {}))
        limit = context.profile.threshold(f"ib.counters.{name}", default)
        if rated.get(name, 0) / max(elapsed_s, window_s) > limit:
            found.append((name, f"{name} +{rated[name]} in {elapsed_s:.0f} s", action))
    return found


def judge(context: Context, value: Any) -> list[Finding]:
    """Additions, and rates of them. What asks for a drain stays: slurmctld may have been away when it was seen."""
    found = []
    for change in changes(context, value).values():
        subject = change.name
        found += [
            fail(Action.DRAIN_RESET, said, subject=subject, value=change.added.get(name, 0))
            for name, said in sorted(change.failed.items())
        ]
        if change.added.get("link_downed") and "link_downed" not in change.failed:
            detail = f"link down {change.added['link_downed']} times since the last pass"
            found.append(warn(detail, subject=subject, value=change.added["link_downed"]))
        found += [warn(said, subject=subject) for _, said, action in rates(context, change) if action is Action.COMMENT]
    return found


def remember(context: Context, value: Any) -> Any:
    """The baselines for the next pass."""
    old = context.memory if isinstance(context.memory, dict) else {}
    found = changes(context, value)
    kept = {}
    for facts in value.values():
        for number, port in facts["ports"].items():
            key = f"{facts['node_guid']}/{number}"
            change, counters = found[key], port["counters"]
            known = {window_s: baseline for window_s, *baseline in old[key]["baselines"]} if key in old else {}
            baselines: list[Any] = []
            for window_s in (HOUR_S, MINUTE_S, SHORT_S):
                # A clock that was set back would keep a baseline of the future, and judge no rate until it is reached.
                young = window_s in known and 0 <= change.rated[window_s][0] < window_s
                baselines.append([window_s, *(known[window_s] if young else (context.now_s, counters))])
            kept[key] = {
                "counters": counters,
                "baselines": baselines,
                "downs": change.downs[-20:],
                "failed": change.failed,
            }
    return kept


CHECK = Check(
    id="ib.counters",
    about="errors at an InfiniBand port since the last pass, or its link went down again and again",
    sources=(infiniband.SOURCE,),
    judge=judge,
    remember=remember,
)
