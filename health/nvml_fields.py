"""What NVML's functions of a GPU take and give, and how nvidia-smi says it.

Sizes, versions and numbers are NVIDIA's, and compared with its bindings (nvidia-ml-py) by the tests. A structure begins
with its version, size | number << 24; a library that does not know it refuses the call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from trainmaster.health.gpu_values import RETURNS
from trainmaster.health.record import Any, NamedTuple

NO_FUNCTION = 13
# An older library: it lacks the field (2, as recorded on the H100 for later ones), the function, the structure.
OLDER = (2, NO_FUNCTION, 25)
# Where nvidia-smi prints something else than that it does not apply.
_WORDS = {4: "[Insufficient Permissions]", 15: "[GPU is lost]", 16: "[GPU requires reset]", 21: "[No data]"}
_NOT_APPLICABLE = (3, 26, *OLDER)
RECOVERY_FIELD = 230
# NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, in the words of nvidia-smi 580.
RECOVERY = ("None", "Reset", "Reboot", "Drain P2P", "Drain and Reset")
FABRIC_STATES = ("[N/A]", "Not Started", "In Progress", "Completed")
FABRIC_HEALTH = ("[N/A]", "Healthy", "Unhealthy", "Limited Capacity")


class Call(NamedTuple):
    """A function of a GPU: (device, numbers before, pointers to results, numbers after)."""

    function: str
    results: tuple[str, ...] = ("I",)
    """Of each pointer, what lies behind it, in `struct`'s letters."""
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    first: int | None = None
    """What stands in the first four bytes of the first result when it is handed over."""


def versioned(function: str, layout: str, version: int) -> Call:
    """A call whose structure begins with its own size and version."""
    return Call(function, (layout,), first=struct.calcsize("=" + layout) | version << 24)


def _text(values: Sequence[Any]) -> str:
    return bytes(values[0]).split(b"\0")[0].decode(errors="replace")


def _nth(place: int) -> Callable[[Sequence[Any]], str]:
    return lambda values: str(values[place])


def _one_of(words: Sequence[str], place: int = 0) -> Callable[[Sequence[Any]], str]:
    return lambda values: words[values[place]] if values[place] < len(words) else f"unknown ({values[place]})"


def _retired(cause: int) -> Call:
    """Pages retired after several single-bit errors (0) or a double-bit error (1); there are never more than 64."""
    return Call("nvmlDeviceGetRetiredPages", ("I", "64Q"), before=(cause,), first=64)


_switch, _yes = _one_of(("Disabled", "Enabled")), _one_of(("No", "Yes"))
_ROWS = Call("nvmlDeviceGetRemappedRows", ("I", "I", "I", "I"))
SRAM = versioned("nvmlDeviceGetSramEccErrorStatus", "I4x11QI4x", 1)
MARGIN = versioned("nvmlDeviceGetMarginTemperature", "Ii", 1)
MEMORY = versioned("nvmlDeviceGetMemoryInfo_v2", "I4x4Q", 2)
FABRIC = versioned("nvmlDeviceGetGpuFabricInfoV", "I16sIIB3xIB3x", 3)
FABRIC_2 = versioned("nvmlDeviceGetGpuFabricInfoV", "I16sIIB3xI", 2)
FIELD_VALUE = Call("nvmlDeviceGetFieldValues", ("IIqqiIq",), before=(1,), first=RECOVERY_FIELD)
PCI = Call("nvmlDeviceGetPciInfo_v3", ("16s5I32s",))
_FABRIC = (FABRIC, FABRIC_2)


def word(code: int) -> str:
    """What stands in a row in place of a value that was not given, by NVML's return value."""
    return "[N/A]" if code in _NOT_APPLICABLE else _WORDS.get(code, "[Unknown Error]")


def _fabric_status(values: Sequence[Any]) -> str:
    if not values[4]:
        return "[N/A]"
    return "Success" if values[2] == 0 else RETURNS.get(values[2], f"error {values[2]}")


def _recovery(values: Sequence[Any]) -> str:
    return word(values[5]) if values[5] else _one_of(RECOVERY)([values[6] & 0xFFFFFFFF])


# By nvidia-smi's name of a field: the calls that tell it, the newest first, and how to say what they gave.
FIELDS: dict[str, tuple[tuple[Call, ...], Callable[[Sequence[Any]], str]]] = {
    "uuid": ((Call("nvmlDeviceGetUUID", ("96s",), after=(96,)),), _text),
    "pci.bus_id": ((PCI,), lambda values: _text(values[6:])),
    "name": ((Call("nvmlDeviceGetName", ("96s",), after=(96,)),), _text),
    "vbios_version": ((Call("nvmlDeviceGetVbiosVersion", ("32s",), after=(32,)),), _text),
    "persistence_mode": ((Call("nvmlDeviceGetPersistenceMode"),), _switch),
    "ecc.mode.current": ((Call("nvmlDeviceGetEccMode", ("I", "I")),), _switch),
    # Uncorrected (1), since the driver was loaded (0).
    "ecc.errors.uncorrected.volatile.total": (
        (Call("nvmlDeviceGetTotalEccErrors", ("Q",), before=(1, 0)),),
        _nth(0),
    ),
    "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded": ((SRAM,), lambda values: _yes(values[12:])),
    "remapped_rows.uncorrectable": ((_ROWS,), _nth(1)),
    "remapped_rows.pending": ((_ROWS,), lambda values: _yes(values[2:])),
    "remapped_rows.failure": ((_ROWS,), lambda values: _yes(values[3:])),
    "retired_pages.double_bit.count": ((_retired(1),), _nth(0)),
    "retired_pages.single_bit_ecc.count": ((_retired(0),), _nth(0)),
    "retired_pages.pending": ((Call("nvmlDeviceGetRetiredPagesPendingStatus"),), _yes),
    "gpu_recovery_action": ((FIELD_VALUE,), _recovery),
    "pcie.link.width.current": ((Call("nvmlDeviceGetCurrPcieLinkWidth"),), _nth(0)),
    "pcie.link.width.max": ((Call("nvmlDeviceGetMaxPcieLinkWidth"),), _nth(0)),
    "pcie.link.gen.current": ((Call("nvmlDeviceGetCurrPcieLinkGeneration"),), _nth(0)),
    "pcie.link.gen.gpumax": ((Call("nvmlDeviceGetGpuMaxPcieLinkGeneration"),), _nth(0)),
    "pcie.link.gen.max": ((Call("nvmlDeviceGetMaxPcieLinkGeneration"),), _nth(0)),
    "clocks_event_reasons.active": (
        (
            Call("nvmlDeviceGetCurrentClocksEventReasons", ("Q",)),
            Call("nvmlDeviceGetCurrentClocksThrottleReasons", ("Q",)),
        ),
        lambda values: f"0x{values[0]:016X}",
    ),
    "temperature.gpu.tlimit": ((MARGIN,), _nth(1)),
    "fabric.state": (_FABRIC, _one_of(FABRIC_STATES, 4)),
    "fabric.status": (_FABRIC, _fabric_status),
    "fabric.health.summary": ((FABRIC,), _one_of(FABRIC_HEALTH, 6)),
    "mig.mode.current": ((Call("nvmlDeviceGetMigMode", ("I", "I")),), _switch),
    "memory.used": ((MEMORY,), lambda values: str(values[4] >> 20)),
    "pstate": ((Call("nvmlDeviceGetPerformanceState"),), lambda values: f"P{values[0]}" if values[0] < 16 else "[N/A]"),
    "utilization.gpu": ((Call("nvmlDeviceGetUtilizationRates", ("II",)),), _nth(0)),
}
