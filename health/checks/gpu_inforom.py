"""The GPU's own record of itself is whole: without it ECC and its counts cannot be trusted."""

from __future__ import annotations

from trainmaster.health.check import Check, Context
from trainmaster.health.finding import Finding, warn
from trainmaster.health.gpu_values import Row, each, shown
from trainmaster.health.record import Any
from trainmaster.health.sources import gpu_inforom


def judge(context: Context, value: Any) -> list[Finding]:
    """Anything but "valid"."""

    def one(row: Row) -> Finding | None:
        said = shown(row, "inforom.checksum_validation")
        return None if said in (None, "valid") else warn(f"infoROM is {said}", value=said)

    return each(value["gpus"], one)


CHECK = Check(id="gpu.inforom", about="a GPU's infoROM is corrupt", sources=(gpu_inforom.SOURCE,), judge=judge)
