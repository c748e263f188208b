"""What the library of `fake_nvml.c` is to answer for GPUs that nvidia-smi describes so, in NVIDIA's own structures."""

import ctypes
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pynvml

from trainmaster.health import nvml_fields
from trainmaster.health.gpu_values import shown, truth


def build(folder: Path) -> str:
    """The library."""
    built = folder / "libnvidia-ml.so.1"
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(built), str(Path(__file__).with_suffix(".c"))], check=True)
    return str(built)


def number(row: Mapping[str, str], field: str) -> ctypes.c_uint:
    return ctypes.c_uint(int(row[field], 0))


def switch(row: Mapping[str, str], field: str) -> ctypes.c_uint:
    """A field of Yes and No, or of Enabled and Disabled."""
    return ctypes.c_uint(int(truth(row, field) or False))


def answers(row: Mapping[str, str]) -> Iterator[tuple[str, list[Any]]]:
    """What the library of such a GPU would hand out, by NVIDIA's bindings; nothing of what does not apply."""
    zero = ctypes.c_uint(0)
    address = pynvml.nvmlPciInfo_t(busId=row["pci.bus_id"].encode())
    yield "nvmlDeviceGetPciInfo_v3", [address]
    for function, field in (("UUID", "uuid"), ("Name", "name"), ("VbiosVersion", "vbios_version")):
        yield f"nvmlDeviceGet{function}", [ctypes.create_string_buffer(row[field].encode())]
    yield "nvmlDeviceGetPersistenceMode", [switch(row, "persistence_mode")]
    yield "nvmlDeviceGetEccMode", [switch(row, "ecc.mode.current"), zero]
    yield "nvmlDeviceGetMigMode", [switch(row, "mig.mode.current"), zero]
    yield "nvmlDeviceGetTotalEccErrors", [ctypes.c_ulonglong(int(row["ecc.errors.uncorrected.volatile.total"]))]
    sram = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    sram.bThresholdExceeded = switch(row, "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded").value
    yield f"nvmlDeviceGetSramEccErrorStatus v{sram.version:x}", [sram]
    rows = [zero, number(row, "remapped_rows.uncorrectable")]
    yield (
        "nvmlDeviceGetRemappedRows",
        [*rows, switch(row, "remapped_rows.pending"), switch(row, "remapped_rows.failure")],
    )
    for place, kind in enumerate(("single_bit_ecc", "double_bit")):
        if shown(row, f"retired_pages.{kind}.count") is not None:
            yield f"nvmlDeviceGetRetiredPages/{place}", [number(row, f"retired_pages.{kind}.count")]
    if shown(row, "retired_pages.pending") is not None:
        yield "nvmlDeviceGetRetiredPagesPendingStatus", [switch(row, "retired_pages.pending")]
    asked = pynvml.c_nvmlFieldValue_t(fieldId=pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)
    asked.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    asked.value.uiVal = nvml_fields.RECOVERY.index(row["gpu_recovery_action"])
    yield "nvmlDeviceGetFieldValues", [asked]
    for function, field in (
        ("CurrPcieLinkWidth", "pcie.link.width.current"),
        ("MaxPcieLinkWidth", "pcie.link.width.max"),
        ("CurrPcieLinkGeneration", "pcie.link.gen.current"),
        ("GpuMaxPcieLinkGeneration", "pcie.link.gen.gpumax"),
        ("MaxPcieLinkGeneration", "pcie.link.gen.max"),
    ):
        yield f"nvmlDeviceGet{function}", [number(row, field)]
    reasons = ctypes.c_ulonglong(int(row["clocks_event_reasons.active"], 0))
    yield "nvmlDeviceGetCurrentClocksThrottleReasons", [reasons]
    margin = pynvml.c_nvmlMarginTemperature_v1_t(pynvml.nvmlMarginTemperature_v1, int(row["temperature.gpu.tlimit"]))
    yield f"nvmlDeviceGetMarginTemperature v{margin.version:x}", [margin]
    memory = pynvml.c_nvmlMemory_v2_t(version=pynvml.nvmlMemory_v2, used=int(row["memory.used"]) << 20)
    yield f"nvmlDeviceGetMemoryInfo_v2 v{memory.version:x}", [memory]
    yield "nvmlDeviceGetPerformanceState", [ctypes.c_uint(int(row["pstate"][1:]))]
    load = pynvml.c_nvmlUtilization_t(gpu=int(row["utilization.gpu"]))
    yield "nvmlDeviceGetUtilizationRates", [load]
    if shown(row, "fabric.state") is not None:
        fabric = pynvml.c_nvmlGpuFabricInfo_v3_t()
        fabric.state = nvml_fields.FABRIC_STATES.index(row["fabric.state"])
        fabric.status = 0 if row["fabric.status"] in ("Success", "N/A") else pynvml.NVML_ERROR_INVALID_STATE
        if shown(row, "fabric.health.summary") is not None:
            fabric.healthSummary = nvml_fields.FABRIC_HEALTH.index(row["fabric.health.summary"])
        yield f"nvmlDeviceGetGpuFabricInfoV v{fabric.version:x}", [fabric]


def recording(*rows: Mapping[str, str]) -> list[str]:
    """The lines that the fake library answers from."""
    lines = ["nvmlInit_v2 0", f"nvmlSystemGetDriverVersion 0 {rows[0]['driver_version'].encode().hex()}00"]
    lines.append(f"nvmlDeviceGetCount_v2 0 {bytes(ctypes.c_uint(len(rows))).hex()}")
    for place, row in enumerate(rows):
        of = f"{place}:" if place else ""
        lines.append(f"{of}nvmlDeviceGetHandleByIndex_v2 0")
        for call, results in answers(row):
            function, _, version = call.partition(" ")
            lines.append(" ".join([of + function, "0", version, *(bytes(result).hex() for result in results)]))
    return lines
