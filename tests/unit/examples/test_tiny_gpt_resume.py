"""Training that stops and goes on is the training that never stopped, bit for bit."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import checkpoint
import pytest

GANG = Path(__file__).with_name("gang.py")
SMALL = ["--d-model", "32", "--layers", "1", "--heads", "2", "--batch", "2", "--checkpoint-every", "4"]


def gang(runs: Sequence[dict[str, Any]], env: dict[str, str]) -> list[list[int]]:
    done = subprocess.run(
        [sys.executable, str(GANG), json.dumps(runs)], env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def arguments(folder: Path, steps: int) -> list[str]:
    files = ["--checkpoint-dir", str(folder / "checkpoints"), "--metrics", str(folder / "metrics.jsonl")]
    return [*SMALL, "--steps", str(steps), "--sample-bytes", "0", *files]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> dict[int, float]:
    """By step; where a step was computed twice, the last time counts."""
    return {line["step"]: line["loss"] for line in metrics(folder)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, script_env: dict[str, str]) -> tuple[Path, list[list[int]]]:
    folder = tmp_path_factory.mktemp("runs")
    plan = [
        {"ranks": 3, "argv": arguments(folder / "straight", 16)},
        {"ranks": 3, "argv": arguments(folder / "in_two", 8)},
        {"ranks": 3, "argv": arguments(folder / "in_two", 16)},
        {"ranks": 3, "argv": arguments(folder / "signalled", 2000), "usr2_at_step": 5},
        {"ranks": 2, "argv": arguments(folder / "fewer_ranks", 8)},
        {"ranks": 1, "argv": arguments(folder / "fewer_ranks", 12)},
    ]
    return folder, gang(plan, script_env)


def test_a_run_in_two_parts_has_the_losses_of_a_straight_run(runs: tuple[Path, list[list[int]]]) -> None:
    folder, codes = runs
    assert codes[:3] == [[0, 0, 0]] * 3
    assert losses(folder / "in_two") == losses(folder / "straight")
    assert [line["step"] for line in metrics(folder / "in_two")] == list(range(1, 17)), "a step was done twice"


def test_a_run_in_two_parts_ends_with_the_same_bits_on_the_disk(runs: tuple[Path, list[list[int]]]) -> None:
    folder, _ = runs
    straight, in_two = (folder / name / "checkpoints" / "step_00000016" for name in ("straight", "in_two"))
    shares = sorted(path.name for path in straight.glob("*.distcp"))
    assert shares == ["__0_0.distcp", "__1_0.distcp", "__2_0.distcp"], "every rank writes a share"
    for name in shares:
        assert (in_two / name).read_bytes() == (straight / name).read_bytes()


def test_a_signal_to_one_rank_stops_all_after_the_same_step(runs: tuple[Path, list[list[int]]]) -> None:
    folder, codes = runs
    assert codes[3] == [75, 75, 75]
    newest = checkpoint.newest_whole(folder / "signalled" / "checkpoints")
    assert newest is not None
    assert checkpoint.read_manifest(newest)["step"] == metrics(folder / "signalled")[-1]["step"]


def test_another_number_of_ranks_goes_on_with_the_next_samples(runs: tuple[Path, list[list[int]]]) -> None:
    folder, codes = runs
    assert codes[4:] == [[0, 0], [0]]
    newest = checkpoint.newest_whole(folder / "fewer_ranks" / "checkpoints")
    assert newest is not None
    assert checkpoint.read_manifest(newest)["seen"] == 8 * 2 * 2 + 4 * 2 * 1
