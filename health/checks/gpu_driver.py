"""The driver's library and its kernel module are of one version, the site's if it names one, and no library is empty.

After an upgrade without a reboot the old module stays loaded, and nothing that is started anew can use a GPU. A library
of no bytes is what an interrupted installation leaves.
"""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.gpu_values import shown
from trainmaster.health.record import Any
from trainmaster.health.sources import driver, gpu_query


def judge(context: Context, value: Any, module: Any) -> list[Finding]:
    """Compare the versions."""
    found = [fail(Action.DRAIN, "library of no bytes", subject=path) for path in module["empty"]]
    loaded = module["module"]
    told = sorted({version for version in (shown(row, "driver_version") for row in value["gpus"]) if version})
    if loaded and any(version != loaded for version in told):
        detail = f"library {', '.join(told)}, kernel module {loaded}"
        found.append(fail(Action.DRAIN_RESET, detail, value=told, threshold=loaded))
    expected = context.profile.table("gpu").get("driver")
    if expected is not None and loaded is not None and loaded != expected:
        found.append(fail(Action.DRAIN, f"driver {loaded}, expected {expected}", value=loaded, threshold=expected))
    return found


CHECK = Check(
    id="gpu.driver",
    about="the driver's library and kernel module differ, or are not the site's, or a library is empty",
    sources=(gpu_query.SOURCE, driver.SOURCE),
    judge=judge,
)
