"""Replaces a file that others may read at any moment: they see the old or the new one, never half of one."""

from pathlib import Path

from trainmaster.errors import FabricError


def replace(path: Path, text: str) -> None:
    """Write it. Raises FabricError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text)
        if path.exists():
            fresh.chmod(path.stat().st_mode & 0o777)
        fresh.replace(path)
    except OSError as error:
        raise FabricError(f"{path} cannot be written: {error.strerror}") from None
