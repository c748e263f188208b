"""Checkpoints by real ranks over gloo: whole or not there, the same for all ranks, and only from those who own them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainmaster.launcher.rank.manifest import MANIFEST, read_manifest, to_remove
from trainmaster.launcher.rank.staging import copy_into

PROGRAM = Path(__file__).parents[2] / "programs" / "checkpoint_ranks.py"


def play(scene: str, folder: Path, *, ranks: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(ranks), scene],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_saved_by_two_ranks_loaded_by_three_past_a_damaged_one(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert play("save_three", folder, ranks=2) == {"steps": ["step_00000020", "step_00000030"]}
    manifest = read_manifest(folder / "step_00000030")
    assert (manifest.step, manifest.world_size, dict(manifest.facts)) == (30, 2, {"seen": 240})
    assert manifest.wrote_s > 0
    assert set(manifest.files) == {path.name for path in (folder / "step_00000030").iterdir()} - {MANIFEST}
    share = next((folder / "step_00000030").glob("__0_*"))
    content = bytearray(share.read_bytes())
    content[len(content) // 2] ^= 1
    share.write_bytes(content)
    (folder / "step_00000040.writing-0123abcd").mkdir()
    found = play("load", folder, ranks=3)
    assert found == {
        "step": 20,
        "facts": {"seen": 160},
        "saved_by": 2,
        "size_bytes": read_manifest(folder / "step_00000020").size_bytes,
        "weights": [20.0, 20.0],
        "count": 20.0,
        "steps": ["step_00000020"],
    }
    assert sorted(path.name for path in folder.iterdir()) == ["owner", "step_00000020"]


def test_a_rank_of_an_old_cycle_publishes_and_removes_nothing(tmp_path: Path) -> None:
    found = play("two_owners", tmp_path / "checkpoints", ranks=2)
    assert "a later start of this run" in found["refused"]
    assert "step 2 is not published" in found["refused"]
    assert found["steps"] == ["step_00000003"]
    assert found["left"] == ["owner", "step_00000003"]


def test_what_was_saved_when_training_had_diverged_is_passed_over(tmp_path: Path) -> None:
    """The newest whole checkpoint held NaN, and every restart went on from it; retention had removed the older ones."""
    found = play("diverged", tmp_path / "checkpoints", ranks=2)
    assert found["saved"] == ["step_00000020", "step_00000030", "step_00000040"], "the last good one is kept"
    assert found["finite"] == [True, False, False]
    assert found["loaded"] == 20
    assert found["then"] == ["step_00000045"]
    assert "all of them (step_00000045) may hold a state that had diverged" in found["refused"]
    assert "remove its diverged.json" in found["refused"]


def test_facts_that_are_no_json_are_refused_on_every_rank(tmp_path: Path) -> None:
    """Rank 0 alone found out, in its thread, and the others waited for its answer until their time was up."""
    found = play("strange_facts", tmp_path / "checkpoints", ranks=2)
    assert "not JSON serializable" in found["refused"] and found["steps"] == []


def test_nothing_to_load(tmp_path: Path) -> None:
    assert play("load", tmp_path / "checkpoints", ranks=1) == {"step": None, "steps": []}


def test_the_interval_is_chosen_on_all_ranks_alike_and_kept_by_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    found = play("auto", folder, ranks=2)
    assert found["saved"][0] == found["saved"][1] == found["on_disk"]
    assert found["saved"][0][0] == 10, "the first save of a run that has measured nothing"
    assert found["chosen"] and found["every"] == found["chosen"][-1]
    assert found["kinds"].count("disk") == len(found["on_disk"]) and all(found["costs"])
    # Of a sharded tensor each rank copies its own part.
    assert found["shards"] == {"shape": [4], "fits": True, "whole": [float(number) for number in range(8)]}
    again = play("auto", folder, ranks=2)
    assert again["kinds"].count("load") == 1
    assert again["saved"][0] in ([], again["saved"][1])
    if again["saved"][0]:
        assert again["saved"][0][0] == found["on_disk"][-1] + found["every"]


def test_a_copy_is_made_in_the_memory_of_the_one_before() -> None:
    state = {
        "a": torch.ones(3),
        "deep": [{"b": torch.zeros(2)}, 7],
        "grows": torch.ones(1),
        "p": torch.nn.Parameter(torch.ones(2)),
    }
    first = copy_into(None, state)
    state["a"].fill_(5.0)
    assert first["a"].tolist() == [1, 1, 1]
    state["grows"] = torch.ones(4)
    state["new"] = "text"
    again = copy_into(first, state)
    assert again["a"] is first["a"] and again["a"].tolist() == [5, 5, 5]
    assert again["deep"][0]["b"] is first["deep"][0]["b"] and again["deep"][1] == 7
    assert again["grows"].shape == (4,) and again["new"] == "text"
    assert again["p"] is first["p"] and again["p"].tolist() == [1, 1]


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}', '{"step": 1, "files": {"a": 3}}', '{"files": {}, "x": 1}'])
def test_a_foreign_manifest_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        read_manifest(tmp_path)


@given(st.lists(st.integers(1, 500), unique=True).map(sorted), st.integers(1, 5), st.integers(0, 50))
def test_the_newest_are_never_removed(steps: list[int], keep: int, keep_every: int) -> None:
    gone = set(to_remove(steps, keep=keep, keep_every=keep_every))
    assert not gone & set(steps[-keep:])
    assert gone <= set(steps)
    if keep_every:
        assert not any(step % keep_every == 0 for step in gone)
    else:
        assert len(steps) - len(gone) <= keep
