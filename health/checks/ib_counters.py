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
            downs = []
            if isinstance(before, dict):
                added = added_since(before["counters"], port["counters"])
                for window_s, taken_s, counters in before["baselines"]:
                    rated[window_s] = (context.now_s - taken_s, added_since(counters, port["counters"]))
                downs = [moment for moment in before["downs"] if 0 <= context.now_s - moment <= DOWNS_WINDOW_S]
            downs += [context.now_s] * min(added.get("link_downed", 0), 10)
            found[key] = Change(f"{device}/{number}", added, rated, downs)
    return found


def judge(context: Context, value: Any) -> list[Finding]:
    """Additions, and rates of them."""
    found = []
    for change in changes(context, value).values():
        limit = context.profile.threshold("ib.counters.link_downed", 3)
        if len(change.downs) > limit:
            detail = f"link down {len(change.downs)} times in three hours"
            found.append(
                fail(Action.DRAIN_RESET, detail, subject=change.name, value=len(change.downs), threshold=limit)
            )
        elif change.added.get("link_downed"):
            detail = f"link down {change.added['link_downed']} times since the last pass"
            found.append(warn(detail, subject=change.name, value=change.added["link_downed"]))
        for name in ANY:
            if change.added.get(name):
                detail = f"{name} +{change.added[name]}"
                found.append(
                    fail(Action.DRAIN_RESET, detail, subject=change.name, value=change.added[name], threshold=0)
                )
        for name, default, window_s, action in RATES:
            elapsed_s, rated = change.rated.get(window_s, (0.0, {}))
            rate = rated.get(name, 0) / max(elapsed_s, window_s)
            limit = context.profile.threshold(f"ib.counters.{name}", default)
            if rate > limit:
                detail = f"{name} +{rated[name]} in {elapsed_s:.0f} s"
                if action is Action.COMMENT:
                    found.append(warn(detail, subject=change.name, value=round(rate, 3), threshold=round(limit, 3)))
                else:
                    found.append(
                        fail(action, detail, subject=change.name, value=round(rate, 3), threshold=round(limit, 3))
                    )
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
            kept[key] = {"counters": counters, "baselines": baselines, "downs": change.downs[-20:]}
    return kept


CHECK = Check(
    id="ib.counters",
    about="errors at an InfiniBand port since the last pass, or its link went down again and again",
    sources=(infiniband.SOURCE,),
    judge=judge,
    remember=remember,
)
