"""sbatch templates and configuration files as Jinja2 text. Drop a `.j2` file in; there is nothing to register."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The names of all templates, without the `.j2` ending.

    >>> "job.sbatch" in names()
    True
    """
    return tuple(sorted(path.name.removesuffix(".j2") for path in _FOLDER.glob("*.j2")))


@cache
def _environment() -> "Environment":
    import shlex

    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment


def render(name: str, /, **values: Any) -> str:
    """Fill the template `name` (without `.j2`); an undefined variable is an error, never an empty string."""
    return _environment().get_template(f"{name}.j2").render(**values)
