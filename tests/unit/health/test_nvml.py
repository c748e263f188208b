"""NVML gives the rows that nvidia-smi gives: a library built here answers in NVIDIA's own structures."""

import ctypes
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pynvml
import pytest

from fake_nvml import recording
from recorded_h100 import DRAIN, IDLE, LOADED, RESET, gpus, judge, told
from trainmaster.health import nvml_fields, registry
from trainmaster.health.gpu_values import RETURNS, broken, shown
from trainmaster.health.nvml_fields import FIELDS, Call
from trainmaster.health.sources import gpu_query

BY_ID = {check.id: check for check in registry.CHECKS}


def same(value: Any, rows: list[dict[str, str]]) -> bool:
    """Whether two rows say the same in every field that is asked for, N/A and [N/A] being one."""
    named = [{field: shown(row, field) for field in gpu_query.WANTED} for row in value["gpus"]]
    return named == [{field: shown(row, field) for field in gpu_query.WANTED} for row in rows]


@pytest.mark.parametrize("row", [IDLE, LOADED], ids=["idle", "loaded"])
def test_it_gives_the_rows_of_nvidia_smi(ask_nvml: Any, row: dict[str, str]) -> None:
    rows = gpus({}, {}, row=row)["gpus"]
    reading = ask_nvml(recording(*rows))
    assert reading.state == "ok", reading
    assert same(reading.value, rows)


@pytest.mark.parametrize(("code", "word"), [(15, "GPU is lost"), (16, "GPU requires reset"), (999, "Unknown Error")])
def test_a_value_that_cannot_be_read_is_a_failure(ask_nvml: Any, code: int, word: str) -> None:
    lines = recording(*gpus({})["gpus"])
    lines = [f"nvmlDeviceGetTotalEccErrors {code}" if "TotalEcc" in line else line for line in lines]
    found = judge(BY_ID["gpu.query"], ask_nvml(lines).value, {"gpus": {}})
    assert told(found) == [DRAIN] and word in found[0].detail


def test_a_fabric_of_an_older_library_is_read_without_its_health(ask_nvml: Any) -> None:
    rows = gpus({"fabric.state": "Completed", "fabric.status": "Success", "fabric.health.summary": "Healthy"})["gpus"]
    older = f"v{pynvml.nvmlGpuFabricInfo_v2:x}"
    lines = [line.replace(f"v{pynvml.nvmlGpuFabricInfo_v3:x}", older) for line in recording(*rows)]
    row = ask_nvml(lines).value["gpus"][0]
    assert (row["fabric.state"], row["fabric.status"], row["fabric.health.summary"]) == (
        "Completed",
        "Success",
        "[N/A]",
    )


@pytest.mark.parametrize("function", sorted({call.function for calls, _ in FIELDS.values() for call in calls}))
def test_what_an_older_library_does_not_know_is_no_fault(ask_nvml: Any, function: str) -> None:
    # Seen on the H100: a field of a later driver ends with 2, an invalid argument, and that is no broken GPU.
    lines = [f"{line.split()[0]} 2" if function in line else line for line in recording(*gpus({})["gpus"])]
    for row in ask_nvml(lines).value["gpus"]:
        assert not [field for field, text in row.items() if broken(text)]


def test_a_recovery_action_that_the_driver_does_not_know_is_no_fault(ask_nvml: Any) -> None:
    lines = [line for line in recording(*gpus({})["gpus"]) if "FieldValues" not in line]
    unknown = pynvml.c_nvmlFieldValue_t(fieldId=230, nvmlReturn=pynvml.NVML_ERROR_INVALID_ARGUMENT)
    reading = ask_nvml([*lines, f"nvmlDeviceGetFieldValues 0 {bytes(unknown).hex()}"])
    assert reading.value["gpus"][0]["gpu_recovery_action"] == "[N/A]"
    assert judge(BY_ID["gpu.query"], reading.value, {"gpus": {}}) == []


def test_a_recovery_action_of_a_later_driver_is_acted_upon(ask_nvml: Any) -> None:
    later = pynvml.c_nvmlFieldValue_t(fieldId=230, valueType=pynvml.NVML_VALUE_TYPE_UNSIGNED_INT)
    later.value.uiVal = pynvml.NVML_GPU_RECOVERY_ACTION_SYSTEM_REBOOT
    lines = [line for line in recording(*gpus({})["gpus"]) if "FieldValues" not in line]
    reading = ask_nvml([*lines, f"nvmlDeviceGetFieldValues 0 {bytes(later).hex()}"])
    assert told(judge(BY_ID["gpu.recovery"], reading.value)) == [RESET]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nvmlInit_v2 9", "nvmlInit_v2 returned 9: the driver is not loaded"),
        ("nvmlDeviceGetHandleByIndex_v2 15", "GPU 0: nvmlDeviceGetHandleByIndex_v2 returned 15: a GPU has fallen off"),
        ("nvmlDeviceGetCount_v2 crash", "ended by signal 6"),
    ],
)
def test_what_fails_is_said(ask_nvml: Any, line: str, words: str) -> None:
    lines = recording(*gpus({})["gpus"])
    reading = ask_nvml([line, *lines])
    assert reading.state == "failed" and words in reading.detail


def test_a_library_that_hangs_is_given_up(ask_nvml: Any) -> None:
    began_s = time.monotonic()
    patient = gpu_query.SOURCE._replace(deadline_s=0.3)
    assert ask_nvml(["nvmlInit_v2 hang"], source=patient).state == "hung"
    assert time.monotonic() - began_s < 10


def test_a_library_that_is_not_there_is_no_pass(ask_nvml: Any) -> None:
    reading = ask_nvml([], path="/nonexistent/libnvidia-ml.so.1")
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
