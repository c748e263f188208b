"""How nvidia-smi says things, from driver 450 to 580: "Yes" and "1", "[N/A]" and "N/A", and words for "broken"."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainmaster.health.finding import Finding

Row = Mapping[str, str]

_NOT_APPLICABLE = ("n/a", "not supported", "requested functionality has been deprecated", "")
_BROKEN = ("err!", "unknown error", "gpu is lost", "gpu requires reset", "insufficient permissions", "no data")
_YES, _NO = ("yes", "1", "active", "enabled"), ("no", "0", "not active", "disabled")
# nvmlReturn_t; nvidia-smi(1) ends with the same.
RETURNS = {
    2: "an argument is invalid",
    3: "the operation is not available on this device",
    4: "no permission",
    6: "no device was found",
    8: "a GPU's external power cables are not attached",
    9: "the driver is not loaded",
    10: "the kernel met an interrupt problem with a GPU",
    12: "the NVML library was not found",
    13: "NVML lacks a function",
    14: "the infoROM is corrupt",
    15: "a GPU has fallen off the bus or is otherwise inaccessible",
    17: "the operating system blocks the GPU",
    18: "the driver's library and its kernel module are of different versions",
}


def shown(row: Row, field: str) -> str | None:
    """What is said of a field; None when the driver does not know it or it does not apply to this GPU."""
    text = row.get(field, "").strip()
    return None if text.strip("[]").lower() in _NOT_APPLICABLE else text


def broken(text: str) -> bool:
    """Whether the tool says here that it could not read the GPU.

    >>> broken("ERR!"), broken("[Unknown Error]"), broken("0")
    (True, True, False)
    """
    return text.strip("[]").lower() in _BROKEN


def truth(row: Row, field: str) -> bool | None:
    """Yes or no, in words or as a number; None for anything else. Driver 580 says Yes where older ones said 1."""
    text = (shown(row, field) or "").lower()
    return True if text in _YES else False if text in _NO else None


def count(row: Row, field: str) -> int | None:
    """A whole number, in decimal or as 0x…; None for anything else."""
    try:
        return int(shown(row, field) or "", 0)
    except ValueError:
        return None


def address(row: Row) -> str:
    """The PCI address as the kernel writes it.

    >>> address({"pci.bus_id": "00000000:0F:00.0"})
    '0000:0f:00.0'
    """
    text = row.get("pci.bus_id", "").lower()
    domain, separator, rest = text.partition(":")
    return f"{domain[-4:]}:{rest}" if separator else text or f"GPU {row.get('index', '?')}"


def each(rows: list[Row], judge: Callable[[Row], Finding | None]) -> list[Finding]:
    """The findings of all GPUs, each under the GPU's address."""
    found = [(address(row), judge(row)) for row in rows]
    return [finding._replace(subject=where) for where, finding in found if finding is not None]
