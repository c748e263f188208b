#!/usr/bin/env -S python3 -I -S
"""A stand-in for `nvidia-smi` that replays what a real H100 printed, for as many GPUs as its node has.

A copy of this file is `bin/nvidia-smi` of every node's fake root; it needs nothing but Python's standard library.
Beside `bin/` lies `nvidia-smi.json`, its state, which faults may rewrite at any time:

    {"captures": "<folder with captures.txt and query.xml>",
     "gpus": [{"values": {"uuid": "GPU-…", "ecc.errors.uncorrected.volatile.total": "3"}, "missing": false}, …],
     "replies": {"topo -m": {"text": "…", "exit_code": 0}}}

`values` says where a GPU differs from the recording, by field name (FIELDS), in every report alike. A GPU that is
`missing` is not listed and those after it move up, as after a reboot. `replies` answers for a whole command line (or
for every one, under "*") in place of the recording. What neither the recording nor the state holds is refused with
exit status 70 and a line on stderr: this program never invents a value.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Exit status of a question that the recording cannot answer (EX_SOFTWARE of sysexits.h); nvidia-smi has no such status.
NOT_RECORDED = 70
# nvidia-smi(1), RETURN VALUE: a supplied argument or flag is invalid.
BAD_ARGUMENT = 2

# field -> its place in the report of `-q`, its place in the XML of `-q -x`. The first name is the one in CSV headers.
# Fields without a query name of their own (in angle brackets) can be changed but not asked for with --query-gpu.
FIELDS: dict[str, tuple[str, str]] = {
    "driver_version": ("/Driver Version", "/driver_version"),
    "count": ("/Attached GPUs", "/attached_gpus"),
    "name": ("Product Name", "product_name"),
    "serial": ("Serial Number", "serial"),
    "uuid": ("GPU UUID", "uuid"),
    "<pdi>": ("GPU PDI", "pdi"),
    "<minor_number>": ("Minor Number", "minor_number"),
    "<board_id>": ("Board ID", "board_id"),
    "<pci.device>": ("PCI/Device", "pci/pci_device"),
    "pci.bus_id": ("PCI/Bus Id", "pci/pci_bus_id"),
    "vbios_version": ("VBIOS Version", "vbios_version"),
    "persistence_mode": ("Persistence Mode", "persistence_mode"),
    "inforom.img": ("Inforom Version/Image Version", "inforom_version/img_version"),
    "gpu_recovery_action": ("GPU Recovery Action", "gpu_recovery_action"),
    "mig.mode.current": ("MIG Mode/Current", "mig_mode/current_mig"),
    "mig.mode.pending": ("MIG Mode/Pending", "mig_mode/pending_mig"),
    "compute_mode": ("Compute Mode", "compute_mode"),
    "pstate": ("Performance State", "performance_state"),
    "pcie.link.gen.current": (
        "PCI/GPU Link Info/PCIe Generation/Current",
        "pci/pci_gpu_link_info/pcie_gen/current_link_gen",
    ),
    "pcie.link.gen.max": ("PCI/GPU Link Info/PCIe Generation/Max", "pci/pci_gpu_link_info/pcie_gen/max_link_gen"),
    "pcie.link.width.current": (
        "PCI/GPU Link Info/Link Width/Current",
        "pci/pci_gpu_link_info/link_widths/current_link_width",
    ),
    "pcie.link.width.max": (
        "PCI/GPU Link Info/Link Width/Max",
        "pci/pci_gpu_link_info/link_widths/max_link_width",
    ),
    "memory.total": ("FB Memory Usage/Total", "fb_memory_usage/total"),
    "memory.reserved": ("FB Memory Usage/Reserved", "fb_memory_usage/reserved"),
    "memory.used": ("FB Memory Usage/Used", "fb_memory_usage/used"),
    "memory.free": ("FB Memory Usage/Free", "fb_memory_usage/free"),
    "utilization.gpu": ("Utilization/GPU", "utilization/gpu_util"),
    "utilization.memory": ("Utilization/Memory", "utilization/memory_util"),
    "ecc.mode.current": ("ECC Mode/Current", "ecc_mode/current_ecc"),
    "ecc.mode.pending": ("ECC Mode/Pending", "ecc_mode/pending_ecc"),
    "ecc.errors.corrected.volatile.dram": (
        "ECC Errors/Volatile/DRAM Correctable",
        "ecc_errors/volatile/dram_correctable",
    ),
    "ecc.errors.uncorrected.volatile.dram": (
        "ECC Errors/Volatile/DRAM Uncorrectable",
        "ecc_errors/volatile/dram_uncorrectable",
    ),
    # The reports have no line for the total; see _reported(), which puts what is above the recording's zero on DRAM.
    "ecc.errors.uncorrected.volatile.total": ("", ""),
    "remapped_rows.correctable": ("Remapped Rows/Correctable Error", "remapped_rows/remapped_row_corr"),
    "remapped_rows.uncorrectable": ("Remapped Rows/Uncorrectable Error", "remapped_rows/remapped_row_unc"),
    "remapped_rows.pending": ("Remapped Rows/Pending", "remapped_rows/remapped_row_pending"),
    "remapped_rows.failure": ("Remapped Rows/Remapping Failure Occurred", "remapped_rows/remapped_row_failure"),
    "temperature.gpu": ("Temperature/GPU Current Temp", "temperature/gpu_temp"),
    "temperature.memory": ("Temperature/Memory Current Temp", "temperature/memory_temp"),
    "power.draw.average": ("GPU Power Readings/Average Power Draw", "gpu_power_readings/average_power_draw"),
    "power.draw.instant": ("GPU Power Readings/Instantaneous Power Draw", "gpu_power_readings/instant_power_draw"),
    "clocks.current.graphics": ("Clocks/Graphics", "clocks/graphics_clock"),
    "clocks.current.sm": ("Clocks/SM", "clocks/sm_clock"),
    "clocks.current.memory": ("Clocks/Memory", "clocks/mem_clock"),
    "clocks.max.sm": ("Max Clocks/SM", "max_clocks/sm_clock"),
    "fabric.state": ("Fabric/State", "fabric/state"),
    "fabric.status": ("Fabric/Status", "fabric/status"),
    # A bit mask; the reports show it as one line a reason, see REASONS.
    "clocks_event_reasons.active": ("", ""),
}

# Bit of clocks_event_reasons.active -> line under "Clocks Event Reasons", XML tag (nvml.h, nvmlClocksEventReason…).
REASONS = (
    (0x001, "Idle", "gpu_idle"),
    (0x002, "Applications Clocks Setting", "applications_clocks_setting"),
    (0x004, "SW Power Cap", "sw_power_cap"),
    (0x008, "HW Slowdown", "hw_slowdown"),
    (0x010, "Sync Boost", "sync_boost"),
    (0x020, "SW Thermal Slowdown", "sw_thermal_slowdown"),
    (0x040, "HW Slowdown/HW Thermal Slowdown", "hw_thermal_slowdown"),
    (0x080, "HW Slowdown/HW Power Brake Slowdown", "hw_power_brake_slowdown"),
    (0x100, "Display Clock Setting", "display_clocks_setting"),
)


# What the table of the bare command shows besides what table() fills in; a change of these cannot be shown there.
TABLE_FIXED = {"name", "pstate", "memory.used", "memory.total", "utilization.gpu", "compute_mode", "mig.mode.current",
               "power.draw.average"}  # fmt: skip


class Refused(Exception):
    """A question that is answered with an error: text, exit status, and whether it goes to stdout as the tool's own."""

    def __init__(self, text: str, exit_code: int, *, own_words: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.exit_code = exit_code
        self.own_words = own_words


def sections(captures: str) -> dict[str, str]:
    """Each recorded command of `captures.txt` with what it printed."""
    found: dict[str, str] = {}
    for part in captures.split("##### ")[1:]:
        command, _, output = part.partition("\n")
        if not command.startswith("rc="):
            found[command.strip()] = output
    return found


def report_lines(report: str) -> Iterator[tuple[str, str, str]]:
    """Each line of a `-q` report as (place, text before the value, value); no place where there is no value."""
    parents: list[tuple[int, str]] = []
    for line in report.splitlines():
        indent = len(line) - len(line.lstrip())
        while parents and parents[-1][0] >= indent:
            parents.pop()
        label, separator, value = line.partition(" : ")
        place = "/".join([name for _, name in parents] + [label.strip()])
        if separator:
            yield place, label + separator, value
        else:
            yield "", line, ""
        # "HW Slowdown" is both a line with a value and the heading of the lines under it.
        parents.append((indent, label.strip()))


def xml_lines(report: str) -> Iterator[tuple[str, str, str, str]]:
    """Each line of a `-q -x` report as (place, before, value, after); lines without a value have no place."""
    parents: list[str] = []
    for line in report.splitlines():
        leaf = re.fullmatch(r"(\s*<(\w+)>)([^<]*)(</\w+>)", line)
        if leaf:
            yield "/".join([*parents, leaf[2]]), leaf[1], leaf[3], leaf[4]
            continue
        opened = re.fullmatch(r"\s*<(\w+)( [^>]*)?>", line)
        if opened:
            parents.append(opened[1])
        elif re.fullmatch(r"\s*</\w+>", line):
            parents.pop()
        yield "", line, "", ""


def _first_names(help_text: str) -> dict[str, str]:
    """Each name of a `--help-query-…` text with the first name of its line: `"uuid" or "gpu_uuid"`."""
    found: dict[str, str] = {}
    for line in help_text.splitlines():
        if re.fullmatch(r'"[\w.]+"( or "[\w.]+")*', line):
            names = re.findall(r'"([\w.]+)"', line)
            found |= dict.fromkeys(names, names[0])
    return found


def _bare(text: str) -> str:
    """A value without its unit, as --query-gpu prints temperatures and widths: "33 C" -> "33", "16x" -> "16"."""
    return re.sub(r"^(-?[\d.]+)( \S+|x)$", r"\1", text)


def _unit(text: str) -> str:
    match = re.fullmatch(r"-?[\d.]+( \S+|x)", text)
    return match[1] if match else ""


class Recording:
    """The recorded outputs, taken apart: `report_gpu` and `xml_gpu` hold what is repeated for each GPU."""

    def __init__(self, captures: str, xml: str, every_field: str = "") -> None:
        self.outputs = sections(captures)
        report = self.outputs["nvidia-smi -q"]
        start = report.index("\nGPU ") + 1
        self.report_head, self.report_gpu = report[:start], report[start:]
        start, end = xml.index("\t<gpu id="), xml.index("\t</gpu>\n\n") + len("\t</gpu>\n\n")
        self.xml_head, self.xml_gpu, self.xml_tail = xml[:start], xml[start:end], xml[end:]
        values = {place.partition("/")[2]: value for place, _, value in report_lines(self.report_gpu)}
        values |= {f"/{place}": value for place, _, value in report_lines(self.report_head)}
        # What the text report shows of a field, with its unit.
        self.reported = {name: values[place] for name, (place, _) in FIELDS.items() if place}
        # Every name that a query knows -> the name that CSV headers give it.
        self.first_names = {
            option: _first_names(self.outputs[f"nvidia-smi --help-{option}"])
            for option in ("query-gpu", "query-remapped-rows")
        }
        # What CSV showed of a field, under its first name in --query-gpu.
        self.recorded_csv: dict[str, str] = {}
        for command, output in self.outputs.items():
            query = re.match(r"nvidia-smi --query-(?:gpu|remapped-rows)=(\S+)", command)
            if query:
                names = [self.field(name) for name in query[1].split(",")]
                self.recorded_csv |= dict(zip(names, output.splitlines()[1].split(", "), strict=True))
        # Of all other fields, the first recording with a header: the idle GPU's. Its units stand in the header.
        self.units: dict[str, str] = {}
        for command, output in sections(every_field).items():
            if command.startswith("nvidia-smi --query-gpu=") and command.endswith("--format=csv"):
                header, row = (line.split(", ") for line in output.splitlines()[:2])
                for title, value in zip(header, row, strict=True):
                    name, _, unit = title.partition(" [")
                    field, unit = self.field(name), unit.rstrip("]")
                    if field not in self.recorded_csv and field not in FIELDS:
                        self.units[field] = f" {unit}" if unit else ""
                        self.recorded_csv[field] = value.removesuffix(self.units[field])
                break

    def field(self, name: str) -> str:
        """The name in FIELDS of a name that a query may use."""
        return self.first_names["query-gpu"].get(name, name)

    def value(self, field: str) -> str:
        """What CSV says of a field, without its unit; "N/A" of the reports has more than one form in CSV."""
        if field in self.recorded_csv:
            return self.recorded_csv[field]
        text = self.reported.get(field, "N/A")
        if text == "N/A" or field.startswith("<"):
            raise Refused(f"no value of {field!r} was recorded", NOT_RECORDED)
        return _bare(text)

    def csv_unit(self, field: str) -> str:
        """The unit that CSV adds to a field, such as " MiB"; none for what was recorded without one."""
        if field in self.units:
            return self.units[field]
        if field in self.recorded_csv or field.startswith(("temperature.", "pcie.")):
            return ""
        return _unit(self.reported.get(field, ""))


def _reported(recording: Recording, values: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What differs from the recording, by place in the text report and by place in the XML report."""
    text: dict[str, str] = {}
    xml: dict[str, str] = {}
    for field, value in values.items():
        if field not in FIELDS:
            raise Refused(f"the reports cannot show a change of {field!r}; ask with --query-gpu", NOT_RECORDED)
        place, tag = FIELDS[field]
        if place:
            text[place] = xml[tag] = value + _unit(recording.reported[field])
    total = values.get("ecc.errors.uncorrected.volatile.total")
    if total is not None and "ecc.errors.uncorrected.volatile.dram" not in values:
        place, tag = FIELDS["ecc.errors.uncorrected.volatile.dram"]
        text[place] = xml[tag] = total
    mask = values.get("clocks_event_reasons.active")
    if mask is not None:
        for bit, line, tag in REASONS:
            word = "Active" if int(mask, 16) & bit else "Not Active"
            text[f"Clocks Event Reasons/{line}"] = word
            xml[f"clocks_event_reasons/clocks_event_reason_{tag}"] = word
    # The XML writes this one number without the 0x that the text report has.
    if "<pci.device>" in values:
        xml["pci/pci_device"] = values["<pci.device>"].removeprefix("0x")
    return text, xml


class Tool:
    """The recording as it stands for one node's GPUs."""

    def __init__(self, recording: Recording, gpus: Sequence[dict[str, str]]) -> None:
        for values in gpus:
            unknown = sorted(set(values) - set(FIELDS) - set(recording.units))
            if unknown:
                raise Refused(f"the state file names fields that are not known: {unknown}", NOT_RECORDED)
        self.recording = recording
        self.gpus = tuple(gpus)

    def answer(self, arguments: Sequence[str]) -> str:
        """What the tool prints for a command line; Refused if it is wrong or was never recorded."""
        line = " ".join(arguments)
        if line == "":
            return self.table()
        if line == "-L":
            return self.list()
        if line == "-q":
            return self.report()
        if line in ("-q -x", "-x -q"):
            return self.xml()
        options = dict(argument.partition("=")[::2] for argument in arguments)
        style = options.pop("--format", "").split(",")
        if len(options) == 1 and style[0] == "csv" and set(style) <= {"csv", "noheader", "nounits"}:
            ((option, names),) = options.items()
            fields = [name.strip() for name in names.split(",")]
            if option in ("--query-gpu", "--query-remapped-rows"):
                return self.query(option, fields, header="noheader" not in style, units="nounits" not in style)
            if option == "--query-compute-apps":
                return self.compute_apps(fields, header="noheader" not in style, units="nounits" not in style)
        # A matrix of links between several GPUs cannot be made out of the one row that was recorded.
        if line.startswith("topo") and len(self.gpus) != 1:
            raise Refused(f"{line!r} was recorded for one GPU and this node has {len(self.gpus)}", NOT_RECORDED)
        if line in ("nvlink -s", "nvlink -e", "topo -m", "--help-query-gpu", "--help-query-remapped-rows"):
            return self.recording.outputs[f"nvidia-smi {line}"]
        raise Refused(f"the recording holds no answer to {line!r}", NOT_RECORDED)

    def list(self) -> str:
        """`-L`."""
        return "".join(
            f"GPU {index}: {self._value('name', index)} (UUID: {self._value('uuid', index)})\n"
            for index in range(len(self.gpus))
        )

    def query(self, option: str, names: Sequence[str], *, header: bool, units: bool) -> str:
        """`--query-gpu=` and `--query-remapped-rows=` with any fields that were recorded."""
        first_names = self.recording.first_names[option.removeprefix("--")]
        for name in names:
            if name not in first_names:
                # The real tool says this on stdout.
                raise Refused(f'Field "{name}" is not a valid field to query.\n\n', BAD_ARGUMENT, own_words=True)
        titles = [first_names[name] for name in names]
        fields = [self.recording.field(name) for name in names]
        suffixes = [self.recording.csv_unit(field) if units else "" for field in fields]
        shown = [
            f"{title} [{suffix.strip()}]" if suffix else title for title, suffix in zip(titles, suffixes, strict=True)
        ]
        rows = [
            [self._value(field, index) + suffix for field, suffix in zip(fields, suffixes, strict=True)]
            for index in range(len(self.gpus))
        ]
        return "".join(", ".join(row) + "\n" for row in ([shown] if header else []) + rows)

    def compute_apps(self, fields: Sequence[str], *, header: bool, units: bool) -> str:
        """`--query-compute-apps=`: the recorded GPU was idle, so there is a header and nothing below it."""
        titles = {"pid": "pid", "used_memory": "used_gpu_memory", "used_gpu_memory": "used_gpu_memory"}
        missing = [field for field in fields if field not in titles]
        if missing:
            raise Refused(
                f"--query-compute-apps was recorded with pid and used_memory, not with {missing}", NOT_RECORDED
            )
        words = [titles[field] + (" [MiB]" if units and "memory" in field else "") for field in fields]
        return ", ".join(words) + "\n" if header else ""

    def table(self) -> str:
        """The table that the bare command prints."""
        stuck = sorted(TABLE_FIXED & set().union(*self.gpus))
        if stuck:
            raise Refused(f"the table cannot show a change of {stuck}; ask with --query-gpu, -q or -q -x", NOT_RECORDED)
        lines = self.recording.outputs["nvidia-smi"].splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("|   0 "))
        block = lines[first : first + 4]
        shown: list[str] = []
        for index in range(len(self.gpus)):
            top, middle, bottom, rule = block
            mode = "On" if self._value("persistence_mode", index) == "Enabled" else "Off"
            errors = self._value("ecc.errors.uncorrected.volatile.total", index)
            left, bus, _ = top.split("|")[1:4]
            left = f"{index:>4}{left[4:37]}{mode:<4}"
            bus = bus.replace(self.recording.value("pci.bus_id"), self._value("pci.bus_id", index))
            shown.append(f"|{left}|{bus}|{errors:>21} |")
            shown.append(middle[:7] + f"{self._value('temperature.gpu', index) + 'C':>4}" + middle[11:])
            shown += [bottom, rule]
        text = "\n".join(lines[:first] + shown + lines[first + 4 :]) + "\n"
        if not self.gpus:
            return text
        return text.replace(self.recording.value("driver_version"), self._value("driver_version", 0))

    def report(self) -> str:
        """`-q`."""
        parts = [self._report_part(self.recording.report_head, self._shared()[0])]
        for index, values in enumerate(self.gpus):
            title, _, body = self.recording.report_gpu.partition("\n")
            changed = {f"{title}/{place}": value for place, value in _reported(self.recording, values)[0].items()}
            part = self._report_part(f"{title}\n{body}", changed)
            parts.append(part.replace(title, f"GPU {self._value('pci.bus_id', index)}", 1))
        return "".join(parts)

    def xml(self) -> str:
        """`-q -x`."""
        parts = [self._xml_part(self.recording.xml_head, self._shared()[1])]
        for index, values in enumerate(self.gpus):
            changed = {f"gpu/{place}": value for place, value in _reported(self.recording, values)[1].items()}
            part = self._xml_part(self.recording.xml_gpu, changed)
            parts.append(re.sub(r'<gpu id="[^"]*"', f'<gpu id="{self._value("pci.bus_id", index)}"', part, count=1))
        return "".join(parts) + self.recording.xml_tail

    def _value(self, field: str, index: int) -> str:
        if field == "index":
            return str(index)
        if field == "count":
            return str(len(self.gpus))
        if field in self.gpus[index]:
            return self.gpus[index][field]
        return self.recording.value(field)

    def _shared(self) -> tuple[dict[str, str], dict[str, str]]:
        """What the head of the two reports says of all GPUs together."""
        count = str(len(self.gpus))
        text, xml = {"Attached GPUs": count}, {"nvidia_smi_log/attached_gpus": count}
        if self.gpus:
            version = self._value("driver_version", 0)
            text["Driver Version"] = xml["nvidia_smi_log/driver_version"] = version
        return text, xml

    @staticmethod
    def _report_part(part: str, changed: dict[str, str]) -> str:
        lines = [before + changed.get(place, value) for place, before, value in report_lines(part)]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _xml_part(part: str, changed: dict[str, str]) -> str:
        lines = [before + changed.get(place, value) + after for place, before, value, after in xml_lines(part)]
        return "\n".join(lines) + "\n"


def run(root: Path, arguments: Sequence[str]) -> tuple[str, str, int]:
    """What the tool of a fake root prints: stdout, stderr, exit status."""
    state = json.loads((root / "nvidia-smi.json").read_text(encoding="utf-8"))
    replies = state.get("replies", {})
    reply = replies.get(" ".join(arguments), replies.get("*"))
    if reply is not None:
        return reply["text"], "", reply["exit_code"]
    folder = Path(state["captures"])
    recording = Recording(
        *((folder / name).read_text(encoding="utf-8") for name in ("captures.txt", "query.xml", "every-field.txt"))
    )
    try:
        tool = Tool(recording, [gpu.get("values", {}) for gpu in state["gpus"] if not gpu.get("missing")])
        return tool.answer(arguments), "", 0
    except Refused as refusal:
        if refusal.own_words:
            return refusal.text, "", refusal.exit_code
        return "", f"nvidia-smi (replayed by the lab): {refusal.text}\n", refusal.exit_code


def main() -> int:
    """Answer one command line from the fake root that this file lies in."""
    out, err, code = run(Path(sys.argv[0]).absolute().parent.parent, sys.argv[1:])
    sys.stdout.write(out)
    sys.stderr.write(err)
    return code


if __name__ == "__main__":
    sys.exit(main())
