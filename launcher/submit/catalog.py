"""The sbatch templates that there are, and what each declares about itself. A file in `templates/` is all it takes.

A template begins with a Jinja comment that holds TOML:

    {#
    summary = "PyTorch DistributedDataParallel on several nodes"
    kind = "supervised"

    [variables]
    nodes = {type = "count", default = 2, help = "nodes that run ranks"}
    command = {type = "command", required = true, help = "what every rank runs"}
    #}

The parts that it includes (`{% include "_options.j2" %}`) bring the variables that they declare in the same way.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainmaster import templates
from trainmaster.errors import TemplateError, UsageError
from trainmaster.launcher.submit.template_values import Variable

_ENDING = ".sbatch"
_HEADER = re.compile(r"\A\{#-?\n(?P<toml>.*?)\n-?#\}", re.DOTALL)
_KINDS = {
    "supervised": "kept running by trainmaster, which the nodes must have in their environment",
    "plain": "needs nothing but Slurm on the nodes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One sbatch template, as its header describes it."""

    name: str
    summary: str
    kind: str
    """supervised or plain."""
    variables: Mapping[str, Variable]
    path: Path

    @property
    def kind_text(self) -> str:
        """What the kind means."""
        return _KINDS[self.kind]

    @property
    def command(self) -> str | None:
        """The variable that takes the words behind `--`, if there is exactly one for a command."""
        found = [name for name, variable in self.variables.items() if variable.type == "command"]
        return found[0] if len(found) == 1 else None


def listed() -> tuple[Template, ...]:
    """All templates, by name. Raises TemplateError for one whose header cannot be read."""
    paths = (templates.path_of(name) for name in templates.names() if name.endswith(_ENDING))
    # Without a header it is one that the launcher fills in itself.
    found = (_read(path) for path in paths if not path.name.startswith("_") and _header(path))
    return tuple(sorted(found, key=lambda template: template.name))


def get(name: str) -> Template:
    """The template of that name, or of a file: `ddp`, `./mine.sbatch.j2`.

    Raises UsageError when there is none, TemplateError when its header cannot be read.
    """
    if "/" in name or name.endswith(".j2"):
        path = Path(name).expanduser().absolute()
        if not path.is_file():
            raise UsageError(f"could not find the template {name}: {path} is not there")
        return _read(path)
    known = {template.name: template for template in listed()}
    if name not in known:
        there = ", ".join(known)
        raise UsageError(f"there is no template {name!r}", hint=f"there are {there}; or give the path of a .j2 file")
    return known[name]


def script(template: Template, given: Mapping[str, Any]) -> str:
    """The text that sbatch gets. Pure but for reading the template.

    Args:
        template: What to fill in.
        given: Variables as text, or as values of their types.

    Raises TemplateError that names all faults: unknown variables, missing ones, values of the wrong type.
    """
    values, faults = {}, [_unknown(name, template) for name in given if name not in template.variables]
    for name, variable in template.variables.items():
        try:
            values[name] = variable.value(given.get(name))
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise TemplateError(f"could not render the template {template.name!r}", tuple(faults))
    try:
        return templates.render_script(template.path, values)
    except ValueError as error:  # the template's own checks, by `fail()`
        raise TemplateError(f"could not render the template {template.name!r}", (str(error),)) from None


def _unknown(name: str, template: Template) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, template.variables, n=1)
    meant = f"; {near[0]!r} may be meant" if near else ""
    return f"there is no variable {name!r}{meant} (there are: {', '.join(template.variables)})"


def _read(path: Path) -> Template:
    header = _header(path)
    name = path.name.removesuffix(".j2").removesuffix(_ENDING)
    faults = [f"{key!r} is missing" for key in ("summary", "kind") if not isinstance(header.get(key), str)]
    if not faults and header["kind"] not in _KINDS:
        faults.append(f"kind must be one of {', '.join(_KINDS)}, it is {header['kind']!r}")
    variables = {}
    declared: dict[str, Any] = {}
    # What a template says itself goes before what its parts say; the options that all have in common come last.
    for part in (path, *reversed(_parts(path))):
        declared |= {key: entry for key, entry in _header(part).get("variables", {}).items() if key not in declared}
    for key, entry in declared.items():
        try:
            variables[key] = Variable.declared(key, entry)
        except ValueError as error:
            faults.append(f"variable {key}: {error}")
    if faults:
        raise TemplateError(f"could not read the header of the template {path}", tuple(faults))
    return Template(name=name, summary=header["summary"], kind=header["kind"], variables=variables, path=path)


def _parts(path: Path) -> tuple[Path, ...]:
    try:
        return templates.parts_of(path)
    except ValueError as error:
        raise TemplateError(f"could not read the template {path}", (str(error),)) from None


def _header(path: Path) -> dict[str, Any]:
    match = _HEADER.match(path.read_text(encoding="utf-8"))
    if match is None:
        return {}
    try:
        return tomllib.loads(match["toml"])
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"could not read the header of the template {path}", (str(error),)) from None
