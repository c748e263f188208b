"""Puts a topology.conf beside slurm.conf, once it is sound; one of the site's comes back with the uninstall."""

from collections.abc import Collection
from pathlib import Path

from trainmaster.errors import InstallError
from trainmaster.fabric.lint import Severity, lint
from trainmaster.slurm import conf_text

MANIFEST = "trainmaster-topology.json"
FILE = "topology.conf"
_PLUGINS = {"tree": "SwitchName", "block": "BlockName"}


def files(source: Path, *, nodes: Collection[str] | None) -> dict[str, bytes]:
    """By path, what it shall hold. Raises InstallError for a file that cannot be read, or with which slurmctld ends.

    Args:
        source: the file, as `trainmaster fabric emit` writes it.
        nodes: the nodes that Slurm has; None where it was not asked.
    """
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InstallError(f"{source} cannot be read: {error}", hint="--file names a topology.conf") from None
    wrong = [one for one in lint(text, slurm_nodes=nodes) if one.severity is Severity.ERROR]
    if wrong:
        told = "\n".join(f"  {one}" for one in wrong[:5])
        raise InstallError(
            f"{source} is not installed, since slurmctld would end with it, or give jobs wrong nodes:\n{told}",
            hint=f"`trainmaster fabric lint {source}` tells all",
        )
    return {FILE: text.encode()}


def line_for(text: str) -> str:
    """The line of slurm.conf under which Slurm reads the file."""
    kind = next((kind for kind, word in _PLUGINS.items() if word.lower() in text.lower()), "tree")
    return f"TopologyPlugin=topology/{kind}"


def is_used(folder: Path) -> bool:
    """Whether the slurm.conf in a folder makes slurmctld read topology.conf; it would not start without the file."""
    try:
        told = conf_text.read(folder / "slurm.conf").settings.get("topologyplugin", "")
    except OSError:
        return False
    return told.lower().removeprefix("topology/") in _PLUGINS
