"""NVIDIA's own diagnostics, where DCGM is installed: `dcgmi diag -r LEVEL -j`. The level is the site's choice.

    {"thresholds": {"deep.dcgm.level": 2}}    0 never, 1 seconds (the default), 2 two minutes, 3 a quarter of an hour

`parse` takes what DCGM 2 and 3 print (`gpu_ids`, PASS) and what DCGM 4 prints (`entity_id`, Pass).
"""

from __future__ import annotations

import json
from collections.abc import Generator

from trainmaster.health import children
from trainmaster.health.check import Absent, Completed, Place, Source, SourceFault
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_load

LEVEL = 1
ROOTS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")


def ask(place: Place) -> Generator[list[str], Completed, Any]:
    """Returns {"level": …, "results": [{"category", "test", "subject", "status", "warning", "severity"}]}."""
    level = int(place.profile.threshold("deep.dcgm.level", LEVEL))
    program = place.profile.table("tools").get("dcgmi")
    if level <= 0 or not (program or children.which("dcgmi", place.root)):
        raise Absent("DCGM is not installed" if level > 0 else "the site does not want it")
    yield from gpu_load.idle_gpus(place)
    done = yield [str(program or "dcgmi"), "diag", "-r", str(level), "-j"]
    return {"level": level, "results": parse(done)}


def parse(done: Completed) -> list[dict[str, Any]]:
    """A line for each result of each test. Pure. DCGM's exit status is not 0 when a test fails, so it is not asked."""
    # Lines of its log may stand around the object.
    first, last = done.out.find("{"), done.out.rfind("}")
    try:
        raw = json.loads(done.out[first : last + 1]) if first >= 0 else None
    except (ValueError, RecursionError):
        raw = None
    root = next((raw[key] for key in ROOTS if key in raw), None) if isinstance(raw, dict) else None
    if not isinstance(root, dict) or root.get("runtime_error") or not _dicts(root.get("test_categories")):
        words = str(root.get("runtime_error")) if isinstance(root, dict) else (done.err or done.out).strip()
        raise SourceFault(f"dcgmi ended with {done.code}: {words[-160:]}")
    return [
        {"category": str(category.get("category", "")).lower(), **_result(str(test.get("name", "?")), result)}
        for category in _dicts(root["test_categories"])
        for test in _dicts(category.get("tests"))
        for result in _dicts(test.get("results"))
    ]


def _dicts(raw: Any) -> list[dict[str, Any]]:
    return [entry for entry in raw if isinstance(entry, dict)] if isinstance(raw, list) else []


def _result(test: str, raw: dict[str, Any]) -> dict[str, Any]:
    warnings = raw.get("warnings")
    first = warnings[0] if isinstance(warnings, list) and warnings else warnings
    severity = first.get("error_severity") if isinstance(first, dict) else None
    words = first.get("warning", "") if isinstance(first, dict) else first
    if raw.get("entity_group") not in (None, "GPU"):
        subject = f"{raw.get('entity_group')} {raw.get('entity_id')}"
    else:
        number = raw.get("entity_id", raw.get("gpu_ids", raw.get("gpu_id", "")))
        subject = f"GPU {number}" if number != "" else ""
    return {
        "test": test,
        "subject": subject,
        "status": str(raw.get("status", "")).lower(),
        "warning": " ".join(str(words or "").split())[:160],
        "severity": severity if isinstance(severity, int) else None,
    }


SOURCE = Source(name="deep.dcgm", about="`dcgmi diag -r LEVEL -j`", ask=ask, deadline_s=1500.0, set="deep")
