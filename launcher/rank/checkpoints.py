"""Checkpoints of a training run: written in the background, published whole, checked before they are trusted.

On top of torch.distributed.checkpoint (DCP). A step waits only for the copy into host memory; a thread writes, sums and
publishes. A checkpoint exists once its folder has its final name:

    step_00000050/        __0_0.distcp  __1_0.distcp  .metadata  manifest.json
    step_00000100.writing-5f1c2a/    unfinished; the next run removes it
    owner                 the token of the run that may publish here

Between two of them ranks may copy their states into their nodes' memory (`memory`), and go on from there. Used inside
ranks, so it may import torch.
"""

import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, replace
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
from trainmaster.launcher.rank import manifest, saves, worker
from trainmaster.launcher.rank.manifest import MANIFEST, MEMORY, Manifest
from trainmaster.launcher.rank.memory import MemoryCopies
from trainmaster.launcher.rank.pace import Measured, Pace
from trainmaster.launcher.rank.staging import copy_into, in_background

LOG = logging.getLogger("trainmaster.checkpoints")
OWNER = "owner"
MEMORY_LINE_S = 60.0
"""How often rank 0 writes down what the copies in memory cost, at most."""
State = dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. All ranks must make it, and call its methods, together.

    Args:
        folder: Where they lie: storage that all nodes see.
        every: `after_step` saves at steps divisible by this; "auto" chooses it from what a save costs and how often the
            job fails (`interval`); 0 for never.
        memory_every: `after_step` copies the state into the memory of this node and of another at steps divisible by
            this, in a job of trainmaster; 0 for never.
        keep: How many of the newest are kept.
        keep_every: Steps divisible by this are kept for good; 0 for none.
        timeout_s: How long ranks wait for each other while one is written.

    Whoever opens the folder owns it from then on: a rank of an earlier cycle that was only frozen can publish nothing.

    >>> with Checkpoints(Path("checkpoints"), every=1000, memory_every=50) as checkpoints:       # doctest: +SKIP
    ...     manifest = checkpoints.load(state)
    ...     for step in range(manifest.step + 1 if manifest else 1, 10_001):
    ...         ...
    ...         checkpoints.after_step(state, step=step)
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int | str = 0,
        memory_every: int = 0,
        keep: int = 2,
        keep_every: int = 0,
        timeout_s: float = 1800.0,
    ) -> None:
        self.folder = folder
        self.memory_every = memory_every
        self.keep = keep
        self.keep_every = keep_every
        # Saves talk among ranks while training does; on one group the two would mix up their messages.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()
        # Copies into pinned host memory are several times faster, and worth keeping from save to save.
        self._stager = BlockingAsyncStager(cache_staged_state_dict=True) if torch.cuda.is_available() else None
        self._staged: State | None = None
        """The last copy, whose memory the next one takes."""
        self._pending: Future[None] | None = None
        self._saves = saves.Saves(os.environ)
        self._measured = Measured()
        token, before = self._agree(self._take_over)
        self._token = str(token)
        self._pace = Pace(every, keep_every=keep_every, before=before)
        self._memory: MemoryCopies | None = None
        if memory_every and self._all(MemoryCopies.there(os.environ)):
            self._memory = MemoryCopies(os.environ, folder)
        self._newest: Path | None = None
        self._searched = False
        """The disk was looked through for the newest; where memory serves it need not be."""
        self._from_memory = self._memory is not None and self._memory_is_newest(self._memory)
        if not self._from_memory:
            self._search()

    def after_step(
        self, state: State | Callable[[], State], *, step: int, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Save, or copy into memory, if this step is one for it. Call it on every rank after every step.

        After `trainmaster.step(step)`, a checkpoint that is asked for (`should_checkpoint`) is saved as well, and
        written before this returns when the job is to stop. `state` may be a function that gives it, which is called
        only when it is needed.
        """
        self._measured.step_done(step)
        asked = worker.should_checkpoint()
        on_disk = asked or self._pace.due(step)
        in_memory = self._memory is not None and step % self.memory_every == 0 and not worker.should_stop()
        if not on_disk and not in_memory:
            return
        started = time.perf_counter()
        values = state() if callable(state) else state
        # What was gone on from may be written over from here on.
        self._from_memory = False
        if in_memory:
            self._copy(values, step, facts or {})
        if on_disk:
            self.save(values, step=step, facts=facts)
        if worker.should_stop():
            self.wait()
        self._measured.paused(time.perf_counter() - started)

    def save(self, state: State, *, step: int, facts: Mapping[str, Any] | None = None) -> None:
        """Save `state` (as DCP takes it: tensors by name, also nested) as the checkpoint of `step`.

        Returns when the state has been copied, so it may be changed at once. Raises what went wrong with the save
        before this one, and TypeError for facts that are no JSON.
        """
        started = time.perf_counter()
        # Here, on every rank: found out by rank 0 alone, while it publishes, it would leave the others waiting.
        json.dumps(dict(facts or {}))
        self.wait()
        # Every rank has by now what was chosen while the one before was written.
        self._pace.saved(step)
        if self._stager is None:
            # On a CPU the stager of some releases hands back the very tensors that training is about to change.
            self._staged = staged = copy_into(self._staged, state)
        else:
            staged = self._stager.stage(state)
        blocked_s = time.perf_counter() - started
        finite = worker.values_are_finite()
        self._pending = in_background(lambda: self._write(staged, step, dict(facts or {}), blocked_s, finite=finite))

    def wait(self) -> None:
        """Wait until the last save is published. Raises CheckpointError, on all ranks, when it was not."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def load(self, state: State) -> Manifest | None:
        """Fill `state` in place from the newest there is, in memory or on the disk. None if there is none.

        A checkpoint on the disk may have been saved by any number of ranks. `source` of what is returned says which it
        was.
        """
        started = time.perf_counter()
        found: Manifest | None = None
        if self._from_memory:
            assert self._memory is not None and self._memory.kept is not None
            kept = self._memory.kept
            if self._all(kept.fits(state)):
                kept.fill(state)
                found = Manifest(
                    step=kept.step,
                    files={},
                    facts=kept.extra["facts"],
                    world_size=self._world_size,
                    every=self._pace.every,
                    source=MEMORY,
                )
            else:
                LOG.warning("the copies in memory are of another program's state; loading from the disk")
                self._memory.forget()
                self._from_memory = False
        if found is None:
            self._search()
        if found is None and self._newest is not None:
            state_dict_loader.load(state, storage_reader=FileSystemReader(self._newest), process_group=self._group)
            found = manifest.read_manifest(self._newest)
        if found is not None:
            self._pace.loaded(found.step)
            if self._rank == 0:
                took_s = round(time.perf_counter() - started, 4)
                self._saves.add(saves.LOAD, step=found.step, blocked_s=took_s, detail={"source": found.source})
        return found

    def close(self) -> None:
        """Wait for the last save. Call it before `destroy_process_group`."""
        self.wait()
        if self._memory is not None:
            self._memory.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After an error the other ranks may be gone, and a save that waits for them must not hold this one.
        if kind is None:
            self.close()

    # -- opening -------------------------------------------------------------------------------------------------

    def _memory_is_newest(self, memory: MemoryCopies) -> bool:
        """Whether every rank finds its copy of one round whole, and nothing newer lies on the disk."""
        rounds: list[tuple[int, int] | None] = [None] * self._world_size
        dist.all_gather_object(rounds, memory.find(), group=self._group)
        on_disk: list[str] = self._agree(self._names)[0]
        newest = int(on_disk[-1].removeprefix("step_")) if on_disk else -1
        if None not in rounds and len(set(rounds)) == 1 and rounds[0] is not None and rounds[0][1] >= newest:
            return True
        memory.forget()
        return False

    def _all(self, holds: bool) -> bool:
        """Whether something holds on all ranks."""
        verdicts: list[bool] = [False] * self._world_size
        dist.all_gather_object(verdicts, holds, group=self._group)
        return all(verdicts)

    def _take_over(self) -> tuple[str, int | None]:
        """Become the owner; returns the token, and the interval that was chosen last."""
        token = secrets.token_hex(4)
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest.write_synced(self.folder / f"{OWNER}.writing-{token}", token)
        (self.folder / f"{OWNER}.writing-{token}").replace(self.folder / OWNER)
        for leftover in self.folder.glob("*.writing-*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self._saves.add(saves.FOLDER, step=-1, detail={"folder": str(self.folder.absolute())})
        if since := os.environ.get("TRAINMASTER_DISTRUSTED_FROM"):
            # Training had diverged. Where ranks are in a container, nobody outside could mark what they had saved.
            manifest.mark_diverged(self.folder, {"since": int(since), "good": int(since) or -1, "why": "diverged"})
        return token, self._last_interval()

    def _last_interval(self) -> int | None:
        for path in reversed(manifest.published(self.folder)):
            try:
                return manifest.read_manifest(path).every or None
            except (OSError, ValueError):
                continue
        return None

    def _search(self) -> None:
        if not self._searched:
            self._searched, self._newest = True, self._find_newest()

    def _find_newest(self) -> Path | None:
        """The newest checkpoint that every rank, looking at its share of the files, finds whole."""
        there, marked = self._agree(self._names)
        if marked and not there and not self._agree(self._begins_anew):
            raise CheckpointError(
                f"could not go on from a checkpoint in {self.folder}: all of them ({', '.join(marked)}) may hold a "
                "state that had diverged",
                hint=f"to go on from one all the same remove its {manifest.DIVERGED}, to begin anew remove the folder",
            )
        if marked and self._rank == 0:
            LOG.warning("passing over %s, saved when training had diverged", ", ".join(marked))
        names: list[str] = list(reversed(there))
        damaged: list[str] = []
        for name in names:
            if self._all(manifest.is_whole(self.folder / name, share=self._rank, shares=self._world_size)):
                # Later ones would be taken for newer work of this run.
                self._agree(lambda: manifest.remove(self.folder, damaged))
                return self.folder / Path(name)
            damaged.append(name)
        return None

    def _names(self) -> tuple[list[str], list[str]]:
        """The names of those that may be gone on from, oldest first, and of those that are marked as diverged."""
        there = manifest.published(self.folder)
        marked = [path.name for path in there if manifest.is_diverged(path)]
        return [path.name for path in there if path.name not in marked], marked

    def _begins_anew(self) -> bool:
        return manifest.begins_anew(manifest.published(self.folder))

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

    def _write(
        self, staged: dict[str, Any], step: int, facts: dict[str, Any], blocked_s: float, *, finite: bool
    ) -> None:
        started = time.perf_counter()
        writing = self.folder / f"step_{step:08d}.writing-{self._token}"
        state_dict_saver.save(staged, storage_writer=FileSystemWriter(writing), process_group=self._group)
        # Each rank sums its own files; for one rank to read them all back would take as long as a load.
        own = {path.name: manifest.size_and_crc(path) for path in writing.glob(f"__{self._rank}_*")}
        told = (own, blocked_s, time.perf_counter() - started, finite)
        gathered: list[Any] | None = [None] * self._world_size if self._rank == 0 else None
        dist.gather_object(told, gathered, dst=0, group=self._group)

        def publish() -> int:
            assert gathered is not None
            files = {name: entry for shares, _, _, _ in gathered for name, entry in shares.items()}
            made = Manifest(
                step=step,
                files=files | {".metadata": manifest.size_and_crc(writing / ".metadata")},
                facts=facts,
                world_size=self._world_size,
                blocked_s=round(max(blocked for _, blocked, _, _ in gathered), 4),
                wrote_s=round(max(wrote for _, _, wrote, _ in gathered), 4),
                finite=all(each for _, _, _, each in gathered),
            )
            made = replace(made, every=self._choose(made))
            self._publish(writing, made)
            self._tell(made)
            return made.every

        self._pace.decided = self._agree(publish)

    def _choose(self, made: Manifest) -> int:
        """On rank 0, in the thread that writes: the interval that follows from what this save has cost; 0 for none."""
        self._measured.saved(made.blocked_s, made.wrote_s)
        choice = self._pace.choose(self._measured, os.environ, self._saves.lines()) if self._pace.auto else None
        if choice is None:
            return 0
        if choice.every != self._pace.every:
            self._saves.add(saves.INTERVAL, step=made.step, detail=asdict(choice))
        return choice.every

    def _tell(self, made: Manifest) -> None:
        self._saves.add(
            saves.DISK, step=made.step, blocked_s=made.blocked_s, wrote_s=made.wrote_s, size_bytes=made.size_bytes
        )

    def _publish(self, writing: Path, made: Manifest) -> None:
        manifest.write_synced(writing / MANIFEST, json.dumps(asdict(made), indent=1))
        manifest.sync_folder(writing)
        owner = (self.folder / OWNER).read_text()
        if owner != self._token:
            shutil.rmtree(writing, ignore_errors=True)
            raise OSError(f"a later start of this run ({owner}) owns them now; step {made.step} is not published")
        final = self.folder / writing.name.partition(".")[0]
        if final.exists():
            # This run came by here before, and found it damaged or was told to go back behind it.
            shutil.rmtree(final)
        writing.rename(final)
        manifest.sync_folder(self.folder)
        worker.checkpoint_published(made.step)
        if made.finite:
            # Else those before it may be needed more than this one.
            self._retire(made.step)

    def _retire(self, newest: int) -> None:
        """Remove what is no longer wanted now that a good one of a step is there."""
        earlier = [path for path in manifest.published(self.folder) if _step_of(path) <= newest]
        good = [path for path in earlier if not manifest.is_diverged(path) and manifest.is_finite(path)]
        gone = manifest.to_remove([_step_of(path) for path in good], keep=self.keep, keep_every=self.keep_every)
        for path in earlier:
            if path not in good or _step_of(path) in gone:
                shutil.rmtree(path, ignore_errors=True)

    # -- copies in memory ----------------------------------------------------------------------------------------

    def _copy(self, state: State, step: int, facts: Mapping[str, Any]) -> None:
        assert self._memory is not None

        def agree(holds: bool) -> bool:
            # Once in a run; the thread that writes uses the same group.
            self.wait()
            return self._all(holds)

        self._memory.copy(state, step=step, facts=facts, agree=agree)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))
