"""Snapshots of the whole model: every shard of the table and the dense half, all of the same step.

    FOLDER/step_00000100/shard-0-of-2.npz  shard-1-of-2.npz  dense.pt

Each file is written under another name and renamed. `dense.pt` comes last, when all shards are on the disk: a snapshot
that has it is whole. Needs no torch.
"""

import os
import secrets
import shutil
from pathlib import Path

KEEP = 2


def shard_file(folder: Path, step: int, index: int, size: int) -> Path:
    """Where a shard's part of a snapshot belongs."""
    return _place(folder, step) / f"shard-{index}-of-{size}.npz"


def dense_file(folder: Path, step: int) -> Path:
    """Where the dense part of a snapshot belongs."""
    return _place(folder, step) / "dense.pt"


def newest(folder: Path) -> int:
    """The step of the newest whole snapshot; 0 if there is none."""
    return max((_step(path.parent) for path in folder.glob("step_*/dense.pt")), default=0)


def commit(folder: Path, step: int, dense: bytes) -> None:
    """Add the dense part to a snapshot whose shards are all written, and drop the oldest snapshots."""
    path = dense_file(folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f"{path.name}.writing-{secrets.token_hex(4)}")
    with writing.open("wb") as stream:
        stream.write(dense)
        stream.flush()
        os.fsync(stream.fileno())
    writing.replace(path)
    for old in sorted(folder.glob("step_*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def _place(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}"


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step_"))
