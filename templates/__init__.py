"""sbatch templates and configuration files as Jinja2 text. Drop a `.j2` file in; there is nothing to register.

Configuration files are filled in by `render`, which changes nothing. Job scripts that people ask for are filled in by
`render_script`, in which every value becomes one word of the shell (`shell`), whatever it holds.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The names of all templates, without the `.j2` ending. Those that begin with `_` are parts of others.

    >>> "job.sbatch" in names()
    True
    """
    return tuple(sorted(path.name.removesuffix(".j2") for path in _FOLDER.glob("*.j2")))


def path_of(name: str) -> Path:
    """The file of a template."""
    return _FOLDER / f"{name}.j2"


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that a template includes, and those that they include, in the order of their first use.

    Raises ValueError when one is not written as Jinja has it.
    """
    from jinja2 import TemplateSyntaxError, meta

    environment = _environment()
    found: list[Path] = []
    waiting = [path]
    while waiting:
        text = waiting.pop(0).read_text(encoding="utf-8")
        try:
            tree = environment.parse(text)
        except TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno}: {error.message}") from None
        for name in meta.find_referenced_templates(tree):
            part = _FOLDER / (name or "")
            if name and part.is_file() and part not in found:
                found.append(part)
                waiting.append(part)
    return tuple(found)


def _new_environment(**options: Any) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        **options,
    )


@cache
def _environment() -> "Environment":
    import shlex

    environment = _new_environment()
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment


def render(name: str, /, **values: Any) -> str:
    """Fill the template `name` (without `.j2`); an undefined variable is an error, never an empty string."""
    return _environment().get_template(f"{name}.j2").render(**values)


@cache
def _script_environment() -> "Environment":
    from trainmaster.templates import shell

    environment = _new_environment(finalize=shell.finalize)
    for helper in (shell.option, shell.array, shell.fail, shell.gpu_count, shell.lead_of):
        environment.globals[helper.__name__] = helper
    return environment


def render_script(path: Path, values: Mapping[str, Any]) -> str:
    """Fill a template for a shell script, which may lie anywhere and include the parts that lie here.

    Raises ValueError with the words of the template when it refuses a combination of values, for a value that no line
    can hold, and for a fault of the template.
    """
    from jinja2 import TemplateError

    try:
        return _script_environment().from_string(path.read_text(encoding="utf-8")).render(**values)
    except TemplateError as error:
        raise ValueError(f"the template itself has a fault: {error}") from None
