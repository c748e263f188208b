"""`trainmaster template`: sbatch scripts for people who write no Python."""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster.launcher.submit.catalog import Template


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, handler: Any) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(run=handler)
        return one

    listing = verb("list", "the templates that there are", run_list)
    show = verb("show", "what a template is for, and its variables", run_show)
    show.add_argument("--source", action="store_true", help="print the template itself")
    render = verb("render", "print an sbatch script: trainmaster template render NAME ... > job.sbatch", run_render)
    render.usage = "trainmaster template render NAME [key=value | --key value]... [-- PROGRAM ARGS...]"
    show.add_argument("name", metavar="NAME", help="a template's name, or the path of a .j2 file")
    # In one piece, since argparse takes a `--` that follows a positional argument for its own.
    render.add_argument("words", nargs=argparse.REMAINDER, metavar="NAME key=value", help="as for show; then variables")
    for one in (listing, show):
        one.add_argument("--json", action="store_true", help="print JSON")


def run_list(args: argparse.Namespace) -> int:
    """Print one line a template."""
    from trainmaster.launcher.submit.catalog import listed

    found = listed()
    if args.json:
        print(json.dumps([{"name": one.name, "kind": one.kind, "summary": one.summary} for one in found]))
        return 0
    width = max(len(one.name) for one in found)
    for one in found:
        print(f"{one.name:<{width}}  {one.kind:<10}  {one.summary}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print what a template says of itself."""
    from dataclasses import asdict

    from trainmaster.launcher.submit.catalog import get

    found = get(args.name)
    if args.source:
        print(found.path.read_text(encoding="utf-8"), end="")
        return 0
    if args.json:
        facts = {"name": found.name, "kind": found.kind, "summary": found.summary, "path": str(found.path)}
        print(json.dumps({**facts, "variables": [asdict(one) for one in found.variables.values()]}))
        return 0
    print(_described(found, args.name), end="")
    return 0


def _described(found: "Template", given_as: str) -> str:
    rows = []
    for name, variable in found.variables.items():
        kind = "|".join(variable.choices) if variable.choices else variable.type
        default = "required" if variable.required else "" if variable.default is None else str(variable.default)
        rows.append((f"--{name.replace('_', '-')}", kind, default, variable.help))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{found.name}: {found.summary}", f"{found.kind}: {found.kind_text}", ""]
    for *cells, text in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"  {'  '.join(padded)}  {text}".rstrip())
    ending = " -- PROGRAM ARGS..." if found.command else ""
    lines += [
        "",
        f"trainmaster template render {shlex.quote(given_as)} [key=value | --key value]...{ending} > job.sbatch",
        "",
    ]
    return "\n".join(lines)


def run_render(args: argparse.Namespace) -> int:
    """Print a script."""
    from trainmaster.errors import UsageError
    from trainmaster.launcher.submit.catalog import get, script

    name, *words = args.words or [""]
    if not name or name.startswith("-"):
        raise UsageError("could not render: the name of a template comes first", hint="`trainmaster template list`")
    found = get(name)
    if words[:1] in (["-h"], ["--help"]):
        print(_described(found, name), end="")
        return 0
    values = given(words, found)
    print(script(found, configured(found, values) | values), end="")
    return 0


# Where a job goes and who pays for it: what a configuration says of it holds for every script.
_CONFIGURED = ("partition", "account", "qos", "reservation", "constraint", "exclude")


def configured(template: "Template", values: Mapping[str, Any]) -> dict[str, Any]:
    """What the person's and the cluster's configuration say about variables of the template (`trainmaster config`).

    Raises ConfigError with every fault of the files, UsageError for a profile that is not there.
    """
    from trainmaster.launcher.submit.defaults import with_defaults
    from trainmaster.launcher.submit.spec import JobSpec

    known = [name for name in _CONFIGURED if name in template.variables]
    said = {name: values[name] for name in known if values.get(name)}
    spec = with_defaults(JobSpec(**said))
    return {name: value for name in known if (value := getattr(spec, name)) is not None}


def given(words: Sequence[str], template: "Template") -> dict[str, str | list[str]]:
    """Variables from words of the command line: `key=value`, `--key value`, `--key=value`, and the program behind `--`.

    Raises UsageError for a word that is none of these, and for a variable that is given twice.
    """
    from trainmaster.errors import UsageError

    values: dict[str, str | list[str]] = {}
    rest = list(words)
    value: str | list[str]
    while rest:
        word = rest.pop(0)
        if word == "--":
            name, value, rest = _behind_dashes(template), rest, []
        else:
            name, value = _variable(word, rest, template)
        if name in values:
            raise UsageError(f"{name} is given twice")
        values[name] = value
    return values


def _behind_dashes(template: "Template") -> str:
    from trainmaster.errors import UsageError

    if template.command is not None:
        return template.command
    several = " and ".join(name for name, one in template.variables.items() if one.type == "command")
    hint = f"give {several} as key=value" if several else ""
    raise UsageError(f"the template {template.name!r} takes no program behind --", hint=hint)


def _variable(word: str, rest: list[str], template: "Template") -> tuple[str, str]:
    """Name and value of a variable; the value may be the next of the `rest`."""
    from trainmaster.errors import UsageError

    name, mark, value = word.removeprefix("--").partition("=")
    name = name.replace("-", "_")
    if mark:
        return name, value
    if not word.startswith("--"):
        raise UsageError(f"could not read {word!r}", hint="write key=value, --key value, or the program behind --")
    variable = template.variables.get(name)
    if variable is not None and variable.type == "flag":
        return name, "true"
    if not rest or rest[0] == "--":
        raise UsageError(f"could not read {word}: a value has to follow")
    return name, rest.pop(0)
