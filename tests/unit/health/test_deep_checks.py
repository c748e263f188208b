"""The deep GPU checks on what a real H100 measured, and on what a broken one would."""

from pathlib import Path
from typing import Any

import pytest

from recorded_h100 import DRAIN, WARN, judge, told
from trainmaster.health.check import Absent, Completed, Place, SourceFault
from trainmaster.health.checks import deep_gpu_computes, deep_gpu_memory, deep_gpu_speed, gpu_inforom
from trainmaster.health.profile import Profile
from trainmaster.health.sources import gpu_inforom as inforom
from trainmaster.health.sources import gpu_load

# As printed on one H100, 2026-11-23.
MEASURED = {
    "index": 0, "name": "NVIDIA H100 80GB HBM3", "bus_id": "0000:00:06.0", "multiprocessors": 132, "capability": "9.0",
    "context_s": 0.231, "memory_copy_gbps": 2798, "memory_tested_mib": 80040, "memory_wrong_words": 0,
    "memory_wrong_bits": "0x0000000000000000", "memory_wrong_from_byte": None, "memory_write_gbps": 3181,
    "memory_read_gbps": 3063, "pcie_to_gpu_gbps": 29.1, "pcie_to_host_gbps": 50.6, "tensor_tflops": 648.6,
    "tensor_min_tflops": 609.5, "tensor_max_tflops": 662.6, "tensor_runs": 1341, "tensor_wrong_warps": 0,
    "tensor_wrong_multiprocessors": [], "took_s": 4.942,
}  # fmt: skip
CHECKS = (deep_gpu_computes.CHECK, deep_gpu_memory.CHECK, deep_gpu_speed.CHECK)


def measured(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"gpus": [{**MEASURED, "bus_id": f"0000:0{number}:00.0", **change} for number, change in enumerate(changes)]}


def test_a_healthy_h100_passes() -> None:
    for check in CHECKS:
        assert judge(check, measured({}, {})) == []


@pytest.mark.parametrize(
    ("check", "change", "words"),
    [
        (deep_gpu_computes, {"tensor_wrong_warps": 3, "tensor_wrong_multiprocessors": [17]}, "multiprocessors 17"),
        (deep_gpu_computes, {"error": "cuEventSynchronize: CUDA_ERROR_ECC_UNCORRECTABLE (214)"}, "ECC_UNCORRECTABLE"),
        (deep_gpu_memory, {"memory_wrong_words": 1, "memory_wrong_bits": "0x10"}, "1 words came back"),
        (deep_gpu_speed, {"tensor_tflops": 500.0}, "tensor_tflops 500, expected 648.6"),
        (deep_gpu_speed, {"memory_read_gbps": 2700}, "memory_read_gbps 2700"),
    ],
)
def test_a_gpu_that_is_broken_or_slow_is_named(check: Any, change: dict[str, Any], words: str) -> None:
    findings = judge(check.CHECK, measured({}, change))
    assert told(findings) == [DRAIN]
    assert findings[0].subject == "0000:01:00.0" and words in findings[0].detail


def test_slow_pcie_is_no_fault_of_the_gpu() -> None:
    assert judge(deep_gpu_speed.CHECK, measured({"pcie_to_gpu_gbps": 11.0})) == []


def test_a_model_that_nobody_knows_is_held_against_its_peers() -> None:
    new = {"name": "NVIDIA X1000"}
    assert judge(deep_gpu_speed.CHECK, measured(new, {**new, "tensor_tflops": 100.0})) == []
    findings = judge(deep_gpu_speed.CHECK, measured(new, new, new, {**new, "tensor_tflops": 100.0}))
    assert told(findings) == [DRAIN] and "its peers have 648.6" in findings[0].detail
    assert told(judge(deep_gpu_speed.CHECK, measured(new), gpu={"expected": {"tensor_tflops": 900}})) == [DRAIN]


def test_what_the_measurement_prints_is_read() -> None:
    assert gpu_load.parse(Completed('{"index": 0}\n{"index": 1}\n', "", 0)) == [{"index": 0}, {"index": 1}]
    for out in ("", "Traceback\n"):
        with pytest.raises(SourceFault):
            gpu_load.parse(Completed(out, "Segmentation fault", -11))


def test_a_gpu_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.touch(mode=0o755)
    place = Place("", Profile({"gpus": 1, "tools": {"nvidia-smi": str(tool)}}))
    talk = gpu_load.ask(place)
    assert next(talk) == [str(tool), "--query-compute-apps=pid", "--format=csv,noheader"]
    with pytest.raises(Absent, match="process 1279 uses a GPU"):
        talk.send(Completed("1279\n", "", 0))
    talk = gpu_load.ask(place)
    next(talk)
    assert talk.send(Completed("", "", 0))[3].endswith("deep/gpu.py")
    with pytest.raises(Absent):
        next(gpu_load.ask(Place(str(tmp_path))))


def test_inforom(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").touch(mode=0o755)
    talk = inforom.ask(Place(str(tmp_path), Profile({"gpus": 2})))
    next(talk)
    with pytest.raises(StopIteration) as done:
        talk.send(Completed("0, 00000000:0F:00.0, valid\n1, 00000000:10:00.0, corrupted\n", "", 0))
    findings = judge(gpu_inforom.CHECK, done.value.value)
    assert told(findings) == [WARN] and findings[0].subject == "0000:10:00.0"
    talk = inforom.ask(Place(str(tmp_path), Profile({"gpus": 2})))
    next(talk)
    with pytest.raises(Absent):
        talk.send(Completed('Field "inforom.checksum_validation" is not a valid field to query.\n', "", 2))
