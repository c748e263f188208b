"""What uses GPUs: memory in use of each, and the processes that have a context there. Asked after a job, not during it.

`nvidia-smi --query-gpu=index,…,memory.used`, and only when some is in use, `--query-compute-apps`.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence

from trainmaster.health import files
from trainmaster.health.check import Completed, Place, Source
from trainmaster.health.finding import Action, Finding, fail
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_query

IDLE_MIB = 15.0
"""What an idle GPU may show as in use."""
_FIELDS = ["index", "uuid", "pci.bus_id", "memory.used"]


def numbers(text: str) -> tuple[str, ...]:
    """GPU numbers of SLURM_JOB_GPUS, such as "0,2-3". Pure.

    >>> numbers("0,2-3"), numbers("")
    (('0', '2', '3'), ())
    """
    found: list[str] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if first.isdecimal() and not dash:
            found.append(first)
        elif first.isdecimal() and last.isdecimal():
            found += [str(number) for number in range(int(first), min(int(last), int(first) + 64) + 1)]
    return tuple(found)


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Yields the commands; returns {"gpus": [{index, …}], "apps": [{"pid", "mib"}]}."""
    program = gpu_query.tool(place)
    done = yield [program, "--query-gpu=" + ",".join(_FIELDS), "--format=csv,noheader,nounits"]
    gpus = gpu_query.rows(gpu_query.succeeded(done), _FIELDS)
    apps: list[dict[str, Any]] = []
    if any(mib(row) > IDLE_MIB for row in gpus):
        done = yield [program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        apps = parse_apps(gpu_query.succeeded(done), place.root)
    return {"gpus": gpus, "apps": apps}


def parse_apps(text: str, root: str = "") -> list[dict[str, Any]]:
    """Lines of "pid, MiB"; the name is the kernel's. Lines that are no such are left out."""
    found = []
    for line in text.splitlines():
        pid, _, used = (part.strip() for part in line.partition(","))
        if pid.isdecimal():
            name = files.text(f"{root}/proc/{pid}/comm", 64) or "?"
            found.append({"pid": int(pid), "mib": int(used) if used.isdecimal() else 0, "name": name})
    return found


def mib(row: dict[str, str]) -> float:
    """Memory in use; 0 for what the driver does not say. Pure."""
    text = row.get("memory.used", "")
    return float(text) if text.replace(".", "", 1).isdecimal() else 0.0


def on(value: Any, chosen: Collection[str], limit_mib: float) -> list[Finding]:
    """A finding for each of the chosen GPUs (None chosen: all) whose memory is in use. Pure."""
    apps: Sequence[dict[str, Any]] = value["apps"]
    holders = ", ".join(f"{app['name']}[{app['pid']}]" for app in apps[:4])
    found = []
    for row in value["gpus"]:
        if (not chosen or row["index"] in chosen) and mib(row) > limit_mib:
            detail = f"{mib(row):.0f} MiB still in use" + (f" ({holders})" if holders else "")
            subject = row["pci.bus_id"].lower()[-12:]
            found.append(
                fail(Action.DRAIN, detail, subject=subject, value=mib(row), threshold=limit_mib)
                ._replace(check="gpu.leftover")
            )  # fmt: skip
    return found


SOURCE = Source(
    name="gpu.apps",
    about="`nvidia-smi --query-gpu=memory.used`, and `--query-compute-apps` when some is",
    ask=ask,
    deadline_s=20.0,
    hung_id="gpu.hung",
)
