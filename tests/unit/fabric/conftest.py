"""What tests of the fabric share: a topology that Slurm could run with."""

from pathlib import Path

import pytest

TOPOLOGY = """SwitchName=a1 Nodes=n[01-04]
SwitchName=a2 Nodes=n[05-08]
SwitchName=b1 Nodes=n[09-12]
SwitchName=pa Switches=a1,a2
SwitchName=pb Switches=b1
SwitchName=top Switches=pa,pb
"""


@pytest.fixture
def source(tmp_path: Path) -> list[str]:
    path = tmp_path / "topology.conf"
    path.write_text(TOPOLOGY)
    return ["--from", str(path)]
