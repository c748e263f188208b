"""Memory errors that the kernel counted (EDAC): any uncorrectable one, or more than a thousand corrected in a day."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, skip, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import memory

DAY_S = 86_400.0
CORRECTED_A_DAY = 1000


def judge(context: Context, value: Any) -> list[Finding]:
    """Uncorrectable ones count from the boot on, corrected ones by the day."""
    if not value["edac"]:
        return [skip("the kernel counts no memory errors here")]
    before = context.memory if isinstance(context.memory, dict) else {}
    limit = context.profile.threshold("mem.edac", CORRECTED_A_DAY)
    found = []
    for name, counts in sorted(value["edac"].items()):
        uncorrected, corrected = counts.get("ue_count"), counts.get("ce_count")
        # A count that an edac driver does not keep is shown as -1.
        if uncorrected and uncorrected > 0:
            detail = f"{uncorrected} uncorrectable memory errors since the boot"
            found.append(fail(Action.DRAIN_RESET, detail, subject=name, value=uncorrected, threshold=0))
        then = before.get(name, {}).get("count", corrected)
        added = (corrected or 0) - (then or 0)
        if added > limit:
            found.append(warn(f"{added} corrected memory errors in a day", subject=name, value=added, threshold=limit))
    return found


def remember(context: Context, value: Any) -> Any:
    """The corrected count, as it was at most a day ago."""
    before = context.memory if isinstance(context.memory, dict) else {}
    kept = {}
    for name, counts in value["edac"].items():
        old = before.get(name)
        corrected = counts.get("ce_count") or 0
        fresh = not old or not 0 <= context.now_s - old["at_s"] <= DAY_S or corrected < old["count"]
        kept[name] = {"at_s": context.now_s, "count": corrected} if fresh else old
    return kept


CHECK = Check(
    id="mem.edac",
    about="uncorrectable memory errors since the boot, or many corrected ones",
    sources=(memory.SOURCE,),
    judge=judge,
    remember=remember,
)
