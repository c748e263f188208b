"""What an hour of trying to drain a good node, or to hide a fault of a bad one, has found; more in test_adversary."""

import json
from pathlib import Path

import pytest
from measure.sick_node import SickNode

from trainmaster.health import node
from trainmaster.health.finding import DRAINS, Finding

FILES = [
    *(f"sys/class/infiniband/mlx5_3/{name}" for name in ("fw_ver", "node_guid", "ports/1/counters/symbol_error")),
    *("proc/loadavg", "proc/sys/kernel/pid_max", "sys/devices/system/cpu/online"),
    *("sys/devices/system/edac/mc/mc0/ue_count", "sys/bus/pci/devices/0000:00:07.0/numa_node"),
]
STATE = {
    **{"version": 1, "boot_id": "boot-1", "sources": {"node.kmsg": 7, "gpu.query": []}, "passes": 1},
    **{"checks": {"ib.counters": {"g": 1}, "gpu.xid": {"active": 3}}, "strikes": {"gpu.temp|0": [1, 2]}},
    **{"stuck": {"fs.space": "x"}, "looked": {"full": None}},
}


def drains(sick: SickNode) -> list[Finding]:
    return [finding for finding in sick.look().decision.findings if finding.action in DRAINS]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["", "<unknown>\n", "-1\n"])
def test_a_file_of_sysfs_that_says_nothing_drains_nobody(tmp_path: Path, name: str, text: str) -> None:
    sick = SickNode(tmp_path)
    sick.look()
    sick.write(name, text)
    assert drains(sick) == []


def test_a_state_that_cannot_be_left_behind_drains_nobody_and_sees_everything(tmp_path: Path) -> None:
    sick = SickNode(tmp_path)
    sick.write("var/lib/trainmaster", "a folder cannot be made here")
    for _ in range(2):
        result = node.run(node.Options(root=str(tmp_path)))
        assert not [finding for finding in result.decision.findings if finding.action in DRAINS]
        assert any("cannot be written" in finding.detail for finding in result.decision.findings)
    sick.xid(95)
    assert [finding.check for finding in drains(sick)] == ["gpu.xid"]


@pytest.mark.parametrize("text", ["", "{]", "[]", "null", '{"version": 1}', json.dumps(STATE)])
def test_any_state_drains_nobody_and_loses_no_event(tmp_path: Path, text: str) -> None:
    sick = SickNode(tmp_path)
    sick.write("var/lib/trainmaster/health/state.json", text)
    assert drains(sick) == []
    sick.xid(95)
    assert [finding.check for finding in drains(sick)] == ["gpu.xid"]
