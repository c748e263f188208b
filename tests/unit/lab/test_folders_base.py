"""Where labs lie."""

import os
from pathlib import Path

import pytest

from trainmaster.lab import folders


def test_a_private_runtime_folder_is_no_place_for_munged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login session's XDG_RUNTIME_DIR has mode 0700, and munged refused to start there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    assert folders.base() == Path(f"/tmp/trainmaster-lab-{os.getuid()}")
    tmp_path.chmod(0o711)
    assert folders.base() == tmp_path / f"trainmaster-lab-{os.getuid()}"
