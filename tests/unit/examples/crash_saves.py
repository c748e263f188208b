"""Saves a checkpoint and dies in it: at the first file operation, then at the second, and so on to the last.

Prints, for each death, the step of the newest whole checkpoint and the number that it holds, as JSON. Needs
examples/tiny_gpt on the path.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from checkpoint import CheckpointFolder, newest_whole, read_manifest

FILE_OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")


def die_at(operation: int, folder: Path) -> None:
    """SIGKILL for this process when it is about to do its `operation`-th file operation in `folder`."""
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in FILE_OPERATIONS and str(folder) in str(arguments[0]):
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def save(checkpoints: CheckpointFolder, step: int) -> None:
    checkpoints.save({"number": torch.full((3,), float(step))}, step=step, facts={})


def save_and_die(folder: Path, operation: int) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    checkpoints = CheckpointFolder(folder, keep=1)
    save(checkpoints, 1)
    # The folder that the next save wants to make is there already, and damaged.
    (folder / "step_00000002").mkdir()
    die_at(operation, folder)
    save(checkpoints, 2)


def look(folder: Path) -> tuple[int, float]:
    newest = newest_whole(folder)
    assert newest is not None, f"nothing to go on from in {sorted(path.name for path in folder.iterdir())}"
    state = {"number": torch.zeros(3)}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    CheckpointFolder(folder, keep=1).load(newest, state)
    leftovers = list(folder.glob("*.writing-*"))
    assert not leftovers, leftovers
    dist.destroy_process_group()
    return read_manifest(newest)["step"], float(state["number"][0])


def main() -> None:
    found = []
    for operation in range(1, 100):
        folder = Path(sys.argv[1]) / str(operation)
        child = os.fork()
        if child == 0:
            save_and_die(folder, operation)
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        found.append((operation, died, look(folder)))
        if not died:
            break
    print(json.dumps(found))


if __name__ == "__main__":
    main()
