"""The deep checks that need no GPU: what they measure here, and how they judge what others measured."""

import errno
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recorded_h100 import DRAIN, RESET, WARN, judge, told
from trainmaster.health import check_pass, figures, runner
from trainmaster.health.check import Absent, Check, Completed, Missing, Place, Source, SourceFault
from trainmaster.health.checks import (
    deep_cpu_speed,
    deep_gpu_collective,
    deep_gpu_dcgm,
    deep_gpu_pcie,
    deep_gpu_peers,
    deep_memory_patterns,
    deep_memory_speed,
    deep_storage_data,
    deep_storage_speed,
)
from trainmaster.health.deep import gpu, host, node, storage, task
from trainmaster.health.finding import Action, Verdict
from trainmaster.health.profile import Profile
from trainmaster.health.sources import dcgm, gpu_collective, gpu_load, gpu_peers, host_load, storage_load
from trainmaster.health.state import State

DEEP = Path(host.__file__).parent
UNKNOWN = (Verdict.UNKNOWN, Action.COMMENT)


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """As on a node: the system's Python and nothing of ours on its path."""
    argv = ["/usr/bin/python3", "-I", "-S", str(DEEP / script), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def test_patterns_come_back_and_one_wrong_bit_is_found() -> None:
    figures = json.loads(run("host.py", "patterns", "30", "16").stdout)
    assert figures == {"memory_tested_mib": 16, "memory_wrong_blocks": 0, "memory_wrong": []}
    assert judge(deep_memory_patterns.CHECK, figures) == []
    import ctypes
    import mmap

    memory = mmap.mmap(-1, 2 * host.BLOCK)
    pattern = ctypes.create_string_buffer(bytes(range(256)) * (host.BLOCK // 256 + 16), host.BLOCK + 4096)
    assert host._fill_and_check(memory, ctypes.addressof(pattern)) == []
    memory[host.BLOCK + 5] ^= 0x10
    assert host._check(memory, ctypes.addressof(pattern)) == ["1 byte, bits 0x10"]


def test_wrong_memory_drains_and_none_at_all_is_not_known() -> None:
    value = {"memory_tested_mib": 9, "memory_wrong_blocks": 1, "memory_wrong": ["1 byte, bits 0x10"]}
    (one,) = judge(deep_memory_patterns.CHECK, value)
    assert told([one]) == [DRAIN] and "bits 0x10" in one.detail
    none = {"memory_tested_mib": 0, "memory_wrong_blocks": 0, "memory_wrong": []}
    assert told(judge(deep_memory_patterns.CHECK, none)) == [UNKNOWN]


def test_storage_gives_back_what_was_written_and_leaves_nothing(tmp_path: Path) -> None:
    (one, other) = map(json.loads, run("storage.py", "8", str(tmp_path), str(tmp_path / "no")).stdout.splitlines())
    assert one["wrong_pieces"] == 0 and one["write_mbps"] > 0 and one["read_mbps"] > 0
    assert other["errno"] == errno.ENOENT
    assert list(tmp_path.iterdir()) == []
    value = {"folders": [one, other]}
    assert told(judge(deep_storage_data.CHECK, value)) == [UNKNOWN], (
        "a folder that is not there tells nothing of the node"
    )
    assert set(deep_storage_speed.COMPARE.figures(value)) == {
        f"storage_write_mbps {tmp_path}",
        f"storage_read_mbps {tmp_path}",
    }


def test_a_file_that_comes_back_otherwise_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.os.readv

    def torn(descriptor: int, buffers: list[Any]) -> int:
        count = real(descriptor, buffers)
        buffers[0][7] ^= 1
        return count

    monkeypatch.setattr(storage.os, "readv", torn)
    found = storage.measure(str(tmp_path), 8)
    assert found["wrong_pieces"] == 2
    assert told(judge(deep_storage_data.CHECK, {"folders": [found]})) == [DRAIN]


@pytest.mark.parametrize(
    ("number", "result"),
    [(errno.EIO, DRAIN), (errno.EROFS, DRAIN), (errno.ESTALE, DRAIN), (errno.ENOSPC, UNKNOWN), (errno.EACCES, UNKNOWN)],
)
def test_only_what_speaks_against_the_node_drains(number: int, result: Any) -> None:
    value = {"folders": [{"folder": "/scratch", "error": "so", "errno": number}]}
    (one,) = judge(deep_storage_data.CHECK, value)
    assert told([one]) == [result] and one.subject == "/scratch"


SPEEDS: list[tuple[Any, Any, str]] = [
    (deep_cpu_speed, {"cpu_hash_mbps": 900.0}, "cpu_hash_mbps"),
    (deep_memory_speed, {"memory_copy_gbps": 300.0}, "memory_copy_gbps"),
    (deep_storage_speed, {"folders": [{"folder": "/s", "write_mbps": 5, "read_mbps": 0}]}, "storage_write_mbps /s"),
    (deep_gpu_peers, {"peers": {"0-1": 350.0}, "refused": []}, "peer_gbps 0-1"),
    (deep_gpu_collective, {"ranks": 8, "bus_gbps": 470.0, "wrong": 0}, "nccl_bus_gbps"),
    (
        deep_gpu_pcie,
        {"gpus": [{"index": 3, "pcie_to_gpu_gbps": 55.0}, {"index": 4, "error": "x"}]},
        "pcie_to_gpu_gbps GPU3",
    ),
]


@pytest.mark.parametrize(("check", "value", "figure"), SPEEDS, ids=[figure for _, _, figure in SPEEDS])
def test_figures_and_the_sites_expectation(check: Any, value: Any, figure: str) -> None:
    assert list(check.COMPARE.figures(value)) == [figure]
    assert judge(check.CHECK, value) == [], "nobody has said what it should be"
    seen = check.COMPARE.figures(value)[figure]
    name = figure.partition(" ")[0]
    for key in (figure, name):
        assert judge(check.CHECK, value, deep={"expected": {key: seen * 1.01}}) == []
        (one,) = judge(check.CHECK, value, deep={"expected": {key: seen * 2}})
        assert told([one]) == [DRAIN] and one.detail.startswith(f"{name} {seen:g}, expected")
    assert judge(check.CHECK, value, deep={"expected": {key: seen * 2}}, thresholds={check.ID: 0.4}) == []


def test_odd_expectations_are_no_expectations() -> None:
    for expected in ([], "x", {"a": True}, {"a": "5"}, {"a": -1}, {"a": None}):
        assert figures.named(Profile({"deep": {"expected": expected}}), {"a": 1.0}) == {}


def test_gpus_that_do_not_reach_each_other() -> None:
    value = {"peers": {}, "refused": ["0-1", "1-0"]}
    assert judge(deep_gpu_peers.CHECK, value) == [], "by design on some machines"
    assert told(judge(deep_gpu_peers.CHECK, value, deep={"peers": True})) == [DRAIN]
    assert told(judge(deep_gpu_peers.CHECK, {"error": "cuInit: no", "peers": {}, "refused": []})) == [UNKNOWN]


def test_wrong_sums_drain_and_an_error_of_torchs_does_not() -> None:
    assert told(judge(deep_gpu_collective.CHECK, {"ranks": 8, "bus_gbps": 470.0, "wrong": 3})) == [DRAIN]
    assert told(judge(deep_gpu_collective.CHECK, {"ranks": 8, "error": "NCCL error"})) == [UNKNOWN]


def test_sources_hand_on_what_was_measured() -> None:
    for ask in (host_load.cpu, host_load.memory, host_load.patterns):
        talk = ask(Place("/fake", Profile({})))
        argv = next(talk)
        assert argv[:3] == [sys.executable, "-I", "-S"] and Path(argv[3]).exists()
        with pytest.raises(StopIteration) as done:
            talk.send(Completed('{"a": 1}\n', "", 0))
        assert done.value.value == {"a": 1}
    assert next(host_load.patterns(Place("/fake")))[-1] == "64", "many fake nodes share a machine"
    for wrong in (Completed("", "Killed", -9), Completed("[]", "", 0), Completed('{"a": 1}', "", 1)):
        with pytest.raises(SourceFault):
            host_load.parse(wrong)


def test_storage_is_looked_at_where_the_profile_says() -> None:
    with pytest.raises(Absent):
        next(storage_load.ask(Place("", Profile({}))))
    talk = storage_load.ask(Place("/r", Profile({"deep": {"storage": ["/scratch", "relative"]}})))
    assert next(talk)[-1] == "/r/scratch"
    with pytest.raises(StopIteration) as done:
        talk.send(Completed('{"folder": "/r/scratch", "errno": 5, "error": "x"}\n', "", 0))
    assert done.value.value["folders"][0]["folder"] == "/scratch"


def test_gpu_sources_want_two_gpus_and_a_python_that_has_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.touch(mode=0o755)
    monkeypatch.setattr(gpu_load.pci, "nvidia_devices", lambda root: ["0000:01:00.0", "0000:02:00.0"])
    profile = {"gpus": 2, "tools": {"nvidia-smi": str(tool)}}
    for source, words in ((gpu_peers, "peers_gpu.py"), (gpu_collective, "collective.py")):
        talk = source.ask(Place("", Profile(profile)))
        next(talk)
        argv = talk.send(Completed("", "", 0))
        assert argv[-2].endswith(words) and argv[-1] == "2"
    with pytest.raises(Absent, match="no torch"):
        talk.send(Completed("", "No module named 'torch'", 3))
    talk = gpu_collective.ask(Place("", Profile({**profile, "tools": {**profile["tools"], "python": "/opt/python"}})))  # type: ignore[dict-item]
    next(talk)
    assert talk.send(Completed("", "", 0))[0] == "/opt/python"
    with pytest.raises(Missing):
        talk.send(Completed("", "No module named 'torch'", 3))
    monkeypatch.setattr(gpu_load.pci, "nvidia_devices", lambda root: ["0000:01:00.0"])
    talk = gpu_peers.ask(Place("", Profile(profile)))
    next(talk)
    with pytest.raises(Absent, match="no two GPUs"):
        talk.send(Completed("", "", 0))


@pytest.mark.slow
def test_an_all_reduce_within_the_node_by_gloo() -> None:
    argv = [sys.executable, str(DEEP / "collective.py"), "2", "gloo", "0.2"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=250)
    found = json.loads(done.stdout)
    assert found["wrong"] == 0 and found["bus_gbps"] > 0 and found["ranks"] == 2, done.stderr


# What DCGM 3 and DCGM 4 print, by their own sources' description of it; not recorded on a machine.
DCGM3 = """Some line of its log {not json
{"DCGM GPU Diagnostic": {"test_categories": [
  {"category": "Deployment", "tests": [
    {"name": "Denylist", "results": [{"gpu_ids": "0,1", "status": "PASS"}]}, null,
    {"name": "Persistence Mode", "results": [{"gpu_ids": "0,1", "status": "FAIL", "warnings": "It is off"}]}]},
  {"category": "Hardware", "tests": [
    {"name": "GPU Memory", "results": [{"gpu_ids": "0", "status": "PASS"},
      {"gpu_ids": "1", "status": "FAIL", "warnings": ["a page was bad"]}]}]}]}}
"""
DCGM4 = {
    "DCGM Diagnostic": {
        "test_categories": [
            {
                "category": "Hardware",
                "tests": [
                    {
                        "name": "memory",
                        "results": [
                            {"entity_group": "GPU", "entity_id": 0, "status": "Pass"},
                            {"entity_group": "GPU", "entity_id": 1, "status": "Skip"},
                        ],
                        "test_summary": {"status": "Pass"},
                    }
                ],
            }
        ]
    },
    "metadata": {"version": "4.2.3"},
}


def dcgm4(severity: int | None, status: str = "Fail") -> dict[str, Any]:
    warning = {"warning": "something", "error_id": 29} | ({} if severity is None else {"error_severity": severity})
    raw = json.loads(json.dumps(DCGM4))
    raw["DCGM Diagnostic"]["test_categories"][0]["tests"][0]["results"][1] |= {"status": status, "warnings": [warning]}
    return {"level": 1, "results": dcgm.parse(Completed(json.dumps(raw), "", 226))}


def test_dcgm_3() -> None:
    value = {"level": 2, "results": dcgm.parse(Completed(DCGM3.replace("{not json", ""), "", 205))}
    config, memory = judge(deep_gpu_dcgm.CHECK, value)
    assert told([config, memory]) == [WARN, DRAIN], "a matter of deployment is only told"
    assert memory.subject == "GPU 1" and "GPU Memory: a page was bad" in memory.detail


@pytest.mark.parametrize(
    ("severity", "result"), [(2, DRAIN), (4, DRAIN), (None, DRAIN), (6, RESET), (5, WARN), (1, WARN)]
)
def test_dcgm_4_by_its_severities(severity: int | None, result: Any) -> None:
    (one,) = judge(deep_gpu_dcgm.CHECK, dcgm4(severity))
    assert told([one]) == [result] and one.subject == "GPU 1"


def test_dcgm_4_passes() -> None:
    assert judge(deep_gpu_dcgm.CHECK, {"level": 1, "results": dcgm.parse(Completed(json.dumps(DCGM4), "", 0))}) == []


@pytest.mark.parametrize(
    "out",
    [
        *("", "Error: unable to connect to host engine", "{}", "[]", '{"DCGM Diagnostic": 3}', "{" * 5000),
        '{"DCGM Diagnostic": {"runtime_error": "no", "test_categories": [{}]}}',
        '{"DCGM Diagnostic": {"test_categories": []}}',
    ],
)
def test_a_dcgm_that_fails_is_no_failed_gpu(out: str) -> None:
    with pytest.raises(SourceFault):
        dcgm.parse(Completed(out, "no host engine", 1))


def test_dcgm_is_asked_only_where_it_is_and_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="not installed"):
        next(dcgm.ask(Place(str(tmp_path))))
    with pytest.raises(Absent, match="does not want"):
        next(dcgm.ask(Place("", Profile({"thresholds": {"deep.dcgm.level": 0}, "tools": {"dcgmi": "/bin/true"}}))))


def test_deep_sources_are_looked_at_one_after_another() -> None:
    at: list[str] = []

    def source(name: str, kind: str) -> Source:
        def ask(place: Place) -> Any:
            done = yield ["/bin/sh", "-c", "date +%s%N; sleep 0.1; date +%s%N"]
            return [int(line) for line in done.out.split()]

        return Source(name=name, about="", ask=ask, set=kind)

    sources = [source("light", "fast"), source("one", "deep"), source("two", "deep")]
    checks = [Check(f"c.{one.name}", "", (one,), lambda context, value: []) for one in sources]
    result = check_pass.run(checks, profile=Profile({}), state=State(), begin=at.append)
    assert at == ["one", "two"]
    spans = [result.readings[name].value for name in ("light", "one", "two")]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_what_a_budget_cuts_off_is_late_and_not_hung() -> None:
    def ask(place: Place) -> Any:
        yield ["/bin/sleep", "60"]

    slow = Source(name="slow", about="", ask=ask, set="deep", deadline_s=60.0)
    check = Check("deep.slow", "", (slow,), lambda context, value: [])
    result = check_pass.run([check], profile=Profile({}), state=State(), budget_s=0.3)
    assert result.readings["slow"].state == "late"
    assert all(one.verdict is Verdict.UNKNOWN for one in result.decision.findings)
    assert runner.DEEP_BUDGET_S > runner.BUDGET_S


def test_where_a_gpu_is_near() -> None:
    assert gpu.cores_of("0-2,8\n") == {0, 1, 2, 8}
    gpu.stay_near("0000:ff:1f.7")  # there is none; all cores are as good


def test_a_task_comes_back_as_it_was(tmp_path: Path) -> None:
    one = task.Task(
        nodes=("a", "b"), addresses={"a": "10.0.0.1", "b": "10.0.0.2"}, means=("mpi",), lifted={"a": "[HC] x"}
    )
    task.write(str(tmp_path), one)
    assert task.read(str(tmp_path)) == one


def test_a_nodes_part_without_a_cluster(tmp_path: Path) -> None:
    """By itself, as srun starts it: its own checks, told in the folder."""
    one = task.Task(nodes=("n1",), addresses={"n1": "127.0.0.1"}, only=("deep.cpu",), root=str(tmp_path), limit_s=100)
    task.write(str(tmp_path), one)
    env = {"SLURMD_NODENAME": "n1", "PATH": "/usr/bin:/bin"}
    argv = ["/usr/bin/python3", str(DEEP / "node.py"), str(tmp_path), "checks"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = node.reports.read(str(tmp_path), "n1")
    assert found is not None and found.over
    assert [(one.check, one.verdict) for one in found.findings] == [("deep.cpu.speed", Verdict.OK)]
    assert found.figures["deep.cpu.speed"]["cpu_hash_mbps"] > 0
