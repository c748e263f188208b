"""What an H100 really said (lab/data/h100), as the sources would hand it on."""

from pathlib import Path
from typing import Any

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Action, Finding, Verdict
from trainmaster.health.profile import Profile
from trainmaster.health.sources import kernel_log

FOLDER = Path(__file__).resolve().parents[1] / "lab" / "data" / "h100"


def sections(name: str) -> list[tuple[str, str]]:
    """(command, what it printed) in the order of the recording, a command as often as it was run."""
    found = []
    for part in (FOLDER / name).read_text().split("##### ")[1:]:
        command, _, output = part.partition("\n")
        if not command.startswith("rc="):
            found.append((command, output))
    return found


def exit_status(name: str, command: str) -> int:
    """How a recorded command ended."""
    text = (FOLDER / name).read_text().partition(f"##### {command}")[2]
    return int(text.partition("##### rc=")[2].split("\n")[0])


def _rows() -> list[dict[str, str]]:
    found = []
    for command, output in sections("every-field.txt"):
        if command.startswith("nvidia-smi --query-gpu=") and command.endswith("noheader,nounits"):
            fields = command.split("=")[1].split(" ")[0].split(",")
            found.append(dict(zip(fields, output.splitlines()[0].split(", "), strict=True)))
    return found


IDLE, LOADED = _rows()


def gpus(*changes: dict[str, str], row: dict[str, str] = IDLE) -> dict[str, Any]:
    """The value of gpu.query for GPUs that differ from the recorded one."""
    rows = []
    for number, change in enumerate(changes or ({},)):
        address = {"index": str(number), "pci.bus_id": f"00000000:{15 + number:02X}:00.0"}
        rows.append({**row, **address, **change})
    return {"driver": "580.159.04", "fields": list(row), "gpus": rows}


def log(*texts: str, lost: int = 0) -> dict[str, Any]:
    """The value of node.kmsg for these lines."""
    lines = [f"4,{number},{number * 1000},-;{text}".encode() for number, text in enumerate(texts)]
    return {**kernel_log.collect(lines, -1), "lost": lost}


def judge(check: Check, *values: Any, memory: Any = None, now_s: float = 1e9, **profile: Any) -> list[Finding]:
    """The findings of one check."""
    return check.judge(Context(Profile(profile), memory, now_s), *values)


def told(findings: list[Finding]) -> list[tuple[Verdict, Action]]:
    """Verdicts and actions."""
    return [(finding.verdict, finding.action) for finding in findings]


DRAIN = (Verdict.FAIL, Action.DRAIN)
RESET = (Verdict.FAIL, Action.DRAIN_RESET)
REQUEUE = (Verdict.FAIL, Action.DRAIN_REQUEUE)
WARN = (Verdict.WARN, Action.COMMENT)
NOTE = (Verdict.OK, Action.NONE)
SKIP = (Verdict.SKIP, Action.NONE)
