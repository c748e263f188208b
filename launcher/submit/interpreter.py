"""The interpreter on the nodes. One that is a command of several words becomes a small script in the run folder."""

import shlex
import shutil
from pathlib import Path

FILE = "python"
"""In the run folder."""
CONTAINERS = frozenset({"singularity", "apptainer", "docker", "podman", "podman-hpc", "enroot", "shifter"})


def words_of(python: str) -> tuple[str, ...]:
    """The command that `python` is: one path, blanks in it or not, or several words ("nice -n 5 python3").

    Looks at the disk: what is a file, or does not begin with a program, is a path.
    """
    words = _split(python)
    if len(words) < 2 or Path(python).is_file() or shutil.which(words[0]) is None:
        return (python,)
    return tuple(words)


def one_word(python: str, run_dir: Path) -> str:
    """`python` as one word, where `write` puts it if need be."""
    return python if len(words_of(python)) == 1 else str(run_dir / FILE)


def write(python: str | None, run_dir: Path) -> None:
    """Put a command of several words into the run folder. Raises OSError."""
    if python is not None and len(words := words_of(python)) > 1:
        file = run_dir / FILE
        file.write_text(f'#!/bin/sh\n# What this job calls Python.\nexec {shlex.join(words)} "$@"\n')
        file.chmod(0o755)


def is_container(python: str) -> bool:
    """Whether a command starts a container.

    >>> is_container("singularity exec a.sif python3"), is_container("/usr/bin/nice python3")
    (True, False)
    """
    words = _split(python)
    return len(words) > 1 and Path(words[0]).name in CONTAINERS


def _split(python: str) -> list[str]:
    try:
        return shlex.split(python)
    except ValueError:
        return [python]
