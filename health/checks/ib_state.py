"""Every expected port is ACTIVE and LinkUp; without a profile, every port that has a link.

INIT means that the link is there and the subnet manager has not come yet: a warning first, and a drain when it stays.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import infiniband

INIT_S = 60.0


def expected_ports(context: Context, value: Any) -> list[tuple[str, Any]]:
    """(name, facts) of each port that is here and should work."""
    named = context.profile.table("ib")
    ports = [
        (f"{device}/{number}", port)
        for device, facts in sorted(value.items())
        for number, port in facts["ports"].items()
    ]
    if named:
        return [(name, port) for name, port in ports if name in named or name.partition("/")[0] in named]
    # Nobody said which: one that is switched off or has no cable is not counted against the node.
    return [(name, port) for name, port in ports if "LinkUp" in str(port["phys_state"])]


def judge(context: Context, value: Any) -> list[Finding]:
    """The states, in the kernel's words."""
    found = []
    since = context.memory if isinstance(context.memory, dict) else {}
    for name, port in expected_ports(context, value):
        state, physical = str(port["state"]), str(port["phys_state"])
        if "ACTIVE" in state and "LinkUp" in physical:
            continue
        word = state.partition(":")[2].strip() or state
        detail = f"{word}, {physical.partition(':')[2].strip() or physical}"
        waited_s = context.now_s - since.get(name, context.now_s)
        if "INIT" in state and waited_s < context.profile.threshold("ib.state", INIT_S):
            found.append(warn(detail, subject=name, value=state))
        else:
            found.append(fail(Action.DRAIN, detail, subject=name, value=state))
    return found


def remember(context: Context, value: Any) -> Any:
    """Since when each port has been in INIT."""
    since = context.memory if isinstance(context.memory, dict) else {}
    waiting = [name for name, port in expected_ports(context, value) if "INIT" in str(port["state"])]
    # Never later than now: the clock may have been set back.
    return {name: min(since.get(name, context.now_s), context.now_s) for name in waiting}


CHECK = Check(
    id="ib.state",
    about="an InfiniBand port is not ACTIVE and LinkUp",
    sources=(infiniband.SOURCE,),
    judge=judge,
    remember=remember,
)
