"""Faults of what a spec says about the environment. Pure; `spec` asks."""

import re
from collections.abc import Callable, Iterator, Mapping

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATTERN = re.compile(r"!?[A-Za-z0-9_*?\[\]%()-]+")


def environment_faults(*, export: object, secrets: object, is_free: Callable[[str], bool]) -> Iterator[str]:
    """What is wrong with `export` and `secrets`; `is_free` tells which variables are the user's to give.

    A fault never shows a secret's value.
    """
    yield from _export_faults(export)
    yield from _secret_faults(secrets, is_free)


def _export_faults(export: object) -> Iterator[str]:
    if export is None:
        return
    if isinstance(export, str) or not isinstance(export, tuple | list):
        yield f'export must be a list of patterns such as ["DATA_*", "!DEBUG"], it is {export!r}'
        return
    for pattern in export:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            yield f'export: {pattern!r} is not a pattern of names, such as "DATA_*" or "!DEBUG"'


def _secret_faults(secrets: object, is_free: Callable[[str], bool]) -> Iterator[str]:
    if isinstance(secrets, str) or not isinstance(secrets, Mapping | tuple | list):
        yield "secrets must map names to values, or list names of variables that are set here"
        return
    for name in secrets:
        if not isinstance(name, str) or not ENV_NAME.fullmatch(name):
            yield f"secrets: {name!r} is not a name of a variable (letters, digits and _, not first a digit)"
            continue
        if not is_free(name):
            yield f"secrets: {name} is set by trainmaster or Slurm for each rank and cannot be given"
        if isinstance(secrets, Mapping):
            value = secrets[name]
            if not isinstance(value, str):
                yield f"secrets: the value of {name} must be text, it is of type {type(value).__name__}"
            elif "\0" in value:
                yield f"secrets: the value of {name} holds a NUL byte"
