"""Puts `job_submit.lua` where slurmctld reads it, beside slurm.conf, and takes it away again."""

import hashlib
import os
import re
from pathlib import Path

from trainmaster.errors import InstallError
from trainmaster.slurm import conf_text

SOURCE = Path(__file__).resolve().parent / "job_submit.lua"
PLACEMENTS = Path("/run/trainmaster/placements")
"""Where the plug-in looks for the file of `trainmaster fabric plan` unless told otherwise."""
POLICIES = Path("/etc/trainmaster/job_submit.conf")
"""Where it looks for the site's policies unless told otherwise."""
_MARK = "trainmaster fabric plan"
_HEAD = re.compile(r"\A-- Written by `trainmaster install job-submit`; ([0-9a-f]{64}) is the sum of what follows\.\n")


def text(placements: Path, policies: Path = POLICIES) -> str:
    """The plug-in, reading those files. Raises InstallError for a path that is not absolute or that Lua cannot hold."""
    source = SOURCE.read_text(encoding="utf-8")
    for path, usual, what in ((placements, PLACEMENTS, "placements"), (policies, POLICIES, "policies")):
        if not path.is_absolute() or any(letter in str(path) for letter in '"\\\n'):
            raise InstallError(f"{path} cannot be the file of {what}", hint="name it by its whole, plain path")
        assert source.count(f'"{usual}"') == 1
        source = source.replace(f'"{usual}"', f'"{path}"')
    return _signed(source)


def _signed(source: str) -> str:
    total = hashlib.sha256(source.encode()).hexdigest()
    return f"-- Written by `trainmaster install job-submit`; {total} is the sum of what follows.\n{source}"


def is_edited(content: str) -> bool:
    """Whether somebody has changed what was installed. One without a sum is an earlier version of ours."""
    head = _HEAD.match(content)
    return head is not None and hashlib.sha256(content[head.end() :].encode()).hexdigest() != head[1]


def install(output: Path, content: str, *, dry_run: bool = False) -> Path | None:
    """Write it at once or not at all; slurmctld reads a new file by itself.

    Returns what was written: None when all is as it should be, and `<output>.new` when the site has edited its file,
    which is kept. Raises InstallError for a site's own job_submit.lua, and when it cannot be written.
    """
    try:
        here = output.read_text(encoding="utf-8", errors="replace") if output.exists() else None
        if here is not None and _MARK not in here:
            raise InstallError(
                f"{output} is there and is not trainmaster's",
                hint=f"put your rules and those of {SOURCE} into one file: its POLICIES take further entries",
            )
        if here == content:
            return None
        target = output.with_name(f"{output.name}.new") if here is not None and is_edited(here) else output
        if dry_run:
            return target
        fresh = output.with_name(f".{output.name}.{os.getpid()}.new")
        fresh.write_text(content, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(target)
    except OSError as error:
        raise InstallError(
            f"could not write {output}: {error.strerror}", hint="run it as who may write there"
        ) from None
    return target


def uninstall(output: Path, *, force: bool = False, dry_run: bool = False) -> tuple[Path, ...]:
    """Remove it, and what an upgrade left beside it; returns what was removed.

    Raises InstallError for another's file, one that somebody has edited, and while slurm.conf wants it: slurmctld does
    not start without a file that JobSubmitPlugins=lua asks for. `force` is for the last two.
    """
    try:
        here = output.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InstallError(f"could not read {output}: {error.strerror}", hint="--output as it was installed") from None
    if _MARK not in here:
        raise InstallError(f"{output} is not trainmaster's", hint="nothing was installed there")
    if is_edited(here) and not force:
        raise InstallError(f"{output} has been edited", hint="--force removes it all the same")
    if _is_used(output.parent) and not force:
        raise InstallError(
            f"slurm.conf beside {output} says JobSubmitPlugins=lua: slurmctld would not start without the file",
            hint="take lua out of JobSubmitPlugins and restart slurmctld first, or use --force",
        )
    gone = tuple(one for one in (output, output.with_name(f"{output.name}.new")) if one.exists())
    try:
        for path in () if dry_run else gone:
            path.unlink()
    except OSError as error:
        raise InstallError(
            f"could not remove {output}: {error.strerror}", hint="run it as who may write there"
        ) from None
    return gone


def _is_used(folder: Path) -> bool:
    try:
        told = conf_text.read(folder / "slurm.conf").settings.get("jobsubmitplugins", "")
    except OSError:
        return False
    return "lua" in told.lower().replace("job_submit/", "").split(",")
