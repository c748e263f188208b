"""The floor: what starting the ranks costs on this machine when nobody has to notice, decide or schedule anything.

All ranks are started at once and go on from a checkpoint, as after a fault; cold (a new interpreter each) and warm
(forked from one process that has imported what they import).
"""

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

PARTS = {
    "process_start": ("spawned", "started"),
    "import": ("started", "imported"),
    "rendezvous": ("imported", "rendezvous"),
    "checkpoint_load": ("rendezvous", "loaded"),
    "first_step": ("loaded", "stepped"),
    "total": ("spawned", "stepped"),
}
_RANK = Path(__file__).parent / "floor_rank.py"
_TIMEOUT_S = 120.0


def parts(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by part. A part ends when its last rank has ended it; ranks wait for each other anyway.

    Rank 0 alone stamps steps, so "stepped" is missing from the others.

    >>> cold = {"spawned": 0.0, "started": 1.0, "imported": 3.0, "rendezvous": 3.5, "loaded": 4.0, "stepped": 4.5}
    >>> parts([cold])["import"], parts([cold])["total"]
    (2.0, 4.5)
    """
    ends = {name: max(rank[name] for rank in ranks if name in rank) for name in ranks[0]}
    return {part: ends[end] - ends[begin] for part, (begin, end) in PARTS.items()}


class Floor:
    """Measures the floor again and again from one checkpoint; everything lies in `folder`."""

    def __init__(self, script: Path, *, ranks: int, folder: Path) -> None:
        self.script = script
        self.ranks = ranks
        self.folder = folder
        folder.mkdir(parents=True)
        # Twenty steps and their checkpoint; what these ranks have imported is what a warm start has ready.
        self._run("cold", steps=20, checkpoints=folder / "begin")

    def measure(self, kind: str) -> dict[str, float]:
        """Start the ranks once, "cold" or "warm", up to their first step beyond the checkpoint; returns `parts`."""
        checkpoints = self.folder / "again"
        shutil.rmtree(checkpoints, ignore_errors=True)
        shutil.copytree(self.folder / "begin", checkpoints)
        return self._run(kind, steps=21, checkpoints=checkpoints)

    def _run(self, kind: str, *, steps: int, checkpoints: Path) -> dict[str, float]:
        words = [str(self.script), "--steps", str(steps), "--checkpoint-every", "20", "--sample-bytes", "0"]
        words += ["--device", "cpu"]
        words += ["--checkpoint-dir", str(checkpoints), "--metrics", str(checkpoints.with_suffix(".jsonl"))]
        argv = [sys.executable, str(Path(__file__).resolve()), kind, str(self.ranks), str(self.folder), *words]
        with (self.folder / "output").open("ab") as out:
            subprocess.run(argv, stdout=out, stderr=out, timeout=_TIMEOUT_S, check=True)
        if steps == 20:
            return {}
        return parts([json.loads(_stamps(self.folder, rank).read_text()) for rank in range(self.ranks)])


def _stamps(folder: Path, rank: int) -> Path:
    return folder / f"stamps{rank}.json"


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    names = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cold(ranks: int, folder: Path, words: list[str]) -> int:
    port = _free_port()
    started = []
    for rank in range(ranks):
        argv = [sys.executable, str(_RANK), str(_stamps(folder, rank)), repr(time.time()), *words]
        started.append(subprocess.Popen(argv, env=os.environ | _environment(rank, ranks, port)))
    return max([process.wait() for process in started])


def _warm(ranks: int, folder: Path, words: list[str]) -> int:
    """Import what the cold ranks had imported, but for the training's own files, and fork."""
    sys.path.insert(0, str(_RANK.parent))
    floor_rank = importlib.import_module("floor_rank")
    own = {path.stem for path in Path(words[0]).parent.glob("*.py")}
    for name in json.loads((folder / "modules.json").read_text()):
        if name not in own and name.partition(".")[0] in ("torch", "numpy", "trainmaster"):
            importlib.import_module(name)
    port = _free_port()
    pids = []
    for rank in range(ranks):
        spawned_s = time.time()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.environ.update(_environment(rank, ranks, port))
                stamps = {"spawned": spawned_s, "started": time.time()}
                floor_rank.run(stamps, _stamps(folder, rank), words)
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                # Never back into the parent's code, and no exit handlers of what it imported.
                os._exit(code)
        pids.append(pid)
    return max([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])


if __name__ == "__main__":
    start = {"cold": _cold, "warm": _warm}[sys.argv[1]]
    sys.exit(start(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
