"""The adaptor over Slurm's commands, where no cluster is needed."""

from pathlib import Path

import pytest

from trainmaster.errors import SlurmMissing
from trainmaster.slurm.commands import Commands


def test_a_cluster_that_is_gone_is_told_at_once(tmp_path: Path) -> None:
    """squeue looks for a missing slurm.conf for a minute, which made `jobs list` hang after `lab down`."""
    gone = tmp_path / "slurm.conf"
    with pytest.raises(SlurmMissing, match=f"{gone}, which is not there"):
        Commands(env={"SLURM_CONF": str(gone), "PATH": "/usr/bin:/bin"}).jobs()
