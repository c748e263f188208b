"""Checkpoints of a training run: written in the background, published whole, checked before they are trusted.

On top of torch.distributed.checkpoint (DCP). A step waits only for the copy into host memory; a thread writes, sums and
publishes. A checkpoint exists once its folder has its final name:

    step_00000050/        __0_0.distcp  __1_0.distcp  .metadata  manifest.json
    step_00000100.writing-5f1c2a/    unfinished; the next run removes it
    owner                 the token of the run that may publish here

Used inside ranks, so it may import torch; nothing else of trainmaster does.
"""

import copy
import json
import os
import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from trainmaster.errors import CheckpointError

MANIFEST = "manifest.json"
OWNER = "owner"
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself."""

    step: int
    files: Mapping[str, tuple[int, int]]
    """Size in bytes and CRC-32 of each file."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the program gave to `save`."""
    world_size: int = 0
    blocked_s: float = 0.0
    """How long training waited for this save: for the one before to end, and for the copy. The slowest rank's."""
    wrote_s: float = 0.0
    """How long the writing took beside the training. The slowest rank's."""

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(size for size, _ in self.files.values())


def read_manifest(path: Path) -> Manifest:
    """The manifest of one checkpoint. Raises OSError, or ValueError for a file that is none."""
    try:
        values = json.loads((path / MANIFEST).read_text())
        files = {name: (int(size), int(crc)) for name, (size, crc) in values.pop("files").items()}
        return Manifest(files=files, **values)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / MANIFEST} is no manifest: {error}") from None


def published(folder: Path) -> list[Path]:
    """Checkpoints under their final names, oldest step first; whether they are whole is another matter."""
    return sorted(path for path in folder.glob("step_*") if path.is_dir() and "." not in path.name)


def to_remove(steps: list[int], *, keep: int, keep_every: int) -> list[int]:
    """Which of the published steps, oldest first, are no longer wanted: all but the last `keep`, and every n-th.

    >>> to_remove([10, 20, 30, 40], keep=2, keep_every=0), to_remove([10, 20, 30, 40], keep=1, keep_every=20)
    ([10, 20], [10, 30])
    """
    return [step for step in steps[: max(0, len(steps) - keep)] if not keep_every or step % keep_every]


def copy_into(memory: Any, value: Any) -> Any:
    """A copy of `value` (tensors, nested in dicts and lists), in the tensors of an earlier copy where they fit.

    Memory that is new to the process costs several times the copying itself.
    """
    if isinstance(value, dict):
        old = memory if isinstance(memory, dict) else {}
        return {key: copy_into(old.get(key), entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        earlier = list(memory) if type(memory) is type(value) else []
        earlier += [None] * (len(value) - len(earlier))
        return type(value)(copy_into(*pair) for pair in zip(earlier, value, strict=False))
    if not isinstance(value, torch.Tensor):
        return copy.deepcopy(value)
    value = value.detach()
    if type(memory) is type(value) and (memory.shape, memory.dtype) == (value.shape, value.dtype):
        return memory.copy_(value)
    return copy.deepcopy(value)


class Checkpoints:
    """The checkpoints of one run. All ranks must make it, and call its methods, together.

    Args:
        folder: Where they lie: storage that all nodes see.
        keep: How many of the newest are kept.
        keep_every: Steps divisible by this are kept for good; 0 for none.
        timeout_s: How long ranks wait for each other while one is written.

    Whoever opens the folder owns it from then on: a rank of an earlier cycle that was only frozen can publish nothing.

    >>> with Checkpoints(Path("checkpoints")) as checkpoints:       # doctest: +SKIP
    ...     manifest = checkpoints.load(state)
    ...     for step in range(manifest.step + 1 if manifest else 1, 1001):
    ...         ...
    ...         if step % 50 == 0:
    ...             checkpoints.save(state, step=step)
    """

    def __init__(self, folder: Path, *, keep: int = 2, keep_every: int = 0, timeout_s: float = 1800.0) -> None:
        self.folder = folder
        self.keep = keep
        self.keep_every = keep_every
        # Saves talk among ranks while training does; on one group the two would mix up their messages.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()
        # Copies into pinned host memory are several times faster, and worth keeping from save to save.
        self._stager = BlockingAsyncStager(cache_staged_state_dict=True) if torch.cuda.is_available() else None
        self._staged: dict[str, Any] | None = None
        """The last copy, whose memory the next one takes."""
        self._pending: Future[None] | None = None
        self._token = str(self._agree(self._take_over))
        self.newest: Path | None = self._find_newest()
        """The newest whole checkpoint when the folder was opened, the same for every rank."""

    def save(self, state: dict[str, Any], *, step: int, facts: Mapping[str, Any] | None = None) -> None:
        """Save `state` (as DCP takes it: tensors by name, also nested) as the checkpoint of `step`.

        Returns when the state has been copied, so it may be changed at once. Raises what went wrong with the save
        before this one, and TypeError for facts that are no JSON.
        """
        started = time.perf_counter()
        # Here, on every rank: found out by rank 0 alone, while it publishes, it would leave the others waiting.
        json.dumps(dict(facts or {}))
        self.wait()
        if self._stager is None:
            # On a CPU the stager of some releases hands back the very tensors that training is about to change.
            self._staged = staged = copy_into(self._staged, state)
        else:
            staged = self._stager.stage(state)
        blocked_s = time.perf_counter() - started
        self._pending = _in_background(lambda: self._write(staged, step, dict(facts or {}), blocked_s))

    def wait(self) -> None:
        """Wait until the last save is published. Raises CheckpointError, on all ranks, when it was not."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def load(self, state: dict[str, Any]) -> Manifest | None:
        """Fill `state` in place from `newest`, whatever the number of ranks it was saved by. None if there is none."""
        if self.newest is None:
            return None
        state_dict_loader.load(state, storage_reader=FileSystemReader(self.newest), process_group=self._group)
        return read_manifest(self.newest)

    def close(self) -> None:
        """Wait for the last save. Call it before `destroy_process_group`."""
        self.wait()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After an error the other ranks may be gone, and a save that waits for them must not hold this one.
        if kind is None:
            self.close()

    # -- opening -------------------------------------------------------------------------------------------------

    def _take_over(self) -> str:
        token = secrets.token_hex(4)
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_synced(self.folder / f"{OWNER}.writing-{token}", token)
        (self.folder / f"{OWNER}.writing-{token}").replace(self.folder / OWNER)
        for leftover in self.folder.glob("*.writing-*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return token

    def _find_newest(self) -> Path | None:
        """The newest checkpoint that every rank, looking at its share of the files, finds whole."""
        names: list[str] = self._agree(lambda: [path.name for path in reversed(published(self.folder))])
        damaged: list[str] = []
        for name in names:
            verdicts: list[bool] = [False] * self._world_size
            whole = _is_whole(self.folder / name, share=self._rank, shares=self._world_size)
            dist.all_gather_object(verdicts, whole, group=self._group)
            if all(verdicts):
                # Later ones would be taken for newer work of this run.
                self._agree(lambda: _remove(self.folder, damaged))
                return self.folder / Path(name)
            damaged.append(name)
        return None

    def _agree(self, on_rank_0: Callable[[], Any]) -> Any:
        """Rank 0's answer, or its error, for all."""
        answer: list[Any] = [None, ""]
        if self._rank == 0:
            try:
                answer[0] = on_rank_0()
            except OSError as error:
                answer[1] = str(error)
        dist.broadcast_object_list(answer, src=0, group=self._group)
        if answer[1]:
            raise CheckpointError(
                f"rank 0 could not use the checkpoints in {self.folder}: {answer[1]}",
                hint="the folder must be on storage that all nodes share, writable, with room",
            )
        return answer[0]

    # -- writing, in the thread ----------------------------------------------------------------------------------

    def _write(self, staged: dict[str, Any], step: int, facts: dict[str, Any], blocked_s: float) -> None:
        started = time.perf_counter()
        writing = self.folder / f"step_{step:08d}.writing-{self._token}"
        state_dict_saver.save(staged, storage_writer=FileSystemWriter(writing), process_group=self._group)
        # Each rank sums its own files; for one rank to read them all back would take as long as a load.
        own = {path.name: _size_and_crc(path) for path in writing.glob(f"__{self._rank}_*")}
        told = (own, blocked_s, time.perf_counter() - started)
        gathered: list[Any] | None = [None] * self._world_size if self._rank == 0 else None
        dist.gather_object(told, gathered, dst=0, group=self._group)

        def publish() -> None:
            assert gathered is not None
            files = {name: entry for shares, _, _ in gathered for name, entry in shares.items()}
            manifest = Manifest(
                step=step,
                files=files | {".metadata": _size_and_crc(writing / ".metadata")},
                facts=facts,
                world_size=self._world_size,
                blocked_s=round(max(blocked for _, blocked, _ in gathered), 4),
                wrote_s=round(max(wrote for _, _, wrote in gathered), 4),
            )
            self._publish(writing, manifest)

        self._agree(publish)

    def _publish(self, writing: Path, manifest: Manifest) -> None:
        _write_synced(writing / MANIFEST, json.dumps(asdict(manifest), indent=1))
        _sync_folder(writing)
        owner = (self.folder / OWNER).read_text()
        if owner != self._token:
            shutil.rmtree(writing, ignore_errors=True)
            raise OSError(f"a later start of this run ({owner}) owns them now; step {manifest.step} is not published")
        final = self.folder / writing.name.partition(".")[0]
        if final.exists():
            # This run came by here before, and found it damaged or was told to go back behind it.
            shutil.rmtree(final)
        writing.rename(final)
        _sync_folder(self.folder)
        steps = [int(path.name.removeprefix("step_")) for path in published(self.folder)]
        earlier = [step for step in steps if step <= manifest.step]
        for step in to_remove(earlier, keep=self.keep, keep_every=self.keep_every):
            shutil.rmtree(self.folder / f"step_{step:08d}", ignore_errors=True)


def _in_background(work: Callable[[], None]) -> Future[None]:
    """Run `work` in a daemon thread: a rank that fails must be able to end while a save waits for other ranks."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return done


def _remove(folder: Path, names: list[str]) -> None:
    for name in names:
        shutil.rmtree(folder / name)


def _is_whole(path: Path, *, share: int, shares: int) -> bool:
    """Whether each `shares`-th file of a checkpoint, from number `share` on, is what its manifest says."""
    try:
        files = sorted(read_manifest(path).files.items())
        return all(_size_and_crc(path / name) == expected for name, expected in files[share::shares])
    except (OSError, ValueError):
        return False


def _size_and_crc(path: Path) -> tuple[int, int]:
    size, crc = 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return size, crc


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
