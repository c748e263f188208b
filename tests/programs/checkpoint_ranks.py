"""Ranks that save and load checkpoints: `checkpoint_ranks.py FOLDER RANKS SCENE`; prints what rank 0 saw as JSON.

Ranks are forked from this process, so that torch is imported once.
"""

import json
import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainmaster.errors import CheckpointError
from trainmaster.launcher.rank import copies, saves
from trainmaster.launcher.rank.checkpoints import Checkpoints
from trainmaster.launcher.rank.manifest import mark_diverged, published, read_manifest


def state_of(value: float) -> dict[str, Any]:
    return {"weights": torch.full((64, 3), value), "nested": {"count": torch.tensor(value)}, "name": "tiny"}


def steps(folder: Path) -> list[str]:
    return [path.name for path in published(folder)]


def save_three(folder: Path) -> dict[str, Any]:
    with Checkpoints(folder, keep=2, timeout_s=60) as checkpoints:
        state = state_of(0.0)
        for step in (10, 20, 30):
            state["weights"].fill_(step)
            state["nested"]["count"].fill_(step)
            checkpoints.save(state, step=step, facts={"seen": step * 8})
            # Training goes on at once; what it does now belongs to the next checkpoint.
            state["weights"].fill_(-1.0)
    return {"steps": steps(folder)}


def load(folder: Path) -> dict[str, Any]:
    with Checkpoints(folder, timeout_s=60) as checkpoints:
        state = state_of(-1.0)
        manifest = checkpoints.load(state)
    if manifest is None:
        return {"step": None, "steps": steps(folder)}
    weights = state["weights"]
    return {
        "step": manifest.step,
        "facts": dict(manifest.facts),
        "saved_by": manifest.world_size,
        "size_bytes": manifest.size_bytes,
        "weights": [float(weights.min()), float(weights.max())],
        "count": float(state["nested"]["count"]),
        "steps": steps(folder),
    }


def two_owners(folder: Path) -> dict[str, Any]:
    first = Checkpoints(folder, keep=1, timeout_s=60)
    first.save(state_of(1.0), step=1)
    first.wait()
    second = Checkpoints(folder, keep=1, timeout_s=60)
    second.save(state_of(3.0), step=3)
    second.wait()
    # It was frozen, and does not know that the run went on without it.
    first.save(state_of(2.0), step=2)
    try:
        first.wait()
        refused = ""
    except CheckpointError as error:
        refused = str(error)
    return {"refused": refused, "steps": steps(folder), "left": sorted(path.name for path in folder.iterdir())}


def strange_facts(folder: Path) -> dict[str, Any]:
    with Checkpoints(folder, timeout_s=60) as checkpoints:
        try:
            checkpoints.save(state_of(1.0), step=1, facts={"where": folder})
            refused = ""
        except TypeError as error:
            refused = str(error)
    return {"refused": refused, "steps": steps(folder)}


def auto(folder: Path) -> dict[str, Any]:
    """`every="auto"`: which steps are saved, on each rank, and what the record says."""
    run_dir = Path(f"{folder}.run")
    run_dir.mkdir(exist_ok=True)
    os.environ["TRAINMASTER_RUN_DIR"] = str(run_dir)
    mine = []
    state = state_of(0.0)
    with Checkpoints(folder, every="auto", memory_every=5, keep=100, timeout_s=60) as checkpoints:
        before = checkpoints.save

        def save(*args: Any, **kwargs: Any) -> None:
            mine.append(kwargs["step"])
            before(*args, **kwargs)

        checkpoints.save = save  # type: ignore[method-assign]
        found = checkpoints.load(state)
        first = found.step + 1 if found else 1
        for step in range(first, first + 40):
            # Ranks that are not equally fast, and not equally slow at writing.
            time.sleep(0.002 * (1 + dist.get_rank()))
            dist.barrier()
            checkpoints.after_step(lambda: state, step=step)
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, mine)
    lines = saves.read(run_dir)
    return {
        "shards": shards(folder),
        "saved": everybody,
        "on_disk": [int(name.removeprefix("step_")) for name in steps(folder)],
        "every": read_manifest(published(folder)[-1]).every,
        "kinds": [line.kind for line in lines],
        "costs": [
            line.blocked_s + line.wrote_s > 0 and line.size_bytes > 0 for line in lines if line.kind == saves.DISK
        ],
        "chosen": [line.detail["every"] for line in lines if line.kind == saves.INTERVAL],
    }


def shards(folder: Path) -> dict[str, Any]:
    """A DTensor's copy is this rank's part of it, and goes back into it in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    whole = torch.arange(8.0)
    state = {"w": distribute_tensor(whole, mesh, [Shard(0)])}
    pieces, tensors, others = copies.plan(state)
    slot = copies.Slot(Path(f"{folder}.{dist.get_rank()}"), pinned=False)
    size = slot.write(pieces, tensors, copies.extra_of(pieces, others, {}))
    copy = copies.Kept(slot.path, step=1, size=size, crc=slot.crc())
    target = {"w": distribute_tensor(torch.zeros(8), mesh, [Shard(0)])}
    fits = copy.fits(target)
    copy.fill(target)
    return {"shape": list(pieces[0].shape), "fits": fits, "whole": target["w"].full_tensor().tolist()}


def diverged(folder: Path) -> dict[str, Any]:
    """Values are not finite while some are saved; then the supervisor marks what was saved since."""
    from trainmaster.launcher.rank import page, worker

    own = Path(f"{folder}.page.{dist.get_rank()}")
    page.create(own)
    os.environ["TRAINMASTER_STEP_FILE"] = str(own)
    with Checkpoints(folder, keep=1, timeout_s=60) as checkpoints:
        for step in (10, 20, 30, 40):
            # One rank's values are enough.
            worker.step(step, loss=float("nan") if step >= 30 and dist.get_rank() == 1 else 1.0)
            checkpoints.save(state_of(step), step=step)
    told: dict[str, Any] = {
        "saved": steps(folder),
        "finite": [read_manifest(path).finite for path in published(folder)],
    }
    dist.barrier()
    if dist.get_rank() == 0:
        mark_diverged(folder, {"since": 30, "good": 29})
    dist.barrier()
    told["loaded"] = load(folder)["step"]
    with Checkpoints(folder, keep=1, timeout_s=60) as checkpoints:
        worker.step(45, loss=1.0)
        checkpoints.save(state_of(45), step=45)
    told["then"] = steps(folder)
    dist.barrier()
    os.environ["TRAINMASTER_DISTRUSTED_FROM"] = "45"
    try:
        Checkpoints(folder, timeout_s=60)
    except CheckpointError as error:
        told["refused"] = str(error)
    return told


SCENES = {
    "diverged": diverged,
    "auto": auto,
    "strange_facts": strange_facts,
    "save_three": save_three,
    "load": load,
    "two_owners": two_owners,
}


def rank_main(folder: Path, rank: int, ranks: int, scene: str, rendezvous: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    found = SCENES[scene](folder)
    dist.barrier()
    if rank == 0:
        print(json.dumps(found), flush=True)


def main() -> int:
    folder, ranks, scene = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    rendezvous = f"{folder}.rendezvous-{os.getpid()}"
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                rank_main(folder, rank, ranks, scene, rendezvous)
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


if __name__ == "__main__":
    sys.exit(main())
