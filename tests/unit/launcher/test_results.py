"""Whose results are unpickled."""

import os
from pathlib import Path

import pytest
from submitit.core.utils import cloudpickle_dump

from trainmaster.errors import UsageError
from trainmaster.launcher.follow import results


def test_a_result_of_ones_own(tmp_path: Path) -> None:
    cloudpickle_dump(("success", 7), tmp_path / "result.pkl")
    assert results.load(tmp_path / "result.pkl") == ("success", 7)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_result_of_another_user_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "result.pkl"
    cloudpickle_dump(("success", Trap()), path)
    os.chown(path, 54321, 54321)
    with pytest.raises(UsageError, match="belongs to 54321"):
        results.load(path)
    assert not (tmp_path / "ran").exists()
