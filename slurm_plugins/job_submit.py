"""Puts `job_submit.lua` where slurmctld reads it, beside slurm.conf."""

import os
from pathlib import Path

from trainmaster.errors import InstallError

SOURCE = Path(__file__).resolve().parent / "job_submit.lua"
PLACEMENTS = Path("/run/trainmaster/placements")
"""Where the plug-in looks for the file of `trainmaster fabric plan` unless told otherwise."""
_MARK = "trainmaster fabric plan"


def text(placements: Path) -> str:
    """The plug-in, reading that file. Raises InstallError for a path that is not absolute or that Lua cannot hold."""
    if not placements.is_absolute() or any(letter in str(placements) for letter in '"\\\n'):
        raise InstallError(f"{placements} cannot be the file of placements", hint="name it by its whole, plain path")
    source = SOURCE.read_text(encoding="utf-8")
    assert source.count(f'"{PLACEMENTS}"') == 1
    return source.replace(f'"{PLACEMENTS}"', f'"{placements}"')


def install(output: Path, content: str, *, dry_run: bool = False) -> bool:
    """Write it at once or not at all; returns whether anything changes. slurmctld reads a new file by itself.

    Raises InstallError for a site's own job_submit.lua, which is never replaced, and when it cannot be written.
    """
    try:
        here = output.read_text(encoding="utf-8", errors="replace") if output.exists() else None
        if here is not None and _MARK not in here:
            raise InstallError(
                f"{output} is there and is not trainmaster's",
                hint=f"put your rules and those of {SOURCE} into one file: its POLICIES take further entries",
            )
        if here == content or dry_run:
            return here != content
        fresh = output.with_name(f".{output.name}.{os.getpid()}.new")
        fresh.write_text(content, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(output)
    except OSError as error:
        raise InstallError(
            f"could not write {output}: {error.strerror}", hint="run it as who may write there"
        ) from None
    return True
