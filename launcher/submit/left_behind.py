"""Variables of the shell that stay behind although the job's own text names them. Nothing is run to find that out."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from trainmaster.launcher.submit.target import Program, Target, script_of

FILES_MAX = 200
BYTES_MAX = 1 << 18
"""Of one file: what is longer is data."""


def mentioned(names: Sequence[str], text: str) -> set[str]:
    """Which of the names a text reads from its environment: in quotes, after a `$`, or as OmegaConf's `oc.env:`.

    >>> text = "x = os.environ['DATA']; ROOT = 1; y = 'cd $SCRATCH/${WHO}'; z = '${oc.env:LAKE}'"
    >>> sorted(mentioned(["DATA", "ROOT", "SCRATCH", "WHO", "LAKE", "DAT"], text))
    ['DATA', 'LAKE', 'SCRATCH', 'WHO']
    """
    if not names:
        return set()
    one_of = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return set(re.findall(rf"""(?:["']|\$\{{?|oc\.env:)({one_of})(?![A-Za-z0-9_])""", text))


def named_by(
    names: Sequence[str], target: Target, *, lines: Iterable[str] = (), import_path: Iterable[str] = ()
) -> tuple[str, ...]:
    """Which of the names the job's shell lines, its script, or the modules beside that speak of.

    Args:
        names: Variables that stay behind.
        target: What every rank runs.
        lines: Shell lines of the job.
        import_path: Where a callable's modules are imported from, besides the working folder.
    """
    found = mentioned(names, "\n".join(lines)) | _in_files(tuple(names), tuple(_places(target, import_path)))
    return tuple(name for name in names if name in found)


def _places(target: Target, import_path: Iterable[str]) -> Iterator[Path]:
    """Files of the program's own, and the folders whose modules it imports first."""
    if not isinstance(target, Program):
        yield from (Path(folder) for folder in import_path)
        module = getattr(sys.modules.get("__main__"), "__file__", None)
        if module:
            yield Path(module)
        return
    script = script_of(target.argv)
    if script is None and "-m" in target.argv[:-1]:
        script = target.argv[target.argv.index("-m") + 1].replace(".", "/") + ".py"
    for file in (Path(target.argv[0]), *([Path(script)] if script else [])):
        if file.is_file():
            yield file.absolute()
            if file.suffix == ".py":
                yield file.absolute().parent


@lru_cache(maxsize=64)
def _in_files(names: tuple[str, ...], places: tuple[Path, ...]) -> set[str]:
    """A program that submits much reads them once."""
    files: list[Path] = []
    for place in places:
        try:
            files += sorted(place.glob("*.py"))[:FILES_MAX] if place.is_dir() else [place]
        except OSError:
            continue
    found: set[str] = set()
    for file in dict.fromkeys(files):
        try:
            if file.stat().st_size <= BYTES_MAX:
                found |= mentioned(names, file.read_text(errors="replace"))
        except OSError:
            continue
    return found
