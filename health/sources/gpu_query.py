"""Everything about all GPUs, by one child: `nvidia-smi --query-gpu=…`.

The fields are those that this driver offers, since one that it does not know fails the whole query; they are asked for
once a boot and driver. A site that names `libnvidia-ml` among its tools has the library asked instead (`nvml.py`).
`inforom.checksum_validation` has a source of its own: on an H100 it takes 70 ms, of the 97 ms
that a query of 28 fields took with it (lab/data/h100/timings.txt).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator

from trainmaster.health import children, files
from trainmaster.health.check import Absent, Completed, Missing, Place, Source, SourceFault
from trainmaster.health.finding import Action
from trainmaster.health.gpu_values import RETURNS
from trainmaster.health.record import Any
from trainmaster.health.sources import pci

WANTED = (
    "index",
    "uuid",
    "pci.bus_id",
    "name",
    "driver_version",
    "vbios_version",
    "persistence_mode",
    "ecc.mode.current",
    "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded",
    "remapped_rows.uncorrectable",
    "remapped_rows.pending",
    "remapped_rows.failure",
    "retired_pages.double_bit.count",
    "retired_pages.single_bit_ecc.count",
    "retired_pages.pending",
    "gpu_recovery_action",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "pcie.link.gen.current",
    "pcie.link.gen.gpumax",
    "pcie.link.gen.max",
    "clocks_event_reasons.active",
    "temperature.gpu.tlimit",
    "fabric.state",
    "fabric.status",
    "fabric.health.summary",
    "mig.mode.current",
    "memory.used",
    "pstate",
    "utilization.gpu",
)
_ADDRESS = r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]|.*(?:ERR!|\[).*"
"""What `pci.bus_id` may be: an address, or the tool's words for one that it could not read."""


def expect_gpus(place: Place) -> None:
    """Raises Absent where no GPU is or should be."""
    if not (place.profile.gpus or pci.nvidia_devices(place.root)):
        raise Absent("no GPU is here, and none is expected")


def tool(place: Place) -> str:
    """Where nvidia-smi is. Raises Absent where no GPU is or should be, Missing where one is and the tool is not."""
    chosen = place.profile.table("tools").get("nvidia-smi")
    found = chosen if isinstance(chosen, str) else children.which("nvidia-smi", place.root)
    expect_gpus(place)
    if found is None:
        raise Missing("nvidia-smi is not installed, and this node has or should have GPUs")
    return found


def ask(place: Place) -> Generator[list[str] | Callable[[], str], Completed, Any]:
    """Yields the questions; returns {"driver", "fields", "gpus": [{field: text}]}."""
    library = place.profile.table("tools").get("libnvidia-ml")
    if isinstance(library, str) and library:
        from trainmaster.health.sources import nvml  # only where it is chosen

        expect_gpus(place)
        gpus = nvml.gpus((yield lambda: nvml.told(library, WANTED)))
        return {"driver": gpus[0]["driver_version"] if gpus else "", "fields": list(WANTED), "gpus": gpus}
    program = tool(place)
    version = files.text(place.root + "/sys/module/nvidia/version") or ""
    memory = place.memory if isinstance(place.memory, dict) else {}
    known = memory.get("fields") if version and memory.get("driver") == version else None
    fields = [str(field) for field in known] if isinstance(known, list) and known else None
    for last in (False, True):
        if fields is None:
            fields = offered(succeeded((yield [program, "--help-query-gpu"])))
            last = True
        done = yield [program, "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"]
        if done.code == 2 and not last:
            fields = None  # the driver was exchanged under us
            continue
        break
    assert fields is not None
    return {"driver": version, "fields": fields, "gpus": rows(succeeded(done), fields)}


def succeeded(done: Completed) -> str:
    """What the tool printed. Raises SourceFault with its own words when it failed."""
    said = " ".join((done.out + " " + done.err).split())[:160]
    if done.code != 0:
        how = f"signal {-done.code}" if done.code < 0 else f"exit status {done.code}"
        raise SourceFault(f"nvidia-smi: {how}, {RETURNS.get(done.code, 'unknown')}: {said}")
    # The exit status is 0 now and then although a GPU could not be read.
    for words in ("Unable to determine the device handle", "No devices were found", "has failed because it couldn't"):
        if words in done.out + done.err:
            raise SourceFault(f"nvidia-smi: {said}")
    return done.out


def offered(help_text: str) -> list[str]:
    """Those of the wanted fields that the help text names. Pure; raises SourceFault when it names none of use."""
    known = set(re.findall(r'"([\w.]+)"', help_text))
    fields = [field for field in WANTED if field in known]
    if not {"index", "uuid", "pci.bus_id"} <= set(fields):
        raise SourceFault("nvidia-smi --help-query-gpu does not name index, uuid and pci.bus_id")
    return fields


def rows(text: str, fields: list[str]) -> list[dict[str, str]]:
    """One dict a GPU. Pure; raises SourceFault for anything but a table of that width."""
    found = []
    for line in text.splitlines():
        if not line.strip():
            continue
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(fields):
            raise SourceFault(
                f"nvidia-smi printed a line of {len(values)} values for {len(fields)} fields: {line[:80]!r}"
            )
        row = {field: values[number] for number, field in enumerate(fields)}
        if not re.fullmatch(_ADDRESS, row.get("pci.bus_id", "00000000:00:00.0")):
            raise SourceFault(f"nvidia-smi printed a line without a GPU's address: {line[:80]!r}")
        found.append(row)
    return found


def remember(value: Any) -> Any:
    """The fields, so that the next pass need not ask which there are."""
    return {"driver": value["driver"], "fields": value["fields"]}


SOURCE = Source(
    name="gpu.query",
    about="one `nvidia-smi --query-gpu=…` for all GPUs, or NVML",
    ask=ask,
    deadline_s=20.0,
    trouble=Action.DRAIN,
    hung=Action.DRAIN,
    hung_id="gpu.hung",
    remember=remember,
)
