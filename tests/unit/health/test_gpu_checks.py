"""The GPU checks on what an H100 said, and on what it would say if something were wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_nvml import recording
from recorded_h100 import (
    DRAIN,
    IDLE,
    LOADED,
    REQUEUE,
    RESET,
    SKIP,
    WARN,
    exit_status,
    gpus,
    judge,
    sections,
    told,
)
from trainmaster.health import registry
from trainmaster.health.check import Absent, Check, Completed, Context, Missing, Place, SourceFault
from trainmaster.health.checks import gpu_driver, gpu_dstate, gpu_nvlink, gpu_present, gpu_query, gpu_vbios
from trainmaster.health.gpu_values import RETURNS
from trainmaster.health.profile import Profile
from trainmaster.health.sources import gpu_nvlink as nvlink
from trainmaster.health.sources import gpu_query as source
from trainmaster.health.sources import pci

OF_ONE_QUERY = [check for check in registry.CHECKS if check.sources == (source.SOURCE,)]
BY_ID = {check.id: check for check in registry.CHECKS}


@pytest.mark.parametrize("check", OF_ONE_QUERY, ids=lambda check: check.id)
@pytest.mark.parametrize("row", [IDLE, LOADED], ids=["idle", "loaded"])
def test_a_healthy_gpu_passes_idle_and_under_load(check: Check, row: dict[str, str]) -> None:
    # Under load the recorded GPU was at its power cap (0x4) and 29 C below its limit.
    assert judge(check, gpus({}, {}, row=row)) == []


@pytest.mark.parametrize("check", OF_ONE_QUERY, ids=lambda check: check.id)
@pytest.mark.parametrize("word", ["[N/A]", "N/A", "[Not Supported]", "[Requested functionality has been deprecated]"])
def test_what_does_not_apply_is_no_fault(check: Check, word: str) -> None:
    assert judge(check, gpus(dict.fromkeys(source.WANTED[6:], word))) == []


@pytest.mark.parametrize("check", OF_ONE_QUERY, ids=lambda check: check.id)
def test_an_old_driver_without_a_field_is_no_fault(check: Check) -> None:
    row = {"index": "0", "uuid": "GPU-1", "pci.bus_id": "00000000:0F:00.0"}
    assert judge(check, {"gpus": [row]}) == []


FAULTS: list[tuple[str, dict[str, str], Any]] = [
    ("gpu.ecc.uncorr", {"ecc.errors.uncorrected.volatile.total": "3"}, RESET),
    ("gpu.ecc.uncorr", {"ecc.errors.uncorrected.volatile.total": "4294967296"}, RESET),
    ("gpu.ecc.sram_threshold", {"ecc.errors.uncorrected.aggregate.sram.thresholdExceeded": "Yes"}, DRAIN),
    ("gpu.ecc.sram_threshold", {"ecc.errors.uncorrected.aggregate.sram.thresholdExceeded": "1"}, DRAIN),
    ("gpu.remap.failure", {"remapped_rows.failure": "Yes"}, DRAIN),
    ("gpu.remap.failure", {"remapped_rows.failure": "1"}, DRAIN),
    ("gpu.remap.pending", {"remapped_rows.pending": "Yes"}, RESET),
    ("gpu.remap.pending", {"remapped_rows.pending": "1"}, RESET),
    ("gpu.remap.uncorr", {"remapped_rows.uncorrectable": "513"}, DRAIN),
    ("gpu.pages", {"retired_pages.pending": "Yes"}, RESET),
    ("gpu.pages", {"retired_pages.double_bit.count": "40", "retired_pages.single_bit_ecc.count": "23"}, DRAIN),
    ("gpu.recovery", {"gpu_recovery_action": "Reset"}, RESET),
    ("gpu.recovery", {"gpu_recovery_action": "Reboot"}, RESET),
    ("gpu.recovery", {"gpu_recovery_action": "Drain and Reset"}, RESET),
    ("gpu.recovery", {"gpu_recovery_action": "Drain P2P"}, WARN),
    ("gpu.pcie.width", {"pcie.link.width.current": "8"}, RESET),
    ("gpu.pcie.gen", {"pcie.link.gen.current": "3", "pstate": "P0", "utilization.gpu": "97"}, WARN),
    ("gpu.throttle", {"clocks_event_reasons.active": "0x0000000000000048"}, DRAIN),
    ("gpu.throttle", {"clocks_event_reasons.active": "0x0000000000000080"}, DRAIN),
    ("gpu.temp", {"temperature.gpu.tlimit": "0"}, DRAIN),
    ("gpu.temp", {"temperature.gpu.tlimit": "-2"}, DRAIN),
    ("gpu.persistence", {"persistence_mode": "Disabled"}, WARN),
    ("gpu.fabric", {"fabric.state": "In Progress", "fabric.status": "N/A"}, DRAIN),
    ("gpu.fabric", {"fabric.state": "Completed", "fabric.status": "Invalid State"}, DRAIN),
    (
        "gpu.fabric",
        {"fabric.state": "Completed", "fabric.status": "Success", "fabric.health.summary": "Unhealthy"},
        DRAIN,
    ),
]


@pytest.mark.parametrize(("check_id", "change", "expected"), FAULTS, ids=lambda value: str(value)[:60])
def test_a_fault_is_found_on_the_gpu_that_has_it(check_id: str, change: dict[str, str], expected: Any) -> None:
    findings = judge(BY_ID[check_id], gpus({}, change, {}))
    assert told(findings) == [expected]
    assert findings[0].subject == "0000:10:00.0" and findings[0].detail


@pytest.mark.parametrize(("check_id", "change", "expected"), FAULTS, ids=lambda value: str(value)[:60])
def test_a_fault_is_found_through_nvml_too(ask_nvml: Any, check_id: str, change: dict[str, str], expected: Any) -> None:
    findings = judge(BY_ID[check_id], ask_nvml(recording(*gpus({}, change, {})["gpus"])).value)
    assert told(findings) == [expected]
    assert findings[0].subject == "0000:10:00.0" and findings[0].detail


LOOK_ALIKES: list[tuple[str, dict[str, str]]] = [
    # Errors of the GPU's whole life, long since remapped.
    ("gpu.ecc.uncorr", {"ecc.errors.uncorrected.aggregate.total": "9", "ecc.errors.corrected.volatile.total": "900"}),
    ("gpu.remap.uncorr", {"remapped_rows.uncorrectable": "2", "remapped_rows.correctable": "600"}),
    # Idle GPUs lower the speed of their link, and some also say so while they sleep.
    ("gpu.pcie.gen", {"pcie.link.gen.current": "1", "pstate": "P8", "utilization.gpu": "0"}),
    ("gpu.pcie.gen", {"pcie.link.gen.current": "1", "pstate": "P0", "utilization.gpu": "0"}),
    # Power cap, idle, application clocks, sync boost, heat kept down by software.
    *(("gpu.throttle", {"clocks_event_reasons.active": f"{bit:#018x}"}) for bit in (0x1, 0x2, 0x4, 0x10, 0x20, 0x100)),
    ("gpu.recovery", {"gpu_recovery_action": "None"}),
    ("gpu.fabric", {"fabric.state": "Completed", "fabric.status": "Success", "fabric.health.summary": "Healthy"}),
    ("gpu.pages", {"retired_pages.pending": "No", "retired_pages.double_bit.count": "12"}),
]


@pytest.mark.parametrize(("check_id", "change"), LOOK_ALIKES, ids=lambda value: str(value)[:60])
def test_what_only_looks_like_a_fault_is_none(check_id: str, change: dict[str, str]) -> None:
    assert judge(BY_ID[check_id], gpus(change)) == []


@given(st.dictionaries(st.sampled_from(source.WANTED), st.text(max_size=12)))
def test_no_words_of_the_tool_break_a_check(change: dict[str, str]) -> None:
    for check in OF_ONE_QUERY:
        judge(check, gpus(change))
    judge(gpu_query.CHECK, gpus(change), {"gpus": {}})


# -- gpu.query and its source --------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["ERR!", "[Unknown Error]", "[GPU is lost]", "[GPU requires reset]"])
def test_a_value_that_could_not_be_read_is_a_fault_although_the_tool_ended_with_0(word: str) -> None:
    bus = {"gpus": {"0000:0f:00.0": {}, "0000:10:00.0": {}}}
    findings = judge(gpu_query.CHECK, gpus({}, {"temperature.gpu.tlimit": word}), bus)
    assert told(findings) == [DRAIN] and findings[0].subject == "0000:10:00.0"


def test_a_gpu_on_the_bus_that_the_driver_does_not_show_is_a_fault() -> None:
    bus = {"gpus": {"0000:0f:00.0": {}, "0000:10:00.0": {}}}
    findings = judge(gpu_query.CHECK, gpus({}), bus)
    assert told(findings) == [DRAIN] and findings[0].subject == "0000:10:00.0"


def answers(place: Place, *replies: Completed) -> tuple[list[list[str]], Any]:
    """The commands that the source yields, and what it returns, when they are answered so."""
    talk = source.ask(place)
    asked = [next(talk)]
    try:
        for reply in replies:
            asked.append(talk.send(reply))
    except StopIteration as stop:
        return asked, stop.value
    raise AssertionError(f"wants more after {asked}")


@pytest.fixture
def place(tmp_path: Any) -> Place:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").touch(mode=0o755)
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    (tmp_path / "sys/module/nvidia/version").write_text("580.159.04\n")
    return Place(str(tmp_path), Profile({"gpus": 1}))


def help_text() -> str:
    return next(output for command, output in sections("captures.txt") if command == "nvidia-smi --help-query-gpu")


def row_of(fields: list[str]) -> Completed:
    return Completed(", ".join(IDLE[field] for field in fields) + "\n", "", 0)


def test_the_fields_are_those_that_the_driver_offers_and_asked_for_once(place: Place) -> None:
    fields = source.offered(help_text())
    assert set(fields) == set(source.WANTED)
    asked, value = answers(place, Completed(help_text(), "", 0), row_of(fields))
    assert asked[0][1:] == ["--help-query-gpu"] and asked[1][1].startswith("--query-gpu=index,uuid,")
    assert value["gpus"][0]["gpu_recovery_action"] == "None"
    known = place._replace(memory=source.remember(value))
    asked, again = answers(known, row_of(fields))
    assert len(asked) == 1 and again == value


def test_another_driver_is_asked_anew(place: Place) -> None:
    fields = ["index", "uuid", "pci.bus_id"]
    other = place._replace(memory={"driver": "535.1", "fields": fields})
    asked, _ = answers(other, Completed(help_text(), "", 0), row_of(source.offered(help_text())))
    assert asked[0][1:] == ["--help-query-gpu"]
    # Its version could not be told, and the query was refused: exit status 2, as recorded.
    refused = Completed('Field "x" is not a valid field to query.\n', "", 2)
    stale = place._replace(memory={"driver": "580.159.04", "fields": [*fields, "x"]})
    asked, value = answers(stale, refused, Completed(help_text(), "", 0), row_of(source.offered(help_text())))
    assert len(asked) == 3 and value["fields"] == source.offered(help_text())


def recorded_failures() -> list[tuple[str, str, int]]:
    return [(command, out, exit_status("failures.txt", command)) for command, out in sections("failures.txt")]


@pytest.mark.parametrize(("command", "out", "code"), recorded_failures(), ids=lambda value: str(value)[:50])
def test_every_recorded_failure_of_the_tool_is_a_fault(command: str, out: str, code: int) -> None:
    assert code != 0
    with pytest.raises(SourceFault, match=RETURNS[code]):
        source.succeeded(Completed(out, "", code))


@pytest.mark.parametrize(
    "out",
    [
        "Unable to determine the device handle for GPU0000:0F:00.0: Unknown Error\n",
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
    ],
)
def test_the_tools_exit_status_is_not_believed(out: str) -> None:
    with pytest.raises(SourceFault):
        source.succeeded(Completed(out, "", 0))


def test_a_tool_that_is_missing_is_unknown_where_gpus_should_be_and_nothing_elsewhere(tmp_path: Any) -> None:
    with pytest.raises(Missing):
        source.tool(Place(str(tmp_path), Profile({"gpus": 8})))
    with pytest.raises(Absent):
        source.tool(Place(str(tmp_path)))


@given(st.text(), st.integers(1, 5))
def test_no_output_of_the_tool_becomes_a_wrong_table(text: str, width: int) -> None:
    fields = [str(number) for number in range(width)]
    try:
        found = source.rows(text, fields)
    except SourceFault:
        return
    assert all(list(row) == fields for row in found)


def test_a_line_of_nothing_is_no_gpu() -> None:
    # ",," has as many values as were asked for, and read as a GPU of which all was well.
    for line in (",,", "0,,valid", "a, b, c"):
        with pytest.raises(SourceFault, match="address"):
            source.rows(line + "\n", ["index", "pci.bus_id", "inforom.checksum_validation"])


# -- other sources -------------------------------------------------------------------------------------------------


def bus(root: Any, *addresses: str) -> None:
    for address in addresses:
        folder = root / "sys/bus/pci/devices" / address
        folder.mkdir(parents=True)
        for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("current_link_width", "16")):
            (folder / name).write_text(text + "\n")
        (folder / "config").write_bytes(bytes.fromhex("de103023"))


def test_gpus_are_counted_on_the_bus(tmp_path: Any) -> None:
    bus(tmp_path, "0000:0f:00.0", "0000:10:00.0")
    value = pci.read(Place(str(tmp_path)))
    assert value["gpus"]["0000:0f:00.0"]["config"] == "de103023"
    assert judge(gpu_present.CHECK, value, gpus=2) == judge(gpu_present.CHECK, value) == []
    findings = judge(gpu_present.CHECK, value, gpus=8)
    assert told(findings) == [REQUEUE] and "2 of 8" in findings[0].detail
    (tmp_path / "sys/bus/pci/devices/0000:10:00.0/config").write_bytes(b"\xff" * 64)
    findings = judge(gpu_present.CHECK, pci.read(Place(str(tmp_path))), gpus=2)
    assert told(findings) == [REQUEUE] and findings[0].subject == "0000:10:00.0"
    assert told(judge(gpu_present.CHECK, {"gpus": {}})) == [SKIP]


def test_a_gpu_that_belongs_to_a_virtual_machine_is_not_missed(tmp_path: Any) -> None:
    bus(tmp_path, "0000:0f:00.0", "0000:10:00.0")
    (tmp_path / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:10:00.0/driver").symlink_to(tmp_path / "sys/bus/pci/drivers/vfio-pci")
    assert list(pci.read(Place(str(tmp_path)))["gpus"]) == ["0000:0f:00.0"]


def test_versions_are_alike_and_as_expected() -> None:
    assert judge(gpu_vbios.CHECK, gpus({}, {})) == []
    assert told(judge(gpu_vbios.CHECK, gpus({}, {"vbios_version": "96.00.99"}))) == [DRAIN]
    assert told(judge(gpu_vbios.CHECK, gpus({}), gpu={"vbios": "97"})) == [DRAIN]
    module = {"module": "580.159.04", "modules": {}, "empty": []}
    assert judge(gpu_driver.CHECK, gpus({}), module) == []
    assert told(judge(gpu_driver.CHECK, gpus({}), {**module, "module": "575.1"})) == [RESET]
    assert told(judge(gpu_driver.CHECK, gpus({}), module, gpu={"driver": "570"})) == [DRAIN]
    assert told(judge(gpu_driver.CHECK, gpus({}), {**module, "empty": ["/usr/lib64/libnvidia-ml.so.1"]})) == [DRAIN]


def test_a_process_stuck_in_the_driver() -> None:
    stuck = [[7, 4242, "python", "nv_open_q_wait"], [8, 1, "nfsd", "rpc_wait_bit_killable"], [9, 2, "nvidia-smi", ""]]
    findings = judge(gpu_dstate.CHECK, {"stuck": stuck})
    assert told(findings) == [DRAIN, DRAIN] and gpu_dstate.CHECK.strikes == 3
    assert [finding.subject for finding in findings] == ["pid 7 started 4242", "pid 9 started 2"]


# -- NVLink: in the form that drivers print for GPUs with links; the recorded H100 had none ---------------------------


def links(up: int, *down: int, gpu: str = "GPU-a") -> str:
    lines = [f"\t Link {link}: {'<inactive>' if link in down else '26.562 GB/s'}" for link in range(up + len(down))]
    return "\n".join([f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {gpu})", *lines, ""])


def errors(gpu: str = "GPU-a", **counts: int) -> str:
    lines = [f"\t Link 3: {name} Errors: {counts.get(name, 0)}" for name in ("Replay", "Recovery", "CRC")]
    return "\n".join([f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {gpu})", *lines, ""])


def test_the_recorded_gpu_without_peers_has_no_nvlink(place: Place) -> None:
    recorded = dict(sections("captures.txt"))
    talk = nvlink.ask(place)
    next(talk)
    talk.send(Completed(recorded["nvidia-smi nvlink -s"], "", 0))
    with pytest.raises(Absent):
        talk.send(Completed(recorded["nvidia-smi nvlink -e"], "", 0))


def test_nvlinks_that_are_down() -> None:
    value = nvlink.parse(links(18), errors())
    assert len(value["GPU-a"]["up"]) == 18 and value["GPU-a"]["errors"]["3 CRC"] == 0
    assert judge(gpu_nvlink.CHECK, value, gpu={"nvlinks": 18}) == judge(gpu_nvlink.CHECK, value) == []
    findings = judge(gpu_nvlink.CHECK, nvlink.parse(links(16, 4, 9), ""), gpu={"nvlinks": 18})
    assert told(findings) == [RESET] and "down: 4, 9" in findings[0].detail
    both = nvlink.parse(links(18) + links(16, 4, 9, gpu="GPU-b"), "")
    assert [(finding.subject, *told([finding])) for finding in judge(gpu_nvlink.CHECK, both)] == [("GPU-b", WARN)]
    # Boards with bridges: six of eighteen are never used, and a GPU without a bridge uses none.
    assert judge(gpu_nvlink.CHECK, nvlink.parse(links(12, *range(6)) + links(0, 0, 1, gpu="GPU-b"), "")) == []
    odd = nvlink.parse("GPU 0: x (UUID: GPU-a)\n\t Link 0: some future state\n", "")
    assert odd["GPU-a"] == {"up": [], "down": [], "errors": {}}


def test_nvlink_errors_count_from_pass_to_pass() -> None:
    old, new = nvlink.parse(links(18), errors(CRC=900)), nvlink.parse(links(18), errors(CRC=903))
    memory = gpu_nvlink.remember(Context(), old)
    assert judge(gpu_nvlink.CHECK, old) == judge(gpu_nvlink.CHECK, old, memory=memory) == []
    findings = judge(gpu_nvlink.CHECK, new, memory=memory)
    assert told(findings) == [WARN] and "link 3 CRC +3" in findings[0].detail


@given(st.text(), st.text())
def test_no_words_about_links_are_raised(states: str, counts: str) -> None:
    judge(gpu_nvlink.CHECK, nvlink.parse(states, counts))
