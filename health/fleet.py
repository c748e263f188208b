"""`trainmaster health compile`: the site's TOML file for all nodes, checked, and written as the JSON that nodes read.

The nodes' Python may be too old for TOML, and a pass has no time for what can be checked once. All faults are told at
once, each with its file, its key and what to write.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainmaster.health import fabric_side, hosts, profile, registry
from trainmaster.health.finding import Action

KINDS = ("warn", "unknown")


def faults(raw: Mapping[str, Any], file: str) -> list[str]:
    """Everything that is wrong with a fleet's profile. Pure."""
    found = [f"{file}: {text}" for text in _of_part({k: v for k, v in raw.items() if k != hosts.KEY}, "")]
    given = raw.get(hosts.KEY, [])
    if not isinstance(given, list):
        return [*found, f"{file}: {hosts.KEY} is a single table; write [[{hosts.KEY}]], with two brackets"]
    for number, part in enumerate(given):
        where = f"{hosts.KEY}[{number}]."
        if not isinstance(part, dict) or not isinstance(part.get(hosts.MASK), str):
            found.append(f"{file}: {where}{hosts.MASK} is missing; write whom it is for: {hosts.MASK} = 'gpu[001-128]'")
            continue
        try:
            hosts.parts(part[hosts.MASK])
        except ValueError as error:
            found.append(f"{file}: {where}{hosts.MASK}: {error}")
        found += [f"{file}: {text}" for text in _of_part({k: v for k, v in part.items() if k != hosts.MASK}, where)]
    return found


def _of_part(part: Mapping[str, Any], where: str) -> Iterator[str]:
    known = (
        {check.id for check in registry.every()}
        | set(registry.rests("deep"))
        | {"node.health", "deep.gpu.seconds", *fabric_side.CHECKS}
    )
    for key, value in part.items():
        kind = profile.KINDS.get(key)
        table: Mapping[str, Any] = value if isinstance(value, dict) else {}
        if kind is None:
            yield f"{where}{key} is not known{_meant(key, profile.KINDS)}"
        elif not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            yield f"{where}{key} is {value!r}; write {_EXAMPLES.get(kind, kind.__name__)}"
        elif key in ("thresholds", "deadlines_s"):
            yield from _numbers(table, f"{where}{key}", known)
        elif key == "modes":
            yield from _words(table, f"{where}{key}", profile.MODES, known | {"*"})
        elif key == "actions":
            kinds = {f"{name}:{kind}" for name in _above(known) for kind in KINDS}
            yield from _words(table, f"{where}{key}", [action.value for action in Action], known | kinds)
        elif key == "off" and isinstance(value, list):
            names = _above(known)
            yield from (f"{where}off: no check is called {name!r}{_meant(str(name), names)}"
                        for name in value if name not in names)  # fmt: skip


def _numbers(table: Mapping[str, Any], where: str, known: set[str]) -> Iterator[str]:
    for name, value in table.items():
        # A threshold may be one path's (fs.usage:/tmp), or one counter's (ib.counters.symbol_error).
        check = name.partition(":")[0]
        if not any(check == one or check.startswith(one + ".") for one in known):
            yield f"{where}.{name}: no check is called so{_meant(check, known)}"
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield f"{where}.{name} is {value!r}; write a number"


def _words(table: Mapping[str, Any], where: str, allowed: Sequence[str], known: set[str]) -> Iterator[str]:
    names = _above(known)
    for name, value in table.items():
        if name not in names:
            yield f"{where}.{name}: no check is called so{_meant(name, names)}"
        if value not in allowed:
            yield f"{where}.{name} is {value!r}; write one of {', '.join(allowed)}"


def _above(known: set[str]) -> set[str]:
    """The names, and the groups that they belong to: gpu and gpu.ecc for gpu.ecc.uncorr."""
    return known | {".".join(name.split(".")[:length]) for name in known for length in range(1, name.count(".") + 1)}


def _meant(name: str, names: Mapping[str, Any] | set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(names)[:40])}"


_EXAMPLES = {
    int: "a whole number", bool: "true or false", str: "a text in quotes", list: "a list, such as ['gpu.temp']",
    dict: "a table of its own",
}  # fmt: skip


def shown(raw: Mapping[str, Any], host: str) -> list[str]:
    """What holds for one host, a line each with where it comes from. Pure."""
    values, origins, _ = hosts.merged(raw, host)
    lines = []
    for key, value in sorted(values.items()):
        table = isinstance(value, dict)
        entries = {f"{key}.{inner}": entry for inner, entry in value.items()} if table else {key: value}
        for name, entry in entries.items():
            lines.append(f"{name} = {entry!r}   # {origins.get(name, origins.get(key, ''))}")
    return lines


def as_toml(values: Mapping[str, Any], mask: str = "") -> str:
    """A profile as TOML, for a part of the fleet's file when a mask is given. Pure."""
    lines = [f"[[{hosts.KEY}]]", f"{hosts.MASK} = {_value(mask)}"] if mask else []
    lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += ["", f"[{hosts.KEY + '.' if mask else ''}{_key(key)}]"]
            lines += [f"{_key(inner)} = {_value(entry)}" for inner, entry in value.items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isalnum() and plain.isascii() else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(str(key))} = {_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    if isinstance(value, str):
        escaped = "".join(
            f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else "\\" + c if c in '"\\' else c for c in value
        )
        return f'"{escaped}"'
    return str(value)
