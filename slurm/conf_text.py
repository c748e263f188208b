"""Reads slurm.conf, gres.conf and cgroup.conf as Slurm does: includes, continued lines, quotes. Standard library only.

Source: slurm.conf(5), "DESCRIPTION"; keywords count in any case, and of a setting that is given twice the last.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Lines that describe one of many things instead of the cluster. Each gives a record.
_KINDS = ("nodename", "partitionname", "nodeset", "downnodes", "frontendname", "name", "switchname", "blockname")
_PAIR = re.compile(r'([A-Za-z][\w\[\]]*)\s*\+?=\s*("[^"]*"|\S+)')
_DEPTH_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Conf:
    """What a configuration file says. Keywords are in lower case, values as they stand."""

    settings: Mapping[str, str] = field(default_factory=dict)
    records: tuple[Mapping[str, str], ...] = ()
    """One for each node, partition or device line; DEFAULT lines are worked in."""
    missing: tuple[str, ...] = ()
    """Included files that are not there."""

    def of_kind(self, kind: str) -> tuple[Mapping[str, str], ...]:
        """The records that begin with this keyword, or have it."""
        return tuple(record for record in self.records if kind in record)


def read(file: Path) -> Conf:
    """A file and what it includes. Raises OSError when the file itself cannot be read."""
    missing: list[str] = []
    return _parse(_lines(file, missing), missing)


def parse(text: str) -> Conf:
    """The same of a text; what it includes counts as missing."""
    missing: list[str] = []
    return _parse(_of_text(text, None, missing, 0), missing)


def _lines(file: Path, missing: list[str], depth: int = 0) -> Iterator[str]:
    yield from _of_text(file.read_text(encoding="utf-8", errors="replace"), file, missing, depth)


def _of_text(text: str, file: Path | None, missing: list[str], depth: int) -> Iterator[str]:
    for line in re.sub(r"\\\n", " ", text).splitlines():
        bare = re.sub(r"(?<!\\)#.*", "", line).strip()
        found = re.match(r"include\s+(\S+)", bare, re.IGNORECASE)
        if found is None:
            if bare:
                yield bare
            continue
        if file is None or depth >= _DEPTH_MAX:
            missing.append(found[1])
            continue
        try:
            yield from _lines(file.parent / found[1], missing, depth + 1)
        except OSError:
            missing.append(found[1])


def _parse(lines: Iterator[str], missing: list[str]) -> Conf:
    settings: dict[str, str] = {}
    records: list[Mapping[str, str]] = []
    defaults: dict[str, dict[str, str]] = {}
    for line in lines:
        pairs = {key.lower(): value.strip('"') for key, value in _PAIR.findall(line)}
        first = next(iter(pairs), "")
        if first not in _KINDS:
            settings |= pairs
        elif pairs[first].upper() == "DEFAULT":
            defaults.setdefault(first, {}).update({key: value for key, value in pairs.items() if key != first})
        else:
            records.append({first: pairs[first], **defaults.get(first, {}), **pairs})
    return Conf(settings=settings, records=tuple(records), missing=tuple(missing))
