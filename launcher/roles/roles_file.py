"""Roles from plain values, such as those of a TOML file with [roles.…] tables; all that is wrong is said at once.

name = "recommender"
time = "2h"                    # any field of JobSpec: it holds for every role that does not say otherwise

[roles.embedding]
program = ["python", "server.py"]
partition = "highmem"
service = true

[roles.trainer]
program = "python train.py --epochs 3"
after = ["embedding"]
gpus_per_node = 4
"""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from trainmaster.errors import SpecError
from trainmaster.launcher.roles.role import Role
from trainmaster.launcher.submit.spec_file import FIELDS, decode

_OWN = tuple(entry.name for entry in fields(Role) if entry.name not in ("target", "args", "kwargs", "spec"))
KEYS = ("program", *_OWN)
"""What a role's table may have besides the fields of JobSpec."""
# Run once, or said once, for the whole job; the first role's count.
_ONCE = ("setup", "name")


def decode_roles(values: Mapping[str, Any]) -> tuple[str | None, dict[str, Role]]:
    """The job's name and its roles. Raises SpecError that names every fault of every table, unknown keys included."""
    common = {key: value for key, value in values.items() if key != "roles"}
    tables = values.get("roles")
    if not isinstance(tables, Mapping) or not tables:
        raise SpecError(("roles must be tables: [roles.trainer] with program = … and the role's needs",))
    # Once, and not again for each role that has the common values too.
    faults = [_no_key(key, ("roles", *FIELDS)) for key in common if key not in FIELDS]
    common = {key: value for key, value in common.items() if key in FIELDS}
    roles: dict[str, Role] = {}
    for number, (name, table) in enumerate(tables.items()):
        if not isinstance(table, Mapping):
            faults.append(f"roles.{name} must be a table, it is {table!r}")
            continue
        shared = {key: value for key, value in common.items() if number == 0 or key not in _ONCE}
        try:
            roles[name] = _role(table, {key: value for key, value in shared.items() if key != "name"})
        except SpecError as error:
            faults += [f"roles.{name}: {fault}" for fault in error.faults]
    if faults:
        raise SpecError(tuple(faults))
    job_name = common.get("name")
    return (str(job_name) if job_name is not None else None), roles


def _no_key(key: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(key.replace("-", "_"), known, n=1)
    return f"there is no key {key!r}" + (f"; {near[0]!r} may be meant" if near else "")


def _role(table: Mapping[str, Any], common: Mapping[str, Any]) -> Role:
    own = {key: table[key] for key in KEYS if key in table}
    faults = []
    program = own.pop("program", None)
    if isinstance(program, str):
        words: Any = program
    elif isinstance(program, list) and program and all(isinstance(word, str | int | float) for word in program):
        words = [str(word) for word in program]
    else:
        faults.append(f"program must be text or a list of words, it is {program!r}")
        words = "true"
    for key in ("after", "rolls_back"):
        if key in own:
            if not isinstance(own[key], list):
                faults.append(f"{key} must be a list of roles, it is {own[key]!r}")
            own[key] = tuple(own[key])
    if not isinstance(own.get("service", False), bool):
        faults.append(f"service must be true or false, it is {own['service']!r}")
    needs = {key: value for key, value in table.items() if key not in KEYS}
    for key in [key for key in needs if key not in FIELDS]:
        faults.append(_no_key(key, (*KEYS, *FIELDS)))
        del needs[key]
    try:
        spec = decode({**common, **needs})
    except SpecError as error:
        raise SpecError((*faults, *error.faults)) from None
    if faults:
        raise SpecError(tuple(faults))
    return Role(target=words, spec=spec, **own)
