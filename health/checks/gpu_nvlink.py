"""As many NVLinks as there should be, and no errors on them since the last pass.

Without the profile's `{"gpu": {"nvlinks": 18}}` a GPU with fewer links than its neighbours is only told: boards with
bridges use some of a GPU's links, or none, and are well.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, warn
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_nvlink


def judge(context: Context, value: Any) -> list[Finding]:
    """The number of links, and what was added to the error counters; never what has gathered over a life."""
    expected = context.profile.table("gpu").get("nvlinks")
    before = context.memory if isinstance(context.memory, dict) else {}
    most = max((len(facts["up"]) for facts in value.values()), default=0)
    found = []
    for gpu, facts in sorted(value.items()):
        links = len(facts["up"])
        if isinstance(expected, int) and links < expected:
            down = ", ".join(str(link) for link in facts["down"][:6])
            detail = f"{links} of {expected} NVLinks are up" + (f", down: {down}" if down else "")
            found.append(fail(Action.DRAIN_RESET, detail, subject=gpu, value=links, threshold=expected))
        elif expected is None and 0 < links < most:
            found.append(warn(f"{links} NVLinks are up, others have {most}", subject=gpu, value=links, threshold=most))
        then = before.get(gpu)
        if isinstance(then, dict):
            added = {
                name: count - then.get(name, count) if count >= then.get(name, count) else count
                for name, count in facts["errors"].items()
            }
            bad = [f"link {name} +{count}" for name, count in sorted(added.items()) if count]
            if bad:
                found.append(warn("NVLink errors: " + ", ".join(bad[:4]), subject=gpu, value=len(bad)))
    return found


def remember(context: Context, value: Any) -> Any:
    """The counters."""
    return {gpu: facts["errors"] for gpu, facts in value.items()}


CHECK = Check(
    id="gpu.nvlink",
    about="NVLinks are down, or had errors since the last pass",
    sources=(gpu_nvlink.SOURCE,),
    judge=judge,
    remember=remember,
)
