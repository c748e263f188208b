"""The variables of a template: their types, and the values that they take from text or from Python. Pure.

Every value comes out as plain data (`str`, `int`, `bool`, a tuple of words, or None where nothing was given); how it is
written into a script is the concern of `templates.shell`.
"""

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainmaster.launcher.submit.timelimit import seconds_of, slurm_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable, as a template's header declares it."""

    name: str
    type: str = "line"
    help: str = ""
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    least: int | None = None
    """The smallest number."""

    @classmethod
    def declared(cls, name: str, entry: object) -> "Variable":
        """A variable from its table in a header. Raises ValueError for a declaration that cannot be meant."""
        if not isinstance(entry, Mapping):
            raise ValueError(f'write a table, such as {{type = "line", help = "..."}}; it is {entry!r}')
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        if unknown := sorted(set(fields) - {"type", "help", "default", "required", "choices", "least"}):
            raise ValueError(f"there is no {', '.join(unknown)}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError("a name has small letters, digits and _")
        made = cls(name=name, **fields)
        if made.type not in TYPES:
            raise ValueError(f"there is no type {made.type!r} (there are: {', '.join(TYPES)})")
        if made.type == "choice" and not made.choices:
            raise ValueError("a choice needs `choices`")
        if made.default is not None:
            try:
                made.value(made.default)
            except ValueError as error:
                raise ValueError(f"its default: {error}") from None
        return made

    def value(self, given: Any) -> Any:
        """What the template gets for what was given; None when nothing was and there is no default.

        Raises ValueError that says what it should be.
        """
        if given is None:
            given = self.default
        if given is None:
            if self.required:
                raise ValueError(f"is needed: {self.help}" if self.help else "is needed")
            return None
        return TYPES[self.type](given, self)


# --- types ------------------------------------------------------------------------------------------------------------


def _line(given: Any, variable: Variable) -> str:
    """Text of one line."""
    text = str(given)
    if not isinstance(given, str | int | float | Path) or isinstance(given, bool):
        raise ValueError(f"must be text, it is {given!r}")
    if not text.strip():
        raise ValueError("must not be empty")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"must be one line without control characters, it is {text!r}")
    return text


def _path(given: Any, variable: Variable) -> str:
    text = _line(given, variable)
    if re.search(r"[$`]", text):
        raise ValueError(f"stands as it is in the script, where nothing expands it; write out {text!r}")
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"names the home folder of a user who is not known here, it is {text!r}") from None


def _count(given: Any, variable: Variable) -> int:
    least = 1 if variable.least is None else variable.least
    if isinstance(given, bool) or not re.fullmatch(r"\d{1,9}", str(given), re.ASCII):
        raise ValueError(f"must be a whole number, it is {given!r}")
    if int(given) < least:
        raise ValueError(f"must be at least {least}, it is {given}")
    return int(given)


def _flag(given: Any, variable: Variable) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if (found := known.get(str(given).lower())) is None:
        raise ValueError(f"must be true or false, it is {given!r}")
    return found


def _seconds(given: Any, variable: Variable) -> int:
    try:
        # A bare number is one of seconds here, not of minutes as for Slurm.
        plain = isinstance(given, int | float) or str(given).isdecimal()
        seconds = float(given) if plain and not isinstance(given, bool) else seconds_of(given)
    except (ValueError, AttributeError):
        raise ValueError(f'must be a time such as "90s" or "30m", or a number of seconds, it is {given!r}') from None
    least = 1 if variable.least is None else variable.least
    if not math.isfinite(seconds) or seconds < least:
        raise ValueError(f"must be at least {least} s, it is {given!r}")
    return math.ceil(seconds)


def _time(given: Any, variable: Variable) -> str:
    try:
        return slurm_time(seconds_of(int(given) if isinstance(given, str) and given.isdecimal() else given))
    except (ValueError, AttributeError):
        raise ValueError(f'must be a time such as "2d", "90m" or "1:30:00", it is {given!r}') from None


def _memory(given: Any, variable: Variable) -> str:
    if not re.fullmatch(r"\d+(?:[KMGT]B?)?", str(given), re.IGNORECASE | re.ASCII):
        raise ValueError(f'must be a size such as "64G", it is {given!r}')
    # sbatch(1) knows K, M, G and T without a B.
    return re.sub(r"[Bb]$", "", str(given))


def _gpus(given: Any, variable: Variable) -> str:
    if not re.fullmatch(r"(?:[A-Za-z][\w.-]*:)?[1-9]\d{0,3}", str(given), re.ASCII):
        raise ValueError(f'must be a number or "type:number" such as "h100:8", it is {given!r}')
    return str(given)


def _choice(given: Any, variable: Variable) -> str:
    if given not in variable.choices:
        raise ValueError(f"must be one of {', '.join(variable.choices)}, it is {given!r}")
    return str(given)


def _words(given: Any, variable: Variable) -> tuple[str, ...]:
    """A list: entries between commas, or a sequence."""
    entries = given.split(",") if isinstance(given, str) else given
    if not isinstance(entries, Sequence) or not entries:
        raise ValueError(f"must be a list such as a,b, it is {given!r}")
    return tuple(_line(entry.strip() if isinstance(entry, str) else entry, variable) for entry in entries)


def _command(given: Any, variable: Variable) -> tuple[str, ...]:
    """A program and its arguments: one string, split as a shell would, or a sequence of words."""
    if isinstance(given, str):
        try:
            words = shlex.split(given)
        except ValueError as error:
            raise ValueError(f"could not be split into words ({error}), it is {given!r}") from None
    elif isinstance(given, Sequence):
        words = [str(word) for word in given]
    else:
        raise ValueError(f'must be a command such as "python train.py", it is {given!r}')
    if not words or not words[0].strip():
        raise ValueError("must not be empty")
    if any(re.search(r"[\0\r\n]", word) for word in words):
        raise ValueError(f"no word may hold a line break or a NUL byte, it is {given!r}")
    return tuple(words)


def _grid(given: Any, variable: Variable) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Parameters and their values: "lr=1e-3,1e-4 seed=0,1,2", or a mapping to lists."""
    if isinstance(given, str):
        pairs = [entry.partition("=") for entry in given.split()]
        if not pairs or not all(mark for _, mark, _ in pairs):
            raise ValueError(f'must be such as "lr=1e-3,1e-4 seed=0,1,2", it is {given!r}')
        table: list[tuple[str, Any]] = [(name, values) for name, _, values in pairs]
    elif isinstance(given, Mapping):
        table = list(given.items())
    else:
        raise ValueError(f'must be such as "lr=1e-3,1e-4 seed=0,1,2", it is {given!r}')
    for name, _ in table:
        if not re.fullmatch(r"[A-Za-z][\w.-]*", str(name), re.ASCII):
            raise ValueError(f"{name!r} is not the name of a parameter")
    if len({name for name, _ in table}) < len(table):
        raise ValueError("names a parameter twice")
    return tuple((str(name), _words(values, variable)) for name, values in table)


TYPES: Mapping[str, Callable[[Any, Variable], Any]] = {
    "line": _line,
    "path": _path,
    "count": _count,
    "flag": _flag,
    "seconds": _seconds,
    "time": _time,
    "memory": _memory,
    "gpus": _gpus,
    "choice": _choice,
    "words": _words,
    "command": _command,
    "grid": _grid,
}
"""What a header may name as a type, and how a value becomes one."""
