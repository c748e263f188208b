"""The driver's error reports (Xid) in the kernel's log, weighed by NVIDIA's catalogue.

What asks for a reset counts until the driver is loaded anew, the GPU's recovery action becomes None again, or the node
boots; not until some log is rotated. What a program did to itself never counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainmaster.health import xids
from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, fail, note, warn
from trainmaster.health.record import Any, NamedTuple
from trainmaster.health.sources import kernel_log

_XID = r"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+)(?:\.[0-9])?\): (\d+),?\s*(.*)"
_PID = r"pid='?(\d+)"
_LOADED = "NVRM: loading NVIDIA"
_RECOVERY = r"to 0x[0-9a-fA-F]+ \(([^)]*)\)"
DAY_S = 86_400.0


class Xid(NamedTuple):
    """One report."""

    gpu: str
    number: int
    pid: int | None
    text: str


def parse(text: str) -> Xid | None:
    """The report in a line of the log.

    >>> parse("NVRM: Xid (PCI:0000:00:06): 43, pid=4420, name=python3, channel 0x0000000a").number
    43
    """
    match = re.match(_XID, text)
    if match is None:
        return None
    pid = re.search(_PID, match[3])
    return Xid(match[1].lower() + ".0", int(match[2]), int(pid[1]) if pid else None, match[3])


def after(memory: Any, records: list[list[Any]], now_s: float) -> dict[str, Any]:
    """What is held against the GPUs once these records are read too: {"active": {…}, "programs": [...]}."""
    old = memory if isinstance(memory, dict) else {}
    active = {key: list(entry) for key, entry in old.get("active", {}).items()}
    programs = [entry for entry in old.get("programs", []) if 0 <= now_s - entry[0] <= DAY_S]
    for record in records:
        text = str(record[3])
        if text.startswith(_LOADED):
            active, programs = {}, []
        xid = parse(text)
        if xid is None:
            continue
        if xid.number == xids.RECOVERY:
            wanted = re.search(_RECOVERY, xid.text)
            # Whatever it is now replaces what it was.
            active = {key: entry for key, entry in active.items() if entry[0] != xid.gpu or entry[1] != xids.RECOVERY}
            if wanted is not None and wanted[1].lower() == "none":
                active = {key: entry for key, entry in active.items() if entry[0] != xid.gpu}
            else:
                words = wanted[1] if wanted is not None else xid.text
                active[f"{xid.gpu} {xid.number}"] = [xid.gpu, xid.number, words]
        elif xid.number in xids.RESET or xid.number in xids.REPLACE:
            active[f"{xid.gpu} {xid.number}"] = [xid.gpu, xid.number, ""]
        elif xid.number in xids.RESTART_APP and xid.number not in xids.USER:
            programs.append([now_s, xid.gpu, xid.number, xid.pid])
    return {"active": active, "programs": programs[-200:]}


def judge(context: Context, value: Any) -> list[Finding]:
    """What is held against each GPU, and what else was reported since the last pass."""
    held = after(context.memory, value["records"], context.now_s)
    found = [_held(gpu, number, words) for gpu, number, words in held["active"].values()]
    limit = context.profile.threshold("gpu.xid.programs", 2)
    for gpu in sorted({entry[1] for entry in held["programs"]}):
        ended = [entry for entry in held["programs"] if entry[1] == gpu]
        numbers = ", ".join(str(number) for number in sorted({entry[2] for entry in ended}))
        if len({entry[3] for entry in ended}) >= limit:
            detail = f"{numbers} ended {len(ended)} programs within a day"
            found.append(fail(Action.DRAIN_RESET, detail, subject=gpu, value=len(ended), threshold=limit))
    return found + list(_news(value["records"]))


def _held(gpu: str, number: int, words: str) -> Finding:
    if number == xids.RECOVERY:
        if "p2p" in words.lower() and "reset" not in words.lower():
            return warn(f"154, recovery action {words}", subject=gpu, value=number)
        return fail(Action.DRAIN_RESET, f"154, recovery action {words}", subject=gpu, value=number)
    name = xids.REPLACE.get(number) or xids.NAMES.get(number)
    action = Action.DRAIN_REQUEUE if number in xids.LOST else Action.DRAIN_RESET
    return fail(action, f"{number}, {name}" if name else str(number), subject=gpu, value=number)


def _news(records: list[list[Any]]) -> Iterator[Finding]:
    """What the new records hold besides."""
    known = xids.RESET | set(xids.REPLACE) | xids.RESTART_APP | xids.IGNORE | xids.IGNORE_590 | {xids.RECOVERY}
    told: set[tuple[str, int]] = set()
    for xid in (parse(str(record[3])) for record in records):
        if xid is None or (xid.gpu, xid.number) in told:
            continue
        told.add((xid.gpu, xid.number))
        if xid.number in xids.NVLINK:
            yield warn(f"{xid.number}, NVLink error", subject=xid.gpu, value=xid.number)
        elif xid.number in xids.RESTART_APP:
            yield note(
                f"{xid.number}, {xids.NAMES.get(xid.number, 'a program ended')}", subject=xid.gpu, value=xid.number
            )
        elif xid.number not in known:
            yield warn(
                f"{xid.number}, which is not in the catalogue ({xids.VERSION})", subject=xid.gpu, value=xid.number
            )


def remember(context: Context, value: Any) -> Any:
    """What is held against the GPUs."""
    return after(context.memory, value["records"], context.now_s)


CHECK = Check(
    id="gpu.xid",
    about="the driver reported an error after which a GPU needs a reset, or the node a repair",
    sources=(kernel_log.SOURCE,),
    judge=judge,
    remember=remember,
)
