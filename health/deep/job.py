"""The batch step of a validation: `job.py FOLDER`. Starts the nodes' parts with srun, one after another, and ends.

First of all it drains again what was lifted for it to start, so that nothing depends on whoever submitted it. A node
that does not come back does not hold the others up for long, and its srun is left behind.
Standard library only, Python 3.9. Judges only to know whom to look at again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # Started as a file: nothing of ours is on the path yet, and what lies beside this file shall not be.
    sys.path[:] = [str(Path(__file__).absolute().parents[3]), *sys.path[1:]]

from trainmaster.health.deep import judge as judges
from trainmaster.health.deep import task as tasks
from trainmaster.health.deep import told as reports
from trainmaster.health.deep.judge import Look
from trainmaster.health.deep.task import Task

NODE = Path(__file__).absolute().with_name("node.py")
PATIENCE = 3.0
"""So many times as long as most nodes took, and MORE_S, the others may take."""
MORE_S = 60.0
GRACE_S = 5.0
BEAT_S = 5.0
REFERENCES = 3
"""Nodes that did not stand out, which those that did meet in the second look."""
SLURM_S = 20.0


def put_back(task: Task) -> None:
    """Drain again, with our own reason, what is not drained any more."""
    for node, reason in task.lifted.items():
        try:
            shown = _slurm(["scontrol", "--oneliner", "show", "node", node])
            state = next((word for word in shown.split() if word.startswith("State=")), "")
            if state and "DRAIN" not in state:
                _slurm(["scontrol", "update", f"NodeName={node}", "State=DRAIN", f"Reason={reason}"])
        except (OSError, subprocess.SubprocessError):
            continue  # whoever submitted the job does it too


def _slurm(argv: Sequence[str]) -> str:
    return subprocess.run(list(argv), capture_output=True, text=True, check=True, timeout=SLURM_S).stdout


def command(folder: str, task: Task, nodes: Sequence[str], part: str) -> list[str]:
    """The srun that starts a part on these nodes, with all that they have."""
    count = len(nodes)
    words = ["srun", "--overlap", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", "--mem=0"]
    words += [f"--nodelist={','.join(nodes)}", f"--mpi={'pmix' if part == 'mpi' else 'none'}", "--cpu-bind=quiet,none"]
    words += ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--input=none", "--export=ALL"]
    words += [f"--gres=gpu:{task.gpus}"] if task.gpus else []
    return [*words, task.python, str(NODE), folder, part]


def run_part(folder: str, task: Task, nodes: Sequence[str], part: str) -> None:
    """Start a part on these nodes, and wait until it is over or those that are missing have had their time."""
    if not nodes:
        return
    into = folder if part == "checks" else f"{folder}/{part}"
    os.makedirs(into, exist_ok=True)
    if into != folder:
        # Only who takes part; the first of them holds the store.
        some = task._replace(nodes=tuple(nodes), addresses={node: task.addresses[node] for node in nodes})
        tasks.write(into, some)
    began_s = time.monotonic()
    top = Path(folder).parent if Path(folder).name == tasks.AGAIN else Path(folder)
    beat_s = 0.0
    srun = subprocess.Popen(command(folder, task, nodes, part), stdin=subprocess.DEVNULL, start_new_session=True)
    most_s = 0.0
    while srun.poll() is None:
        time.sleep(0.2)
        passed_s = time.monotonic() - began_s
        if passed_s >= beat_s:
            beat_s = passed_s + BEAT_S
            (top / tasks.ALIVE).write_text(str(time.monotonic()))
        over = sum(1 for node in nodes if (told := reports.read(into, node)) is not None and told.over)
        if over == len(nodes) and passed_s > most_s + GRACE_S and most_s:
            break
        if not most_s and over > len(nodes) / 2:
            most_s = passed_s
        if passed_s > (min(task.limit_s, PATIENCE * most_s + MORE_S) if most_s else task.limit_s) + GRACE_S:
            break
    _end(srun)


def _end(srun: subprocess.Popen[bytes]) -> None:
    """Have slurmstepd kill what is left, as far as nodes answer."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if srun.poll() is None:
            srun.send_signal(number)
            try:
                srun.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                continue


def look_of(folder: str, task: Task) -> Look:
    """What the nodes have told in a folder."""
    found = {part: _told(f"{folder}/{part}", task.nodes) for part in task.means if len(task.nodes) > 1}
    return Look(_told(folder, task.nodes), found)


def _told(folder: str, nodes: Sequence[str]) -> dict[str, reports.Told]:
    found = ((node, reports.read(folder, node)) for node in nodes)
    return {node: told for node, told in found if told is not None}


def look_again(folder: str, task: Task) -> bool:
    """A second look at those that stood out; whether anybody did."""
    own, paired = judges.suspects(judges.judge(task.nodes, look_of(folder, task)))
    if not own and not paired:
        return False
    clean = [node for node in task.nodes if node not in own and node not in paired]
    meeting = [*clean[:REFERENCES], *paired] if paired else []
    again = f"{folder}/{tasks.AGAIN}"
    os.makedirs(again, exist_ok=True)
    second = task._replace(nodes=tuple(dict.fromkeys((*own, *meeting))), lifted={})
    tasks.write(again, second)
    run_part(again, second, own, "checks")
    for part in task.means if len(meeting) > 1 else ():
        run_part(again, second, meeting, part)
    return True


def main(argv: list[str]) -> int:
    """All parts, then a word that it is over."""
    folder = argv[0]
    task = tasks.read(folder)
    put_back(task)
    run_part(folder, task, task.nodes, "checks")
    through = [node for node in task.nodes if (told := reports.read(folder, node)) is not None and told.over]
    # Who is stuck would hold everybody up here.
    for part in task.means if len(through) > 1 else ():
        run_part(folder, task, through, part)
    again = look_again(folder, task)
    with open(f"{folder}/{tasks.ENDED}.new", "w", encoding="utf-8") as stream:
        json.dump({"again": again}, stream)
    os.replace(f"{folder}/{tasks.ENDED}.new", f"{folder}/{tasks.ENDED}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
