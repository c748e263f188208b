"""Checkpoints that are either whole or not there.

Every rank writes its own share into a temporary folder, with torch.distributed.checkpoint. Rank 0 then adds a manifest
(size and CRC of every file), brings all of it to the disk, and renames the folder: only then does the checkpoint exist.
A process may die between any two of these calls, and the checkpoint before is still the newest whole one.

    checkpoints/
      step_00000050/                 __0_0.distcp  __1_0.distcp  .metadata  manifest.json
      step_00000075/
      step_00000100.writing-5f1c/    left by a run that died; the next run removes it
      latest                         "step_00000075", for people and other tools
"""

import json
import os
import secrets
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

MANIFEST = "manifest.json"
LATEST = "latest"


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint to go on from; one that is damaged or was never finished is passed over."""
    return next((path for path in reversed(_finished(folder)) if _is_whole(path)), None)


def read_manifest(path: Path) -> dict[str, Any]:
    """What the checkpoint says of itself: `step`, `files`, and all that was given to `save` as `facts`."""
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    return manifest


class CheckpointFolder:
    """The checkpoints of one run. All ranks must make it, and call its methods, together.

    `newest` is what rank 0 found when the folder was opened, the same for every rank: ranks that looked for themselves
    could disagree while a network file system settles.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        agreed: list[Any] = [None, None]
        if dist.get_rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob("*.writing-*"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            # A rank of an earlier cycle that was only frozen may wake up and write; it knows another name.
            agreed = [secrets.token_hex(4), newest_whole(folder)]
        dist.broadcast_object_list(agreed, src=0)
        self._token: str = agreed[0]
        self.newest: Path | None = agreed[1]

    def save(self, state: dict[str, Any], *, step: int, facts: dict[str, Any]) -> None:
        """Write `state` (tensors by name) as the checkpoint of `step`; when rank 0 returns, it is on the disk."""
        final = self.folder / f"step_{step:08d}"
        writing = self.folder / f"{final.name}.writing-{self._token}"
        dcp.save(state, storage_writer=dcp.FileSystemWriter(writing, sync_files=True))
        if dist.get_rank() != 0:
            return
        # Rank 0 reads all shares back here. That is right for megabytes; a large model would let each rank sum its own.
        files = {path.name: _size_and_crc(path) for path in sorted(writing.iterdir())}
        _write_synced(writing / MANIFEST, json.dumps({"step": step, **facts, "files": files}, indent=1))
        _sync_folder(writing)
        if final.exists():
            shutil.rmtree(final)  # an earlier run's, which was found damaged: this run came by here again
        writing.rename(final)
        _sync_folder(self.folder)
        marker = self.folder / f"{LATEST}.writing-{self._token}"
        _write_synced(marker, final.name + "\n")
        marker.replace(self.folder / LATEST)
        finished = _finished(self.folder)
        now = finished.index(final)
        # One of a later step was found damaged, or this run would have gone on from there.
        for useless in finished[: max(0, now + 1 - self.keep)] + finished[now + 1 :]:
            shutil.rmtree(useless, ignore_errors=True)

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Fill the tensors of `state` in place."""
        dcp.load(state, storage_reader=dcp.FileSystemReader(path))


def _finished(folder: Path) -> list[Path]:
    """Folders that were renamed to their final name, oldest step first."""
    return sorted(path for path in folder.glob("step_*") if path.is_dir() and "." not in path.name)


def _is_whole(path: Path) -> bool:
    try:
        files: dict[str, list[int]] = read_manifest(path)["files"]
        return all(_size_and_crc(path / name) == expected for name, expected in files.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # no manifest, or not one of ours


def _size_and_crc(path: Path) -> list[int]:
    content = path.read_bytes()
    return [len(content), zlib.crc32(content)]


def _write_synced(path: Path, text: str) -> None:
    with path.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    """A file's name is on the disk only when the folder that holds the name is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
