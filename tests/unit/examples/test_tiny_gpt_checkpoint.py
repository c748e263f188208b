"""A checkpoint is whole or it is not there, whenever its writer dies and whatever happens to its files later."""

import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from checkpoint import MANIFEST, newest_whole


def put(folder: Path, step: int, *, content: bytes = b"tensors") -> Path:
    path = folder / f"step_{step:08d}"
    path.mkdir(parents=True)
    (path / "__0_0.distcp").write_bytes(content)
    files = {"__0_0.distcp": [len(content), zlib.crc32(content)]}
    (path / MANIFEST).write_text(json.dumps({"step": step, "files": files}))
    return path


def test_a_death_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path, script_env: dict[str, str]) -> None:
    script = Path(__file__).with_name("crash_saves.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=script_env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 10, "the save has more file operations than that"
    steps = [step for _, _, (step, _) in found]
    assert steps == sorted(steps), "once the new checkpoint is there it stays"
    assert set(steps) == {1, 2}
    assert all(number == step for _, _, (step, number) in found)
    assert [died for _, died, _ in found] == [True] * (len(found) - 1) + [False]


def test_the_newest_is_taken(tmp_path: Path) -> None:
    put(tmp_path, 9)
    newest = put(tmp_path, 10)
    assert newest_whole(tmp_path) == newest


def test_there_may_be_none(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "not there") is None
    assert newest_whole(tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "file lost", "manifest lost", "manifest cut", "manifest foreign"])
def test_a_damaged_newest_is_passed_over(tmp_path: Path, damage: str) -> None:
    before, newest = put(tmp_path, 1), put(tmp_path, 2)
    share, manifest = newest / "__0_0.distcp", newest / MANIFEST
    match damage:
        case "cut":
            share.write_bytes(b"tens")
        case "flipped":
            share.write_bytes(b"tensorS")
        case "file lost":
            share.unlink()
        case "manifest lost":
            manifest.unlink()
        case "manifest cut":
            manifest.write_text(manifest.read_text()[:20])
        case "manifest foreign":
            manifest.write_text("[]")
    assert newest_whole(tmp_path) == before


def test_one_that_is_still_being_written_is_passed_over(tmp_path: Path) -> None:
    before = put(tmp_path, 1)
    put(tmp_path, 2).rename(tmp_path / "step_00000002.writing-0123abcd")
    assert newest_whole(tmp_path) == before
