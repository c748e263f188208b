"""Error counters of ports, as `ibqueryerrors` and `perfquery` print them, and what they grew by. Pure."""

import re
from collections.abc import Mapping

from trainmaster.errors import FabricError
from trainmaster.fabric.model import Fabric

Counters = Mapping[tuple[str, int], Mapping[str, int]]
"""(GUID, port) -> counter -> value; counters of value 0 may be left out."""

# A counter has 64 bits at most, 20 digits; what is longer is damage and no number.
_REPORT = re.compile(r"^\s*GUID (0x[0-9a-fA-F]+) port (\d{1,3}):(.*)$", re.MULTILINE)
_ITEM = re.compile(r"\[(\w+) == (\d{1,20})\b")
_HEAD = re.compile(r"^# Port (?:extended )?counters: Lid (\d{1,5}) port (\d{1,3})\b", re.MULTILINE)
_FIELD = re.compile(r"^(\w+):\.*(\d{1,20})$", re.MULTILINE)
_SUMMARY = re.compile(r"^## Summary: \d+ nodes checked|^Errors for 0x", re.MULTILINE)


def read_counters(text: str, fabric: Fabric) -> dict[tuple[str, int], dict[str, int]]:
    """Counters of one look at the fabric.

    Args:
        text: from ibqueryerrors, or one or more answers of perfquery.
        fabric: to find the owner of a local address; perfquery tells no GUID.

    Raises:
        FabricError: the text is neither.
    """
    found: dict[tuple[str, int], dict[str, int]] = {}
    for guid, port, items in _REPORT.findall(text):
        values = found.setdefault((_full(guid), int(port)), {})
        values |= {name: int(value) for name, value in _ITEM.findall(items)}
    heads = list(_HEAD.finditer(text))
    owners = {switch.lid: switch.guid for switch in fabric.switches if switch.lid}
    owners |= {hca.lid: hca.guid for hca in fabric.hcas if hca.lid}
    for place, head in enumerate(heads):
        end = heads[place + 1].start() if place + 1 < len(heads) else len(text)
        guid = owners.get(int(head[1]))
        if guid is not None:
            fields = _FIELD.findall(text, head.end(), end)
            found.setdefault((guid, int(head[2])), {}).update({name: int(value) for name, value in fields})
    if not found and not heads and not _SUMMARY.search(text):
        start = text.strip()[:60].splitlines()
        raise FabricError(
            f"these are no counters: {start[0] if start else 'nothing'!r}",
            hint="save what ibqueryerrors prints, or perfquery -l for each switch",
        )
    return found


def growth(old: Counters, new: Counters) -> dict[tuple[str, int], dict[str, int]]:
    """What counters grew by; one that fell was cleared in between and counts from 0.

    >>> growth({("0x1", 1): {"a": 5, "b": 9}}, {("0x1", 1): {"a": 7, "b": 2}})
    {('0x1', 1): {'a': 2, 'b': 2}}
    """
    grown = {}
    for port, values in new.items():
        before = old.get(port, {})
        grown[port] = {name: value - before.get(name, 0) if value >= before.get(name, 0) else value
                       for name, value in values.items()}  # fmt: skip
    return grown


def _full(guid: str) -> str:
    return "0x" + guid[2:].lower().zfill(16)
