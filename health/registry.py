"""All checks. A new one is one file in `health/checks`, one line here and one test.

The deep ones are listed in `health/registry_deep.py`: no hook runs them, and to import them took a tenth of a pass.
"""

from __future__ import annotations

from trainmaster.health.check import Check
from trainmaster.health.checks import (
    cpu_clocksource,
    cpu_count,
    cpu_gov,
    fs_alive,
    fs_errors,
    fs_mount,
    fs_usage,
    gpu_driver,
    gpu_dstate,
    gpu_ecc_sram_threshold,
    gpu_ecc_uncorr,
    gpu_fabric,
    gpu_inforom,
    gpu_leftover,
    gpu_nvlink,
    gpu_pages,
    gpu_pcie_gen,
    gpu_pcie_width,
    gpu_persistence,
    gpu_present,
    gpu_query,
    gpu_recovery,
    gpu_remap_failure,
    gpu_remap_pending,
    gpu_remap_uncorr,
    gpu_sxid,
    gpu_temp,
    gpu_throttle,
    gpu_vbios,
    gpu_xid,
    host_drift,
    host_stray,
    ib_counters,
    ib_fw,
    ib_kmsg,
    ib_leaf,
    ib_present,
    ib_rail,
    ib_rate,
    ib_state,
    limits_hugepages,
    limits_memlock,
    mem_edac,
    mem_mce,
    mem_total,
    node_kmsg,
    proc_room,
    proc_zombies,
    svc_active,
    time_offset,
    time_sync,
)

CHECKS: tuple[Check, ...] = (
    gpu_present.CHECK,
    gpu_query.CHECK,
    gpu_driver.CHECK,
    gpu_recovery.CHECK,
    gpu_xid.CHECK,
    gpu_sxid.CHECK,
    gpu_ecc_uncorr.CHECK,
    gpu_ecc_sram_threshold.CHECK,
    gpu_remap_failure.CHECK,
    gpu_remap_pending.CHECK,
    gpu_remap_uncorr.CHECK,
    gpu_pages.CHECK,
    gpu_pcie_width.CHECK,
    gpu_pcie_gen.CHECK,
    gpu_throttle.CHECK,
    gpu_temp.CHECK,
    gpu_vbios.CHECK,
    gpu_persistence.CHECK,
    gpu_fabric.CHECK,
    gpu_inforom.CHECK,
    gpu_nvlink.CHECK,
    gpu_dstate.CHECK,
    gpu_leftover.CHECK,
    ib_present.CHECK,
    ib_state.CHECK,
    ib_rate.CHECK,
    ib_rail.CHECK,
    ib_leaf.CHECK,
    ib_fw.CHECK,
    ib_counters.CHECK,
    ib_kmsg.CHECK,
    fs_mount.CHECK,
    fs_alive.CHECK,
    fs_usage.CHECK,
    fs_errors.CHECK,
    mem_total.CHECK,
    mem_edac.CHECK,
    mem_mce.CHECK,
    cpu_count.CHECK,
    cpu_gov.CHECK,
    cpu_clocksource.CHECK,
    time_sync.CHECK,
    time_offset.CHECK,
    limits_memlock.CHECK,
    limits_hugepages.CHECK,
    proc_room.CHECK,
    proc_zombies.CHECK,
    svc_active.CHECK,
    host_stray.CHECK,
    host_drift.CHECK,
    node_kmsg.CHECK,
)
"""Of the fast and the full set."""


SETS = ("fast", "full", "deep")
"""Each holds those before it: a prolog runs fast, a pass once an hour full, a job on an idle node deep."""


def every() -> tuple[Check, ...]:
    """All checks, the deep ones too."""
    from trainmaster.health import registry_deep

    return CHECKS + registry_deep.CHECKS


def matches(check_id: str, patterns: tuple[str, ...]) -> bool:
    """Whether an id is one of these, or below one: `gpu` and `gpu.ecc` both mean gpu.ecc.uncorr.

    >>> matches("gpu.ecc.uncorr", ("gpu.ecc",)), matches("gpu.eccx", ("gpu.ecc",))
    (True, False)
    """
    return any(check_id == pattern or check_id.startswith(pattern + ".") for pattern in patterns)


def chosen(only: tuple[str, ...] = (), off: tuple[str, ...] = (), largest: str = "fast") -> tuple[Check, ...]:
    """The checks of a set to be run: `only` these if any are named, and none that is `off`."""
    within = SETS[: SETS.index(largest) + 1]
    return tuple(
        check
        for check in (every() if largest == "deep" else CHECKS)
        if all(source.set in within for source in check.sources)
        and (not only or matches(check.id, only))
        and not (off and matches(check.id, off))
    )


def rests(largest: str = "full") -> dict[str, list[str]]:
    """By the id under which trouble with a source is told, the checks of a set that rest on it."""
    found: dict[str, list[str]] = {}
    for check in every() if largest == "deep" else CHECKS:
        for source in check.sources:
            for name in (source.name, source.hung_id):
                found.setdefault(name, []).append(check.id)
    return found
