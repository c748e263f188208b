"""The example is an ordinary script for torchrun, and for one process without anything around it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = Path(__file__).resolve().parents[3] / "examples" / "tiny_gpt" / "train.py"
SMALL = ["--d-model", "32", "--layers", "1", "--heads", "2", "--batch", "2", "--steps", "3", "--sample-bytes", "20"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize(("start", "ranks"), [([], 1), (TORCHRUN, 2)], ids=["alone", "torchrun"])
def test_it_runs_unmodified(start: list[str], ranks: int, tmp_path: Path) -> None:
    files = ["--metrics", str(tmp_path / "metrics.jsonl"), "--checkpoint-dir", str(tmp_path / "checkpoints")]
    env = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, *start, str(TRAIN), *SMALL, *files],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert f"{ranks} ranks on " in done.stdout
    assert "--- sample ---\ndef " in done.stdout
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 3
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step_00000003\n"
