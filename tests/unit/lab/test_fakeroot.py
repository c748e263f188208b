"""The fake root of a node and the nvidia-smi in it, held against the recording of a real H100."""

import csv
import io
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from trainmaster.lab import fakeroot, nvidia_smi

CAPTURES = (fakeroot.CAPTURES / "captures.txt").read_text(encoding="utf-8")
XML = (fakeroot.CAPTURES / "query.xml").read_text(encoding="utf-8")
RECORDED = nvidia_smi.sections(CAPTURES)
RECORDING = nvidia_smi.Recording(CAPTURES, XML)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fakeroot.create(tmp_path, node_name="n01", gpus=8)
    return tmp_path


def ask(root: Path, *arguments: str) -> str:
    out, err, code = nvidia_smi.run(root, arguments)
    assert (err, code) == ("", 0)
    return out


def change(root: Path, index: int, **values: str) -> None:
    state = fakeroot.read_state(root)
    state["gpus"][index]["values"] |= {name.replace("__", "."): value for name, value in values.items()}
    fakeroot.write_state(root, state)


@pytest.mark.parametrize("command", [command for command in RECORDED if command.startswith("nvidia-smi")])
def test_one_unchanged_gpu_gets_the_recorded_words(command: str) -> None:
    tool = nvidia_smi.Tool(RECORDING, [{}])
    assert tool.answer(command.split()[1:]) == RECORDED[command]


def test_one_unchanged_gpu_gets_the_recorded_xml() -> None:
    assert nvidia_smi.Tool(RECORDING, [{}]).answer(["-q", "-x"]) == XML


def test_every_field_has_its_place_in_both_reports() -> None:
    tags = {place: value for place, _, value, _ in nvidia_smi.xml_lines(XML) if place}
    for field, (place, tag) in nvidia_smi.FIELDS.items():
        if not place:
            continue
        tag = f"nvidia_smi_log{tag}" if tag.startswith("/") else f"nvidia_smi_log/gpu/{tag}"
        # Power and PCI device differ between the two reports by time and by form.
        if field.startswith("power.") or field == "<pci.device>":
            assert tag in tags
        else:
            assert tags[tag] == RECORDING.reported[field]


def test_csv_agrees_with_the_reports_where_both_were_recorded() -> None:
    for field, value in RECORDING.recorded_csv.items():
        if nvidia_smi.FIELDS.get(field, ("", ""))[0]:
            assert RECORDING.reported[field].startswith(value)


def test_eight_gpus_differ_in_what_identifies_them(root: Path) -> None:
    fields = ["index", "uuid", "serial", "pci.bus_id"]
    rows = list(csv.reader(io.StringIO(ask(root, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"))))
    assert len(rows) == 8
    for column in zip(*rows, strict=True):
        assert len(set(column)) == 8
    assert [row[0] for row in rows] == list("01234567")
    buses = [row[3].strip() for row in rows]
    report = ask(root, "-q")
    assert [line.split()[1] for line in report.splitlines() if line.startswith("GPU 0")] == buses
    assert "Attached GPUs                                          : 8" in report
    tree = ET.fromstring(ask(root, "-q", "-x").partition("\n")[2].partition("\n")[2])
    assert [gpu.attrib["id"] for gpu in tree.iter("gpu")] == buses
    assert [element.text for element in tree.iter("minor_number")] == list("01234567")
    assert len({element.text for element in tree.iter("pci_device")}) == 8
    assert all(bus in ask(root) for bus in buses)
    assert len(ask(root, "-L").splitlines()) == 8


def test_two_nodes_share_no_gpu() -> None:
    assert not {fakeroot.identity("n01", i)["uuid"] for i in range(8)} & {
        fakeroot.identity("n02", i)["uuid"] for i in range(8)
    }


def test_header_takes_the_first_name_and_the_unit(root: Path) -> None:
    first, second, *_ = ask(root, "--query-gpu=gpu_name,memory.total", "--format=csv").splitlines()
    assert (first, second) == ("name, memory.total [MiB]", "NVIDIA H100 80GB HBM3, 81559 MiB")
    assert ask(root, "--query-gpu=memory.total", "--format=csv,noheader,nounits").splitlines() == ["81559"] * 8


def test_a_changed_gpu_says_so_in_every_report(root: Path) -> None:
    change(root, 2, ecc__errors__uncorrected__volatile__total="3", pcie__link__width__current="8")
    change(root, 2, clocks_event_reasons__active="0x0000000000000048")
    row = ask(
        root,
        "--query-gpu=ecc.errors.uncorrected.volatile.total,pcie.link.width.current,clocks_event_reasons.active",
        "--format=csv,noheader",
    ).splitlines()
    assert row[2] == "3, 8, 0x0000000000000048"
    assert row[1] == "0, 16, 0x0000000000000001"
    block = ask(root, "-q").split("\nGPU 0")[3]
    assert "DRAM Uncorrectable                         : 3" in block
    assert "Current                                : 8x" in block
    assert "HW Thermal Slowdown                        : Active" in block
    assert "Idle                                           : Not Active" in block
    gpu = list(ET.fromstring(ask(root, "-q", "-x").partition("\n")[2].partition("\n")[2]).iter("gpu"))[2]
    assert gpu.findtext("ecc_errors/volatile/dram_uncorrectable") == "3"
    assert gpu.findtext("pci/pci_gpu_link_info/link_widths/current_link_width") == "8x"
    table = [line for line in ask(root).splitlines() if "Off |" in line]
    assert table[2].endswith("                    3 |")
    assert len({len(line) for line in table}) == 1


def test_a_missing_gpu_is_not_listed_and_the_rest_move_up(root: Path) -> None:
    state = fakeroot.read_state(root)
    state["gpus"][0]["missing"] = True
    fakeroot.write_state(root, state)
    lines = ask(root, "-L").splitlines()
    assert len(lines) == 7
    assert lines[0] == f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {fakeroot.identity('n01', 1)['uuid']})"
    assert "Attached GPUs                                          : 7" in ask(root, "-q")


def test_a_reply_in_the_state_replaces_the_recording(root: Path) -> None:
    fakeroot.write_state(root, fakeroot.read_state(root) | {"replies": {"*": {"text": "broken\n", "exit_code": 9}}})
    assert nvidia_smi.run(root, ["-L"]) == ("broken\n", "", 9)


def test_an_unknown_field_is_answered_as_the_real_tool_does(root: Path) -> None:
    answer = nvidia_smi.run(root, ["--query-gpu=index,warp_factor", "--format=csv"])
    assert answer == ('Field "warp_factor" is not a valid field to query.\n\n', "", 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--query-retired-pages=gpu_uuid", "--format=csv"],
        ["--query-gpu=index"],
        ["--query-compute-apps=process_name", "--format=csv"],
        ["topo", "-m"],
        ["dmon"],
        ["-q", "-d", "ECC"],
    ],
)
def test_what_was_not_recorded_is_an_error_and_never_invented(root: Path, arguments: list[str]) -> None:
    out, err, code = nvidia_smi.run(root, arguments)
    assert (out, code) == ("", nvidia_smi.NOT_RECORDED)
    assert err


def test_every_field_that_the_tool_offers_has_an_answer(root: Path) -> None:
    offered = re.findall(r'^"([\w.]+)"', ask(root, "--help-query-gpu"), re.M)
    (first, *_) = ask(root, f"--query-gpu={','.join(offered)}", "--format=csv,noheader,nounits").splitlines()
    answers = dict(zip(offered, first.split(", "), strict=True))
    assert len(offered) > 200
    assert answers["temperature.gpu.tlimit"].isdecimal()
    assert answers["ecc.errors.uncorrected.aggregate.sram.thresholdExceeded"] == "No"
    assert ask(root, "--query-gpu=power.limit", "--format=csv").splitlines()[:2] == ["power.limit [W]", "700.00 W"]


def test_the_installed_tool_runs_on_its_own(root: Path) -> None:
    tool = root / "bin" / "nvidia-smi"
    done = subprocess.run([tool, "-L"], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"})
    assert done.stdout == ask(root, "-L")
    assert subprocess.run([tool, "dmon"], capture_output=True, check=False).returncode == nvidia_smi.NOT_RECORDED


def test_files_under_the_root(root: Path) -> None:
    assert (root / "proc/driver/nvidia/version").read_text().startswith("NVRM version: NVIDIA UNIX Open Kernel Module")
    information = (root / "proc/driver/nvidia/gpus/0000:00:0d.0/information").read_text()
    assert "Device Minor: \t 7\n" in information
    assert fakeroot.identity("n01", 7)["uuid"] in information
    gpu = root / "sys/bus/pci/devices/0000:00:06.0"
    assert {path.name: path.read_text().strip() for path in gpu.iterdir()} == {
        "class": "0x030200",
        "current_link_speed": "32.0 GT/s PCIe",
        "max_link_speed": "32.0 GT/s PCIe",
        "current_link_width": "16",
        "max_link_width": "16",
        "device": "0x2330",
        "vendor": "0x10de",
    }
    assert (root / "dev/nvidia7").is_char_device()
    assert (root / "dev/nvidia-caps/nvidia-cap1").is_char_device()
    assert not (root / "dev/nvidia8").exists()
    assert (root / "sys/class/infiniband/mlx5_7/ports/1/state").read_text() == "4: ACTIVE\n"


def test_a_node_without_gpus_has_no_nvidia_smi(tmp_path: Path) -> None:
    fakeroot.create(tmp_path, node_name="cpu1", gpus=0)
    assert (tmp_path / "sys/class/net").is_dir()
    assert not (tmp_path / "bin/nvidia-smi").exists()


def test_creating_it_again_heals_it(root: Path) -> None:
    change(root, 0, temperature__gpu="101")
    fakeroot.create(root, node_name="n01", gpus=8)
    assert ask(root, "--query-gpu=temperature.gpu", "--format=csv,noheader").splitlines() == ["33"] * 8
