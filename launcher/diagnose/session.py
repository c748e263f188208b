"""One round of stop and check, from the srun that starts it on every node to its verdict. Standard library only.

Whoever holds the allocation starts it and asks from time to time whether it is over; nothing here waits. It ends by
itself after its time limit, and what the nodes have told by then is judged.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainmaster.launcher.diagnose.node import TASK, Task, Told
from trainmaster.launcher.diagnose.verdict import NodeReport, Verdict, judge
from trainmaster.launcher.supervise.rank_step import without_outer_step

LOG = logging.getLogger("trainmaster.diagnose")
LIMIT_S = 120.0
"""Time limit of a round."""
GRACE_S = 5.0
"""How much longer srun may take than its tasks, which end by themselves at the limit."""
_SRUN_LOG = "srun.log"
_KILL_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What came of a round."""

    epoch_s: float
    """When it was begun."""
    took_s: float
    nodes: tuple[str, ...]
    told: Mapping[str, Told]
    verdict: Verdict
    said: str = ""
    """What srun said, when some node told nothing."""

    @property
    def means(self) -> str:
        """By what the nodes met."""
        return next((one.means for one in self.told.values() if one.means), "")

    @property
    def rounds(self) -> int:
        """How many rounds of the tournament there were."""
        return max((one.rounds for one in self.told.values()), default=0)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the run folder and for `--json`."""
        return {
            "epoch_s": round(self.epoch_s, 3),
            "took_s": round(self.took_s, 2),
            "nodes": list(self.nodes),
            "means": self.means,
            "rounds": self.rounds,
            "guilty": [{"nodes": list(one.nodes), "why": one.why} for one in self.verdict.nodes],
            "guilty_pairs": [{"nodes": list(one.nodes), "why": one.why} for one in self.verdict.pairs],
            "notes": list(self.verdict.notes),
            "told": {node: asdict(one) for node, one in self.told.items()},
            "srun_said": self.said,
        }


def command(python: str, folder: Path, nodes: Sequence[str], *, means: str, options: Sequence[str] = ()) -> list[str]:
    """The srun that starts one process on each node, beside whatever else runs in the job."""
    count = len(nodes)
    words = ["srun", "--overlap", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
    words += [f"--nodelist={','.join(nodes)}", f"--mpi={'pmix' if means == 'mpi' else 'none'}", "--no-kill"]
    words += ["--kill-on-bad-exit=0", "--wait=0", "--input=none", "--export=ALL", *options]
    return [*words, python, "-P", "-m", "trainmaster.launcher.diagnose.node", str(folder)]


class Session:
    """A round under way."""

    def __init__(self, folder: Path, task: Task, argv: Sequence[str]) -> None:
        """`folder` is this round's own, on storage that all nodes see; it is removed when the round is over."""
        self._folder = folder
        self._task = task
        self._argv = list(argv)
        self._srun: subprocess.Popen[bytes] | None = None
        self._began_epoch_s = time.time()
        self._began_s = time.monotonic()
        self._ended_at: float | None = None
        self._why = ""

    def start(self) -> None:
        """Start it on all nodes. What goes wrong shows in the verdict."""
        self._began_epoch_s, self._began_s = time.time(), time.monotonic()
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            (self._folder / TASK).write_text(json.dumps(asdict(self._task)))
            with (self._folder / _SRUN_LOG).open("ab") as log:
                self._srun = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=without_outer_step(os.environ),
                    start_new_session=True,
                )
        except OSError as error:
            self._why = f"could not start srun: {error}"

    def over(self, now: float) -> bool:
        """Whether nothing of it runs any more; `now` is monotonic."""
        if self._srun is None or self._srun.poll() is not None:
            return True
        if now - self._began_s > self._task.limit_s + GRACE_S:
            self.stop(now)
        return False

    def stop(self, now: float) -> None:
        """Have it ended: srun has slurmstepd kill what is left, as far as nodes answer; then srun is killed."""
        if self._srun is None or self._srun.poll() is not None:
            return
        if self._ended_at is None:
            self._ended_at = now
            self._srun.send_signal(signal.SIGTERM)
        elif now - self._ended_at > _KILL_S:
            self._srun.kill()
            self._srun.wait()

    def diagnosis(self) -> Diagnosis:
        """The verdict on what the nodes have told. Removes the folder."""
        nodes = tuple(self._task.addresses)
        told = {node: one for node in nodes if (one := _read(self._folder / f"{node}.json")) is not None}
        said = self._why
        if not all(one.done for one in told.values()) or len(told) < len(nodes):
            try:
                said += (self._folder / _SRUN_LOG).read_text(errors="replace")[-2000:]
            except OSError:
                pass
        shutil.rmtree(self._folder, ignore_errors=True)
        return Diagnosis(
            epoch_s=self._began_epoch_s,
            took_s=time.monotonic() - self._began_s,
            nodes=nodes,
            told=told,
            verdict=judge(nodes, {node: _report(one) for node, one in told.items()}),
            said=said,
        )


def _read(path: Path) -> Told | None:
    known = {entry.name for entry in fields(Told)}
    try:
        values = json.loads(path.read_text())
        return Told(**{key: value for key, value in values.items() if key in known})
    except (OSError, ValueError, TypeError):
        return None


def _report(told: Told) -> NodeReport:
    return NodeReport(
        node=told.node,
        ready=told.ready,
        checks=tuple(told.checks),
        solo_s=told.solo_s,
        pairs=told.pairs,
        note=told.note,
    )
