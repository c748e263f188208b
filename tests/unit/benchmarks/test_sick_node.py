"""What an hour of trying to drain a good node, or to hide a fault of a bad one, has found; more in test_adversary."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from measure.sick_node import SickNode

from trainmaster.health import acting, enforce, node
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


S = "var/lib/trainmaster/health/"
BIG = 10**400  # JSON has such numbers, and no float holds them
DEEP = "[" * 200_000
TABLES = {
    **{"ib": {"mlx5_0": 3, "": []}, "units": [1, None, ""], "hugepages": {"total": "x"}, "off": [[], "gpu.xid.x"]},
    **{"modes": {"*": 7}, "actions": {"gpu": []}, "rails": {"a": 1}, "leaves": {"b": None}, "host": {"kernel": None}},
    **{"thresholds": {"fs.usage": BIG}, "deadlines_s": {"gpu.query": BIG}, "memory_mib": BIG},
}


def state(**different: object) -> Callable[[SickNode], object]:
    def change(sick: SickNode) -> None:
        path = sick.root / S / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | different))

    return change


HOSTILE: dict[str, Callable[[SickNode], object]] = {
    "a profile without an end": lambda n: n.write("etc/trainmaster/health.json", DEEP),
    "a profile of nonsense": lambda n: n.write("etc/trainmaster/health.json", json.dumps(TABLES)),
    "a profile without numbers": lambda n: n.write(
        "etc/trainmaster/health.json",
        '{"thresholds": {"proc.room": -Infinity, "fs.usage": NaN}, "deadlines_s": {"gpu.query": NaN}}',
    ),
    "half a state": lambda n: (n.root / S / "state.json").write_text((n.root / S / "state.json").read_text()[:200]),
    "a state that is a folder": lambda n: (n.remove(S + "state.json"), (n.root / S / "state.json").mkdir()),
    "a lock that is a folder": lambda n: (n.remove(S + "lock"), (n.root / S / "lock").mkdir()),
    "strikes beyond all time": state(strikes={"gpu.temp|0000:00:07.0": [BIG]}),
    "memories beyond all time": state(checks={"ib.state": {"mlx5_3/1": BIG}, "host.stray": {"pid 7": BIG}}),
    "sources that remember nonsense": state(sources={"node.kmsg": {"last": "x"}, "fs.space": [1], "gpu.query": 7}),
    "a place in the log that it never had": state(sources={"node.kmsg": {"last": 10**30}}),
    "a log with numbers of no computer": lambda n: n.write(
        "dev/kmsg", f"4,{'9' * 5000},5,-;NVRM: Xid (x): {'9' * 5000}"
    ),
    "a log of bytes": lambda n: (n.root / "dev/kmsg").write_bytes(bytes(range(256)) * 99 + b"\n"),
    "no boot id": lambda n: n.remove("proc/sys/kernel/random/boot_id"),
    "another boot": lambda n: n.write("proc/sys/kernel/random/boot_id", "boot-2"),
    "switches that are a file": lambda n: n.write("etc/trainmaster/health.d/off", ""),
    "a ledger of nonsense": lambda n: n.write(
        S + "ledger.json", '{"causes": [["a"]], "reason": null, "good_passes": Infinity, "note": 1}'
    ),
    "a history of bytes": lambda n: (n.root / S / "history.jsonl").write_bytes(bytes(range(256)) * 9),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_a_crash_or_an_editor_leaves_behind_costs_a_pass_or_a_fault(name: str, tmp_path: Path) -> None:
    sick = SickNode(tmp_path)
    sick.look()
    HOSTILE[name](sick)
    before = {finding.check for finding in drains(sick)}
    # What a profile asks for is missing here, and that is told; nothing else is.
    assert before <= ({"ib.present", "gpu.driver"} if name == "a profile of nonsense" else set())
    with (tmp_path / "dev/kmsg").open("ab") as log:
        log.write(b"4,99999999,5,-;NVRM: Xid (PCI:0000:00:07): 95, pid=1, name=p\n")
    assert "gpu.xid" in {finding.check for finding in drains(sick)}
    acting.look_and_act(node.Options(root=str(tmp_path)), act=False)
    assert isinstance(enforce.stands(str(tmp_path / S), "n01"), str)


def test_a_tool_whose_own_child_outlives_it_has_answered(tmp_path: Path) -> None:
    sick = SickNode(tmp_path)
    here = tmp_path / "bin"
    # The child holds the pipes: the tool was waited for to its deadline, and the node drained as hung.
    sick.tool(
        f'sleep 60 & echo $! >{here}/pid; case "$1" in --help*) cat {here}/help.txt;; *) cat {here}/rows.txt;; esac'
    )
    try:
        assert drains(sick) == []
    finally:
        os.kill(int((here / "pid").read_text()), signal.SIGKILL)
