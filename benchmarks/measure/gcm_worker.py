"""Runs gcm's own checks over recordings of a sick node; started by measure/gcm.py with the Python that gcm lives in.

    python gcm_worker.py        reads {"root": …, "fields": […]} a line, answers with what is critical

gcm's commands are called as their entry point calls them, with their arguments and their verdicts. Two things are
replaced, as gcm's own tests do: NVML by one that tells what the node's nvidia-smi tells, and the reading of /sys and
/proc by one that reads the node's.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pynvml
from gcm.health_checks.checks.check_iblink import check_iblink
from gcm.health_checks.checks.check_nvidia_smi import NvidiaSmiCliImpl
from gcm.health_checks.checks.check_pci import check_pci
from gcm.health_checks.cli.health_checks import health_checks
from gcm.monitoring.device_telemetry_client import DeviceTelemetryException
from gcm.monitoring.device_telemetry_nvml import pynvml_exception_handler
from gcm.schemas.gpu.memory import GPUMemory
from gcm.schemas.gpu.remapped_row import RemappedRowInfo

SLOWDOWN_C = 87
"""The temperature at which an H100's margin, as its driver tells it, is nothing."""
CRITICAL = 2
GPU_CHECKS = (
    *("gpu_num", "gpu_temperature", "gpu_retired_pages", "ecc_uncorrected_volatile_total", "row_remap"),
    "vbios_mismatch",
)
SYSTEM_PATH = os.environ["PATH"]


class Hangs(Exception):
    """NVML does not come back. gcm has no limit of time for it, so neither does its check."""


class Gpu:
    """A handle of NVML."""

    def __init__(self, row: dict[str, str]) -> None:
        self._row = row

    def _number(self, name: str) -> int:
        text = self._row.get(name, "[N/A]")
        if text.strip("[]") in ("N/A", "Not Supported"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if text in ("Yes", "No"):
            return int(text == "Yes")
        try:
            return int(text, 0)
        except ValueError:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN) from None

    @pynvml_exception_handler
    def get_remapped_rows(self) -> RemappedRowInfo:
        rows = [self._number(f"remapped_rows.{name}") for name in ("uncorrectable", "pending", "failure")]
        return RemappedRowInfo(0, *rows)

    @pynvml_exception_handler
    def get_ecc_uncorrected_volatile_total(self) -> int:
        return self._number("ecc.errors.uncorrected.volatile.total")

    @pynvml_exception_handler
    def get_retired_pages_double_bit_ecc_error(self) -> range:
        return range(self._number("retired_pages.double_bit.count"))

    @pynvml_exception_handler
    def get_retired_pages_multiple_single_bit_ecc_errors(self) -> range:
        return range(self._number("retired_pages.single_bit_ecc.count"))

    @pynvml_exception_handler
    def get_retired_pages_pending_status(self) -> int:
        return self._number("retired_pages.pending")

    @pynvml_exception_handler
    def get_temperature(self) -> int:
        return SLOWDOWN_C - self._number("temperature.gpu.tlimit")

    @pynvml_exception_handler
    def get_vbios_version(self) -> str:
        return self._row.get("vbios_version", "")

    @pynvml_exception_handler
    def get_memory_info(self) -> GPUMemory:
        used = self._number("memory.used") << 20
        return GPUMemory(80 << 30, (80 << 30) - used, used)

    def get_compute_processes(self) -> list[Any]:
        return []


class Nvml:
    """NVML, as the node's nvidia-smi tells of it: its exit status is NVML's."""

    def __init__(self, root: str, fields: list[str]) -> None:
        query = [f"{root}/bin/nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
            code, told = done.returncode, done.stdout
        except subprocess.TimeoutExpired:
            raise Hangs from None
        except FileNotFoundError:
            # Only the tool is gone.
            code, told = 0, Path(root, "bin/rows.txt").read_text()
        if code:
            try:
                raise pynvml.NVMLError(code)
            except pynvml.NVMLError as error:
                raise DeviceTelemetryException from error
        # NVML knows no table: one with other separators is a fault of the tool's alone.
        lines = [re.split("[,;] ", line) for line in told.splitlines()]
        self._rows = [dict(zip(fields, line, strict=True)) for line in lines if len(line) == len(fields)]
        self._lost = "Unable to determine" in told

    def get_device_count(self) -> int:
        return len(self._rows) + self._lost

    @pynvml_exception_handler
    def get_device_by_index(self, index: int) -> Gpu:
        if index >= len(self._rows):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return Gpu(self._rows[index])


def read_below(root: str) -> None:
    """Have gcm's two readers of sysfs read the node's."""

    def path_of(path: object) -> Path:
        # /sys/class/pci_bus/0000:00/device/<address> and /sys/bus/pci/devices/<address> are the same folder.
        before, _, after = str(path).partition("/device/")
        return Path(root + (f"/sys/bus/pci/devices/{after}" if before.startswith("/sys/class/pci_bus/") else str(path)))

    def value(path: object) -> str | None:
        try:
            return path_of(path).read_text().strip()
        except OSError:
            return None

    def names(path: object) -> list[str] | None:
        try:
            return sorted(entry.name for entry in path_of(path).iterdir())
        except OSError:
            return None

    sys.modules[check_pci.callback.__module__]._read_sysfs_val = value
    module = sys.modules[check_iblink.callback.__module__]
    module._read_sysfs_val, module._list_sysfs_dir = value, names


def commands(root: str, folder: str, *, job: bool) -> list[tuple[click.Command, list[str]]]:
    """gcm's command lines for such a node: what its README names, with its own defaults where it has some."""
    common = ["--sink", "do_nothing", "--log-folder", folder, "here"]
    nagios, manifest = [*common, "nagios"], ["--manifest_file", f"{root}/etc/manifest.json"]
    gpu = [word for name in GPU_CHECKS for word in ("-c", name)]
    folders = [word for name in ("scratch", "home") for word in ("-d", f"{root}/{name}")]
    lines = [
        ["check-nvidia-smi", *gpu, "--gpu_temperature_threshold", str(SLOWDOWN_C), *nagios],
        ["check-syslogs", "xid", *nagios],
        ["check-syslogs", "io-errors", *nagios],
        ["check-service", "service-status", "-s", "munge", "-s", "nvidia-fabricmanager", *nagios],
        ["check-storage", "mounted-directory", "-d", "/scratch", "-d", "/home", *nagios],
        ["check-storage", "directory-exists", *folders, *nagios],
        ["check-processor", "check-mem-size", "--dimms", "32", "--total-size", "2048", *nagios],
        ["check-pci", *manifest, *nagios],
    ]
    if not job:
        # As an epilog, when the job has gone.
        lines.append(["check-nvidia-smi", "-c", "gpu_mem_usage", *common, "epilog"])
    # The last one is written and tested, and left out of version 0.0.2's command.
    return [(health_checks, line) for line in lines] + [(check_iblink, [*manifest, *nagios])]


def critical(root: str, fields: list[str], folder: str) -> list[str]:
    """What gcm calls critical on this node."""
    os.environ.update(PATH=f"{root}/bin:{SYSTEM_PATH}", SLURM_JOB_GPUS=",".join(map(str, range(8))))
    read_below(root)
    NvidiaSmiCliImpl.get_device_telemetry = lambda self: Nvml(root, fields)
    job = any(path.read_text().split()[1] == "(slurmstepd)" for path in Path(root, "proc").glob("[0-9]*/stat"))
    found = []
    for command, line in commands(root, folder, job=job):
        heard = io.StringIO()
        try:
            with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
                command.main(line, prog_name="health_checks", standalone_mode=False)
        except SystemExit as end:
            if end.code == CRITICAL:
                name = line[0] if command is health_checks else "check-iblink"
                found.append(f"{name}: {' '.join(heard.getvalue().split())[:200]}")
        except Hangs:
            continue
    return found


def main() -> int:
    """One answer a line, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            asked = json.loads(line)
            told = critical(asked["root"], asked["fields"], folder)
            answers.write(json.dumps(told) + "\n")
            answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
