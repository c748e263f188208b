"""Which parts of a fleet's profile hold for a node: masks of host names, and what the parts make together. Pure.

A mask is a list of names as Slurm writes them, with wildcards: `gpu[001-128],login*,!gpu007`. Brackets hold numbers and
ranges, `*` and `?` stand for any characters and for one, and a name after `!` is left out again. A number with leading
zeros has its width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainmaster.health.record import Any

KEY, MASK = "for", "hosts"
"""The list of parts in a profile, and the mask in each."""


def matches(mask: str, host: str) -> bool:
    """Whether a mask holds for a host name. Raises ValueError for what is no mask.

    >>> matches("gpu[001-128],login*,!gpu007", "gpu012"), matches("gpu[001-128],!gpu007", "gpu007")
    (True, False)
    """
    found = False
    for part in parts(mask):
        if part.startswith("!"):
            found = found and not _fits(_tokens(part[1:]), host)
        else:
            found = found or _fits(_tokens(part), host)
    return found


def parts(mask: str) -> list[str]:
    """The names of a mask, parted at its commas outside of brackets. Raises ValueError for what is no mask."""
    found, depth, begin = [], 0, 0
    for place, character in enumerate(mask):
        depth += (character == "[") - (character == "]")
        if depth not in (0, 1):
            raise ValueError(f"{mask!r} has brackets that do not belong together")
        if character == "," and depth == 0:
            found.append(mask[begin:place].strip())
            begin = place + 1
    found.append(mask[begin:].strip())
    if depth or not all(part.strip("!") for part in found):
        raise ValueError(f"{mask!r} is no list of host names, such as 'gpu[001-128],login*'")
    for part in found:
        _tokens(part.lstrip("!"))
    return found


def _tokens(part: str) -> list[Any]:
    """Characters as they are, "*" and "?", and for a bracket its ranges: [(first, last, width)]."""
    found: list[Any] = []
    rest = part
    while rest:
        if rest[0] != "[":
            found.append(rest[0])
            rest = rest[1:]
            continue
        inside, _, rest = rest[1:].partition("]")
        ranges = []
        for piece in inside.split(","):
            first, dash, last = piece.strip().partition("-")
            last = last if dash else first
            if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
                raise ValueError(f"[{inside}] in {part!r} is no list of numbers, such as [1-8,12]")
            if int(first) > int(last):
                raise ValueError(f"[{inside}] in {part!r} goes down")
            ranges.append((int(first), int(last), len(first) if first.startswith("0") else 0))
        found.append(ranges)
    return found


def _fits(tokens: Sequence[Any], name: str) -> bool:
    """Whether the tokens spell the name."""
    if not tokens:
        return not name
    token, rest = tokens[0], tokens[1:]
    if token == "*":
        return any(_fits(rest, name[place:]) for place in range(len(name) + 1))
    if isinstance(token, str):
        return bool(name) and token in ("?", name[0]) and _fits(rest, name[1:])
    digits = len(name) - len(name.lstrip("0123456789"))
    return any(_within(token, name[:length]) and _fits(rest, name[length:]) for length in range(1, digits + 1))


def _within(ranges: Sequence[tuple[int, int, int]], digits: str) -> bool:
    number = int(digits)
    return any(first <= number <= last and digits == f"{number:0{width}d}" for first, last, width in ranges)


def merged(raw: Mapping[str, Any], host: str) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """What a fleet's profile says of one host: its values, where each comes from, and what is wrong with it.

    What stands at the top holds for all. Each part of `for` whose mask fits goes over it, in the order of the file, so
    the later one wins. Tables are merged key by key, everything else is replaced.

    >>> merged({"gpus": 8, "for": [{"hosts": "login*", "gpus": 0}]}, "login1")[0]
    {'gpus': 0}
    """
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    faults: list[str] = []
    _lay(found, origins, {key: value for key, value in raw.items() if key != KEY}, "all hosts")
    given = raw.get(KEY, [])
    if not isinstance(given, list):
        return found, origins, [f"{KEY} is {type(given).__name__}; write a [[{KEY}]] for each kind of host"]
    for number, part in enumerate(given):
        name = f"{KEY}[{number}]"
        if not isinstance(part, dict) or not isinstance(part.get(MASK), str):
            faults.append(f"{name} has no {MASK}; write whom it is for: {MASK} = 'gpu[001-128]'")
            continue
        try:
            if matches(part[MASK], host):
                own = {key: value for key, value in part.items() if key != MASK}
                _lay(found, origins, own, f"{name} ({part[MASK]})")
        except ValueError as error:
            faults.append(f"{name}.{MASK}: {error}")
    return found, origins, faults


def _lay(found: dict[str, Any], origins: dict[str, str], over: Mapping[str, Any], origin: str) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(found.get(key, {}), dict):
            found[key] = {**found.get(key, {}), **value}
            origins.update({f"{key}.{inner}": origin for inner in value})
        else:
            found[key] = value
            origins[key] = origin
