"""The InfiniBand checks on a simulated /sys, laid out as mlx5 lays it out."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded_h100 import DRAIN, REQUEUE, RESET, SKIP, WARN, judge, told
from trainmaster.health.check import Absent, Completed, Context, Missing, Place
from trainmaster.health.checks import ib_counters, ib_fw, ib_leaf, ib_present, ib_rate, ib_state
from trainmaster.health.profile import Profile
from trainmaster.health.sources import infiniband, neighbours
from trainmaster.health.sources.rails import read_slots

NDR = "400 Gb/sec (4X NDR)"


def port(**different: Any) -> dict[str, Any]:
    facts = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": NDR, "link_layer": "InfiniBand"}
    counters = dict.fromkeys(infiniband.COUNTERS + infiniband.HW_COUNTERS, 0)
    return {**facts, "counters": counters | different.pop("counters", {}), **different}


def adapters(*ports: dict[str, Any], fw_ver: str = "28.39.1002") -> dict[str, Any]:
    return {
        f"mlx5_{number}": {"fw_ver": fw_ver, "node_guid": f"0c42:a103:0000:000{number}", "ports": {"1": facts}}
        for number, facts in enumerate(ports)
    }


def test_the_files_of_an_adapter_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/infiniband/mlx5_0"
    files = {"fw_ver": "28.39.1002", "node_guid": "0c42:a103:0065:7a5e", "node_desc": "n01 mlx5_0"}
    files |= {f"ports/1/{name}": text for name, text in port().items() if name != "counters"}
    files |= {"ports/1/counters/link_downed": "3", "ports/1/counters/symbol_error": "N/A (no PMA)"}
    files |= {"ports/1/hw_counters/rnr_nak_retry_err": "7"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    value = infiniband.read(Place(str(tmp_path)))
    assert value["mlx5_0"]["ports"]["1"]["counters"] == {"link_downed": 3, "rnr_nak_retry_err": 7}
    assert value["mlx5_0"]["ports"]["1"]["rate"] == NDR
    for check in (ib_state, ib_rate, ib_fw, ib_counters):
        assert judge(check.CHECK, value) == []
    with pytest.raises(Absent):
        infiniband.read(Place(str(tmp_path / "elsewhere")))
    assert infiniband.read(Place(str(tmp_path / "elsewhere"), Profile({"ib": {"mlx5_0": {}}}))) == {}


def test_an_expected_adapter_is_missed_by_its_name() -> None:
    assert told(judge(ib_present.CHECK, adapters(port()), [])) == [SKIP]
    value = adapters(port(), port())
    assert judge(ib_present.CHECK, value, [], ib={"mlx5_0": {}, "mlx5_1/1": {}}) == []
    # As many as expected, and still one is not there.
    findings = judge(ib_present.CHECK, value, [], ib={"mlx5_0": {}, "mlx5_7": {}})
    assert told(findings) == [REQUEUE] and findings[0].subject == "mlx5_7"
    assert told(judge(ib_present.CHECK, {}, [], ib={"mlx5_0": {}})) == [DRAIN]


def test_the_only_adapter_of_a_node_is_lost_for_its_job(tmp_path: Path) -> None:
    rails = {"mlx5_0": {"pci": "0000:18:00.0"}, "mlx5_1": {"numa": 0}, "mlx5_2": 7}
    place = Place(str(tmp_path), Profile({"rails": rails}))
    slot = tmp_path / "sys/bus/pci/devices/0000:18:00.0"
    slot.mkdir(parents=True)

    def asked() -> Any:
        return told(judge(ib_present.CHECK, {}, read_slots(place), ib={"mlx5_0/1": {}}))

    # The card is in its slot, and only its driver is not there: no boot is needed.
    assert asked() == [DRAIN]
    (slot / "config").write_bytes(bytes.fromhex("b3151021"))
    assert asked() == [DRAIN]
    (slot / "config").write_bytes(b"\xff" * 64)
    assert asked() == [REQUEUE]
    shutil.rmtree(slot)
    assert asked() == [REQUEUE]
    # A profile that says nothing of slots cannot tell the two apart.
    assert read_slots(Place(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        ({}, []),
        ({"state": "1: DOWN", "phys_state": "3: Disabled"}, [DRAIN]),
        ({"state": "1: DOWN", "phys_state": "2: Polling"}, [DRAIN]),
        ({"state": "2: INIT"}, [WARN]),
        ({"state": None, "phys_state": None}, [DRAIN]),
    ],
)
def test_every_expected_port_has_to_be_active(different: dict[str, Any], expected: Any) -> None:
    value = adapters(port(), port(**different))
    findings = judge(ib_state.CHECK, value, ib={"mlx5_0": {}, "mlx5_1": {}})
    assert told(findings) == expected
    assert {finding.subject for finding in findings} <= {"mlx5_1/1"}


def test_a_port_without_a_cable_is_no_fault_where_nobody_expects_it() -> None:
    assert judge(ib_state.CHECK, adapters(port(), port(state="1: DOWN", phys_state="2: Polling"))) == []


def test_a_port_that_stays_in_init_drains() -> None:
    value = adapters(port(state="2: INIT"))
    memory = ib_state.remember(Context(Profile({}), None, 1000.0), value)
    assert told(judge(ib_state.CHECK, value, memory=memory, now_s=1030.0)) == [WARN]
    memory = ib_state.remember(Context(Profile({}), memory, 1030.0), value)
    assert told(judge(ib_state.CHECK, value, memory=memory, now_s=1061.0)) == [DRAIN]


def test_rates() -> None:
    slow = port(rate="200 Gb/sec (2X NDR)")
    assert judge(ib_rate.CHECK, adapters(port(), port())) == []
    assert told(judge(ib_rate.CHECK, adapters(port(), slow))) == [WARN]
    findings = judge(ib_rate.CHECK, adapters(port(), slow), ib={"mlx5_0": {"rate": NDR}, "mlx5_1": {"rate": NDR}})
    assert told(findings) == [DRAIN] and findings[0].subject == "mlx5_1/1"
    wrong = adapters(port(link_layer="Ethernet"))
    assert told(judge(ib_rate.CHECK, wrong, ib={"mlx5_0": {"link_layer": "InfiniBand"}})) == [DRAIN]


def test_firmware() -> None:
    assert judge(ib_fw.CHECK, adapters(port(), port())) == []
    mixed = adapters(port()) | {"mlx5_9": {**adapters(port())["mlx5_0"], "fw_ver": "28.40.1000"}}
    assert told(judge(ib_fw.CHECK, mixed)) == [WARN]
    # Another generation has another firmware.
    bluefield = adapters(port()) | {"mlx5_9": {**adapters(port())["mlx5_0"], "fw_ver": "32.40.1000"}}
    assert judge(ib_fw.CHECK, bluefield) == []


def passes(*counters: dict[str, int], every_s: float = 60.0) -> Any:
    """The findings of the last of several passes."""
    memory: Any = None
    for number, changed in enumerate(counters):
        now_s = 1e9 + every_s * number
        value = adapters(port(counters=changed))
        findings = judge(ib_counters.CHECK, value, memory=memory, now_s=now_s)
        memory = ib_counters.remember(Context(Profile({}), memory, now_s), value)
    return findings


def test_counters_of_a_whole_life_are_only_a_baseline() -> None:
    assert passes(dict.fromkeys(infiniband.COUNTERS, 10**9)) == []
    assert passes({"link_downed": 40, "symbol_error": 10**7}, {"link_downed": 40, "symbol_error": 10**7}) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"link_downed": 4}, {"link_downed": 5}, [WARN]),
        ({"link_downed": 4}, {"link_downed": 8}, [RESET]),
        ({"local_link_integrity_errors": 1}, {"local_link_integrity_errors": 2}, [RESET]),
        ({"rnr_nak_retry_err": 0}, {"rnr_nak_retry_err": 1}, [RESET]),
        ({"symbol_error": 0}, {"symbol_error": 1}, []),
        ({"symbol_error": 0}, {"symbol_error": 121}, [RESET]),
        ({"port_xmit_discards": 0}, {"port_xmit_discards": 5000}, []),
        ({"port_xmit_discards": 0}, {"port_xmit_discards": 7000}, [WARN]),
        # Cleared by perfquery -R between the passes: only what it shows now is new.
        ({"link_downed": 40}, {"link_downed": 0}, []),
        ({"link_downed": 40}, {"link_downed": 1}, [WARN]),
    ],
    ids=str,
)
def test_what_was_added_in_a_minute(before: Any, after: Any, expected: Any) -> None:
    assert told(passes(before, after)) == expected


def test_a_link_that_flaps_is_found_over_several_passes() -> None:
    assert told(passes(*({"link_downed": count} for count in (0, 1, 2, 3, 4)), every_s=600.0)) == [RESET]
    assert told(passes(*({"link_downed": count} for count in (0, 1, 2, 3, 4)), every_s=7200.0)) == [WARN]


def test_a_few_errors_between_close_passes_are_no_rate_of_an_hour() -> None:
    # On a busy machine two passes were 12 s apart: one symbol error, and the node was drained until its next boot.
    for every_s in (0.5, 4.0, 12.0, 60.0):
        assert passes({"symbol_error": 0}, {"symbol_error": 3}, {"symbol_error": 5}, every_s=every_s) == []
    # And none of the errors of such passes is forgotten.
    many = [{"symbol_error": count} for count in range(0, 130, 2)]
    assert any(told(passes(*many[:length], every_s=4.0)) == [RESET] for length in range(2, 65))
    assert passes(*({"symbol_error": count} for count in range(300)), every_s=60.0) == []


def test_what_a_port_is_drained_for_is_not_forgotten_by_the_next_pass() -> None:
    # slurmctld did not answer the pass that saw it, and the next one found nothing new: the node was never drained.
    assert told(passes({"rnr_nak_retry_err": 0}, {"rnr_nak_retry_err": 1}, {"rnr_nak_retry_err": 1})) == [RESET]
    many = [{"symbol_error": 0}, {"symbol_error": 500}, {"symbol_error": 500}, {"symbol_error": 500}]
    assert told(passes(*many, every_s=3000.0)) == [RESET]
    # Cleared by perfquery -R, by somebody who has seen to it.
    assert passes({"rnr_nak_retry_err": 0}, {"rnr_nak_retry_err": 1}, {"rnr_nak_retry_err": 0}) == []


def test_an_exchanged_adapter_begins_anew() -> None:
    value = adapters(port(counters={"link_downed": 9}))
    memory = ib_counters.remember(Context(Profile({}), None, 1e9), value)
    other = {"mlx5_0": {**adapters(port(counters={"link_downed": 90}))["mlx5_0"], "node_guid": "another"}}
    assert judge(ib_counters.CHECK, other, memory=memory, now_s=1e9 + 60) == []


@given(st.lists(st.dictionaries(st.sampled_from(infiniband.COUNTERS), st.integers(0, 2**64)), min_size=1, max_size=5))
def test_no_sequence_of_counters_breaks_the_check(counters: list[dict[str, int]]) -> None:
    passes(*counters)


# -- ib.leaf -------------------------------------------------------------------------------------------------------

# `smpquery -C ibsim0 -P 1 -D nodeinfo 0,1` of infiniband-diags 44 against ibsim's net.2sw2path4hca, from Hca1.
NEIGHBOUR = """# Node info: DR path slid 65535; dlid 65535; 0,1
BaseVers:........................1
ClassVers:.......................1
NodeType:........................Switch
NumPorts:........................8
SystemGuid:......................0x0000000000200000
Guid:............................0x0000000000200000
PortGuid:........................0x0000000000200000
PartCap:.........................8
DevId:...........................0x0000
Revision:........................0x000000a1
LocalPort:.......................1
VendorId:........................0x000000
"""


def neighbour(text: str) -> dict[str, str] | None:
    return neighbours.parse(text)


def test_the_switch_at_the_other_end() -> None:
    here = {"mlx5_0/1": neighbour(NEIGHBOUR)}
    assert here == {"mlx5_0/1": {"guid": "0x0000000000200000", "type": "Switch"}}
    assert judge(ib_leaf.CHECK, here, leaves={"mlx5_0/1": "0x200000"}) == []
    (finding,) = judge(ib_leaf.CHECK, here, leaves={"mlx5_0/1": "0x200001", "mlx5_1/1": "0x200000"})
    assert told([finding]) == [DRAIN] and finding.detail.endswith("where mlx5_1/1 should be")
    assert judge(ib_leaf.CHECK, {}, leaves={"mlx5_0/1": "0x200001"}) == [], "a link that is down is another check's"
    assert neighbour("smpquery: iberror: failed: operation NodeInfo: node info query failed") is None


@given(st.text())
def test_garbage_for_a_neighbour(text: str) -> None:
    found = neighbour(text)
    assert isinstance(judge(ib_leaf.CHECK, {"a/1": found} if found else {}, leaves={"a/1": text}), list)


def test_neighbours_are_asked_only_where_the_profile_names_switches(tmp_path: Path) -> None:
    port = tmp_path / "sys/class/infiniband/mlx5_0/ports/1"
    port.mkdir(parents=True)
    (port / "state").write_text("4: ACTIVE\n")
    (port / "link_layer").write_text("InfiniBand\n")
    with pytest.raises(Absent):
        next(neighbours.ask(Place(str(tmp_path))))
    expecting = Place(str(tmp_path), Profile({"leaves": {"mlx5_0/1": "0x1"}}))
    with pytest.raises(Missing):
        next(neighbours.ask(expecting))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/smpquery").write_text("#!/bin/sh\n")
    (tmp_path / "bin/smpquery").chmod(0o755)
    asking = neighbours.ask(expecting)
    assert next(asking)[1:] == ["-C", "mlx5_0", "-P", "1", "-D", "nodeinfo", "0,1"]
    with pytest.raises(StopIteration) as stop:
        asking.send(Completed(NEIGHBOUR, "", 0))
    assert stop.value.value == {"mlx5_0/1": {"guid": "0x0000000000200000", "type": "Switch"}}
