"""A JobSpec from plain values, such as those of a TOML file; everything that is wrong is said at once."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trainmaster.errors import SpecError, UsageError
from trainmaster.launcher import container as containers
from trainmaster.launcher import exit_rules
from trainmaster.launcher import placement as placements
from trainmaster.launcher.submit.spec import JobSpec

FIELDS: tuple[str, ...] = tuple(entry.name for entry in fields(JobSpec))
"""The names of all fields, in their order."""


def read_values(path: Path) -> dict[str, Any]:
    """The table of a TOML file. Raises UsageError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise UsageError(
            f"could not read the spec {path} (from {Path.cwd()}): {error.strerror or error}",
            hint="give a TOML file such as: nodes = 4",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"could not read the spec {path}: it is not TOML: {error}") from None


def decode(values: Mapping[str, Any]) -> JobSpec:
    """A valid JobSpec from plain values. Raises SpecError that names every fault, unknown keys included."""
    known, more = as_fields(values)
    unknown = [key for key in known if key not in FIELDS]
    for key in unknown:
        del known[key]
    faults = [_unknown_key(key) for key in unknown]
    if faults:
        faults[-1] += f" (valid keys: {', '.join(FIELDS)})"
    faults += more
    spec = JobSpec(**known)
    faults += spec.faults()
    if faults:
        raise SpecError(tuple(faults))
    return spec


def as_fields(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Plain values as JobSpec has them: lists become tuples, tables a Container or a Placement. And what is wrong."""
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    faults: list[str] = []
    if "exit_rules" in found:
        found["exit_rules"], wrong = _rules_of(found["exit_rules"])
        faults += wrong
    if found.get("container") is not None:
        found["container"], wrong = containers.from_value(found["container"])
        faults += wrong
    if found.get("placement") is not None:
        found["placement"], wrong = placements.from_value(found["placement"])
        faults += wrong
    return found, faults


def _rules_of(value: Any) -> tuple[Any, tuple[str, ...]]:
    """Rules from tables or text; what is no list of them stays, for `JobSpec.faults` to name."""
    if not isinstance(value, tuple):
        return value, ()
    read = [exit_rules.from_value(one, number) for number, one in enumerate(value, 1)]
    return tuple(rule for rule, _ in read if rule is not None), tuple(fault for _, wrong in read for fault in wrong)


def _unknown_key(key: str) -> str:
    near = get_close_matches(key.replace("-", "_"), FIELDS, n=1)
    return f"there is no key {key!r}" + (f"; {near[0]!r} may be meant" if near else "")
