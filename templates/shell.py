"""Values as the shell and sbatch read them. A value is data: whatever it holds, it stays one word and runs nothing."""

import math
import re
import shlex
from typing import NoReturn


class Code(str):
    """Text that is already written as it shall stand in the script."""

    __slots__ = ()


def finalize(value: object) -> str:
    """What Jinja writes for a `{{ value }}`: one word, or one for each entry of a tuple.

    >>> finalize("it is $(date)"), finalize(("a", "b c")), finalize(4)
    ("'it is $(date)'", "a 'b c'", '4')
    """
    match value:
        case Code():
            return value
        case bool() | None:
            raise ValueError(f"the template would write {value!r}, which is no text; it should ask `if`")
        case int() | float():
            return str(value)
        case tuple() | list():
            return " ".join(finalize(entry) for entry in value)
        case _:
            return shlex.quote(str(value))


def array(values: tuple[str, ...]) -> Code:
    """A list of words for the parentheses of a bash array.

    >>> print(array(("1e-3", "a b")))
    (1e-3 'a b')
    """
    return Code(f"({finalize(values)})")


def fail(reason: str) -> NoReturn:
    """For templates: refuse a combination of values."""
    raise ValueError(reason)


def gpu_count(gpus: str | None) -> int:
    """How many GPUs "h100:8" or "8" are; 0 when none were asked for."""
    return int(gpus.rpartition(":")[2]) if gpus else 0


def lead_of(asked_s: int | None, time: str | None) -> int:
    """Seconds before the time limit at which a checkpoint is asked for: as asked, or 90 s, or a quarter of less.

    Raises ValueError when the job would be asked to stop as soon as it starts.

    >>> lead_of(None, "0-00:04:00"), lead_of(300, None)
    (60, 300)
    """
    limit_s = math.inf
    if time is not None and (match := re.fullmatch(r"(\d+)-(\d+):(\d+):(\d+)", time)):
        days, hours, minutes, seconds = map(int, match.groups())
        limit_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if asked_s is None:
        return int(min(90, limit_s // 4))
    if asked_s >= limit_s:
        raise ValueError(f"a checkpoint {asked_s} s before the end of a job of {limit_s:g} s is one at its start")
    return asked_s


def option(name: str, value: str | int | float | bool) -> Code:
    """One option as sbatch reads it from an `#SBATCH` line. Raises ValueError for what no such line can hold.

    >>> option("exclusive", True), option("comment", "it's 5 o'clock")
    ('--exclusive', '--comment="it\\'s 5 o\\'clock"')
    """
    if value is True:
        return Code(f"--{name}")
    if re.search(r"[\0\r\n]", str(value)):
        raise ValueError(f"--{name} must be one line, it is {value!r}")
    return Code(f"--{name}={quote(str(value))}")


_PLAIN = re.compile(r"[\w@%+=:,./\[\]&|*-]+", re.ASCII)


def quote(text: str) -> str:
    r"""Quote for an `#SBATCH` line, which is not shell: sbatch drops a backslash before any character, and quotes.

    >>> print(quote(r'a "b" \c'))
    "a \"b\" \\c"
    """
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
