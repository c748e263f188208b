"""NVML gives the rows that nvidia-smi gives: a library built here answers in NVIDIA's own structures."""

import ctypes
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pynvml
import pytest

from recorded_h100 import DRAIN, IDLE, LOADED, RESET, gpus, judge, told
from trainmaster.health import nvml_fields, registry, runner
from trainmaster.health.check import Place, Source
from trainmaster.health.gpu_values import RETURNS, shown
from trainmaster.health.nvml_fields import FIELDS, Call
from trainmaster.health.profile import Profile
from trainmaster.health.sources import gpu_query

SOURCE_OF_LIBRARY = Path(__file__).resolve().parents[2] / "fake_nvml.c"
BY_ID = {check.id: check for check in registry.CHECKS}


def number(row: Mapping[str, str], field: str, words: tuple[str, ...] = ()) -> ctypes.c_uint:
    return ctypes.c_uint(words.index(row[field]) if words else int(row[field], 0))


def yes(row: Mapping[str, str], field: str) -> ctypes.c_uint:
    return number(row, field, ("No", "Yes"))


def switch(row: Mapping[str, str], field: str) -> ctypes.c_uint:
    return number(row, field, ("Disabled", "Enabled"))


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
    sram.bThresholdExceeded = yes(row, "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded").value
    yield f"nvmlDeviceGetSramEccErrorStatus v{sram.version:x}", [sram]
    rows = [zero, number(row, "remapped_rows.uncorrectable")]
    yield (
        "nvmlDeviceGetRemappedRows",
        [*rows, yes(row, "remapped_rows.pending"), yes(row, "remapped_rows.failure")],
    )
    for place, kind in enumerate(("single_bit_ecc", "double_bit")):
        if shown(row, f"retired_pages.{kind}.count") is not None:
            yield f"nvmlDeviceGetRetiredPages/{place}", [number(row, f"retired_pages.{kind}.count")]
    if shown(row, "retired_pages.pending") is not None:
        yield "nvmlDeviceGetRetiredPagesPendingStatus", [yes(row, "retired_pages.pending")]
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


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(built), str(SOURCE_OF_LIBRARY)], check=True)
    return str(built)


@pytest.fixture
def ask(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """ask(lines) -> what the runner read from gpu.query with the library for a source."""
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "answers"))

    def asked(lines: list[str], source: Source = gpu_query.SOURCE, path: str = library) -> runner.Reading:
        (tmp_path / "answers").write_text("\n".join(lines) + "\n")
        place = Place(profile=Profile({"gpus": 1, "tools": {"libnvidia-ml": path}}))
        return runner.read_all([source], lambda _: place)[source.name]

    return asked


def same(value: Any, rows: list[dict[str, str]]) -> bool:
    """Whether two rows say the same in every field that is asked for, N/A and [N/A] being one."""
    named = [{field: shown(row, field) for field in gpu_query.WANTED} for row in value["gpus"]]
    return named == [{field: shown(row, field) for field in gpu_query.WANTED} for row in rows]


@pytest.mark.parametrize("row", [IDLE, LOADED], ids=["idle", "loaded"])
def test_it_gives_the_rows_of_nvidia_smi(ask: Any, row: dict[str, str]) -> None:
    rows = gpus({}, {}, row=row)["gpus"]
    reading = ask(recording(*rows))
    assert reading.state == "ok", reading
    assert same(reading.value, rows)


FAULTS = [
    ("gpu.ecc.uncorr", {"ecc.errors.uncorrected.volatile.total": "4294967299"}, RESET),
    ("gpu.ecc.sram_threshold", {"ecc.errors.uncorrected.aggregate.sram.thresholdExceeded": "Yes"}, DRAIN),
    ("gpu.remap.failure", {"remapped_rows.failure": "Yes"}, DRAIN),
    ("gpu.remap.pending", {"remapped_rows.pending": "Yes"}, RESET),
    ("gpu.remap.uncorr", {"remapped_rows.uncorrectable": "513"}, DRAIN),
    ("gpu.pages", {"retired_pages.pending": "Yes"}, RESET),
    ("gpu.pages", {"retired_pages.double_bit.count": "40", "retired_pages.single_bit_ecc.count": "23"}, DRAIN),
    ("gpu.recovery", {"gpu_recovery_action": "Drain and Reset"}, RESET),
    ("gpu.pcie.width", {"pcie.link.width.current": "8"}, RESET),
    ("gpu.throttle", {"clocks_event_reasons.active": "0x0000000000000048"}, DRAIN),
    ("gpu.temp", {"temperature.gpu.tlimit": "-2"}, DRAIN),
    ("gpu.fabric", {"fabric.state": "In Progress", "fabric.status": "N/A"}, DRAIN),
    ("gpu.fabric", {"fabric.state": "Completed", "fabric.status": "Invalid State"}, DRAIN),
    (
        "gpu.fabric",
        {"fabric.state": "Completed", "fabric.status": "Success", "fabric.health.summary": "Unhealthy"},
        DRAIN,
    ),
]


@pytest.mark.parametrize(("check_id", "change", "expected"), FAULTS, ids=lambda value: str(value)[:60])
def test_a_fault_is_found_through_nvml_too(ask: Any, check_id: str, change: dict[str, str], expected: Any) -> None:
    reading = ask(recording(*gpus({}, change)["gpus"]))
    findings = judge(BY_ID[check_id], reading.value)
    assert told(findings) == [expected]
    assert findings[0].subject == "0000:10:00.0"


@pytest.mark.parametrize(("code", "word"), [(15, "GPU is lost"), (16, "GPU requires reset"), (999, "Unknown Error")])
def test_a_value_that_cannot_be_read_is_a_failure(ask: Any, code: int, word: str) -> None:
    lines = recording(*gpus({})["gpus"])
    lines = [f"nvmlDeviceGetTotalEccErrors {code}" if "TotalEcc" in line else line for line in lines]
    found = judge(BY_ID["gpu.query"], ask(lines).value, {"gpus": {}})
    assert told(found) == [DRAIN] and word in found[0].detail


def test_a_fabric_of_an_older_library_is_read_without_its_health(ask: Any) -> None:
    rows = gpus({"fabric.state": "Completed", "fabric.status": "Success", "fabric.health.summary": "Healthy"})["gpus"]
    older = f"v{pynvml.nvmlGpuFabricInfo_v2:x}"
    lines = [line.replace(f"v{pynvml.nvmlGpuFabricInfo_v3:x}", older) for line in recording(*rows)]
    row = ask(lines).value["gpus"][0]
    assert (row["fabric.state"], row["fabric.status"], row["fabric.health.summary"]) == (
        "Completed",
        "Success",
        "[N/A]",
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nvmlInit_v2 9", "nvmlInit_v2 returned 9: the driver is not loaded"),
        ("nvmlDeviceGetHandleByIndex_v2 15", "GPU 0: nvmlDeviceGetHandleByIndex_v2 returned 15: a GPU has fallen off"),
        ("nvmlDeviceGetCount_v2 crash", "ended by signal 6"),
    ],
)
def test_what_fails_is_said(ask: Any, line: str, words: str) -> None:
    lines = recording(*gpus({})["gpus"])
    reading = ask([line, *lines])
    assert reading.state == "failed" and words in reading.detail


def test_a_library_that_hangs_is_given_up(ask: Any) -> None:
    began_s = time.monotonic()
    patient = gpu_query.SOURCE._replace(deadline_s=0.3)
    assert ask(["nvmlInit_v2 hang"], source=patient).state == "hung"
    assert time.monotonic() - began_s < 10


def test_a_library_that_is_not_there_is_no_pass(ask: Any) -> None:
    reading = ask([], path="/nonexistent/libnvidia-ml.so.1")
    assert reading.state == "failed" and "/nonexistent/libnvidia-ml.so.1" in reading.detail


def test_nothing_of_it_is_loaded_where_nvidia_smi_is_asked() -> None:
    program = "import sys, trainmaster.health.registry as r; sys.exit(any('nvml' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [
        (nvml_fields.SRAM, pynvml.c_nvmlEccSramErrorStatus_v1_t, pynvml.nvmlEccSramErrorStatus_v1),
        (nvml_fields.MARGIN, pynvml.c_nvmlMarginTemperature_v1_t, pynvml.nvmlMarginTemperature_v1),
        (nvml_fields.MEMORY, pynvml.c_nvmlMemory_v2_t, pynvml.nvmlMemory_v2),
        (nvml_fields.FABRIC, pynvml.c_nvmlGpuFabricInfo_v3_t, pynvml.nvmlGpuFabricInfo_v3),
        (nvml_fields.FABRIC_2, pynvml.c_nvmlGpuFabricInfo_v2_t, pynvml.nvmlGpuFabricInfo_v2),
        (nvml_fields.FIELD_VALUE, pynvml.c_nvmlFieldValue_t, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
        (nvml_fields.PCI, pynvml.nvmlPciInfo_t, None),
    ],
)
def test_structures_are_of_nvidias_sizes(ours: Call, theirs: Any, version: int | None) -> None:
    assert struct.calcsize("=" + ours.results[0]) == ctypes.sizeof(theirs)
    assert ours.first == version


def test_every_function_is_one_of_nvidias() -> None:
    bindings = Path(pynvml.__file__).read_text()
    for calls, _ in FIELDS.values():
        for call in calls:
            assert f'"{call.function}"' in bindings, call.function
    assert {code for code in RETURNS if code != 3} <= {
        value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")
    }
    # Nothing is wanted that is not asked for.
    assert set(gpu_query.WANTED) - set(FIELDS) == {"index", "driver_version"}
